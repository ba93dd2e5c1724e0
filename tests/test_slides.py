from __future__ import annotations

import logging
import multiprocessing
import pickle
import threading

import cv2
import numpy as np
import pytest
import tifffile

from kit.errors import MissingMppError, SlideError
from kit.slides import open_slide

CMU = "slides/CMU-1-Small-Region.svs"
TCGA = "slides/TCGA-CR-7395-01A-01-TS1.svs"
MIRAX = "slides/mirax/Mirax2-Fluorescence-2.mrxs"
FIXTURES = "slides/openslide_fixtures"


def picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 251, y % 241, (x + y) // 8 % 256], axis=2).astype(np.uint8)


def write_pyramid(path, levels, mpp=0.5, unit="CENTIMETER"):
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level, tile=(128, 128), compression="deflate", photometric="rgb", metadata=None,
                subfiletype=int(number > 0), resolution=resolution if number == 0 else None,
                resolutionunit=unit if mpp else None,
            )  # fmt: skip
    return path


@pytest.fixture
def odd(tmp_path):
    """A slide of 513 x 385 whose second level has a downsample between 2.003 and 2.006."""
    full = picture(513, 385)
    half = cv2.resize(full, (256, 192), interpolation=cv2.INTER_AREA)
    return write_pyramid(tmp_path / "odd.tiff", [full, half])


def test_a_slide_says_what_it_is(odd):
    with open_slide(odd) as slide:
        assert slide.path == odd
        assert slide.size == (513, 385)
        assert slide.levels == [(513, 385), (256, 192)]
        assert slide.downsamples == pytest.approx([1.0, 2.0045], abs=1e-3)
        assert slide.mpp == pytest.approx(0.5)
        assert slide.bounds == (0, 0, 513, 385)
        assert slide.background == (255, 255, 255)
        assert slide.reader == "tiles"
        assert slide.properties["openslide.vendor"] == "generic-tiff"


def test_patches_at_level_0_are_the_pixels_in_the_order_asked(odd):
    full = picture(513, 385)
    xy = [(300, 200), (0, 0), (481, 353), (17, 5)]
    with open_slide(odd) as slide:
        patches = slide.read_patches(xy, (32, 20))
        one = slide.read_patch((17, 5), (32, 20))
    assert patches.shape == (4, 20, 32, 3)
    assert patches.dtype == np.uint8
    for patch, (x, y) in zip(patches, xy, strict=True):
        np.testing.assert_array_equal(patch, full[y : y + 20, x : x + 32])
    np.testing.assert_array_equal(one, patches[3])


def test_a_level_with_a_non_integer_downsample_is_read_where_it_lies(odd):
    half = cv2.resize(picture(513, 385), (256, 192), interpolation=cv2.INTER_AREA).astype(int)
    with open_slide(odd) as slide:
        patch = slide.read_patch((400, 300), 40, level=1)
    x, y = round(400 / 2.0045), round(300 / 2.0045)
    assert np.median(np.abs(patch - half[y : y + 40, x : x + 40])) <= 2


def test_a_patch_by_mpp_covers_its_footprint(odd):
    full = picture(513, 385)
    expected = cv2.resize(full[40:140, 60:160], (50, 50), interpolation=cv2.INTER_AREA)
    with open_slide(write_pyramid(odd.with_name("flat.tiff"), [full])) as slide:
        np.testing.assert_array_equal(slide.read_patch((60, 40), 50, mpp=1.0), expected)


def test_outside_the_slide_is_background_and_never_black(odd):
    with open_slide(odd) as slide:
        far = slide.read_patches([(-500, -500), (9000, 0), (0, 9000)], 32)
        edge = slide.read_patch((-10, -4), 32)
        level = slide.read_patch((513 - 20, 0), 64, level=1)
    assert (far == 255).all()
    assert (edge[:4] == 255).all()
    assert (edge[:, :10] == 255).all()
    np.testing.assert_array_equal(edge[4:, 10:], picture(513, 385)[:28, :22])
    assert (level[:, 12:] == 255).all()


