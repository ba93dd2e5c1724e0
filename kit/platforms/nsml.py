"""NSML's hooks around a run: bind save, load and infer; stop where NSML pauses; then train.

The order is NSML's: nothing may read data before `paused`, because at submit there is none.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from kit import finished, submission
from kit.errors import KitError
from kit.manifest import Dataset

OUT = Path("submissions")
AT_ONCE = 32  # images that lie on disk together: 1.2 GB of 3072 x 3900


class Runnable(Protocol):
    """What a session needs of `kit.pipeline.Run`."""

    def complete(self) -> object:
        """Make everything that the run makes."""


def session(challenge: str, open_run: Callable[..., Runnable], *, mode: str, pause: int) -> None:
    """Do what NSML asks of `main.py`.

    Args:
        challenge: A challenge or dataset of the manifest.
        open_run: `kit.challenges.open_run`.
        mode: "train" trains; NSML sends "test" at submit.
        pause: 1 at submit: the run is loaded and asked from inside `paused`.

    Raises:
        KitError: There is no nsml package here.
    """
    nsml = _nsml()
    out = OUT / challenge / "nsml"
    save, load, infer = hooks(out)
    nsml.bind(save=save, load=load, infer=infer)
    if pause:
        nsml.paused(scope=locals())
    if mode == "train":
        open_run(challenge, out=out).complete()
        nsml.save("complete")


def hooks(
    out: Path,
) -> tuple[Callable[..., None], Callable[..., None], Callable[..., np.ndarray]]:
    """Return NSML's `save(dir)`, `load(dir)` and `infer(images)` for the run in `out`.

    `infer` takes paths, or BGR arrays (height, width, 3), uint8, and returns the challenge's
    numbers for them, int64, shape (n,), in the order given.
    """

    def save(folder: str, *_: Any, **__: Any) -> None:
        shutil.copytree(out, folder, dirs_exist_ok=True)

    def load(folder: str, *_: Any, **__: Any) -> None:
        shutil.copytree(folder, out, dirs_exist_ok=True)

    def infer(images: Sequence[Any], *_: Any, **__: Any) -> np.ndarray:
        parts = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
        found = [number for part in parts for number in _numbers(out, part)]
        return np.array(found, dtype=np.int64)

    return save, load, infer


def _numbers(out: Path, images: Sequence[Any]) -> list[int]:
    """Return the challenge's numbers for a few images, read as `kit predict` reads them."""
    run = finished.load(out)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        ids = [_put(image, run.dataset, data, n) for n, image in enumerate(images)]
        joined = finished.predict(out, data, data / "answer")
    dataset, style = run.dataset, run.style
    rows = submission.table(joined, style, dataset.classes, dataset.positive, run.threshold)
    answer = dict(zip(rows[style.id_column], rows[style.value_column], strict=True))
    return [int(answer[case_id]) for case_id in ids]


def _put(image: Any, dataset: Dataset, data: Path, number: int) -> str:
    """Lay an image where the dataset's test images lie, and return the id that it has there."""
    if dataset.test.pattern is None:
        raise KitError(f"dataset {dataset.name} names no pattern for its test images")
    case_id = f"{number:06d}"
    place = dataset.test.pattern.format(case_id=case_id, label=dataset.classes[0])
    path = data / dataset.roots["local"] / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, np.ndarray):
        import cv2

        written = cv2.imencode(".bmp", image)[1]  # without loss, whatever the name's suffix says
        path.write_bytes(written.tobytes())
    else:
        shutil.copyfile(str(image), path)
    return case_id


def _nsml() -> ModuleType:
    try:
        return importlib.import_module("nsml")
    except ModuleNotFoundError as error:
        raise KitError(
            "no nsml package here: main.py runs on NSML only",
            remedy="elsewhere use: kit run CHALLENGE --data DIR",
        ) from error
