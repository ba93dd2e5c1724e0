"""What patches say of a slide: each feature worked by hand."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from kit.errors import KitError, SettingsError, TableError
from kit.rules import COLUMNS
from kit.slide_features import SHAPES, features, table

SIDE = 100.0


def of(prob, xy=None, footprint=SIDE, mpp: float | None = 10.0, extra=()) -> dict[str, float]:
    """The features of patches side by side; a patch is a mm by a mm."""
    where = [[i * SIDE, 0] for i in range(len(prob))] if xy is None else xy
    return features(prob, where, footprint, mpp=mpp, extra=extra)


def drawn(*rows: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and places of a drawing: a digit is tenths, a point is no patch."""
    signs = np.array([list(row.ljust(max(map(len, rows)), ".")) for row in rows])
    y, x = np.nonzero(signs != ".")
    return signs[y, x].astype(float) / 10, np.stack([x, y], axis=1) * SIDE


TEN = [0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("mean", 0.4),
        ("max", 0.9),
        ("top=5", 3.2 / 5),
        ("top=3", 2.3 / 3),
        ("top=50", 0.4),  # of fewer patches: of all
        ("top=0.2", 0.85),
        ("top=0.05", 0.9),  # half a patch is one
        ("percentile=90", 0.81),  # a tenth of the way from .8 to .9
        ("percentile=50", 0.35),
        ("noisy_or=3", 1 - 0.1 * 0.2 * 0.4),
        ("noisy_or=1", 0.9),
        ("share=0.5", 0.4),  # .5 itself counts
        ("share=0.9", 0.1),
        ("share=0.95", 0.0),
        ("region=0.5", 4.0),
        ("region=0.75", 2.0),
        ("region=0.95", 0.0),
    ],
)
def test_each_score_worked_by_hand(name: str, score: float) -> None:
    assert of(TEN, extra=[name])[name] == pytest.approx(score, abs=1e-12)


def test_noisy_or_saturates_and_says_the_same_of_different_slides() -> None:
    few, many = of([0.999] * 25), of([0.99999] * 25)
    assert few["noisy_or=25"] == many["noisy_or=25"] == 1.0
    assert of([1.0, 0.5])["noisy_or=3"] == 1.0
    tiny = of([1e-18] * 3)["noisy_or=3"]
    assert tiny == pytest.approx(3e-18, rel=1e-12)  # 1 - (1 - p)**3 would be 0


PICTURE = drawn(
    "99.1111",
    "19.1181",
    "1.81111",
    "111.171",
    "1111161",
)
"""Of at least .5: .9 .9 .9 .8 joined by a corner, a lone .8, and .7 above .6."""


def test_regions_touch_by_sides_and_corners() -> None:
    prob, xy = PICTURE
    found = of(prob, xy)
    assert found["region=0.5"] == pytest.approx(4.0)
    assert found["region=0.9"] == pytest.approx(3.0)
    assert found["log_regions"] == pytest.approx(np.log(4))
    assert found["log_second"] == pytest.approx(np.log(3))
    assert found["region_mean"] == pytest.approx(3.5 / 4)
    assert found["region_extent"] == pytest.approx(4 / 9)
    assert found["log_tissue"] == pytest.approx(np.log(1 + len(prob)))
    assert found["log_patches"] == pytest.approx(np.log(1 + len(prob)))
    assert found["log_positive"] == pytest.approx(np.log(8))


def test_regions_are_those_of_scipys_labels() -> None:
    from scipy import ndimage

    random = np.random.default_rng(3)
    there, prob = random.random((23, 31)) < 0.8, random.random((23, 31))
    y, x = np.nonzero(there)
    found = of(prob[there], np.stack([x, y], axis=1) * SIDE + 7000)
    for least in (0.25, 0.5, 0.75):
        numbered, n = ndimage.label(there & (prob >= least), structure=np.ones((3, 3)))
        sizes = np.sort(np.bincount(numbered.ravel())[1:])
        assert found[f"region={least}"] == pytest.approx(sizes[-1])
        if least == 0.5:
            assert found["log_regions"] == pytest.approx(np.log1p(n))
            assert found["log_second"] == pytest.approx(np.log1p(sizes[-2]))


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next() -> None:
    assert of(*drawn("1119", "9111"))["region=0.9"] == pytest.approx(1.0)
    assert of(*drawn("111", "..9", "...", "9.."))["region=0.9"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "eccentricity", "extent"),
    [
        (["9"], 0.0, 1.0),
        (["99", "99"], 0.0, 1.0),
        (["999"], np.sqrt(8 / 9), 1.0),  # variances 2/3 + 1/12 and 1/12
        (["9..", ".9.", "..9"], np.sqrt(16 / 17), 3 / 9),  # 4/3 + 1/12 along, 1/12 across
    ],
)
def test_the_shape_of_the_largest_region(rows, eccentricity: float, extent: float) -> None:
    found = of(*drawn(*rows))
    assert found["region_eccentricity"] == pytest.approx(eccentricity, abs=1e-7)
    assert found["region_extent"] == pytest.approx(extent)


def test_of_two_regions_of_one_size_the_surer_one_is_the_largest() -> None:
    assert of(*drawn("66.88"))["region_mean"] == pytest.approx(0.8)
    assert of(*drawn("88.66"))["region_mean"] == pytest.approx(0.8)


