"""Networks that answer for each pixel: what is kept of a patch, and the map of the whole slide."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import pandas as pd

from kit._heatmap import Heatmap
from kit.checks import choice
from kit.errors import SettingsError
from kit.slides import Slide
from kit.stitch import How, Stitcher
from kit.stitch import patch_scores as patch_scores

CELLS = 16  # a side, that are kept of a patch at most: 1 KB as float32, whatever the networks
MOST_CELLS = 1 << 24  # of a slide's map: 256 MB of temporary files


@dataclass(frozen=True)
class Dense:
    """What is made of the pixels' probabilities.

    A patch keeps its probabilities of the positive class as the means over 16 x 16 squares of
    equal size (fewer where the network answers for fewer pixels), of which the slide's map is
    stitched. It is one map: where several networks answer for pixels, their mean.

    Attributes:
        positive: The class that is mapped.
        score: What a patch's pixels say of the patch: the mean over its centre, half as wide and as
            high, or the positive class's maximum there (HeLP 2019's; the other class has the rest).
        how: How overlapping patches are weighed (`kit.stitch.Stitcher`); "centre" is HeLP's.
    """

    positive: str
    score: Literal["mean", "max"] = "mean"
    how: How = "window"

    def __post_init__(self) -> None:
        choice("score", self.score, ("mean", "max"))
        choice("how", self.how, ("centre", "window"))

    def place(self, classes: tuple[str, ...]) -> int:
        """Return the position of the positive class.

        Raises:
            SettingsError: It is none of the classes, or a maximum is asked of more than two.
        """
        if self.score == "max" and len(classes) != 2:
            raise SettingsError("the maximum scores one of two classes",
                                received=f"{len(classes)} classes")  # fmt: skip
        return classes.index(choice("positive", self.positive, classes))


def scores(maps: np.ndarray, how: Literal["mean", "max"], positive: int) -> np.ndarray:
    """Return probabilities of patches, float64 (n, classes), from those of their pixels.

    Args:
        maps: shape (n, height, width, classes).
        how: As in `Dense.score`.
        positive: Position of the positive class, of two where it is a maximum.
    """
    if how == "mean":
        return patch_scores(maps, "mean")
    high = patch_scores(maps[..., positive], "max")
    found = np.stack([1 - high, 1 - high], axis=1)
    found[:, positive] = high
    return found


def cells(maps: np.ndarray, side: int = CELLS) -> np.ndarray:
    """Return the means over the squares of patches, float32 (n, side, side).

    Args:
        maps: One class's probabilities, shape (n, height, width), at least `side` each.
        side: Squares along a patch.
    """
    height, width = maps.shape[1:]
    if height % side or width % side:
        import cv2

        found = [cv2.resize(one.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
                 for one in maps]  # fmt: skip
        return np.reshape(found, (-1, side, side)).clip(0, 1)
    squares = maps.reshape(len(maps), side, height // side, side, width // side)
    return np.asarray(squares.mean(axis=(2, 4), dtype=np.float64).astype(np.float32))


def stitched(
    parts: Iterable[tuple[np.ndarray, np.ndarray]], slide: Slide, plan: pd.DataFrame,
    dense: Dense, *, side: int, folder: str | PathLike[str] | None = None,
) -> Heatmap:  # fmt: skip
    """Return the slide's map, its cells those of the finest patches, or larger: at most 2^24.

    Args:
        parts: Rows of the plan, and their cells (n, rows, columns), in any order.
        slide: Open slide.
        plan: Its plan, at least one row.
        dense: The class, and how patches are weighed.
        side: Cells along a patch.
        folder: Where temporary files lie.

    Raises:
        KitError: The disk has no room for the temporary files.
    """
    width, height = slide.size
    down = max(float(plan.footprint.min()) / side, math.sqrt(width * height / MOST_CELLS))
    places, sides = plan[["x", "y"]].to_numpy(), plan.footprint.to_numpy()
    with Stitcher(slide.size, down, how=dense.how, folder=folder) as stitcher:
        for rows, mine in parts:
            stitcher.add(places[rows], sides[rows], mine)
        values = stitcher.result()
    mpp = slide.known_mpp
    return Heatmap(
        np.clip(values, 0, 1), down, slide.size, None if mpp is None else mpp * down,
        str(plan.case_id.iloc[0]), dense.positive,
    )  # fmt: skip
