"""The figure of a ledger; `kit.figures` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import COLOURS, GREY, many, panels, short, spoken
from kit.checks import columns
from kit.errors import TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ledger(rows: pd.DataFrame) -> Figure:
    """Draw local against leaderboard scores, with the local 95 % intervals.

    Args:
        rows: As `kit.ledger.scored` returns them: `id, metric, local, low, high, leaderboard`; an
            end of an interval that is not known is NaN.

    Raises:
        TableError: A column is missing, or no submission has both scores.
    """
    columns(rows, ["id", "metric", "local", "low", "high", "leaderboard"])
    if not len(rows):
        raise TableError("no submission has both scores", received="0 rows",
                         remedy="kit ledger submit FILE --run RUN, and kit ledger score ID VALUE"
                         )  # fmt: skip
    local, board = rows["local"].to_numpy(float), rows["leaderboard"].to_numpy(float)
    low, high = (rows[end].fillna(rows["local"]).to_numpy(float) for end in ("low", "high"))
    gap = float(np.mean(board - local))
    title = f"{many(len(rows), 'submission')}: leaderboard less local {gap:+.3f}"
    figure, (axis,) = panels(4.6, title=title if len(rows) == 1 else f"{title} on average")
    known = (rows["low"].notna() & rows["high"].notna()).to_numpy()
    inside = (low <= board) & (board <= high)
    for kept, colour, said in (
        (known & inside, COLOURS[0], "leaderboard within the local interval"),
        (known & ~inside, COLOURS[1], "leaderboard outside the local interval"),
        (~known, GREY, "no local interval"),
    ):
        if kept.any():
            ends = np.stack([local - low, high - local])[:, kept]
            axis.errorbar(local[kept], board[kept], xerr=ends, fmt="o", color=colour, capsize=3,
                          linewidth=1, label=said)  # fmt: skip
    for x, y, name in zip(local, board, rows["id"], strict=True):
        axis.annotate(short(name, 16), (x, y), xytext=(4, 5), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    span = [float(np.min([low, board])), float(np.max([high, board]))]
    axis.plot(span, span, color=GREY, linestyle=":", label="equal")
    axis.margins(x=0.12, y=0.15)
    what = spoken(str(rows["metric"].iloc[-1]))
    axis.set(xlabel=f"local {what} (95 % interval)", ylabel="leaderboard score")
    axis.legend(frameon=False, fontsize=8)
    return figure
