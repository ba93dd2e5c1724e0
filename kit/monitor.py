"""The figure of a held-out fold after each epoch, and whether it got better."""

from __future__ import annotations

import numpy as np

from kit.metrics import SIX, macro_auc, macro_six

LOWER = ("loss",)
"""Figures of which less is better."""


def figure(name: str, codes: np.ndarray, prob: np.ndarray) -> float:
    """Return one figure of predictions.

    Args:
        name: auc or mean_of_six (of the likeliest class), both means over the classes, each
            against the rest; or loss, the mean cross-entropy in nats.
        codes: True classes, int in [0, classes), shape (n,).
        prob: Class probabilities, shape (n, classes).

    Returns:
        The figure; NaN where it is undefined, for instance the AUC of one class alone.
    """
    if len(codes) == 0:
        return float("nan")
    if name == "loss":
        mine = prob[np.arange(len(codes)), codes]
        return float(-np.mean(np.log(np.clip(mine, 1e-12, 1.0))))
    classes = range(prob.shape[1])
    if name == "auc":
        return float(macro_auc(codes, prob, classes))
    six = macro_six(codes, prob.argmax(axis=1), classes)
    return float(np.mean([six[one] for one in SIX]))


def better(name: str, value: float, best: float | None) -> bool:
    """Return whether a figure is better than the best before; NaN never is."""
    if not np.isfinite(value):
        return False
    if best is None:
        return True
    return value < best if name in LOWER else value > best
