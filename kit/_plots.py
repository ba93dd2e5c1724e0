"""What every figure shares: palette, canvas, PNG, and the few shapes drawn more than once.

Colours are Okabe and Ito's, told apart with every kind of colour vision. A figure shows itself in
a notebook as the last value of a cell, whatever matplotlib's backend; nothing touches pyplot.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LIGHT = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7")
STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
GREY = "#6e6e6e"
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
ABOVE: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False}
WIDTH = 9.0
DPI = 110
LINE = 92  # characters of a figure's title in one line


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file's bytes; the same table gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


@functools.cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return Picture


def panels(
    height: float, columns: int = 1, rows: int = 1, *, title: str = "",
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a figure of notebook width, `height` inches high, and its axes row by row.

    Args:
        height: In inches.
        columns: Axes in a row.
        rows: Rows of axes.
        title: Over the figure.
        ratios: Heights of the rows to each other; None: equal.
    """
    figure = _figure_class()(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, height_ratios=ratios).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    if title:
        entitle(figure, title)
    return figure, axes


def entitle(figure: Figure, title: str) -> None:
    """Write a title over the figure, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(title, LINE, break_on_hyphens=False), fontsize=12)


def many(n: int, noun: str) -> str:
    """Return a number with its noun: `1 case`, `1,200 cases`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def short(name: object, length: int = 24) -> str:
    """Return a name as it is, or its beginning and end if it is longer than `length`."""
    text = str(name)
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}\u2026{text[-end:]}"


def picture(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw an image, 0..255, shape (height, width) or (height, width, channels).

    Channels that are no colours (neither 1 nor 3) stand side by side in a square, grey.
    """
    if image.ndim == 3 and image.shape[-1] not in (1, 3):
        image = _squared(image)
    grey = image.ndim == 2 or image.shape[-1] == 1
    pixels = np.clip(image.reshape(image.shape[:2]) if grey else image, 0, 255).astype(np.uint8)
    axis.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)


def _squared(image: np.ndarray) -> np.ndarray:
    """Return the channels of an image row by row, as many in a row as there are rows, or more."""
    height, width, channels = image.shape
    across = int(np.ceil(np.sqrt(channels)))
    down = -(-channels // across)
    parts = np.zeros((down * across, height, width), image.dtype)
    parts[:channels] = np.moveaxis(image, -1, 0)
    rows = parts.reshape(down, across, height, width).swapaxes(1, 2)
    return np.asarray(rows.reshape(down * height, across * width))


def sheet(
    images: np.ndarray, columns: int, titles: Sequence[str], title: str
) -> tuple[Figure, list[Axes]]:
    """Draw images, shape (n, height, width, channels), row by row, `columns` in a row."""
    rows = -(-len(images) // columns)
    lines = max((text.count("\n") + 1 for text in titles), default=0)
    height = rows * (WIDTH / columns + 0.05 + 0.15 * lines) + 0.4
    figure, axes = panels(height, columns, rows, title=title)
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number < len(images):
            picture(axis, images[number], titles[number] if len(titles) else "")
    return figure, axes


def whole(axis: Any) -> None:
    """Put ticks of an axis (`axes.xaxis`) at whole numbers only."""
    axis.get_major_locator().set_params(integer=True)


def spoken(metric: str) -> str:
    """Return a metric's key as it is said: `ppv` is PPV, `mean_of_six` is mean of six."""
    abbreviated = ("ppv", "npv", "f1", "auc", "roc", "mcc")
    return metric.upper() if metric in abbreviated else metric.replace("_", " ")


def stacked(axis: Axes, counts: pd.DataFrame, heights: pd.DataFrame) -> None:
    """Draw one bar for each row, its columns stacked; the numbers inside are the counts.

    A number that its bar has no room for is left out.
    """
    from matplotlib.patheffects import withStroke

    names = [short(name, 16) for name in counts.index]
    start, tall = np.zeros(len(counts)), float(heights.sum(axis=1).max()) * 0.06
    size = 9 if len(counts) <= 6 else 6
    for number, name in enumerate(counts.columns):
        colour = COLOURS[number % len(COLOURS)]
        bars = axis.bar(
            names, heights[name], bottom=start, color=colour, label=short(name, 16),
            hatch="///" if number >= len(COLOURS) else None,
        )  # fmt: skip
        fits = (heights[name] > tall).to_numpy()
        axis.bar_label(
            bars, [f"{n:,}" if fit else "" for n, fit in zip(counts[name], fits, strict=True)],
            label_type="center", color="black" if colour in LIGHT else "white", fontsize=size,
            path_effects=[withStroke(linewidth=2, foreground=colour)],
        )  # fmt: skip
        start += heights[name].to_numpy()
    axis.tick_params("x", rotation=20 if sum(map(len, names)) > 40 else 0)
    axis.legend(ncols=4 if counts.shape[1] > 3 else 3, fontsize=8, **ABOVE)


def shares(axis: Axes, values: Any, name: str, number: int, *, of: int | None = None) -> None:
    """Draw a histogram of probabilities whose bars add up to 100 %, or to their share `of` all."""
    weights = np.full(len(values), 100 / max(1, of or len(values)))
    axis.hist(
        values, np.linspace(0, 1, 26).tolist(), weights=weights,
        alpha=0.55, color=COLOURS[number], label=f"{name} ({len(values):,})",
    )  # fmt: skip
    axis.set(ylabel="share of cases (%)", xlim=(0, 1))
