"""The figure of vectors; `kit.figures` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import BESIDE, COLOURS, GREY, many, panels, short
from kit.checks import same_length
from kit.embeddings import principal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^")
SHOWN = len(MARKERS) * len(COLOURS)  # names that have a sign of their own
OTHERS = "all others"
POINTS = 3000  # above which points are small and pale


def embedding_map(
    vectors: np.ndarray, colour_by: Sequence[object], *, of: str = "", title: str = ""
) -> Figure:
    """Draw vectors in their two main directions (PCA), coloured by slide, class or scanner.

    Args:
        vectors: shape (n, d), finite, n at least 1.
        colour_by: Name of each; the most frequent 24 have a colour and sign of their own.
        of: What the names are: "slide", "class", "scanner".
        title: Over the figure; the number of vectors and names by default.

    Raises:
        TableError: Lengths differ, there is no vector, or a number is not finite.
    """
    names = pd.Series(list(colour_by), dtype=object)
    same_length(vectors=vectors, colour_by=names)
    places, share = principal(vectors)
    names = names.map(str).where(names.notna(), "(none)")
    common = names.value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    if len(common) > SHOWN:
        names = names.where(names.isin(common[: SHOWN - 1]), OTHERS)
    said = title or f"{many(len(names), 'vector')} by {of or 'name'} ({len(common):,} in all)"
    figure, (axis,) = panels(4.6, title=said)
    size, alpha = (16, 0.7) if len(names) <= POINTS else (5, 0.4)
    for number, name in enumerate(sorted(set(names) - {OTHERS})):
        mine = (names == name).to_numpy()
        axis.scatter(
            places[mine, 0], places[mine, 1], s=size, alpha=alpha, linewidths=0, zorder=2,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number // len(COLOURS)],
            label=f"{short(name)} ({int(mine.sum()):,})",
        )  # fmt: skip
    if OTHERS in set(names):
        mine = (names == OTHERS).to_numpy()
        axis.scatter(
            places[mine, 0], places[mine, 1], s=size, alpha=alpha, linewidths=0, zorder=1,
            color=GREY, label=f"{OTHERS} ({int(mine.sum()):,})",
        )  # fmt: skip
    first, second = (f"({100 * part:.0f} % of variance)" for part in share)
    axis.set(xlabel=f"first direction {first}", ylabel=f"second direction {second}")
    axis.legend(title=of, markerscale=1.5 if size > 10 else 3, fontsize=8,
                ncols=1 if len(set(names)) <= 14 else 2, **BESIDE)  # fmt: skip
    return figure
