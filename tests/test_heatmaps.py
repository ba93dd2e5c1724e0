"""A heatmap lies where its patches were read, in memory, as TIFF and as outlines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile

from kit import heatmaps
from kit.annotations import MaskImage, read_mask
from kit.errors import ImageError, KitError, SettingsError, SlideError, TableError
from kit.heatmaps import Heatmap, contours, raster, read_tiff, write, write_tiff
from kit.polygons import rasterise, read
from kit.sampler import PatchSampler, read_planned
from kit.slides import Slide, open_slide
from kit.tissue import TissueMask

ROOT = Path(__file__).parents[1]
BOUNDS = (300, 250, 900, 700)


def table(xy: np.ndarray, footprint: float, prob: np.ndarray, **columns: object) -> pd.DataFrame:
    """Predictions of one network, or of more where a column says so."""
    named = {"case_id": "a", "group": "p", "fold": 0, "seed": 0, "model": "m", "y_true": None}
    xy = np.asarray(xy)
    return pd.DataFrame({
        **named, "x": xy[:, 0], "y": xy[:, 1], "footprint": footprint,
        "prob_tumour": prob, "prob_normal": 1 - np.asarray(prob), **columns,
    }, index=range(len(xy)))  # fmt: skip


def grid(step: float, columns: int, rows: int) -> np.ndarray:
    across, down = (np.rint(np.arange(n) * step).astype(int) for n in (columns, rows))
    return np.stack([axis.ravel() for axis in np.meshgrid(across, down)], axis=1)


def slow(patches: pd.DataFrame, step: float, shape: tuple[int, int]) -> np.ndarray:
    """The definition, cell by cell: the mean over the patches that cover the cell's centre."""
    x, y, side, prob = patches[["x", "y", "footprint", "prob_tumour"]].to_numpy(float).T
    values = np.full(shape, np.nan)
    for row, column in np.ndindex(shape):
        at_x, at_y = (column + 0.5) * step, (row + 0.5) * step
        over = (x <= at_x) & (at_x < x + side) & (y <= at_y) & (at_y < y + side)
        if over.any():
            values[row, column] = prob[over].mean()
    return values


def random_map(seed: int = 0, shape: tuple[int, int] = (41, 57), **told: object) -> Heatmap:
    random = np.random.default_rng(seed)
    values = cv2.GaussianBlur(random.random(shape), (0, 0), 1.5)
    values = (values - values.min()) / np.ptp(values)
    values[random.random(shape) < 0.1] = np.nan
    size = (int((shape[1] - 0.5) * 100.4), int((shape[0] - 0.5) * 100.4))
    return Heatmap(values, 100.4, size, **told)  # type: ignore[arg-type]


