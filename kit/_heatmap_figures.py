"""The figure of a slide's heatmap; `kit.figures` has it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import WIDTH, panels, picture, short
from kit.checks import positive_int
from kit.errors import MaskError, TableError
from kit.heatmaps import Heatmap, of_places, pyramid
from kit.tissue import TissueMask, tissue_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kit.annotations import MaskImage
    from kit.slides import Slide

TISSUE, TUMOUR = "#009E73", "#D55E00"
THUMBNAIL = 1200  # longest side, pixels
PATCH = 128  # side of a patch in the row below, pixels
GAP = 12
IN_A_ROW = 8
WIDE, TALL = 2.7, 6.0  # most inches of a thumbnail
APART = 0.2  # inches between the middles of two numbers


def slide_heatmap(
    slide: Slide,
    heatmap: Heatmap,
    patches: pd.DataFrame,
    *,
    column: str,
    tissue: TissueMask | None = None,
    mask: MaskImage | None = None,
    top: int = 8,
) -> Figure:
    """Draw a slide, its tissue and tumour, its heatmap, and the patches of highest probability.

    Only the slide's bounds are drawn. The patches below do not overlap; equal ones are taken row
    by row. Their numbers stand on the thumbnail, moved apart where they would cover each other.

    Args:
        slide: Open slide.
        heatmap: Its map.
        patches: Predictions of its patches: case_id, x, y, footprint and `column`.
        column: Column of probabilities that patches are chosen by, e.g. "prob_tumour".
        tissue: Its tissue; found here if not given.
        mask: Its tumour mask; the value named as the heatmap's class is outlined, or "tumour".
        top: Patches to show, at least 1.

    Raises:
        TableError: The heatmap is of another slide, or the patches are not of one case.
        MaskError: The mask has no such value.
    """
    measure = f"probability of {short(heatmap.name)}"
    return _figure(slide, heatmap, patches, column, measure, tissue, mask, top)


def slide_attention(
    slide: Slide,
    heatmap: Heatmap,
    patches: pd.DataFrame,
    *,
    tissue: TissueMask | None = None,
    mask: MaskImage | None = None,
    top: int = 8,
) -> Figure:
    """Draw where networks of bags looked on a slide, and the patches they looked at most.

    Args:
        slide: Open slide.
        heatmap: The map of their attention.
        patches: `kit.mil.attention_table` of the slide.
        tissue: As in `slide_heatmap`, and so the others.
        mask: Its tumour mask, with a value named "tumour".
        top: Patches to show, at least 1.

    Raises:
        TableError: The map is of another slide, or the patches are not of one case.
        MaskError: The mask has no such value.
    """
    return _figure(slide, heatmap, patches, "attention", "rank of attention", tissue, mask, top)


def _figure(
    slide: Slide, heatmap: Heatmap, patches: pd.DataFrame, column: str, measure: str,
    tissue: TissueMask | None, mask: MaskImage | None, top: int,
) -> Figure:  # fmt: skip
    if heatmap.size_level0 != slide.size:
        raise TableError("the heatmap is of another slide", expected=f"size {slide.size}",
                         received=f"size {heatmap.size_level0}", path=slide.path)  # fmt: skip
    chosen = _most_suspicious(of_places(patches, column), column, positive_int("top", top))
    thumbnail = slide.thumbnail(THUMBNAIL)
    strip = _strip(slide, chosen)
    figure, (left, middle, right), below = _axes(slide, heatmap, measure, strip.shape)
    _show(left, slide, thumbnail, "The numbers are the patches below")
    _number(left, slide, chosen)
    told = "Tissue (green)" if mask is None else "Tissue (green), drawn tumour (orange)"
    _show(middle, slide, thumbnail, told)
    _outline(middle, slide, (tissue or tissue_mask(slide)).mask, TISSUE)
    if mask is not None:
        _outline(middle, slide, _drawn(mask, slide, thumbnail, heatmap.name), TUMOUR)
    _show(right, slide, thumbnail, f"Looked at: {100 * _seen(heatmap):.0f} % of the slide")
    _overlay(figure, right, heatmap, measure)
    picture(below, strip)
    for number, value in enumerate(chosen[column], start=1):
        row, place = divmod(number - 1, IN_A_ROW)
        x, y = place * (PATCH + GAP) + PATCH / 2, row * (PATCH + 3 * GAP) + 2 * GAP
        below.text(x, y, f"{number}: {value:.2f}", ha="center", va="bottom", fontsize=8)
    return figure


def _seen(heatmap: Heatmap) -> float:
    return float((~np.isnan(heatmap.values)).mean())


def _most_suspicious(places: pd.DataFrame, column: str, top: int) -> pd.DataFrame:
    """Return the patches of highest probability that do not overlap, highest first."""
    left = places.sort_values([column, "y", "x"], ascending=[False, True, True])
    chosen: list[pd.DataFrame] = []
    while len(left) and len(chosen) < top:
        chosen.append(left.iloc[:1])
        x, y, side = left[["x", "y", "footprint"]].to_numpy(np.float64).T
        reach = (side + side[0]) / 2 - 1  # a pixel less: places are rounded
        across, down = (np.abs(low + side / 2 - low[0] - side[0] / 2) for low in (x, y))
        left = left[np.maximum(across, down) >= reach].drop(left.index[0], errors="ignore")
    return pd.concat(chosen, ignore_index=True)


def _strip(slide: Slide, chosen: pd.DataFrame) -> np.ndarray:
    """Return the patches side by side, with room for a line above each."""
    import cv2

    rows, columns = -(-len(chosen) // IN_A_ROW), min(len(chosen), IN_A_ROW)
    tall, wide = PATCH + 3 * GAP, PATCH + GAP
    strip = np.full((rows * tall, max(columns, IN_A_ROW) * wide - GAP, 3), 255, np.uint8)
    for number, (x, y, footprint) in enumerate(
        chosen[["x", "y", "footprint"]].itertuples(index=False)
    ):
        fine = [n for n, down in enumerate(slide.downsamples) if footprint / down >= PATCH]
        level = max(fine, default=0)
        size = max(1, round(footprint / slide.downsamples[level]))
        patch = slide.read_patch((round(x), round(y)), size, level=level)
        row, place = divmod(number, IN_A_ROW)
        strip[row * tall + 3 * GAP :, place * wide :][:PATCH, :PATCH] = cv2.resize(
            patch, (PATCH, PATCH), interpolation=cv2.INTER_AREA
        )
    return strip


def _axes(
    slide: Slide, heatmap: Heatmap, measure: str, strip: tuple[int, ...]
) -> tuple[Figure, list[Axes], Axes]:
    """Return a figure, three axes as high as the slide asks for, and one below them."""
    _, _, width, height = slide.bounds
    above = float(np.clip(WIDE * height / width, 1.6, TALL))
    under = WIDTH * strip[0] / strip[1]
    name = short(heatmap.case_id or "slide", 40)
    title = f"{name}: {measure}"
    figure, axes = panels(above + under + 0.6, 3, 2, title=title, ratios=(above, under))
    for axis in axes[3:]:
        axis.remove()
    grid = axes[0].get_gridspec()
    return figure, axes[:3], figure.add_subplot(grid[1, :])  # type: ignore[index]


def _show(axis: Axes, slide: Slide, thumbnail: np.ndarray, title: str) -> None:
    x, y, width, height = slide.bounds
    axis.imshow(thumbnail, extent=(0, slide.size[0], slide.size[1], 0))
    axis.set(xlim=(x, x + width), ylim=(y + height, y))
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def _outline(axis: Axes, slide: Slide, mask: np.ndarray, colour: str) -> None:
    """Draw the outline of a mask of the whole slide."""
    if mask.any() and not mask.all():
        width, height = slide.size
        axis.contour(mask, levels=[0.5], origin="upper", extent=(0, width, height, 0),
                     colors=colour, linewidths=1.2)  # fmt: skip


def _drawn(mask: MaskImage, slide: Slide, thumbnail: np.ndarray, name: str) -> np.ndarray:
    """Return where the thumbnail's pixels are tumour."""
    value = mask.values.get(name, mask.values.get("tumour"))
    if value is None:
        raise MaskError("the mask has no such value", expected=f"{name} or tumour",
                        received=", ".join(mask.values), path=mask.path)  # fmt: skip
    height, width = thumbnail.shape[:2]
    return np.asarray(mask.read_patches([[0, 0]], slide.size, (width, height))[0] == value)


