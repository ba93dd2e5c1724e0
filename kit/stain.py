"""Haematoxylin and eosin apart: how much of each stain a pixel holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Optical density of haematoxylin and eosin in red, green and blue, each of length 1.
HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
ODD_FROM = 3.5  # robust standard deviations from the other slides' median
LEAST_SPREAD = 0.015  # optical density: slides that agree better than this are not told apart


def stains(rgb: np.ndarray) -> np.ndarray:
    """Return the optical density of haematoxylin and of eosin, float64 (n, 2), 0 is none.

    Args:
        rgb: uint8, shape (n, 3).

    Source: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
        Anal Quant Cytol Histol 23 (2001) 291-299; their vectors.
    """
    density = -np.log10((rgb.astype(np.float64) + 1) / 256)
    first, second = np.array(HAEMATOXYLIN), np.array(EOSIN)
    third = np.cross(first, second)
    vectors = np.stack([first, second, third / np.linalg.norm(third)])
    return np.asarray((density @ np.linalg.inv(vectors))[:, :2])


def odd_slides(medians: Mapping[str, np.ndarray]) -> list[str]:
    """Return the slides whose stain stands apart from the others'.

    A slide is odd if its median of a stain lies more than `ODD_FROM` robust standard deviations
    (1.4826 times the median absolute deviation, at least `LEAST_SPREAD`) from the median of all.

    Args:
        medians: For each slide its median optical density of each stain.
    """
    if len(medians) < 3:
        return []
    table = np.stack(list(medians.values()))
    away = np.abs(table - np.median(table, axis=0))
    spread = np.maximum(1.4826 * np.median(away, axis=0), LEAST_SPREAD)
    odd = (away / spread > ODD_FROM).any(axis=1)
    return [name for name, one in zip(medians, odd, strict=True) if one]
