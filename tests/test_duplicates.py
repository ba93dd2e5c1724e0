"""Copies of an image are found however they are turned; what is merely alike is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kit.challenges import open_run
from kit.duplicates import near_duplicates
from kit.errors import ImageError, TableError


def blobs(seed: int, n: int = 60, side: int = 64) -> list[np.ndarray]:
    """Stained textures: bright ground, dark spots of two sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        fine, coarse = rng.normal(size=(side, side)), rng.normal(size=(side, side))
        field = 3 * cv2.GaussianBlur(fine, (0, 0), 2) + 8 * cv2.GaussianBlur(coarse, (0, 0), 5)
        grey = 180 - 60 * field[..., None] * np.array([0.6, 1.0, 0.5])
        found.append(np.clip(grey, 0, 255).astype(np.uint8))
    return found


def jpeg(image: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


COPIES = {
    "exact": lambda x: x.copy(),
    "turned": lambda x: np.rot90(x),
    "turned twice": lambda x: np.rot90(x, 2),
    "mirrored": lambda x: x[:, ::-1],
    "mirrored and turned": lambda x: np.rot90(x[:, ::-1], 3),
    "recompressed": jpeg,
    "brighter": lambda x: np.clip(x * 1.1 + 10, 0, 255).astype(np.uint8),
    "noisy": noisy,
    "rescaled": lambda x: cv2.resize(x, (40, 40), interpolation=cv2.INTER_AREA),
    "grey": lambda x: np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
}


@pytest.mark.parametrize("way", list(COPIES))
def test_a_copy_is_found_among_others(way) -> None:
    images = blobs(0)
    copied = [*images, *(COPIES[way](image) for image in images[:12])]
    found = near_duplicates(copied, [f"i{k}" for k in range(72)])
    assert set(zip(found.a, found.b, strict=True)) == {(f"i{k}", f"i{60 + k}") for k in range(12)}
    assert (found.distance <= 0.04).all()
    assert (found.how == "exact").all() if way == "exact" else (found.how != "exact").all()


def test_the_turn_that_lays_the_second_on_the_first_is_named() -> None:
    images = blobs(1, 30)
    found = near_duplicates([*images, np.rot90(images[0], 3)], [str(k) for k in range(31)])
    assert found.how.tolist() == ["turned 90"]
    back = near_duplicates([images[0], np.rot90(images[0])], ["a", "b"])
    assert back.how.tolist() == ["turned 270"]


def test_images_that_show_nothing_chain_nobody() -> None:
    white = np.full((32, 32, 3), 250, np.uint8)
    almost = white.copy()
    almost[0, 0] = 249
    bar = white.copy()
    bar[15:17] = 90
    other = white.copy()
    other[15:17] = 120
    assert not len(near_duplicates([white, almost, white, bar, other], list("abcde")))


def test_what_all_images_share_makes_no_copies() -> None:
    # One bright disc in all, as in photographs of the eye, and little of their own inside.
    yy, xx = np.mgrid[:48, :48] - 23.5
    disc = (np.hypot(yy, xx) < 22)[..., None]
    rng = np.random.default_rng(0)
    own = [cv2.resize(rng.normal(0, 30, (6, 6, 3)), (48, 48)) for _ in range(200)]
    eyes = [np.clip(disc * (90 + texture) + 60, 0, 255).astype(np.uint8) for texture in own]
    assert not len(near_duplicates(eyes, [str(k) for k in range(200)]))
    again = near_duplicates([*eyes, np.rot90(eyes[7])], [str(k) for k in range(201)])
    assert again[["a", "b"]].to_numpy().tolist() == [["7", "200"]]


def test_grey_images_and_iterators_are_taken() -> None:
    images = [image[..., :1] for image in blobs(2, 30)]
    found = near_duplicates(iter([*images, images[3][::-1]]), [str(k) for k in range(31)])
    assert found.a.tolist() == ["3"]


def test_no_images_are_no_pairs() -> None:
    assert list(near_duplicates([], []).columns) == ["a", "b", "how", "distance"]


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageError, match="uint8"):
        near_duplicates([np.zeros((32, 32, 3))], ["a"])
    with pytest.raises(ImageError, match="16 pixels"):
        near_duplicates([np.zeros((8, 8, 3), np.uint8)], ["a"])
    with pytest.raises(TableError, match="lengths differ"):
        near_duplicates(blobs(0, 2), ["a"])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("breakhis_200x", 0, 0), ("idc_patches", 1, 5), ("retinamnist", 15, 30),
     ("breastmnist", 100, 130)],
)  # fmt: skip
def test_real_sets_hold_the_copies_that_the_eye_sees(real_data, tmp_path, name, least, most):
    store = open_run(name, data=real_data, out=tmp_path).pixels()
    kept = store.items.drop_duplicates("case_id")
    found = near_duplicates(store.pixels[kept.index.to_numpy()], list(kept.case_id))
    assert least <= len(found) <= most
