"""The figures of slides; `kit.figures` has them all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import BESIDE, COLOURS, GREY, STYLES, WIDTH, panels, picture, sheet
from kit.errors import TableError
from kit.stain import odd_slides, stains
from kit.tissue import tissue_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kit.slides import Slide

OUTLINE = "#009E73"
LABEL_COLOURS = {"tumour": "#D55E00", "normal": "#0072B2", "unsure": "#E69F00", "(no label)": GREY}
MOSAIC_PIXELS = 400


def _name(slide: Slide) -> str:
    return slide.path.stem if slide.path else "array"


def mosaic(slides: Sequence[Slide], *, columns: int = 4) -> Figure:
    """Draw the slides side by side with their tissue outlined, and say how much it is.

    Args:
        slides: Open slides, at least one.
        columns: Slides in a row.
    """
    columns = min(columns, len(slides))
    rows = -(-len(slides) // columns)
    figure, axes = panels(rows * (WIDTH / columns + 0.35) + 0.3, columns, rows,
                          title=f"{len(slides)} slides; tissue outlined")  # fmt: skip
    for axis in axes:
        axis.set_axis_off()
    for axis, slide in zip(axes, slides, strict=False):
        found = tissue_mask(slide)
        share = f"{100 * found.share:.0f} % tissue"
        pen = f", {100 * found.pen:.1f} % pen" if found.pen >= 0.001 else ""
        thumbnail = slide.thumbnail(MOSAIC_PIXELS)
        picture(axis, thumbnail, f"{_name(slide)}\n{share}{pen}")
        _outline(axis, found.mask, *thumbnail.shape[:2])
    return figure


def _outline(axis: Axes, mask: np.ndarray, height: int, width: int) -> None:
    """Draw a mask's outline over a picture of the same field."""
    if mask.any() and not mask.all():
        axis.contour(
            mask, levels=[0.5], origin="lower", extent=(0, width, 0, height), colors=OUTLINE,
            linewidths=1.2,
        )  # fmt: skip


def tissue_overlay(thumbnail: np.ndarray, mask: np.ndarray, *, title: str = "") -> Figure:
    """Draw a slide's thumbnail, and again with all that is not tissue veiled.

    Args:
        thumbnail: uint8, shape (height, width, 3).
        mask: bool, shape (mask_height, mask_width) of the same field; True = tissue.
        title: Name of the slide.
    """
    height, width = thumbnail.shape[:2]
    shape = min(6.0, 0.5 * WIDTH * height / width) + 0.6
    figure, (left, right) = panels(shape, 2, title=title)
    picture(left, thumbnail, "Thumbnail")
    picture(right, thumbnail, f"Tissue (outlined): {100 * mask.mean():.0f} % of the slide")
    veil = np.where(mask[..., None], (0, 0, 0, 0), (60, 60, 60, 150)).astype(np.uint8)
    right.imshow(veil, extent=(0, width, height, 0), interpolation="nearest")
    _outline(right, mask, height, width)
    return figure


