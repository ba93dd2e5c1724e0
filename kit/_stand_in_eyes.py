"""The stand-in of the wide-field fundus photographs of KHD 2019: true names and sizes, drawn eyes.

A person has a number, which his two eyes share; one eye may be healthy where the other is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kit import drawing_organs
from kit._drawn import spread

SIZE = (3900, 3072)  # width, height
QUALITY = 90
GRAIN = 512  # side of the tile of sensor noise, pixels
SHARES = {
    "train": {"NOR": 997, "AMD": 900, "DMR": 1511, "RVO": 436},
    "test": {"NOR": 111, "AMD": 75, "DMR": 167, "RVO": 48},
}
"""Images of each class, as published."""
LEAST = {"train": 8, "test": 2}  # of a class, however small the scale


class Photograph(NamedTuple):
    """One eye of one person."""

    split: str
    label: str
    person: int
    side: str

    @property
    def path(self) -> str:
        """Return where the challenge keeps it."""
        return f"{self.split}/{self.label}/Wide_{self.label}_{self.person:03d}_{self.side}.jpg"


def photographs(seed: int, scale: float) -> list[Photograph]:
    """Return all photographs: the published numbers times `scale`; no person in two splits."""
    rng = np.random.default_rng([seed, 2019])
    people: list[tuple[str, dict[str, str]]] = []
    for split, shares in SHARES.items():
        left = {name: max(round(n * scale), LEAST[split]) for name, n in shares.items()}
        for label in ("RVO", "DMR", "AMD", "NOR"):  # healthy fellow eyes count among the healthy
            while left[label]:
                eyes = {"R": label}
                left[label] -= 1
                other = _fellow(rng, label, left)
                if other is not None:
                    eyes["L"] = other
                    left[other] -= 1
                people.append((split, eyes))
    numbers = rng.permutation(len(people)) + 1  # a number says nothing about the class
    return [
        Photograph(split, label, int(number), side)
        for number, (split, eyes) in zip(numbers, people, strict=True)
        for side, label in eyes.items()
    ]


def _fellow(rng: np.random.Generator, label: str, left: dict[str, int]) -> str | None:
    """Return the class of the other eye: an occlusion is mostly of one; None: not photographed."""
    spared = rng.random() < (0.5 if label == "RVO" else 0.1)
    if spared and left["NOR"]:
        return "NOR"
    return label if left[label] else None


def draw_khd2019(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw the data set into a folder."""
    found = photographs(seed, scale)
    spread("photographs", draw_photograph, [(root, seed, one) for one in found], workers)


def draw_photograph(root: Path, seed: int, one: Photograph) -> None:
    """Draw one file of the data set into its folder."""
    path = root / one.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_jpeg(seed, one))


def _jpeg(seed: int, one: Photograph) -> bytes:
    look = drawing_organs.retina(np.random.default_rng([seed, 2019, one.person]))
    rng = np.random.default_rng([seed, 2019, one.person, ord(one.side)])
    severity = float(np.exp(rng.normal(0, 0.5)))
    small = drawing_organs.fundus(rng, look, one.label, severity, one.side == "R")
    large = cv2.resize(small, (SIZE[1] * small.shape[1] // small.shape[0], SIZE[1]),
                       interpolation=cv2.INTER_CUBIC)[:, : SIZE[0]]  # fmt: skip
    grain = np.clip(rng.normal(8, 2.5, (GRAIN, GRAIN, 3)), 0, 16).astype(np.uint8)
    times = (-(-SIZE[1] // GRAIN), -(-SIZE[0] // GRAIN), 1)
    noise = np.tile(grain, times)[: SIZE[1], : SIZE[0]]
    grainy = cv2.addWeighted(large, 1, noise, 1, -8)
    stored = cv2.cvtColor(grainy, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", stored, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1])
