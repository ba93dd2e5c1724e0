"""What a judge's own scorer is to a run: its number beside the honest one, and why they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kit.metrics import auc


@dataclass(frozen=True)
class Official:
    """The scorer of a challenge.

    Args:
        name: What it computes, in words.
        score: From codes of the true classes (of two, 1 is the positive one) and from `takes`, both
            of shape (n,), to the score; higher is better.
        takes: Codes of the classes decided, or the positive class's probability.
        beside: The kit's own figure that it stands beside.
        differs: Where and why the two differ.
        scale: Points of the judge's that 1 of the kit's figure is.
    """

    name: str
    score: Callable[[np.ndarray, np.ndarray], float]
    takes: Literal["y_pred", "y_prob"]
    beside: str
    differs: str
    scale: float = 1.0

    def __call__(self, y_true: np.ndarray, y_pred: np.ndarray, y_prob: np.ndarray) -> float:
        """Return the score of codes, decided codes and the positive class's probabilities."""
        return float(self.score(y_true, y_pred if self.takes == "y_pred" else y_prob))

    def beside_ours(self, value: float) -> dict[str, Any]:
        """Return what a report says of it."""
        return {"name": self.name, "value": value, "beside": self.beside, "differs": self.differs}


AUC = Official("AUC", auc, "y_prob", "auc", "the same number: the judge gives it without interval")
SLIDE_AUC = Official(
    "AUC of slide scores",
    auc,
    "y_prob",
    "auc",
    "the same number: the judge gives it without interval, on slides of its own",
)
