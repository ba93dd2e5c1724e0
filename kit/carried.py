"""What a prediction needs of a finished run, and nothing else: to another folder or platform."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit import finished
from kit.files import read_json, write_json

ENSEMBLE = "ensemble.json"
KEPT = ("settings.json", "ensemble.json", "metrics.json", "rule.json", "SYNTHETIC.txt")
"""Beside the networks; the last says that data were drawn."""


def carry(out: Path, folder: Path) -> list[Path]:
    """Copy a finished run's networks, each verified, and what a prediction needs, side by side.

    `kit.finished.load(folder)` takes the copy as it takes the run. Of an ensemble's JSON, which
    stands in the copy as `ensemble.json`, each run has a folder of its own.

    Raises:
        MissingDataError: A run is not finished, or a network is missing or damaged.
    """
    if Path(out).is_file():
        return _ensemble(Path(out), folder)
    copied = [Path(shutil.copy(path, folder / path.name)) for path in files(out)]
    _without_folder(folder / "settings.json")
    return copied


def _ensemble(path: Path, folder: Path) -> list[Path]:
    copied, places = [], {}
    for number, (name, run) in enumerate(finished.load_all(path).items(), start=1):
        places[name] = f"run{number}"
        (folder / places[name]).mkdir()
        copied += carry(run.out, folder / places[name])
    write_json(folder / ENSEMBLE, {**read_json(path), "runs": places})
    return [*copied, folder / ENSEMBLE]


def _without_folder(path: Path) -> None:
    """Keep of a teacher, a run's folder on this machine, the name alone: no prediction asks it."""
    said = read_json(path)
    for part in ("settings", "compared"):
        if said.get(part, {}).get("teacher"):
            said[part]["teacher"] = Path(said[part]["teacher"]).name
    write_json(path, said)


def files(out: Path) -> list[Path]:
    """Return the files that are carried, the networks and their notes last."""
    run = finished.load(out)
    kept = [Path(out) / name for name in KEPT if (Path(out) / name).is_file()]
    networks = [*run.models, *run.pooling]
    return [*kept, *networks, *(network.with_suffix(".json") for network in networks)]


def megabytes(out: Path) -> float:
    """Return the size of what is carried, in MB of 1e6 bytes."""
    return sum(path.stat().st_size for path in files(out)) / 1e6
