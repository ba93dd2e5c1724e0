"""A rehearsal: a platform's whole contract on drawn data, in minutes, each step told."""

from __future__ import annotations

import importlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import platforms
from kit.checks import choice
from kit.errors import KitError
from kit.rehearsal.scene import LATE, Scene

log = logging.getLogger(__name__)

SECONDS = 180.0
"""A rehearsal's time limit, which its steps share."""


@dataclass(frozen=True)
class Step:
    """One step of the contract: "ok", "failed" or "not reached", what was seen, and the remedy."""

    name: str
    state: str
    said: str
    remedy: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Rehearsal:
    """What became of a rehearsal: its steps in order, and what the real run would take."""

    challenge: str
    platform: str
    steps: tuple[Step, ...]
    estimate: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Return whether every step is ok."""
        return all(step.state == "ok" for step in self.steps)


def rehearse(
    challenge: str, platform: str, *, settings: Sequence[str] = (), keep: Path | None = None,
    seconds: float = SECONDS, before: Callable[[str, Path], None] | None = None,
) -> Rehearsal:  # fmt: skip
    """Go through a platform's contract on drawn data that lie as the challenge's own do.

    Args:
        challenge: A challenge or dataset of the manifest.
        platform: local, kaggle, nsml or docker.
        settings: `KEY=VALUE` texts of the real run, for the estimate; the rehearsal itself trains
            tiny networks.
        keep: Folder, absent or empty, that becomes the bare root and is kept; None: a temporary
            one.
        seconds: Time limit of all steps together.
        before: Called with the name of each step and the bare root before it: so that a test, or
            you, may break something and see it named.

    Raises:
        SettingsError: The platform, the challenge or a setting is unknown.
        KitError: `keep` is not empty, or this system has no process groups (Windows).
    """
    choice("platform", platform, platforms.NAMES)
    if os.name != "posix":
        raise KitError("a rehearsal needs Linux or macOS", remedy="use WSL on Windows")
    root = _root(keep)
    try:
        scene = Scene.of(
            challenge, platform, root, settings=settings, end=time.monotonic() + seconds
        )
        contract: Any = importlib.import_module(f"{__name__}.{platform}")
        steps = _go(contract.steps(scene), scene, before or (lambda name, place: None))
        return Rehearsal(challenge, platform, steps, scene.estimate)
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def _root(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="kit-rehearsal-")).resolve()
    keep = Path(keep).resolve()
    if keep.is_dir() and any(keep.iterdir()):
        raise KitError("the folder to keep is not empty", path=keep,
                       remedy="choose another --keep, or delete it")  # fmt: skip
    keep.mkdir(parents=True, exist_ok=True)
    return keep


def _go(
    steps: Sequence[tuple[str, Callable[[], str]]], scene: Scene,
    before: Callable[[str, Path], None],
) -> tuple[Step, ...]:  # fmt: skip
    """Take the steps until one fails; those after it are not reached."""
    done: list[Step] = []
    for name, call in steps:
        if done and done[-1].state != "ok":
            done.append(Step(name, "not reached", ""))
            continue
        log.info("%s ...", name)
        before(name, scene.root)
        start = time.monotonic()
        try:
            said, state, remedy = call(), "ok", ""
        except KitError as error:
            said, state, remedy = _without_remedy(error), "failed", error.remedy or ""
        taken = time.monotonic() - start
        if state == "ok" and scene.left() <= 0:
            state, said = "failed", f"{said}; the time of the rehearsal is up"
            remedy = LATE
        done.append(Step(name, state, said, remedy, math.ceil(taken * 10) / 10))
    return tuple(done)


def _without_remedy(error: KitError) -> str:
    text = str(error)
    return text if error.remedy is None else text.split(" Remedy: ")[0]
