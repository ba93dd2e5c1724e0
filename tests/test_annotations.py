from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from kit.annotations import read_mask
from kit.errors import MaskError
from kit.slides import open_slide

IDC = {"background": 0, "normal": 1, "tumour": 2}


@pytest.fixture
def slide():
    return open_slide(np.full((385, 513, 3), 255, np.uint8))


def save(path, mask):
    if path.suffix == ".tif":
        tifffile.imwrite(path, mask)
    else:
        cv2.imwrite(str(path), mask)
    return path


def drawn(width: int, height: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :, : width // 2] = value
    return mask


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_a_mask_is_read_in_the_frame_of_its_slide(tmp_path, slide, name):
    mask = read_mask(save(tmp_path / name, drawn(256, 192)), slide)
    assert mask.downsample == (2.0, 2.0)
    fractions = mask.fraction([(0, 192), (0, 0), (224, 192), (100, 160)], 64)
    assert fractions.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert mask.share("tumour") == 0.25


def test_a_mask_may_have_equal_channels_but_no_colours(tmp_path, slide):
    mask = np.repeat(drawn(513, 385)[..., None], 3, axis=2)
    assert read_mask(save(tmp_path / "rgb.png", mask), slide).share("tumour") > 0.2
    mask[..., 0] = 7
    with pytest.raises(MaskError, match=r"one channel of integers.*rgb\.png"):
        read_mask(save(tmp_path / "rgb.png", mask), slide)


def test_a_bool_mask_has_the_value_1(tmp_path, slide):
    path = save(tmp_path / "mask.tif", drawn(513, 385) > 0)
    assert read_mask(path, slide, values={"tumour": 1}).share("tumour") > 0.2


def test_each_named_value_has_its_own_fraction(tmp_path, slide):
    labels = drawn(256, 192, 2) + drawn(256, 192, 1)[::-1]
    mask = read_mask(save(tmp_path / "mask.png", labels), slide, values=IDC)
    xy = [(0, 0), (0, 300), (300, 0)]
    assert mask.fraction(xy, 64).tolist() == [0.0, 1.0, 0.0]
    assert mask.fraction(xy, 64, "normal").tolist() == [1.0, 0.0, 0.0]
    assert mask.fraction(xy, 64, "background").tolist() == [0.0, 0.0, 1.0]
    with pytest.raises(MaskError, match=r"did you mean tumour\?"):
        mask.fraction(xy, 64, "tumor")


def test_another_shape_is_refused_with_both_expected_shapes(tmp_path, slide):
    slide.properties = {
        "openslide.bounds-x": "13", "openslide.bounds-y": "85",
        "openslide.bounds-width": "400", "openslide.bounds-height": "200",
    }  # fmt: skip
    path = save(tmp_path / "other.png", drawn(200, 192))
    with pytest.raises(MaskError) as found:
        read_mask(path, slide)
    for part in ("200 x 150 of the whole slide", "200 x 100 cropped", "200 x 192", "other.png"):
        assert part in str(found.value)


def test_a_mask_cropped_to_the_bounds_is_shifted_to_them(tmp_path, slide):
    slide.properties = {
        "openslide.bounds-x": "13", "openslide.bounds-y": "85",
        "openslide.bounds-width": "400", "openslide.bounds-height": "200",
    }  # fmt: skip
    path = save(tmp_path / "mask.png", drawn(200, 100))
    mask = read_mask(path, slide, frame="bounds")
    assert mask.origin_level0 == (13, 85)
    assert mask.fraction([(13, 185), (0, 185), (13, 85)], 52).tolist() == [1.0, 0.75, 0.0]
    with pytest.raises(MaskError, match="another shape"):
        read_mask(path, slide, frame="slide")


def test_a_mask_drawn_in_other_values_is_refused(tmp_path, slide):
    with pytest.raises(MaskError, match=r"Expected: tumour=255. Received: 1. .*mask_values"):
        read_mask(save(tmp_path / "mask.png", drawn(256, 192, 1)), slide)


def test_blended_edges_and_empty_masks_are_not_refused(tmp_path, slide):
    blended = cv2.resize(drawn(513, 385), (256, 192), interpolation=cv2.INTER_AREA)
    assert len(np.unique(blended)) > 2
    assert read_mask(save(tmp_path / "a.png", blended), slide).share("tumour") > 0.2
    assert read_mask(save(tmp_path / "b.png", blended * 0), slide).share("tumour") == 0


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_a_file_that_is_no_mask_is_refused(tmp_path, slide, name):
    with pytest.raises(MaskError, match=f"no such mask. File: .*{name}"):
        read_mask(tmp_path / name, slide)
    (tmp_path / name).write_text("no image")
    with pytest.raises(MaskError, match=f"cannot be read.*{name}"):
        read_mask(tmp_path / name, slide)


def test_a_large_tiff_mask_is_read_at_a_coarser_level(tmp_path, slide, monkeypatch):
    monkeypatch.setattr("kit.annotations.MOST_PIXELS", 60_000)
    with tifffile.TiffWriter(tmp_path / "mask.tif") as tiff:
        tiff.write(drawn(513, 385), tile=(128, 128), subifds=1)
        tiff.write(drawn(256, 192), tile=(128, 128), subfiletype=1)
    assert read_mask(tmp_path / "mask.tif", slide).labels.shape == (192, 256)


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["14082", "14306"])
def test_fractions_of_real_masks_agree_with_direct_counting(real_data, case):
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{case}.tif") as slide:
        mask = read_mask(folder / f"{case}_mask.tif", slide, values=IDC)
        width, height = slide.size
    labels = tifffile.imread(folder / f"{case}_mask.tif")
    xy = np.random.default_rng(0).integers(0, (width - 77, height - 50), (500, 2))
    counted = [(labels[y : y + 50, x : x + 77] == 2).mean() for x, y in xy]
    np.testing.assert_allclose(mask.fraction(xy, (77, 50)), counted, atol=1e-6)
