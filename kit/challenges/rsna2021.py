"""RSNA-MICCAI 2021: is the MGMT promoter methylated? From brain MRI, judged by AUC."""

from kit.challenge import Real
from kit.official import AUC
from kit.submission import Format

SETTINGS = {"augment": "mri", "image_size": 32}
STYLE = Format("BraTS21ID", "MGMT_value", value="probability")
OFFICIAL = AUC
REAL = Real((512, 512), train=582, tests=87)
"""The hidden test is of a size that nobody says."""
