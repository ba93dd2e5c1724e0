"""The challenge to copy: drawn patches, benign or malignant. `kit run template --smoke` runs it.

To enter a challenge of your own, copy this file under its name and change what stands in capitals;
README, "Add your own challenge", walks through it. All that is not here stands in the manifest
(where the data lie, their classes, what is never split) or in the kit; nothing else needs code.
"""

import numpy as np

from kit.challenge import Real
from kit.ledger import Quota
from kit.metrics import confusion_counts
from kit.official import Official
from kit.submission import Format

# The data: an entry of data_manifest.yaml. Leave the line out where it has the challenge's name.
DATASET = "synthetic_patches"

# The recipes by name: settings that differ from the defaults of the data's kind.
# `kit run template --set '?'` lists all of them; `kit` is the recipe that runs where none is named.
KIT = {"image_size": 64, "augment": "patch", "epochs": 15}
"""What you believe in."""
PLAIN = {**KIT, "augment": "none", "ema": 0.0, "tta": False}
"""What you compare it with, on the same folds: `kit run template --recipe plain`."""
RECIPES = {"kit": KIT, "plain": PLAIN}

# What a smoke run of a recipe keeps, or changes besides (by itself it is 32 px and a tiny network).
SMOKE = {"kit": {"epochs": 4}, "plain": {"epochs": 4}}

# Settings that the rules do not allow, with the rule. Whoever sets them reads it.
FORBIDS = {"weights": "pretrained weights and outside data are not allowed"}

# The file that the judge takes: the names of its columns, and what stands in the second one:
# a "probability" (of the positive class), or the "label", here with the number of each class.
STYLE = Format("image", "class", value="label", codes=(("benign", "0"), ("malignant", "1")))


# The judge's number, as he computes it, rounding and mistakes included. `kit.official.AUC` is there
# already. Try yours on answers whose score the organisers tell: all of one class, all right.
def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the mean of sensitivity and specificity, in [0, 1]; NaN where a class has no row.

    Args:
        y_true: 1 for the positive class, 0 for the other, shape (n,).
        y_pred: The same, as decided.
    """
    tp, fp, fn, tn = confusion_counts(y_true, y_pred)
    if not tp + fn or not tn + fp:
        return float("nan")
    return (tp / (tp + fn) + tn / (tn + fp)) / 2


OFFICIAL = Official(
    "balanced accuracy",  # what it is called
    balanced_accuracy,
    "y_pred",  # what it takes: decisions, or "y_prob"
    "balanced_accuracy",  # the kit's own figure that it is compared with
    "the same definition",  # why the two may differ
)

# How often you may submit, and what awaits you on the platform: (width, height) of an image, and
# cases to learn from and to predict. A rehearsal and the ledger use both; leave out what nobody
# says.
QUOTA = Quota(5, "day")
REAL = Real((64, 64), train=576, tests=144, seconds=3600.0)
