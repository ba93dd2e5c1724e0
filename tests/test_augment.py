"""Augmentation: what each step changes and leaves, what moves together, what a seed repeats."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kit import _augment_colour as colour
from kit._augment_geometry import KNOTS, Map
from kit.augment import Augment, views
from kit.errors import SettingsError
from kit.policies import POLICIES, Policy, policy

ROOT = Path(__file__).parents[1]
CHANGING = [name for name in POLICIES if name != "none"]
every_policy = pytest.mark.parametrize("name", POLICIES)


def layer(seed: int = 0, mix: str = "none", **steps: Any) -> Augment:
    """A layer with these steps and no other."""
    result = Augment("none", mix, seed)
    result.steps = Policy(**steps)
    return result


def noise(n: int = 16, size: int = 16, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (n, size, size, channels))
    return values.astype(np.float32)


def bar(n: int = 64, size: int = 24) -> np.ndarray:
    """A bent bar that no turn or flip maps onto itself, 0 or 1."""
    mask = np.zeros((n, size, size, 1), np.float32)
    mask[:, 4:20, 5:11] = 1
    mask[:, 14:20, 5:19] = 1
    return mask


def array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def drawn(augment: Augment, inputs: Any) -> Any:
    """What the layer makes of inputs while training, as numpy."""
    found = augment(inputs, training=True)
    return {k: array(v) for k, v in found.items()} if isinstance(found, dict) else array(found)


@every_policy
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_policy_keeps_the_shape_and_range_of_oblong_images(name: str, channels: int) -> None:
    ends = np.concatenate([
        noise(6, channels=channels), np.zeros((3, 16, 16, channels)),
        np.full((3, 16, 16, channels), 255),
    ]).astype(np.float32)[:, :, :13]  # fmt: skip
    found = drawn(Augment(name, seed=1), ends)
    assert found.shape == ends.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255
    assert (name == "none") == np.array_equal(found, ends)


@pytest.mark.parametrize("name", CHANGING)
def test_images_of_one_batch_are_changed_each_in_its_own_way(name: str) -> None:
    found = drawn(Augment(name), np.repeat(noise(1), 16, axis=0))
    least = 2 if name == "both_flips" else 8  # of which there are four, and no amounts
    assert len(np.unique(found.reshape(16, -1).round(3), axis=0)) > least


@every_policy
def test_inputs_pass_untouched_when_not_training(name: str) -> None:
    images, masks = noise().astype(np.uint8), bar(16, 16)
    for flag in (False, None):
        assert array(Augment(name)(images, training=flag)).tolist() == images.tolist()
    found = Augment(name, "both")({"images": images, "masks": masks})
    assert (array(found["images"]) == images).all()
    assert (array(found["masks"]) == masks).all()


# ---- geometry


@pytest.mark.parametrize("steps", [{"flip": True}, {"vertical": True}, {"symmetries": True}])
@pytest.mark.parametrize("width", [24, 15])
def test_mask_and_dense_targets_follow_flips_to_the_pixel(
    steps: dict[str, Any], width: int
) -> None:
    masks = bar()[:, :, :width]
    found = drawn(layer(**steps), {
        "images": masks.repeat(3, axis=3) * 255, "masks": masks,
        "targets": np.concatenate([masks, 1 - masks], axis=3),
    })  # fmt: skip
    assert (found["images"] == found["masks"] * 255).all()
    assert (found["targets"][..., :1] == found["masks"]).all()
    assert (found["targets"].sum(axis=3) == 1).all()
    assert not np.array_equal(found["masks"], masks)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
@pytest.mark.parametrize("elastic", [0.0, 0.03])
def test_a_mask_follows_every_other_step_by_its_nearest_pixel(dtype: str, elastic: float) -> None:
    masks = bar()
    augment = layer(flip=True, rotate=20, zoom=0.15, shift=0.1, crop=0.1, elastic=elastic)
    found = drawn(augment, {"images": masks * 255, "masks": masks.astype(dtype)})
    assert str(found["masks"].dtype) == dtype
    assert set(np.unique(found["masks"])) == {0, 1}
    agree = (found["images"] > 127.5) == (found["masks"] > 0.5)
    assert agree.mean(axis=(1, 2, 3)).min() > 0.97
    assert ((found["images"] > 127.5) == (masks > 0.5)).mean(axis=(1, 2, 3)).mean() < 0.93


def test_other_values_of_a_mask_stay_values_of_the_mask() -> None:
    masks = (bar() + 2 * bar()[:, ::-1]) * 60
    found = drawn(layer(rotate=20, elastic=0.03), {"images": noise(64, 24), "masks": masks})
    assert set(np.unique(found["masks"])) == set(np.unique(masks))


def symmetries(image: np.ndarray) -> list[bytes]:
    turns = [np.rot90(image, k) for k in range(4)]
    return [np.ascontiguousarray(x).tobytes() for t in turns for x in (t, t[:, ::-1])]


def test_symmetries_are_the_eight_of_the_square_about_equally_often() -> None:
    image = noise(1)[0]
    found = drawn(layer(symmetries=True), np.repeat(image[None], 800, 0))
    known = symmetries(image)
    counts = np.bincount([known.index(x.tobytes()) for x in found], minlength=8)
    assert counts.min() > 60  # 100 each are expected, with a standard deviation of 9.4


def test_both_flips_are_the_four_that_swap_nothing_about_equally_often() -> None:
    image = noise(1)[0]
    found = drawn(layer(flip=True, vertical=True), np.repeat(image[None], 400, 0))
    known = {image[::up, ::left].tobytes() for up in (1, -1) for left in (1, -1)}
    counts = collections.Counter(one.tobytes() for one in found)
    assert set(counts) == known and min(counts.values()) > 60


def test_symmetries_of_an_oblong_keep_its_shape() -> None:
    images = noise(64)[:, :, :8]
    found = drawn(layer(symmetries=True), images)
    ways = (images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1])
    hits = np.array([(way == found).all(axis=(1, 2, 3)) for way in ways])
    assert (hits.sum(axis=0) == 1).all()
    assert hits.any(axis=1).all()


def centre(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the mean of a mask's pixels."""
    y, x = np.nonzero(mask[..., 0] > 127)
    return np.array([x.mean(), y.mean()])


