"""Crops that share pixels, and equal images, on two sides of a fold are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.errors import GroupLeakError, TableError
from kit.overlaps import check_no_overlap

FOLDS = pd.DataFrame({"case_id": ["a", "b", "c"], "group": ["p", "q", "r"], "fold": [0, 1, 0]})


def crops(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["case_id", "slide", "x", "y", "footprint"])


def test_crops_that_share_a_pixel_in_two_folds_are_named():
    with pytest.raises(
        GroupLeakError, match=r"1 pairs, first a at x=0, y=0 \(fold 0\) and b at x=99"
    ):
        check_no_overlap(crops(("a", "s", 0, 0, 100), ("b", "s", 99, 99, 100)), FOLDS)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (("b", "s", 100, 0, 100), "they touch"),
        (("b", "t", 0, 0, 100), "another slide"),
        (("c", "s", 0, 0, 100), "the same fold"),
        (("later", "s", 0, 0, 100), "no fold: a test case"),
    ],
)
def test_crops_may_stand_there_if(other, why):
    patches = crops(("a", "s", 0, 0, 100), other)
    assert check_no_overlap(patches, FOLDS) is patches, why


def test_without_a_slide_column_the_case_is_the_slide():
    patches = crops(("a", "s", 0, 0, 100), ("b", "s", 0, 0, 100)).drop(columns="slide")
    check_no_overlap(patches, FOLDS)


def test_a_small_crop_inside_a_large_one_is_found():
    with pytest.raises(GroupLeakError, match="overlap"):
        check_no_overlap(crops(("a", "s", 0, 0, 1000.5), ("b", "s", 700, 700, 8.25)), FOLDS)


def test_equal_contents_in_two_folds_are_named():
    patches = pd.DataFrame({"case_id": ["a", "b", "c"], "key": ["k", "k", "other"]})
    with pytest.raises(
        GroupLeakError, match=r"1 contents, first a \(fold 0\) and b \(fold 1\).*one group"
    ):
        check_no_overlap(patches, FOLDS)
    check_no_overlap(patches.assign(key=["k", None, "k"]), FOLDS)


def test_random_crops_agree_with_every_pair_looked_at():
    random = np.random.default_rng(0)
    names = [f"c{n}" for n in range(12)]
    folds = pd.DataFrame({"case_id": names, "group": names, "fold": np.arange(12) % 3})
    found = 0
    for _ in range(60):
        n = 40
        patches = pd.DataFrame({
            "case_id": random.choice(names, n), "slide": random.choice(["s", "t"], n),
            "x": random.integers(-300, 1500, n), "y": random.integers(0, 1500, n),
            "footprint": random.choice([20.0, 33.3, 75.0], n),
        })  # fmt: skip
        fold = patches.case_id.map(folds.set_index("case_id").fold).to_numpy()
        x, y, side = (patches[name].to_numpy() for name in ("x", "y", "footprint"))
        pairs = sum(
            bool(
                fold[i] != fold[j] and patches.slide[i] == patches.slide[j]
                and max(x[i], x[j]) < min(x[i] + side[i], x[j] + side[j])
                and max(y[i], y[j]) < min(y[i] + side[i], y[j] + side[j])
            )
            for i in range(n) for j in range(i)
        )  # fmt: skip
        if pairs:
            with pytest.raises(GroupLeakError, match=f"Received: {pairs} pairs"):
                check_no_overlap(patches, folds)
            found += 1
        else:
            check_no_overlap(patches, folds)
    assert 5 < found < 60


def test_folds_need_their_columns():
    with pytest.raises(TableError, match="fold"):
        check_no_overlap(crops(("a", "s", 0, 0, 1)), FOLDS.drop(columns="fold"))
