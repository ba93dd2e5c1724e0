"""Maps against masks: areas by hand, lesions by CAMELYON16's rules, slide by slide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kit import lesion_scores
from kit.annotations import MaskImage
from kit.errors import MaskError, SettingsError, TableError
from kit.heatmaps import Heatmap
from kit.lesion_scores import score, truth_of

SIZE = (10_000, 8_000)
MPP = 0.25  # of level 0: 40 level-0 pixels are 10 µm


def heat(
    *boxes: tuple[int, int, int, int, float], down: float = 40.0, case: str = "a",
    mpp: float | None = MPP,
) -> Heatmap:  # fmt: skip
    """A map with boxes (x, y, width, height in level-0 pixels, probability)."""
    values = np.zeros((math.ceil(SIZE[1] / down), math.ceil(SIZE[0] / down)))
    for x, y, width, height, prob in boxes:
        rows, columns = (slice(round(low / down), round((low + side) / down))
                         for low, side in ((y, height), (x, width)))  # fmt: skip
        values[rows, columns] = prob
    return Heatmap(values, down, SIZE, None if mpp is None else mpp * down, case)


def mask(*boxes: tuple[int, int, int, int], down: float = 16.0, origin: tuple[int, int] = (0, 0),
         size: tuple[int, int] = SIZE) -> MaskImage:  # fmt: skip
    labels = np.zeros((math.ceil(size[1] / down), math.ceil(size[0] / down)), np.uint8)
    for x, y, width, height in boxes:
        rows, columns = (
            slice(round((low - start) / down), round((low - start + side) / down))
            for low, start, side in ((y, origin[1], height), (x, origin[0], width))
        )
        labels[rows, columns] = 255
    return MaskImage(labels, {"tumour": 255}, (down, down), origin, Path("mask.png"))


TUMOUR = (1600, 1600, 1600, 1600)  # 400 µm wide


def test_areas_are_exact_whatever_cells_and_mask_pixels_are() -> None:
    moved = (1600, 1600 + 800, 1600, 1600, 0.9)
    found = score([(heat(moved), mask(TUMOUR))], threshold=0.5).overlap
    assert found.case_id.tolist() == ["a", None]
    assert found.truth.tolist() == [1600**2] * 2
    assert found.found.tolist() == [1600**2] * 2
    assert found.shared.tolist() == [1600 * 800] * 2
    assert found.dice.tolist() == [0.5, 0.5]
    assert found.iou.tolist() == [pytest.approx(1 / 3)] * 2


def test_a_cell_counts_by_the_part_of_it_that_is_tumour() -> None:
    # Cells of 1000: one is found, whose right 400 level-0 pixels lie beside the tumour.
    found = score([(heat((2000, 2000, 1000, 1000, 0.7), down=1000), mask((1600, 1600, 1008, 4000),
                                                                         down=8))],
                  threshold=0.7).overlap.iloc[0]  # fmt: skip
    assert found.truth == pytest.approx(1008 * 4000, rel=1e-6)
    assert found.found == 1000**2
    assert found.shared == pytest.approx(608 * 1000, rel=1e-6)
    assert found.dice == pytest.approx(2 * 608_000 / (1008 * 4000 + 1000**2), rel=1e-6)


def test_a_cell_at_the_edge_of_the_slide_has_the_area_that_is_left() -> None:
    heatmap = heat((9000, 7500, 1500, 1500, 1.0), down=1500.0)  # 500 x 500 on the slide
    heatmap.values[:] = np.nan
    heatmap.values[5, 6] = 1
    whole = score([(heatmap, mask((9000, 7504, 1000, 496), down=8))], threshold=0.5).overlap.iloc[0]
    assert heatmap.values.shape == (6, 7)
    assert whole.found == 1000 * 500
    assert whole.shared == pytest.approx(1000 * 496, rel=1e-5)
    assert whole.dice == pytest.approx(2 * 496 / (500 + 496), rel=1e-5)


def test_a_mask_of_the_bounds_alone_lies_where_it_lies() -> None:
    cropped = mask(TUMOUR, origin=(800, 1200), size=(4000, 4000))
    found = score([(heat((*TUMOUR, 0.9)), cropped)], threshold=0.5).overlap
    assert found.dice.tolist() == [1.0, 1.0]
    shifted = heat((1600 + 1600, 1600, 1600, 1600, 0.9))
    assert score([(shifted, cropped)], threshold=0.5).overlap.dice.tolist() == [0.0, 0.0]


def slides() -> Iterator[tuple[Heatmap, MaskImage | None]]:
    """Two lesions of which one is found, with a false peak; a normal slide with one, and one
    without."""
    other, small = (6000, 5000, 1600, 1600), (6000, 1040, 320, 320)  # 80 µm: isolated cells
    seen = heat((1600, 1600, 800, 800, 0.9), (4800, 1600, 80, 80, 0.6), (6000, 1040, 320, 320, 0.8))
    yield seen, mask(TUMOUR, other, small)
    yield heat((400, 400, 80, 80, 0.7), case="b"), None
    yield heat(case="c"), None


def test_the_froc_is_that_of_peaks_by_hand() -> None:
    found = score(slides(), threshold=0.5)
    froc = found.froc
    assert froc is not None
    assert (froc.n_slides, froc.n_lesions, froc.n_false) == (3, 2, 2)
    assert froc.n_isolated >= 1
    assert froc.found.case_id.tolist() == ["a", "a"]
    np.testing.assert_array_equal(froc.found.prob, [0.9, np.nan])
    # The lesion is found at .9, before the false peaks at .7 and .6: 1/3 and 2/3 a slide.
    assert froc.at == (0.5,) * 6
    assert froc.score == 0.5
    assert found.overlap.case_id.tolist() == ["a", "b", "c", None]
    table = found.overlap.set_index("case_id")
    assert math.isnan(table.dice["c"])
    assert (table.truth["b"], table.found["b"], table.dice["b"]) == (0, 80**2, 0)
    shared, truth = 800**2 + 320**2, 2 * 1600**2 + 320**2
    seen = 800**2 + 2 * 80**2 + 320**2
    assert found.overlap.dice.iloc[-1] == pytest.approx(2 * shared / (truth + seen))


def test_peaks_below_the_least_are_no_detections() -> None:
    froc = score(slides(), threshold=0.5, least=0.65).froc
    assert froc is not None and froc.n_false == 1
    assert score(slides(), threshold=0.5, least=0.95).froc.score == 0  # type: ignore[union-attr]


def test_a_detection_in_a_cell_that_the_slide_cuts_is_on_the_slide() -> None:
    heatmap = heat(down=1500.0)
    heatmap.values[5, 6] = 0.9
    froc = score([(heatmap, mask((9000, 7504, 1000, 496), down=8))], threshold=0.5).froc
    assert froc is not None and froc.found.prob.tolist() == [0.9]


def test_lesions_are_told_in_the_same_squares_whatever_the_mask_is() -> None:
    fine, coarse = (truth_of(mask(TUMOUR, down=down), SIZE, MPP, "tumour") for down in (4, 16))
    assert (fine.n, coarse.n) == (1, 1)
    assert fine.downsample == (pytest.approx(32 * 0.243 / MPP),) * 2
    assert (fine.labels > 0).sum() == pytest.approx((coarse.labels > 0).sum(), rel=0.02)
    assert truth_of(None, SIZE, MPP, "tumour").n == 0


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(slides(), threshold=0.5)
    monkeypatch.setattr(lesion_scores, "BAND", 1000)
    parts = score(slides(), threshold=0.5)
    np.testing.assert_allclose(parts.overlap.iloc[:, 1:], whole.overlap.iloc[:, 1:])
    assert parts.froc.score == whole.froc.score  # type: ignore[union-attr]


def test_without_a_resolution_there_is_no_froc(caplog: pytest.LogCaptureFixture) -> None:
    found = score([(heat((*TUMOUR, 0.9), mpp=None), mask(TUMOUR))], threshold=0.5)
    assert found.froc is None and "resolution is unknown: a" in caplog.text
    assert found.overlap.dice.tolist() == [1.0, 1.0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TableError, match="no slide at all"):
        score([], threshold=0.5)
    with pytest.raises(TableError, match="each once"):
        score([(heat(), None), (heat(), None)], threshold=0.5)
    with pytest.raises(SettingsError, match="threshold must be in"):
        score([], threshold=50)
    with pytest.raises(MaskError, match="lies outside its slide"):
        score([(heat(), mask(origin=(20_000, 0)))], threshold=0.5)
    other = MaskImage(np.zeros((500, 625), np.uint8), {"fat": 1}, (16, 16), (0, 0), Path("m.png"))
    with pytest.raises(MaskError, match=r"no such value.*tumour"):
        score([(heat(), other)], threshold=0.5)
