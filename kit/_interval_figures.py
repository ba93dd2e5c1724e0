"""The figures of metrics with their intervals; `kit.figures` has them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import checks
from kit._plots import COLOURS, GREY, many, panels, short, spoken
from kit.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDS = ["value", "low", "high"]
NAMED = 20  # characters of a name on an axis


def forest(report: pd.DataFrame, *, by: str | None = None) -> Figure:
    """Draw each metric with its 95 % interval; with parts, one panel a metric and one row a part.

    Args:
        report: Columns metric, value, low, high; undefined values are NaN. With a column `part`
            (`all`, `fold 0`, `scanner A`) its parts stand below each other, with their `n` where
            there is one. Intervals with `reliable` False are drawn hollow and dashed.
        by: What the parts are, for the title: `fold`, `scanner`.

    Raises:
        TableError: A column is missing, there are no rows, or a metric stands twice in a part.
    """
    table = _with_ends(report, "metric", *ENDS)
    key = [name for name in ("part", "metric") if name in table]
    twice = table[table.duplicated(key)]
    if len(twice):
        raise TableError("doubled rows", expected=f"each {' and '.join(key)} once",
                         received=checks.first(twice[key].agg(" ".join, axis=1)))  # fmt: skip
    return _forest_of_parts(table, by) if "part" in table else _forest_of_one(table)


def _forest_of_one(table: pd.DataFrame) -> Figure:
    mean = table[table["metric"].eq("mean_of_six") & table["value"].notna()]
    said = "Metrics with their 95 % intervals"
    if table["value"].isna().all():
        said = "All metrics are undefined"
    elif len(mean):
        value, low, high = mean[ENDS].iloc[0]
        said = f"Mean of six {value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    figure, (axis,) = panels(1.1 + 0.34 * len(table), title=said)
    _intervals(axis, table)
    names = [spoken(str(name)) for name in table["metric"]]
    axis.set_yticks(range(len(table)), names)
    for place, text in enumerate(_interval_texts(table, "{:.3f}")):
        axis.text(1.03, place, text, va="center", transform=axis.get_yaxis_transform())
    axis.set(xlabel=_scale(axis, table))
    _note_unreliable(figure, table)
    return figure


def _forest_of_parts(table: pd.DataFrame, by: str | None) -> Figure:
    metrics, parts = list(table["metric"].unique()), list(table["part"].unique())
    across = min(4, len(metrics))
    down = -(-len(metrics) // across)
    height = 0.8 + down * (0.75 + 0.24 * len(parts))
    figure, axes = panels(height, across, down, title=_extremes(table, metrics, by))
    for number, axis in enumerate(axes):
        if number >= len(metrics):
            axis.set_axis_off()
            continue
        rows = table[table["metric"] == metrics[number]].set_index("part").reindex(parts)
        rows = rows.reset_index()
        _intervals(axis, rows, "all")
        axis.set_title(spoken(str(metrics[number])), fontsize=10)
        axis.set_yticks(range(len(parts)), _part_names(rows) if number % across == 0 else [])
        for place, value in enumerate(rows["value"]):
            if np.isnan(value):
                axis.text(0.5, place, "undefined", color=GREY, fontsize=8, ha="center", va="center",
                          transform=axis.get_yaxis_transform())  # fmt: skip
        label = _scale(axis, rows)
        axis.set_xlabel(label if number + across >= len(metrics) else "")
    _note_unreliable(figure, table)
    return figure


def _part_names(rows: pd.DataFrame) -> list[str]:
    names = [short(part, NAMED) for part in rows["part"]]
    if "n" not in rows:
        return names
    return [f"{name} (n = {n:,.0f})" for name, n in zip(names, rows["n"], strict=True)]


def _extremes(table: pd.DataFrame, metrics: Sequence[Any], by: str | None) -> str:
    """Return which part is lowest and which highest in the mean of six, or in the first metric."""
    name = "mean_of_six" if "mean_of_six" in metrics else metrics[0]
    mine = table[(table["metric"] == name) & (table["part"] != "all") & table["value"].notna()]
    which = f" by {by}" if by else ""
    said = spoken(str(name))[:1].upper() + spoken(str(name))[1:]
    if not len(mine):
        return f"{said}{which}: undefined"
    low, high = (mine.iloc[int(at)] for at in (mine["value"].argmin(), mine["value"].argmax()))
    ends = [f"{one['value']:.3f} ({short(one['part'], 16)})" for one in (low, high)]
    return f"{said}{which}: from {ends[0]} to {ends[1]}, with 95 % intervals"


def comparison(
    differences: pd.DataFrame, *, first: str = "first model", second: str = "second model"
) -> Figure:
    """Draw how much a second model's metrics lie above a first one's, with 95 % intervals.

    Args:
        differences: Columns metric, value (second less first), low, high, and p where tested;
            undefined values are NaN.
        first: Name of the first model.
        second: Name of the second model.

    Raises:
        TableError: A column is missing, or there are no rows.
    """
    table = _with_ends(differences, "metric", *ENDS)
    apart = (table["low"] > 0) | (table["high"] < 0)
    known = int(table["value"].notna().sum())
    found = f"the interval leaves out 0 for {apart.sum()} of {many(known, 'metric')}"
    title = f"{short(second)} less {short(first)}: {found if known else 'undefined'}"
    figure, (axis,) = panels(1.1 + 0.34 * len(table), title=title)
    _intervals(axis, table, hollow=~apart)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(table)), [spoken(str(name)) for name in table["metric"]])
    texts = _interval_texts(table, "{:+.3f}")
    for place, text in enumerate(texts):
        p = table["p"].iloc[place] if "p" in table else np.nan
        tested = "" if np.isnan(p) else ("  p < 0.001" if p < 0.001 else f"  p = {p:.3f}")
        axis.text(1.03, place, text + tested, va="center", transform=axis.get_yaxis_transform())
    most = np.nanmax(np.abs(table[ENDS].to_numpy()), initial=0.01) * 1.05
    axis.locator_params(axis="x", nbins=5)
    axis.set(xlim=(-most, most), xlabel="difference of the metric (hollow: the interval holds 0)")
    return figure


def _with_ends(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    checks.columns(table, names)
    if not len(table):
        raise TableError("no rows to draw", expected=", ".join(names))
    numbers = {name: np.float64 for name in names if name in ENDS}
    return table.reset_index(drop=True).astype(numbers)


def _intervals(
    axis: Axes, table: pd.DataFrame, strong: str | None = None, *, hollow: pd.Series | None = None
) -> None:
    """Draw one row after the other from above: a point and its interval.

    Args:
        axis: Drawn on.
        table: value, low, high, and `reliable` where known.
        strong: The part that is drawn black.
        hollow: Rows with a hollow point.
    """
    unsure = _unsure(table)
    hollow = unsure if hollow is None else hollow
    for place, (value, low, high) in enumerate(table[ENDS].to_numpy(dtype=float)):
        bold = strong is not None and table["part"].iloc[place] == strong
        colour = "black" if bold else COLOURS[0]
        style = (0, (2, 2)) if unsure.iloc[place] else "-"
        axis.plot([low, high], [place, place], color=colour, linewidth=2, linestyle=style)
        fill = "white" if hollow.iloc[place] else colour
        axis.plot([value], [place], "o", color=colour, markerfacecolor=fill)
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.grid(axis="x", color="#dddddd")
    axis.set_axisbelow(True)


def _unsure(table: pd.DataFrame) -> pd.Series:
    if "reliable" not in table:
        return pd.Series(False, index=table.index)
    return table["reliable"].eq(False) & table["value"].notna()


def _note_unreliable(figure: Figure, table: pd.DataFrame) -> None:
    if _unsure(table).any():
        figure.supxlabel(
            "hollow and dashed: too few groups (patients) for the interval to be relied on",
            fontsize=9, color=GREY,
        )  # fmt: skip


def _interval_texts(table: pd.DataFrame, form: str) -> list[str]:
    texts = []
    for value, low, high in table[ENDS].to_numpy(dtype=float):
        ends = f"({form.format(low)} to {form.format(high)})"
        ends = "(no interval)" if np.isnan([low, high]).any() else ends
        texts.append("undefined" if np.isnan(value) else f"{form.format(value)}  {ends}")
    return texts


def _scale(axis: Axes, table: pd.DataFrame) -> str:
    """Set the scale to 0 to 1, or to what holds all values; return what to call it."""
    numbers = table[ENDS].to_numpy(dtype=float)
    low, high = np.nanmin(numbers, initial=0.0), np.nanmax(numbers, initial=1.0)
    axis.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    return "value (0 to 1)" if (low, high) == (0, 1) else "value"