def test_a_turn_is_about_the_centre_and_no_further_than_it_may() -> None:
    dot = np.zeros((200, 33, 33, 1), np.float32)
    dot[:, 15:18, 26:29] = 255  # 11 pixels right of the centre (16, 16)
    away = np.array([centre(image) for image in drawn(layer(rotate=30), dot)]) - 16
    angles = np.degrees(np.arctan2(away[:, 1], away[:, 0]))
    assert np.hypot(*away.T) == pytest.approx(np.full(200, 11), abs=0.7)
    assert np.abs(angles).max() < 33
    assert angles.min() < -20 < 20 < angles.max()


def test_a_shift_is_a_fraction_of_the_side() -> None:
    dot = np.zeros((200, 32, 48, 1), np.float32)
    dot[:, 14:18, 22:26] = 255
    away = np.array([centre(image) for image in drawn(layer(shift=0.25), dot)]) - (23.5, 15.5)
    assert np.abs(away[:, 0]).max() < 12.6
    assert np.abs(away[:, 1]).max() < 8.6
    assert away[:, 0].min() < -9
    assert away[:, 1].max() > 6


def test_a_crop_shows_a_part_of_the_image_enlarged_and_nothing_beyond_it() -> None:
    ramp = np.linspace(0, 240, 33, dtype=np.float32)[None, None, :, None]
    found = drawn(layer(crop=0.5), np.tile(ramp, (200, 33, 1, 1)))[:, 0, :, 0]
    steps = np.diff(found, axis=1)
    share = steps.mean(axis=1) / 7.5  # of the original's step: how much of the side is seen
    assert steps == pytest.approx(share[:, None] * np.full(32, 7.5), abs=0.01)  # no edge repeated
    assert 0.5 <= share.min() < 0.55
    assert 0.95 < share.max() <= 1.0001
    assert found[:, 0].max() > 50


def test_an_elastic_displacement_is_smooth_and_as_large_as_it_says() -> None:
    ramp = np.arange(64, dtype=np.float32)[None, None, :, None] * 3 + 20
    moved = drawn(layer(elastic=0.03), np.tile(ramp, (200, 64, 1, 1)))[..., 0] - ramp[..., 0]
    inner = moved[:, 8:-8, 8:-8] / 3  # pixels along x, far enough from the continued edge
    assert inner.std() == pytest.approx(0.03 * 64, rel=0.1)
    assert np.abs(np.diff(inner, axis=1)).max() < 0.6
    assert inner[0].std() > 0.2  # bends, and does not only shift


