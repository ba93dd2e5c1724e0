"""Small drawn data sets of every kind, so that everything runs with no download.

One seed decides every byte. Each patient has a look of his own (stain, texture, colour, gain), a
few images, and mostly one label: a model that ignores patients looks better than it is.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kit import drawing, drawing_organs
from kit._drawn import FOLDABLE
from kit._drawn import patients as _patients
from kit._drawn import rng as _rng
from kit._drawn import spread as _spread
from kit._drawn import table as _table
from kit._drawn import write as _write
from kit._drawn_mri import draw_mri, draw_rsna
from kit._drawn_slides import slide as _slide
from kit._stand_in_eyes import draw_khd2019
from kit._stand_in_help import draw_help2019
from kit._stand_in_patches import draw_khd2020
from kit.checks import choice
from kit.errors import KitError, SettingsError
from kit.files import read_json, write_json

FORMAT = 1  # raise it whenever the same seed draws other bytes
MARKER = "synthetic.json"
TILE = 256
LEVELS = 4
MPP = 1.0
JPEG = 85
SECOND_BLUR, SECOND_JPEG = 1.0, 50  # of the second scanner; at 50 its void stays 0
EYES = ("NOR", "AMD", "DMR", "RVO")
Draw = Callable[[Path, int, float, int], None]
"""Draws a data set into a folder, from a seed and a scale, in so many processes."""


def make(
    name: str, root: str | Path, *, seed: int = 0, scale: float = 1.0, workers: int = 1
) -> Path:
    """Draw a data set into a folder of its own, or leave it alone if it stands there whole.

    The set is drawn beside `root` and then takes its place, so that it is whole or absent. A set
    drawn earlier with another seed or scale, or with files missing, is replaced.

    Args:
        name: One of `NAMES` or `STAND_INS`.
        root: The set's folder; it need not exist.
        seed: Decides every byte.
        scale: Number of patients as a fraction of the full set, in (0, 1]; a class keeps two
            training patients, and six from 0.3 on.
        workers: Processes that draw patients; the bytes are the same.

    Returns:
        `root`.

    Raises:
        SettingsError: The name or the scale is not one of those.
        KitError: `root` holds something else, or the disk is full.
    """
    choice("name", name, (*NAMES, *STAND_INS))
    if not 0 < scale <= 1:
        raise SettingsError("scale must be in (0, 1]", received=f"scale={scale}")
    root = Path(root)
    made_by = {"format": FORMAT, "name": name, "seed": seed, "scale": scale}
    if _stands(root, made_by):
        return root
    if root.exists() and not (root / MARKER).is_file() and any(root.iterdir()):
        raise KitError("the folder holds something else", path=root,
                       expected="an empty folder or a synthetic set",
                       remedy="choose another folder, or delete this one")  # fmt: skip
    part = root.with_name(f".{root.name}-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        {**_SETS, **_STAND_INS}[name](part, seed, scale, workers)
        files = {p.relative_to(part).as_posix(): p.stat().st_size for p in _files(part)}
        write_json(part / MARKER, {**made_by, "files": files})
        if root.exists():
            shutil.rmtree(root)
        part.rename(root)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise KitError("the disk is full" if full else f"cannot be written ({error.strerror})",
                       path=root, remedy="free some space or choose another folder",
                       ) from error  # fmt: skip
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def drawn(root: Path) -> bool:
    """Return whether a folder holds a data set that `make` drew."""
    return (root / MARKER).is_file()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _stands(root: Path, made_by: dict[str, Any]) -> bool:
    try:
        marker = read_json(root / MARKER)
        files = marker.pop("files")
        return bool(marker == made_by) and all(
            (root / name).stat().st_size == size for name, size in files.items()
        )
    except (OSError, KitError, KeyError, AttributeError):
        return False


def _draw_patches(root: Path, seed: int, scale: float, workers: int) -> None:
    people = enumerate(_patients(_rng(seed, "patches"), 72, scale), start=1)
    found = _spread("patients", _patches, [(root, seed, i, *one) for i, one in people], workers)
    _table(
        root / "labels.csv", "path,label,patient_id,split", [row for one in found for row in one]
    )


def _patches(root: Path, seed: int, i: int, kind: int, train: bool) -> list[tuple[str, ...]]:
    """Draw a patient's patches and return their lines of the table."""
    rows: list[tuple[str, ...]] = []
    rng = _rng(seed, "patches", i)
    look, grade = drawing.stain(rng), float(rng.normal(0, 0.3))
    for number in range(1, int(rng.integers(8, 13)) + 1):
        malignant = bool(kind) if rng.random() < 0.92 else not kind
        name = f"images/P{i:04d}_{number:02d}.png"
        _write(root / name, _patch(rng, look, malignant, grade))
        label = ("benign", "malignant")[malignant] if train else ""
        rows.append((name, label, f"P{i:04d}", "train" if train else "test"))
    return rows


def _patch(
    rng: np.random.Generator, look: drawing.Stain, malignant: bool, grade: float
) -> np.ndarray:
    maps = np.zeros((4, 4), np.float32)
    atypia = (0.85 if malignant else 0.2) + grade + rng.normal(0, 0.2)
    inflamed = rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 0.0
    return drawing.tissue(
        rng, look, maps + max(atypia, 0), maps + np.float32(inflamed),
        np.clip(1 + maps - 0.5 * (drawing.clouds(rng, (4, 4), 2) > 1.4), 0, 1),
    )  # fmt: skip