def test_enlarging_is_done_and_said_once(odd, caplog):
    with open_slide(odd) as slide, caplog.at_level(logging.WARNING):
        patches = slide.read_patches([(0, 0), (8, 8)], 64, mpp=0.25)
        slide.read_patch((0, 0), 64, mpp=0.25)
        assert slide.read_patch((0, 0), 64, mpp=0.5).shape == (64, 64, 3)
    assert patches.shape == (2, 64, 64, 3)
    assert len(caplog.records) == 1
    assert "enlarged" in caplog.text


@pytest.mark.parametrize("mpp", [None, 352.8, 0.001])
def test_a_missing_or_absurd_mpp_names_the_file_what_was_found_and_three_remedies(tmp_path, mpp):
    slide = open_slide(write_pyramid(tmp_path / "bare.tiff", [picture(200, 150)], mpp=mpp))
    with slide, pytest.raises(MissingMppError) as found:
        slide.read_patch((0, 0), 32, mpp=1.0)
    text = str(found.value)
    for part in ("bare.tiff", "mpp=...", "data_manifest.yaml", "level=", "Received: "):
        assert part in text
    assert str(mpp or "none")[:4] in text


@pytest.mark.parametrize(
    ("x", "y", "mpp"),
    [("0.5", "0.504", 0.502), ("0.5", "0.51", None), ("0", "0", None), ("x", "0.5", None),
     ("nan", "nan", None), (None, "0.5", None), ("0.05", "0.05", 0.05), ("20.1", "20.1", None)],
)  # fmt: skip
def test_mpp_must_agree_in_x_and_y(x, y, mpp):
    slide = open_slide(picture(64, 64))
    named = {"openslide.mpp-x": x, "openslide.mpp-y": y}
    slide.properties = {name: value for name, value in named.items() if value is not None}
    if mpp is not None:
        assert slide.mpp == pytest.approx(mpp)
    else:
        with pytest.raises(MissingMppError, match="no usable resolution"):
            _ = slide.mpp


def test_an_mpp_given_at_opening_is_used_and_checked(tmp_path):
    path = write_pyramid(tmp_path / "bare.tiff", [picture(200, 150)], mpp=None)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
        assert slide.request(50, mpp=1.0).size_level0 == (200.0, 200.0)
    with pytest.raises(MissingMppError, match="mpp-x=25"):
        open_slide(path, mpp=25)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg"])
def test_an_ordinary_image_is_a_slide_of_one_level(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    cv2.imwrite(str(path), picture(100, 80)[..., ::-1], options)
    with open_slide(path) as slide:
        assert (slide.size, slide.levels, slide.reader) == ((100, 80), [(100, 80)], "image")
        patch = slide.read_patch((90, 70), 20)
    close = 40 if suffix == ".jpg" else 0
    assert np.abs(patch[:10, :10].astype(int) - picture(100, 80)[70:, 90:]).mean() <= close
    assert (patch[10:] == 255).all()
    assert (patch[:, 10:] == 255).all()


def test_a_flat_tiff_is_a_slide_of_one_level(tmp_path):
    tifffile.imwrite(tmp_path / "flat.tif", picture(100, 80), photometric="rgb")
    with open_slide(tmp_path / "flat.tif") as slide:
        np.testing.assert_array_equal(slide.read_patch((0, 0), (100, 80)), picture(100, 80))


def test_transparent_pixels_of_an_image_become_background(tmp_path):
    rgba = np.dstack([picture(60, 60)[..., ::-1], np.full((60, 60), 255, np.uint8)])
    rgba[:30, :, 3] = 0
    cv2.imwrite(str(tmp_path / "holes.png"), rgba)
    with open_slide(tmp_path / "holes.png") as slide:
        patch = slide.read_patch((0, 0), 60)
        _, scanned = slide.overview(60)
    assert (patch[:30] == 255).all()
    np.testing.assert_array_equal(patch[30:], picture(60, 60)[30:])
    assert scanned.mean() == 0.5


def test_an_array_is_a_slide_and_grey_becomes_rgb():
    slide = open_slide(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30))
    assert slide.size == (30, 20)
    assert (slide.read_patch((1, 0), 2)[0, :, 2] == [1, 2]).all()
    with pytest.raises(SlideError, match="no image"):
        open_slide(np.zeros((4, 4, 3), np.float32))


