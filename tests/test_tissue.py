from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from kit.annotations import read_mask
from kit.errors import SettingsError, SlideError
from kit.slides import open_slide
from kit.tissue import BLURRED, TissueMask, sharpness, tissue_mask

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


def test_the_otsu_rule_is_help_2019s_and_nothing_else():
    image = with_tissue(glass())
    image[500:560, 100:160] = (150, 150, 150)  # grey dirt counts there, and so does ink
    image[0:80, 0:80] = 0  # black void counts nowhere
    cv2.line(image, (600, 100), (600, 500), INKS["green"], 12)
    found = mask_of(image, mpp=8.0, rule="otsu", min_area_um2=0, min_hole_um2=0)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    level, _ = cv2.threshold(grey[grey > 0].reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    np.testing.assert_array_equal(found.mask, (grey > 0) & (grey <= level))
    assert found.mask[520, 120] and found.mask[300, 600] and not found.mask[40, 40]
    assert found.pen == 0


def test_otsu_counts_scanned_pixels_only():
    image = np.dstack([with_tissue(glass()), np.full((600, 800), 255, np.uint8)])
    image[:, 520:, 3] = 0
    image[:, 520:, :3] = 0
    found = mask_of(image, mpp=8.0, rule="otsu", min_area_um2=0, min_hole_um2=0)
    assert found.mask[155:445, 205:495].mean() > 0.99
    assert not found.mask[:, 525:].any()


def test_the_saturation_rule_finds_colour_and_no_grey():
    image = with_tissue(glass())
    image[500:560, 100:260] = (120, 120, 120)
    found = mask_of(image, rule="saturation")
    assert found.mask[80:220, 105:245].mean() > 0.98
    assert not found.mask[252:278, 52:128].any()
    assert mask_of(glass(), rule="saturation").share == 0


def test_objects_and_holes_have_sizes_of_their_own_in_square_um():
    image = glass()
    cv2.rectangle(image, (100, 100), (399, 399), PINK, -1)
    cv2.rectangle(image, (200, 200), (249, 249), (243, 242, 244), -1)  # 200 um: 40,000 um2 at mpp 4
    cv2.rectangle(image, (600, 100), (639, 139), PINK, -1)  # 160 um: 25,600 um2

    def seen(**sizes: float) -> tuple[bool, bool]:
        mask = mask_of(image, **sizes).mask
        return bool(mask[60, 310]), bool(mask[112, 112])

    assert seen(min_area_um2=20_000, min_hole_um2=20_000) == (True, False)
    assert seen(min_area_um2=30_000, min_hole_um2=20_000) == (False, False)
    assert seen(min_area_um2=20_000, min_hole_um2=50_000) == (True, True)


def test_gaps_as_narrow_as_a_fat_cell_are_tissue_and_wider_ones_are_not():
    image = glass()
    for x in range(100, 500, 14):  # walls of 8 um, 48 um apart
        cv2.rectangle(image, (x, 100), (x + 1, 400), PINK, -1)
    for x in range(540, 780, 60):  # 232 um apart
        cv2.rectangle(image, (x, 100), (x + 1, 400), PINK, -1)
    mask = mask_of(image, mpp=4.0, min_area_um2=0, min_hole_um2=0).mask
    assert mask[60:190, 60:240].mean() > 0.95
    assert mask[60:190, 272:388].mean() < 0.2


def test_a_slide_is_masked_at_the_size_of_a_level(tmp_path):
    import tifffile

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate((with_tissue(glass()), with_tissue(glass())[::4, ::4])):
            tiff.write(pixels, tile=(128, 128), photometric="rgb", metadata=None,
                       subfiletype=number, compression="deflate")  # fmt: skip
    with open_slide(path) as slide:
        found = tissue_mask(slide, level=1)
    assert found.mask.shape == (150, 200)
    assert found.downsample == (4.0, 4.0)
    assert found.mask[42:108, 55:120].mean() > 0.98


def test_a_slide_dark_where_it_is_empty_is_refused():
    dark = np.zeros((400, 400, 3), np.uint8)
    dark[..., 2] = np.random.default_rng(0).integers(3, 12, (400, 400))
    dark[150:200, 150:200, 2] = 220
    with pytest.raises(SlideError, match=r"as in fluorescence.*Remedy"):
        mask_of(dark)


def test_an_unknown_rule_is_refused():
    with pytest.raises(SettingsError, match=r"stain, otsu, saturation.*rule='magic'"):
        mask_of(glass(), rule="magic")


def test_the_tissue_as_geojson_has_its_area_in_level0_pixels():
    found = mask_of(with_tissue(glass()))
    features = found.geojson()["features"]
    (ring,) = [feature["geometry"]["coordinates"][0] for feature in features]
    x, y = np.array(ring[:-1]).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(found.mask.sum() * 4)
    assert x.min() >= 196 and x.max() <= 504


def test_blur_lowers_the_sharpness_whatever_the_stain():
    random = np.random.default_rng(0)
    sharp = cv2.GaussianBlur(random.integers(0, 255, (6, 128, 128, 3), np.uint8)[0], (0, 0), 0.6)
    scores = [
        sharpness(cv2.GaussianBlur(sharp, (0, 0), sigma)[None])[0] if sigma else
        sharpness(sharp[None])[0] for sigma in (0, 1, 2, 4)
    ]  # fmt: skip
    assert scores == sorted(scores, reverse=True)
    pale = (200 + (sharp.astype(float) - 128) * 0.2).astype(np.uint8)
    assert sharpness(pale[None])[0] == pytest.approx(scores[0], rel=0.1)


def test_glass_has_no_sharpness():
    assert np.isnan(sharpness(glass(64, 64)[None])).all()
    assert sharpness(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0,)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_patches_are_sharp_and_blurred_by_two_pixels_they_are_not(real_data, name):
    with open_slide(real_data / "slides" / name) as slide:
        tissue = tissue_mask(slide)
        xy = np.stack(np.meshgrid(*(np.arange(0, side - 128, 128) for side in slide.size)), -1)
        xy = xy.reshape(-1, 2)
        patches = slide.read_patches(xy[tissue.fraction(xy, 128) > 0.7], 128)
    assert len(patches) > 100
    blurred = np.stack([cv2.GaussianBlur(patch, (0, 0), 2) for patch in patches])
    assert (sharpness(patches) > BLURRED).mean() > 0.99
    assert (sharpness(blurred) < BLURRED).mean() > 0.99


@pytest.mark.real_data
def test_a_real_fluorescence_slide_is_refused_by_name(real_data):
    path = real_data / "slides" / "mirax" / "Mirax2-Fluorescence-2.mrxs"
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"fluorescence.*Mirax2"):
        tissue_mask(slide)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "tumour", "normal"), [("14082", 0.98, 0.85), ("14306", 0.96, 0.85)]
)
def test_pale_patches_of_real_tissue_are_kept(real_data, name, tumour, normal):
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{name}.tif") as slide:
        mask = read_mask(folder / f"{name}_mask.tif", slide, values={"normal": 1, "tumour": 2})
        xy = np.stack(np.meshgrid(*(np.arange(0, side - 49, 50) for side in slide.size)), -1)
        kept = tissue_mask(slide).fraction(xy.reshape(-1, 2), 50) >= 0.5
    shares = {n: mask.fraction(xy.reshape(-1, 2), 50, n) for n in ("tumour", "normal")}
    for label, least in (("tumour", tumour), ("normal", normal)):
        assert kept[shares[label] > 0.5].mean() > least
    assert not kept[(shares["tumour"] == 0) & (shares["normal"] == 0)].any()


def test_a_level_or_a_resolution_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, glass())
    with open_slide(path, mpp=4.0) as slide:
        with pytest.raises(SlideError, match="level"):
            tissue_mask(slide, level=7)
        with pytest.raises(SettingsError, match="above 0"):
            tissue_mask(slide, mpp=0)
