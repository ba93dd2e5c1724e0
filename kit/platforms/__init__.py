"""Where the kit runs: a laptop, Kaggle, NSML, or a competition's Docker container."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kit.checks import choice
from kit.errors import SettingsError

NAMES = ("local", "kaggle", "nsml", "docker")
SECONDS = {"kaggle": 9 * 3600.0}
"""How long a session may take: on Kaggle 12 h, in code competitions 9 h."""
SPARE, SPARE_SHARE = 600.0, 0.1  # s, or that share of a session if it is less: what comes before
# the kit is loaded and after its last word
STARTED = time.time()


@dataclass(frozen=True)
class Platform:
    """One place to run: its name, how that is known, where data lie and results go.

    `data` is the folder of mounted inputs, or None where the user says it with `--data`; `seconds`
    is how long a session may take, or None where there is no limit.
    """

    name: str
    how: str
    data: Path | None
    output: Path
    seconds: float | None = None

    def left(self) -> float | None:
        """Return the seconds until a submission must stand; None: there is no limit."""
        if self.seconds is None:
            return None
        spare = min(SPARE, SPARE_SHARE * self.seconds)
        return max(0.0, self.seconds - spare - (time.time() - STARTED))


def detect(environ: Mapping[str, str] = os.environ, root: Path | None = None) -> Platform:
    """Return the platform of this machine.

    KIT_PLATFORM (local, kaggle, nsml or docker) overrides what is found, KIT_ROOT where the file
    system begins, KIT_HOURS how many hours a session may take.

    Args:
        environ: Environment variables.
        root: The root of the file system; None: KIT_ROOT, or /.

    Raises:
        SettingsError: KIT_PLATFORM names no platform, or KIT_HOURS is no number above 0.
    """
    root = Path(environ.get("KIT_ROOT", "/")) if root is None else root
    found = _detect(environ, root)
    if "KIT_HOURS" not in environ:
        return found
    return replace(found, seconds=3600 * _hours(environ["KIT_HOURS"]))


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = float("nan")
    if not 0 < hours < float("inf"):
        raise SettingsError("KIT_HOURS must be above 0", received=f"KIT_HOURS={text}")
    return hours


def _detect(environ: Mapping[str, str], root: Path) -> Platform:
    named = environ.get("KIT_PLATFORM", "")
    if named:
        return _platform(choice("KIT_PLATFORM", named, NAMES), "KIT_PLATFORM says so", root)
    if "KAGGLE_KERNEL_RUN_TYPE" in environ or (root / "kaggle" / "input").is_dir():
        return _platform("kaggle", "KAGGLE_KERNEL_RUN_TYPE or /kaggle/input is there", root)
    if _nsml_data() is not None:
        return _platform("nsml", "the nsml package names a dataset", root)
    contained = (root / ".dockerenv").exists() or (root / "run" / ".containerenv").exists()
    if contained and any((root / "data" / part).is_dir() for part in ("train", "test")):
        return _platform("docker", "a container with /data/train or /data/test", root)
    return _platform("local", "nothing of the other platforms was found", root)


def _platform(name: str, how: str, root: Path) -> Platform:
    data, output = {
        "local": (None, Path("submissions")),
        "kaggle": (root / "kaggle" / "input", root / "kaggle" / "working"),
        "nsml": (_nsml_data(), Path("submissions")),
        "docker": (root / "data", root / "data" / "output"),
    }[name]
    return Platform(name, how, data, output, SECONDS.get(name))


def _nsml_data() -> Path | None:
    """Return NSML's dataset folder, or None where there is no NSML."""
    if importlib.util.find_spec("nsml") is None:
        return None
    nsml = importlib.import_module("nsml")
    path = getattr(nsml, "DATASET_PATH", None)
    return Path(path) if path else None