def area(ring: np.ndarray) -> float:
    x, y = (ring - ring[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


# The map


@pytest.mark.parametrize("footprint", [64.0, 100.4, 255.9])
def test_without_overlap_each_cell_is_its_patch(footprint: float) -> None:
    prob = np.random.default_rng(0).random(13 * 9)
    patches = table(grid(footprint, 13, 9), footprint, prob).sample(frac=1, random_state=1)
    size = (int(14.3 * footprint), int(9.2 * footprint))
    found = raster(patches, size, column="prob_tumour", mpp=0.5)
    assert found.values.shape == (10, 15)
    assert (found.downsample, found.mpp) == (footprint, footprint * 0.5)
    assert (found.case_id, found.name, found.size_level0) == ("a", "tumour", size)
    np.testing.assert_allclose(found.values[:9, :13], prob.reshape(9, 13), rtol=0, atol=1e-12)
    assert np.isnan(found.values[9:]).all() and np.isnan(found.values[:, 13:]).all()


def test_a_slide_that_cells_divide_has_no_spare_cell() -> None:
    found = raster(table([[0, 0]], 100.4, [0.5]), (1004, 502), column="prob_tumour")
    assert found.values.shape == (5, 10)


@pytest.mark.parametrize("part", [1 / 2, 1 / 4, 3 / 4, 2 / 3, 48 / 64, 5 / 64])
@pytest.mark.parametrize("footprint", [64.0, 100.4])
def test_overlapping_patches_are_averaged_where_they_cover_a_centre(
    footprint: float, part: float
) -> None:
    step = footprint * part
    xy = grid(step, 17, 12)
    keep = np.random.default_rng(2).random(len(xy)) < 0.8
    prob = np.random.default_rng(1).random(len(xy))
    patches = table(xy[keep], footprint, prob[keep])
    found = raster(patches, (1700, 1300), column="prob_tumour")
    assert found.downsample == pytest.approx(step, rel=1e-12)
    np.testing.assert_allclose(
        found.values, slow(patches, found.downsample, found.values.shape), rtol=0, atol=1e-12
    )


def test_four_patches_by_hand() -> None:
    patches = table(grid(32, 2, 2), 64.0, np.array([0.1, 0.2, 0.3, 0.8]))
    found = raster(patches, (128, 96), column="prob_tumour")
    assert found.downsample == 32
    expected = [
        [0.1, 0.15, 0.2, np.nan],
        [0.2, 0.35, 0.5, np.nan],
        [0.3, 0.55, 0.8, np.nan],
    ]
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-12)


def test_networks_are_averaged_before_patches_are() -> None:
    patches = pd.concat([
        table([[0, 0], [32, 0]], 64.0, np.array([0.2, 1.0]), seed=0),
        table([[0, 0]], 64.0, np.array([0.4]), seed=1),
    ])  # fmt: skip
    found = raster(patches, (96, 64), column="prob_tumour")
    np.testing.assert_allclose(found.values[0], [0.3, 0.65, 1.0], rtol=0, atol=1e-12)


def test_jittered_patches_lie_where_they_were_moved_to() -> None:
    random = np.random.default_rng(3)
    xy = np.clip(grid(100.4, 12, 9) + random.integers(-30, 31, (108, 2)), 0, None)
    patches = table(xy, 100.4, random.random(108))
    found = raster(patches, (1300, 1000), column="prob_tumour")
    assert found.downsample == 100.4
    np.testing.assert_allclose(found.values, slow(patches, 100.4, (10, 13)), rtol=0, atol=1e-12)
    fine = raster(patches, (1300, 1000), column="prob_tumour", step=12.5)
    np.testing.assert_allclose(fine.values, slow(patches, 12.5, (80, 104)), rtol=0, atol=1e-12)


def test_of_several_footprints_the_finest_is_a_cell() -> None:
    patches = pd.concat([
        table(grid(128, 2, 1), 128.0, np.array([0.2, 0.6])),
        table(grid(64, 1, 2), 64.0, np.array([0.4, 0.8])),
    ])  # fmt: skip
    found = raster(patches, (256, 128), column="prob_tumour")
    assert found.downsample == 64
    expected = [[0.3, 0.2, 0.6, 0.6], [0.5, 0.2, 0.6, 0.6]]
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prob_tumour": 1.2}, "prob_tumour must be in"),
        ({"prob_tumour": np.nan}, "prob_tumour must be in"),
        ({"x": 5000}, "4 patches lie outside the slide"),
        ({"x": -64}, "4 patches lie outside the slide"),
        ({"footprint": 0.0}, "4 patches lie outside the slide"),
        ({"footprint": np.nan}, "patches lie outside the slide"),
        ({"case_id": ["a", "a", "b", "b"]}, "one case.*Received: a, b"),
    ],
)
def test_bad_patches_are_refused(change: dict[str, object], said: str) -> None:
    patches = table(grid(64, 2, 2), 64.0, np.full(4, 0.5)).assign(**change)
    patches["x"] += np.arange(4) * (not change.keys() - {"x", "footprint"})
    with pytest.raises(TableError, match=said):
        raster(patches, (300, 200), column="prob_tumour")


