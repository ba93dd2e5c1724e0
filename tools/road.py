"""Draw the README's picture, notebooks/road.png, from a full run on the drawn slides.

Usage, after `kit data make synthetic_slides`: python tools/road.py [DATA [OUT]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from kit import figures, overview
from kit.challenges import open_run
from kit.images import write_image
from kit.report import png
from kit.slides import open_slide

HEIGHT = 300


def picture(data: str | None = None, out: str | None = None) -> np.ndarray:
    """Return patches on a slide, folds and metrics of one run, side by side: uint8 RGB."""
    run = open_run("synthetic_slides", data=data, out=out)
    metrics, cases, plan = run.metrics(), run.cases(), run.patches()
    case = cases[cases.label == run.dataset.positive].iloc[0]
    with open_slide(run.root / case.path) as slide:
        drawn = [figures.patches_on_thumbnail(slide, plan[plan.case_id == case.case_id])]
        drawn += [
            figures.fold_balance(run.folds()),
            figures.forest(overview.figure_table(metrics)),
        ]
        images = [cv2.imdecode(np.frombuffer(png(one), np.uint8), 1)[:, :, ::-1] for one in drawn]
    return np.hstack([_to_height(image) for image in images])


def _to_height(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    size = (round(width * HEIGHT / height), HEIGHT)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    write_image(
        Path(__file__).resolve().parent.parent / "notebooks" / "road.png", picture(*sys.argv[1:])
    )
