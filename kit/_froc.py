"""CAMELYON16's FROC: lesions that points find, against false ones; `kit.lesions` has it all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from kit.checks import columns, first, probabilities
from kit.errors import TableError
from kit.geometry import Pair, level0_to_level, level_to_level0

AT = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per slide


@dataclass(frozen=True, eq=False)
class Lesions:
    """What is to be found on one slide.

    Attributes:
        labels: Unsigned whole numbers, shape (height, width): 0 no tumour, 1 and up the lesions,
            and isolated tumour cells after them.
        n: How many lesions there are; labels above it are isolated tumour cells.
        downsample: (x, y) level-0 pixels per pixel of `labels`.
    """

    labels: np.ndarray
    n: int
    downsample: Pair


@dataclass(frozen=True, eq=False)
class Froc:
    """Lesions found against false positives.

    Attributes:
        score: Mean of `at`, in [0, 1], higher is better; nan without lesions.
        at: Sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide; nan without lesions.
        curve: `threshold, false_positives, sensitivity`, a row for each threshold, falling from
            infinity: detections of this probability and above count. False positives are the mean
            per slide, sensitivity is the share of all slides' lesions.
        found: `case_id, lesion, prob`: each lesion and its best detection's probability, nan where
            no detection lies in it.
        n_slides: Slides, with and without lesions.
        n_lesions: Lesions on them.
        n_false: Detections outside lesions and isolated tumour cells.
        n_isolated: Detections in isolated tumour cells, which count neither way.
    """

    score: float
    at: tuple[float, ...]
    curve: pd.DataFrame
    found: pd.DataFrame
    n_slides: int
    n_lesions: int
    n_false: int
    n_isolated: int


def froc(detections: pd.DataFrame, truth: Mapping[str, Lesions]) -> Froc:
    """Return the free-response ROC curve of detections, and CAMELYON16's score.

    A detection in a lesion finds it; of several the highest probability counts. One in isolated
    tumour cells counts neither way. Every other one is a false positive, on slides with and
    without tumour, and false positives are averaged over all slides of `truth`. Sensitivity between
    two points of the curve is linear, and beyond its last point that point's. A detection of
    probability 0 is none.

    The challenge's script of 2016 also leaves out the lowest threshold where no lesion is missed;
    that of 2018 keeps it, as here, but takes the next point of the curve for a line between two.

    Args:
        detections: `case_id, x, y` (level-0 pixels) and `prob` in [0, 1]; a row for each.
        truth: What is to be found on each slide, normal slides and slides without a detection
            among them; asked for each once, so that it may be made when asked.

    Raises:
        TableError: A column is missing, a slide has no truth, a place lies outside its slide, or a
            probability is nan or not in [0, 1]; or there are no slides.

    Source: Ehteshami Bejnordi and others (2017), 10.1001/jama.2017.14585, and the challenge's
    evaluation script.
    """
    columns(detections, ["case_id", "x", "y", "prob"])
    unknown = detections.case_id[~detections.case_id.isin(list(truth))]
    if not len(truth) or len(unknown):
        raise TableError(
            "detections on slides without truth", expected="the lesions of each slide",
            received=first(unknown.unique()) or "no slide at all",
        )  # fmt: skip
    of_case = dict(tuple(detections.groupby("case_id", sort=False)))
    return froc_of(
        marks(of_case.get(case_id, detections.head(0)), truth[case_id], case_id)
        for case_id in sorted(truth)
    )


class Marks(NamedTuple):
    """What the detections of one slide are worth: all that `froc_of` needs of it.

    Attributes:
        case_id: The slide.
        best: Highest probability of a detection in each lesion, (lesions,); nan where there is
            none.
        wrong: Probabilities of those outside lesions and isolated tumour cells.
        n_isolated: Those in isolated tumour cells.
    """

    case_id: str
    best: np.ndarray
    wrong: np.ndarray
    n_isolated: int


def marks(detections: pd.DataFrame, lesions: Lesions, case_id: str) -> Marks:
    """Return what the detections of one slide are worth, so that its labels need not be kept.

    Args:
        detections: `x, y` (level-0 pixels) and `prob` in [0, 1]; none of probability 0 counts.
        lesions: What is to be found.
        case_id: The slide.

    Raises:
        TableError: As for `froc`.
    """
    prob = probabilities(detections["prob"].to_numpy())
    shown, prob = detections[prob > 0], prob[prob > 0]
    label = _hits(shown, lesions, case_id)
    best = np.full(lesions.n + 1, -np.inf)
    inside = (label > 0) & (label <= lesions.n)
    np.maximum.at(best, label[inside], prob[inside])
    found = np.where(best > 0, best, np.nan)[1:]
    return Marks(case_id, found, prob[label == 0], int((label > lesions.n).sum()))


def froc_of(slides: Iterable[Marks]) -> Froc:
    """Return what `froc` does, of slides marked one by one.

    Raises:
        TableError: There are none, or one comes twice.
    """
    each = sorted(slides, key=lambda one: one.case_id)
    ids = [one.case_id for one in each]
    if not each or len(set(ids)) < len(ids):
        raise TableError("slides must be some, each once",
                         received=first(ids) or "no slide at all")  # fmt: skip
    table = pd.DataFrame(
        [(one.case_id, number, prob) for one in each for number, prob in enumerate(one.best, 1)],
        columns=["case_id", "lesion", "prob"],
    )
    best, wrong = table["prob"].to_numpy(dtype=float), np.concatenate([one.wrong for one in each])
    curve = _curve(best, wrong, len(each))
    at = tuple(np.interp(AT, curve["false_positives"], curve["sensitivity"]).tolist())
    return Froc(
        float(np.mean(at)), at, curve, table, len(each), len(table), len(wrong),
        sum(one.n_isolated for one in each),
    )  # fmt: skip


def _hits(detections: pd.DataFrame, lesions: Lesions, case_id: str) -> np.ndarray:
    """Return the label that each detection lies in, int64 (n,).

    A mask may lack the slide's last row or column, less than a pixel: its own last one stands in.
    """
    xy = level0_to_level(detections[["x", "y"]].to_numpy(dtype=float), lesions.downsample)
    height, width = lesions.labels.shape
    outside = ~((xy >= 0) & (xy < (width + 1, height + 1))).all(axis=1)
    if outside.any():
        raise TableError(
            f"detections outside slide {case_id}", expected="x, y in level-0 pixels, within "
            f"{tuple(level_to_level0((width, height), lesions.downsample).tolist())}",
            received=first(detections[["x", "y"]][outside].to_numpy().tolist()),
        )  # fmt: skip
    column, row = np.minimum(np.floor(xy).astype(np.int64), (width - 1, height - 1)).T
    return np.asarray(lesions.labels[row, column].astype(np.int64))


def _curve(found: np.ndarray, wrong: np.ndarray, n_slides: int) -> pd.DataFrame:
    """Return false positives per slide and sensitivity at every threshold, falling."""
    hit = found[~np.isnan(found)]
    thresholds = np.append(np.inf, np.unique(np.append(hit, wrong))[::-1])
    reached, false = (
        len(values) - np.searchsorted(np.sort(values), thresholds) for values in (hit, wrong)
    )
    return pd.DataFrame({
        "threshold": thresholds, "false_positives": false / n_slides,
        "sensitivity": reached / len(found) if len(found) else np.nan,
    })  # fmt: skip