def test_the_thumbnail_fits_and_shows_the_whole_slide(odd):
    full = picture(513, 385)
    with open_slide(odd) as slide:
        small = slide.thumbnail(100)
        assert slide.thumbnail(5000).shape == (385, 513, 3)
        assert slide.thumbnail((100, 30)).shape == (30, 40, 3)
    assert small.shape == (75, 100, 3)
    expected = cv2.resize(full, (100, 75), interpolation=cv2.INTER_AREA).astype(int)
    assert np.median(np.abs(small - expected)) <= 3


def test_a_thumbnail_read_in_bands_is_the_same(odd, monkeypatch):
    full = picture(513, 385)
    flat = write_pyramid(odd.with_name("flat.tiff"), [full])
    with open_slide(flat) as slide:
        whole = slide.thumbnail(128).astype(int)
        monkeypatch.setattr("kit.slides.BAND_PIXELS", 513 * 40)
        assert np.median(np.abs(slide.thumbnail(128) - whole)) <= 2


@pytest.mark.parametrize("size", [0, -3, (8, 0), 8.0])
def test_a_size_that_is_no_size_is_refused(odd, size):
    with open_slide(odd) as slide, pytest.raises(SlideError, match=r"size must be.*odd\.tiff"):
        slide.read_patch((0, 0), size)


def test_float_coordinates_and_unknown_levels_are_refused(odd):
    with open_slide(odd) as slide:
        with pytest.raises(SlideError, match=r"whole level-0 pixels.*odd\.tiff"):
            slide.read_patch((0.0, 1.0), 8)
        with pytest.raises(SlideError, match=r"no such level. Expected: 0 to 1. .*odd\.tiff"):
            slide.read_patch((0, 0), 8, level=2)


def test_no_coordinates_give_no_patches(odd):
    with open_slide(odd) as slide:
        assert slide.read_patches([], (6, 4)).shape == (0, 4, 6, 3)


def test_a_text_file_named_svs_is_one_clear_error(tmp_path):
    for name in ("text.svs", "text.tiff", "text.png", "empty.png"):
        (tmp_path / name).write_text("" if "empty" in name else "this is no slide")
        with pytest.raises(SlideError, match=name):
            open_slide(tmp_path / name)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(SlideError, match=r"no such slide. File: .*gone\.svs"):
        open_slide(tmp_path / "gone.svs")


def test_a_damaged_tile_raises_with_level_and_place_and_the_rest_still_reads(tmp_path):
    path = write_pyramid(tmp_path / "cut.tiff", [picture(512, 384)])
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"level 0 at x=128, y=128 is damaged.*cut\.tiff"):
            slide.read_patch((130, 140), 64)
        np.testing.assert_array_equal(slide.read_patch((0, 0), 64), picture(512, 384)[:64, :64])


def test_a_closed_slide_says_so(odd):
    with open_slide(odd) as slide:
        pass
    with pytest.raises(SlideError, match=r"closed.*odd\.tiff"):
        slide.read_patch((0, 0), 8)


def _patch_sum(slide) -> int:
    return int(slide.read_patch((100, 100), 64).sum())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the point of the test
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_slide_travels_to_another_process(odd, method):
    with open_slide(odd) as slide:
        expected = _patch_sum(slide)
        assert _patch_sum(pickle.loads(pickle.dumps(slide))) == expected
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_patch_sum, (slide,)) == expected


