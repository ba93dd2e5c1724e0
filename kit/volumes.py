"""Slices of DICOM series as images: scaled, with their neighbours, or one place in all series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from kit.checks import choice
from kit.dicom import Series, look, read_series, to_uint8
from kit.errors import ImageError
from kit.files import holds_files

SCALINGS = ("maximum", "window", "percentile")
WHITE = 99.5  # the percentile of a series' values that becomes white
CHANNELS = ("slice", "neighbours", "series")
BESIDE = (-1, 0, 1)


def limits(series: Series, scaling: str) -> tuple[float, float]:
    """Return the values of a series that become black and white.

    Args:
        series: The series.
        scaling: maximum, from 0 to the largest value; window, as the files ask to show them;
            percentile, from 0 to the 99.5th percentile, so that a few bright voxels (vessels,
            artefacts) do not darken the rest.

    Raises:
        ImageError: No value is above 0, or the files name no window.
        SettingsError: The scaling is unknown.
    """
    choice("scaling", scaling, SCALINGS)
    if scaling == "window":
        if series.window is None:
            raise ImageError("the series names no window", expected="WindowCenter, WindowWidth",
                             remedy="--set scaling=percentile")  # fmt: skip
        return series.window
    high = float(series.volume.max())
    if high <= 0:
        raise ImageError("the series is black: no value is above 0", received=f"maximum {high:g}")
    if scaling == "maximum":
        return 0.0, high
    return 0.0, float(np.percentile(series.volume, WHITE)) or high


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Return values as uint8: `black` becomes 0, `white` 255, what lies outside is clipped."""
    return to_uint8(values - np.float32(black), maximum=white - black)


def onto(moving: Series, fixed: Series, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return what a series shows where slices of another one lie.

    Read by linear interpolation between the voxels nearest to each place in space; 0 where the
    series does not reach. Where `same_space` is false the slice of the same relative place is
    taken instead, and resized.

    Args:
        moving: The series that is read.
        fixed: The series whose slices say where.
        rows: Which of them.

    Returns:
        float32, shape (len(rows), height, width of a slice of `fixed`).
    """
    height, width = fixed.volume.shape[1:]
    if not same_space(moving, fixed):
        share = np.asarray(rows) / max(1, len(fixed.positions) - 1)
        taken = np.rint(share * (len(moving.volume) - 1)).astype(int)
        return np.stack([
            cv2.resize(moving.volume[i], (width, height), interpolation=cv2.INTER_AREA)
            for i in taken
        ])  # fmt: skip
    from scipy.ndimage import map_coordinates

    return np.stack([
        map_coordinates(
            moving.volume, _places(moving, fixed, int(row)), order=1, mode="grid-constant"
        )
        for row in rows
    ]).astype(np.float32, copy=False)  # fmt: skip


def same_space(a: Series, b: Series) -> bool:
    """Tell whether places in one series are places in the other."""
    if any(not np.isfinite([*one.corners.flat, *one.spacing[1:]]).all() for one in (a, b)):
        return False
    return a.space is None or b.space is None or a.space == b.space


def _places(moving: Series, fixed: Series, row: int) -> np.ndarray:
    """Return where the pixels of a slice lie among the voxels of `moving`, (3, height, width)."""
    height, width = fixed.volume.shape[1:]
    down, right = np.mgrid[:height, :width]
    place = (
        fixed.corners[row]
        + (right * fixed.spacing[2])[..., None] * fixed.axes[0]
        + (down * fixed.spacing[1])[..., None] * fixed.axes[1]
    )
    normal = np.cross(*moving.axes)
    away = place - moving.corners[0]
    step = moving.spacing[0] if len(moving.positions) > 1 else 1.0
    ends = moving.positions[0] - step, moving.positions[-1] + step
    known = np.array([ends[0], *moving.positions, ends[1]])
    depth = np.interp(place @ normal, known, np.arange(len(known)) - 1.0)
    across = (away @ moving.axes[0]) / moving.spacing[2]
    along = (away @ moving.axes[1]) / moving.spacing[1]
    return np.stack([depth, along, across])


def study_slices(
    folder: Path, rows: Sequence[int] | np.ndarray, *, channels: str = "slice",
    scaling: str = "maximum", names: Sequence[str] = (),
) -> np.ndarray:  # fmt: skip
    """Return slices of a study as images.

    Args:
        folder: Of the series whose slices are counted, beside those of the study's others.
        rows: Which slices.
        channels: slice, that slice alone; neighbours, with the one below and the one above it
            (at an end, itself); series, the same place in each of `names`, black where the study
            lacks one.
        scaling: See `limits`; each series for itself.
        names: Folders of the series, in the order of the channels.

    Returns:
        uint8, shape (len(rows), height, width, 1, 3 or len(names)).

    Raises:
        ImageError: A series cannot be read, is black or names no window.
    """
    choice("channels", channels, CHANNELS)
    main = read_series(folder)
    ends = _limits(main, scaling, folder)
    if channels == "slice":
        return scaled(main.volume[rows], *ends)[..., None]
    if channels == "neighbours":
        beside = np.clip(np.asarray(rows)[:, None] + BESIDE, 0, len(main.volume) - 1)
        return np.moveaxis(scaled(main.volume[beside], *ends), 1, -1)
    own = scaled(main.volume[rows], *ends)
    main = replace(main, volume=main.volume[:1].copy())  # one series at a time in memory
    found = []
    for name in names:
        place = folder.parent / name
        if name == folder.name:
            found.append(own)
        elif not holds_files(place):
            found.append(np.zeros_like(own))
        else:
            other = read_series(place)
            found.append(scaled(onto(other, main, rows), *_limits(other, scaling, place)))
    return np.stack(found, axis=-1)


def _limits(series: Series, scaling: str, folder: Path) -> tuple[float, float]:
    try:
        return limits(series, scaling)
    except ImageError as error:
        raise ImageError(f"{error}", path=folder) from error


def notes(folder: Path, channels: str = "slice", names: Sequence[str] = ()) -> tuple[int, str]:
    """Return how many slices a series has, and what is not as it should be, in words.

    From headers alone; with `channels` = series of all the study's series, by name.

    Raises:
        ImageError: A series has no file, or a header cannot be read.
    """
    n, warnings = look(folder)
    said = [f"{folder.name}: {text}" for text in warnings]
    if channels == "series":
        for name in names:
            place = folder.parent / name
            if not holds_files(place):
                said.append(f"{name}: not there, its channel is black")
            elif name != folder.name:
                said += [f"{name}: {text}" for text in look(place)[1]]
    return n, "; ".join(said)
