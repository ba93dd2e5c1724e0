"""The figures of training, planned and done; `kit.figures` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit._plots import BESIDE, COLOURS, GREY, STYLES, many, panels, short, spoken, whole
from kit.checks import columns, positive_int
from kit.errors import TableError
from kit.monitor import LOWER
from kit.recipes import REDUCED, Recipe, rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEN = COLOURS[:-1]  # yellow is no colour of a thin line
NEEDED = ("epoch", "stage", "loss", "rate", "monitor", "value", "network")
LISTED = 26  # networks in a column of the legend
SHADE = "#f2f2f2"
Span = tuple[str, float, float]  # a stage, where it begins and where it ends


def history(table: pd.DataFrame) -> Figure:
    """Draw each network's loss, watched figure and learning rate against the epoch.

    Stages are shaded in turn; a circle marks the epoch in which a network's figure was best.

    Args:
        table: As of `kit.histories.read_all`: epoch, stage, loss, rate, monitor, value, network,
            a row for each epoch of each network. Where no figure was watched, or none is defined,
            there is no panel of it.

    Raises:
        TableError: A column is missing, or there are no rows.
    """
    columns(table, NEEDED)
    if not len(table):
        raise TableError("no epochs to draw", expected="a row for each epoch", received="0 rows")
    watched = table[table["value"].notna()]
    best = _best(watched)
    drawn = {"loss": "training loss\n(nats)", "rate": "learning rate at\nthe epoch's end"}
    if len(watched):
        name = spoken(str(watched["monitor"].iloc[0]))
        drawn = {"loss": drawn["loss"], "value": f"{name} of the\nheld-out fold", **drawn}
    networks = sorted(table["network"].unique())
    height = max(1.8 * len(drawn), 1 + 0.18 * min(len(networks), LISTED))
    figure, axes = panels(height, rows=len(drawn), title=_finding(table, best))
    for axis, (column, label) in zip(axes, drawn.items(), strict=True):
        _lines(axis, table, networks, column)
        axis.set(ylabel=label)
        _stages(axis, _spans(table), named=column == "loss")
        whole(axis.xaxis)
    for axis in axes[:-1]:
        axis.tick_params("x", labelbottom=False)
    axes[-1].set(xlabel="epoch")
    for number, name in enumerate(networks):
        _circle(axes[1], best[best["network"] == name], number)
    figure.legend(
        handles=axes[0].lines[: len(networks)], title="network", fontsize=8, frameon=False,
        loc="outside right center", ncols=-(-len(networks) // LISTED),
    )  # fmt: skip
    return figure


def _lines(axis: Axes, table: pd.DataFrame, networks: list[Any], column: str) -> None:
    """Draw a column of each network, as one line."""
    for number, name in enumerate(networks):
        rows = table[table["network"] == name].sort_values("epoch")
        axis.plot(
            rows["epoch"], rows[column], label=short(name), **_look(number),
            drawstyle="steps-mid" if column == "rate" else "default",
        )  # fmt: skip


def _circle(axis: Axes, rows: pd.DataFrame, number: int) -> None:
    """Draw a ring round an epoch's figure; none where the network has no best one."""
    if not len(rows):  # a line of no points, unclipped, would break the layout
        return
    look = {**_look(number), "markersize": 9, "linestyle": "", "fillstyle": "none"}
    axis.plot(rows["epoch"], rows["value"], **look, clip_on=False)


def _look(number: int) -> dict[str, Any]:
    return {
        "color": SEEN[number % len(SEEN)], "linestyle": STYLES[number % len(STYLES)],
        "marker": "o", "markersize": 3, "linewidth": 1.3,
    }  # fmt: skip


def _best(watched: pd.DataFrame) -> pd.DataFrame:
    """Return each network's row with the best figure, the first of equals."""
    up = watched.sort_values("epoch").reset_index(drop=True)
    values = up["value"].where(~up["monitor"].isin(LOWER), -up["value"])
    return up.loc[values.groupby(up["network"]).idxmax()] if len(up) else up


