"""Challenges by name: a file of this package, or else a manifest dataset as its kind defaults.

A file names its settings (`SETTINGS`), or those of several recipes by name: `RECIPES`, in which
`kit` is the default and `team` what the team of that challenge did. `SMOKE` may say, by recipe,
what a smoke run of it keeps or changes besides; `FORBIDS`, which settings its rules do not allow.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kit import platforms, synthetic
from kit.challenge import Challenge, Real
from kit.checks import close, nearest
from kit.errors import MissingDataError, SettingsError
from kit.files import fingerprint
from kit.ledger import Quota
from kit.manifest import Dataset, Manifest, home, load_manifest
from kit.pipeline import Run
from kit.settings import Settings, defaults, resolve, settings_key

STAND_IN = {
    "slides": "synthetic_slides", "patches": "synthetic_patches", "images": "synthetic_fundus",
    "dicom": "synthetic_mri", "arrays": "synthetic_patches",
}  # fmt: skip
"""The embedded data set that a smoke run without data takes, by kind, where nothing stands in for
its own."""
SMOKE_SCALE = {"help2019": 0.1, "khd2020": 0.015, "khd2019": 0.03, "rsna2021": 0.08}
"""Share of a stand-in that a smoke run draws; of an embedded set, half."""
OWN = "kit"
"""The recipe that is run where none is named."""


def names(manifest: Manifest) -> list[str]:
    """Return every name that `kit run` knows."""
    return sorted(_files() | set(manifest.datasets))


def recipes(name: str) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each recipe of a challenge; a manifest dataset has only the kit's."""
    if name not in _files():
        return {OWN: {}}
    module = _module(name)
    return dict(getattr(module, "RECIPES", None) or {OWN: module.SETTINGS})


def _files() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def find(name: str, manifest: Manifest, recipe: str = OWN) -> Challenge:
    """Return a challenge, with one of its recipes.

    Raises:
        SettingsError: The name or the recipe is unknown; the known ones are listed.
    """
    known = names(manifest)
    if name not in known:
        raise SettingsError(
            "challenge is unknown", expected=f"one of {', '.join(known)}", received=name,
            path=manifest.path, remedy=close(name, known),
        )  # fmt: skip
    settings = recipes(name)
    if recipe not in settings:
        raise SettingsError(
            f"{name} has no such recipe", expected=f"one of {', '.join(settings)}",
            received=f"recipe={recipe}", remedy=close(recipe, settings),
        )  # fmt: skip
    if name not in _files():
        return Challenge(name, manifest.dataset(name), settings[recipe])
    module = _module(name)
    return Challenge(
        name, manifest.dataset(getattr(module, "DATASET", name)), settings[recipe], module.STYLE,
        module.OFFICIAL, recipe, getattr(module, "SMOKE", {}).get(recipe, {}),
        getattr(module, "FORBIDS", {}),
    )  # fmt: skip


def open_run(
    name: str, *, data: str | Path | None = None, out: str | Path | None = None,
    recipe: str = OWN, smoke: bool = False, settings: Mapping[str, Any] | None = None,
    folds: Sequence[int] | None = None, fold_table: str | Path | None = None,
    workers: int | None = None, time_budget: float | None = None,
) -> Run:  # fmt: skip
    """Open a run of a challenge; nothing is computed yet.

    Args:
        name: A challenge or a manifest dataset.
        data: Folder that the manifest's relative roots start from.
        out: Folder of the run; by default `submissions/<name>/<fingerprint of the settings>`.
        recipe: Which of the challenge's recipes: its settings stand under the user's own.
        smoke: Small settings and, where there are no data, the embedded stand-in.
        settings: The user's own, over the defaults.
        folds: Fold numbers to train; None: all.
        fold_table: A folds table (CSV or Parquet) to use in place of our own.
        workers: Processes; None: what cores and accelerators allow; 0: train in this process.
        time_budget: Seconds in which the submission must stand; None: what the platform's session
            has left.

    Raises:
        MissingDataError: There are no data (and this is no smoke run without `data`).
        SettingsError: A name, recipe or setting is unknown, or `out` belongs to other settings.
    """
    manifest, platform = load_manifest(), platforms.detect()
    challenge = find(name, manifest, recipe)
    dataset = challenge.dataset
    root: Path | None = None
    try:
        root = dataset.root(data, platform.name if data is None else "local", mount=platform.data)
    except MissingDataError:
        if not smoke or data is not None:
            raise
        if dataset.name not in synthetic.STAND_INS:
            dataset = manifest.dataset(STAND_IN[dataset.kind])
    if root is None or synthetic.drawn(root):
        dataset = dataset.model_copy(update={"synthetic": True})
        challenge = replace(challenge, dataset=dataset)
    for key in dataset.settings:
        if key not in defaults():
            raise SettingsError(
                f"setting {key!r} of dataset {dataset.name} is unknown", path=manifest.path,
                remedy=nearest(key, defaults()),
            )  # fmt: skip
    small = challenge.smoke if smoke else {}
    chosen = resolve(
        dataset.kind, _of_entry(challenge), challenge.settings, smoke=smoke,
        overrides={**small, **(settings or {})},
    )  # fmt: skip
    _check_rules(challenge, chosen)
    place = _home(manifest, platform) / name if out is None else Path(out)
    if out is None:
        where = None if root is None else str(root.resolve())
        key = fingerprint([dataset.name, where, smoke, str(fold_table), settings_key(chosen)])
        label = f"{key}-SYNTHETIC" if dataset.synthetic else key
        out = place / label
    if root is None:
        share = SMOKE_SCALE.get(dataset.name, 0.5)
        root = synthetic.make(dataset.name, place / "stand_in", scale=share)
    ledger = _home(manifest, platform) / name / "ledger.csv"
    return Run(  # processes, and machines even more, may have another working folder
        challenge, root.absolute(), Path(out).absolute(), chosen, smoke=smoke, ledger=ledger,
        folds=folds, fold_table=None if fold_table is None else Path(fold_table), workers=workers,
        time_budget=platform.left() if time_budget is None else time_budget,
    )  # fmt: skip


def _check_rules(challenge: Challenge, chosen: Settings) -> None:
    """Raise where a setting breaks a rule of the challenge."""
    for key, rule in challenge.forbids.items():
        if getattr(chosen, key) != defaults()[key]:
            raise SettingsError(
                f"the rules of {challenge.name} do not allow {key}", expected=rule,
                received=f"{key}={getattr(chosen, key)}",
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
    return getattr(_module(name), "REAL", None) if name in _files() else None


def _of_entry(challenge: Challenge) -> dict[str, Any]:
    """Return the settings that the dataset's entry gives."""
    dataset = challenge.dataset
    own = {"image_size": dataset.image_size, "mixed_sizes": dataset.mixed_sizes}
    return {**{k: v for k, v in own.items() if v is not None}, **dataset.settings}


def _home(manifest: Manifest, platform: platforms.Platform) -> Path:
    """Return the folder of all challenges' runs: beside a project's manifest, else here."""
    return home(manifest.path) / platform.output


def place(name: str) -> Path:
    """Return the folder of a challenge's runs, with its ledger, on this platform."""
    return _home(load_manifest(), platforms.detect()) / name


def quota(name: str) -> Quota | None:
    """Return how many submissions the challenge takes; None where it states nothing."""
    return getattr(_module(name), "QUOTA", None) if name in _files() else None