def by_hand(matrix: list[list[float]], shift: list[float], knots: Any = None) -> Map:
    """A map of one image of 9 x 7 pixels."""
    whole = np.array([matrix], np.float32), np.array([shift], np.float32)
    return Map(7, 9, *whole, knots, exact=knots is None)


def test_a_marked_pixel_and_its_box_go_to_the_same_place() -> None:
    image = np.zeros((1, 7, 9, 1), np.float32)
    image[0, 2, 6] = 9  # row 2, column 6 of 7 x 9: the box from (6, 2) to (7, 3)
    box = np.array([[[6, 2, 7, 3], [0, 0, 0, 0]]], np.float32)
    cases = {
        (2, 2): by_hand([[-1, 0], [0, 1]], [0, 0]),  # left and right change places: column 2
        (4, 6): by_hand([[1, 0], [0, -1]], [2, 0]),  # upside down, then two to the left
    }
    for (row_or_column, other), found in cases.items():
        y, x = (2, row_or_column) if other == 2 else (row_or_column, 4)
        moved = array(found.images(image, found.sources()))
        assert np.argwhere(moved[0, :, :, 0] == 9).tolist() == [[y, x]]
        assert array(found.boxes(box)).tolist() == [[[x, y, x + 1, y + 1], [0, 0, 0, 0]]]


def test_a_box_that_leaves_the_image_is_clipped_and_then_zero() -> None:
    box = np.array([[[6, 2, 9, 4], [7, 0, 9, 2]]], np.float32)
    assert array(by_hand([[1, 0], [0, 1]], [-2, 0]).boxes(box)).tolist() == [
        [[8, 2, 9, 4], [0, 0, 0, 0]]
    ]


def test_boxes_hold_what_was_in_them_whatever_the_geometry() -> None:
    images = np.zeros((100, 48, 64, 1), np.float32)
    images[:, 16:28, 20:38] = 255
    boxes = np.tile(np.array([[20, 16, 38, 28]], np.float32), (100, 1, 1))
    steps = dict(symmetries=True, rotate=30, zoom=0.2, shift=0.1, crop=0.2, elastic=0.02)
    found = drawn(layer(**steps), {"images": images, "boxes": boxes})
    for image, (x0, y0, x1, y1) in zip(found["images"], found["boxes"][:, 0], strict=True):
        y, x = np.nonzero(image[..., 0] > 127)
        seen = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert seen == pytest.approx([x0, y0, x1, y1], abs=3)
        assert (seen - [x0, y0, x1, y1])[:2].min() > -1.5


def test_a_bent_box_is_found_by_the_same_displacement() -> None:
    knots = np.zeros((1, 2, KNOTS, KNOTS), np.float32)
    knots[:, 0] = 1.5  # everything is read 1.5 pixels further right: it moves left
    found = array(by_hand([[1, 0], [0, 1]], [0, 0], knots).boxes(np.array([[[4.0, 2, 6, 5]]])))
    assert found[0, 0] == pytest.approx([2.5, 2, 4.5, 5], abs=1e-4)


# ---- values


def test_values_change_and_mask_boxes_and_targets_stay() -> None:
    inputs = {
        "images": noise(), "masks": bar(16, 16), "boxes": np.ones((16, 2, 4), np.float32),
        "targets": np.eye(16, dtype=np.float32),
    }  # fmt: skip
    steps = dict(brightness=0.2, contrast=0.2, stain=0.1, hue=9, gamma=0.2, blur=1, noise=5, jpeg=1)
    found = drawn(layer(cutout=0.3, **steps), inputs)
    assert set(found) == set(inputs)
    for name in ("masks", "boxes", "targets"):
        assert (found[name] == inputs[name]).all()
    assert not np.array_equal(found["images"], inputs["images"])


LIMITS = dict(stain=0.1, gamma=0.5, hue=20, contrast=0.4, brightness=0.2, blur=1, noise=9, jpeg=2,
              cutout=0.4, rotate=20, zoom=0.2, shift=0.2, crop=0.3, elastic=0.03)  # fmt: skip


