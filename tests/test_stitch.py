"""Overlapping patches become one map, exact to parts of a cell."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from kit import stitch
from kit.errors import KitError, SettingsError, SlideError, TableError
from kit.geometry import grid
from kit.stitch import Stitcher, patch_scores

SIZE = (900, 700)
both = pytest.mark.parametrize("how", ["centre", "window"])


class Plan(NamedTuple):
    """Overlapping patches of some pixels, of a side in level 0."""

    xy: np.ndarray
    side: float
    pixels: int


def overlapping(side: float, pixels: int, step: float = 0.5, beyond: float = 0.0) -> Plan:
    """Patches over the whole slide, and `beyond` its edge by at most so many sides, below 1."""
    over = round(beyond * side)
    bounds = (-over, -over, SIZE[0] + 2 * over, SIZE[1] + 2 * over)
    return Plan(grid(bounds, (side, side), (step * side, step * side)), side, pixels)


def ramp(plan: Plan, across: float = 1.0, down: float = 0.0) -> np.ndarray:
    """What a perfect network says of a slide that rises from corner to corner: pixel averages."""
    middle = (np.arange(plan.pixels) + 0.5) * plan.side / plan.pixels
    x, y = (plan.xy[:, axis, None] + middle for axis in (0, 1))
    rise = across * x[:, None, :] / SIZE[0] + down * y[:, :, None] / SIZE[1]
    return np.asarray(rise / (across + down))


def ramp_of_cells(downsample: float, across: float = 1.0, down: float = 0.0) -> np.ndarray:
    """The same, averaged over the cells, of which the last are cut at the slide's edge."""
    middles = []
    for side in SIZE:
        edges = np.minimum(np.arange(0, side + downsample, downsample), side)
        edges = np.unique(edges)
        middles.append((edges[1:] + edges[:-1]) / 2 / side)
    return np.asarray((across * middles[0] + down * middles[1][:, None]) / (across + down))


def stitched(
    plan: Plan, prob: np.ndarray, downsample: float, how: stitch.How, size=SIZE
) -> np.ndarray:
    with Stitcher(size, downsample, how=how) as stitcher:
        stitcher.add(plan.xy, plan.side, prob)
        return stitcher.result()


