"""Crops that share pixels, and cases of equal content, are found and stand in one fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit import overlaps
from kit.errors import GroupLeakError, TableError
from kit.folds import check_no_leak, join_groups
from kit.overlaps import equal_content, overlapping

FOLDS = pd.DataFrame({"case_id": ["a", "b", "c"], "group": ["p", "q", "r"], "fold": [0, 1, 0]})


def crops(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["case_id", "slide", "x", "y", "footprint"])


def found(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table.a, table.b, strict=True))


def test_crops_that_share_a_pixel_in_two_folds_are_named():
    pairs = overlapping(crops(("a", "s", 0, 0, 100), ("b", "s", 99, 99, 100)))
    with pytest.raises(GroupLeakError, match=r"a \(fold 0\) and b \(fold 1\): crops that overlap"):
        check_no_leak(FOLDS, pairs=pairs)
    joined = FOLDS.assign(group=join_groups(FOLDS, pairs))
    assert joined.group.tolist() == ["p", "p", "r"]


@pytest.mark.parametrize(
    ("other", "why"),
    [(("b", "s", 100, 0, 100), "they touch"), (("b", "t", 0, 0, 100), "another slide"),
     (("a", "s", 0, 0, 100), "the same case")],
)  # fmt: skip
def test_crops_that_share_no_pixel_are_no_pair(other, why):
    assert not len(overlapping(crops(("a", "s", 0, 0, 100), other))), why


def test_without_a_slide_column_the_case_is_the_slide():
    patches = crops(("a", "s", 0, 0, 100), ("b", "s", 0, 0, 100))
    assert found(overlapping(patches)) == {("a", "b")}
    assert not len(overlapping(patches.drop(columns="slide")))


def test_a_small_crop_inside_a_large_one_is_found():
    pairs = overlapping(crops(("a", "s", 0, 0, 1000.5), ("b", "s", 700, 700, 8.25)))
    assert found(pairs) == {("a", "b")}


def test_a_pair_of_a_test_case_is_passed_over_by_the_folds():
    pairs = overlapping(crops(("a", "s", 0, 0, 100), ("later", "s", 0, 0, 100)))
    assert check_no_leak(FOLDS, pairs=pairs) is FOLDS


def test_equal_contents_in_two_folds_are_named():
    pairs = equal_content(pd.DataFrame({"case_id": ["a", "b", "c"], "key": ["k", "k", None]}))
    assert found(pairs) == {("a", "b")}
    with pytest.raises(GroupLeakError, match="the same content"):
        check_no_leak(FOLDS, pairs=pairs)
    assert not len(equal_content(pd.DataFrame({"case_id": ["a", "b"], "key": [None, None]})))


def test_random_crops_agree_with_every_pair_looked_at():
    random = np.random.default_rng(0)
    names = [f"c{n:02}" for n in range(30)]
    counted = 0
    for _ in range(40):
        n = 60
        patches = pd.DataFrame({
            "case_id": random.choice(names, n), "slide": random.choice(["s", "t"], n),
            "x": random.integers(-300, 1500, n), "y": random.integers(0, 1500, n),
            "footprint": random.choice([20.0, 33.3, 75.0], n),
        })  # fmt: skip
        case = patches.case_id.to_numpy()
        x, y, side = (patches[name].to_numpy() for name in ("x", "y", "footprint"))
        pairs = {
            tuple(sorted((case[i], case[j])))
            for i in range(n) for j in range(i)
            if case[i] != case[j] and patches.slide[i] == patches.slide[j]
            and max(x[i], x[j]) < min(x[i] + side[i], x[j] + side[j])
            and max(y[i], y[j]) < min(y[i] + side[i], y[j] + side[j])
        }  # fmt: skip
        mine = {tuple(sorted(pair)) for pair in found(overlapping(patches))}
        assert mine == pairs
        counted += len(pairs)
    assert counted > 50


def test_many_overlapping_crops_are_connected_by_few_pairs(monkeypatch):
    monkeypatch.setattr(overlaps, "HELD", 50)
    rows = [(f"c{n:03}", "s", 10.0 * n, 0, 100.0) for n in range(200)]
    pairs = overlapping(crops(*rows))
    assert len(pairs) < 50 + 200
    table = pd.DataFrame({"case_id": [row[0] for row in rows]}).assign(group=lambda t: t.case_id)
    assert join_groups(table, pairs).nunique() == 1


def test_crops_need_their_columns():
    with pytest.raises(TableError, match="footprint"):
        overlapping(crops(("a", "s", 0, 0, 1)).drop(columns="footprint"))


def test_no_crops_are_no_pairs():
    assert list(overlapping(crops()).columns) == ["a", "b", "how"]