@pytest.mark.parametrize("step", LIMITS)
def test_each_step_has_its_own_coin(step: str) -> None:
    images = np.clip(noise(100), 60, 190)
    found = drawn(layer(chance=0.3, **{step: LIMITS[step]}), images)
    changed = (np.abs(found - images) > 0.02).any(axis=(1, 2, 3)).sum()
    assert 14 <= changed <= 46  # 30 are expected, with a standard deviation of 4.6


def test_brightness_moves_all_pixels_of_an_image_by_one_amount() -> None:
    images = np.clip(noise(100), 60, 190)
    moved = drawn(layer(brightness=0.2), images) - images
    assert np.ptp(moved, axis=(1, 2, 3)).max() < 1e-3
    assert np.abs(moved).max() <= 51 + 1e-3
    assert moved.min() < -35
    assert moved.max() > 35


def test_contrast_keeps_the_mean_and_scales_what_differs_from_it() -> None:
    images = np.clip(noise(100), 90, 160)
    found = drawn(layer(contrast=0.5), images)
    assert found.mean(axis=(1, 2)) == pytest.approx(images.mean(axis=(1, 2)), abs=0.05)
    ratio = found.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.49 < ratio.min() < 0.65
    assert 1.35 < ratio.max() < 1.51


def test_hue_turns_colours_and_leaves_greys_and_brightness() -> None:
    colours = np.clip(noise(50), 100, 150)
    found = drawn(layer(hue=30), colours)
    weights = np.array([0.299, 0.587, 0.114])
    assert found @ weights == pytest.approx(colours @ weights, abs=0.1)
    assert np.abs(found - colours).max() > 5
    chroma = np.hypot(*np.moveaxis((colours @ colour._YIQ_FROM_RGB)[..., 1:], -1, 0))
    after = np.hypot(*np.moveaxis((found @ colour._YIQ_FROM_RGB)[..., 1:], -1, 0))
    assert after == pytest.approx(chroma, abs=0.1)
    grey = noise(4, channels=1).repeat(3, axis=3)
    assert drawn(layer(hue=90), grey) == pytest.approx(grey, abs=0.5)


def test_gamma_keeps_black_and_white_and_is_a_power_between() -> None:
    images = np.tile(np.array([0.0, 16, 64, 128, 255], np.float32)[:, None], (100, 1, 1, 1))
    images = images.reshape(100, 1, 5, 1)
    found = drawn(layer(gamma=0.5), images)[:, 0, :, 0]
    assert found[:, 0].max() < 0.5
    assert found[:, 4] == pytest.approx(np.full(100, 255), abs=1e-2)
    powers = np.log(found[:, 1:4] / 255) / np.log(np.array([16, 64, 128]) / 255)
    assert powers[:, 0] == pytest.approx(powers[:, 2], rel=2e-3)
    assert 1 / 1.5 - 1e-3 < powers.min() < 0.75
    assert 1.35 < powers.max() < 1.501


def test_blur_spreads_a_point_by_the_variance_drawn_and_keeps_its_sum() -> None:
    point = np.zeros((100, 9, 9, 1), np.float32)
    point[:, 4, 4] = 200
    found = drawn(layer(blur=0.8), point)[..., 0]
    assert found.sum(axis=(1, 2)) == pytest.approx(np.full(100, 200), abs=0.01)
    away = (np.arange(9) - 4.0) ** 2
    variance = (found.sum(axis=1) * away).sum(axis=1) / 200
    assert variance.max() <= 0.64 + 1e-4
    assert variance.max() > 0.5
    assert variance == pytest.approx((found.sum(axis=2) * away).sum(axis=1) / 200, abs=1e-5)
    flat = np.full((3, 6, 5, 2), 77, np.float32)
    assert drawn(layer(blur=1.0), flat) == pytest.approx(flat, abs=1e-3)  # no darker at the edge


def test_noise_has_mean_zero_and_at_most_its_deviation() -> None:
    found = drawn(layer(noise=10.0), np.full((100, 32, 32, 3), 128, np.float32)) - 128
    deviation = found.std(axis=(1, 2, 3))
    assert np.abs(found.mean(axis=(1, 2, 3))).max() < 1
    assert 8.5 < deviation.max() < 10.3
    assert deviation.min() < 1.5
    assert np.abs(np.corrcoef(found[:, 5, 5, 0], found[:, 5, 6, 0])[0, 1]) < 0.4


