"""DICOM files written for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage


def slice_file(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """Write one slice; an element given as None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelSpacing = [0.5, 0.75]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, heights: list[float], **elements: Any) -> Path:
    """Write slices at `heights` mm; each holds ten times its height, and its number is its row."""
    for i, z in enumerate(heights):
        slice_file(
            folder / f"Image-{i + 1}.dcm", np.full((4, 6), round(z * 10)),
            ImagePositionPatient=[0, 0, z], InstanceNumber=i + 1, **elements,
        )  # fmt: skip
    return folder
