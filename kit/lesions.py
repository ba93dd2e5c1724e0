"""How well lesions are found: how masks overlap, and CAMELYON16's FROC of points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from kit._mask_overlap import check_bool
from kit._mask_overlap import dice as dice
from kit._mask_overlap import iou as iou
from kit._mask_overlap import overlap as overlap
from kit.checks import columns, first, fraction, probabilities, same_length
from kit.errors import MaskError, SettingsError, TableError
from kit.geometry import Pair, level0_to_level, level_to_level0

JOINED_UM = 75.0  # regions nearer than this are one lesion: about five tumour cells
ISOLATED_UM = 275.0  # a region of a shorter longest axis is isolated tumour cells: 200 + JOINED_UM
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


def lesions_of(mask: np.ndarray, *, downsample: float | Pair, mpp: float) -> Lesions:
    """Tell the lesions of an annotated slide, and its isolated tumour cells, by CAMELYON16's rules.

    Tumour is grown by 37.5 µm, so that regions within 75 µm of each other are one, and its holes
    are filled; regions that touch at a corner are one. A region whose longest axis (of the ellipse
    with the same second moments) is then below 275 µm is isolated tumour cells.

    Args:
        mask: bool, shape (height, width), of the whole slide; True = tumour. All False on a normal
            slide. CAMELYON16 takes level 5, of 32 level-0 pixels.
        downsample: Level-0 pixels per pixel of the mask, (x, y) or one number.
        mpp: µm per level-0 pixel, > 0; CAMELYON16 takes 0.243.

    Raises:
        MaskError: The mask is not bool, or not of two dimensions.
        SettingsError: `downsample` or `mpp` is not above 0.

    Source: Ehteshami Bejnordi and others (2017), 10.1001/jama.2017.14585, and the challenge's
    evaluation script.
    """
    from scipy import ndimage

    check_bool(mask)
    if mask.ndim != 2 or 0 in mask.shape:
        raise MaskError("a mask must be an image", expected="shape (height, width)",
                        received=f"shape {mask.shape}")  # fmt: skip
    frame = _pair(downsample)
    across, down = _positive("mpp", mpp) * frame[0], mpp * frame[1]
    labels = np.zeros(mask.shape, np.uint8)
    window = _around(mask, JOINED_UM / 2 / down, JOINED_UM / 2 / across)
    if window is None:
        return Lesions(labels, 0, frame)
    distance = ndimage.distance_transform_edt(~mask[window], sampling=(down, across))
    grown = ndimage.binary_fill_holes(distance < JOINED_UM / 2)
    found, n = ndimage.label(grown, structure=np.ones((3, 3)))
    isolated = _longest_axes(found, down, across) < ISOLATED_UM
    number = np.zeros(n + 1, np.min_scalar_type(n))  # lesions first, both in the mask's order
    number[1:][np.argsort(isolated, kind="stable")] = np.arange(1, n + 1)
    labels = labels.astype(number.dtype, copy=False)
    labels[window] = number[found]
    return Lesions(labels, int((~isolated).sum()), frame)


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
    prob = probabilities(detections["prob"].to_numpy())
    unknown = detections.case_id[~detections.case_id.isin(list(truth))]
    if not len(truth) or len(unknown):
        raise TableError(
            "detections on slides without truth", expected="the lesions of each slide",
            received=first(unknown.unique()) or "no slide at all",
        )  # fmt: skip
    shown = pd.DataFrame(
        {"case_id": detections.case_id, "x": detections.x, "y": detections.y, "prob": prob}
    ).query("prob > 0")
    of_case = dict(tuple(shown.groupby("case_id", sort=False)))
    found, false, n_isolated = [], [], 0
    for case_id in sorted(truth):
        of_slide, mine = truth[case_id], of_case.get(case_id, shown.head(0))
        label, prob = _hits(mine, of_slide, case_id), mine["prob"].to_numpy()
        best = np.full(of_slide.n + 1, -np.inf)
        inside = (label > 0) & (label <= of_slide.n)
        np.maximum.at(best, label[inside], prob[inside])
        found += [(case_id, number, p if p > 0 else np.nan) for number, p in enumerate(best)][1:]
        false.append(prob[label == 0])
        n_isolated += int((label > of_slide.n).sum())
    table = pd.DataFrame(found, columns=["case_id", "lesion", "prob"])
    best, wrong = table["prob"].to_numpy(dtype=float), np.concatenate(false)
    curve = _curve(best, wrong, len(truth))
    at = tuple(np.interp(AT, curve["false_positives"], curve["sensitivity"]).tolist())
    return Froc(
        float(np.mean(at)), at, curve, table, len(truth), len(table), len(wrong), n_isolated
    )


def detections(
    heat: np.ndarray, *, downsample: float | Pair, mpp: float, radius_um: float, least: float = 0.5
) -> pd.DataFrame:
    """Return the peaks of a map of probabilities, as `peaks` chooses them among its cells.

    Args:
        heat: float, shape (height, width), in [0, 1]; nan where nothing was predicted.
        downsample: Level-0 pixels per cell, (x, y) or one number.
        mpp: µm per level-0 pixel, > 0.
        radius_um: As in `peaks`.
        least: As in `peaks`.

    Returns:
        `x, y`, int, the level-0 pixel at a cell's centre, and `prob`; the highest first.

    Raises:
        MaskError: The map is no image, or a value is not in [0, 1].
        SettingsError: `downsample`, `mpp`, `radius_um` or `least` cannot be.
    """
    if heat.ndim != 2 or ((heat < 0) | (heat > 1)).any():
        raise MaskError("a map must be an image of probabilities",
                        expected="shape (height, width), in [0, 1] or nan",
                        received=f"shape {heat.shape}")  # fmt: skip
    frame = _pair(downsample)
    rows, columns = np.nonzero(heat >= fraction("least", least))
    xy = (np.stack([columns, rows], axis=1) + 0.5) * frame
    return peaks(xy, heat[rows, columns], mpp=mpp, radius_um=radius_um, least=least)


def peaks(
    xy_level0: npt.ArrayLike, prob: npt.ArrayLike, *, mpp: float, radius_um: float,
    least: float = 0.5,
) -> pd.DataFrame:  # fmt: skip
    """Return the points that no higher one has beside it (non-maximum suppression).

    The highest point is taken, and all within the radius of it go; then the highest of those left.
    Of equal ones the upper comes first, then the left one.

    Args:
        xy_level0: shape (n, 2), places in level 0; of patches their centres, x + footprint / 2.
        prob: shape (n,), in [0, 1].
        mpp: µm per level-0 pixel, > 0.
        radius_um: Within which a point keeps others from being taken, µm, at least 0.
        least: Lower probabilities are no detections, in [0, 1].

    Returns:
        `x, y`, int, the level-0 pixel that holds the place, and `prob`; the highest first.

    Raises:
        TableError: Lengths differ, or a probability is nan or not in [0, 1].
        SettingsError: `mpp`, `radius_um` or `least` cannot be.
    """
    from scipy.spatial import cKDTree

    xy, prob = np.asarray(xy_level0, np.float64).reshape(-1, 2), probabilities(np.asarray(prob))
    same_length(xy_level0=xy, prob=prob)
    if not radius_um >= 0:
        raise SettingsError("radius_um must be at least 0", received=f"radius_um={radius_um}")
    radius = radius_um / _positive("mpp", mpp)
    xy, prob = xy[prob >= fraction("least", least)], prob[prob >= least]
    order = np.lexsort((xy[:, 0], xy[:, 1], -prob))
    xy, prob = xy[order], prob[order]
    left, kept, tree = np.ones(len(xy), bool), [], cKDTree(xy)
    for number, place in enumerate(xy):
        if left[number]:
            kept.append(number)
            left[tree.query_ball_point(place, radius)] = False
    places = np.floor(xy[kept]).astype(np.int64)
    return pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "prob": prob[kept]})


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


def _longest_axes(labels: np.ndarray, down: float, across: float) -> np.ndarray:
    """Return the longest axis of each label's ellipse of the same second moments, µm, (n,)."""
    row, column = np.nonzero(labels)
    label = labels[row, column] - 1
    n = np.bincount(label)
    y, x = row * down, column * across
    y = y - (np.bincount(label, y) / n)[label]
    x = x - (np.bincount(label, x) / n)[label]
    yy, xx, xy = (np.bincount(label, product) / n for product in (y * y, x * x, x * y))
    largest = (yy + xx) / 2 + np.hypot((yy - xx) / 2, xy)
    return np.asarray(4 * np.sqrt(largest))


def _around(mask: np.ndarray, *margins: float) -> tuple[slice, ...] | None:
    """Return the box around a mask's pixels and so many more on each side; None of an empty one."""
    box = []
    for axis, margin in enumerate(margins):
        on = np.flatnonzero(mask.any(axis=1 - axis))
        if not len(on):
            return None
        wide = math.ceil(margin) + 1
        box.append(slice(max(0, int(on[0]) - wide), int(on[-1]) + wide + 1))
    return tuple(box)


def _pair(downsample: float | Pair) -> Pair:
    across, down = np.broadcast_to(np.asarray(downsample, dtype=np.float64), (2,)).tolist()
    return _positive("downsample", across), _positive("downsample", down)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise SettingsError(f"{name} must be above 0", received=f"{name}={value}")
    return float(value)