def test_jpeg_keeps_flat_blocks_and_rounds_the_rest_within_each_block() -> None:
    flat = np.full((20, 16, 16, 3), 128, np.float32)
    assert drawn(layer(jpeg=1.0), flat) == pytest.approx(flat, abs=9)  # within the first step
    images = np.clip(noise(20, 20), 40, 215)
    found = drawn(layer(jpeg=1.0), images)
    changed = images.copy()
    changed[:, 3, 3] = 0  # in the first block
    other = drawn(layer(jpeg=1.0), changed)
    assert (np.abs(other - found)[:, :8, :8] > 1).any()
    assert np.abs(other - found)[:, 8:, 8:].max() == 0


def test_jpeg_of_one_block_is_the_rounding_of_its_cosines() -> None:
    from scipy.fft import dctn, idctn

    block = noise(1, 8, 1)
    table = colour._LUMA.reshape(8, 8)

    class Full:
        def amount(self, limit: float, low: float = -1.0) -> Any:
            return np.array([limit], np.float32)

    found = array(colour.jpeg(block, Policy(jpeg=1.0), Full()))[0, :, :, 0]  # type: ignore[arg-type]
    rounded = np.round(dctn(block[0, :, :, 0], norm="ortho") / table) * table
    assert found == pytest.approx(idctn(rounded, norm="ortho"), abs=1e-2)


def test_cutout_gives_one_rectangle_the_images_mean_and_leaves_the_rest() -> None:
    images = noise(100, 20)
    found = drawn(layer(cutout=0.5), images)
    for before, after in zip(images, found, strict=True):
        hole = (np.abs(before - after) > 1e-3).any(axis=2)
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        assert rows.sum() <= 10
        assert columns.sum() <= 10
        assert (hole == np.outer(rows, columns)).all()
        inside = after[hole]
        assert inside == pytest.approx(np.tile(before.mean(axis=(0, 1)), (len(inside), 1)), abs=0.1)
    assert (found != images).any(axis=(1, 2, 3)).mean() > 0.9


def test_stain_jitter_without_spread_is_the_identity() -> None:
    grey = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1).repeat(3, axis=3)
    for images in (noise(), grey):
        assert drawn(layer(stain=1e-9), images) == pytest.approx(images, abs=0.01)


def test_stain_jitter_scales_one_stain_by_one_factor() -> None:
    stain = np.array([0.65, 0.70, 0.29])  # haematoxylin, optical density of red, green, blue
    depth = np.linspace(0.1, 1, 16)
    image = 256 * np.exp(-depth[:, None, None] * stain).repeat(16, axis=1) - 1
    found = drawn(layer(stain=0.05), np.repeat(image[None], 50, 0).astype("float32"))
    assert np.abs(found - image).max() > 3
    density = -np.log((found[:, :, 0] + 1) / 256) @ np.linalg.inv(
        [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]
    )
    inside = (found[:, :, 0] > 0).all(axis=2) & (found[:, :, 0] < 255).all(axis=2)
    for one, good in zip(density, inside, strict=True):
        slope, offset = np.polyfit(depth[good], one[good, 0], 1)
        assert one[good, 0] == pytest.approx(slope * depth[good] + offset, abs=1e-3)
        assert 0.8 < slope < 1.2
        assert one[good, 1] == pytest.approx(np.full(good.sum(), one[good, 1].mean()), abs=1e-3)


@pytest.mark.parametrize("step", ["stain", "hue"])
@pytest.mark.parametrize("channels", [1, 4])
def test_stain_and_hue_are_for_three_channels_only(step: str, channels: int) -> None:
    images = noise(channels=channels)
    assert (drawn(layer(**{step: 0.1}), images) == images).all()


# ---- mixing

MIXED = ("mixup", "cutmix", "both")


def numbered(n: int, channels: int = 1) -> np.ndarray:
    """Images that are flat, each with its own number as its value."""
    return np.full((n, 12, 10, channels), 1, np.float32) * np.arange(n)[:, None, None, None]


