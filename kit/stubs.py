"""Slides of true size that hold nothing where a plan does not look: quick to write, and small."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LEAST = 256  # shorter side of the coarsest level, pixels, about
DRAWN = 4096  # longer side of the finest level that shows its tissue
TISSUE, GLASS = (200, 110, 170), (243, 242, 244)


def write_stub(
    path: Path, size: tuple[int, int], *, seed: int = 0, mpp: float = 0.25, tile: int = 512
) -> Path:
    """Write a pyramid whose coarse levels hold stained blobs; a fine one is one tile, repeated.

    Args:
        path: A `.tif`.
        size: (width, height) of level 0; each level is half as wide and high as the one before.
        seed: Of the blobs: three ellipses.
        mpp: Resolution of level 0, µm per pixel.
        tile: Side of the tiles.
    """
    import tifffile

    halvings = max(0, int(np.log2(max(1.0, min(size) / LEAST))))
    coarse = next((n for n in range(halvings) if max(size) >> n <= DRAWN), halvings)
    image = _blobs((size[0] >> coarse, size[1] >> coarse), seed)
    glass = zlib.compress(np.full((tile, tile, 3), 240, np.uint8).tobytes())
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(halvings + 1):
            width, height = size[0] >> level, size[1] >> level
            how: dict[str, Any] = {
                "tile": (tile, tile), "photometric": "rgb", "metadata": None,
                "compression": "deflate", "subfiletype": int(level > 0),
                "resolution": (1e4 / mpp / 2**level,) * 2, "resolutionunit": "CENTIMETER",
            }  # fmt: skip
            if level >= coarse:
                shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                tiff.write(shown, **how)
                continue
            tiles = -(-width // tile) * -(-height // tile)
            tiff.write(
                (glass for _ in range(tiles)), shape=(height, width, 3), dtype=np.uint8, **how
            )
    return path


def _blobs(size: tuple[int, int], seed: int) -> np.ndarray:
    """Return glass with three stained ellipses, uint8 (height, width, 3)."""
    blob, random = np.zeros(size[::-1], np.uint8), np.random.default_rng(seed)
    for _ in range(3):
        across, down = random.uniform((0.3, 0.2), (0.7, 0.8))
        centre = (int(across * size[0]), int(down * size[1]))
        axes = (int(0.17 * size[0]), int(0.08 * size[1]))
        cv2.ellipse(blob, centre, axes, float(random.uniform(0, 180)), 0, 360, 1, -1)
    return np.where(blob[..., None] > 0, TISSUE, GLASS).astype(np.uint8)
