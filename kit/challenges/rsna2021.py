"""RSNA-MICCAI 2021: is the MGMT promoter methylated? From brain MRI, judged by AUC."""

from kit.ledger import Quota
from kit.official import AUC
from kit.submission import Format

SETTINGS = {"augment": "mri", "image_size": 32}
STYLE = Format("BraTS21ID", "MGMT_value", value="probability")
OFFICIAL = AUC
QUOTA = Quota(5, "day")
