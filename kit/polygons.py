"""Polygons on slides: read from three viewers, turned into masks and back, written as GeoJSON."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from kit.errors import MaskError
from kit.geometry import Pair, level0_to_level, level_to_level0

log = logging.getLogger(__name__)

XML = (".xml", ".annotations")  # HALO calls its own export .annotations
JSON = (".geojson", ".json")
SUFFIXES = (*XML, *JSON)
NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")  # of GeoJSON
ROUND = np.linspace(0, 2 * np.pi, 256, endpoint=False)  # an ellipse as a polygon: .01 % too small

Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Polygon:
    """An outlined area of a slide.

    Attributes:
        name: Its group (ASAP), layer (HALO) or classification (QuPath).
        shell: float64, shape (n, 2), corners (x, y) in level-0 pixels, not closed.
        holes: Outlines of the same kind, cut out of the shell.
    """

    name: str
    shell: np.ndarray
    holes: tuple[np.ndarray, ...] = ()


def read(path: str | PathLike[str]) -> list[Polygon]:
    """Read the polygons of an annotation file, in its order.

    ASAP XML (polygons, splines as their corners, rectangles), HALO XML (polygons, rectangles,
    ellipses; a `NegativeROA` is a hole of every region of its layer that holds a corner of it)
    and QuPath GeoJSON (polygons and multipolygons). An XML's root element says whose it is.
    Points and lines are ignored, and counted in one line of the log. Coordinates stay as they are
    written: QuPath counts from the corner of a slide's bounds, the others from the slide's.

    Args:
        path: .xml, .annotations, .geojson or .json.

    Raises:
        MaskError: The file cannot be read or is of another dialect; a polygon has fewer than
            three corners, or one that is no finite number; there is no polygon.

    Source: CAMELYON16 and 17 (ASAP), pyhaloxml 3.1 (HALO), QuPath's own documentation.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MaskError("the annotation file cannot be read", received=error.strerror,
                        path=path) from error  # fmt: skip
    found = list(_geojson(data, path) if path.suffix.lower() in JSON else _xml(data, path))
    ignored = Counter(shape for shape in found if isinstance(shape, str))
    if ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in ignored.items())
        log.warning("%s: shapes without an area are ignored: %s", path.name, listed)
    polygons = [shape for shape in found if isinstance(shape, Polygon)]
    if not polygons:
        raise MaskError("the annotation file holds no polygon", path=path)
    return polygons


def rasterise(
    polygons: Iterable[Polygon],
    shape: tuple[int, int],
    *,
    downsample: Pair,
    origin_level0: Pair = (0.0, 0.0),
) -> np.ndarray:
    """Return which pixels of a mask lie in any of the polygons, bool (height, width).

    A pixel belongs if its centre does, to the exactness of floats: neighbours that share an edge
    neither share nor lose a pixel. An outline that crosses itself is hollow where it covers twice
    (even-odd). OpenCV's fillPoly is not used: it adds every pixel that an outline touches.

    Args:
        polygons: In level-0 pixels; what lies outside the mask is cut off.
        shape: (height, width) of the mask.
        downsample: (x, y) level-0 pixels per mask pixel.
        origin_level0: (x, y) of the mask's top left in level 0.
    """
    mask = np.zeros(shape, dtype=bool)
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    for polygon in polygons:
        shell, *holes = (
            level0_to_level(ring - np.asarray(origin_level0), downsample) - 0.5
            for ring in (polygon.shell, *polygon.holes)
        )
        window, inside = _fill(shell, whole)
        for hole in holes:
            (rows, columns), cut = _fill(hole, window)
            top, left = window[0].start, window[1].start
            inside[rows.start - top : rows.stop - top,
                   columns.start - left : columns.stop - left] &= ~cut  # fmt: skip
        mask[window] |= inside
    return mask


def _fill(ring: np.ndarray, window: Window) -> tuple[Window, np.ndarray]:
    """Return the part of a window that holds a ring, and its pixels inside the ring (even-odd).

    Coordinates count from the centre of pixel (0, 0). On each row, every crossing of the ring
    flips all pixels whose centre lies on or to the right of it.
    """
    x, y = ring.T
    rows = _between(y, window[0])
    columns = _between(x, window[1])
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, next_y)), rows.start, rows.stop).astype(np.int64)
    end = np.clip(np.ceil(np.maximum(y, next_y)), rows.start, rows.stop).astype(np.int64)
    crossed = end - first
    edge = np.repeat(np.arange(len(ring)), crossed)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(crossed) - crossed), crossed)
    share = (row - y[edge]) / (next_y - y)[edge]
    crossing = x[edge] + share * (next_x - x)[edge]
    column = np.clip(np.ceil(crossing), columns.start, columns.stop).astype(np.int64)
    flips = np.zeros((rows.stop - rows.start, columns.stop - columns.start + 1), np.uint8)
    np.bitwise_xor.at(flips, (row - rows.start, column - columns.start), 1)
    np.bitwise_xor.accumulate(flips, axis=1, out=flips)
    return (rows, columns), flips[:, :-1].view(bool)


