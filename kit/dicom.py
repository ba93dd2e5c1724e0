"""DICOM series: slices in their order in space, in the values that the scanner meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit._dicom_files import Frame, read
from kit.checks import first, fraction, positive_int
from kit.errors import ImageError

SAME = 1e-3  # slices nearer than this (mm) stand at one place
GAP = 1.5  # a step longer than this many usual steps is a gap
TILT = 1e-2  # cosines of one orientation differ by less than this
FEW = 10  # a series shorter than this gives every middle slice


@dataclass(frozen=True)
class Series:
    """The slices of one DICOM series.

    Attributes:
        volume: float32, shape (slices, height, width); rescaled (slope, intercept), bright is
            high also where the file says MONOCHROME1, and black is 0 there.
        positions: float64, shape (slices,), rising: mm along the slices' normal, or instance
            numbers where the files carry no position (`warnings` says so).
        spacing: mm between slices, rows and columns; NaN where the files do not say.
        warnings: What is not as it should be: gaps, duplicates, missing positions.
        window: The lowest and the highest value that the files ask to show, by the median of
            their windows; None where they do not say.
        corners: float64, shape (slices, 3): mm, the middle of each slice's first pixel; NaN
            without positions.
        axes: float64, shape (2, 3): the directions of a row and of a column; NaN without positions.
        space: The frame of reference that corners are in; None where the files do not say.
    """

    volume: np.ndarray
    positions: np.ndarray
    spacing: tuple[float, float, float]
    warnings: tuple[str, ...]
    window: tuple[float, float] | None
    corners: np.ndarray
    axes: np.ndarray
    space: str | None


def read_series(source: str | Path | Sequence[str | Path]) -> Series:
    """Read one series, sorted along the normal of its slices.

    Of slices at one place the first is kept, and `warnings` names the others. Without positions
    the order is that of the instance numbers, and without these that of the file names.

    Args:
        source: A folder (its `.dcm` files, or all its files if none has that suffix), or files.
            An enhanced multi-frame file counts as all its frames.

    Returns:
        The series, with its warnings.

    Raises:
        ImageError: There is no file; a file is no DICOM, is cut off, is not one grey channel or
            needs a package that is not installed; slices differ in size, spacing, orientation or
            patient.
    """
    frames, positions, warnings = _ordered(source)
    placed = all(frame.placed for frame in frames)
    step = float(np.median(np.diff(positions))) if placed and len(frames) > 1 else float("nan")
    lost = np.full((len(frames) + 2, 3), np.nan)
    places = np.array([frame.position for frame in frames], float) if placed else lost[2:]
    axes = frames[0].axes if placed and frames[0].axes is not None else lost[:2]
    volume, window = _volume(frames)
    return Series(
        volume, positions, (step, *frames[0].pixel_spacing), warnings, window, places, axes,
        frames[0].space,
    )  # fmt: skip


def look(source: str | Path | Sequence[str | Path]) -> tuple[int, tuple[str, ...]]:
    """Return how many slices `read_series` would give, and its warnings, from headers alone.

    Raises:
        ImageError: As `read_series`, but for what only the pixels tell.
    """
    frames, _, warnings = _ordered(source, pixels=False)
    return len(frames), warnings


def _ordered(
    source: str | Path | Sequence[str | Path], *, pixels: bool = True
) -> tuple[list[Frame], np.ndarray, tuple[str, ...]]:
    frames = [frame for path in _files(source) for frame in read(path, pixels=pixels)]
    _same_slices(frames)
    warnings: list[str] = []
    others = [frame.path.name for frame in frames if frame.series != frames[0].series]
    if others:
        warnings.append(f"another series than that of {frames[0].path.name}: {first(others)}")
    frames, positions = _sorted(frames, warnings)
    frames, positions = _unique(frames, positions, warnings)
    _look_for_gaps(frames, positions, warnings)
    return frames, positions, tuple(warnings)


def middle_slices(n: int, low: float = 0.25, high: float = 0.75, step: int = 3) -> np.ndarray:
    """Return the indices of slices from the middle of a series, where the brain is largest.

    Args:
        n: Slices of the series, >= 1.
        low: First slice, as a fraction of the series, in [0, 1].
        high: End (not taken), as a fraction of the series, in [low, 1].
        step: Every which slice; series below 10 slices give every one.

    Returns:
        int64, shape (k,), rising; the middle slice alone if the range holds none.
    """
    positive_int("n", n)
    start, stop = int(n * fraction("low", low)), int(n * fraction("high", high))
    indices = np.arange(start, stop, 1 if n < FEW else positive_int("step", step), dtype=np.int64)
    return indices if len(indices) else np.array([n // 2], dtype=np.int64)


def to_uint8(pixels: np.ndarray, maximum: float | None = None) -> np.ndarray:
    """Scale values so that `maximum` becomes 255; negative values become 0.

    Args:
        pixels: A slice (height, width) or a volume (slices, height, width).
        maximum: The value that becomes 255: give the volume's for a slice of it. The default is
            the maximum of `pixels`.

    Returns:
        uint8, the shape of `pixels`; all 0 where no value is above 0.
    """
    top = float(pixels.max()) if maximum is None else maximum
    if top <= 0:
        return np.zeros(pixels.shape, np.uint8)
    scaled = np.rint(pixels.astype(np.float32) * (255 / top))
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def _files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(source, str | Path):
        files = [Path(path) for path in source]
        if not files:
            raise ImageError("no DICOM file", received="an empty list of files")
        return files
    path = Path(source)
    if path.is_file():
        return [path]
    present = sorted(p for p in path.glob("*") if p.is_file() and not p.name.startswith("."))
    files = [p for p in present if p.suffix.lower() == ".dcm"] or present
    if not files:
        what = "the folder holds no DICOM file" if path.is_dir() else "no such DICOM folder"
        raise ImageError(what, path=path, remedy="bring the series, or leave its study out")
    return files


def _same_slices(frames: Sequence[Frame]) -> None:
    model = frames[0]
    for frame in frames[1:]:
        if frame.shape != model.shape:
            raise ImageError(
                "slices of one series differ in size",
                expected=f"{model.shape} as in {model.path.name}",
                received=str(frame.shape), path=frame.path,
            )  # fmt: skip
        if frame.patient and model.patient and frame.patient != model.patient:
            raise ImageError(
                "slices of one series are of different patients", path=frame.path,
                expected=f"the patient of {model.path.name}", received="another PatientID",
                remedy="take out what does not belong there: patients must not mix",
            )  # fmt: skip
        if not np.allclose(frame.pixel_spacing, model.pixel_spacing, rtol=SAME, equal_nan=True):
            raise ImageError(
                "slices of one series differ in pixel spacing", path=frame.path,
                expected=f"{model.pixel_spacing} mm as in {model.path.name}",
                received=str(frame.pixel_spacing), remedy="give each series a folder of its own",
            )  # fmt: skip
        if model.axes is None or frame.axes is None:
            continue
        if not np.allclose(frame.axes, model.axes, atol=TILT):
            raise ImageError(
                "slices of one series differ in orientation",
                expected=f"that of {model.path.name}", received="another plane", path=frame.path,
                remedy="give each series a folder of its own",
            )  # fmt: skip


def _sorted(frames: list[Frame], warnings: list[str]) -> tuple[list[Frame], np.ndarray]:
    """Return the frames in order and where each stands."""
    if all(frame.placed for frame in frames):
        normal = np.cross(*frames[0].axes)  # type: ignore[misc]
        places = np.array([frame.position for frame in frames], dtype=np.float64) @ normal
    elif all(frame.number is not None for frame in frames):
        warnings.append("no position in every file: sorted by instance number")
        places = np.array([frame.number for frame in frames], dtype=np.float64)
    else:
        warnings.append("no position and no instance number in every file: sorted by file name")
        places = np.arange(len(frames), dtype=np.float64)
    order = np.argsort(places, kind="stable")
    return [frames[i] for i in order], places[order]


def _unique(
    frames: list[Frame], positions: np.ndarray, warnings: list[str]
) -> tuple[list[Frame], np.ndarray]:
    keep = np.diff(positions, prepend=-np.inf) > SAME
    doubled = [frame.path.name for frame, kept in zip(frames, keep, strict=True) if not kept]
    if doubled:
        warnings.append(f"duplicates left out, another slice has their place: {first(doubled)}")
    return [frame for frame, kept in zip(frames, keep, strict=True) if kept], positions[keep]


def _look_for_gaps(frames: list[Frame], positions: np.ndarray, warnings: list[str]) -> None:
    steps = np.diff(positions)
    if len(steps) == 0:
        return
    usual = float(np.median(steps))
    for i in np.flatnonzero(steps > GAP * usual):
        warnings.append(
            f"gap of {steps[i]:.4g} between {frames[i].path.name} and {frames[i + 1].path.name}, "
            f"where the usual step is {usual:.4g}"
        )
    numbers = {frame.number for frame in frames if frame.number is not None}
    missing = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    if missing and len(numbers) == len(frames):
        warnings.append(
            f"{missing} instance numbers are missing between {min(numbers)} and {max(numbers)}"
        )


def _volume(frames: Sequence[Frame]) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Stack the frames, and return their window; MONOCHROME1 is mirrored, its blackest becomes 0.

    One slice after another is rescaled, so that a series stands in memory once as floats.
    """
    volume = np.empty((len(frames), *frames[0].shape), np.float32)
    for place, frame in zip(volume, frames, strict=True):
        place[:] = frame.values
    given = [frame.window for frame in frames if frame.window is not None]
    low, high = np.median(given, axis=0) if given else (0.0, 0.0)
    inverted = np.array([frame.inverted for frame in frames])
    if inverted.any():
        top = volume[inverted].max()
        volume[inverted] = top - volume[inverted]
        low, high = (top - high, top - low) if inverted.all() else (low, high)
    return volume, (float(low), float(high)) if given else None
