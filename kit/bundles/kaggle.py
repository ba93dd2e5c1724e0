"""Kaggle's push folder: notebook, metadata, and the dataset that travels with them."""

from __future__ import annotations

from pathlib import Path

from kit.bundles import Options
from kit.challenge import Challenge

MOST_MB = 2000.0


def fill(folder: Path, challenge: Challenge, options: Options) -> None:
    """Write the push folder."""
    raise NotImplementedError