def test_a_bad_call_is_refused() -> None:
    patches = table(grid(64, 2, 2), 64.0, np.full(4, 0.5))
    with pytest.raises(TableError, match="no patches"):
        raster(patches.head(0), (300, 200), column="prob_tumour")
    with pytest.raises(TableError, match="column prob_benign is missing"):
        raster(patches, (300, 200), column="prob_benign")
    with pytest.raises(SettingsError, match=r"step must be above 0.*step=0"):
        raster(patches, (300, 200), column="prob_tumour", step=0)
    with pytest.raises(SettingsError, match="mpp must be above 0"):
        raster(patches, (300, 200), column="prob_tumour", mpp=float("nan"))
    with pytest.raises(SettingsError, match="more than 268,435,456 cells"):
        raster(patches, (90_000, 230_000), column="prob_tumour", step=2)
    with pytest.raises(SlideError, match="whole numbers"):
        raster(patches, (300.5, 200), column="prob_tumour")  # type: ignore[arg-type]
    with pytest.raises(TableError, match=r"shape \(2, 3\).*shape \(3, 2\)"):
        Heatmap(np.zeros((3, 2)), 100.0, (300, 200))
    with pytest.raises(TableError, match=r"must be in \[0, 1\]"):
        Heatmap(np.full((2, 3), 7.0), 100.0, (300, 200))


# The TIFF


def test_openslide_and_tifffile_open_the_tiff(tmp_path: Path) -> None:
    heatmap = random_map(shape=(300, 613), mpp=50.2, case_id="a/b", name="tumour")
    write_tiff(heatmap, tmp_path / "a.tif")
    expected = np.zeros((300, 613), np.uint8)
    seen = ~np.isnan(heatmap.values)
    expected[seen] = 1 + np.rint(heatmap.values[seen] * 254)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_dimensions == ((613, 300), (307, 150), (154, 75))
        for axis in "xy":
            assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(50.2, rel=1e-6)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        assert (pixels[..., 0] == expected).all()
        told = json.loads(slide.properties["tiff.ImageDescription"])
    assert told == {
        "case_id": "a/b", "class": "tumour", "downsample": 100.4, "mpp": 50.2,
        "size_level0": list(heatmap.size_level0), "encoding": heatmaps.ENCODING,
    }  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [page.tile for page in file.pages] == [(256, 256)] * 3
        assert [page.compression.name for page in file.pages] == ["ADOBE_DEFLATE"] * 3
        assert (file.pages[0].asarray() == expected).all()


def test_lower_levels_average_only_what_was_looked_at(tmp_path: Path) -> None:
    values = np.full((3, 260), np.nan)
    values[:2, :2] = [[0.2, np.nan], [0.4, 0.9]]
    values[2, 258] = 0.6
    write_tiff(Heatmap(values, 10.0, (2600, 30)), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        half = file.pages[1].asarray()
        assert "XResolution" not in file.pages[0].tags or file.pages[0].tags[296].value == 1
    assert half.shape == (2, 130)
    assert (half[0, 0], half[1, 129]) == (1 + round(0.5 * 254), 1 + round(0.6 * 254))
    assert (half > 0).sum() == 2
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties


@pytest.mark.parametrize("mpp", [None, 25.1])
def test_a_tiff_gives_the_heatmap_back(tmp_path: Path, mpp: float | None) -> None:
    heatmap = random_map(mpp=mpp, case_id="ä 1", name="tumour, grade 2")
    write_tiff(heatmap, tmp_path / "a.tif")
    found = read_tiff(tmp_path / "a.tif")
    np.testing.assert_allclose(found.values, heatmap.values, rtol=0, atol=1 / 508 + 1e-12)
    for name in ("downsample", "size_level0", "mpp", "case_id", "name"):
        assert getattr(found, name) == getattr(heatmap, name)


def test_what_is_no_heatmap_is_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((5, 5), np.uint8))
    (tmp_path / "text.tif").write_text("no TIFF")
    for name in ("other.tif", "text.tif", "missing.tif"):
        with pytest.raises(ImageError, match=rf"no heatmap.*{name}"):
            read_tiff(tmp_path / name)


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from kit.heatmaps import Heatmap, write_tiff;"
        "values = np.random.default_rng(0).random((300, 40));"
        "write_tiff(Heatmap(values, 2.5, (100, 750), 1.25, 'a'), sys.argv[1])"
    )
    for name in ("a.tif", "b.tif"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True, cwd=ROOT)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


# The outlines


