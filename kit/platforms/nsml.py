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
from typing import Any

import numpy as np

from kit.errors import KitError

OUT = Path("submissions")


def session(challenge: str, *, mode: str, pause: int) -> None:
    """Do what NSML asks of `main.py`.

    Args:
        challenge: A challenge or dataset of the manifest.
        mode: "train" trains; NSML sends "test" at submit.
        pause: 1 at submit: the model is loaded and asked from inside `paused`.

    Raises:
        KitError: There is no nsml package here.
    """
    nsml = _nsml()
    out = OUT / challenge / "nsml"
    save, load, infer = hooks(challenge, out)
    nsml.bind(save=save, load=load, infer=infer)
    if pause:
        nsml.paused(scope=locals())
    if mode == "train":
        from kit.pipeline import Run

        Run.open(challenge, data=Path(nsml.DATASET_PATH), out=out).complete()
        nsml.save("complete")


def hooks(
    challenge: str, out: Path
) -> tuple[Callable[..., None], Callable[..., None], Callable[..., np.ndarray]]:
    """Return NSML's `save(dir)`, `load(dir)` and `infer(images)` for the run in `out`."""

    def save(folder: str, *_: Any, **__: Any) -> None:
        shutil.copytree(out, folder, dirs_exist_ok=True)

    def load(folder: str, *_: Any, **__: Any) -> None:
        shutil.copytree(folder, out, dirs_exist_ok=True)

    def infer(images: Sequence[Any], *_: Any, **__: Any) -> np.ndarray:
        from kit.pipeline import Run

        with tempfile.TemporaryDirectory() as folder:
            paths = [_path(image, Path(folder), number) for number, image in enumerate(images)]
            run = Run.open(challenge, out=out)
            columns = [f"prob_{name}" for name in run.dataset.classes]
            return run.predict(paths)[columns].to_numpy().argmax(axis=1)

    return save, load, infer


def _path(image: Any, folder: Path, number: int) -> Path:
    """Return the path of an image; an array (BGR, uint8) is written without loss first."""
    if not isinstance(image, np.ndarray):
        return Path(str(image))
    import cv2

    path = folder / f"{number:06d}.png"
    cv2.imwrite(str(path), image)
    return path


def _nsml() -> ModuleType:
    try:
        return importlib.import_module("nsml")
    except ModuleNotFoundError as error:
        raise KitError(
            "no nsml package here: main.py runs on NSML only",
            remedy="elsewhere use: kit run CHALLENGE --data DIR",
        ) from error
