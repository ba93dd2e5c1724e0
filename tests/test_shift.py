"""Whether the test set is like the training set is found, named, and not invented."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.errors import TableError
from kit.folds import train_test_shift
from kit.shift import image_statistics


def images(seed: int, n: int = 40, stain: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal([190, 130, 170], 12, (n, 1, 1, 3)) + np.array([0, 0, stain])
    return list(np.clip(base + rng.normal(0, 20, (n, 24, 24, 3)), 0, 255).astype(np.uint8))


def test_a_stain_shift_is_found_and_named() -> None:
    table = image_statistics([*images(0), *images(1, stain=-40)])
    found = train_test_shift(table, np.repeat([False, True], 40), permutations=50)
    assert found.auc > 0.9 and found.p == pytest.approx(1 / 51)
    assert found.interval.low > 0.8
    assert found.columns.column[0] in ("blue_mean", "saturation")
    blue = found.columns.set_index("column").loc["blue_mean"]
    assert blue.train - blue.test == pytest.approx(40, abs=9)


@pytest.mark.slow
def test_sets_that_are_alike_are_told_apart_in_five_of_a_hundred() -> None:
    said = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame(np.repeat(rng.normal(size=(60, 6)), 3, axis=0))
        group = np.repeat(np.arange(60), 3)
        found = train_test_shift(table, group < 20, groups=group, permutations=60, seed=seed)
        said += found.p < 0.05
    assert said <= 12


def test_patients_are_not_told_apart_from_themselves() -> None:
    # Each patient has a stain of its own: images of one patient on both sides would give it away.
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 5)
    table = pd.DataFrame(np.repeat(rng.normal(size=(40, 4)), 5, axis=0)
                         + rng.normal(0, 0.01, (200, 4)))  # fmt: skip
    found = train_test_shift(table, group < 12, groups=group, permutations=40)
    assert found.p > 0.05 and found.auc < 0.75


def test_the_same_seed_gives_the_same_answer() -> None:
    table = image_statistics([*images(0), *images(1)])
    side = np.repeat([False, True], 40)
    one, two = (train_test_shift(table, side, permutations=20, seed=3) for _ in range(2))
    assert (one.auc, one.p, one.interval) == (two.auc, two.p, two.interval)


def test_statistics_worked_by_hand_and_of_grey_images() -> None:
    white = np.full((20, 20, 3), 255, np.uint8)
    grey = np.tile(np.array([[0], [100]], np.uint8), (10, 20))[..., None]
    table = image_statistics([white, grey])
    assert table.white[0] == 1 and table.saturation[0] == 0 and table.sharpness[0] == 0
    assert table.black[1] == 0.5 and table.sharpness[1] == 100 and table.contrast[1] == 100


@pytest.mark.parametrize(
    ("table", "side", "groups", "said"),
    [(pd.DataFrame({"a": np.arange(20.0)}), [True] * 3, None, "lengths differ"),
     (pd.DataFrame({"a": [np.nan] * 20}), [True, False] * 10, None, "empty cells"),
     (pd.DataFrame({"a": ["x"] * 20}), [True, False] * 10, None, "must be numbers"),
     (pd.DataFrame({"a": np.arange(20.0)}), [True, False] * 10, [0] * 20, "both sides"),
     (pd.DataFrame({"a": np.arange(20.0)}), [True] * 2 + [False] * 18, None, "too few")],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused(table, side, groups, said) -> None:
    with pytest.raises(TableError, match=said):
        train_test_shift(table, side, groups=groups)