def _draw_slides(root: Path, seed: int, scale: float, workers: int) -> None:
    places, number = [], 1
    for i, one in enumerate(_patients(_rng(seed, "slides"), 40, scale), start=1):
        slides = 2 if i % 7 in (1, 3, 6) else 1
        places.append((root, seed, i, *one, number, slides))
        number += slides
    found = _spread("patients", _slides, places, workers)
    columns = "case_id,path,label,patient_id,split,mask"
    _table(root / "labels.csv", columns, [row for rows in found for row in rows])


def _slides(
    root: Path, seed: int, i: int, kind: int, train: bool, first: int, n: int
) -> list[tuple[str, ...]]:
    """Draw a patient's slides, numbered from `first`, and return their lines of the table."""
    rows: list[tuple[str, ...]] = []
    rng = _rng(seed, "slides", i)
    look, grade = drawing.stain(rng), float(rng.normal(0, 0.22))
    for again in range(n):
        positive = bool(kind) and not (again and rng.random() < 0.3)
        case = f"S{first + again:03d}"
        image, tumour = _slide(rng, look, grade, positive)
        _write_slide(root / f"slides/{case}.tif", image)
        label, mask = "", ""
        if train:
            label, mask = ("negative", "positive")[positive], f"masks/{case}.png"
            _write(root / mask, tumour * np.uint8(255))
        split = "train" if train else "test"
        rows.append((case, f"slides/{case}.tif", label, f"P{i:03d}", split, mask))
    return rows


def _draw_scanners(root: Path, seed: int, scale: float, workers: int) -> None:
    """Draw training slides of one laboratory and scanner, and test slides of it and of another.

    Labels of the test slides are there, for whoever scores them; a run does not read them.
    """
    least = FOLDABLE if scale >= 0.3 else 2
    each = max(round(20 * scale), 1)
    parts = [("train", 1, 2 * max(round(20 * scale), least)), ("test", 1, 2 * each),
             ("test", 2, 2 * each)]  # fmt: skip
    kinds = [
        (split, phase, int(kind)) for split, phase, patients in parts
        for kind in _rng(seed, "scanners", phase, split).permutation(patients) % 2
    ]  # fmt: skip
    places = [(root, seed, number, *one) for number, one in enumerate(kinds, start=1)]
    columns = "case_id,path,label,patient_id,split,phase,mask"
    _table(root / "labels.csv", columns, _spread("patients", _scanned, places, workers))


def _scanned(
    root: Path, seed: int, number: int, split: str, phase: int, kind: int
) -> tuple[str | int, ...]:
    """Draw the slide of a patient by the scanner of a phase, and return its line of the table."""
    rng, case = _rng(seed, "scanners", number), f"S{number:03d}"
    second, grade = phase == 2, float(rng.normal(0, 0.22))
    look = drawing.restained(drawing.stain(rng), int(second))
    image, tumour = _slide(rng, look, grade, bool(kind))
    if second:
        image = cv2.GaussianBlur(image, (0, 0), SECOND_BLUR)
        drawing.unscanned(image)
    _write_slide(root / f"slides/{case}.tif", image, SECOND_JPEG if second else JPEG)
    mask = f"masks/{case}.png" if split == "train" else ""
    if mask:
        _write(root / mask, tumour * np.uint8(255))
    label = ("negative", "positive")[kind]
    return case, f"slides/{case}.tif", label, f"P{number:03d}", split, phase, mask


def _write_slide(path: Path, image: np.ndarray, quality: int = JPEG) -> None:
    """Write a tiled JPEG pyramid that OpenSlide opens, with its µm per pixel."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for level in range(LEVELS):
            per_cm = 1e4 / (MPP * 2**level)
            writer.write(
                image, tile=(TILE, TILE), photometric="rgb", subsampling=(2, 2),
                compression="jpeg", compressionargs={"level": quality}, metadata=None,
                subfiletype=1 if level else 0, resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
            )  # fmt: skip
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _draw_fundus(root: Path, seed: int, scale: float, workers: int) -> None:
    people = len(EYES) * max(round(24 * scale), FOLDABLE if scale >= 0.3 else 2)
    found = _spread("people", _eyes, [(root, seed, one) for one in range(people)], workers)
    _table(root / "labels.csv", "path,label,patient_id", [row for rows in found for row in rows])


def _eyes(root: Path, seed: int, person: int) -> list[tuple[str, str, str]]:
    """Draw a person's eyes and return their lines of the table."""
    rows: list[tuple[str, str, str]] = []
    rng = _rng(seed, "fundus", person)
    look, disease = drawing_organs.retina(rng), EYES[person % len(EYES)]
    for side in "RL":
        # An occlusion is mostly of one eye; the other diseases are mostly of both.
        spared = side == "L" and rng.random() < (0.5 if disease == "RVO" else 0.1)
        label = "NOR" if spared else disease
        severity = float(np.exp(rng.normal(0, 0.5)))
        image = drawing_organs.fundus(rng, look, label, severity, side == "R")
        name = f"images/Wide_{label}_{person + 1:03d}_{side}.jpg"
        _write(root / name, image, cv2.IMWRITE_JPEG_QUALITY, 92)
        rows.append((name, label, f"{person + 1:03d}"))
    return rows


_SETS: dict[str, Draw] = {
    "synthetic_slides": _draw_slides,
    "synthetic_scanners": _draw_scanners,
    "synthetic_patches": _draw_patches,
    "synthetic_fundus": _draw_fundus,
    "synthetic_mri": draw_mri,
}
_STAND_INS: dict[str, Draw] = {
    "help2019": draw_help2019, "khd2020": draw_khd2020, "khd2019": draw_khd2019,
    "rsna2021": draw_rsna,
}  # fmt: skip
NAMES = tuple(_SETS)
STAND_INS = tuple(_STAND_INS)
"""Data sets of challenges that may not be passed on: drawn in their place, laid out as they are."""
