"""What drawn data sets share: patients, their generators, tables and images on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kit import jobs
from kit.files import write_text

FOLDABLE = 6  # training patients of a class, from a scale of 0.3 on


def rng(seed: int, *place: int | str) -> np.random.Generator:
    """Return the generator of one patient or image, whatever else is drawn."""
    words = [int.from_bytes(p.encode(), "big") if isinstance(p, str) else p for p in place]
    return np.random.default_rng([seed, *words])


def patients(rng: np.random.Generator, full: int, scale: float) -> list[tuple[int, bool]]:
    """Return class 0 or 1 of each patient, and whether he is for training; a fifth are not.

    Both parts hold as many patients of either class, in no order.
    """
    least = FOLDABLE if scale >= 0.3 else 2
    train = 2 * max(round(full * 0.4 * scale), least)
    test = 2 * max(round(train / 8), 1)
    classes = [*rng.permutation(train) % 2, *rng.permutation(test) % 2]
    return [(int(kind), i < train) for i, kind in enumerate(classes)]


def spread(
    title: str, call: Callable[..., Any], places: Sequence[tuple[Any, ...]], workers: int
) -> list[Any]:
    """Return what a call gives for each place, of which processes draw some each."""
    work = [jobs.Job(f"{title} {n}", call, place) for n, place in enumerate(places, start=1)]
    return jobs.values(jobs.run(work, title=f"drawing {title}", workers=workers))


def table(path: Path, columns: str, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV of the columns named, which are separated by commas."""
    lines = [columns, *(",".join(map(str, row)) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def write(path: Path, image: np.ndarray, *options: int) -> None:
    """Write an image without the care that one alone needs: its whole folder is renamed."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, stored, options)[1].tobytes())
