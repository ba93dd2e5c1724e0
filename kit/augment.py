"""Augmentation of image and mask together, in the model's backend, drawn once from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kit.checks import choice

_RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_HED_FROM_RGB = np.linalg.inv(_RGB_FROM_HED).astype(np.float32)


@dataclass(frozen=True)
class Policy:
    """What may happen to an image; 0 or False switches a step off.

    `rotate` is in degrees, `zoom` and `shift` are fractions of the side, `brightness` and
    `contrast` fractions of the value range, `stain` the sigma of the HED factors and offsets.
    """

    flip: bool = False
    symmetries: bool = False
    rotate: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    stain: float = 0.0


POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "flips": Policy(flip=True, shift=0.08, zoom=0.08, brightness=0.1, contrast=0.1),
    "patch": Policy(symmetries=True, brightness=0.08, contrast=0.15, stain=0.05),
    "fundus": Policy(flip=True, rotate=15, zoom=0.1, shift=0.05, brightness=0.1, contrast=0.15),
    "mri": Policy(flip=True, rotate=10, zoom=0.1, shift=0.05, brightness=0.1, contrast=0.1),
    "ultrasound": Policy(flip=True, shift=0.08, zoom=0.08, brightness=0.1, contrast=0.1),
}
"""One for each kind of image. HED jitter: Tellez et al. 2019, 10.1016/j.media.2019.101544."""


class Augment(keras.layers.Layer):  # type: ignore[misc]
    """Changes images, and their masks in the same way, while training; else passes them on.

    Takes pixels in [0, 255], shape (n, height, width, channels), or a list of such images and
    masks, shape (n, height, width, 1), which follow each geometric step by nearest neighbour.

    Args:
        policy: A key of `POLICIES`.
        seed: Start of the layer's generator; `reseed` sets it again.
    """

    def __init__(self, policy: str, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy = choice("augment", policy, POLICIES)
        self.steps, self.seed = POLICIES[policy], seed
        self.generator = keras.random.SeedGenerator(seed)
        # TensorFlow's affine transform has no XLA kernel; Keras's own layers say so as well.
        affine = self.steps.rotate or self.steps.zoom or self.steps.shift
        self.supports_jit = not (affine and keras.backend.backend() == "tensorflow")

    def reseed(self, *seed: int) -> None:
        """Set the generator from whole numbers such as (seed, fold, epoch)."""
        self.generator.state.assign(np.random.SeedSequence(seed).generate_state(2))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the inputs changed, in the form in which they came."""
        if not training:
            return inputs
        paired = isinstance(inputs, list | tuple)
        images, masks = inputs if paired else (inputs, None)
        images = ops.cast(images, "float32")
        images, masks = self._geometry(images, masks)
        images = self._colour(images)
        return [images, masks] if paired else images

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's own shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "policy": self.policy, "seed": self.seed}

    def _uniform(self, n: Any, low: float, high: float) -> Any:
        return keras.random.uniform((n, 1, 1, 1), low, high, seed=self.generator)

    def _geometry(self, images: Any, masks: Any) -> tuple[Any, Any]:
        n, steps = ops.shape(images)[0], self.steps
        coins = [self._uniform(n, 0, 1) < 0.5 for _ in range(3)]
        if steps.flip or steps.symmetries:
            images, masks = _both(lambda x: ops.where(coins[0], ops.flip(x, 2), x), images, masks)
        if steps.symmetries:
            images, masks = _both(lambda x: ops.where(coins[1], ops.flip(x, 1), x), images, masks)
            if images.shape[1] == images.shape[2]:
                images, masks = _both(
                    lambda x: ops.where(coins[2], ops.transpose(x, (0, 2, 1, 3)), x), images, masks
                )
        if steps.rotate or steps.zoom or steps.shift:
            transform = self._affine(n, images.shape[1], images.shape[2])
            images = _warp(images, transform, "bilinear")
            masks = None if masks is None else _warp(masks, transform, "nearest")
        return images, masks

    def _affine(self, n: Any, height: int, width: int) -> Any:
        """Return (n, 8): output pixel to input pixel, turned and scaled about the centre."""
        steps = self.steps
        angle = self._uniform(n, -1, 1)[:, 0, 0, 0] * (steps.rotate * np.pi / 180)
        scale = 1 + self._uniform(n, -1, 1)[:, 0, 0, 0] * steps.zoom
        dx = self._uniform(n, -1, 1)[:, 0, 0, 0] * steps.shift * width
        dy = self._uniform(n, -1, 1)[:, 0, 0, 0] * steps.shift * height
        cos, sin = ops.cos(angle) * scale, ops.sin(angle) * scale
        cx, cy = (width - 1) / 2, (height - 1) / 2
        zero = ops.zeros_like(cos)
        rows = [cos, -sin, cx - cos * cx + sin * cy + dx, sin, cos, cy - sin * cx - cos * cy + dy]
        return ops.stack([*rows, zero, zero], axis=1)

    def _colour(self, images: Any) -> Any:
        n, steps = ops.shape(images)[0], self.steps
        if steps.stain and images.shape[-1] == 3:
            images = self._stain(images, n)
        if steps.contrast:
            mean = ops.mean(images, axis=(1, 2), keepdims=True)
            images = mean + (images - mean) * (1 + self._uniform(n, -1, 1) * steps.contrast)
        if steps.brightness:
            images = images + 255 * self._uniform(n, -1, 1) * steps.brightness
        return ops.clip(images, 0, 255)

    def _stain(self, images: Any, n: Any) -> Any:
        density = -ops.log((images + 1) / 256)
        hed = ops.matmul(density, _HED_FROM_RGB)
        shape = (n, 1, 1, 3)
        factor = keras.random.normal(shape, 1, self.steps.stain, seed=self.generator)
        offset = keras.random.normal(shape, 0, self.steps.stain / 2, seed=self.generator)
        return ops.exp(-ops.matmul(hed * factor + offset, _RGB_FROM_HED)) * 256 - 1


def _both(step: Any, images: Any, masks: Any) -> tuple[Any, Any]:
    return step(images), None if masks is None else step(masks)


def _warp(x: Any, transform: Any, interpolation: str) -> Any:
    return ops.image.affine_transform(
        x, transform, interpolation=interpolation, fill_mode="nearest", data_format="channels_last"
    )


def views(policy: str) -> list[Any]:
    """Return the test-time views of a policy: functions of an image batch (n, h, w, c).

    Patches have four (flips along either side and both), images with a left and a right two,
    "none" one; each view undoes itself.
    """
    steps = POLICIES[policy]
    flips: list[Any] = [lambda x: x]
    if steps.flip or steps.symmetries:
        flips.append(lambda x: x[:, :, ::-1])
    if steps.symmetries:
        flips += [lambda x: x[:, ::-1], lambda x: x[:, ::-1, ::-1]]
    return flips
