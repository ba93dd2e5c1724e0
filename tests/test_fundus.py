"""The eye is found wherever it lies, normalised as Graham did, and read no larger than needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kit import fundus
from kit.drawing_organs import fundus as drawn
from kit.drawing_organs import retina
from kit.errors import ImageError, SettingsError
from kit.images import fit, read_image, read_reduced, write_image


def eye(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    """A mottled disc that darkens towards its edge, on a ground of 3 with noise."""
    rng = np.random.default_rng(0)
    clouds = rng.normal(0, 10, (height // 20 + 2, width // 20 + 2)).astype(np.float32)
    rows, columns = np.ogrid[:height, :width]
    far = np.hypot(columns + 0.5 - x, rows + 0.5 - y) / radius
    light = np.where(far <= 1, 1.05 - 0.4 * far**2, 0)[:, :, None] * (185, 92, 44)
    mottled = cv2.resize(clouds, (width, height))[:, :, None] * (far <= 1)[:, :, None]
    return np.clip(light + mottled + rng.normal(3, 2, light.shape), 0, 255).astype(np.uint8)


def middle_row_radius(image: np.ndarray) -> float:
    """Graham's own estimate (2015), as the facts give it."""
    x = image[image.shape[0] // 2].sum(axis=1)
    return float((x > x.mean() / 10).sum() / 2)


@pytest.mark.parametrize(
    ("width", "height", "x", "y", "radius"),
    [
        (390, 307, 195, 153, 146),  # as it should be
        (390, 307, 120, 100, 60),
        (390, 307, 300, 250, 20),  # above the middle row there is nothing of it
        (390, 307, 195, 153, 190),  # cut off above and below
        (390, 307, 195, 290, 150),  # half of it lies below the frame
        (390, 307, 10, 153, 140),
        (1000, 800, 700, 300, 40),
        (2000, 2000, 1000, 1000, 60),
        (28, 28, 14, 14, 13),
    ],
)
def test_the_eye_is_found_wherever_it_lies_and_however_small(
    width: int, height: int, x: float, y: float, radius: float
) -> None:
    pixel = max(1.0, max(width, height) / fundus.SIDE)  # of the image that it is looked for on
    found = fundus.find_eye(eye(width, height, x, y, radius))
    assert found.x == pytest.approx(x, abs=1.2 * pixel)
    assert found.y == pytest.approx(y, abs=1.2 * pixel)
    assert found.radius == pytest.approx(radius, abs=1.5 * pixel)


def test_the_radius_of_a_centred_eye_is_that_of_grahams_middle_row() -> None:
    image = eye(390, 307, 195, 153.5, 140)
    image[image < 12] = 0  # his estimate takes noise for eye
    assert fundus.find_eye(image).radius == pytest.approx(middle_row_radius(image), rel=0.02)


def test_a_label_and_hot_pixels_beside_the_eye_are_not_taken_for_it() -> None:
    image = eye(390, 307, 195, 153, 120)
    cv2.putText(image, "R 2019", (2, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    image[300, 380] = image[2, 385] = 255
    found = fundus.find_eye(image)
    assert (found.x, found.y, found.radius) == pytest.approx((195, 153, 120), abs=2.5)


def test_a_wide_field_that_is_no_circle_is_enclosed_whole() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    cv2.ellipse(image, (200, 150), (190, 110), 0, 0, 360, (150, 90, 50), -1)
    found = fundus.find_eye(image)
    assert (found.x, found.y, found.radius) == pytest.approx((200.5, 150.5, 190.5), abs=2)


def test_an_eye_that_fills_the_frame_keeps_the_frame() -> None:
    image = eye(200, 200, 100, 100, 400)
    found = fundus.find_eye(image)
    assert found.radius > 90
    assert abs(found.x - 100) < 20 and abs(found.y - 100) < 20


@pytest.mark.parametrize("kind", ["black", "noise", "one colour"])
def test_an_image_without_an_eye_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 14, (300, 400, 3), dtype=np.uint8)
    image = {"black": np.zeros_like(noise), "noise": noise, "one colour": np.full_like(noise, 90)}
    write_image(tmp_path / "Wide_NOR_001_L.png", image[kind])
    with pytest.raises(ImageError, match=r"no eye.*Wide_NOR_001_L\.png.*replace the photograph"):
        fundus.read_eye(tmp_path / "Wide_NOR_001_L.png", 64, "graham")


def test_a_speck_is_no_eye() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    cv2.circle(image, (50, 60), 6, (200, 200, 200), -1)
    with pytest.raises(ImageError, match="specks of radius"):
        fundus.find_eye(image)


def test_the_crop_is_the_square_round_the_eye_with_black_beyond_the_frame() -> None:
    image = np.arange(100 * 120 * 3, dtype=np.uint32).reshape(100, 120, 3).astype(np.uint8)
    found = fundus.crop(image, fundus.Eye(60, 50, 20), 40)
    np.testing.assert_array_equal(found, image[30:70, 40:80])
    beyond = fundus.crop(image, fundus.Eye(10, 95, 20), 40)
    np.testing.assert_array_equal(beyond[:25, 10:], image[75:100, :30])
    assert not beyond[25:].any() and not beyond[:, :10].any()


def test_grahams_formula_by_hand_and_grey_outside_its_circle() -> None:
    image = eye(400, 400, 200, 200, 180)
    side = 360  # 324 of it are kept: .9
    found = fundus.graham(image, fundus.Eye(200, 200, 180), 324)
    whole = image[20:380, 20:380].astype(np.float64)
    blurred = cv2.GaussianBlur(whole, (0, 0), side / 2 / 30)
    expected = np.clip(np.rint(4 * whole - 4 * blurred + 128), 0, 255)[18:342, 18:342]
    rows, columns = np.ogrid[:324, :324]
    far = np.hypot(columns - 161.5, rows - 161.5)
    inside = far < 160
    assert np.abs(found[inside].astype(int) - expected[inside]).max() <= 4  # of 8-bit rounding
    assert (found[far > 163] == 128).all()
    assert found.shape == (324, 324, 3)


def test_a_darker_photograph_of_the_same_eye_looks_alike_once_normalised() -> None:
    rng = np.random.default_rng(3)
    image = drawn(rng, retina(rng), "DMR", 1.0, True)
    dark = (image * 0.6).astype(np.uint8)
    raw = np.abs(image.astype(int) - dark).mean()
    here = fundus.find_eye(image)
    one, two = (fundus.graham(each, here, 128).astype(int) for each in (image, dark))
    assert np.abs(one - two).mean() < raw / 3
    assert one.std() > 5  # and is no empty grey


def test_a_large_jpeg_is_read_at_an_eighth_and_agrees_with_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = drawn(rng, retina(rng), "AMD", 1.0, False)
    write_image(tmp_path / "a.jpg", cv2.resize(small, (1950, 1536), interpolation=cv2.INTER_CUBIC))
    image, stored = read_reduced(tmp_path / "a.jpg", 128)
    assert (image.shape, stored) == ((192, 244, 3), (1536, 1950, 3))
    whole = read_image(tmp_path / "a.jpg")
    assert np.abs(fit(image, 128).astype(int) - fit(whole, 128)).mean() < 1
    assert read_reduced(tmp_path / "a.jpg", 385).image.shape == (768, 975, 3)
    np.testing.assert_array_equal(read_reduced(tmp_path / "a.jpg", 769).image, whole)
    write_image(tmp_path / "a.png", whole)
    np.testing.assert_array_equal(read_reduced(tmp_path / "a.png", 32).image, whole)


def test_a_grey_jpeg_is_read_small_as_three_channels(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", np.full((400, 640), 77, np.uint8))
    image, stored = read_reduced(tmp_path / "a.jpg", 50)
    assert (image.shape, stored) == ((50, 80, 3), (400, 640, 3))
    assert (image == 77).all()


def test_a_small_eye_in_a_large_frame_is_read_with_its_own_detail(tmp_path: Path) -> None:
    image = eye(2400, 2000, 1700, 600, 160)
    cv2.circle(image, (1700, 600), 4, (255, 255, 255), -1)
    (tmp_path / "a.jpg").write_bytes(
        cv2.imencode(".jpg", image[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 97))[1].tobytes()
    )
    found = fundus.read_eye(tmp_path / "a.jpg", 256, "crop")
    full = fundus.crop(image, fundus.Eye(1700, 600, 160), 256)
    middle = slice(100, 156)
    assert found[middle, middle].max() > 235  # the spot of 8 px; at 1/4 of the size it is lost
    assert np.abs(found.astype(int) - full).mean() < 12


@pytest.mark.parametrize("least", [100, 2000])
def test_a_jpeg_cut_in_half_is_named_whether_read_small_or_whole(
    least: int, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.jpg", eye(1000, 800, 500, 400, 380))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut off or damaged.*half\.jpg.*copy or download"):
        read_reduced(tmp_path / "half.jpg", least)
    (tmp_path / "closed.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"closed\.jpg"):  # an end marker does not make it whole
        read_reduced(tmp_path / "closed.jpg", 100)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(SettingsError, match="graham"):
        fundus.normalise(eye(60, 60, 30, 30, 28), 32, "none")
