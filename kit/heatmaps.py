"""What a network saw on a slide: a map of probabilities, as TIFF and as outlines for QuPath."""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import checks, files
from kit._heatmap import Heatmap as Heatmap
from kit._heatmap import of_places as of_places
from kit._heatmap import raster as raster
from kit._heatmap_files import ENCODING as ENCODING
from kit._heatmap_files import pyramid as pyramid
from kit._heatmap_files import read_map as read_map
from kit._heatmap_files import read_tiff as read_tiff
from kit._heatmap_files import write_map as write_map
from kit._heatmap_files import write_tiff as write_tiff
from kit.errors import SettingsError, TableError
from kit.polygons import outlines, to_geojson

if TYPE_CHECKING:
    from kit.slides import Slide

RESERVED = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?"  # names that Windows keeps for itself


def contours(
    heatmap: Heatmap,
    threshold: float,
    *,
    mpp: float | None = None,
    origin_level0: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """Return the regions of at least `threshold` as GeoJSON that QuPath imports over the slide.

    QuPath counts from the corner of a slide's bounds: `origin_level0=slide.bounds[:2]` makes the
    polygons count from there too. `kit.annotations.read_mask` reads them in either frame.

    A region is what hangs together, over edges or corners of its cells; its outline runs along
    their edges. Its `measurements` (QuPath 0.4 and later show them) are `area_mm2`, the number of
    its cells times the area of one, holes left out, which there is only where the resolution is
    known; and `mean_probability` over its cells.

    Args:
        heatmap: Where to look.
        threshold: In [0, 1].
        mpp: Resolution of the slide's level 0, µm per pixel; None: as the heatmap knows it.
        origin_level0: (x, y) of the place in level 0 from which coordinates count.

    Returns:
        A FeatureCollection; without features if there is no such region.

    Raises:
        SettingsError: `threshold` lies outside [0, 1], or `mpp` is not above 0.
    """
    import cv2

    side = heatmap.mpp if mpp is None else heatmap.downsample * checks.above_zero("mpp", mpp)
    mask = heatmap.values >= checks.fraction("threshold", threshold)
    down, origin = heatmap.downsample, np.asarray(origin_level0, np.float64)
    found = outlines(
        mask, heatmap.name, downsample=(down, down), origin_level0=(-origin[0], -origin[1])
    )
    labels: np.ndarray = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    cells = np.bincount(labels[mask])
    total = np.bincount(labels[mask], weights=heatmap.values[mask])
    collection = to_geojson(found)
    for polygon, feature in zip(found, collection["features"], strict=True):
        column, row = np.rint((_first_corner(polygon.shell) + origin) / down).astype(np.intp)
        label = labels[row, column]
        area = {} if side is None else {"area_mm2": float(cells[label] * side**2 / 1e6)}
        mean = float(total[label] / cells[label])
        feature["properties"]["measurements"] = {**area, "mean_probability": mean}
    return collection


def write(
    seen: pd.DataFrame | Heatmap,
    slide: Slide,
    folder: str | PathLike[str],
    *,
    threshold: float,
    column: str | None = None,
    step: float | None = None,
) -> tuple[Path, Path]:
    """Write `<case_id>.tif` and `<case_id>.geojson` of one slide; see `raster` and `contours`.

    A case id with characters that not every file system takes has a name of its own, in which
    these are "_" and a fingerprint of the id follows. A slide without a resolution has files
    without one.

    Args:
        seen: Predictions of one case's patches, or its map, such as networks of pixels leave
            beside their table (`kit.streams.predict_slide`).
        slide: Its slide, open; polygons count from its bounds.
        folder: Made if it is not there.
        threshold: Least probability of an outlined region.
        column: Of patches the column of probabilities, e.g. "prob_tumour", or "attention".
        step: Of patches the level-0 pixels per cell; None as in `raster`.

    Returns:
        The paths of the TIFF and of the GeoJSON.

    Raises:
        TableError: The map is of a slide of another size; for patches see `raster`.
        SettingsError: Patches are given without a column, or a map with a step.
        KitError: The disk is full, or the folder cannot be written.
    """
    heatmap = of_slide(seen, slide, column, step)
    x, y, _, _ = slide.bounds
    found = json.dumps(contours(heatmap, threshold, origin_level0=(x, y)), allow_nan=False)
    tiff, geojson = paths(heatmap.case_id, folder)
    files.write_text(geojson, found)
    write_tiff(heatmap, tiff)
    return tiff, geojson


def of_slide(
    seen: pd.DataFrame | Heatmap, slide: Slide, column: str | None = None,
    step: float | None = None,
) -> Heatmap:  # fmt: skip
    """Return the map of one slide, to the last digit; arguments and errors as of `write`."""
    if isinstance(seen, pd.DataFrame):
        if column is None:
            raise SettingsError("patches are drawn by a column", expected="e.g. prob_tumour",
                                received="column=None")  # fmt: skip
        return raster(seen, slide.size, column=column, step=step, mpp=slide.known_mpp)
    if step is not None:
        raise SettingsError("a map has its own cells", received=f"step={step}")
    if seen.size_level0 != slide.size:
        raise TableError(
            "the map is of another slide", expected="{} x {} level-0 pixels".format(*slide.size),
            received="{} x {}".format(*seen.size_level0), path=slide.path,
        )  # fmt: skip
    return seen


def paths(case_id: str, folder: str | PathLike[str]) -> tuple[Path, Path]:
    """Return where `write` puts a case's TIFF and GeoJSON."""
    name = file_name(case_id)
    return Path(folder) / f"{name}.tif", Path(folder) / f"{name}.geojson"


def file_name(case_id: str) -> str:
    """Return a case's id as a file's name without suffix: safe anywhere, and of this case alone."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", case_id)[:100]
    plain = safe == case_id and re.fullmatch(r"[A-Za-z0-9_](.*[A-Za-z0-9_-])?", safe)
    return (
        safe
        if plain and not re.fullmatch(RESERVED, safe)
        else f"{safe.lstrip('.')}-{files.fingerprint(case_id)}"
    )


def _first_corner(ring: np.ndarray) -> np.ndarray:
    """Return the leftmost of a ring's highest corners: the cell below it is inside."""
    return np.asarray(ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]])
