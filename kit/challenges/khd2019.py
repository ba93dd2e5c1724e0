"""Konyang Health Datathon 2019, track A: four classes of fundus photographs."""

from kit.submission import Format

SETTINGS = {"augment": "fundus", "image_size": 128, "label_smoothing": 0.1}
STYLE = Format("case_id", "label", value="label",
               codes=(("NOR", "0"), ("AMD", "1"), ("DMR", "2"), ("RVO", "3")))  # fmt: skip
