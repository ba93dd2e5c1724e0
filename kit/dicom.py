"""DICOM series: slices in their order in space, in the values that the scanner meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    """

    volume: np.ndarray
    positions: np.ndarray
    spacing: tuple[float, float, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Frame:
    path: Path
    pixels: np.ndarray
    inverted: bool
    number: int | None
    position: np.ndarray | None
    axes: np.ndarray | None
    pixel_spacing: tuple[float, float]


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
            needs a package that is not installed; slices differ in size or orientation.
    """
    files = _files(source)
    frames = [frame for path in files for frame in _read(path)]
    _same_slices(frames)
    warnings: list[str] = []
    frames, positions = _sorted(frames, warnings)
    frames, positions = _unique(frames, positions, warnings)
    _look_for_gaps(frames, positions, warnings)
    in_space = frames[0].position is not None and len(frames) > 1
    step = float(np.median(np.diff(positions))) if in_space else float("nan")
    return Series(
        volume=_volume(frames),
        positions=positions,
        spacing=(step, *frames[0].pixel_spacing),
        warnings=tuple(warnings),
    )


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
    return np.clip(scaled, 0, 255).astype(np.uint8)


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
        raise ImageError(what, path=path)
    return files


def _read(path: Path) -> list[_Frame]:
    """Return the frames of one file: one, or all of an enhanced multi-frame file."""
    import pydicom

    try:
        data = pydicom.dcmread(path)
    except Exception as error:  # a cut header raises whatever its bytes happen to say
        raise ImageError("not a readable DICOM file", received=str(error), path=path) from error
    if data.get("SamplesPerPixel", 1) != 1:
        raise ImageError(
            "not a grey DICOM image", expected="one sample per pixel",
            received=data.get("PhotometricInterpretation"), path=path,
        )  # fmt: skip
    pixels = _pixels(data, path)
    stack = pixels[None] if pixels.ndim == 2 else pixels
    return [_frame(data, index, values, path) for index, values in enumerate(stack)]


def _pixels(data: Any, path: Path) -> np.ndarray:
    try:
        return np.asarray(data.pixel_array)
    except Exception as error:  # each decoder has errors of its own
        package = _missing_package(data)
        if package:
            raise ImageError(
                "this compression needs a package that is not installed",
                received=data.file_meta.TransferSyntaxUID.name, path=path,
                remedy=f"pip install {package}",
            ) from error  # fmt: skip
        raise ImageError(
            "the pixels cannot be decoded", received=str(error), path=path,
            remedy="copy or download it again",
        ) from error  # fmt: skip


def _missing_package(data: Any) -> str | None:
    from pydicom.pixels.decoders.base import get_decoder

    uid = data.file_meta.get("TransferSyntaxUID")
    try:
        if uid is None or not uid.is_compressed or get_decoder(uid).is_available:
            return None
    except NotImplementedError:  # a syntax that pydicom does not know
        return None
    if "JPEG-LS" in uid.name:
        return "pyjpegls"
    return "pylibjpeg pylibjpeg-openjpeg" if "2000" in uid.name else "pylibjpeg pylibjpeg-libjpeg"


def _frame(data: Any, index: int, pixels: np.ndarray, path: Path) -> _Frame:
    position = _value(data, index, "PlanePositionSequence", "ImagePositionPatient")
    axes = _value(data, index, "PlaneOrientationSequence", "ImageOrientationPatient")
    slope = _value(data, index, "PixelValueTransformationSequence", "RescaleSlope")
    shift = _value(data, index, "PixelValueTransformationSequence", "RescaleIntercept")
    rows, columns = _value(data, index, "PixelMeasuresSequence", "PixelSpacing") or (np.nan,) * 2
    number = data.get("InstanceNumber")
    values = pixels.astype(np.float32)
    values *= 1.0 if slope is None else float(slope)
    values += 0.0 if shift is None else float(shift)
    return _Frame(
        path=path,
        pixels=values,
        inverted=data.get("PhotometricInterpretation") == "MONOCHROME1",
        number=None if number is None else int(number) + index,
        position=None if not position else np.array(position, dtype=np.float64),
        axes=None if not axes else np.array(axes, dtype=np.float64).reshape(2, 3),
        pixel_spacing=(float(rows), float(columns)),
    )


def _value(data: Any, index: int, group: str, name: str) -> Any:
    """Return an element of a frame: its own, else the one shared by all, else the file's."""
    frames = data.get("PerFrameFunctionalGroupsSequence") or []
    places = [*frames[index : index + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]
    for place in places:
        for item in place.get(group) or []:
            if item.get(name) is not None:
                return item.get(name)
    return data.get(name)


def _same_slices(frames: Sequence[_Frame]) -> None:
    model = frames[0]
    for frame in frames[1:]:
        if frame.pixels.shape != model.pixels.shape:
            raise ImageError(
                "slices of one series differ in size",
                expected=f"{model.pixels.shape} as in {model.path.name}",
                received=str(frame.pixels.shape), path=frame.path,
            )  # fmt: skip
        if model.axes is None or frame.axes is None:
            continue
        if not np.allclose(frame.axes, model.axes, atol=TILT):
            raise ImageError(
                "slices of one series differ in orientation",
                expected=f"that of {model.path.name}", received="another plane", path=frame.path,
                remedy="give each series a folder of its own",
            )  # fmt: skip


def _sorted(frames: list[_Frame], warnings: list[str]) -> tuple[list[_Frame], np.ndarray]:
    """Return the frames in order and where each stands."""
    if all(frame.position is not None and frame.axes is not None for frame in frames):
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
    frames: list[_Frame], positions: np.ndarray, warnings: list[str]
) -> tuple[list[_Frame], np.ndarray]:
    keep = np.diff(positions, prepend=-np.inf) > SAME
    doubled = [frame.path.name for frame, kept in zip(frames, keep, strict=True) if not kept]
    if doubled:
        warnings.append(f"duplicates left out, another slice has their place: {first(doubled)}")
    return [frame for frame, kept in zip(frames, keep, strict=True) if kept], positions[keep]


def _look_for_gaps(frames: list[_Frame], positions: np.ndarray, warnings: list[str]) -> None:
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


def _volume(frames: Sequence[_Frame]) -> np.ndarray:
    """Stack the frames; slices of MONOCHROME1 are mirrored, their blackest value becomes 0."""
    volume = np.stack([frame.pixels for frame in frames])
    inverted = np.array([frame.inverted for frame in frames])
    if inverted.any():
        volume[inverted] = volume[inverted].max() - volume[inverted]
    return volume
