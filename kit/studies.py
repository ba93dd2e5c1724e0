"""Studies of DICOM series in a run: which slices are images, how they are read, what is noted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit import images, volumes
from kit.checks import first
from kit.dicom import middle_slices
from kit.errors import SettingsError
from kit.files import holds_files
from kit.manifest import Dataset
from kit.settings import Settings, defaults

OWN = ("channels", "scaling", "votes")
PLAN, READ = OWN[:1], OWN[:2]
"""Settings of studies alone: all of them, those that decide a plan, and those of the pixels."""
DEPTH = {"slice": 1, "neighbours": 3}


def check(dataset: Dataset, settings: Settings) -> None:
    """Raise where settings of studies fit neither the kind nor the entry.

    Raises:
        SettingsError: They are set for cases that are no studies, or for series that the entry
            does not name.
    """
    for name in OWN:
        value = getattr(settings, name)
        if dataset.kind != "dicom" and value != defaults()[name]:
            raise SettingsError(
                f"{name} is of kind dicom alone", received=f"{name}={value}",
                expected=f"nothing, for dataset {dataset.name} of kind {dataset.kind}",
            )  # fmt: skip
    if settings.channels == "series" and not dataset.all_series:
        raise SettingsError(
            f"dataset {dataset.name} does not say which series are the channels",
            expected="all_series: [...] in its entry", received="channels=series",
            path=dataset.manifest, remedy="--set channels=neighbours reads one series",
        )  # fmt: skip


def plan(
    case_id: str, folder: Path, label: str | None, channels: str, names: Sequence[str]
) -> pd.DataFrame:
    """Return the middle slices of one study; `y` is the slice, because a slice is a crop in z.

    Columns `case_id, x, y, label` and `notes`, what is not as it should be with its series.
    """
    n, notes = volumes.notes(folder, channels, names)
    chosen = middle_slices(n)
    return pd.DataFrame({"case_id": case_id, "x": 0, "y": chosen, "label": label, "notes": notes})


def read(
    root: Path, size: int, how: images.Fit, channels: str, scaling: str, names: Sequence[str],
    rows: pd.DataFrame,
) -> np.ndarray:  # fmt: skip
    """Return planned slices of several studies, uint8, shape (n, size, size, channels)."""
    result = np.zeros((len(rows), size, size, DEPTH.get(channels, len(names))), np.uint8)
    for path, slices in rows.reset_index(drop=True).groupby("path"):
        found = volumes.study_slices(
            root / str(path), slices.y.to_numpy(), channels=channels, scaling=scaling, names=names
        )
        result[slices.index] = np.stack([images.fit(one, size, how) for one in found])
    return result


def beside(dataset: Dataset, settings: Settings, place: Path) -> list[Path]:
    """Return the folders of a study's other series that are read with the one at `place`."""
    if settings.channels != "series":
        return []
    others = [place.parent / name for name in dataset.all_series if name != place.name]
    return [other for other in others if holds_files(other)]


def cautions(planned: pd.DataFrame | None) -> list[str]:
    """Return a line on the studies whose series are not as they should be, if there are any.

    Args:
        planned: The patches table; that of other kinds carries no notes.
    """
    if planned is None or "notes" not in planned:
        return []
    noted = planned[planned.notes != ""].drop_duplicates("case_id")
    lines = [f"{row.case_id} ({row.notes})" for row in noted.itertuples()]
    many = "1 study has" if len(lines) == 1 else f"{len(lines)} studies have"
    return [f"{many} odd series: {first(lines, 3)}"] if lines else []
