"""NSML's `save`, `load` and `infer` of a run."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit import carried, finished, submission
from kit.errors import KitError, MissingDataError
from kit.files import read_json, write_json
from kit.finished import Finished
from kit.manifest import Dataset
from kit.platforms import Platform

log = logging.getLogger(__name__)

KINDS = ("patches", "images")
FIRST, TIMED, PART = 8, 64, 256
"""Images predicted together: a few that wake everything, those that are timed, then the rest."""
LAYOUT = {
    "pattern": "{case_id}.png", "table": None, "columns": {}, "arrays": None, "test": {},
    "group": {"unit": "image"}, "labels": None, "mask": None, "mask_values": None,
    "mask_frame": None, "exclude": (), "roots": {"local": "."}, "review": None, "counts": None,
    "sha256": {},
}  # fmt: skip
"""How the images that NSML hands over lie: in one folder, named by their number."""


def hooks(
    out: Path, here: Platform
) -> tuple[Callable[..., None], Callable[..., None], Callable[..., np.ndarray]]:
    """Return `save(place)`, `load(place)` and `infer(images)` for the run in `out`.

    A place is a folder, or, as older stubs have it, the name of a file: one with a suffix, or that
    is there already. `infer` takes paths, or BGR arrays (height, width, 3), uint8, and returns the
    challenge's numbers for them, int64, shape (n,), in the order given.
    """

    def save(place: str, *_: Any, **__: Any) -> None:
        here.refuse_large(carried.megabytes(out), out)
        path = Path(place)
        if path.is_file() or (path.suffix and not path.is_dir()):
            with zipfile.ZipFile(path, "w") as archive:
                for file in carried.files(out):
                    archive.write(file, file.name)
        else:
            path.mkdir(parents=True, exist_ok=True)
            carried.carry(out, path)

    def load(place: str, *_: Any, **__: Any) -> None:
        path = Path(place)
        if not path.is_dir() and not zipfile.is_zipfile(path):
            raise MissingDataError("no checkpoint", path=path, expected="what save wrote",
                                   remedy="nsml model ls names them")  # fmt: skip
        shutil.rmtree(out, ignore_errors=True)  # what save wrote, and nothing else
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                archive.extractall(out)
        else:
            shutil.copytree(path, out)
        finished.load(out)

    def infer(images: Sequence[Any], *_: Any, **__: Any) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="kit-nsml-") as folder:
            run = _served(out, Path(folder) / "run")
            parts = [
                _answers(run, part, Path(folder) / f"part{number}")
                for number, part in enumerate(_in_time(images, here.inference))
            ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    return save, load, infer


def refuse_kind(dataset: Dataset) -> None:
    """Raise `KitError` if `infer`, which is given images, cannot answer for a dataset."""
    if dataset.kind not in KINDS:
        raise KitError(
            "NSML hands over single images", expected=f"a dataset of kind {' or '.join(KINDS)}",
            received=f"{dataset.name}, of kind {dataset.kind}",
            remedy="use another platform, or cut the images out first",
        )  # fmt: skip


def _served(out: Path, folder: Path) -> Finished:
    """Return a copy of the run that takes single images for its cases."""
    folder.mkdir()
    carried.carry(out, folder)
    said = read_json(folder / "settings.json")
    entry = said["entry"] | LAYOUT | {"label": said["entry"]["classes"][0]}
    write_json(folder / "settings.json", {**said, "entry": entry})
    run = finished.load(folder)
    refuse_kind(run.dataset)
    return run


def _in_time(images: Sequence[Any], limit: float | None) -> Iterator[Sequence[Any]]:
    """Yield the images in parts, as long as all of them can be answered in time.

    The second part is timed, so that what cannot end in time stops in its first minute.

    Raises:
        KitError: They would take longer than the limit.
    """
    start, done, size, pace = time.monotonic(), 0, FIRST, 0.0
    while done < len(images):
        expected = time.monotonic() - start + pace * (len(images) - done)
        if limit is not None and expected > limit:
            raise _too_slow(limit, f"about {expected:.0f} s for {len(images)} images; "
                            f"stopped after {done}")  # fmt: skip
        begun, done, before = done, min(done + size, len(images)), time.monotonic()
        yield images[begun:done]
        if begun:  # the first part also loads the libraries
            pace = (time.monotonic() - before) / (done - begun)
            if size == TIMED:
                log.info("%.3f s an image, about %.0f s in all", pace, pace * len(images))
        size = TIMED if begun == 0 else PART
    taken = time.monotonic() - start
    if limit is not None and taken > limit:
        raise _too_slow(limit, f"{taken:.0f} s for {len(images)} images")


def _too_slow(limit: float, received: str) -> KitError:
    return KitError(
        "predicting takes longer than NSML allows", expected=f"at most {limit:.0f} s",
        received=received, remedy="fewer or smaller networks, or --set tta=false",
    )  # fmt: skip


def _answers(run: Finished, images: Sequence[Any], folder: Path) -> np.ndarray:
    """Return the challenge's numbers for some images, in their order."""
    place = folder / "images"
    place.mkdir(parents=True)
    ids = [_put(image, place, number) for number, image in enumerate(images)]
    joined = finished.predict(run.out, None, folder / "answer", root=place)
    style, data = replace(run.style, value="label"), run.dataset
    rows = submission.table(joined, style, data.classes, data.positive, run.threshold)
    shutil.rmtree(folder)
    codes = dict(style.codes)
    numbers = {
        codes.get(name, name): int(codes.get(name, n)) for n, name in enumerate(data.classes)
    }
    answer = dict(zip(rows[style.id_column], rows[style.value_column], strict=True))
    return np.array([numbers[answer[case + style.suffix]] for case in ids], dtype=np.int64)


def _put(image: Any, folder: Path, number: int) -> str:
    """Lay an image under its number, and return that."""
    case_id = f"{number:06d}"
    path = folder / f"{case_id}.png"
    if isinstance(image, np.ndarray):
        import cv2

        path.write_bytes(cv2.imencode(".bmp", image)[1].tobytes())  # no loss, and no time lost
    else:
        shutil.copyfile(str(image), path)  # what it holds tells its format, not its name
    return case_id
