"""HeLP 2019, contest 2-2: does a frozen-section slide of breast hold metastasis? Judged by AUC."""

from kit.challenge import Real
from kit.official import SLIDE_AUC
from kit.submission import Format

SETTINGS = {"patch_size": 256, "min_tumour": 1.0, "model": "resnet_small", "image_size": 128,
            "patches_per_slide": 2000, "predict_per_slide": 5000}  # fmt: skip
"""Patches as the organisers' masks allow: all tumour or none of it."""
STYLE = Format("slide", "score", value="probability", header=False)
OFFICIAL = SLIDE_AUC
REAL = Real((93970, 234042), train=157, tests=40, seconds=40 * 300.0)
"""Phase 1; about five minutes a slide."""