def brute_force(plan: Plan, prob: np.ndarray, downsample: int, how: str, size) -> np.ndarray:
    """Weighted means of level-0 pixels, one by one; sides and cells of whole pixels only."""
    width, height = size
    scale = int(plan.side) // plan.pixels
    at = (np.arange(plan.pixels) + 0.5) / plan.pixels
    inside = np.abs(at - 0.5) < 0.25
    hann = np.sin(np.pi * at) ** 2
    cells = (-(-height // downsample), -(-width // downsample))
    found = np.full(cells, np.nan)
    for row, column in np.ndindex(cells):
        tiers: dict[int, list[tuple[float, float, float]]] = {}
        whole = len(range(row * downsample, min((row + 1) * downsample, height))) * len(
            range(column * downsample, min((column + 1) * downsample, width))
        )
        for (left, top), patch in zip(plan.xy, prob, strict=True):
            for tier, of in enumerate([inside, at > 0] if how == "centre" else [at > 0]):
                here = [
                    ((y - top) // scale, (x - left) // scale)
                    for y in range(row * downsample, min((row + 1) * downsample, height))
                    for x in range(column * downsample, min((column + 1) * downsample, width))
                    if 0 <= y - top < plan.side and 0 <= x - left < plan.side
                ]
                here = [(y, x) for y, x in here if of[y] and of[x]]
                if here:
                    ys, xs = (np.array(part) for part in zip(*here, strict=True))
                    weight = 1.0
                    if how == "window":  # in a rectangle of pixels the mean of a product is
                        weight = (hann[ys] * hann[xs]).mean()  # the product of the means
                    level = 2 * tier + (len(here) < whole)
                    tiers.setdefault(level, []).append((weight, len(here), patch[ys, xs].mean()))
        if tiers:
            best = np.array(tiers[min(tiers)])
            found[row, column] = np.average(best[:, 2], weights=best[:, 0] * best[:, 1])
    return found


@both
@pytest.mark.parametrize(
    ("side", "pixels", "downsample"), [(256, 64, 16), (170.67, 128, 16.02), (97.3, 31, 7.0)]
)
def test_a_constant_map_stays_constant(how, side, pixels, downsample):
    plan = overlapping(side, pixels, beyond=0.5)
    found = stitched(plan, np.full((len(plan.xy), pixels, pixels), 0.3), downsample, how)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.3, atol=1e-6)


@both
def test_a_ramp_is_given_back_where_patches_lie_on_whole_cells(how):
    plan = overlapping(256, 64, beyond=0.9)
    found = stitched(plan, np.clip(ramp(plan), 0, 1), 16, how)
    expected = np.broadcast_to(ramp_of_cells(16), found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "downsample", "within"),
    [
        (341, 11.5, 1e-6),  # pixels of half a level-0 pixel: none lies in two cells
        (128, 11.3, (170.5 / 128) ** 2 / 8 / 11.3 / SIZE[1] + 1e-6),  # a pixel is one value
    ],
)
def test_a_ramp_is_given_back_by_windows_wherever_the_patches_lie(pixels, downsample, within):
    plan = overlapping(170.5, pixels, step=0.4)
    found = stitched(plan, ramp(plan, 1.0, 0.5), downsample, "window")
    expected = ramp_of_cells(downsample, 1.0, 0.5)
    right, bottom = ((plan.xy.max(axis=0) + plan.side) // downsample).astype(int)
    assert found.shape == expected.shape
    inside = np.s_[:bottom, :right]
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=within)


def test_a_ramp_is_given_back_by_centres_to_what_their_places_are_rounded_by():
    plan = overlapping(170.5, 341, beyond=0.9)
    found = stitched(plan, np.clip(ramp(plan), 0, 1), 11.5, "centre")
    expected = np.broadcast_to(ramp_of_cells(11.5), found.shape)
    np.testing.assert_allclose(found, expected, atol=0.5 / SIZE[0])  # half a level-0 pixel


@both
def test_the_map_is_that_of_a_count_of_pixels(how):
    random = np.random.default_rng(3)
    size = (61, 47)
    xy = np.stack([random.integers(-10, 50, 14), random.integers(-10, 40, 14)], axis=1)
    plan = Plan(xy, 24.0, 12)
    prob = random.random((14, 12, 12))
    found = stitched(plan, prob, 5, how, size)
    expected = brute_force(plan, prob, 5, how, size)
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_a_network_says_at_a_patchs_rim_does_not_count_beside_a_centre():
    plan = overlapping(256, 64)
    wrong = np.ones((len(plan.xy), 64, 64))
    wrong[:, 16:48, 16:48] = 0.2
    found = stitched(plan, wrong, 16, "centre")
    right, bottom = ((plan.xy.max(axis=0) + 192) // 16).tolist()
    np.testing.assert_allclose(found[4:bottom, 4:right], 0.2, atol=1e-6)
    np.testing.assert_allclose(found[:4, : right + 4], 1.0, atol=1e-6)  # no centre: the rims


def test_a_window_counts_the_nearer_patch_more():
    plan = Plan(np.array([[0, 0], [64, 0]]), 128.0, 32)
    prob = np.stack([np.zeros((32, 32)), np.ones((32, 32))])
    row = stitched(plan, prob, 16, "window", (192, 128))[4]
    assert (row[:4] == 0).all() and (row[8:] == 1).all()
    assert (np.diff(row[3:9]) > 0).all()
    np.testing.assert_allclose(row[4:8] + row[7:3:-1], 1, atol=1e-6)


@both
def test_a_patch_over_the_slides_edge_counts_where_the_slide_is(how):
    prob = np.zeros((1, 8, 8))
    prob[0, 4:, 4:] = 0.8  # the part within the slide
    found = stitched(Plan(np.array([[-16, -16]]), 32.0, 8), prob, 8, how, (40, 40))
    np.testing.assert_allclose(found[:2, :2], 0.8, atol=1e-6)
    assert np.isnan(found[2:]).all() and np.isnan(found[:, 2:]).all()
    prob = np.full((1, 8, 8), 0.4)
    found = stitched(Plan(np.array([[30, 30]]), 32.0, 8), prob, 8, how, (37, 37))
    assert found.shape == (5, 5)
    np.testing.assert_allclose(found[3:, 3:], 0.4, atol=1e-6)
    assert np.isnan(found[:3]).all()


def test_a_cell_is_the_mean_by_area_of_the_pixels_in_it():
    prob = np.array([[[0.0, 1.0], [0.0, 1.0]]])  # pixels of 3 level-0 pixels, from x = 1
    found = stitched(Plan(np.array([[1, 0]]), 6.0, 2), prob, 2, "window", (8, 6))
    np.testing.assert_allclose(found[0], [0, 0, 1, 1], atol=1e-6)
    found = stitched(Plan(np.array([[0, 0]]), 6.0, 2), prob, 4, "window", (8, 6))
    np.testing.assert_allclose(found[0], [0.25, 1.0], atol=1e-6)


def test_two_rims_share_a_cell_by_area_whatever_their_pixels():
    with Stitcher((64, 16), 16, how="centre") as stitcher:
        stitcher.add([[-8, 0]], 32.0, np.zeros((1, 4, 4)))  # to x = 24, of the cell 16 to 32
        stitcher.add([[24, 0]], 64.0, np.ones((1, 32, 32)))
        row = stitcher.result()[0]
    np.testing.assert_allclose(row, [0, 0.5, 1, 1], atol=1e-6)


@both
def test_neither_order_nor_batches_change_the_map(how):
    plan = overlapping(97.3, 31)
    prob = np.random.default_rng(0).random((len(plan.xy), 31, 31))
    once = stitched(plan, prob, 7.0, how)
    order = np.random.default_rng(1).permutation(len(prob))
    with Stitcher(SIZE, 7.0, how=how) as stitcher:
        for part in np.array_split(order, 5):
            sides = np.full(len(part), plan.side)
            stitcher.add(plan.xy[part], sides, prob[part].astype(np.float32))
        np.testing.assert_allclose(stitcher.result(), once, atol=1e-6)
        assert np.array_equal(stitcher.result(), stitcher.result(), equal_nan=True)


def test_nothing_added_is_no_number_and_the_files_go(tmp_path: Path):
    with Stitcher((100, 60), 16, folder=tmp_path / "new") as stitcher:
        stitcher.add(np.zeros((0, 2), int), 32.0, np.zeros((0, 4, 4)))
        assert stitcher.shape == (4, 7)
        assert np.isnan(stitcher.result()).all()
        assert len(list((tmp_path / "new").rglob("*"))) == 3
    assert list((tmp_path / "new").iterdir()) == []
    stitcher.close()
    gc.collect()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"prob": np.full((1, 4, 4), np.nan)}, TableError, "in \\[0, 1\\]"),
        ({"prob": np.full((1, 4, 4), 1.1)}, TableError, "in \\[0, 1\\]"),
        ({"prob": np.zeros((1, 4, 4, 2))}, TableError, "one class at a time"),
        ({"prob": np.zeros((2, 4, 4))}, TableError, "lengths differ"),
        ({"footprint": 0.0}, TableError, "footprint must be above 0"),
        ({"footprint": [32.0, 32.0]}, TableError, "lengths differ"),
        ({"footprint": np.nan}, TableError, "footprint must be above 0"),
        ({"xy_level0": [[100, 0]]}, SlideError, "outside the slide.*100, 0"),
        ({"xy_level0": [[0, -32]]}, SlideError, "outside the slide"),
        ({"xy_level0": [[0.5, 0]]}, SlideError, "whole level-0 pixels"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(change, error, words):
    given = {"xy_level0": [[0, 0]], "footprint": 32.0, "prob": np.zeros((1, 4, 4))}
    with Stitcher((100, 60), 16) as stitcher:
        with pytest.raises(error, match=words):
            stitcher.add(**{**given, **change})
        assert np.isnan(stitcher.result()).all()


def test_a_map_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch):
    for downsample in (0, -1, np.nan, np.inf):
        with pytest.raises(SettingsError, match="downsample must be above 0"):
            Stitcher((100, 60), downsample)
    with pytest.raises(SettingsError, match=r"how is unknown.*did you mean centre"):
        Stitcher((100, 60), 16, how="center")
    with pytest.raises(SlideError, match="at least 1"):
        Stitcher((100, 0), 16)
    monkeypatch.setattr(stitch.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 400}))
    with pytest.raises(KitError, match="no room"):
        Stitcher((100, 60), 16)


