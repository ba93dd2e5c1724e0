"""Networks that answer for each pixel: what a patch keeps, and the map of the whole slide."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from test_heatmaps import BOUNDS, bound, flat_cells, pyramid_slide
from test_slides import picture, write_pyramid
from test_streams import CLASSES, MeanRed, member, plan_of, same

from kit import _stream, dense, heatmaps, slide_jobs
from kit.annotations import read_mask
from kit.augment import views
from kit.dense import Dense, cells, scores
from kit.errors import ImageError, SettingsError, TableError
from kit.files import read_table, sha256, write_json
from kit.heatmaps import read_map, read_tiff
from kit.models import build_model
from kit.slides import Slide, open_slide
from kit.streams import Member, map_path, predict_slide, slide_map

TUMOUR = Dense("tumour")


def pixels(side: int = 32, fold: int = 0, **how: Any) -> Member:
    """A network that answers for each pixel: its red is the probability of tumour."""
    return member(side, fold, pixels=True, **how)


def mapped(
    slide: Slide, plan: pd.DataFrame, folder: Path, *members: Member, kept: Dense = TUMOUR,
    **how: Any,
) -> tuple[pd.DataFrame, heatmaps.Heatmap]:  # fmt: skip
    path = folder / "one.parquet"
    table = predict_slide(slide, plan, members or [pixels()], classes=CLASSES, path=path,
                          dense=kept, **how)  # fmt: skip
    found = slide_map(path)
    assert found is not None
    return table, found


@pytest.fixture
def slide(tmp_path: Path) -> Any:
    """A slide whose second level has a downsample of 2.0045."""
    full = picture(513, 385)
    half = cv2.resize(full, (256, 192), interpolation=cv2.INTER_AREA)
    with open_slide(write_pyramid(tmp_path / "odd.tiff", [full, half])) as found:
        yield found


# What is kept of a patch


@pytest.mark.parametrize(("shape", "side"), [((32, 32), 16), ((48, 32), 16), ((8, 8), 8)])
def test_squares_hold_the_mean_of_their_pixels(shape: tuple[int, int], side: int) -> None:
    maps = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    found = cells(maps, side)
    assert found.dtype == np.float32
    tall, wide = shape[0] // side, shape[1] // side
    for row, column in ((0, 0), (3, 7), (side - 1, side - 1)):
        square = maps[:, row * tall :, column * wide :][:, :tall, :wide]
        np.testing.assert_allclose(found[:, row, column], square.mean(axis=(1, 2)), atol=1e-6)


def test_pixels_that_squares_cut_count_by_their_parts() -> None:
    maps = np.random.default_rng(0).random((2, 40, 40)).astype(np.float32)  # 2.5 to a square
    fine = np.repeat(np.repeat(maps, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(cells(maps), cells(fine), atol=1e-6)


def test_a_patch_is_the_mean_or_the_maximum_of_its_centre() -> None:
    maps = np.zeros((1, 8, 8, 2))
    maps[..., 1] = np.arange(64).reshape(8, 8) / 64
    maps[..., 0] = 1 - maps[..., 1]
    centre = maps[0, 2:6, 2:6, 1]
    assert scores(maps, "mean", 1)[0, 1] == pytest.approx(centre.mean())
    assert scores(maps, "max", 1)[0].tolist() == [1 - 45 / 64, 45 / 64]  # row 5, column 5
    assert scores(maps, "max", 0)[0].tolist() == [46 / 64, 1 - 46 / 64]  # row 2, column 2


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(SettingsError, match="positive is unknown"):
        TUMOUR.place(("a", "b"))
    with pytest.raises(SettingsError, match="maximum scores one of two classes"):
        Dense("a", "max").place(("a", "b", "c"))
    with pytest.raises(SettingsError, match="score is unknown"):
        Dense("a", "median")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="how is unknown"):
        Dense("a", how="edge")  # type: ignore[arg-type]


# The map


@pytest.mark.parametrize("how", ["centre", "window"])
def test_the_map_of_overlapping_patches_is_the_slides_red(slide, tmp_path, how) -> None:
    plan = plan_of(slide, 32, stride=16)
    table, found = mapped(slide, plan, tmp_path, kept=Dense("tumour", how=how))
    assert (found.downsample, found.size_level0) == (2.0, (513, 385))
    assert (found.mpp, found.case_id, found.name) == (1.0, "one", "tumour")
    red = picture(513, 385)[..., 0].astype(np.float64) / 255
    by_hand = red[:384, :512].reshape(192, 2, 256, 2).mean(axis=(1, 3))
    assert found.values.shape == (193, 257)
    np.testing.assert_allclose(found.values[:192, :256], by_hand, atol=1e-6)
    assert np.isnan(found.values[192]).all() and np.isnan(found.values[:, 256]).all()
    assert np.nanmax(np.abs(np.roll(found.values, 16, axis=1)[:192, :256] - by_hand)) > 0.1
    centre = [red[y + 8 : y + 24, x + 8 : x + 24].mean() for x, y in plan[["x", "y"]].to_numpy()]
    np.testing.assert_allclose(table.prob_tumour, centre, atol=1e-6)


def inner(red: np.ndarray, found: heatmaps.Heatmap, footprint: float) -> np.ndarray:
    """The map at the centre of each patch of a grid of colours."""
    middle = [np.floor((np.arange(n) + 0.5) * footprint / found.downsample).astype(int)
              for n in red.shape]  # fmt: skip
    return np.asarray(found.values[np.ix_(*middle)])


@pytest.mark.parametrize("how", ["centre", "window"])
def test_footprints_that_are_no_whole_pixels_lie_where_they_were_read(tmp_path, how) -> None:
    red, image = flat_cells(100.4, 20, 15)
    image = np.pad(image, ((0, 31), (0, 41), (0, 0)))
    with pyramid_slide(tmp_path / "a.tif", image, 0.5) as slide:
        plan = plan_of(slide, 64, mpp=0.784375)
        _, found = mapped(slide, plan, tmp_path, pixels(64), kept=Dense("tumour", how=how))
        assert found.downsample == pytest.approx(100.4 / 16)
        np.testing.assert_allclose(inner(red, found, 100.4), red / 255, atol=1e-6)
        assert np.isnan(found.values[-1]).all() and np.isnan(found.values[:, -1]).all()
        moved = np.roll(red, 1, axis=1) / 255
        assert (np.abs(inner(red, found, 100.4) - moved) > 1e-3).mean() > 0.9


def test_a_slide_with_bounds_is_mapped_from_its_own_corner(tmp_path) -> None:
    red, image = flat_cells(100.4, 15, 12)
    slide = bound(image, 0.5)
    _, found = mapped(slide, plan_of(slide, 64, mpp=0.784375), tmp_path, pixels(64))
    seen = inner(red, found, 100.4)
    np.testing.assert_allclose(seen[3:9, 3:11], red[3:9, 3:11] / 255, atol=1e-6)
    seen[3:9, 3:11] = np.nan
    assert np.isnan(seen).all()  # whole cells of the bounds alone


def test_a_map_is_drawn_where_the_tumour_is(tmp_path) -> None:
    image = np.full((1200, 1500, 3), 30, np.uint8)
    cv2.ellipse(image, (700, 600), (260, 170), 20, 0, 360, (230, 30, 30), -1)
    slide = bound(image, 0.5)
    plan = plan_of(slide, 64, stride=32)
    _, found = mapped(slide, plan, tmp_path)
    tiff, geojson = heatmaps.write(found, slide, tmp_path / "maps", threshold=0.5)
    drawn = read_tiff(tiff)
    np.testing.assert_allclose(drawn.values, found.values, atol=1 / 508 + 1e-6)
    assert (drawn.downsample, drawn.size_level0) == (found.downsample, slide.size)
    truth = image[..., 0] > 128
    (feature,) = json.loads(geojson.read_text())["features"]
    area = truth.sum() * 0.5**2 / 1e6
    assert feature["properties"]["measurements"]["area_mm2"] == pytest.approx(area, rel=0.02)
    outlined = read_mask(geojson, slide)

    def agree(shift: int) -> float:
        """The share of the bounds' pixels that the outlines and the tumour call the same."""
        x, y, width, height = BOUNDS
        pixel = outlined.read_patches([(x + shift, y)], (width, height), (width, height))[0] > 0
        return float((pixel == truth[y : y + height, x : x + width]).mean())

    assert agree(0) > 0.99
    assert agree(64) < 0.95 and agree(-64) < 0.95


