"""Where the kit runs: a laptop, Kaggle, NSML, or a competition's Docker container."""

from __future__ import annotations

import importlib
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kit import carried, finished
from kit.checks import choice
from kit.errors import KitError, SettingsError
from kit.manifest import Dataset

log = logging.getLogger(__name__)

NAMES = ("local", "kaggle", "nsml", "docker")
SECONDS = {"kaggle": 9 * 3600.0}
"""How long a session may take: on Kaggle 12 h, in code competitions 9 h."""
MODEL = "/data/model"
"""Where a container keeps networks; HeLP 2019 had /data/volume (KIT_MODEL)."""
INFERENCE, MOST_MB = 3600.0, 300.0
"""NSML's limits: seconds of predicting, MB of all networks."""
SPARE, SPARE_SHARE = 600.0, 0.1  # s, or that share of a session if it is less: what comes before
# the kit is loaded and after its last word
STARTED = time.time()


@dataclass(frozen=True)
class Platform:
    """One place to run; notebooks and commands ask it, and never which one it is.

    Attributes:
        name: local, kaggle, nsml or docker.
        how: How that is known.
        data: Folder of mounted inputs; None where the user says it with `--data`.
        output: Folder of runs and of all that must last.
        seconds: Most seconds of a session; None: no limit.
        answer: The file that the platform takes for the submission; None: whichever is handed in.
        inference: Most seconds for predicting all test cases; None: no limit of its own.
        most_mb: Most MB (1e6 bytes) of what is uploaded or saved; None: no limit.
        network: Whether there is one while the kit runs.
    """

    name: str
    how: str
    data: Path | None
    output: Path
    seconds: float | None = None
    answer: Path | None = None
    inference: float | None = None
    most_mb: float | None = None
    network: bool = True

    def left(self) -> float | None:
        """Return the seconds until a submission must stand; None: there is no limit."""
        if self.seconds is None:
            return None
        spare = min(SPARE, SPARE_SHARE * self.seconds)
        return max(0.0, self.seconds - spare - (time.time() - STARTED))

    def root(self, dataset: Dataset) -> Path:
        """Return the folder of a dataset's mounted data.

        Raises:
            MissingDataError: It is not mounted; names every place that was looked at.
        """
        return dataset.root(None, self.name, mount=self.data)

    def accelerators(self) -> list[str]:
        """Return the GPUs that the backend sees; it is loaded for this."""
        from kit.backend import gpus, load_backend

        load_backend(1)
        return gpus()

    def report(self, step: int = 0, **values: float | None) -> None:
        """Report figures where this platform shows them; undefined ones are left out."""
        said = ", ".join(f"{name} {value:.4f}" for name, value in defined(values).items())
        log.info("step %d: %s", step, said)

    def save(self, out: Path) -> Path:
        """Keep a finished run as a checkpoint that a later process loads; return its folder.

        Raises:
            MissingDataError: The run is not finished, or a network is damaged.
            KitError: It is larger than the platform takes.
        """
        self.refuse_large(carried.megabytes(out), out)
        return out

    def load(self, out: Path) -> Path:
        """Return the folder of a checkpoint that `save` kept, verified.

        Raises:
            MissingDataError: It is not whole.
        """
        return finished.load(out).out

    def refuse_large(self, megabytes: float, out: Path) -> None:
        """Raise `KitError` if a model has more megabytes than the platform takes."""
        if self.most_mb is not None and megabytes > self.most_mb:
            raise KitError(
                f"the model is too large for {self.name}", path=out,
                expected=f"at most {self.most_mb:,.0f} MB", received=f"{megabytes:,.0f} MB",
                remedy="fewer or smaller networks: --set seeds=1, n_splits=, model=",
            )  # fmt: skip


def defined(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the values that are finite numbers, as plain floats."""
    return {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}


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
        raise SettingsError("KIT_HOURS must be above 0", received=f"KIT_HOURS={text}",
                            expected="hours, such as 9", remedy="KIT_HOURS=9")  # fmt: skip
    return hours


def _detect(environ: Mapping[str, str], root: Path) -> Platform:
    named = environ.get("KIT_PLATFORM", "")
    if named:
        return _platform(
            choice("KIT_PLATFORM", named, NAMES), "KIT_PLATFORM says so", root, environ
        )
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN"):
        if name in environ:
            return _platform("kaggle", f"{name} is set", root, environ)
    if (root / "kaggle" / "input").is_dir():
        return _platform("kaggle", "/kaggle/input is there", root, environ)
    if _nsml_data() is not None:
        return _platform("nsml", "the nsml package names a dataset", root, environ)
    contained = (root / ".dockerenv").exists() or (root / "run" / ".containerenv").exists()
    if contained and any((root / "data" / part).is_dir() for part in ("train", "test")):
        return _platform("docker", "a container with /data/train or /data/test", root, environ)
    return _platform("local", "nothing of the other platforms was found", root, environ)


def _platform(name: str, how: str, root: Path, environ: Mapping[str, str]) -> Platform:
    if name == "local":
        return Platform(name, how, None, Path("submissions"))
    if name == "kaggle":
        work = root / "kaggle" / "working"
        return Platform(
            name, how, root / "kaggle" / "input", work, SECONDS[name], work / "submission.csv",
            network=False,
        )  # fmt: skip
    if name == "docker":
        model = environ.get("KIT_MODEL", MODEL).lstrip("/")
        answer = root / "data" / "output" / "output.csv"
        return Platform(name, how, root / "data", root / model, answer=answer, network=False)
    from kit.platforms.nsml import Session

    return Session(name, how, _nsml_data(), Path("submissions"), inference=INFERENCE,
                   most_mb=MOST_MB)  # fmt: skip


def _nsml_data() -> Path | None:
    """Return NSML's dataset folder, or None where there is no NSML."""
    try:
        nsml = importlib.import_module("nsml")
    except ModuleNotFoundError:
        return None
    path = getattr(nsml, "DATASET_PATH", None)
    return Path(path) if path else None
