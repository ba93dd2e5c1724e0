"""How far two masks agree; `kit.lesions` has it all."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from kit.errors import MaskError, TableError


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """Return twice the shared pixels by the sum of both, 2 TP / (2 TP + FP + FN).

    Args:
        truth: bool, any shape; True = lesion.
        found: bool, of the same shape.

    Returns:
        In [0, 1], higher is better; nan where both are empty.

    Raises:
        MaskError: Shapes differ, or a mask is not bool.
    """
    return _dice(*_counted(truth, found))


def iou(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the shared pixels by those of either, TP / (TP + FP + FN), as `dice` does.

    Returns:
        In [0, 1], higher is better; nan where both are empty.

    Raises:
        MaskError: Shapes differ, or a mask is not bool.
    """
    return _iou(*_counted(truth, found))


def overlap(masks: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Return Dice and IoU of each slide, and of all slides' pixels together.

    Args:
        masks: `case_id`, truth and found (bool, of one shape) of each slide; read one by one.

    Returns:
        `case_id, truth, found, shared` (pixels), `dice, iou`; a row for each slide in order, and
        one of all, whose `case_id` is None: their pixels counted together, so that slides need
        one resolution.

    Raises:
        MaskError: Shapes differ, or a mask is not bool.
        TableError: A slide comes twice.
    """
    ids: list[str | None] = []
    counts = []
    for case_id, truth, found in masks:
        if case_id in ids:
            raise TableError("a slide comes twice", received=case_id)
        ids.append(case_id)
        counts.append(_counted(truth, found))
    counts.append((sum(n for n, _, _ in counts), sum(n for _, n, _ in counts),
                   sum(n for _, _, n in counts)))  # fmt: skip
    table = pd.DataFrame(counts, columns=["truth", "found", "shared"])
    table.insert(0, "case_id", pd.Series([*ids, None], dtype=object))
    return table.assign(dice=[_dice(*n) for n in counts], iou=[_iou(*n) for n in counts])


def _counted(truth: np.ndarray, found: np.ndarray) -> tuple[int, int, int]:
    """Return the pixels of the truth, of what was found, and of both."""
    for mask in (truth, found):
        check_bool(mask)
    if truth.shape != found.shape:
        raise MaskError("masks differ in shape", expected=truth.shape, received=found.shape)
    return int(truth.sum()), int(found.sum()), int((truth & found).sum())


def _dice(truth: int, found: int, shared: int) -> float:
    return 2 * shared / (truth + found) if truth + found else math.nan


def _iou(truth: int, found: int, shared: int) -> float:
    return shared / (truth + found - shared) if truth + found else math.nan


def check_bool(mask: np.ndarray) -> None:
    """Raise `MaskError` if a mask is of another kind than bool."""
    if mask.dtype != bool:
        raise MaskError(
            "a mask must be bool", received=mask.dtype, remedy="say what counts: mask > 0, or == 1"
        )
