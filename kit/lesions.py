"""How well lesions are found: how masks overlap, and CAMELYON16's FROC of points."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from kit._froc import AT as AT
from kit._froc import Froc as Froc
from kit._froc import Lesions as Lesions
from kit._froc import Marks as Marks
from kit._froc import froc as froc
from kit._froc import froc_of as froc_of
from kit._froc import marks as marks
from kit._mask_overlap import check_bool
from kit._mask_overlap import dice as dice
from kit._mask_overlap import iou as iou
from kit._mask_overlap import overlap as overlap
from kit.checks import above_zero, fraction, probabilities, same_length
from kit.errors import MaskError, SettingsError
from kit.geometry import Pair

JOINED_UM = 75.0  # regions nearer than this are one lesion: about five tumour cells
ISOLATED_UM = 275.0  # a region of a shorter longest axis is isolated tumour cells: 200 + JOINED_UM


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
    across, down = above_zero("mpp", mpp) * frame[0], mpp * frame[1]
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
    radius = radius_um / above_zero("mpp", mpp)
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
    return above_zero("downsample", across), above_zero("downsample", down)
