"""HeLP 2019, contest 2-2: does a frozen-section slide of breast hold metastasis? Judged by AUC.

`team` is the entry as it was: networks that answer for each pixel, a patch scored by the maximum of
its centre and a slide by the maximum of its patches, so that most scores lie near 1 and many are
equal. `team_unet` and `team_inception` are its other two networks; `kit ensemble RUN RUN RUN
--method zscore --weights .822,.178,...` joins runs as they did. `mended` is the same training with
another score of the slide: a percentile. `kit` is the kit's own. The team's mistakes in reading
(mask and image turned apart, a tile read from the corner, slides split between the sides) no
recipe can repeat. Rotation is by any angle and brightness milder than theirs.
"""

from kit.challenge import Real
from kit.official import SLIDE_AUC
from kit.submission import Format

TURNS = "-".join((
    "patch_strong", "hue", "stain", "zoom", "shift", "crop", "elastic", "gamma", "contrast", "blur",
    "noise", "jpeg", "cutout",
))  # fmt: skip
"""Less all of these: flips, turns and brightness are left."""
TEAM = {
    "patch_size": 256, "image_size": 256, "level": 0, "tissue": "otsu",
    "min_tumour": 1.0, "partial": "drop", "patches_per_slide": 2000, "predict_per_slide": 5000,
    "draw": "kind", "steps": 20_000 // 128, "model": "help_simple", "pixel_score": "max",
    "pixel_map": "centre", "aggregate": "max", "augment": TURNS, "tta": False, "optimizer": "adam",
    "learning_rate": 1e-3, "schedule": "plateau", "patience": 3, "min_rate": 5e-5,
    "monitor": "loss", "weight_decay": 0.0, "ema": 0.0, "batch_size": 128, "epochs": 20,
}  # fmt: skip
"""Patches that are all tumour or hold none: of a negative slide 2,000, of a positive one 1,000 of
each kind, of one with less tumour all that it has; of all these 1:1:2, and 20,000 an epoch."""
SIXTY_FOUR = {"batch_size": 64, "steps": 20_000 // 64}
KIT = {
    "patch_size": 256, "image_size": 128, "level": 0, "min_tumour": 1.0, "partial": "drop",
    "patches_per_slide": 2000, "predict_per_slide": 5000, "model": "resnet_small",
}  # fmt: skip
"""Patches as the organisers' masks allow: all tumour or none of it."""
RECIPES = {
    "kit": KIT,
    "team": TEAM,
    "team_unet": {**TEAM, "model": "help_unet", **SIXTY_FOUR},
    "team_inception": {**TEAM, "model": "help_inception", **SIXTY_FOUR},
    "mended": {**TEAM, "pixel_score": "mean", "aggregate": "percentile=95"},
}
_SMALL = {"patch_size": 256, "image_size": 64, "epochs": 6, "batch_size": 16, "steps": None,
          "patches_per_slide": 24, "predict_per_slide": 32}  # fmt: skip
SMOKE = {
    "kit": _SMALL,
    "mended": {**_SMALL, "model": "help_simple"},
    **{name: {**_SMALL, "model": RECIPES[name]["model"]}
       for name in ("team", "team_unet", "team_inception")},
}  # fmt: skip
STYLE = Format("slide", "score", value="probability", header=False)
OFFICIAL = SLIDE_AUC
REAL = Real((93970, 234042), train=157, tests=40, seconds=40 * 300.0)
"""Phase 1; about five minutes a slide."""
