"""Konyang Health Datathon 2019, track A: four classes of fundus photographs."""

import numpy as np

from kit.challenge import Real
from kit.metrics import macro_six
from kit.official import Official
from kit.submission import Format

SETTINGS = {"augment": "fundus", "image_size": 128, "label_smoothing": 0.1}
STYLE = Format("case_id", "label", value="label",
               codes=(("NOR", "0"), ("AMD", "1"), ("DMR", "2"), ("RVO", "3")))  # fmt: skip


def packed_score(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return three figures packed in one number: accuracy decides, the others break ties.

    round(accuracy, 4) * 100 + round(macro sensitivity, 4) / 100 + round(macro specificity, 4) / 1e6
    in [0, 100.010001]; higher is better; NaN where a class has no row.

    Args:
        y_true: Codes of the true classes, 0 to 3, shape (n,).
        y_pred: Codes of the classes given.
    """
    six = macro_six(y_true, y_pred, range(4))
    parts = (six["accuracy"], six["sensitivity"], six["specificity"])
    accuracy, sensitivity, specificity = (round(part, 4) for part in parts)
    return accuracy * 100 + sensitivity / 100 + specificity / 1e6


OFFICIAL = Official(
    "accuracy, macro sensitivity and macro specificity, packed",
    packed_score,
    "y_pred",
    "accuracy",
    "the whole part is the accuracy in percent, rounded to 4 places; the rest breaks ties",
)
REAL = Real((3900, 3072), train=3844, tests=401, seconds=3600.0)
