"""Challenges by name: a file of this package, or else a manifest dataset as its kind defaults."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import platforms, synthetic
from kit.challenge import Challenge, Real
from kit.checks import close, nearest
from kit.errors import MissingDataError, SettingsError
from kit.files import fingerprint
from kit.manifest import Dataset, Manifest, home, load_manifest
from kit.pipeline import Run
from kit.settings import Settings, defaults, resolve, settings_key
from kit.submission import Format

STAND_IN = {
    "slides": "synthetic_slides", "patches": "synthetic_patches", "images": "synthetic_fundus",
    "dicom": "synthetic_mri", "arrays": "synthetic_patches",
}  # fmt: skip
"""The embedded data set that a smoke run without data takes, by kind."""
SMOKE_SCALE = 0.5


def names(manifest: Manifest) -> list[str]:
    """Return every name that `kit run` knows."""
    files = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(files | set(manifest.datasets))


def find(name: str, manifest: Manifest) -> Challenge:
    """Return a challenge.

    Raises:
        SettingsError: The name is unknown; the known ones are listed.
    """
    known = names(manifest)
    if name not in known:
        raise SettingsError(
            "challenge is unknown", expected=f"one of {', '.join(known)}", received=name,
            path=manifest.path, remedy=close(name, known),
        )  # fmt: skip
    settings: Mapping[str, Any] = {}
    style, dataset, official = Format(), name, None
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        module = importlib.import_module(f"{__name__}.{name}")
        settings, style, official = module.SETTINGS, module.STYLE, module.OFFICIAL
        dataset = getattr(module, "DATASET", name)
    return Challenge(name, manifest.dataset(dataset), settings, style, official)


def open_run(
    name: str, *, data: str | Path | None = None, out: str | Path | None = None,
    smoke: bool = False, settings: Mapping[str, Any] | None = None,
    folds: Sequence[int] | None = None, fold_table: str | Path | None = None,
    workers: int | None = None, time_budget: float | None = None,
) -> Run:  # fmt: skip
    """Open a run of a challenge; nothing is computed yet.

    Args:
        name: A challenge or a manifest dataset.
        data: Folder that the manifest's relative roots start from.
        out: Folder of the run; by default `submissions/<name>/<fingerprint of the settings>`.
        smoke: Small settings and, where there are no data, the embedded stand-in.
        settings: The user's own, over the defaults.
        folds: Fold numbers to train; None: all.
        fold_table: A folds table (CSV or Parquet) to use in place of our own.
        workers: Processes; None: what cores and accelerators allow; 0: train in this process.
        time_budget: Seconds in which the submission must stand; None: what the platform's session
            has left.

    Raises:
        MissingDataError: There are no data (and this is no smoke run without `data`).
        SettingsError: A name or setting is unknown, or `out` belongs to other settings.
    """
    manifest, platform = load_manifest(), platforms.detect()
    challenge = find(name, manifest)
    dataset = challenge.dataset
    root: Path | None = None
    try:
        root = dataset.root(data, platform.name if data is None else "local", mount=platform.data)
    except MissingDataError:
        if not smoke or data is not None:
            raise
        dataset = manifest.dataset(STAND_IN[dataset.kind])
        challenge = replace(challenge, dataset=dataset)
    for key in dataset.settings:
        if key not in defaults():
            raise SettingsError(
                f"setting {key!r} of dataset {dataset.name} is unknown", path=manifest.path,
                remedy=nearest(key, defaults()),
            )  # fmt: skip
    chosen = resolve(        dataset.kind, _of_entry(challenge), challenge.settings, smoke=smoke,
        overrides=settings or {},
    )  # fmt: skip
    if out is None:
        where = None if root is None else str(root.resolve())
        key = fingerprint([dataset.name, where, smoke, str(fold_table), settings_key(chosen)])
        label = f"{key}-SYNTHETIC" if dataset.synthetic else key
        out = _home(manifest, platform) / name / label
    if root is None:
        root = synthetic.make(dataset.name, Path(out) / "stand_in", scale=SMOKE_SCALE)
    ledger = _home(manifest, platform) / name / "ledger.csv"
    return Run(
        challenge, root, Path(out), chosen, smoke=smoke, ledger=ledger, folds=folds,
        fold_table=None if fold_table is None else Path(fold_table), workers=workers,
        time_budget=platform.left() if time_budget is None else time_budget,
    )  # fmt: skip


def wanted(
    name: str, settings: Mapping[str, Any] | None = None
) -> tuple[Dataset, Settings, int | None]:
    """Return what a run would be of, before any data are read.

    Returns:
        The dataset, the run's settings, and how many test cases the platform will ask for; None:
        nobody knows.
    """
    found = find(name, load_manifest())
    chosen = resolve(found.dataset.kind, _of_entry(found), found.settings, overrides=settings or {})
    awaited = real(name)
    return found.dataset, chosen, None if awaited is None else awaited.tests


def real(name: str) -> Real | None:
    """Return what awaits a challenge's run on its platform; None: nobody says."""
    if name not in {module.name for module in pkgutil.iter_modules(__path__)}:
        return None
    return getattr(importlib.import_module(f"{__name__}.{name}"), "REAL", None)


def _of_entry(challenge: Challenge) -> dict[str, Any]:
    """Return the settings that the dataset's entry gives."""
    dataset = challenge.dataset
    own = {"image_size": dataset.image_size, "mixed_sizes": dataset.mixed_sizes}
    return {**{k: v for k, v in own.items() if v is not None}, **dataset.settings}


def _home(manifest: Manifest, platform: platforms.Platform) -> Path:
    """Return the folder of all challenges' runs: beside a project's manifest, else here."""
    return home(manifest.path) / platform.output
