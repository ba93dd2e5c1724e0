"""A map of probabilities over a whole slide, and how it is made of patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit import _cells, checks, geometry
from kit.errors import SettingsError, TableError

PLACE = ["x", "y", "footprint"]
MOST_CELLS = 1 << 28  # 2 GiB of float64


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Probabilities over a whole slide, from its corner (0, 0) whatever its bounds are.

    Attributes:
        values: Floats in [0, 1], shape (height, width) = ceil(size_level0 / downsample); nan
            where nothing was looked at.
        downsample: Level-0 pixels per cell, in x and y.
        size_level0: (width, height) of the slide.
        mpp: µm per cell; None if the slide's resolution is unknown.
        case_id: The slide's case.
        name: The class whose probability it is.

    Raises:
        TableError: The values have another shape, or lie outside [0, 1].
    """

    values: np.ndarray
    downsample: float
    size_level0: tuple[int, int]
    mpp: float | None = None
    case_id: str = ""
    name: str = "tumour"

    def __post_init__(self) -> None:
        checks.above_zero("downsample", self.downsample)
        if self.mpp is not None:
            checks.above_zero("mpp", self.mpp)
        expected = shape_of(self.size_level0, self.downsample)
        if self.values.shape != expected:
            raise TableError(
                "a heatmap covers its whole slide", expected=f"shape {expected}",
                received=f"shape {self.values.shape}",
            )  # fmt: skip
        checks.probabilities(self.values[~np.isnan(self.values)], name="a heatmap")


def raster(
    patches: pd.DataFrame,
    size_level0: tuple[int, int],
    *,
    column: str,
    step: float | None = None,
    mpp: float | None = None,
) -> Heatmap:
    """Return the map of one slide's patches.

    A patch's probability is its mean over the networks. A cell has the mean over the patches that
    cover its centre, whatever their footprints, each counting once; without overlaps that is its
    own patch's. Patches moved by jitter cover other centres than their own cell's only where they
    reach these; a cell whose centre none reaches stays nan.

    Args:
        patches: Predictions of one case, a row for each patch and network: case_id; x, y (level-0
            pixels, top left); footprint (side in level-0 pixels); and `column`.
        size_level0: (width, height) of the slide.
        column: Column of probabilities, e.g. "prob_tumour"; the map is named after its class.
        step: Level-0 pixels per cell. None: the step of the grid that the patches lie on, which
            is their footprint or, where they overlap, less; the footprint where they lie on none
            (jitter). Of several footprints, the finest.
        mpp: Resolution of the slide's level 0, µm per pixel.

    Raises:
        TableError: No patches, patches of several cases, a place outside the slide, or a
            probability outside [0, 1].
        SettingsError: `step` or `mpp` is not above 0, or there would be more than 2^28 cells.
    """
    size_level0 = geometry.as_size(size_level0)
    places = of_places(patches, column)
    _check_places(places, size_level0)
    if step is None:
        step = min(_cells.grid_step(rows[["x", "y"]].to_numpy(np.float64), rows["footprint"].max())
                   for _, rows in places.groupby("footprint"))  # fmt: skip
    step = checks.above_zero("step", step)
    shape = shape_of(size_level0, step)
    if shape[0] * shape[1] > MOST_CELLS:
        raise SettingsError(f"the heatmap has more than {MOST_CELLS:,} cells",
                            received=f"{shape[1]:,} x {shape[0]:,} of step={step:g}")  # fmt: skip
    values = _cells.means(
        places[PLACE].to_numpy(np.float64), places[column].to_numpy(np.float64), step, shape
    )
    return Heatmap(
        values, step, size_level0, None if mpp is None else step * checks.above_zero("mpp", mpp),
        str(patches["case_id"].iloc[0]), column.removeprefix("prob_"),
    )  # fmt: skip


def of_places(patches: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return x, y, footprint and `column` of one case's patches, the mean over their networks.

    Raises:
        TableError: A column is missing; no patches, or patches of several cases; a probability
            lies outside [0, 1].
    """
    checks.columns(patches, ["case_id", *PLACE, column])
    cases = patches["case_id"].unique()
    if len(cases) != 1:
        raise TableError("a heatmap is of one case", expected="rows of one case_id",
                         received=checks.first(cases) or "no patches")  # fmt: skip
    prob = checks.probabilities(patches[column].to_numpy(), name=column)
    table = patches[PLACE].assign(**{column: prob})
    return table.groupby(PLACE, dropna=False)[column].mean().reset_index()


def shape_of(size_level0: tuple[int, int], downsample: float) -> tuple[int, int]:
    """Return (height, width) in cells."""
    width, height = (int(np.ceil(side / downsample - 1e-9)) for side in size_level0)
    return height, width


def _check_places(patches: pd.DataFrame, size_level0: tuple[int, int]) -> None:
    x, y, footprint = patches[PLACE].to_numpy(np.float64).T
    wrong = ~((footprint > 0) & (footprint < np.inf))
    for low, side in zip((x, y), size_level0, strict=True):
        wrong |= ~((low + footprint / 2 >= 0) & (low + footprint / 2 < side))
    if wrong.any():
        at = patches[PLACE].iloc[int(wrong.argmax())]
        raise TableError(
            f"{int(wrong.sum())} patches lie outside the slide",
            expected="centres within {} x {} level-0 pixels".format(*size_level0),
            received=f"first x={at['x']}, y={at['y']}, footprint={at['footprint']}",
            remedy="give the patches and the size (width, height) of the same slide",
        )  # fmt: skip
