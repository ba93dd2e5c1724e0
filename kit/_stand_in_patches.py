"""The stand-in of the breast patches of KHD 2020: true names, sizes and table, drawn tissue.

Patches of one slide look alike, as those of a hospital do, and nothing tells which they are: the
challenge published no patients. A slide's label is that of all its patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kit import drawing
from kit._drawn import spread

SIDE = 512  # pixels
ENLARGED = 2  # the tissue is drawn this much smaller: nuclei are 7 to 9 pixels in radius
OF_A_SLIDE = 8  # patches, at most
SHARES = {
    "train": {"benign": 5600, "malignant": 2400},
    "test": {"benign": 1400, "malignant": 600},
}
"""Patches of each class, as published."""
LEAST = {"train": 8, "test": 2}  # of a class, however small the scale
CODES = {"benign": 0, "malignant": 1}
LABELS = "train/train_label"


class Patch(NamedTuple):
    """One patch of one slide."""

    split: str
    label: str
    slide: int
    number: int

    @property
    def path(self) -> str:
        """Return where the challenge keeps it."""
        return f"{self.split}/{self.split}_data/{self.number}.png"


def patches(seed: int, scale: float) -> list[Patch]:
    """Return all patches: the published numbers times `scale`; no slide in two splits."""
    rng = np.random.default_rng([seed, 2020])
    found: list[Patch] = []
    slide = 0
    for split, shares in SHARES.items():
        left = {name: max(round(n * scale), LEAST[split]) for name, n in shares.items()}
        numbers = iter(rng.permutation(sum(left.values())) + 1)  # they say nothing of the class
        for label, n in left.items():
            for first in range(0, n, OF_A_SLIDE):
                some = range(min(OF_A_SLIDE, n - first))
                found += [Patch(split, label, slide, int(next(numbers))) for _ in some]
                slide += 1
    return sorted(found, key=lambda one: (one.split, one.number))


def draw_khd2020(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw the data set into a folder; labels of the test are not told."""
    every = patches(seed, scale)
    spread("patches", draw_patch, [(root, seed, one) for one in every], workers)
    lines = [f"{one.number} {CODES[one.label]}\n" for one in every if one.split == "train"]
    (root / LABELS).write_text("".join(lines), encoding="utf-8", newline="\n")


def draw_patch(root: Path, seed: int, one: Patch) -> None:
    """Draw one file of the data set into its folder."""
    path = root / one.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(seed, one))


def _png(seed: int, one: Patch) -> bytes:
    of_slide = np.random.default_rng([seed, 2020, one.slide])
    look, grade = drawing.stain(of_slide), float(of_slide.normal(0, 0.25))
    rng = np.random.default_rng([seed, 2020, one.slide, one.number])
    cells = (SIDE // ENLARGED // drawing.COARSE,) * 2
    malignant = one.label == "malignant"
    maps = np.zeros(cells, np.float32)
    atypia = (0.75 if malignant else 0.2) + grade + rng.normal(0, 0.2)
    atypical = np.clip(maps + atypia + 0.2 * drawing.clouds(rng, cells, 6), 0, 1.5)
    inflamed = rng.uniform(0.2, 0.7) if rng.random() < 0.25 else 0.0
    present = np.clip(1 - 0.5 * (drawing.clouds(rng, cells, 4) > 1.4), 0, 1)
    image = drawing.tissue(rng, look, atypical.astype(np.float32), maps + np.float32(inflamed),
                           present)  # fmt: skip
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", stored, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1])
