"""The figure of a heatmap shows the slide, the map over it, and the patches that stand highest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kit import figures
from kit._heatmap_figures import _apart, _most_suspicious
from kit._plots import png
from kit.annotations import MaskImage, read_mask
from kit.errors import MaskError, SettingsError, TableError
from kit.heatmaps import Heatmap, raster
from kit.sampler import PatchSampler
from kit.slides import Slide, open_slide
from kit.tissue import tissue_mask


def drawn_slide() -> Slide:
    """White glass with stained tissue: 1200 x 900 level-0 pixels at 2 µm."""
    image = np.full((900, 1200, 3), 244, np.uint8)
    noise = np.random.default_rng(0).integers(-15, 15, (600, 800, 1))
    image[150:750, 200:1000] = np.clip(np.array((190, 110, 170)) + noise, 0, 255)
    return open_slide(image, mpp=2.0)


def predicted(slide: Slide) -> pd.DataFrame:
    plan = PatchSampler(patch_size=50, mpp=2.0).plan(slide, case_id="s1")
    prob = np.random.default_rng(1).random(len(plan))
    return plan.assign(prob_tumour=prob)


def drawn_mask(name: str = "tumour") -> MaskImage:
    labels = np.zeros((225, 300), np.uint8)
    labels[60:120, 90:180] = 1
    return MaskImage(labels, {name: 1}, (4.0, 4.0), (0, 0), Path("mask.png"))


def drawn(top: int = 8, mask: MaskImage | None = None) -> tuple[Figure, Heatmap, pd.DataFrame]:
    slide = drawn_slide()
    patches = predicted(slide)
    heatmap = raster(patches, slide.size, column="prob_tumour", mpp=2.0)
    figure = figures.slide_heatmap(
        slide, heatmap, patches, column="prob_tumour", mask=mask, top=top,
        tissue=tissue_mask(slide),
    )  # fmt: skip
    return figure, heatmap, patches


def numbers(figure: Figure) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.get_position() for text in figure.axes[0].texts}


def test_the_map_lies_over_the_thumbnail_where_something_was_looked_at() -> None:
    figure, heatmap, _ = drawn()
    thumbnail, shown = figure.axes[2].images
    assert thumbnail.get_extent() == [0, 1200, 900, 0]
    assert shown.get_extent() == [0, 1200, 900, 0]
    values = np.ma.asarray(shown.get_array())
    assert (values.mask == np.isnan(heatmap.values)).all()
    assert shown.get_clim() == (0, 1)
    assert shown.cmap(values)[0, 0, 3] == 0
    assert "probability of tumour" in [axis.get_ylabel() for axis in figure.axes]
    assert figure.get_suptitle() == "s1: probability of tumour"
    share = 100 * (~np.isnan(heatmap.values)).mean()
    assert figure.axes[2].get_title() == f"Looked at: {share:.0f} % of the slide"


def test_a_cell_beyond_the_slide_does_not_stretch_the_map() -> None:
    slide = open_slide(np.full((130, 170, 3), 200, np.uint8), mpp=2.0)
    patches = pd.DataFrame(
        {"case_id": "s", "x": [0], "y": [0], "footprint": 50.0, "prob_tumour": 0.5}
    )
    heatmap = raster(patches, slide.size, column="prob_tumour")
    axis = figures.slide_heatmap(slide, heatmap, patches, column="prob_tumour").axes[2]
    assert axis.images[1].get_extent() == [0, 200, 150, 0]
    assert (axis.get_xlim(), axis.get_ylim()) == ((0, 170), (130, 0))


def test_the_highest_patches_are_shown_by_number_and_stand_at_their_places() -> None:
    figure, _, patches = drawn(top=3)
    best = patches.nlargest(3, "prob_tumour")
    shown = [text.get_text() for text in figure.axes[3].texts]
    assert shown == [f"{n}: {p:.2f}" for n, p in enumerate(best.prob_tumour, start=1)]
    found = numbers(figure)
    assert list(found) == ["1", "2", "3"]
    for (label, at), line in zip(found.items(), figure.axes[0].lines, strict=True):
        place = best.iloc[int(label) - 1]
        assert line.get_xydata()[0].tolist() == [place.x + 25, place.y + 25]
        assert line.get_xydata()[1].tolist() == list(at)


def test_a_shown_patch_is_that_part_of_the_slide() -> None:
    image = np.full((200, 400, 3), 244, np.uint8)
    image[100:150, 150:200] = (90, 20, 160)
    slide = open_slide(image, mpp=2.0)
    xy = [(x, y) for y in range(0, 200, 50) for x in range(0, 400, 50)]
    patches = pd.DataFrame(xy, columns=["x", "y"]).assign(case_id="s", footprint=50.0)
    patches["prob_tumour"] = np.where((patches.x == 150) & (patches.y == 100), 0.9, 0.1)
    heatmap = raster(patches, slide.size, column="prob_tumour")
    figure = figures.slide_heatmap(
        slide, heatmap, patches, column="prob_tumour", top=2, tissue=tissue_mask(slide)
    )
    strip = np.asarray(figure.axes[3].images[0].get_array())
    assert strip[100, 60].tolist() == [90, 20, 160]
    assert strip[100, 200].tolist() == [244, 244, 244]
    assert strip[100, 500].tolist() == [255, 255, 255]


def test_the_drawn_tumour_is_outlined_where_it_is_given() -> None:
    alone, both = drawn()[0].axes[1], drawn(mask=drawn_mask())[0].axes[1]
    assert (len(alone.collections), len(both.collections)) == (1, 2)
    assert alone.get_title() == "Tissue (green)"
    assert both.get_title() == "Tissue (green), drawn tumour (orange)"
    box = both.collections[1].get_paths()[0].get_extents()
    np.testing.assert_allclose(box.extents, (360, 240, 720, 480), atol=2)
    with pytest.raises(MaskError, match=r"no such value.*tumour.*Received: other"):
        drawn(mask=drawn_mask("other"))


def test_only_the_bounds_are_drawn() -> None:
    slide = drawn_slide()
    names = ("x", "y", "width", "height")
    slide.properties = {
        f"openslide.bounds-{n}": str(v) for n, v in zip(names, (150, 100, 900, 700), strict=True)
    }
    patches = predicted(slide)
    heatmap = raster(patches, slide.size, column="prob_tumour")
    figure = figures.slide_heatmap(slide, heatmap, patches, column="prob_tumour")
    for axis in figure.axes[:3]:
        assert (axis.get_xlim(), axis.get_ylim()) == ((150, 1050), (800, 100))
    for x, y in numbers(figure).values():
        assert 150 < x < 1050 and 100 < y < 800


def test_chosen_patches_do_not_overlap_and_equal_ones_go_row_by_row() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(10) * 25, np.arange(8) * 25))
    places = pd.DataFrame({"x": x, "y": y, "footprint": 50.0, "p": 0.5})
    places.loc[[34, 35], "p"] = (0.9, 0.8)  # they overlap: (100, 75) and (125, 75)
    found = _most_suspicious(places, "p", 4)
    assert found[["x", "y"]].to_numpy().tolist() == [[100, 75], [0, 0], [50, 0], [100, 0]]
    assert len(_most_suspicious(places, "p", 100)) < 21
    neighbours = pd.DataFrame({"x": [0, 100, 201], "y": 0, "footprint": 100.4, "p": 0.5})
    assert len(_most_suspicious(neighbours, "p", 3)) == 3


def test_numbers_are_pushed_apart_and_stay_within_the_slide() -> None:
    points = np.array([[500.0, 500], [510, 500], [505, 512], [500, 505], [2, 3], [900, 100]])
    low, high = np.full(2, 50.0), np.array([950.0, 950])
    found = _apart(points, 100, low, high)
    between = np.hypot(*(found[:, None] - found).T) + np.diag(np.full(6, np.inf))
    assert between.min() >= 100
    assert ((found >= low) & (found <= high)).all()
    assert found[5].tolist() == [900, 100]
    assert (found == _apart(points, 100, low, high)).all()


@pytest.mark.parametrize("shape", [(2400, 600), (500, 2000), (60, 60)])
@pytest.mark.parametrize("top", [1, 11])
def test_nothing_is_cut_off_at_the_edge(shape: tuple[int, int], top: int) -> None:
    slide = open_slide(np.full((*shape, 3), 220, np.uint8), mpp=1.0)
    places = [(x, y) for y in range(0, shape[0], 50) for x in range(0, shape[1], 50)]
    patches = pd.DataFrame(places, columns=["x", "y"]).assign(
        case_id="a case of a long name " * 4, footprint=50.0, prob_tumour=0.5
    )
    patches = patches[(patches.x + 25 < shape[1]) & (patches.y + 25 < shape[0])]
    heatmap = raster(patches, slide.size, column="prob_tumour")
    figure = figures.slide_heatmap(slide, heatmap, patches, column="prob_tumour", top=top)
    figure.draw_without_rendering()
    edge = figure.bbox.padded(1)
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    for box in [*boxes, *(text.get_window_extent() for text in figure.texts)]:
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1, (edge, box)
        assert edge.y0 <= box.y0 and box.y1 <= edge.y1, (edge, box)


def test_the_same_map_is_the_same_picture() -> None:
    assert png(drawn(mask=drawn_mask())[0]) == png(drawn(mask=drawn_mask())[0])


def test_what_does_not_belong_together_is_refused() -> None:
    slide = drawn_slide()
    patches = predicted(slide)
    heatmap = raster(patches, slide.size, column="prob_tumour")
    other = open_slide(np.full((900, 1201, 3), 244, np.uint8))
    with pytest.raises(TableError, match=r"another slide.*\(1201, 900\).*\(1200, 900\)"):
        figures.slide_heatmap(other, heatmap, patches, column="prob_tumour")
    with pytest.raises(TableError, match="no patches"):
        figures.slide_heatmap(slide, heatmap, patches.head(0), column="prob_tumour")
    with pytest.raises(SettingsError, match="top must be a whole number"):
        figures.slide_heatmap(slide, heatmap, patches, column="prob_tumour", top=0)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["14082", "14306"])
def test_a_real_slide_is_high_where_its_mask_is(name: str, real_data: Path) -> None:
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{name}.tif", mpp=4.0) as slide:
        values = {"background": 0, "normal": 1, "tumour": 2}
        mask = read_mask(folder / f"{name}_mask.tif", slide, values=values)
        plan = PatchSampler(patch_size=50, mpp=4.0).plan(slide, mask=mask, case_id=name)
        patches = plan.assign(prob_tumour=plan.tumour)
        heatmap = raster(patches, slide.size, column="prob_tumour", mpp=slide.mpp)
        figure = figures.slide_heatmap(slide, heatmap, patches, column="prob_tumour", mask=mask)
    assert len(figure.axes[3].texts) == 8
    row, column = np.nonzero(heatmap.values >= 0.5)
    assert len(row) > 50
    cells = np.stack([column, row], axis=1) * heatmap.downsample
    assert (mask.fraction(cells, heatmap.downsample) >= 0.5).all()
