"""The figure of lesions found; `kit.figures` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit._plots import BESIDE, COLOURS, GREY, many, panels
from kit.errors import TableError
from kit.lesions import AT, Froc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTIONS = ("1/4", "1/2", "1", "2", "4", "8")


def froc(result: Froc) -> Figure:
    """Draw the share of lesions found against false positives per slide, and the score's points.

    Args:
        result: Of `kit.lesions.froc`.

    Raises:
        TableError: There are no lesions to find.
    """
    if not result.n_lesions:
        raise TableError("no lesions to find", received=many(result.n_slides, "slide"))
    title = (
        f"FROC score {result.score:.3f}: {many(result.n_lesions, 'lesion')} on "
        f"{many(result.n_slides, 'slide')}, {many(result.n_false, 'false positive')}"
    )
    figure, (axis,) = panels(4.6, title=title)
    false, found = result.curve["false_positives"], result.curve["sensitivity"]
    grid = np.geomspace(AT[0] / 2, AT[-1] * 2, 1001)
    axis.axhline(result.score, color=GREY, linestyle=":", label=f"score: {result.score:.3f}")
    axis.plot(grid, np.interp(grid, false, found), color=COLOURS[0], label="this model")
    axis.plot(AT, result.at, "o", color=COLOURS[0], label="its six points")
    axis.set_xscale("log", base=2)
    axis.set_xticks(AT, FRACTIONS)
    axis.set(
        xlabel="false positives per slide", ylabel="sensitivity (share of lesions found)",
        xlim=(grid[0], grid[-1]), ylim=(-0.01, 1.01),
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure
