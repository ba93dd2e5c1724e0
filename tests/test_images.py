from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.errors import ImageError, SettingsError
from kit.images import fit, read_image, write_image

RED = (200, 30, 60)


def test_a_16_bit_file_of_12_bits_is_not_taken_for_black(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    path.write_bytes(encoded(".png", np.full((4, 4), 4080, np.uint16)))
    with pytest.raises(ImageError, match=r"none above 4080.*dark\.png.*scale it to 0..65535"):
        read_image(path)
    path.write_bytes(encoded(".png", np.zeros((4, 4), np.uint16)))
    assert not read_image(path).any()


def encoded(suffix: str, bgr: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, bgr, options)
    assert done
    return bytes(data)


def textured(height: int = 60, width: int = 80) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_red_image_is_red_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, np.full((20, 30, 3), RED, np.uint8))
    image = read_image(path)
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_what_was_written_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", textured())
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), textured())


def test_a_name_outside_ascii_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "환자 é" / "이미지.png"
    write_image(path, textured())
    np.testing.assert_array_equal(read_image(path), textured())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = textured()[:, :, 0]
    write_image(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.dstack([grey] * 3))


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        encoded(".png", np.array([[0, 257, 32768, 65535]], dtype=np.uint16))
    )
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_pixels_are_white_and_half_transparent_ones_half(tmp_path: Path) -> None:
    bgra = np.array([[[0, 0, 100, 255], [0, 0, 100, 0], [55, 155, 55, 51]]], dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(".png", bgra))
    assert read_image(tmp_path / "a.png")[0].tolist() == [
        [100, 0, 0],
        [255, 255, 255],
        [215, 235, 215],
    ]


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_file_cut_off_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    data = encoded(suffix, textured())
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=f"cut{suffix}"):
        read_image(path)


@pytest.mark.parametrize(
    "options", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_progressive_and_restarted_jpegs_are_whole_only_with_their_end(
    tmp_path: Path, options: tuple[int, int]
) -> None:
    data = encoded(".jpg", textured(), *options)
    path = tmp_path / "a.jpg"
    path.write_bytes(data + b"\0" * 40)
    assert read_image(path).shape == (60, 80, 3)
    path.write_bytes(data[:-2])
    with pytest.raises(ImageError, match="end marker"):
        read_image(path)


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_jpeg(tmp_path: Path) -> None:
    data, thumbnail = encoded(".jpg", textured()), encoded(".jpg", textured(8, 8))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_image(path).shape == (60, 80, 3)
    path.write_bytes(data[:2] + segment + data[2 : len(data) // 2])
    with pytest.raises(ImageError, match="end marker"):
        read_image(path)


def test_a_flipped_byte_in_a_png_is_found(tmp_path: Path) -> None:
    data = bytearray(encoded(".png", textured()))
    data[len(data) // 2] ^= 0x55
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="checksum"):
        read_image(tmp_path / "a.png")


def test_text_a_folder_floats_and_nothing_are_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "floats.tif").write_bytes(encoded(".tif", np.ones((4, 4), np.float32)))
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "floats.tif", "folder.png", "missing.png"):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_an_image_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for name, image in {
        "a.png": np.ones((4, 4, 3), np.float32),
        "b.png": np.ones((4, 4, 2), np.uint8),
        "c.doc": np.ones((4, 4, 3), np.uint8),
    }.items():
        with pytest.raises(ImageError, match=name):
            write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    board = np.zeros((8, 8, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 200
    assert (fit(board, 4) == 100).all()
    ramp = np.array([[0, 100], [0, 100]], np.uint8)
    assert fit(ramp, 4)[:, :, 0].tolist() == [[0, 25, 75, 100]] * 4


def test_an_axis_that_shrinks_beside_one_that_grows_is_averaged_too() -> None:
    stripes = np.zeros((4, 80), np.uint8)
    stripes[:, ::2] = 200
    assert (fit(stripes, 8) == 100).all()


def test_a_border_patch_keeps_its_scale_on_white() -> None:
    patch = np.full((27, 50, 3), 90, np.uint8)
    padded = fit(patch, 50, "pad")
    dark = (padded == 90).all(axis=2)
    assert dark.sum() == 27 * 50
    assert dark[11:38].all()
    assert (padded[~dark] == 255).all()
    assert fit(patch, 48, "pad").shape == (48, 48, 3)
    whole = textured(50, 50)
    np.testing.assert_array_equal(fit(whole, 48, "pad"), fit(whole, 48, "resize"))


def test_an_unknown_way_to_fit_and_a_size_of_zero_are_refused() -> None:
    with pytest.raises(SettingsError, match="how"):
        fit(textured(), 10, "crop")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="size"):
        fit(textured(), 0)


@pytest.mark.real_data
def test_real_patches_of_every_format_and_size_are_read(real_data: Path) -> None:
    files = sorted(real_data.glob("patches/idc/*/*.png"))[::40]
    files += sorted(real_data.glob("patches/breakhis_200x/*.webp"))[::10]
    assert len(files) > 100
    for path in files:
        image = read_image(path)
        assert fit(image, 48, "pad").shape == (48, 48, 3)
        # Haematoxylin and eosin: green is absorbed most, whatever the order says.
        assert image[:, :, 1].mean() < image[:, :, [0, 2]].mean() + 1, path