@pytest.mark.parametrize("mix", MIXED)
@pytest.mark.parametrize("shape", [(40, 40), (40, 1), (40, 12, 10, 40)])
def test_mixed_targets_keep_their_shape(mix: str, shape: tuple[int, ...]) -> None:
    targets = np.zeros(shape, np.float32)
    targets[np.arange(40), ..., np.arange(40) % shape[-1]] = 1
    found = drawn(layer(mix=mix), {"images": numbered(40), "targets": targets})
    assert found["targets"].shape == shape
    assert found["targets"].dtype == np.float32
    assert found["images"].shape == (40, 12, 10, 1)
    assert found["targets"].sum(axis=-1) == pytest.approx(np.ones(shape[:-1]), abs=1e-5)


@pytest.mark.parametrize("mix", MIXED)
def test_mixed_images_and_targets_hold_the_same_shares(mix: str) -> None:
    targets = np.eye(200, dtype=np.float32)
    found = drawn(layer(mix=mix), {"images": numbered(200), "targets": targets})
    assert found["images"].mean(axis=(1, 2, 3)) == pytest.approx(
        found["targets"] @ np.arange(200), abs=0.01
    )
    own = found["targets"][np.arange(200), np.arange(200)]
    assert 0.3 < (own < 1).mean() < 0.65  # half of them are mixed; a few by next to nothing
    others = np.argwhere((found["targets"] > 0) & ~np.eye(200, dtype=bool))
    assert len({(b - a) % 200 for a, b in others.tolist()}) == 1  # one partner, never itself


@pytest.mark.parametrize("mix", MIXED)
def test_a_binary_target_mixes_to_a_share_between(mix: str) -> None:
    labels = (np.arange(200) % 2)[:, None]  # whole numbers, 0 or 1
    images = np.ones((200, 8, 8, 1), np.float32) * labels[:, :, None, None] * 255
    found = drawn(layer(mix=mix, seed=3), {"images": images, "targets": labels})
    assert found["targets"].dtype == np.float32
    share = found["images"].mean(axis=(1, 2)) / 255
    assert found["targets"] == pytest.approx(share, abs=1e-4)


def test_dense_targets_and_masks_are_mixed_pixel_by_pixel() -> None:
    masks = (numbered(50) % 2).astype(np.float32)
    targets = np.concatenate([masks, 1 - masks], axis=3)
    for mix in MIXED:
        found = drawn(layer(mix=mix), {"images": masks * 200, "masks": masks, "targets": targets})
        assert found["images"] == pytest.approx(found["masks"] * 200, abs=1e-3)
        assert found["targets"][..., :1] == pytest.approx(found["masks"], abs=1e-5)


def test_cutmix_covers_a_rectangle_and_mixup_the_whole_image() -> None:
    inputs = {"images": numbered(60), "targets": np.eye(60, dtype=np.float32)}
    cut, even = (drawn(layer(mix=mix), inputs)["images"] for mix in ("cutmix", "mixup"))
    for number, image in enumerate(cut[..., 0]):
        hole = image != number
        assert (hole == np.outer(hole.any(axis=1), hole.any(axis=0))).all()
        assert len(np.unique(image[hole])) <= 1
    assert np.ptp(even, axis=(1, 2, 3)).max() < 1e-4
    both = drawn(layer(mix="both"), inputs)["images"]
    whole = (np.ptp(both, axis=(1, 2, 3)) < 1e-4) & (
        np.abs(both[:, 0, 0, 0] - np.arange(60)) > 1e-3
    )
    assert whole.any()
    assert (np.ptp(both, axis=(1, 2, 3)) > 1e-4).any()


def test_mixup_weights_are_those_of_its_beta_distribution() -> None:
    from scipy.stats import beta, kstest

    from kit._augment_draws import Draws
    from kit._augment_mix import ALPHA, _beta

    found = array(_beta(Draws(4000, keras.random.SeedGenerator(1)))).ravel()
    assert kstest(found, beta(ALPHA, ALPHA).cdf).pvalue > 0.001


