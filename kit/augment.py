"""Augmentation of images with their masks, boxes and targets, and test-time views of an image.

All of it runs in the model's backend, on the accelerator, and each batch's numbers are drawn once
from one generator that whole numbers set, so that a run can be resumed and repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kit import _augment_colour as colour
from kit._augment_draws import Draws
from kit._augment_geometry import draw_map
from kit._augment_mix import check_targets, mixed
from kit.checks import choice, nearest
from kit.errors import SettingsError
from kit.policies import MIXES
from kit.policies import POLICIES as POLICIES
from kit.policies import Policy as Policy
from kit.policies import policy as policy_of

PARTS = ("images", "masks", "boxes", "targets")
_VALUES = (colour.tone, colour.light, colour.blur, colour.noise, colour.jpeg, colour.cutout)


class Augment(keras.layers.Layer):  # type: ignore[misc]
    """Changes images, and what belongs to them in the same way, while training; else nothing.

    Takes images, or a dict of "images" and any of "masks", "boxes", "targets", and returns the
    same structure:

    - images: 0..255, shape (n, height, width, channels), any size and number of channels; returned
      in the layer's compute type, within 0..255;
    - masks: any type, shape (n, height, width, 1), follow the geometry by the nearest pixel;
    - boxes: shape (n, k, 4), x0, y0, x1, y1 in pixels (pixel i reaches from i to i + 1), follow it
      clipped to the image; one that leaves it becomes zeros;
    - targets: shares of the classes, (n, classes), or the probability of one, (n, 1), or of each
      pixel, (n, height, width, classes), which follow the geometry as masks do.

    Args:
        policy: A key of `POLICIES`, perhaps with steps taken away: see `kit.policies.policy`.
        mix: One of `MIXES`: mixes half of the images, and their masks and targets, with another
            image of the batch. Masks and targets then come out as float32.
        seed: Start of the layer's generator; `reseed` sets it again.

    Raises:
        SettingsError: The policy or mix is unknown, a part of the dict is unknown or has the wrong
            shape, or there is nothing to mix.
    """

    def __init__(self, policy: str, mix: str = "none", seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.policy, self.steps = policy, policy_of(policy)
        self.mix, self.seed = choice("mix", mix, MIXES), seed
        self.generator = keras.random.SeedGenerator(seed)

    def reseed(self, *seed: int) -> None:
        """Set the generator from whole numbers such as (seed, fold, epoch)."""
        self.generator.state.assign(np.random.SeedSequence(seed).generate_state(2))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the inputs changed, in the form in which they came."""
        if not training:
            return inputs
        named = inputs if isinstance(inputs, Mapping) else {"images": inputs}
        parts = _checked(named)
        if self.mix != "none":
            check_targets(parts)
        parts["images"] = ops.cast(parts["images"], "float32")
        parts = self._moved(parts)
        parts["images"] = self._coloured(parts["images"])
        if self.mix != "none":
            parts = mixed(parts, self.mix, self.generator)
        parts["images"] = ops.cast(parts["images"], self.compute_dtype)
        return parts if isinstance(inputs, Mapping) else parts["images"]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's own shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        own = {"policy": self.policy, "mix": self.mix, "seed": self.seed}
        return {**super().get_config(), **own}

    def _draws(self, images: Any) -> Draws:
        return Draws(ops.shape(images)[0], self.generator, self.steps.chance)

    def _moved(self, parts: dict[str, Any]) -> dict[str, Any]:
        images = parts["images"]
        geometry = draw_map(self.steps, self._draws(images), *images.shape[1:3])
        if geometry is None:
            return parts
        sources = geometry.sources()
        parts["images"] = geometry.images(images, sources)
        for name in ("masks", "targets"):
            if name in parts and len(parts[name].shape) == 4:
                parts[name] = geometry.nearest(parts[name], sources)
        if "boxes" in parts:
            parts["boxes"] = geometry.boxes(parts["boxes"])
        return parts

    def _coloured(self, images: Any) -> Any:
        draws = self._draws(images)
        for step in _VALUES:
            images = step(images, self.steps, draws)
        return ops.clip(images, 0, 255)


