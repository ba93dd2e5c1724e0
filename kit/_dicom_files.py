"""One DICOM file to its frames: pixels as stored, and what the file says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ImageError


@dataclass(frozen=True)
class Frame:
    """A slice as stored; `pixels` is None where only headers were read.

    `window` is the lowest and the highest value shown, in rescaled values; `space` names the frame
    of reference that `position` is in; `patient` and `series` are the file's own ids, or "".
    """

    path: Path
    shape: tuple[int, ...]
    pixels: np.ndarray | None
    slope: float
    intercept: float
    inverted: bool
    number: int | None
    position: np.ndarray | None
    axes: np.ndarray | None
    pixel_spacing: tuple[float, float]
    window: tuple[float, float] | None
    space: str | None
    patient: str
    series: str

    @property
    def placed(self) -> bool:
        """Whether the file says where in space the slice is."""
        return self.position is not None and self.axes is not None

    @property
    def values(self) -> np.ndarray:
        """The rescaled values, float32."""
        if self.pixels is None:
            raise ImageError("only the header was read", path=self.path)
        found = self.pixels.astype(np.float32)
        found *= self.slope
        found += self.intercept
        return found


def read(path: Path, *, pixels: bool = True) -> list[Frame]:
    """Return the frames of one file: one, or all of an enhanced multi-frame file.

    Args:
        path: The file.
        pixels: Read them too; else headers alone, four times as fast.

    Raises:
        ImageError: The file is no DICOM, is cut off, is not one grey channel, rescales by nonsense
            or needs a package that is not installed.
    """
    import pydicom

    try:
        return _frames(pydicom.dcmread(path, stop_before_pixels=not pixels), path, pixels=pixels)
    except ImageError:
        raise
    except Exception as error:  # a cut header raises whatever its bytes happen to say, and when
        raise ImageError(
            "not a readable DICOM file", received=str(error).split("  ")[0].split(". Use")[0],
            path=path, remedy="copy or download it again",
        ) from error  # fmt: skip


def _frames(data: Any, path: Path, *, pixels: bool) -> list[Frame]:
    if data.get("SamplesPerPixel", 1) != 1:
        raise ImageError(
            "not a grey DICOM image", expected="one sample per pixel",
            received=data.get("PhotometricInterpretation"), path=path,
        )  # fmt: skip
    if not pixels:
        shape = (data.get("Rows", 0), data.get("Columns", 0))
        return [_frame(data, i, None, shape, path) for i in range(data.get("NumberOfFrames") or 1)]
    found = _pixels(data, path)
    stack = found[None] if found.ndim == 2 else found
    return [_frame(data, i, one, one.shape, path) for i, one in enumerate(stack)]


def _pixels(data: Any, path: Path) -> np.ndarray:
    try:
        found = np.asarray(data.pixel_array)
        if "ModalityLUTSequence" in data:
            from pydicom.pixels.processing import apply_modality_lut

            found = np.asarray(apply_modality_lut(found, data))
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
    return found


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


def _frame(
    data: Any, index: int, pixels: np.ndarray | None, shape: tuple[int, ...], path: Path
) -> Frame:
    said = _Said.of(data, index)
    position = said("PlanePositionSequence", "ImagePositionPatient")
    axes = said("PlaneOrientationSequence", "ImageOrientationPatient")
    rows, columns = said("PixelMeasuresSequence", "PixelSpacing") or (np.nan,) * 2
    slope, intercept = _rescaling(said, path)
    number = data.get("InstanceNumber")
    return Frame(
        path=path, shape=shape, pixels=pixels, slope=slope, intercept=intercept,
        inverted=data.get("PhotometricInterpretation") == "MONOCHROME1",
        number=None if number is None else int(number) + index,
        position=None if not position else np.array(position, dtype=np.float64),
        axes=None if not axes else np.array(axes, dtype=np.float64).reshape(2, 3),
        pixel_spacing=(float(rows), float(columns)),
        window=_window(said), space=data.get("FrameOfReferenceUID"),
        patient=str(data.get("PatientID") or ""), series=str(data.get("SeriesInstanceUID") or ""),
    )  # fmt: skip


@dataclass(frozen=True)
class _Said:
    """What is said of one frame: of it alone, else of all frames, else of the file."""

    data: Any
    groups: list[Any]

    @classmethod
    def of(cls, data: Any, index: int) -> _Said:
        own = data.get("PerFrameFunctionalGroupsSequence") or []
        return cls(
            data, [*own[index : index + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]
        )

    def __call__(self, group: str, name: str) -> Any:
        for place in self.groups:
            for item in place.get(group) or []:
                if item.get(name) is not None:
                    return item.get(name)
        return self.data.get(name)


def _rescaling(said: _Said, path: Path) -> tuple[float, float]:
    if "ModalityLUTSequence" in said.data:  # applied with the pixels
        return 1.0, 0.0
    names = ("RescaleSlope", "RescaleIntercept")
    slope, intercept = (said("PixelValueTransformationSequence", name) for name in names)
    found = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not np.isfinite(found).all() or found[0] == 0:
        raise ImageError("slope and intercept leave no image", expected="a slope that is not 0",
                         received=f"slope {found[0]:g}, intercept {found[1]:g}", path=path,
                         remedy="write the file again, or leave its study out")  # fmt: skip
    return found


def _window(said: _Said) -> tuple[float, float] | None:
    """Return the limits of the first window; PS3.3 C.11.2.1.2.1 shifts LINEAR by a half."""
    names = ("WindowCenter", "WindowWidth")
    centre, width = (said("FrameVOILUTSequence", name) for name in names)
    if centre is None or width is None:
        return None
    middle, wide = (float(np.ravel(one)[0]) for one in (centre, width))
    if (said("FrameVOILUTSequence", "VOILUTFunction") or "LINEAR") == "LINEAR":
        middle, wide = middle - 0.5, wide - 1
    return (middle - wide / 2, middle + wide / 2) if wide > 0 else None