def patches_on_thumbnail(slide: Slide, plan: pd.DataFrame) -> Figure:
    """Draw the planned patches on a slide, coloured by label.

    Args:
        slide: Open slide.
        plan: Patches table of this slide: x, y (level-0 pixels, top left), label, footprint
            (level-0 pixels).
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    width, height = slide.size
    figure, (axis,) = panels(min(7.0, 0.85 * WIDTH * height / width) + 1.1)
    sides = ", ".join(f"{side:g}" for side in sorted(plan["footprint"].unique(), reverse=True))
    figure.suptitle(f"{len(plan):,} planned patches, {sides or 'none'} level-0 pixels wide")
    axis.imshow(slide.thumbnail(1600), extent=(0, width, height, 0))
    label = plan["label"].astype(object).where(plan["label"].notna(), "(no label)")
    handles, colours = [], _label_colours(sorted(set(label)))
    for name, rows in plan.groupby(label):
        colour = colours[str(name)]
        low = rows[["x", "y"]].to_numpy(np.float64)[:, None]
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        squares = low + corners * rows["footprint"].to_numpy()[:, None, None]
        line = 0.8 if len(plan) < 3000 else 0.2
        axis.add_collection(
            PolyCollection(list(squares), facecolors=_faint(colour), edgecolors=colour,
                           linewidths=line)
        )  # fmt: skip
        handles.append(Patch(color=colour, label=f"{name}: {len(rows):,}"))
    if handles:
        axis.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False
        )
    axis.set(xlabel="x (level-0 pixels)", ylabel="y (level-0 pixels)")
    return figure


def _label_colours(names: Sequence[str]) -> dict[str, str]:
    """Return the usual colour of usual labels, and for others those that are left, in order."""
    usual = {name: LABEL_COLOURS[name] for name in names if name in LABEL_COLOURS}
    left = itertools.cycle(colour for colour in COLOURS if colour not in usual.values())
    return {name: usual.get(name) or next(left) for name in names}


def _faint(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    return to_rgba(colour, 0.2)


def patches_by_class(images: np.ndarray, labels: Sequence[object], *, columns: int = 8) -> Figure:
    """Draw patches in rows by class, `columns` of each at most, in the order given.

    Args:
        images: uint8, shape (n, height, width, 3).
        labels: The class of each.
        columns: Patches of each class.
    """
    named = pd.Series(list(labels), dtype=object).fillna("(no label)").astype(str)
    if len(named) != len(images):
        raise TableError("lengths differ", expected=f"{len(images)} labels", received=len(named))
    chosen = named.groupby(named).head(columns)
    rows = [chosen.index[chosen == name] for name in sorted(chosen.unique())]
    blank = np.full((len(rows) * columns, *images.shape[1:]), 255, np.uint8)
    titles = [""] * len(blank)
    for number, members in enumerate(rows):
        start = number * columns
        blank[start : start + len(members)] = images[members]
        titles[start] = f"{named[members[0]]}: {int((named == named[members[0]]).sum())}"
    return sheet(blank, columns, titles, "Patches by class")[0]


def stain_by_slide(slides: Sequence[Slide]) -> Figure:
    """Draw how much haematoxylin and eosin the tissue of each slide holds, one line a slide.

    Slides that stand apart (`kit.stain.odd_slides`) are drawn strong and named.
    """
    found = {_name(slide): _tissue_stains(slide) for slide in slides}
    found = {name: values for name, values in found.items() if len(values)}
    odd = odd_slides({name: np.median(values, axis=0) for name, values in found.items()})
    title = f"Stain of {len(found)} slides; odd: {', '.join(odd) if odd else 'none'}"
    figure, axes = panels(3.4, 2, title=title)
    for column, (axis, stain) in enumerate(zip(axes, ("haematoxylin", "eosin"), strict=True)):
        most = max((np.percentile(one[:, column], 99.5) for one in found.values()), default=1.0)
        bins = np.linspace(-0.05, max(most, 0.1), 60)
        for name, values in found.items():
            heights, _ = np.histogram(values[:, column], bins, density=True)
            strong = name in odd
            number = odd.index(name) if strong else 0
            axis.plot(
                (bins[1:] + bins[:-1]) / 2, heights, label=name if strong else None,
                color=COLOURS[1 + number % (len(COLOURS) - 1)] if strong else GREY,
                linestyle=STYLES[number % len(STYLES)], linewidth=2.2 if strong else 0.9,
                alpha=1.0 if strong else 0.6,
            )  # fmt: skip
        axis.locator_params(axis="x", nbins=6)
        axis.set(
            xlabel=f"optical density of {stain}", ylabel="share of tissue (density)", ylim=(0, None)
        )
    if odd:
        axes[1].legend(**BESIDE)
    return figure


def _tissue_stains(slide: Slide) -> np.ndarray:
    """Return haematoxylin and eosin of the tissue's pixels of the overview, shape (n, 2)."""
    mask = tissue_mask(slide).mask
    rgb, _ = slide.overview((mask.shape[1], mask.shape[0]))
    height, width = min(rgb.shape[0], mask.shape[0]), min(rgb.shape[1], mask.shape[1])
    return stains(rgb[:height, :width][mask[:height, :width]])