def test_maps_of_views_are_turned_back_before_they_are_averaged(slide, tmp_path) -> None:
    class Ramp(MeanRed):
        """Sees less the further to the right of its image."""

        def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
            found = super().predict_on_batch(batch)
            found[..., 1] *= np.linspace(1, 0, batch.shape[2])
            found[..., 0] = 1 - found[..., 1]
            return found

    plan = plan_of(slide, 32)
    one = Member(Ramp(32, pixels=True), 0, 0, "ramp", "ramp")
    _, found = mapped(slide, plan, tmp_path, one, views=views("flips"))
    red = picture(513, 385)[:384, :512, 0] / 255  # the ramp and its mirror image add up to 1
    by_hand = red.reshape(192, 2, 256, 2).mean(axis=(1, 3)) / 2
    np.testing.assert_allclose(found.values[:192, :256], by_hand, atol=1e-6)


def test_the_map_is_the_mean_of_the_networks_of_pixels(slide, tmp_path) -> None:
    class Half(MeanRed):
        def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
            return super().predict_on_batch(batch // 2)

    plan = plan_of(slide, 32)
    half = Member(Half(16, pixels=True), 1, 0, "half", "half")
    table, found = mapped(slide, plan, tmp_path, pixels(), half, member(fold=2))
    assert sorted(set(table.fold)) == [0, 1, 2]
    flat = picture(513, 385)[:384, :512, 0].astype(np.float64)
    small = np.floor(cv2.resize(flat.astype(np.uint8), (256, 192), interpolation=cv2.INTER_AREA)
                     / 2)  # fmt: skip
    by_hand = (flat.reshape(192, 2, 256, 2).mean(axis=(1, 3)) + small) / 2 / 255
    np.testing.assert_allclose(found.values[:192, :256], by_hand, atol=0.5 / 255)


def test_a_large_slide_has_larger_cells(slide, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dense, "MOST_CELLS", 5000)
    _, found = mapped(slide, plan_of(slide, 32), tmp_path)
    assert found.downsample == pytest.approx((513 * 385 / 5000) ** 0.5)
    assert 4900 < found.values.size < 5200
    squares = picture(513, 385)[:384, :512, 0].reshape(192, 2, 256, 2).mean(axis=(1, 3)) / 255
    edges = np.arange(90)[:, None] * found.downsample

    def shared(n: int) -> np.ndarray:
        """The length of each square of 2 level-0 pixels in each cell."""
        low = np.arange(n) * 2
        return np.clip(np.minimum(edges[1:], low + 2) - np.maximum(edges[:-1], low), 0, None)

    by_hand = shared(192) @ squares @ shared(256).T / found.downsample**2
    within = np.flatnonzero(edges[:-1] // 32 == (edges[1:] - 1e-9) // 32)  # one patch alone
    rows, columns = within[within < 60], within[within < 80]
    assert len(rows) > 40
    np.testing.assert_allclose(
        found.values[np.ix_(rows, columns)], by_hand[np.ix_(rows, columns)], atol=1e-5
    )


# Its file


def test_a_slide_that_was_cut_off_has_the_same_map(slide, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_stream, "MOST", 16)
    monkeypatch.setattr(_stream, "BLOCK", 2)
    plan = plan_of(slide)
    whole, expected = mapped(slide, plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        mapped(slide, plan, tmp_path / "cut", pixels(stop_after=5))
    assert slide_map(tmp_path / "cut" / "one.parquet") is None
    rest = pixels()
    table, found = mapped(slide, plan, tmp_path / "cut", rest)
    assert len(rest.network.sizes) == len(_stream.batches_of(plan)) - 4
    same(table, whole)
    np.testing.assert_array_equal(found.values, expected.values)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "one.npz", "one.parquet",
    ]  # fmt: skip


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[3])
import test_dense as t
stitched = t.dense.stitched
t.dense.stitched = lambda *a, **k: (stitched(*a, **k), os.kill(os.getpid(), 9))
with t.open_slide(sys.argv[1]) as slide:
    t.mapped(slide, t.plan_of(slide), t.Path(sys.argv[2]))
"""


def test_a_process_killed_while_it_stitches_predicts_nothing_again(slide, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, slide.path, tmp_path / "cut", Path(__file__).parent],
        check=False,
    )
    assert done.returncode == -9
    rest = pixels()
    _, found = mapped(slide, plan_of(slide), tmp_path / "cut", rest)
    assert not rest.network.sizes
    _, expected = mapped(slide, plan_of(slide), tmp_path / "whole")
    np.testing.assert_array_equal(found.values, expected.values)
    assert len(list((tmp_path / "cut").iterdir())) == 2


def test_a_map_belongs_to_its_table(slide, tmp_path) -> None:
    plan, path = plan_of(slide), tmp_path / "one.parquet"
    mapped(slide, plan, tmp_path)
    bad = map_path(path).read_bytes()
    predict_slide(slide, plan, [member(seed=1)], classes=CLASSES, path=path, dense=TUMOUR)
    assert slide_map(path) is None  # of a network without pixels
    map_path(path).write_bytes(bad)
    with pytest.raises(ImageError, match="map is of other predictions"):
        slide_map(path)
    map_path(path).write_bytes(bad[:200])
    with pytest.raises(ImageError, match=r"no map.*one\.npz"):
        read_map(map_path(path))


def test_a_map_of_another_slide_is_not_drawn(slide, tmp_path) -> None:
    _, found = mapped(slide, plan_of(slide), tmp_path)
    other = open_slide(np.zeros((400, 400, 3), np.uint8), mpp=0.5)
    with pytest.raises(TableError, match="map is of another slide"):
        heatmaps.write(found, other, tmp_path, threshold=0.5)
    with pytest.raises(SettingsError, match="its own cells"):
        heatmaps.write(found, slide, tmp_path, threshold=0.5, step=4)
    with pytest.raises(SettingsError, match="drawn by a column"):
        heatmaps.write(plan_of(slide), slide, tmp_path, threshold=0.5)


def test_a_network_that_answers_nan_is_told(slide) -> None:
    class Nan(MeanRed):
        def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
            return super().predict_on_batch(batch) * np.nan

    from kit.errors import ModelError

    one = Member(Nan(32), 1, 2, "broken", "nan")
    with pytest.raises(ModelError, match="others of broken, fold 1, seed 2"):
        predict_slide(slide, plan_of(slide), [one], classes=CLASSES)


def test_a_keras_network_of_pixels_leaves_a_map_beside_each_table(tmp_path) -> None:
    write_pyramid(tmp_path / "a.tiff", [picture(256, 192)])
    network = tmp_path / "fold0_seed0.keras"
    build_model("help_simple", (32, 32, 3), 2).save(network)
    write_json(network.with_suffix(".json"), {
        "fold": 0, "seed": 0, "model": "help_simple", "sha256": sha256(network),
    })  # fmt: skip
    with open_slide(tmp_path / "a.tiff") as slide:
        plan = plan_of(slide).assign(case_id="a")
    cases = pd.DataFrame({"case_id": ["a"], "path": ["a.tiff"], "key": ["k"]})
    (done,) = slide_jobs.predict_slides(
        cases, plan, [network], root=tmp_path, classes=CLASSES, folder=tmp_path / "out",
        policy="patch", dense=Dense("tumour", "max", "centre"),
    )  # fmt: skip
    found = slide_map(done.value)
    assert found is not None
    assert found.values.shape == (96, 128) and not np.isnan(found.values).any()
    table = read_table(done.value)
    for x, y, prob in table[["x", "y", "prob_tumour"]].to_numpy():
        patch = found.values[int(y) // 2 : int(y) // 2 + 16, int(x) // 2 : int(x) // 2 + 16]
        assert patch[4:12, 4:12].max() <= prob + 1e-6  # the maximum of means is not larger