def _between(values: np.ndarray, window: slice) -> slice:
    """Return the whole numbers n of a window with least <= n < most."""
    low, high = np.clip(np.ceil([values.min(), values.max()]), window.start, window.stop)
    return slice(int(low), int(high))


def outlines(
    mask: np.ndarray,
    name: str,
    *,
    downsample: Pair,
    origin_level0: Pair = (0.0, 0.0),
) -> list[Polygon]:
    """Return the outlines of a mask's objects along the edges of its pixels.

    `rasterise` makes the same mask of them. Pixels that touch at a corner belong together.

    Args:
        mask: bool, shape (height, width).
        name: Of all the polygons.
        downsample: (x, y) level-0 pixels per mask pixel.
        origin_level0: (x, y) of the mask's top left in level 0.
    """
    import cv2

    # OpenCV joins the centres of pixels. Of a mask twice as large these lie in the four quarters
    # of each pixel, and each quarter has one of the pixel's corners.
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    found, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [
        level_to_level0(_corners(points[:, 0]), downsample) + np.asarray(origin_level0)
        for points in found
    ]
    holes: dict[int, list[np.ndarray]] = {
        number: [] for number in range(len(rings)) if tree[0][number][3] < 0
    }
    for number, ring in enumerate(rings):
        if number not in holes:
            holes[int(tree[0][number][3])].append(ring)
    return [Polygon(name, rings[number], tuple(of_it)) for number, of_it in holes.items()]


def _corners(quarters: np.ndarray) -> np.ndarray:
    corners = (quarters + 1) // 2
    return np.asarray(corners[(corners != np.roll(corners, -1, axis=0)).any(axis=1)])


def to_geojson(polygons: Iterable[Polygon]) -> dict[str, Any]:
    """Return the polygons as a FeatureCollection of annotations that QuPath imports."""
    return {"type": "FeatureCollection", "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [
                [*ring.tolist(), ring[0].tolist()] for ring in (polygon.shell, *polygon.holes)
            ]},
            "properties": {"objectType": "annotation", "classification": {"name": polygon.name}},
        }
        for polygon in polygons
    ]}  # fmt: skip


def _ring(points: Sequence[Sequence[Any]], where: str, path: Path) -> np.ndarray:
    """Return the corners of an outline, float64 (n, 2), without the closing one."""
    try:
        ring = np.array([(float(x), float(y)) for x, y, *_ in points]).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise MaskError(f"{where} has a corner that is no pair of numbers", received=str(error),
                        path=path) from error  # fmt: skip
    if not np.isfinite(ring).all():
        raise MaskError(f"{where} has a corner that is not finite", path=path)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise MaskError(f"{where} has fewer than three corners", received=len(ring), path=path)
    return ring


def _xml(data: bytes, path: Path) -> Iterator[Polygon | str]:
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise MaskError("the annotation file is not valid XML", received=str(error),
                        path=path) from error  # fmt: skip
    if root.tag == "ASAP_Annotations":
        return _asap(root, path)
    if root.tag == "Annotations" and root.find("*/Regions/Region/Vertices/Vertex") is None:
        return _halo(root, path)
    raise MaskError(
        "the annotation file is of an unknown dialect",
        expected="ASAP (ASAP_Annotations) or HALO (Annotations, of regions with V)",
        received=root.tag, path=path, remedy="open it in QuPath and export GeoJSON",
    )  # fmt: skip


def _asap(root: ElementTree.Element, path: Path) -> Iterator[Polygon | str]:
    for number, node in enumerate(root.iter("Annotation")):
        kind = node.get("Type", "Polygon")
        if kind not in ("Polygon", "Spline", "Rectangle"):
            yield kind
            continue
        where = f"annotation {node.get('Name', number)}"
        points = [
            (point.get("Order"), point.get("X"), point.get("Y"))
            for point in node.iterfind("Coordinates/Coordinate")
        ]
        try:
            points.sort(key=lambda point: int(point[0] or ""))
        except ValueError as error:
            raise MaskError(f"{where} has a corner without a whole Order", received=str(error),
                            path=path) from error  # fmt: skip
        ring = _ring([point[1:] for point in points], where, path)
        yield Polygon(node.get("PartOfGroup", "None"), ring)