def _checked(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts, as tensors, if their names and shapes can be."""
    for name in inputs:
        if name not in PARTS:
            raise SettingsError(
                "augmentation does not know this input", expected=f"any of {', '.join(PARTS)}",
                received=str(name), remedy=nearest(str(name), PARTS),
            )  # fmt: skip
    parts = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
    images = parts.get("images")
    if images is None or len(images.shape) != 4:
        raise SettingsError(
            "augmentation needs a batch of images", expected="shape (n, height, width, channels)",
            received="no images" if images is None else f"shape {tuple(images.shape)}",
            remedy="one image is a batch too: images[None]",
        )  # fmt: skip
    size = tuple(images.shape[1:3])
    for name, wanted in (("masks", 4), ("boxes", 3)):
        if name in parts and len(parts[name].shape) != wanted:
            raise _shape_error(name, parts[name], size)
    if "boxes" in parts and parts["boxes"].shape[-1] != 4:
        raise _shape_error("boxes", parts["boxes"], size)
    for name, one in parts.items():
        if None not in (one.shape[0], images.shape[0]) and one.shape[0] != images.shape[0]:
            raise SettingsError(
                f"{name} do not fit the images", expected=f"one for each of {images.shape[0]}",
                received=f"shape {tuple(one.shape)}",
            )  # fmt: skip
    for name in ("masks", "targets"):
        if name in parts and len(parts[name].shape) > 2 and tuple(parts[name].shape[1:3]) != size:
            raise _shape_error(name, parts[name], size)
    return parts


def _shape_error(name: str, found: Any, size: tuple[int, ...]) -> SettingsError:
    expected = {
        "masks": f"(n, {size[0]}, {size[1]}, 1)",
        "boxes": "(n, boxes, 4)",
        "targets": f"(n, classes) or (n, {size[0]}, {size[1]}, classes)",
    }[name]
    return SettingsError(
        f"{name} do not fit the images", expected=f"shape {expected}",
        received=f"shape {tuple(found.shape)}",
    )  # fmt: skip


@dataclass(frozen=True)
class View:
    """One way to look at images in prediction: height and width swapped, then flipped.

    Attributes:
        swap: Whether height and width change places; only a square keeps its shape then.
        down: Whether the rows run the other way.
        across: Whether the columns do.
    """

    swap: bool = False
    down: bool = False
    across: bool = False

    @property
    def name(self) -> str:
        """Return the view in words."""
        words = [word for word in ("swap", "down", "across") if getattr(self, word)]
        return " ".join(words) or "identity"

    def forward(self, images: Any) -> Any:
        """Return images as this view shows them, numpy or tensors, shape (n, h, w, c)."""
        return self._flipped(_swapped(images) if self.swap else images)

    def inverse(self, maps: Any) -> Any:
        """Return maps of viewed images in the images' own frame, shape (n, h, w, …)."""
        flipped = self._flipped(maps)
        return _swapped(flipped) if self.swap else flipped

    def _flipped(self, x: Any) -> Any:
        axes = tuple(axis for axis, on in ((1, self.down), (2, self.across)) if on)
        if not axes:
            return x
        return np.flip(x, axes) if isinstance(x, np.ndarray) else ops.flip(x, axes)


def _swapped(x: Any) -> Any:
    return np.swapaxes(x, 1, 2) if isinstance(x, np.ndarray) else ops.swapaxes(x, 1, 2)


def views(policy: str, n: int | None = None, *, square: bool = True) -> list[View]:
    """Return the test-time views of a policy, the image as it is first.

    Patches have eight, of both flips four, images with a left and a right two, "none" one.

    Args:
        policy: As for `Augment`; "patch-symmetries" has one view.
        n: At most so many; the first four never swap height and width.
        square: Whether the images are; others have no views that swap height and width.
    """
    steps = policy_of(policy)
    swaps = (False, True) if steps.symmetries and square else (False,)
    downs = (False, True) if steps.vertical or steps.symmetries else (False,)
    acrosses = (False, True) if steps.flip or steps.symmetries else (False,)
    return [View(s, d, a) for s in swaps for d in downs for a in acrosses][:n]
