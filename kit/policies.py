"""What may happen to an image of each kind while a network trains on it: named, frozen policies.

A policy is a claim about the task: it allows what leaves the label true. The mild ones are the
defaults, because strong augmentation costs small sets trained from scratch more than it gives
(RetinaMNIST: AUC .017 less); the strong ones are for large networks, long runs, and the first
stage of a recipe that goes from strong to weak.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from kit.checks import choice, nearest
from kit.errors import SettingsError

MIXES = ("none", "mixup", "cutmix", "both")
"""How an image may be mixed with another of its batch; "both" tosses a coin for each image."""


@dataclass(frozen=True)
class Policy:
    """What may happen to an image; 0 or False switches a step off.

    Amounts are drawn evenly up to the limit given here, to either side where there are two.

    Attributes:
        flip: Left and right may change places.
        vertical: Top and bottom may.
        symmetries: All eight of a square, four of an oblong.
        rotate: Degrees about the centre.
        zoom: Fraction of the side, in or out.
        shift: Fraction of the side, along each axis.
        crop: Fraction of the side that is cut away; what stays is enlarged to the whole.
        elastic: Standard deviation of a smooth displacement, fraction of the side.
        stain: Sigma of the factors of haematoxylin, eosin and DAB; half of it, of their offsets.
        gamma: The exponent lies between 1 / (1 + gamma) and 1 + gamma.
        hue: Degrees about the grey axis.
        contrast: Fraction of the contrast.
        brightness: Fraction of the range of values.
        blur: Standard deviation in pixels, at most 1.
        noise: Standard deviation in grey levels.
        jpeg: Coarseness of 8 x 8 block quantisation; 1 is that of JPEG quality 50.
        cutout: Largest side of a rectangle that is lost, fraction of the image's.
        chance: How likely each step but flip, vertical and symmetries is for an image, in [0, 1].
    """

    flip: bool = False
    vertical: bool = False
    symmetries: bool = False
    rotate: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    crop: float = 0.0
    elastic: float = 0.0
    stain: float = 0.0
    gamma: float = 0.0
    hue: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    cutout: float = 0.0
    chance: float = 1.0

    @property
    def active(self) -> tuple[str, ...]:
        """Return the names of the steps that are on, in the order in which they are taken."""
        return tuple(step for step in STEPS if getattr(self, step))

    @property
    def views(self) -> int:
        """Return how many test-time views a square image has (`kit.augment.views`)."""
        return 8 if self.symmetries else 2 ** (self.flip + self.vertical)


STEPS = tuple(field.name for field in fields(Policy) if field.name != "chance")
"""Every step, in the order in which they are taken."""

_EVERYTHING = Policy(
    flip=True, rotate=20, zoom=0.15, shift=0.08, crop=0.15, elastic=0.015, gamma=0.3, contrast=0.3,
    brightness=0.12, blur=1.0, noise=8.0, jpeg=1.0, cutout=0.3, chance=0.5,
)  # fmt: skip

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "both_flips": Policy(flip=True, vertical=True),
    "flips": Policy(flip=True, shift=0.08, zoom=0.08, brightness=0.1, contrast=0.1),
    "patch": Policy(symmetries=True, brightness=0.08, contrast=0.15, stain=0.05),
    "fundus": Policy(flip=True, rotate=15, zoom=0.1, shift=0.05, brightness=0.1, contrast=0.15),
    "mri": Policy(flip=True, rotate=10, zoom=0.1, shift=0.05, brightness=0.1, contrast=0.1),
    "ultrasound": Policy(flip=True, shift=0.08, zoom=0.08, brightness=0.1, contrast=0.1),
    "patch_strong": replace(
        _EVERYTHING, flip=False, symmetries=True, rotate=45, hue=12, stain=0.12,
    ),
    "fundus_strong": replace(_EVERYTHING, rotate=30, hue=10),
    "mri_strong": replace(_EVERYTHING, elastic=0.02, noise=10.0, jpeg=0.5),
    "ultrasound_strong": replace(_EVERYTHING, rotate=10, noise=12.0, jpeg=0.5),
}  # fmt: skip
"""One for each kind of image, mild and strong. HED jitter: Tellez et al. 2019,
10.1016/j.media.2019.101544. Colour steps (stain, hue) are for images of three channels."""


def policy(name: str, setting: str = "augment") -> Policy:
    """Return a policy, without the steps that its name takes away.

    Args:
        name: A key of `POLICIES`, and after each hyphen a step to leave out: "patch",
            "patch-stain", "fundus-rotate-zoom". A step that is off already may be taken away.
        setting: What an error calls it.

    Raises:
        SettingsError: The policy or a step is unknown.
    """
    base, *without = str(name).split("-")
    choice(setting, base, POLICIES)
    for step in without:
        if step not in STEPS:
            raise SettingsError(
                f"{setting} takes an unknown step away", expected="policy-step, as in patch-stain",
                received=f"{setting}={name}, step {step!r}", remedy=nearest(step, STEPS),
            )  # fmt: skip
    off: dict[str, Any] = {step: getattr(Policy(), step) for step in without}
    return replace(POLICIES[base], **off)