def _finding(table: pd.DataFrame, best: pd.DataFrame) -> str:
    """Return what the history shows, in a sentence."""
    n = many(table["network"].nunique(), "network")
    if len(best):
        figure = str(best["monitor"].iloc[0])
        word = "Lowest" if figure in LOWER else "Best"
        at = _between(best["epoch"], "d")
        when = f"epoch {at}" if best["epoch"].nunique() == 1 else f"epochs {at}"
        return f"{word} {spoken(figure)} of {n}: {_between(best['value'], '.3f')} (circled: {when})"
    ends = table.sort_values("epoch").groupby("network")["loss"].agg(["first", "last"])
    begun, ended = (_between(ends[name], ".3f") for name in ("first", "last"))
    return f"Training loss of {n}: {begun} in the first epoch, {ended} in the last"


def _between(values: pd.Series, form: str) -> str:
    low, high = (format(values.dtype.type(end), form) for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _spans(table: pd.DataFrame) -> list[Span]:
    """Return where each stage begins and ends, half an epoch before and after its epochs."""
    starts = table.groupby("stage")["epoch"].min().sort_values()
    edges = [*(starts - 0.5), table["epoch"].max() + 0.5]
    return [(str(name), *edges[n : n + 2]) for n, name in enumerate(starts.index)]


def _stages(axis: Axes, spans: list[Span], *, named: bool = True) -> None:
    """Shade every other stage, and say their names above where there are several."""
    for number, (name, start, end) in enumerate(spans):
        if number % 2:
            axis.axvspan(start, end, color=SHADE, zorder=0, linewidth=0)
        if number:
            axis.axvline(start, color=GREY, linewidth=0.6, zorder=0.5)
        if named and len(spans) > 1:
            axis.text(
                (start + end) / 2, 1.02, name, ha="center", va="bottom", fontsize=8, color=GREY,
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip
    margin = 0.02 * (spans[-1][2] - spans[0][1])
    axis.set_xlim(spans[0][1] - margin, spans[-1][2] + margin)


def schedule(recipe: Recipe, per_epoch: int) -> Figure:
    """Draw the learning rate at each step of a recipe, stage by stage.

    Args:
        recipe: Its stages and schedule; a plateau is drawn as if its figure never stalled.
        per_epoch: Steps of an epoch, at least 1.

    Raises:
        SettingsError: `per_epoch` is below 1.
    """
    per_epoch = positive_int("per_epoch", per_epoch)
    found, first, spans = rates(recipe, per_epoch), 0, []
    figure, (axis,) = panels(3.2, title=_planned(recipe, found))
    for number, stage in enumerate(recipe.stages):
        last = first + stage.epochs * per_epoch
        mixed = "" if stage.mix == "none" else f", mix {stage.mix}"
        axis.plot(
            np.arange(first, last) + 1, found[first:last], drawstyle="steps-mid",
            color=SEEN[number],
            label=f"{stage.name}: {many(stage.epochs, 'epoch')}\naugment {stage.augment}{mixed}",
        )  # fmt: skip
        spans.append((stage.name, first + 0.5, last + 0.5))
        first = last
    _stages(axis, spans)
    axis.set(xlabel=f"step, {per_epoch:,} an epoch", ylabel="learning rate")
    axis.set_ylim(0, 1.05 * max(found))
    whole(axis.xaxis)
    axis.legend(title="stage", fontsize=8, **BESIDE)
    return figure


def _planned(recipe: Recipe, found: list[float]) -> str:
    """Return what the schedule does, in a sentence."""
    top = int(np.argmax(found))
    if recipe.schedule == "plateau":
        patience = many(recipe.patience, "epoch")
        return (
            f"Schedule plateau: rate {found[top]:.3g}, times {REDUCED:g} whenever "
            f"{spoken(recipe.monitor)} stalls for {patience}"
        )
    said = f"Schedule {recipe.schedule.replace('_', '-')}: rate {found[top]:.3g} at most "
    return said + f"(step {top + 1:,} of {len(found):,}), {found[-1]:.2g} at the end"
