from __future__ import annotations

import cv2
import numpy as np
import pytest

from kit.slides import open_slide
from kit.tissue import TissueMask, tissue_mask

PINK = (205, 120, 170)
PALE = (214, 196, 208)
PURPLE = (120, 70, 150)
INKS = {"green": (20, 150, 70), "blue": (40, 60, 190), "red": (215, 25, 40), "black": (25, 25, 28)}


def glass(width: int = 800, height: int = 600, colour=(243, 242, 244)) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)


def with_tissue(image: np.ndarray) -> np.ndarray:
    """Add tissue to the rectangle x 200 to 500, y 150 to 450, with dark nuclei."""
    random = np.random.default_rng(1)
    cv2.rectangle(image, (200, 150), (499, 449), PINK, -1)
    for x, y in random.integers((205, 155), (495, 445), (400, 2)).tolist():
        cv2.circle(image, (x, y), 4, PURPLE, -1)
    return image


def with_pale_tissue(image: np.ndarray) -> np.ndarray:
    cv2.rectangle(image, (200, 150), (499, 449), PALE, -1)
    return image


def mask_of(image: np.ndarray, mpp: float | None = 4.0, **options) -> TissueMask:
    return tissue_mask(open_slide(image, mpp=mpp), **options)


def test_tissue_is_found_and_glass_is_not():
    found = mask_of(with_tissue(glass()))
    assert found.mask.shape == (300, 400)
    assert found.downsample == (2.0, 2.0)
    assert found.share == pytest.approx(300 * 300 / (800 * 600), rel=0.02)
    assert found.mask[80:220, 105:245].all()
    assert not found.mask[:70].any()


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 242, 244), (246, 240, 232)])
def test_a_slide_without_tissue_gives_none(colour):
    assert mask_of(glass(colour=colour)).share == 0


def test_pale_tissue_beside_dark_tissue_stays_tissue():
    image = with_tissue(glass())
    cv2.rectangle(image, (550, 150), (749, 449), (236, 200, 222), -1)
    assert mask_of(image).mask[80:220, 280:370].mean() > 0.95


def test_grey_dirt_and_shadows_are_not_tissue():
    image = with_tissue(glass())
    cv2.rectangle(image, (20, 20), (150, 570), (150, 150, 152), -1)
    assert not mask_of(image).mask[:, :80].any()


@pytest.mark.parametrize("ink", INKS)
def test_pen_ink_is_not_tissue(ink):
    image = with_tissue(glass())
    cv2.line(image, (30, 500), (750, 540), INKS[ink], 24)
    cv2.line(image, (350, 100), (350, 500), INKS[ink], 24)  # across the tissue
    found = mask_of(image)
    drawn = np.zeros(image.shape[:2], np.uint8)
    cv2.line(drawn, (30, 500), (750, 540), 1, 24)
    cv2.line(drawn, (350, 100), (350, 500), 1, 24)
    assert found.pen > 0.05
    assert not (found.mask & (drawn[::2, ::2] > 0)).any()
    assert found.mask[80:220, 190:240].all()


@pytest.mark.parametrize("colour", [(95, 90, 190), (70, 40, 110), (150, 20, 80)])
def test_dense_dark_tumour_is_not_taken_for_ink(colour):
    image = with_tissue(glass())
    cv2.rectangle(image, (300, 200), (419, 339), colour, -1)
    found = mask_of(image)
    assert found.pen == 0
    assert found.mask[80:220, 105:245].all()


def test_a_black_void_neither_moves_the_threshold_nor_counts_as_ink():
    """Without the grey > 0 rule Otsu would part black from the rest and call pale tissue glass."""
    image = np.zeros((1200, 1600, 3), np.uint8)
    image[300:900, 400:1200] = with_pale_tissue(glass())
    found = mask_of(image)
    assert found.mask.sum() == pytest.approx(150 * 150, rel=0.1)
    assert found.pen == 0


def test_ink_does_not_move_the_threshold():
    image = with_pale_tissue(glass())
    cv2.rectangle(image, (0, 480), (799, 599), INKS["black"], -1)
    assert mask_of(image).mask[80:220, 105:245].mean() > 0.95


def test_transparent_places_are_not_counted():
    image = np.dstack([with_tissue(glass()), np.full((600, 800), 255, np.uint8)])
    image[:, 350:, 3] = 0
    found = mask_of(image)
    assert found.mask[80:220, 105:170].all()
    assert not found.mask[:, 176:].any()


def test_a_slide_of_nothing_but_void_gives_none():
    assert mask_of(np.zeros((100, 100, 3), np.uint8)).share == 0
    assert mask_of(np.zeros((100, 100, 4), np.uint8)).share == 0


def test_small_objects_go_and_small_holes_are_filled_by_area():
    image = with_tissue(glass())
    cv2.rectangle(image, (300, 250), (319, 269), (243, 242, 244), -1)  # 80 µm: a small hole
    cv2.rectangle(image, (400, 250), (469, 319), (243, 242, 244), -1)  # 280 µm: a large one
    cv2.rectangle(image, (50, 50), (69, 69), PINK, -1)
    found = mask_of(image)
    assert found.mask[128:132, 153:157].all()
    assert not found.mask[130:155, 205:230].any()
    assert not found.mask[20:40, 20:40].any()
    assert mask_of(image, min_area_um2=3000.0).mask[27:33, 27:33].all()


def test_a_slide_without_mpp_is_masked_at_the_largest_size():
    found = mask_of(with_tissue(glass()), mpp=None, max_size=400)
    assert found.mask.shape == (300, 400)
    assert found.share == pytest.approx(0.1875, rel=0.05)


def test_a_fine_mpp_stays_within_the_largest_size():
    assert max(mask_of(with_tissue(glass()), max_size=200).mask.shape) == 200


def test_fractions_are_in_the_level0_frame():
    found = TissueMask(np.array([[True, False], [False, False]]), (100.0, 50.0), (200, 100))
    fractions = found.fraction([(0, 0), (50, 0), (100, 50), (-50, -25), (0, 25)], (100, 50))
    assert fractions.tolist() == [1.0, 0.5, 0.0, 0.25, 0.5]


def test_the_overlay_outlines_the_tissue_on_a_copy():
    image = with_tissue(glass())
    thumbnail = open_slide(image).thumbnail(400)
    before = thumbnail.copy()
    drawn = mask_of(image).overlay(thumbnail)
    changed = (drawn != thumbnail).any(axis=2)
    assert (thumbnail == before).all()
    assert 0 < changed.mean() < 0.05
    assert not changed[100:200, 120:230].any()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", 0.30, 0.45),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.55, 0.70),
        ("idc_pseudo_slides/14082.tif", 0.08, 0.16),
        ("idc_pseudo_slides/14306.tif", 0.08, 0.16),
    ],
)
def test_the_tissue_of_real_slides_is_what_the_eye_sees(real_data, name, low, high):
    with open_slide(real_data / "slides" / name) as slide:
        assert low < tissue_mask(slide).share < high
