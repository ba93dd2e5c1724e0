"""How well the maps of slides find the lesions of their masks, slide by slide."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.annotations import MaskImage
from kit.checks import first, fraction
from kit.errors import MaskError, TableError
from kit.heatmaps import Heatmap
from kit.lesions import JOINED_UM, Froc, Lesions, Marks, detections, froc_of, lesions_of, marks

log = logging.getLogger(__name__)

LEAST = 0.1  # probability of a detection: what is less sure is not looked through for peaks
FINEST_UM = 32 * 0.243  # side of the squares that lesions are told in: CAMELYON16's level 5
BAND = 1 << 20  # squares whose tumour is measured at once


@dataclass(frozen=True, eq=False)
class Scores:
    """How well lesions are found.

    Attributes:
        threshold: Probability from which on a place counts as tumour in `overlap`.
        overlap: `case_id`; `truth`, `found`, `shared`, areas in level-0 pixels; `dice`, `iou`, in
            [0, 1], nan where both areas are 0. A row for each slide, and one of all, whose
            `case_id` is None: their areas together, so that slides need one resolution.
        froc: CAMELYON16's; None where a slide's resolution is unknown.
    """

    threshold: float
    overlap: pd.DataFrame
    froc: Froc | None


def score(
    slides: Iterable[tuple[Heatmap, MaskImage | None]], *, threshold: float,
    radius_um: float = JOINED_UM, least: float = LEAST,
) -> Scores:  # fmt: skip
    """Return Dice, IoU and FROC of the maps of one slide or of many.

    Overlaps are exact in area, whatever the sizes of cells and of mask pixels: a cell counts as
    found as a whole, and its tumour by the part of it that the mask covers. What was not looked at
    is not found. For the FROC, lesions are told from the mask in squares of 7.8 µm, of which at
    least half is tumour (`kit.lesions.lesions_of`), and detections are the map's peaks.

    Args:
        slides: The map and the mask of each, None where there is no tumour; read one by one, and
            none is kept. The value that counts is named as the map's class, or "tumour".
        threshold: In [0, 1].
        radius_um: Within which a peak keeps lower ones from being detections, µm.
        least: Probability of a detection.

    Raises:
        MaskError: A mask has no such value, or lies outside its slide.
        TableError: There are no slides, or one comes twice.
        SettingsError: A number is out of range.

    Source of the FROC: Ehteshami Bejnordi and others (2017), 10.1001/jama.2017.14585.
    """
    fraction("threshold", threshold)
    rows, marked, unknown = [], list[Marks](), list[str]()
    for heatmap, mask in slides:
        rows.append((heatmap.case_id, *_areas(heatmap, mask, threshold)))
        if heatmap.mpp is None:
            unknown.append(heatmap.case_id)
        else:
            marked.append(_marks(heatmap, mask, radius_um, least))
    ids = [row[0] for row in rows]
    if len(set(ids)) < max(1, len(ids)):
        raise TableError("slides must be some, each once",
                         received=first(ids) or "no slide at all")  # fmt: skip
    if unknown:
        log.warning("no FROC, because the resolution is unknown: %s", first(unknown))
    return Scores(threshold, _overlap(rows), None if unknown else froc_of(marked))


def truth_of(
    mask: MaskImage | None, size_level0: tuple[int, int], mpp: float, name: str
) -> Lesions:
    """Return the lesions that a slide's mask shows, told in squares of 7.8 µm or a level-0 pixel.

    Args:
        mask: The mask; None where there is no tumour.
        size_level0: (width, height) of the slide.
        mpp: µm per level-0 pixel.
        name: The mask's value that counts.
    """
    side = max(1.0, FINEST_UM / mpp)
    width, height = (int(np.ceil(length / side - 1e-9)) for length in size_level0)
    drawn = np.zeros((height, width), bool)
    for rows, columns, share in _shares(mask, name, side, (height, width)):
        drawn[rows, columns] = share >= 0.5
    return lesions_of(drawn, downsample=side, mpp=mpp)


def _areas(
    heatmap: Heatmap, mask: MaskImage | None, threshold: float
) -> tuple[float, float, float]:
    """Return the areas of the truth, of what was found, and of both, in level-0 pixels."""
    down, shape = heatmap.downsample, heatmap.values.shape
    across, along = (
        np.diff(np.minimum(np.arange(n + 1) * down, side))
        for n, side in zip(shape[::-1], heatmap.size_level0, strict=True)
    )
    found = heatmap.values >= threshold  # nan is not
    truth = shared = 0.0
    for rows, columns, share in _shares(mask, _named(mask, heatmap.name), down, shape):
        area = np.minimum(share * down**2, np.outer(along[rows], across[columns]))
        truth += float(area.sum())
        shared += float(area[found[rows, columns]].sum())
    return truth, float(along @ found @ across), shared


def _marks(heatmap: Heatmap, mask: MaskImage | None, radius_um: float, least: float) -> Marks:
    mpp = (heatmap.mpp or np.nan) / heatmap.downsample
    lesions = truth_of(mask, heatmap.size_level0, mpp, _named(mask, heatmap.name))
    found = detections(
        heatmap.values, downsample=heatmap.downsample, mpp=mpp, radius_um=radius_um, least=least
    )
    for axis, side in zip("xy", heatmap.size_level0, strict=True):
        found[axis] = np.minimum(found[axis], side - 1)  # of a cell that the slide's edge cuts
    return marks(found, lesions, heatmap.case_id)


def _shares(
    mask: MaskImage | None, name: str, side: float, shape: tuple[int, int]
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the share of tumour in the squares of a grid, in bands, where the mask lies.

    Args:
        mask: The mask; None where there is no tumour.
        name: Its value that counts.
        side: Of a square, level-0 pixels; the first starts at (0, 0).
        shape: (rows, columns) of the grid.
    """
    if mask is None:
        return
    ends = []
    for axis in (1, 0):
        low = mask.origin_level0[axis]
        high = low + mask.labels.shape[1 - axis] * mask.downsample[axis]
        start, stop = np.clip([low // side, np.ceil(high / side)], 0, shape[1 - axis]).astype(int)
        ends.append((int(start), int(stop)))
    (top, bottom), (left, right) = ends
    if top >= bottom or left >= right:
        raise MaskError("the mask lies outside its slide", path=mask.path)
    step = max(1, BAND // (right - left))
    for start in range(top, bottom, step):
        stop = min(start + step, bottom)
        x, y = np.meshgrid(np.arange(left, right), np.arange(start, stop))
        places = np.stack([x.ravel(), y.ravel()], axis=1) * side
        share = mask.fraction(places, side, name).reshape(x.shape)
        yield slice(start, stop), slice(left, right), share


def _named(mask: MaskImage | None, name: str) -> str:
    """Return the mask's value that counts."""
    return name if mask is not None and name in mask.values else "tumour"


def _overlap(rows: list[tuple[str, float, float, float]]) -> pd.DataFrame:
    areas = np.array([row[1:] for row in rows])
    ids: list[str | None] = [*(row[0] for row in rows), None]
    table = pd.DataFrame(
        np.vstack([areas, areas.sum(axis=0)]), columns=["truth", "found", "shared"]
    )
    table.insert(0, "case_id", pd.Series(ids, dtype=object))
    both = (table.truth + table.found).replace(0, np.nan)
    return table.assign(dice=2 * table.shared / both, iou=table.shared / (both - table.shared))