@pytest.mark.parametrize("seed", range(6))
def test_areas_are_the_cells_and_the_outlines_own(seed: int, tmp_path: Path) -> None:
    heatmap = random_map(seed)
    found = contours(heatmap, 0.5, mpp=0.25)
    (tmp_path / "a.geojson").write_text(json.dumps(found))
    polygons = read(tmp_path / "a.geojson")
    mask = heatmap.values >= 0.5
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    assert len(polygons) == len(found["features"]) == count - 1
    assert any(polygon.holes for polygon in polygons)
    cells = set()
    for polygon, feature in zip(polygons, found["features"], strict=True):
        assert polygon.name == "tumour"
        inside = rasterise([polygon], mask.shape, downsample=(100.4, 100.4))
        (label,) = np.unique(labels[inside])
        assert (inside == (labels == label)).all()
        cells.add(int(label))
        measured = feature["properties"]["measurements"]
        assert measured["mean_probability"] == pytest.approx(heatmap.values[inside].mean())
        assert measured["area_mm2"] == pytest.approx(
            inside.sum() * (100.4 * 0.25) ** 2 / 1e6, rel=1e-12
        )
        own = area(polygon.shell) - sum(map(area, polygon.holes))
        assert measured["area_mm2"] == pytest.approx(own * 0.25**2 / 1e6, rel=1e-9)
    assert cells == set(range(1, count))


def test_a_ring_of_cells_by_hand() -> None:
    values = np.full((5, 6), np.nan)
    values[1:4, 1:4] = 0.75
    values[1, 1] = 1.0
    values[2, 2] = 0.1
    found = contours(Heatmap(values, 10.0, (60, 50), 5.0, name="grade 2"), 0.75)
    (feature,) = found["features"]
    assert feature["properties"] == {
        "objectType": "annotation", "classification": {"name": "grade 2"},
        "measurements": {"area_mm2": 8 * 25 / 1e6, "mean_probability": 6.25 / 8},
    }  # fmt: skip
    shell, hole = (set(map(tuple, ring)) for ring in feature["geometry"]["coordinates"])
    assert shell == {(10, 10), (40, 10), (40, 40), (10, 40)}
    assert hole == {(20, 20), (30, 20), (30, 30), (20, 30)}


def test_without_a_resolution_there_is_no_area() -> None:
    heatmap = random_map()
    for feature in contours(heatmap, 0.5)["features"]:
        assert list(feature["properties"]["measurements"]) == ["mean_probability"]
    assert contours(heatmap, 0.5, mpp=0.25) == contours(random_map(mpp=100.4 * 0.25), 0.5)


def test_thresholds_that_nothing_reaches_or_that_cannot_be() -> None:
    heatmap = Heatmap(np.full((2, 2), 0.5), 10.0, (20, 20))
    assert contours(heatmap, 0.51) == {"type": "FeatureCollection", "features": []}
    assert len(contours(heatmap, 0.5)["features"]) == 1
    with pytest.raises(SettingsError, match=r"threshold must be in \[0, 1\]"):
        contours(heatmap, 50)
    with pytest.raises(SettingsError, match="mpp must be above 0"):
        contours(heatmap, 0.5, mpp=-1)


# From a slide to its files


