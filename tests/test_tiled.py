"""TIFF tiles read directly: the pixels that OpenSlide gives, and an error where it is damaged."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from kit import codecs, tiled
from kit.errors import SlideError
from kit.slides import Slide, open_slide

CMU = "slides/CMU-1-Small-Region.svs"
TCGA = "slides/TCGA-CR-7395-01A-01-TS1.svs"
SLIDES = [
    CMU, TCGA, "slides/idc_pseudo_slides/14082.tif", "slides/idc_pseudo_slides/14306.tif",
    "slides/openslide_fixtures/openslide_boxes.tiff",
    "slides/openslide_fixtures/openslide_small.svs",
    "slides/openslide_fixtures/openslide_boxes_0.dcm",
]  # fmt: skip


def picture(width: int = 500, height: int = 300) -> np.ndarray:
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 255, (9, 13, 3), np.uint8), (width, height))
    return np.asarray(smooth, np.uint8)


def write(path: Path, pixels: np.ndarray, **how: object) -> Path:
    how = {"tile": (128, 128), "metadata": None, "photometric": "rgb", **how}
    if how["tile"] is None:
        del how["tile"]
    tifffile.imwrite(path, pixels, **how)
    return path


def crops(
    slide: Slide, seed: int = 0, n: int = 40, side: int = 90
) -> tuple[np.ndarray, np.ndarray]:
    xy = np.random.default_rng(0).integers(-60, max(slide.size), (n, 2))
    return xy, slide.read_patches(xy, side)


def expected_crops(pixels: np.ndarray, xy: np.ndarray, side: int = 90) -> np.ndarray:
    height, width = pixels.shape[:2]
    big = np.full((height + 2000, width + 2000, 3), 255, np.uint8)
    big[1000 : 1000 + height, 1000 : 1000 + width] = pixels
    return np.stack([big[y + 1000 : y + 1000 + side, x + 1000 : x + 1000 + side] for x, y in xy])


@pytest.mark.parametrize("tile", [(128, 128), (64, 192), None], ids=["square", "oblong", "strips"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd"])
def test_lossless_tiles_and_strips_are_the_pixels_written(tmp_path, compression, predictor, tile):
    if predictor and compression in (None, "packbits"):
        pytest.skip("no predictor there")
    path = write(tmp_path / "a.tif", picture(), compression=compression, predictor=predictor,
                 tile=tile, **({} if tile else {"rowsperstrip": 37}))  # fmt: skip
    with open_slide(path) as slide:
        assert slide.reader == "tiles"
        xy, found = crops(slide)
    np.testing.assert_array_equal(found, expected_crops(picture(), xy))


@pytest.mark.parametrize("kind", ["grey", "inverted", "palette"])
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_grey_and_palette_become_rgb(tmp_path, kind, tile):
    grey = picture()[..., 0]
    how: dict[str, object] = {"tile": tile, "compression": "deflate"}
    expected = np.repeat(grey[..., None], 3, axis=2)
    if kind == "grey":
        path = write(tmp_path / "a.tif", grey, photometric="minisblack", **how)
    elif kind == "inverted":
        path = write(tmp_path / "a.tif", grey, photometric="miniswhite", **how)
        expected = 255 - expected
    else:
        colours = np.random.default_rng(1).integers(0, 65535, (3, 256), dtype=np.uint16)
        path = write(tmp_path / "a.tif", grey, photometric="palette", colormap=colours, **how)
        expected = (colours.T >> 8).astype(np.uint8)[grey]
    with open_slide(path) as slide:
        assert slide.reader == "tiles"
        xy, found = crops(slide)
    np.testing.assert_array_equal(found, expected_crops(expected, xy))


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_tiles_are_what_openslide_reads(tmp_path, photometric, subsampling):
    if photometric == "rgb" and subsampling != (1, 1):
        photometric = "ycbcr"
    path = write(tmp_path / "a.tif", picture(), photometric="rgb", compression="jpeg",
                 subsampling=subsampling, compressionargs={"level": 85})  # fmt: skip
    peer = openslide.OpenSlide(path)
    with open_slide(path) as slide:
        assert slide.reader == "tiles"
        found = slide.read_patch((0, 0), slide.size)
    np.testing.assert_array_equal(
        found, np.asarray(peer.read_region((0, 0), 0, (500, 300)).convert("RGB"))
    )
    peer.close()


def test_the_photometric_decides_and_not_a_tiles_own_marker(tmp_path):
    import imagecodecs

    pixels = picture(256, 128)
    halves = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(part), level=95, colorspace="RGB",
                                 outcolorspace="RGB")
        for part in (pixels[:, :128], pixels[:, 128:])
    ]  # fmt: skip
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, iter(halves), shape=pixels.shape, dtype=np.uint8, tile=(128, 128),
                     compression="jpeg", photometric="rgb", metadata=None)  # fmt: skip
    peer = openslide.OpenSlide(path)
    with open_slide(path) as slide:
        found = slide.read_patch((0, 0), (256, 128))
    region = np.asarray(peer.read_region((0, 0), 0, (256, 128)).convert("RGB"))
    peer.close()
    np.testing.assert_array_equal(found, region)


@pytest.mark.parametrize("compression", ["jpeg2000", "webp"])
def test_jpeg_2000_and_webp_tiles_are_the_pixels_written(tmp_path, compression):
    lossless = {"reversible": True} if compression == "jpeg2000" else {"lossless": True}
    path = write(tmp_path / "a.tif", picture(), compression=compression, compressionargs=lossless)
    with open_slide(path) as slide:
        xy, found = crops(slide)
    np.testing.assert_array_equal(found, expected_crops(picture(), xy))


def test_ycbcr_of_aperio_is_bt_601_of_full_range():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    grey[..., 1:] = 128
    np.testing.assert_array_equal(codecs.ycbcr_to_rgb(grey)[..., 0], grey[..., 0])
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (20, 20, 3), np.uint8)
    swapped = np.ascontiguousarray(pixels[..., [0, 2, 1]])  # OpenCV orders Cr before Cb
    peer = cv2.cvtColor(swapped, cv2.COLOR_YCrCb2RGB)
    assert np.abs(codecs.ycbcr_to_rgb(pixels).astype(int) - peer).max() <= 1


def test_aperios_ycbcr_is_what_openslide_reads(tmp_path):
    import imagecodecs

    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    tile = imagecodecs.jpeg2k_encode(pixels, reversible=True, mct=False, codecformat="J2K")
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path, iter([tile]), shape=pixels.shape, dtype=np.uint8, tile=(256, 256), metadata=None,
        compression=33003, photometric="rgb", description="Aperio Image Library v10\r\n256x256",
    )  # fmt: skip
    peer = openslide.OpenSlide(path)
    expected = np.asarray(peer.read_region((0, 0), 0, (256, 256)).convert("RGB"))
    peer.close()
    with open_slide(path) as slide:
        assert slide.reader == "tiles"
        np.testing.assert_array_equal(slide.read_patch((0, 0), 256), expected)


def test_rgba_and_channels_apart_are_read_whole(tmp_path, caplog):
    pixels = np.dstack([picture(), np.full((300, 500), 255, np.uint8)])
    pixels[:50, :, 3] = 0
    path = write(tmp_path / "a.tif", pixels, tile=None, extrasamples=["unassalpha"])
    with caplog.at_level(logging.INFO, logger="kit"), open_slide(path) as slide:
        assert slide.reader == "image"
        found = slide.read((np.array([[0, 0], [0, 100]])), 40)
    assert "is read whole" in caplog.text
    assert (found.patches[0] == 255).all() and not found.valid[0].any()
    np.testing.assert_array_equal(found.patches[1], picture()[100:140, :40])
    apart = write(tmp_path / "b.tif", np.moveaxis(picture(), -1, 0), planarconfig="separate",
                  tile=None)  # fmt: skip
    with open_slide(apart) as slide:
        np.testing.assert_array_equal(slide.read_patch((0, 0), (500, 300)), picture())


def test_sixteen_bits_that_openslide_does_not_read_are_an_error_that_says_so(tmp_path):
    path = write(tmp_path / "a.tif", picture().astype(np.uint16), tile=None)
    with pytest.raises(SlideError, match=r"uint16 of 16 bits.*a\.tif") as told:
        open_slide(path)
    assert len(str(told.value).splitlines()) == 1


def test_a_flat_tiff_has_its_resolution_and_its_reductions(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate((picture(), picture()[::2, ::2])):
            tiff.write(pixels, photometric="rgb", metadata=None, subfiletype=number,
                       resolution=(25400 / 2, 25400 / 2), resolutionunit="INCH")  # fmt: skip
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(2.0)
        assert slide.levels == [(500, 300), (250, 150)]
        assert slide.downsamples == [1.0, 2.0]
        np.testing.assert_array_equal(
            slide.read_patch((100, 100), 50, level=1), picture()[::2, ::2][50:100, 50:100]
        )


@pytest.mark.real_data
@pytest.mark.parametrize("name", SLIDES)
def test_real_slides_are_identical_to_openslide(real_data, name):
    """At level 0 to its reads; above, where it shifts by parts of a pixel, to its whole level."""
    random = np.random.default_rng(0)
    peer = openslide.OpenSlide(real_data / name)
    with open_slide(real_data / name) as slide:
        for level, (width, height) in enumerate(slide.levels):
            side, down = min(128, width // 2, height // 2), slide.downsamples[level]
            most = np.array(slide.size) - int((side + 1) * down)
            xy = random.integers(0, np.maximum(most, 1), (200, 2))
            whole = np.asarray(peer.read_region((0, 0), level, (width, height)).convert("RGB"))
            for found, (x, y) in zip(slide.read_patches(xy, side, level=level), xy, strict=True):
                left, top = round(x / down), round(y / down)
                np.testing.assert_array_equal(found, whole[top : top + side, left : left + side])
    peer.close()


def damaged(source: Path, path: Path, how: str, number: int, random: np.random.Generator) -> Path:
    """Copy a TIFF with one tile of level 0 cut or with a stretch of it zeroed."""
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[number], page.databytecounts[number]
        where = page.tags["TileByteCounts"]
        place, size = where.valueoffset, {3: 2, 4: 4, 16: 8}[int(where.dtype)]
    data = bytearray(source.read_bytes())
    if how == "truncated":
        kept = int(random.integers(1, length - 8))
        data[place + size * number : place + size * (number + 1)] = kept.to_bytes(size, "little")
    else:
        start = int(random.integers(40, length - 200))
        stop = start + int(random.integers(100, length - start))
        data[offset + start : offset + stop] = bytes(stop - start)
    path.write_bytes(data)
    return path


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("how", ["truncated", "zeroed"])
@pytest.mark.parametrize("name", [CMU, TCGA, "slides/idc_pseudo_slides/14082.tif"])
def test_a_hundred_damaged_tiles_all_raise(real_data, tmp_path, name, how):
    random = np.random.default_rng(0)
    with open_slide(real_data / name) as slide:
        level = slide._reader()._levels[0]  # type: ignore[attr-defined]
        sizes = np.array(level.places[1])
        numbers = random.permutation(np.flatnonzero(sizes > 300))
        numbers = np.resize(numbers, 100)  # a slide of fewer tiles is damaged in several ways
    for number in numbers.tolist():
        path = damaged(real_data / name, tmp_path / Path(name).name, how, number, random)
        x, y = number % level.columns * level.tile[0], number // level.columns * level.tile[1]
        with (
            open_slide(path) as slide,
            pytest.raises(SlideError, match=f"level 0 at x={x}, y={y} is damaged"),
        ):
            slide.read_patch((x + 2, y + 2), 8)


def test_a_missing_tile_and_one_beyond_the_file_raise(tmp_path):
    good = tmp_path / "a.tif"
    with tifffile.TiffWriter(good) as tiff:  # OpenSlide reads the coarsest level when it opens
        for reduced in (0, 1):
            tiff.write(picture()[:: reduced + 1, :: reduced + 1], tile=(128, 128), metadata=None,
                       compression="deflate", photometric="rgb", subfiletype=reduced)  # fmt: skip
    with tifffile.TiffFile(good) as tiff:
        counts, offsets = (tiff.pages[0].tags[name] for name in ("TileByteCounts", "TileOffsets"))
        sizes = [{3: 2, 4: 4}[int(tag.dtype)] for tag in (counts, offsets)]
    for tag, size, value, line in [
        (counts, sizes[0], 0, "the file does not hold it"),
        (offsets, sizes[1], 0, "the file does not hold it"),
        (offsets, sizes[1], 10**6, r"the file ends \d+ bytes before"),
    ]:
        data = bytearray(good.read_bytes())
        data[tag.valueoffset : tag.valueoffset + size] = value.to_bytes(size, "little")
        path = tmp_path / "b.tif"
        path.write_bytes(data)
        with open_slide(path) as slide, pytest.raises(SlideError, match=line):
            slide.read_patch((0, 0), 8)


def test_skipping_goes_on_and_says_which(tmp_path, caplog):
    path = write(tmp_path / "a.tif", picture(), compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    xy = np.array([[0, 0], [130, 10], [300, 200], [100, 50]])  # the second and the last touch it
    for threads in (1, 3):
        with open_slide(path, threads=threads) as slide, caplog.at_level(logging.WARNING):
            patches, skipped = slide.read_patches(xy, 40, on_error="skip")
            found = slide.read(xy, 40, on_error="skip")
            with pytest.raises(SlideError, match="is damaged"):
                slide.read_patches(xy, 40)
        assert skipped.tolist() == found.skipped.tolist() == [1, 3]
        assert len(found.valid) == 2
        np.testing.assert_array_equal(patches, expected_crops(picture(), xy[[0, 2]], 40))
    assert "2 of 4 patches are skipped" in caplog.text


def test_a_slide_cut_in_half_is_one_clear_error(tmp_path):
    good = write(tmp_path / "a.tif", picture(2000, 2000), compression="deflate")
    for share in (0.5, 0.02):
        path = tmp_path / "b.svs"
        path.write_bytes(good.read_bytes()[: int(good.stat().st_size * share)])
        with pytest.raises(SlideError, match=r"b\.svs") as told, open_slide(path) as slide:
            slide.read_patches([(0, 0), (1900, 1900)], 64)
        assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("size", [(128, 128), (100, 70), (300, 260)])
def test_order_threads_and_cache_do_not_change_pixels(tmp_path, size, monkeypatch):
    path = write(tmp_path / "a.tif", picture(), compression="deflate", tile=(64, 64))
    xy = np.random.default_rng(3).integers(-100, 520, (70, 2))
    found = []
    for threads in (1, 4):
        for cache in (10**9, 1):
            monkeypatch.setattr(tiled, "CACHE_BYTES", cache)
            with open_slide(path, threads=threads) as slide:
                found.append(slide.read_patches(xy, size))
                found.append(slide.read_patches(xy[::-1], size)[::-1])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_each_tile_is_decoded_once_for_all_patches_that_touch_it(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", picture(512, 256), compression="deflate")
    with open_slide(path, threads=1) as slide:
        reader, decoded = slide._reader(), []
        original = reader._bytes  # type: ignore[attr-defined]

        def counted(level, number):
            decoded.append(number)
            return original(level, number)

        monkeypatch.setattr(reader, "_bytes", counted)
        xy = np.stack(np.meshgrid(np.arange(0, 400, 16), np.arange(0, 200, 16)), -1).reshape(-1, 2)
        slide.read_patches(np.random.default_rng(0).permutation(xy), 64)
    assert sorted(decoded) == list(range(8))
    assert decoded == sorted(decoded)


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled, "CACHE_BYTES", 3 * 64 * 64 * 3)
    path = write(tmp_path / "a.tif", picture(), compression="deflate", tile=(64, 64))
    with open_slide(path) as slide:
        slide.read_patches([(x, 5) for x in range(0, 400, 30)], 50)
        reader = slide._reader()
        assert len(reader._cache) <= 3  # type: ignore[attr-defined]
        assert reader._cached_bytes == sum(t.nbytes for t in reader._cache.values())  # type: ignore[attr-defined]


def test_pixels_outside_are_background_and_not_valid(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((100, 100, 3), np.uint8), compression="deflate")
    with open_slide(path) as slide:
        found = slide.read([(-10, -20), (90, 95), (500, 500), (10, 10)], 30)
    assert (found.patches[0, :20] == 255).all() and (found.patches[0, 20:, 10:] == 0).all()
    assert found.valid[0].sum() == 20 * 10
    assert found.valid[1].sum() == 10 * 5
    assert not found.valid[2].any() and (found.patches[2] == 255).all()
    assert found.valid[3].all()


def test_shrinking_averages_and_valid_shrinks_with_it(tmp_path):
    path = write(tmp_path / "a.tif", picture(), compression="deflate",
                 resolution=(1e4, 1e4), resolutionunit="CENTIMETER")  # fmt: skip
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(1.0)
        found = slide.read([(40, 60), (480, 60)], 32, mpp=2.0)
    expected = cv2.resize(picture()[60:124, 40:104], (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(found.patches[0], expected)
    assert found.valid[0].all()
    assert found.valid[1].sum() == 10 * 32


def test_a_slide_closes_its_file(tmp_path):
    path = write(tmp_path / "a.tif", picture(), compression="deflate")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    for _ in range(5):
        with open_slide(path, threads=2) as slide:
            slide.read_patch((0, 0), 300)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_reading_at_an_offset_works_without_pread(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"0123456789")
    file = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        expected = tiled.read_at(file, 3, 4)
        monkeypatch.delattr(os, "pread", raising=False)
        assert tiled.read_at(file, 3, 4) == expected == b"456"
    finally:
        os.close(file)


def test_cut_images_are_errors(tmp_path):
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        good = tmp_path / f"good{suffix}"
        cv2.imwrite(str(good), picture())
        with open_slide(good) as slide:
            assert slide.reader == "image"
        for share in (0.3, 0.7, 0.98):
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(good.read_bytes()[: int(good.stat().st_size * share)])
            with pytest.raises(SlideError, match=f"cut{suffix}"):
                open_slide(path)


@pytest.mark.parametrize(("tag", "value"), [("ImageWidth", 0), ("SamplesPerPixel", 1)])
def test_damaged_tags_are_one_error_that_names_the_file(tmp_path, tag, value):
    path = tmp_path / "damaged.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), compression="jpeg", photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)
    with pytest.raises(SlideError, match=r"damaged\.tif"), open_slide(path) as slide:
        slide.thumbnail(64)
