"""Konyang Health Datathon 2019, track A: four classes of wide-field fundus photographs.

The platform (NSML) gave BGR arrays to `infer` and took class numbers; `kit.platforms.nsml` does it.
"""

import numpy as np

from kit.challenge import Real
from kit.ledger import Quota
from kit.metrics import macro_six
from kit.official import Official
from kit.submission import Format

# Where the facts are silent (side, epochs, batch, rates) the numbers are ours. The team's schedules
# were rebuilt at each `fit` and never fired: the rate was constant.
TEAM = {
    "model": "khd2019_vgg", "image_size": 96, "fundus": "none", "batch_size": 32,
    "augment": "fundus-brightness-contrast", "optimizer": "radam", "learning_rate": 1e-3,
    "schedule": "constant", "weight_decay": 0.0, "ema": 0.0, "label_smoothing": 0.1,
    "epochs": 20, "second_epochs": 5, "second_rate": 0.1, "second_smoothing": 0.02,
    "second_augment": "flips-shift-zoom-brightness-contrast", "tta": False,
}  # fmt: skip
"""VGG from scratch on the whole frame; rotation, zoom, shift and flip; then flips alone."""
KIT = {
    "model": "seresnet_small", "image_size": 96, "fundus": "crop", "batch_size": 32,
    "augment": "fundus", "epochs": 20, "second_epochs": 5,
}  # fmt: skip
"""A small residual network on the eye alone; the team's two stages; rate by cosine, averaged."""
RECIPES = {"team": TEAM, "kit": KIT}
SMOKE = {
    "team": {"model": "khd2019_vgg", "epochs": 5, "second_epochs": 2},
    "kit": {"image_size": 48, "epochs": 5, "second_epochs": 2},
}
"""So short that no rehearsal is needed."""
FORBIDS = {"weights": "pretrained weights and outside data were forbidden"}
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
    scale=100.0,
)
QUOTA = Quota(1, "hour")
REAL = Real((3900, 3072), train=3844, tests=401, seconds=3600.0)