def flat_cells(footprint: float, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A red of its own for each cell, (rows, columns), and the picture of it, in level 0."""
    red = np.random.default_rng(5).integers(0, 256, (rows, columns)).astype(np.uint8)
    ends = [np.rint(np.arange(n + 1) * footprint).astype(int) for n in (rows, columns)]
    spread = np.repeat(np.repeat(red, np.diff(ends[0]), axis=0), np.diff(ends[1]), axis=1)
    return red, np.stack([spread, np.full_like(spread, 200), np.full_like(spread, 90)], axis=2)


def pyramid_slide(path: Path, image: np.ndarray, mpp: float) -> Slide:
    """A slide whose levels are an odd part of each other: 2.0005 and the like."""
    with tifffile.TiffWriter(path) as writer:
        for level in range(3):
            writer.write(
                image, tile=(256, 256), photometric="rgb", compression="deflate", metadata=None,
                subfiletype=1 if level else 0, resolution=(1e4 / mpp / 2**level,) * 2,
                resolutionunit="CENTIMETER",
            )  # fmt: skip
            size = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return open_slide(path)


def bound(image: np.ndarray, mpp: float) -> Slide:
    """A slide with bounds, as MRXS has them."""
    slide = open_slide(image, mpp=mpp)
    names = ("x", "y", "width", "height")
    slide.properties = {f"openslide.bounds-{n}": str(v) for n, v in zip(names, BOUNDS, strict=True)}
    return slide


def mean_red(slide: Slide, sampler: PatchSampler) -> pd.DataFrame:
    """The predictions of a model that answers with a patch's mean red."""
    whole = TissueMask(np.ones((8, 8), bool), (slide.size[0] / 8, slide.size[1] / 8), slide.size)
    plan = sampler.plan(slide, whole, case_id="a")
    prob = read_planned(slide, plan)[..., 0].mean(axis=(1, 2)) / 255
    return table(plan[["x", "y"]].to_numpy(), plan["footprint"].to_numpy(), prob)


def test_a_slide_of_odd_downsamples_has_each_patch_in_its_cell(tmp_path: Path) -> None:
    red, image = flat_cells(100.4, 20, 15)
    image = np.pad(image, ((0, 31), (0, 41), (0, 0)))  # 2049 x 1537
    with pyramid_slide(tmp_path / "a.tif", image, 0.5) as slide:
        assert slide.downsamples[1] == pytest.approx(2.0011, abs=2e-3)
        patches = mean_red(slide, PatchSampler(patch_size=64, mpp=0.784375, min_tissue=0))
        assert patches["footprint"].iloc[0] == pytest.approx(100.4)
        found = raster(patches, slide.size, column="prob_tumour", mpp=slide.mpp)
        assert found.values.shape == (16, 21)
        np.testing.assert_allclose(found.values[:15, :20], red / 255, rtol=0, atol=1e-6)
        assert np.isnan(found.values[15:]).all() and np.isnan(found.values[:, 20:]).all()
        assert found.mpp == pytest.approx(50.2)
        coarse = PatchSampler(patch_size=32, mpp=2.02, min_tissue=0)  # read at level 2
        found = raster(mean_red(slide, coarse), slide.size, column="prob_tumour")
        step = 32 * 2.02 / 0.5
        assert found.downsample == pytest.approx(step)
        for row, column in ((0, 0), (3, 7), (10, 14), (7, 0)):
            at = np.rint([column * step, row * step]).astype(int)
            patch = slide.read_patch(at, 32, mpp=2.02)
            assert found.values[row, column] == pytest.approx(patch[..., 0].mean() / 255, abs=1e-6)


def test_a_slide_with_bounds_has_each_patch_in_its_cell_of_the_whole_slide() -> None:
    red, image = flat_cells(100.4, 15, 12)
    slide = bound(image, 0.5)
    patches = mean_red(slide, PatchSampler(patch_size=64, mpp=0.784375, min_tissue=0))
    found = raster(patches, slide.size, column="prob_tumour")
    expected = np.full((13, 15), np.nan)  # whole cells of x 300 to 1200, y 250 to 950
    expected[3:9, 3:11] = red[3:9, 3:11] / 255
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6)


def tumour_mask(slide: Slide, shift: int = 0) -> MaskImage:
    """A drawn tumour, moved right by a number of level-0 pixels."""
    labels = np.zeros((slide.size[1], slide.size[0]), np.uint8)
    cv2.ellipse(labels, (700 + shift, 600), (260, 170), 20, 0, 360, 255, -1)
    return MaskImage(labels, {"tumour": 255}, (1.0, 1.0), (0, 0), Path("mask.png"))


def test_a_heatmap_lies_over_the_tumour_that_it_was_made_of(tmp_path: Path) -> None:
    _, image = flat_cells(50.2, 30, 24)
    slide = bound(image, 0.5)
    patches = mean_red(slide, PatchSampler(patch_size=64, mpp=0.3921875, min_tissue=0))
    xy = patches[["x", "y"]].to_numpy()
    share = tumour_mask(slide).fraction(xy, 50.2)
    assert 0.1 < (share >= 0.5).mean() < 0.9
    tiff, geojson = write(
        patches.assign(prob_tumour=share), slide, tmp_path / "maps", column="prob_tumour",
        threshold=0.5,
    )  # fmt: skip
    assert (tiff.name, geojson.name) == ("a.tif", "a.geojson")
    heatmap = read_tiff(tiff)
    row, column = np.nonzero(~np.isnan(heatmap.values))
    cells = np.stack([column, row], axis=1) * heatmap.downsample
    high = heatmap.values[row, column] >= 0.5

    def agree(shift: int) -> float:
        """The share of cells that the map and the tumour, moved so far, call the same."""
        drawn = tumour_mask(slide, shift).fraction(cells, heatmap.downsample)
        sure = np.abs(drawn - 0.5) > 0.03  # a cell lies up to half a pixel from its patch
        return float((high == (drawn >= 0.5))[sure].mean())

    assert agree(0) == 1
    assert agree(50) < 0.95 and agree(-50) < 0.95
    outlined = read_mask(geojson, slide, frame="bounds")
    np.testing.assert_array_equal(outlined.fraction(xy + 0.5, 49) > 0.5, share >= 0.5)
    outlined = read_mask(geojson, slide)  # told by the places of the polygons
    np.testing.assert_array_equal(outlined.fraction(xy + 0.5, 49) > 0.5, share >= 0.5)