def test_one_image_alone_is_mixed_with_itself() -> None:
    found = drawn(layer(mix="both"), {"images": noise(1), "targets": np.ones((1, 1))})
    assert found["images"] == pytest.approx(noise(1), abs=1e-4)
    assert found["targets"] == pytest.approx(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, r"mixing images mixes their targets.*give the targets, or mix=none"),
        ({"targets": np.ones(4)}, r"without an axis.*\(n, classes\).*shape \(4,\).*one_hot"),
        ({"targets": np.ones((4, 1)), "boxes": np.ones((4, 1, 4))}, "boxes cannot be mixed"),
    ],
)
def test_what_cannot_be_mixed_is_refused(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Augment("none", "mixup")({"images": noise(4), **inputs}, training=True)


def test_bare_images_cannot_be_mixed() -> None:
    with pytest.raises(SettingsError, match="mixes their targets"):
        Augment("none", "cutmix")(noise(4), training=True)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"mask": bar(4, 16)}, r"mask.*did you mean masks"),
        ({"masks": bar(4, 16)[..., 0]}, r"masks do not fit.*\(n, 16, 16, 1\).*\(4, 16, 16\)"),
        ({"masks": bar(4, 24)}, r"masks do not fit.*\(4, 24, 24, 1\)"),
        ({"boxes": np.ones((4, 4))}, r"boxes do not fit.*\(n, boxes, 4\).*\(4, 4\)"),
        ({"boxes": np.ones((4, 2, 3))}, r"boxes do not fit.*\(n, boxes, 4\).*\(4, 2, 3\)"),
        ({"targets": np.ones((3, 2))}, r"targets do not fit.*one for each of 4.*\(3, 2\)"),
        ({"images": bar(4, 24)[0]}, r"needs a batch of images.*\(24, 24, .*images\[None\]"),
        ({"targets": np.ones((4, 8, 8, 2))}, r"targets do not fit.*\(4, 8, 8, 2\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Augment("patch")({"images": noise(4), **inputs}, training=True)


def test_an_unknown_mix_or_policy_names_its_neighbours() -> None:
    with pytest.raises(SettingsError, match=r"mix=mixupp.*did you mean mixup"):
        Augment("patch", "mixupp")
    with pytest.raises(SettingsError, match=r"augment=patchx.*did you mean patch"):
        Augment("patchx")


# ---- seeds, backends, models


@pytest.mark.parametrize("name", CHANGING)
def test_the_same_seed_gives_the_same_images_and_another_others(name: str) -> None:
    augment, images = Augment(name), noise()
    found = []
    for seed in ((0, 1, 2), (0, 1, 2), (0, 1, 3), (1,)):
        augment.reseed(*seed)
        found.append(drawn(augment, images))
    next_batch = drawn(augment, images)
    assert (found[0] == found[1]).all()
    for other in (found[2], found[3], next_batch):
        assert not np.array_equal(found[0], other)
    assert not np.array_equal(found[3], next_batch)


STATELESS = """
import keras
import numpy as np
from kit.augment import Augment
augment = Augment("patch_strong", "both")
augment.reseed(7, 1)
images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype(np.float32)
inputs = {"images": images, "targets": np.eye(16, dtype=np.float32)}
found = keras.ops.convert_to_numpy(augment(inputs, training=True)["images"])
print(keras.backend.backend(), repr(float(found.astype(np.float64).sum())))
"""


def test_another_process_draws_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STATELESS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    augment = Augment("patch_strong", "both")
    augment.reseed(7, 1)
    inputs = {"images": noise(), "targets": np.eye(16, dtype=np.float32)}
    found = drawn(augment, inputs)["images"].astype(np.float64).sum()
    backend, total = done.stdout.split()
    assert backend == keras.backend.backend()
    assert float(total) == pytest.approx(found, rel=1e-9)


JAX = """
import jax
import numpy as np
from kit.augment import Augment
from kit.policies import POLICIES
images = np.random.default_rng(0).integers(0, 256, (512, 16, 12, 3)).astype(np.float32)
for name in POLICIES:
    layer = Augment(name, "both")
    inputs = {"images": images, "masks": images[..., :1], "targets": np.eye(512, dtype="float32")}
    layer.build({k: v.shape for k, v in inputs.items()})
    state = [v.value for v in layer.non_trainable_variables]
    call = jax.jit(lambda s, x: layer.stateless_call([], s, x, training=True))
    found, state = call(state, inputs)
    again, _ = call(state, inputs)
    assert found["images"].shape == images.shape and found["targets"].shape == (512, 512)
    assert 0 <= found["images"].min() and found["images"].max() <= 255
    assert not np.array_equal(found["images"], again["images"])
    print(name, float(np.mean(found["images"])), float(np.std(found["images"])))
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed: pip install jax")
def test_jax_compiles_every_policy_and_draws_alike() -> None:
    done = subprocess.run(
        [sys.executable, "-c", JAX], capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    values = np.random.default_rng(0).integers(0, 256, (512, 16, 12, 3)).astype(np.float32)
    inputs = {"images": values, "masks": values[..., :1], "targets": np.eye(512, dtype=np.float32)}
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == list(POLICIES)
    for name, mean, deviation in lines:
        found = drawn(Augment(name, "both"), inputs)["images"]
        assert float(mean) == pytest.approx(found.mean(), abs=3)
        assert float(deviation) == pytest.approx(found.std(), rel=0.08)


@pytest.mark.parametrize("name", [*POLICIES, "patch_strong-elastic"])
def test_every_policy_trains_inside_a_compiled_model(name: str) -> None:
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(Augment(name)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(noise() / 255, np.zeros((16, 2))))


def test_xla_compiles_every_step() -> None:
    """On a GPU Keras compiles with XLA by itself; one warp by index serves every backend."""
    augment = Augment("patch_strong", "both")
    assert augment.supports_jit

    class Mixed(keras.Model):
        def call(self, images: Any) -> Any:
            targets = keras.ops.ones((4, 1))
            return augment({"images": images, "targets": targets}, training=True)["images"]

    model = Mixed()
    model.compile(jit_compile=True)
    found = model.predict_on_batch(noise(4))
    assert np.isfinite(found).all()
    assert not np.array_equal(found, noise(4))


def test_half_precision_is_only_the_type_of_the_images_that_leave() -> None:
    augment = Augment("patch_strong", dtype="mixed_float16")
    boxes = np.array([[[1.0, 2, 8, 9]]] * 16, np.float32)
    found = augment({"images": noise(), "boxes": boxes}, training=True)
    assert keras.backend.standardize_dtype(found["images"].dtype) == "float16"
    assert keras.backend.standardize_dtype(found["boxes"].dtype) == "float32"
    plain = drawn(Augment("patch_strong"), {"images": noise(), "boxes": boxes})
    assert array(found["images"]) == pytest.approx(plain["images"], abs=0.13)
    assert array(found["boxes"]) == pytest.approx(plain["boxes"])


def test_a_layer_is_rebuilt_from_its_description() -> None:
    augment = Augment("patch-stain", "mixup", seed=4)
    twin = Augment.from_config(augment.get_config())
    inputs = {"images": noise(), "targets": np.eye(16, dtype=np.float32)}
    first, second = (drawn(x, inputs) for x in (augment, twin))
    assert (first["images"] == second["images"]).all()
    assert (first["targets"] == second["targets"]).all()


# ---- views


@every_policy
@pytest.mark.parametrize("square", [True, False])
def test_views_begin_with_the_image_are_distinct_and_undone_by_their_inverse(
    name: str, square: bool
) -> None:
    images = noise(2) if square else noise(2)[:, :, :8]
    each = views(name, square=square)
    steps = policy(name)
    assert len(each) == (4 if steps.symmetries and not square else steps.views)
    assert (each[0].forward(images) == images).all()
    assert len({np.ascontiguousarray(v.forward(images)).tobytes() for v in each}) == len(each)
    assert len({view.name for view in each}) == len(each)
    for view in each:
        assert view.forward(images).shape == images.shape
        assert (view.inverse(view.forward(images)) == images).all()
        tensor = view.forward(keras.ops.convert_to_tensor(images))
        assert (array(tensor) == view.forward(images)).all()
        assert (array(view.inverse(tensor)) == images).all()


def test_views_of_a_square_are_its_eight_symmetries() -> None:
    image = noise(1)
    seen = {np.ascontiguousarray(v.forward(image)[0]).tobytes() for v in views("patch")}
    assert seen == set(symmetries(image[0]))


def test_the_first_views_never_swap_height_and_width() -> None:
    assert [view.name for view in views("patch", 4)] == [
        "identity", "across", "down", "down across",
    ]  # fmt: skip
    assert [view.name for view in views("patch", 1)] == ["identity"]
    assert len(views("patch-symmetries")) == 1
