"""RSNA-MICCAI 2021: is the MGMT promoter methylated? From brain MRI, judged by AUC.

`team` is the entry as it was: a staircase was built and never handed over, so that Adam kept its
own rate; slices voted and the share of their votes was rounded to tenths. `mended` is the same
with both put right. `kit` is the kit's own. Where an entry's mistakes lay in reading (slope,
MONOCHROME1, slices in the order of file names, ids by position) no recipe can repeat them.
"""

from kit.challenge import Real
from kit.ledger import Quota
from kit.official import AUC
from kit.submission import Format

TEAM = {
    "image_size": 32, "scaling": "maximum", "channels": "slice", "model": "rsna_cnn",
    "augment": "none", "tta": False, "optimizer": "adam", "learning_rate": 1e-3,
    "schedule": "constant", "weight_decay": 0.0, "ema": 0.0, "batch_size": 32, "epochs": 40,
    "stop_after": 3, "monitor": "auc", "keep": "last", "votes": True, "threshold": 0.5,
}  # fmt: skip
"""One series (T1wCE), slices between 25 and 75 %, every third; 182,466 parameters."""
MENDED = {
    **TEAM, "learning_rate": 1e-4, "schedule": "staircase", "decay": 0.96, "decay_steps": 100_000,
    "votes": False,
}  # fmt: skip
"""The staircase as it was meant. Its first stair is longer than the whole training: 40 epochs of
582 patients are fewer than 100,000 steps, so that the rate stays 1e-4."""
KIT = {
    "image_size": 48, "scaling": "percentile", "channels": "series", "model": "resnet_small",
    "augment": "mri", "epochs": 12, "batch_size": 64, "label_smoothing": 0.1,
}  # fmt: skip
"""All four series, in one place in space, as the channels of a slice; nothing watches the fold."""
RECIPES = {"kit": KIT, "team": TEAM, "mended": MENDED}
SMOKE = {
    "kit": {"epochs": 4, "batch_size": 8},
    "team": {"epochs": 4, "batch_size": 8, "model": "rsna_cnn"},
    "mended": {"epochs": 4, "batch_size": 8, "model": "rsna_cnn"},
}
"""So short that no rehearsal is needed; the small set needs small batches."""
STYLE = Format("BraTS21ID", "MGMT_value", value="probability")
OFFICIAL = AUC
QUOTA = Quota(5, "day")
REAL = Real((512, 512), train=582, tests=87)
"""The hidden test is of a size that nobody says."""
