"""Heatmaps on disk: TIFF for viewers, float32 for ourselves; `kit.heatmaps` has it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from kit import files
from kit._heatmap import Heatmap
from kit.errors import ImageError

TILE = 256
GREYS = 254
ENCODING = "0: not looked at; 1 to 255: probability (value - 1) / 254"


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


def write_map(heatmap: Heatmap, path: Path, key: str = "") -> None:
    """Write a map for `read_map`, compressed NumPy arrays, its values as float32.

    Args:
        heatmap: What to write.
        path: The file, .npz; written as a whole or not at all.
        key: Fingerprint of what made it.

    Raises:
        KitError: The disk is full, or the folder cannot be written.
    """
    told = files.jsonable({**vars(heatmap), "values": None, "key": key})
    with files.atomic(Path(path)) as part:
        np.savez_compressed(part, values=heatmap.values.astype(np.float32), told=json.dumps(told))


def read_map(path: str | PathLike[str], key: str | None = None) -> Heatmap:
    """Read a map that `write_map` wrote, its values float32.

    Args:
        path: The file.
        key: What it must have been written with; None: anything.

    Raises:
        ImageError: The file cannot be read, is no such map, or has another key.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            told = {**json.loads(str(file["told"])), "values": file["values"]}
        made_by = told.pop("key")
        width, height = told["size_level0"]
        found = Heatmap(**{**told, "size_level0": (width, height)})
    except Exception as error:  # a broken archive raises what its parts raise
        raise ImageError(
            "the file is no map", expected="what kit.heatmaps.write_map wrote", path=path,
            received=str(error) or type(error).__name__,
            remedy="delete it and the table beside it, and predict the slide again",
        ) from error  # fmt: skip
    if key is not None and made_by != key:
        raise ImageError("the map is of other predictions", expected=key, received=made_by,
                         path=path, remedy="predict the slide again")  # fmt: skip
    return found


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
