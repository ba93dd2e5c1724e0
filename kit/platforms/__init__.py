"""Where the kit runs: a laptop, Kaggle, NSML, or a competition's Docker container."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kit.checks import choice

NAMES = ("local", "kaggle", "nsml", "docker")


@dataclass(frozen=True)
class Platform:
    """One place to run: its name, how that is known, where data lie and results go.

    `data` is the folder of mounted inputs, or None where the user says it with `--data`.
    """

    name: str
    how: str
    data: Path | None
    output: Path


def detect(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Platform:
    """Return the platform of this machine.

    KIT_PLATFORM (local, kaggle, nsml or docker) overrides what is found.

    Args:
        environ: Environment variables.
        root: The root of the file system.

    Raises:
        SettingsError: KIT_PLATFORM names no platform.
    """
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
    return Platform(name, how, data, output)


def _nsml_data() -> Path | None:
    """Return NSML's dataset folder, or None where there is no NSML."""
    if importlib.util.find_spec("nsml") is None:
        return None
    nsml = importlib.import_module("nsml")
    path = getattr(nsml, "DATASET_PATH", None)
    return Path(path) if path else None
