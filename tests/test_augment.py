"""Augmentation: image and mask together, drawn from one seed, within the range of pixels."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from kit.augment import POLICIES, Augment, Policy, views
from kit.errors import SettingsError
from kit.settings import Settings

ROOT = Path(__file__).parents[1]
FLIPPED = [name for name in POLICIES if name != "none"]


def layer(seed: int = 0, **steps: Any) -> Augment:
    """A layer with these steps and no other."""
    result = Augment("none", seed)
    result.steps = Policy(**steps)
    return result


def noise(n: int = 16, size: int = 16, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (n, size, size, channels))
    return values.astype(np.float32)


def shape(n: int = 64, size: int = 24) -> np.ndarray:
    """A bent bar that no turn or flip maps onto itself, 0 or 1."""
    mask = np.zeros((n, size, size, 1), np.float32)
    mask[:, 4:20, 5:11] = 1
    mask[:, 14:20, 5:19] = 1
    return mask


def array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def test_the_settings_know_the_policies() -> None:
    assert set(get_args(Settings.model_fields["augment"].annotation)) == set(POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_policy_keeps_shape_and_range(policy: str, channels: int) -> None:
    ends = np.concatenate([
        noise(6, channels=channels), np.zeros((3, 16, 16, channels)),
        np.full((3, 16, 16, channels), 255),
    ]).astype(np.float32)  # fmt: skip
    found = array(Augment(policy, 1)(ends, training=True))
    assert found.shape == ends.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255
    assert (policy == "none") == np.array_equal(found, ends)


@pytest.mark.parametrize("policy", FLIPPED)
def test_images_of_one_batch_are_changed_each_in_its_own_way(policy: str) -> None:
    same = np.repeat(noise(1), 16, axis=0)
    found = array(Augment(policy)(same, training=True))
    assert len(np.unique(found.reshape(16, -1).round(3), axis=0)) > 8


@pytest.mark.parametrize("policy", POLICIES)
def test_inputs_pass_untouched_when_not_training(policy: str) -> None:
    images, masks = noise().astype(np.uint8), shape(16, 16)
    for flag in (False, None):
        assert array(Augment(policy)(images, training=flag)).tolist() == images.tolist()
    found = Augment(policy)([images, masks])
    assert (array(found[0]) == images).all()
    assert (array(found[1]) == masks).all()


@pytest.mark.parametrize("steps", [{"flip": True}, {"symmetries": True}])
def test_a_mask_follows_flips_and_symmetries_to_the_pixel(steps: dict[str, Any]) -> None:
    masks = shape()
    images, moved = layer(**steps)([masks.repeat(3, axis=3) * 255, masks], training=True)
    assert (array(images) == array(moved) * 255).all()
    assert not np.array_equal(array(moved), masks)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_a_mask_follows_turn_zoom_and_shift_by_nearest_neighbour(dtype: str) -> None:
    masks = shape()
    augment = layer(flip=True, rotate=20, zoom=0.15, shift=0.1)
    images, moved = (array(x) for x in augment([masks * 255, masks.astype(dtype)], training=True))
    assert str(moved.dtype) == dtype
    assert set(np.unique(moved)) == {0, 1}
    agree = ((images > 127.5) == (moved > 0.5)).mean(axis=(1, 2, 3))
    assert agree.min() > 0.97
    assert ((images > 127.5) == (masks > 0.5)).mean(axis=(1, 2, 3)).mean() < 0.93


def test_other_values_of_a_mask_stay_values_of_the_mask() -> None:
    masks = (shape() + 2 * shape()[:, ::-1]) * 60
    _, moved = layer(rotate=20)([noise(64, 24), masks], training=True)
    assert set(np.unique(array(moved))) == set(np.unique(masks))


def test_colour_leaves_the_mask_alone() -> None:
    masks = shape(16, 16)
    images, same = layer(brightness=0.2, contrast=0.2, stain=0.1)([noise(), masks], training=True)
    assert (array(same) == masks).all()
    assert not np.array_equal(array(images), noise())


def symmetries(image: np.ndarray) -> list[bytes]:
    turns = [np.rot90(image, k) for k in range(4)]
    return [np.ascontiguousarray(x).tobytes() for t in turns for x in (t, t[:, ::-1])]


def test_symmetries_are_the_eight_of_the_square_about_equally_often() -> None:
    image = noise(1)[0]
    found = array(layer(symmetries=True)(np.repeat(image[None], 800, 0), training=True))
    known = symmetries(image)
    counts = np.bincount([known.index(x.tobytes()) for x in found], minlength=8)
    assert counts.min() > 60  # 100 each are expected, with a standard deviation of 9.4


def test_symmetries_of_an_oblong_keep_its_shape() -> None:
    images = noise(64)[:, :, :8]
    found = array(layer(symmetries=True)(images, training=True))
    assert found.shape == images.shape
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
    found = array(layer(rotate=30)(dot, training=True))
    away = np.array([centre(image) for image in found]) - 16
    angles = np.degrees(np.arctan2(away[:, 1], away[:, 0]))
    assert np.hypot(*away.T) == pytest.approx(np.full(200, 11), abs=0.7)
    assert np.abs(angles).max() < 33
    assert angles.min() < -20 < 20 < angles.max()


def test_a_shift_is_a_fraction_of_the_side() -> None:
    dot = np.zeros((200, 32, 32, 1), np.float32)
    dot[:, 14:18, 14:18] = 255
    found = array(layer(shift=0.25)(dot, training=True))
    away = np.array([centre(image) for image in found]) - 15.5
    assert np.abs(away).max() < 8.6
    assert away.min() < -6
    assert away.max() > 6


def test_brightness_moves_all_pixels_of_an_image_by_one_amount() -> None:
    images = np.clip(noise(100), 60, 190)
    moved = array(layer(brightness=0.2)(images, training=True)) - images
    assert np.ptp(moved, axis=(1, 2, 3)).max() < 1e-3
    assert np.abs(moved).max() <= 51 + 1e-3
    assert moved.min() < -35
    assert moved.max() > 35


def test_contrast_keeps_the_mean_and_scales_what_differs_from_it() -> None:
    images = np.clip(noise(100), 90, 160)
    found = array(layer(contrast=0.5)(images, training=True))
    assert found.mean(axis=(1, 2)) == pytest.approx(images.mean(axis=(1, 2)), abs=0.05)
    ratio = found.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.49 < ratio.min() < 0.65
    assert 1.35 < ratio.max() < 1.51


def test_stain_jitter_without_spread_is_the_identity() -> None:
    grey = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1).repeat(3, axis=3)
    for images in (noise(), grey):
        assert array(layer()._stain(images, len(images))) == pytest.approx(images, abs=1)


def test_stain_jitter_scales_one_stain_by_one_factor() -> None:
    stain = np.array([0.65, 0.70, 0.29])  # haematoxylin, optical density of red, green, blue
    depth = np.linspace(0.1, 1, 16)
    image = 256 * np.exp(-depth[:, None, None] * stain).repeat(16, axis=1) - 1
    found = array(layer(stain=0.05)(np.repeat(image[None], 50, 0).astype("float32"), training=True))
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


def test_stain_jitter_is_for_colour_only() -> None:
    grey = noise(channels=1)
    assert (array(layer(stain=0.1)(grey, training=True)) == grey).all()


@pytest.mark.parametrize("policy", FLIPPED)
def test_the_same_seed_gives_the_same_images_and_another_others(policy: str) -> None:
    augment, images = Augment(policy), noise()
    found = []
    for seed in ((0, 1, 2), (0, 1, 2), (0, 1, 3), (1,)):
        augment.reseed(*seed)
        found.append(array(augment(images, training=True)))
    next_batch = array(augment(images, training=True))
    assert (found[0] == found[1]).all()
    for other in (found[2], found[3], next_batch):
        assert not np.array_equal(found[0], other)
    assert not np.array_equal(found[3], next_batch)


STATELESS = """
import numpy as np
from kit.augment import Augment
augment = Augment("patch")
augment.reseed(7, 1)
images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype(np.float32)
print(repr(float(np.asarray(augment(images, training=True)).astype(np.float64).sum())))
"""


def test_another_process_draws_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STATELESS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    augment = Augment("patch")
    augment.reseed(7, 1)
    found = array(augment(noise(), training=True)).astype(np.float64).sum()
    assert float(done.stdout) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains_inside_a_compiled_model(policy: str) -> None:
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(Augment(policy)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(noise() / 255, np.zeros((16, 2))))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own limit")
@pytest.mark.parametrize("policy", POLICIES)
def test_xla_is_used_only_where_it_knows_every_step(policy: str) -> None:
    """On a GPU Keras compiles with XLA by itself, which cannot warp images in TensorFlow."""
    steps = POLICIES[policy]
    assert Augment(policy).supports_jit == (not (steps.rotate or steps.zoom or steps.shift))


def test_a_layer_is_rebuilt_from_its_description() -> None:
    augment = Augment("patch", seed=4)
    twin = Augment.from_config(augment.get_config())
    first, second = (array(x(noise(), training=True)) for x in (augment, twin))
    assert (first == second).all()


def test_an_unknown_policy_names_its_neighbours() -> None:
    with pytest.raises(SettingsError, match=r"augment=patchx.*did you mean patch\?"):
        Augment("patchx")


@pytest.mark.parametrize("policy", POLICIES)
def test_views_begin_with_the_image_are_distinct_and_undo_themselves(policy: str) -> None:
    images = noise(2)[:, :, :8]
    each = views(policy)
    steps = POLICIES[policy]
    assert len(each) == (4 if steps.symmetries else 2 if steps.flip else 1)
    assert (each[0](images) == images).all()
    assert len({np.ascontiguousarray(view(images)).tobytes() for view in each}) == len(each)
    for view in each:
        assert view(images).shape == images.shape
        assert (view(view(images)) == images).all()


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        POLICIES["patch"].flip = True  # type: ignore[misc]