def test_a_patch_is_scored_by_its_centre():
    prob = np.zeros((2, 8, 6))
    prob[0, 0, 0] = 0.9  # the rim
    prob[1, 2, 1] = 0.8  # the centre's first pixel: 4 rows of 4
    np.testing.assert_allclose(patch_scores(prob), [0, 0.8])
    np.testing.assert_allclose(patch_scores(prob, "mean"), [0, 0.8 / 16])
    both = np.stack([prob, 1 - prob], axis=-1)
    np.testing.assert_allclose(patch_scores(both, "max"), [[0, 1], [0.8, 1]])


@pytest.mark.parametrize(("side", "kept"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (5, [1, 2, 3])])
def test_the_centre_of_a_small_patch_is_what_is_left_of_it(side, kept):
    prob = np.random.default_rng(0).random((3, side, side)).astype(np.float32)
    expected = prob[:, kept][:, :, kept].astype(np.float64)
    np.testing.assert_allclose(patch_scores(prob, "mean"), expected.mean(axis=(1, 2)))
    assert np.array_equal(patch_scores(prob), expected.max(axis=(1, 2)))


def test_scores_of_no_pixels_are_refused():
    with pytest.raises(TableError, match="pixels of patches"):
        patch_scores(np.zeros((3, 2)))
    with pytest.raises(SettingsError, match="how is unknown"):
        patch_scores(np.zeros((3, 2, 2)), "median")


def test_a_map_is_a_heatmap_of_its_slide():
    from kit.heatmaps import Heatmap
    from kit.lesions import detections

    prob = np.full((1, 8, 8), 0.25)
    prob[0, 4, 4] = 1.0  # alone in the cell from 16 to 20
    with Stitcher((75, 50), 4.0) as stitcher:
        stitcher.add([[0, 0]], 32.0, prob)
        heatmap = Heatmap(stitcher.result().astype(np.float64), 4.0, (75, 50), mpp=2.0)
    found = detections(heatmap.values, downsample=4.0, mpp=0.5, radius_um=10)
    assert found.values.tolist() == [[18, 18, 1.0]]
