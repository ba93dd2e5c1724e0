"""Drawn MRI: one series a study, and the layout of RSNA-MICCAI 2021 with four."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kit import drawing_organs
from kit._drawn import FOLDABLE, patients, rng, spread, table

LABELS, SAMPLE = "train_labels.csv", "sample_submission.csv"
HEADER = "BraTS21ID,MGMT_value"
STUDIES, TESTS, METHYLATED = 582, 87, 0.525  # as published, without the withdrawn three
WITHDRAWN = (109, 123, 709)
IDS = 1011  # they go from 0 on, and some are nobody's
HIGH = 4095  # twelve bits are stored
LEVELS = (0, 60, 110, 190, 240, 330, 430, 520, 640, 1200)
CONTRASTS = {
    "FLAIR": (0, 60, 100, 150, 540, 400, 380, 300, 620, 700),
    "T1w": (0, 60, 110, 190, 240, 330, 430, 520, 350, 350),
    "T1wCE": LEVELS,
    "T2w": (0, 60, 800, 700, 600, 450, 350, 200, 500, 550),
}
"""The drawn contrast-enhanced values, and what each series shows in their place."""


@dataclass(frozen=True)
class Stored:
    """How a series is written: its grid in mm, and what a reader must undo."""

    step: float = 5.0
    pixel: float = 2.5
    corner: float = 0.0
    slope: float = 1.0
    inverted: bool = False
    downwards: bool = False


def draw_mri(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw studies of one series, laid out as those of `draw_rsna`."""
    people = list(enumerate(patients(rng(seed, "mri"), 60, scale), start=1))
    spread("studies", _draw_one_series, [(root, seed, i, *one) for i, one in people], workers)
    table(root / LABELS, HEADER, [(f"{i:05d}", kind) for i, (kind, train) in people if train])
    table(root / SAMPLE, HEADER, [(f"{i:05d}", 0.5) for i, (_, train) in people if not train])


def _draw_one_series(root: Path, seed: int, i: int, methylated: int, train: bool) -> None:
    chance = rng(seed, "mri", i)
    growth = float(np.clip(chance.normal(0.75 if methylated else 0.25, 0.2), 0, 1))
    volume = drawing_organs.head(chance, int(chance.choice([64, 80, 96])), 16, growth)
    write_series(_place(root, f"{i:05d}", train) / "T1wCE", volume, f"2.25.{i}", Stored())


def draw_rsna(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw a stand-in of RSNA-MICCAI 2021: its folders, names, tables and share of classes.

    582 studies to learn from, 87 to predict, times `scale`, and the three that were withdrawn. The
    series of a study have grids of their own; some are stored as MONOCHROME1, scaled by a slope,
    or numbered from the top down, as scanners do. Slices are small: 64 to 96 pixels, 18 to 24 of
    them.
    """
    least = FOLDABLE if scale >= 0.3 else 2
    high = max(round(STUDIES * METHYLATED * scale), least)
    low = max(round(STUDIES * (1 - METHYLATED) * scale), least)
    tests = max(round(TESTS * scale), 2)
    chance = rng(seed, "rsna")
    free = np.setdiff1d(np.arange(IDS), WITHDRAWN)
    ids = np.sort(chance.choice(free, high + low + tests, replace=False))
    kinds = chance.permutation([1] * high + [0] * low + [2] * tests)  # 2: not told
    known = [(int(i), int(kind)) for i, kind in zip(ids, kinds, strict=True) if kind < 2]
    known += [(i, int(chance.integers(2))) for i in WITHDRAWN]
    asked = [int(i) for i in ids[kinds == 2]]
    places = [(root, seed, i, kind) for i, kind in [*known, *((i, None) for i in asked)]]
    spread("studies", _draw_several_series, places, workers)
    table(root / LABELS, HEADER, [(f"{i:05d}", kind) for i, kind in sorted(known)])
    table(root / SAMPLE, HEADER, [(f"{i:05d}", 0.5) for i in asked])


def _draw_several_series(root: Path, seed: int, i: int, methylated: int | None) -> None:
    """Draw one study; None draws its class too, which is not told."""
    chance, train = rng(seed, "rsna", i), methylated is not None
    kind = int(chance.random() < METHYLATED) if methylated is None else methylated
    _draw_study(_place(root, f"{i:05d}", train), chance, i, kind)


def _place(root: Path, study: str, train: bool) -> Path:
    return root / ("train" if train else "test") / study


def _draw_study(folder: Path, chance: np.random.Generator, study: int, methylated: int) -> None:
    growth = float(np.clip(chance.normal(0.75 if methylated else 0.25, 0.2), 0, 1))
    side, slices = int(chance.choice([64, 80, 96])), int(chance.integers(18, 25))
    volume = drawing_organs.head(chance, side, slices, growth).astype(np.float32)
    for number, (name, values) in enumerate(CONTRASTS.items()):
        shown = np.interp(volume, LEVELS, values).astype(np.float32)
        step, pixel = 100 / slices, 240 / side
        if name in ("FLAIR", "T2w"):  # thicker slices of larger pixels
            fewer, small = int(chance.integers(12, slices)), side * 3 // 4
            shown = _coarser(shown, fewer, small)
            step *= (slices - 1) / (fewer - 1)
            pixel *= side / small
        stored = Stored(
            step, pixel, (pixel - 240 / side) / 2, float(chance.choice([0.5, 1.0, 2.0])),
            bool(chance.random() < 0.1), bool(chance.random() < 0.5),
        )  # fmt: skip
        write_series(folder / name, shown, f"2.25.{study + 1}.{number}", stored)


def _coarser(volume: np.ndarray, slices: int, side: int) -> np.ndarray:
    """Return the same space in fewer slices of fewer pixels."""
    at = np.linspace(0, len(volume) - 1, slices)
    below = np.minimum(at.astype(int), len(volume) - 2)
    share = (at - below)[:, None, None].astype(np.float32)
    mixed = volume[below] * (1 - share) + volume[below + 1] * share
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in mixed])


def write_series(folder: Path, volume: np.ndarray, uid: str, stored: Stored) -> None:
    """Write slices as Image-1.dcm, Image-2.dcm and so on; the first lies lowest, or highest."""
    folder.mkdir(parents=True)
    values = np.clip(np.rint(volume / stored.slope), 0, HIGH)
    values = (HIGH - values if stored.inverted else values).astype("<u2")
    order: Sequence[int] = range(len(values))
    for number, at in enumerate(reversed(order) if stored.downwards else order, start=1):
        _write_slice(folder / f"Image-{number}.dcm", values[at], uid, number, at, stored)


def _write_slice(
    path: Path, pixels: np.ndarray, uid: str, number: int, at: int, stored: Stored
) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("2.25.1")
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, f"{uid}.{number}"
    data.SeriesInstanceUID, data.Modality = uid, "MR"
    data.SeriesDescription = f"{path.parent.name}, drawn"
    data.InstanceNumber = number
    height = round(stored.step * (at + 1), 4)
    corner = round(stored.corner, 4)
    data.ImagePositionPatient = [corner, corner, height]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    pixel = round(stored.pixel, 6)
    data.PixelSpacing, data.SliceThickness = [pixel, pixel], round(stored.step, 4)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if stored.inverted else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    if stored.slope != 1:
        data.RescaleSlope, data.RescaleIntercept = stored.slope, 0
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)