def test_polygons_count_from_the_bounds_as_qupath_does(tmp_path: Path) -> None:
    values = np.full((12, 15), np.nan)
    values[3:5, 4:6] = 0.9
    heatmap = Heatmap(values, 100.0, (1500, 1200))
    slide = bound(np.full((1200, 1500, 3), 200, np.uint8), 0.5)
    found = contours(heatmap, 0.5, origin_level0=slide.bounds[:2])
    ring = set(map(tuple, found["features"][0]["geometry"]["coordinates"][0]))
    assert ring == {(100, 50), (300, 50), (300, 250), (100, 250)}  # 400, 300 less 300, 250
    (tmp_path / "a.geojson").write_text(json.dumps(found))
    mask = read_mask(tmp_path / "a.geojson", slide)
    assert mask.fraction([(400, 300), (200, 300), (400, 100)], 200).tolist() == [1, 0, 0]


def test_a_slide_without_a_resolution_has_files_without_one(tmp_path: Path) -> None:
    slide = open_slide(np.full((200, 300, 3), 200, np.uint8))
    patches = table(grid(64, 2, 2), 64.0, np.full(4, 0.75))
    tiff, geojson = write(patches, slide, tmp_path, column="prob_tumour", threshold=0.5)
    assert read_tiff(tiff).mpp is None
    (feature,) = json.loads(geojson.read_text())["features"]
    assert feature["properties"]["measurements"] == {"mean_probability": 0.75}


def test_each_case_has_a_file_name_of_its_own() -> None:
    plain = ["a", "Slide001", "TCGA-A1-A0SB-01Z.svs", "_x"]
    assert [heatmaps.file_name(name) for name in plain] == plain
    odd = ["a/b", "a\\b", "a:b", "a b", "..", ".", "", "../../etc", "ä", "con", "NUL.txt", "a.",
           "x" * 300, "x" * 301, "-"]  # fmt: skip
    found = [heatmaps.file_name(name) for name in odd]
    assert len({name.lower() for name in [*found, *plain]}) == len(odd) + len(plain)
    for name in found:
        assert Path(name).name == name and len(name) < 130 and not name.startswith(".")


def test_odd_case_ids_stay_in_the_folder(tmp_path: Path) -> None:
    slide = open_slide(np.full((200, 300, 3), 200, np.uint8))
    patches = table(grid(64, 2, 2), 64.0, np.full(4, 0.75), case_id="../a b")
    tiff, geojson = write(patches, slide, tmp_path / "maps", column="prob_tumour", threshold=0.5)
    assert sorted(os.listdir(tmp_path / "maps")) == sorted([tiff.name, geojson.name])
    assert os.listdir(tmp_path) == ["maps"]
    assert read_tiff(tiff).case_id == "../a b"


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    slide = open_slide(np.full((200, 300, 3), 200, np.uint8))
    patches = table(grid(64, 2, 2), 64.0, np.full(4, 0.75))
    with pytest.raises(KitError, match="cannot be written"):
        write(patches, slide, tmp_path / "maps", column="prob_tumour", threshold=0.5)


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from kit.errors import KitError
from kit.heatmaps import Heatmap, write_tiff
import tifffile, imagecodecs
heatmap = Heatmap(np.random.default_rng(0).random((600, 600)), 1.0, (600, 600))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_tiff(heatmap, Path(sys.argv[1]) / "a.tif")
except KitError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"the disk is full. File: {tmp_path / 'a.tif'}.")
    assert os.listdir(tmp_path) == []