def _halo(root: ElementTree.Element, path: Path) -> Iterator[Polygon | str]:
    for layer in root.iterfind("Annotation"):
        name = layer.get("Name", "None")
        shells: list[np.ndarray] = []
        holes: list[np.ndarray] = []
        for number, region in enumerate(layer.iterfind("Regions/Region")):
            kind = region.get("Type", "Polygon")
            if kind not in ("Polygon", "Rectangle", "Ellipse"):
                yield kind
                continue
            points = [(v.get("X"), v.get("Y")) for v in region.iterfind("Vertices/V")]
            where = f"region {number} of layer {name}"
            ring = _halo_ring(kind, points, where, path)
            (holes if region.get("NegativeROA", "0") == "1" else shells).append(ring)
        of_shell = [[_any_inside(shell, hole) for hole in holes] for shell in shells]
        for shell, cut in zip(shells, of_shell, strict=True):
            inside = [hole for hole, is_cut in zip(holes, cut, strict=True) if is_cut]
            yield Polygon(name, shell, tuple(inside))
        used = np.any(np.array(of_shell, bool).reshape(len(shells), len(holes)), axis=0)
        yield from ["NegativeROA outside every region"] * int((~used).sum())


def _halo_ring(
    kind: str, points: list[tuple[str | None, str | None]], where: str, path: Path
) -> np.ndarray:
    """Return a region's outline: two points are the corners of the box around it."""
    if kind == "Polygon" or len(points) != 2:
        return _ring(points, where, path)
    (left, top), (right, bottom) = points
    box = _ring([(left, top), (right, top), (right, bottom), (left, bottom)], where, path)
    if kind == "Rectangle":
        return box
    circle = np.stack([np.cos(ROUND), np.sin(ROUND)], axis=1)
    return np.asarray((box[0] + box[2]) / 2 + circle * (box[2] - box[0]) / 2)


def _any_inside(ring: np.ndarray, points: np.ndarray) -> bool:
    """Return whether any of the points lies in a ring (even-odd)."""
    near = points[((points >= ring.min(axis=0)) & (points <= ring.max(axis=0))).all(axis=1)]
    following = np.roll(ring, -1, axis=0)
    for x, y in near:
        cut = (ring[:, 1] <= y) != (following[:, 1] <= y)
        (x0, y0), (x1, y1) = ring[cut].T, following[cut].T
        if (x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x).sum() % 2:
            return True
    return False


def _geojson(data: bytes, path: Path) -> Iterator[Polygon | str]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MaskError("the annotation file is not valid JSON", received=str(error),
                        path=path) from error  # fmt: skip
    if isinstance(content, dict):
        content = content["features"] if "features" in content else [content]
    if not isinstance(content, list):
        raise _no_feature("the file", content, path)
    for number, feature in enumerate(content):
        yield from _feature(feature, f"feature {number}", path)


def _feature(feature: Any, where: str, path: Path) -> Iterator[Polygon | str]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise _no_feature(where, feature, path)
    geometry = feature.get("geometry") or {"type": "none"}
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind in (*NO_AREA, "none"):
        yield str(kind)
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise MaskError(f"{where} is of an unknown geometry", expected="Polygon or MultiPolygon",
                        received=kind, path=path)  # fmt: skip
    parts = geometry.get("coordinates")
    for rings in [parts] if kind == "Polygon" else _listed(parts, where, path):
        shell, *holes = (_ring(ring, where, path) for ring in _listed(rings, where, path))
        yield Polygon(_classification(feature), shell, tuple(holes))


def _listed(value: Any, where: str, path: Path) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise MaskError(f"{where} has no outline", received=repr(value)[:60], path=path)
    return value


def _classification(feature: dict[str, Any]) -> str:
    """Return QuPath's name of a feature's class, as its versions write it."""
    found = (feature.get("properties") or {}).get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or []))
    return found if isinstance(found, str) and found else "Unclassified"


def _no_feature(where: str, received: Any, path: Path) -> MaskError:
    return MaskError(
        f"{where} is no GeoJSON of features", expected="a FeatureCollection, a Feature or a list",
        received=repr(received)[:60], path=path, remedy="export GeoJSON from QuPath",
    )  # fmt: skip