def _overlay(figure: Figure, axis: Axes, heatmap: Heatmap, measure: str) -> None:
    """Draw the map where something was looked at, and its scale."""
    level, values = next(
        (level, values) for level, values in enumerate(pyramid(heatmap.values))
        if max(values.shape) <= 2 * THUMBNAIL
    )  # fmt: skip
    side = heatmap.downsample * 2**level
    limits = axis.axis()
    axis.imshow(
        np.ma.masked_invalid(values), cmap="viridis", vmin=0, vmax=1, alpha=0.65,
        extent=(0, values.shape[1] * side, values.shape[0] * side, 0), interpolation="nearest",
    )  # fmt: skip
    axis.axis(limits)
    scale = figure.colorbar(axis.images[-1], ax=axis, shrink=0.8)
    scale.set_label(measure, fontsize=8)
    scale.solids.set_alpha(1)  # type: ignore[union-attr]
    scale.ax.tick_params(labelsize=8)


def _number(axis: Axes, slide: Slide, chosen: pd.DataFrame) -> None:
    """Write each patch's number at its place, with a line to it where it had to move."""
    x, y, width, height = slide.bounds
    middle = chosen[["x", "y"]].to_numpy(np.float64) + chosen[["footprint"]].to_numpy() / 2
    least = APART * max(width / WIDE, height / TALL)
    low, high = np.array([x, y]) + least / 2, np.array([x + width, y + height]) - least / 2
    for number, (at, label) in enumerate(
        zip(middle, _apart(middle, least, low, high), strict=True), start=1
    ):
        axis.plot(*np.array([at, label]).T, color="black", linewidth=0.8, marker=".", markersize=3)
        axis.text(
            label[0], label[1], str(number), ha="center", va="center", fontsize=7,
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "linewidth": 0.8},
        )  # fmt: skip


def _apart(points: np.ndarray, least: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the points, pushed from each other until they are `least` apart, within a box."""
    points = np.clip(points, low, high)
    for _ in range(300):
        between = points[:, None] - points
        distance = np.hypot(*between.T).T + np.diag(np.full(len(points), np.inf))
        if distance.min() >= least:
            break
        push = np.maximum(least * 1.05 - distance, 0) / 2
        way = between / np.maximum(distance, 1e-9)[..., None]
        points = np.clip(points + (way * push[..., None]).sum(axis=1), low, high)
    return points
