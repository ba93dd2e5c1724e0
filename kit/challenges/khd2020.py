"""Korea Health Datathon 2020, track B: benign or malignant patches, judged by the mean of six."""

import numpy as np

from kit.challenge import Real
from kit.ledger import Quota
from kit.metrics import confusion_counts
from kit.official import Official
from kit.submission import Format

SETTINGS = {"augment": "flips", "image_size": 128}
STYLE = Format("key", "value", value="label", header=False, separator=" ",
               codes=(("benign", "0"), ("malignant", "1")))  # fmt: skip

EPSILON = 1e-3  # the organisers add it to every denominator


def mean_of_six_official(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the organisers' mean of accuracy, PPV, sensitivity, specificity, NPV and F1.

    1e-3 is added to every denominator, F1 is made of the PPV and sensitivity so reached, and the
    mean is rounded to 4 places: an undefined figure counts as 0, and a perfect answer as .9999.
    They name FN and FP the wrong way round, which exchanges PPV with sensitivity and specificity
    with NPV and leaves the mean as it is. In [0, .9999], higher is better.

    Args:
        y_true: 1 for the positive class, 0 for the other, shape (n,).
        y_pred: The same, as decided.
    """
    tp, fp, fn, tn = confusion_counts(y_true, y_pred)
    ppv, sensitivity = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
    figures = (
        (tp + tn) / (tp + fp + fn + tn + EPSILON), ppv, sensitivity, tn / (tn + fp + EPSILON),
        tn / (tn + fn + EPSILON), 2 * ppv * sensitivity / (ppv + sensitivity + EPSILON),
    )  # fmt: skip
    return round(sum(figures) / 6, 4)


OFFICIAL = Official(
    "mean of six, 1e-3 in every denominator",
    mean_of_six_official,
    "y_pred",
    "mean_of_six",
    "1e-3 is added to every denominator and the mean is rounded to 4 places, so that an undefined "
    "figure counts as 0 and F1 is a little lower",
)
QUOTA = Quota(1, "hour")
REAL = Real((512, 512), train=8000, tests=2000, seconds=3600.0)
