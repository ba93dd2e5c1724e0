"""Korea Health Datathon 2020, track B: benign or malignant patches, judged by the mean of six.

The team had a script for each way to train; here each is a recipe or an option of `kit run`:

    five folds      --recipe team                     validation is merged back for the answer
    one split       --recipe team --folds 0 --set everything=no
    all data        --recipe team --set everything=only
    ensemble        --recipe ensemble                 three networks on all data, mean softmax
    mutual learning --recipe mutual                   two students, targets detached

Two at 331 and one at 339 px: `--recipe team --set seeds=2` and `--recipe team --set
image_size=339`, then `kit ensemble RUN1 RUN2 --method mean --max-mb 300`. `--set weights=imagenet`
begins with the file that the manifest names, `--set weights=RUN` with a network of a finished run,
such as one of `idc_patches`; without either, networks are trained from scratch. `--set teacher=RUN`
distils. Five ResNet50 are 472 MB: the platform takes 300, so that the folds only measure.
"""

import numpy as np

from kit.challenge import Real
from kit.ledger import Quota
from kit.metrics import confusion_counts
from kit.official import Official
from kit.submission import Format

TEAM = {
    "model": "resnet50", "image_size": 331, "augment": "both_flips", "optimizer": "adam",
    "learning_rate": 1e-4, "schedule": "staircase", "decay": 0.975, "weight_decay": 0.0,
    "ema": 0.0, "batch_size": 64, "epochs": 25, "tta": False, "threshold": 0.5,
    "everything": "only",
}  # fmt: skip
"""ResNet50; both flips and nothing else; the rate falls by .975 an epoch; five folds measure, all
cases make the answer."""
ENSEMBLE = {**TEAM, "seeds": 3}
MUTUAL = {**TEAM, "students": 2}
"""Deep mutual learning; the two students' softmax is averaged."""
KIT = {"image_size": 96, "augment": "patch", "epochs": 12}
"""A small residual network, mild colour besides, weights averaged, threshold chosen out of fold."""
RECIPES = {"kit": KIT, "team": TEAM, "ensemble": ENSEMBLE, "mutual": MUTUAL}
_SMALL = {"image_size": 48, "epochs": 9, "batch_size": 8}
_TEAM = {**_SMALL, "model": "conv_small", "learning_rate": 1e-3}
SMOKE = {"kit": _SMALL, "team": _TEAM, "ensemble": {**_TEAM, "seeds": 2}, "mutual": _TEAM}
"""So short that no rehearsal is needed. ResNet50 becomes a tiny network at ten times the rate."""
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
