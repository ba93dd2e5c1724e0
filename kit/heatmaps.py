"""What a network saw on a slide: a map of probabilities, as TIFF and as outlines for QuPath."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import _cells, checks, files, geometry
from kit.errors import ImageError, SettingsError, TableError
from kit.polygons import outlines, to_geojson

if TYPE_CHECKING:
    from kit.slides import Slide

PLACE = ["x", "y", "footprint"]
MOST_CELLS = 1 << 28  # 2 GiB of float64
TILE = 256
RESERVED = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?"  # names that Windows keeps for itself
GREYS = 254
ENCODING = "0: not looked at; 1 to 255: probability (value - 1) / 254"


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Probabilities over a whole slide, from its corner (0, 0) whatever its bounds are.

    Attributes:
        values: float64 in [0, 1], shape (height, width) = ceil(size_level0 / downsample); nan
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
        _positive("downsample", self.downsample)
        if self.mpp is not None:
            _positive("mpp", self.mpp)
        expected = _shape(self.size_level0, self.downsample)
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
    step = _positive("step", step)
    shape = _shape(size_level0, step)
    if shape[0] * shape[1] > MOST_CELLS:
        raise SettingsError(f"the heatmap has more than {MOST_CELLS:,} cells",
                            received=f"{shape[1]:,} x {shape[0]:,} of step={step:g}")  # fmt: skip
    values = _cells.means(
        places[PLACE].to_numpy(np.float64), places[column].to_numpy(np.float64), step, shape
    )
    return Heatmap(
        values, step, size_level0, None if mpp is None else step * _positive("mpp", mpp),
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


def write_tiff(heatmap: Heatmap, path: str | PathLike[str]) -> None:
    """Write a pyramid of grey tiles that OpenSlide, QuPath and tifffile open.

    0 is what was not looked at, 1 to 255 the probability (value - 1) / 254. Level 0 has a pixel
    for each cell; each further level halves, and averages over the cells looked at. The resolution
    is a cell's; ImageDescription is JSON of the heatmap's other attributes.

    Args:
        heatmap: What to write.
        path: The file, .tif; written as a whole or not at all.

    Raises:
        KitError: The disk is full, or the folder cannot be written.
    """
    import tifffile

    told = files.jsonable({
        "case_id": heatmap.case_id, "class": heatmap.name, "downsample": heatmap.downsample,
        "size_level0": heatmap.size_level0, "mpp": heatmap.mpp, "encoding": ENCODING,
    })  # fmt: skip
    scale: dict[str, Any] = {}
    with files.atomic(Path(path)) as part, tifffile.TiffWriter(part) as writer:
        for level, values in enumerate(pyramid(heatmap.values)):
            if heatmap.mpp is not None:
                per_cm = 1e4 / (heatmap.mpp * 2**level)
                scale = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            grey = np.nan_to_num(np.rint(values * GREYS) + 1).astype(np.uint8)  # nan is 0
            writer.write(
                grey, tile=(TILE, TILE), photometric="minisblack",
                compression="adobe_deflate", metadata=None, software="kit",
                subfiletype=1 if level else 0, description=None if level else json.dumps(told),
                **scale,
            )  # fmt: skip


def read_tiff(path: str | PathLike[str]) -> Heatmap:
    """Read a heatmap that `write_tiff` wrote; its values are exact to 1/508.

    Raises:
        ImageError: The file cannot be read, or is no such heatmap.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            grey = file.asarray(key=0)
            told = json.loads(file.pages.first.description)
        width, height = told["size_level0"]
        return Heatmap(
            np.where(grey == 0, np.nan, (grey - 1.0) / GREYS), told["downsample"],
            (width, height), told["mpp"], told["case_id"], told["class"],
        )  # fmt: skip
    except Exception as error:  # tifffile raises whatever a broken structure leads to
        raise ImageError(
            "the file is no heatmap", expected="a TIFF that kit.heatmaps.write_tiff wrote",
            received=str(error) or type(error).__name__, path=path,
        ) from error  # fmt: skip


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

    side = heatmap.mpp if mpp is None else heatmap.downsample * _positive("mpp", mpp)
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
    patches: pd.DataFrame,
    slide: Slide,
    folder: str | PathLike[str],
    *,
    column: str,
    threshold: float,
    step: float | None = None,
) -> tuple[Path, Path]:
    """Write `<case_id>.tif` and `<case_id>.geojson` of one slide; see `raster` and `contours`.

    A case id with characters that not every file system takes has a name of its own, in which
    these are "_" and a fingerprint of the id follows. A slide without a resolution has files
    without one.

    Args:
        patches: Predictions of one case.
        slide: Its slide, open; polygons count from its bounds.
        folder: Made if it is not there.
        column: Column of probabilities, e.g. "prob_tumour".
        threshold: Least probability of an outlined region.
        step: Level-0 pixels per cell; None as in `raster`.

    Returns:
        The paths of the TIFF and of the GeoJSON.

    Raises:
        KitError: The disk is full, or the folder cannot be written.
    """
    heatmap = raster(patches, slide.size, column=column, step=step, mpp=slide.known_mpp)
    x, y, _, _ = slide.bounds
    found = json.dumps(contours(heatmap, threshold, origin_level0=(x, y)), allow_nan=False)
    tiff, geojson = paths(heatmap.case_id, folder)
    files.write_text(geojson, found)
    write_tiff(heatmap, tiff)
    return tiff, geojson


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


def _positive(name: str, value: float) -> float:
    if not 0 < value < np.inf:
        raise SettingsError(f"{name} must be above 0", received=f"{name}={value}")
    return float(value)


def _shape(size_level0: tuple[int, int], downsample: float) -> tuple[int, int]:
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


def pyramid(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the values, and halves of them until one fits a tile: means of what is not nan."""
    yield values
    count = (~np.isnan(values)).astype(np.float64)
    total = np.nan_to_num(values)
    while max(total.shape) > TILE:
        total, count = _halved(total), _halved(count)
        yield np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _halved(sums: np.ndarray) -> np.ndarray:
    height, width = sums.shape
    even = np.pad(sums, ((0, height % 2), (0, width % 2)))
    return np.asarray(even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])


def _first_corner(ring: np.ndarray) -> np.ndarray:
    """Return the leftmost of a ring's highest corners: the cell below it is inside."""
    return np.asarray(ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]])