def test_an_area_is_that_of_the_footprint_at_its_mpp() -> None:
    found = features([0.9, 0.9], [[0, 0], [512, 0]], 512.0, mpp=0.25)
    assert found["region=0.5"] == pytest.approx(2 * 0.128**2)


def test_a_grid_of_a_footprint_that_is_no_whole_number_has_no_gaps() -> None:
    side = 64 / 0.4967  # 128.85
    steps = np.arange(13, 113)
    x = np.rint(steps * side).astype(int)
    xy = np.stack([x, np.full(100, 7)], axis=1)
    assert features([0.9] * 100, xy, side, mpp=1000 / side)["region=0.5"] == pytest.approx(100.0)


def test_patches_that_overlap_share_their_cell_which_holds_the_highest() -> None:
    half = [[x, 0] for x in (0, 50, 100, 150, 200, 250)]
    found = of([0.1, 0.9, 0.1, 0.1, 0.8, 0.1], half)
    assert found["region=0.5"] == pytest.approx(1.0)
    assert found["log_tissue"] == pytest.approx(np.log(4))
    assert found["log_regions"] == pytest.approx(np.log(3))


def test_without_patches_all_is_0_and_the_flag_says_so() -> None:
    found = of([], np.empty((0, 2)), extra=["top=7"])
    assert found.pop("no_patch") == 1.0
    assert set(found) == {*COLUMNS, "top=7", *SHAPES}
    assert set(found.values()) == {0.0}
    assert of(TEN)["no_patch"] == 0.0
    assert list(of(TEN, extra=["top=7"])) == ["no_patch", *COLUMNS, "top=7", *SHAPES]


def test_without_mpp_areas_are_not_known_and_the_rest_is() -> None:
    known, unknown = of(TEN), of(TEN, mpp=None)
    areas = {"log_second", "log_tissue", *(name for name in COLUMNS if "region" in name)}
    assert {name for name, value in unknown.items() if np.isnan(value)} == areas
    assert all(known[name] == unknown[name] for name in known if name not in areas)


def test_patches_of_two_sizes_have_no_regions() -> None:
    found = of([0.9, 0.9], footprint=[100.0, 200.0])
    assert np.isnan([found["region=0.5"], found["region_extent"], found["log_regions"]]).all()
    assert found["mean"] == 0.9


def test_the_order_of_patches_changes_no_bit() -> None:
    random = np.random.default_rng(0)
    prob, xy = random.random(900), np.stack(np.divmod(np.arange(900), 30), axis=1) * SIDE
    order = random.permutation(900)
    assert of(prob, xy) == of(prob[order], xy[order])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"prob": [0.5, 1.2]}, TableError, "in \\[0, 1\\]"),
        ({"prob": [0.5, float("nan")]}, TableError, "NaN"),
        ({"prob": [0.5]}, TableError, "lengths differ"),
        ({"footprint": 0.0}, SettingsError, "footprint must be above 0"),
        ({"footprint": float("nan")}, SettingsError, "footprint must be above 0"),
        ({"mpp": -0.5}, SettingsError, "mpp must be above 0"),
        ({"mpp": float("nan")}, SettingsError, "mpp must be above 0"),
        ({"extra": ["tip=5"]}, SettingsError, "did you mean top"),
    ],
)
def test_what_cannot_be_is_refused(change, error: type[KitError], said: str) -> None:
    given = {"prob": [0.5, 0.6], "xy": [[0, 0], [100, 0]], "footprint": 100.0, "mpp": 1.0}
    with pytest.raises(error, match=said):
        features(**(given | change))


def test_the_table_has_a_row_for_each_slide_and_network() -> None:
    patches = pd.DataFrame({
        "case_id": ["b", "a", "a"], "fold": 0, "seed": [0, 1, 1], "model": "m", "x": [0, 0, 100],
        "y": 0, "footprint": SIDE, "prob_tumour": [0.2, 0.6, 0.8],
    })  # fmt: skip
    found = table(patches, "tumour", mpp={"a": 10.0}, extra=["top=1"])
    assert found[["case_id", "fold", "seed", "model"]].to_numpy().tolist() == [
        ["a", 0, 1, "m"], ["b", 0, 0, "m"],
    ]  # fmt: skip
    assert found["mean"].tolist() == pytest.approx([0.7, 0.2])
    assert found["top=1"].tolist() == [0.8, 0.2]
    assert found["region=0.5"][0] == pytest.approx(2.0) and np.isnan(found["region=0.5"][1])
    empty = table(patches[:0], "tumour", mpp={}, extra=["top=1"])
    assert list(empty) == list(found) and len(empty) == 0


def test_forty_thousand_patches_are_reduced_at_once() -> None:
    prob = np.random.default_rng(0).random(40_000)
    xy = np.stack(np.divmod(np.arange(40_000), 200), axis=1) * SIDE
    of(prob, xy)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        of(prob, xy)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2  # 32 ms where nothing else runs


def test_places_far_apart_take_no_memory_for_what_lies_between() -> None:
    far = of([0.9, 0.9, 0.9], [[0, 0], [SIDE, SIDE], [1e9, 1e9]])
    assert far["region=0.5"] == pytest.approx(2.0)
