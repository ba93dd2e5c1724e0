"""The figure of an augmentation policy; `kit.figures` has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kit._plots import COLOURS, many, sheet
from kit.policies import Policy
from kit.policies import policy as policy_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
DRAWS = 12  # of each step; two that are most unlike are shown
COLOUR_ONLY = ("stain", "hue")


def _share(value: float) -> str:
    return f"{100 * value:g} %"


STRENGTH: dict[str, Callable[[float], str]] = {
    "flip": lambda _: "left and right",
    "vertical": lambda _: "top and bottom",
    "symmetries": lambda _: "of the square",
    "rotate": lambda value: f"±{value:g}°",
    "zoom": lambda value: f"±{_share(value)}",
    "shift": lambda value: f"±{_share(value)} of the side",
    "crop": lambda value: f"up to {_share(value)} off",
    "elastic": lambda value: f"sd {_share(value)} of the side",
    "stain": lambda value: f"sd {_share(value)}",
    "gamma": lambda value: f"{1 / (1 + value):.2f} to {1 + value:.2f}",
    "hue": lambda value: f"±{value:g}°",
    "contrast": lambda value: f"±{_share(value)}",
    "brightness": lambda value: f"±{_share(value)} of white",
    "blur": lambda value: f"sd up to {value:g} px",
    "noise": lambda value: f"sd up to {value:g} of 255",
    "jpeg": lambda value: f"coarseness up to {value:g}",
    "cutout": lambda value: f"up to {_share(value)} of a side",
}
"""How strong a step is, in words."""


def augmentations(
    image: np.ndarray, policy: str, mask: np.ndarray | None = None, seed: int = 0
) -> Figure:
    """Draw an image, draws of the whole policy, and each of its steps alone with its limit.

    Of a step, the draw least like the image is shown, and the one least like that draw.

    Args:
        image: 0..255, shape (height, width, 1 or 3).
        policy: As for `kit.augment.Augment`.
        mask: 0..1, shape (height, width), outlined where given.
        seed: Another draws others.

    Raises:
        SettingsError: The policy is unknown.
    """
    whole = policy_of(policy)
    steps = [step for step in whole.active if image.shape[-1] == 3 or step not in COLOUR_ONLY]
    images, masks = _draws(image, mask, whole, COLUMNS - 1, seed)
    pictures, outlines = [image[None], images], [_mask(image, mask), masks]
    titles = ["original", *["all steps"] * (COLUMNS - 1)]
    for step in steps:
        alone = replace(Policy(), **{step: getattr(whole, step)})
        images, masks = _draws(image, mask, alone, DRAWS, seed)
        shown = _unlike(images, image)
        pictures.append(images[shown])
        outlines.append(masks[shown])
        titles += [step, STRENGTH[step](getattr(whole, step))]
    sometimes = f", each taken by {_share(whole.chance)} of the images" if whole.chance < 1 else ""
    outline = "" if mask is None else "; outline: the mask, moved with its image"
    said = f"Policy {policy}: {many(len(steps), 'step')}{sometimes}{outline}"
    figure, axes = sheet(np.concatenate(pictures), COLUMNS, titles, said)
    for axis, shape in zip(axes, np.concatenate(outlines)[..., 0], strict=False):
        if shape.min() < 0.5 < shape.max():
            axis.contour(shape, levels=[0.5], colors=COLOURS[5], linewidths=1.5)
    return figure


def _mask(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    found = np.zeros(image.shape[:2]) if mask is None else mask
    return found[None, :, :, None].astype(np.float32)


def _draws(
    image: np.ndarray, mask: np.ndarray | None, steps: Policy, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return n draws of some steps, and the mask of each."""
    from keras import ops

    from kit.augment import Augment

    layer = Augment("none", seed=seed)
    layer.steps = steps
    parts = {"images": image[None], "masks": _mask(image, mask)}
    found = layer({name: part.repeat(n, axis=0) for name, part in parts.items()}, training=True)
    images, masks = (ops.convert_to_numpy(found[name]) for name in ("images", "masks"))
    return images, masks


def _unlike(images: np.ndarray, image: np.ndarray) -> list[int]:
    """Return the number of the image least like one, and of that least like the former."""
    first = int(np.argmax(np.abs(images - image).mean(axis=(1, 2, 3))))
    return [first, int(np.argmax(np.abs(images - images[first]).mean(axis=(1, 2, 3))))]
