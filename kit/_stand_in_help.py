"""The stand-in of HeLP 2019: its folders and names, drawn MIRAX slides with bounds and void.

Slides are far smaller than the scanner's, and the second phase, which the challenge kept for the
end, is of another laboratory and scanner. What nobody was told stands in `answers.csv`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kit import _mirax, drawing
from kit._drawn import FOLDABLE, rng, spread, table, write
from kit._drawn_slides import slide

SLIDES = {
    ("train", "negative"): 54, ("train", "positive"): 103, ("test", "negative"): 20,
    ("test", "positive"): 20, ("phase2", "negative"): 50, ("phase2", "positive"): 50,
}  # fmt: skip
"""As published; the shares of the tests were not: half of them are positive here."""
WITHOUT = 9 / 103  # positive slides without a patch that is all tumour
TUMOUR = 0.3  # of a positive slide's tissue at least: one patch in seven of all is tumour there
MPP, LEVELS, TIMES = 0.5, 4, 1.5
JPEG, SECOND_JPEG, SECOND_BLUR = 85, 50, 1.0
CLASSES = ("negative", "positive")
GLASS = (244, 244, 246)


def draw_help2019(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw the slides of both phases, the masks of the training slides, and the answers."""
    chance = rng(seed, "help")
    cases = [
        (split, label)
        for (split, label), n in SLIDES.items()
        for _ in range(max(round(n * scale), _least(split, label, scale)))
    ]
    order = chance.permutation(len(cases))  # a number says nothing about the class
    hard = _hard([cases[n] for n in order])
    every = [(number, *cases[n]) for number, n in enumerate(order, start=1)]
    places = [(root, seed, *one, one[0] - 1 in hard) for one in every]
    spread("slides", _draw, places, workers)
    answers = [
        (f"Slide{number:03d}", label, 2 if split == "phase2" else 1)
        for number, split, label in every if split != "train"
    ]  # fmt: skip
    table(root / "answers.csv", "case_id,label,phase", answers)


def _least(split: str, label: str, scale: float) -> int:
    """Return how many slides there are at least: folds can be dealt, hard ones left aside."""
    if split != "train":
        return 2
    return (FOLDABLE if scale >= 0.3 else 2) * (2 if label == "positive" else 1)


def _hard(cases: list[tuple[str, str]]) -> set[int]:
    """Return which positive training slides have no patch that is all tumour: at least one."""
    positive = [n for n, case in enumerate(cases) if case == ("train", "positive")]
    return set(positive[: max(1, round(WITHOUT * len(positive)))])


def _draw(root: Path, seed: int, number: int, split: str, label: str, hard: bool) -> None:
    chance, second = rng(seed, "help", number), split == "phase2"
    look = drawing.restained(drawing.stain(chance), int(second))
    grade = float(chance.normal(0, 0.22))
    drawn, tumour = slide(
        chance, look, grade, label == "positive", times=TIMES, least=TUMOUR, spots=hard
    )
    image, scanned, (x, y) = _on_glass(chance, drawn)
    if second:
        image = cv2.GaussianBlur(image, (0, 0), SECOND_BLUR)
    place = {
        "train": root / f"train/image/{label}", "test": root / "test",
        "phase2": root / "phase2/help2019/test",
    }[split]  # fmt: skip
    case = f"Slide{number:03d}"
    _mirax.write(place / f"{case}.mrxs", image, scanned, mpp=MPP, levels=LEVELS,
                 quality=SECOND_JPEG if second else JPEG)  # fmt: skip
    if split == "train":
        rows, columns = np.flatnonzero(scanned.any(axis=1)), np.flatnonzero(scanned.any(axis=0))
        cell = _mirax.TILE // 16
        low, high = rows[[0, -1]] * cell, columns[[0, -1]] * cell
        whole = np.zeros((scanned.shape[0] * cell, scanned.shape[1] * cell), np.uint8)
        height, width = tumour.shape
        whole[y // 16 :, x // 16 :][:height, :width] = tumour * np.uint8(255)
        cropped = whole[low[0] : low[1] + cell, high[0] : high[1] + cell]
        write(root / f"train/mask/{label}/{case}.png", cropped)


def _on_glass(
    chance: np.random.Generator, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return a slide on a larger glass, which tiles were scanned, and where it lies, (x, y)."""
    tile = _mirax.TILE
    height, width = (-(-side // tile) for side in drawn.shape[:2])
    left, top, right, bottom = (int(n) for n in chance.integers(1, 4, 4))
    image = np.empty(((top + height + bottom) * tile, (left + width + right) * tile, 3), np.uint8)
    image[:] = GLASS
    x, y = left * tile, top * tile
    image[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    size = (image.shape[1] // tile, image.shape[0] // tile)
    holding = (_darkest(image, size) < min(GLASS) - 40).astype(np.uint8)
    scanned = cv2.dilate(holding, np.ones((3, 3), np.uint8)).astype(bool)
    return image, scanned, (x, y)


def _darkest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the darkest channel of each tile's tissue, as a thumbnail of 16 x 16 shows it."""
    small = cv2.resize(image, (size[0] * 16, size[1] * 16), interpolation=cv2.INTER_AREA)
    return np.asarray(small.min(axis=2).reshape(size[1], 16, size[0], 16).min(axis=(1, 3)))