def test_another_process_id_gets_a_handle_of_its_own(odd, monkeypatch):
    with open_slide(odd) as slide:
        expected, first = _patch_sum(slide), slide._reader()
        assert slide._reader() is first
        monkeypatch.setattr("os.getpid", lambda: -2)
        assert _patch_sum(slide) == expected
        assert slide._reader() is not first


def test_threads_read_the_same_pixels(odd):
    found: list[int] = []
    with open_slide(odd) as slide:
        expected = _patch_sum(slide)
        threads = [
            threading.Thread(target=lambda: found.append(_patch_sum(slide))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 8


@pytest.mark.real_data
def test_cmu_is_background_at_its_edge_and_identical_to_openslide_inside(real_data):
    import openslide

    random = np.random.default_rng(0)
    peer = openslide.OpenSlide(real_data / CMU)
    with open_slide(real_data / CMU) as slide:
        assert slide.mpp == 0.499
        assert slide.size == (2220, 2967)
        xy = random.integers(0, (2220 - 64, 2967 - 64), (30, 2))
        for patch, (x, y) in zip(slide.read_patches(xy, 64), xy.tolist(), strict=True):
            expected = np.asarray(peer.read_region((x, y), 0, (64, 64)))[..., :3]
            np.testing.assert_array_equal(patch, expected)
        edge = slide.read_patch((2200, 2950), 64)
    peer.close()
    assert (edge[17:] == 255).all()
    assert (edge[:, 20:] == 255).all()
    assert edge[:17, :20].min() > 0


@pytest.mark.real_data
def test_tcga_without_mpp_names_its_remedies_and_reads_by_level(real_data):
    with open_slide(real_data / TCGA) as slide:
        assert slide.downsamples[1] == pytest.approx(2.0005, abs=1e-4)
        with pytest.raises(MissingMppError, match=r"none.*TCGA.*mpp=.*data_manifest.*level="):
            slide.read_patch((2000, 2000), 64, mpp=0.5)
        assert slide.read_patch((2000, 2000), 64, level=1).std() > 5


@pytest.mark.real_data
def test_mirax_reads_level_2_in_its_bounds_and_refuses_levels_0_and_1(real_data):
    with open_slide(real_data / MIRAX) as slide:
        x, y, width, height = slide.bounds
        middle = (x + width // 2, y + height // 2)
        assert slide.background == (128, 128, 128)
        inside = slide.read_patch(middle, 256, level=2)
        assert inside.std() > 5
        for level in (0, 1):
            with pytest.raises(SlideError, match=f"level {level} cannot be read at x={middle[0]}"):
                slide.read_patch(middle, 256, level=level)
        np.testing.assert_array_equal(slide.read_patch(middle, 256, level=2), inside)
        assert (slide.read_patch((0, 0), 64, level=2) == 128).all()
        assert slide.overview(1024)[1].mean() < 0.05


@pytest.mark.real_data
def test_unreadable_and_unopenable_slides_raise_with_their_file(real_data):
    with pytest.raises(SlideError, match=r"cannot be opened.*unopenable\.tiff"):
        open_slide(real_data / FIXTURES / "openslide_unopenable.tiff")
    with (
        open_slide(real_data / FIXTURES / "openslide_unreadable.svs") as slide,
        pytest.raises(SlideError, match=r"level 0 .* x=0, y=0.*unreadable\.svs"),
    ):
        slide.read_patch((0, 0), 16)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["openslide_small.svs", "openslide_boxes_0.dcm"])
def test_small_slides_of_other_formats_read(real_data, name):
    with open_slide(real_data / FIXTURES / name) as slide:
        assert slide.mpp == 0.499
        assert slide.read_patch((0, 0), 16).shape == (16, 16, 3)


@pytest.mark.real_data
def test_an_absurd_real_mpp_is_refused(real_data):
    with (
        open_slide(real_data / FIXTURES / "openslide_boxes.tiff") as slide,
        pytest.raises(MissingMppError, match=r"352\.7"),
    ):
        _ = slide.mpp
