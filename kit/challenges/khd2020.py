"""Korea Health Datathon 2020, track B: benign or malignant patches, judged by the mean of six."""

from kit.submission import Format

SETTINGS = {"augment": "flips", "image_size": 128}
STYLE = Format("key", "value", value="label", header=False, separator=" ",
               codes=(("benign", "0"), ("malignant", "1")))  # fmt: skip
