"""A drawn slide of tissue, with tumour, inflammation, holes, blur and pen."""

from __future__ import annotations

import cv2
import numpy as np

from kit import drawing


def slide(
    rng: np.random.Generator, look: drawing.Stain, grade: float, positive: bool, *,
    times: float = 1, spots: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return a slide (height, width, 3) and its tumour at 1/16, uint8 0 or 1.

    Args:
        rng: Where the chance comes from.
        look: The patient's.
        grade: What is added to the atypia of his tumour.
        positive: Whether there is tumour.
        times: Sides, against 1536 to 2048 and 1280 to 1792 pixels.
        spots: The tumour is a few nests, each smaller than 100 pixels.
    """
    size = (int(times * rng.integers(96, 129)), int(times * rng.integers(80, 113)))
    present = np.zeros(size[::-1], np.uint8)
    centres = rng.uniform(0.3, 0.7, (int(rng.integers(1, 4)), 2)) * size
    for x, y in centres:
        present |= drawing.blob(rng, size, (x, y), min(size) * rng.uniform(0.24, 0.34))
    holes = cv2.resize(drawing.clouds(rng, size, 5), size) > 1.5
    inside = np.where(holes, 0.3, 1.0) * present
    tumour = np.zeros_like(present)
    for _ in range(3 * (positive and spots)):
        x, y = centres[0] + rng.normal(0, 0.05, 2) * size
        tumour |= drawing.blob(rng, size, (x, y), 3, rough=0.1)
    while positive and not spots and tumour.sum() < 0.06 * present.sum():
        x, y = centres[0] + rng.normal(0, 0.1, 2) * size
        tumour |= drawing.blob(rng, size, (x, y), min(size) * rng.uniform(0.1, 0.2)) & present
    inflamed = np.zeros(size[::-1], np.float32)
    for _ in range(rng.integers(0, 4)):
        x, y = centres[0] + rng.normal(0, 0.15, 2) * size
        inflamed += drawing.blob(rng, size, (x, y), rng.uniform(4, 9)) * rng.uniform(0.5, 0.9)
    atypia = 0.15 + 0.15 * drawing.clouds(rng, size, 6) + (0.52 + grade) * tumour
    image = drawing.tissue(
        rng, look, np.clip(atypia, 0, 1.5).astype(np.float32), np.clip(inflamed, 0, 1), inside
    )
    if rng.random() < 0.35:
        drawing.blur_area(rng, image)
    for _ in range(rng.integers(1, 3) if rng.random() < 0.4 else 0):
        drawing.pen_mark(rng, image)
    return image, tumour
