"""The run that made a submission: found by its folder or its bytes, and compared with the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import submission
from kit._submission_rows import Finding
from kit._submission_spread import elsewhere, other_shares
from kit.challenge import Challenge
from kit.ensemble import Ensemble
from kit.errors import MissingDataError
from kit.files import read_json, read_table, sha256

MARK = "SYNTHETIC"
SAME = 1e-6  # what nine digits leave of a probability, and some
ALIKE = 0.5  # rank correlation below which equal values stand at other cases
FEW = 10  # cases from which two labels exchanged everywhere are no chance


@dataclass(frozen=True)
class Made:
    """A run's folder, and what it says of a submission."""

    out: Path

    @cached_property
    def said(self) -> dict[str, Any]:
        """Return `settings.json`."""
        found: dict[str, Any] = read_json(self.out / "settings.json")
        return found

    @property
    def challenge(self) -> str:
        """Return what the run was of."""
        return str(self.said["compared"]["challenge"])

    @property
    def finished(self) -> bool:
        """Return whether the run went to its end."""
        names = ("ensemble.json", "metrics.json", "oof.parquet")
        return all((self.out / name).is_file() for name in names)

    def _predicted(self, *names: str) -> pd.DataFrame:
        """Return the first of the run's tables that has rows, joined by its ensemble."""
        tables = (read_table(self.out / f"{name}.parquet") for name in names)
        rows = next(table for table in tables if len(table))
        return Ensemble.from_dict(read_json(self.out / "ensemble.json")).predict(rows)

    def rows(self, challenge: Challenge, *, oof: bool = False) -> pd.DataFrame:
        """Return what the run submits, or would of its out-of-fold cases.

        Args:
            challenge: Whose format the rows have.
            oof: The out-of-fold cases rather than the test cases.
        """
        joined = self._predicted("oof") if oof else self._predicted("test", "oof")
        data, threshold = challenge.dataset, read_json(self.out / "ensemble.json")["threshold"]
        return submission.table(joined, challenge.style, data.classes, data.positive, threshold)


def of_folder(out: Path) -> Made:
    """Return a finished run.

    Raises:
        MissingDataError: The folder holds none.
    """
    made = Made(Path(out))
    if not (made.out / "settings.json").is_file() or not made.finished:
        raise MissingDataError(
            "no finished run", path=out, remedy="finish it with the `kit run` command that made it"
        )
    return made


def find(path: Path, runs: Path) -> Made | None:
    """Return the run in whose folder a submission lies, or below `runs` one of the same bytes."""
    for folder in _places(path, runs):
        if (folder / "settings.json").is_file():
            return Made(folder)
    return None


def _places(path: Path, runs: Path) -> Iterator[Path]:
    yield path.resolve().parent
    if path.is_file():
        size, mine = path.stat().st_size, sha256(path)
        for other in sorted(runs.glob("*/submission.csv")):
            if other.stat().st_size == size and sha256(other) == mine:
                yield other.parent


def stand_in(path: Path, made: Made | None) -> list[Finding]:
    """Return that a run on stand-in data made the file: its mark is beside it, or in its run."""
    folder = path.resolve().parent
    marked = folder.name.endswith(MARK) or (folder / f"{MARK}.txt").is_file()
    if not marked and not (made is not None and made.said.get("synthetic")):
        return []
    return [Finding("stand_in", "a run on stand-in data made it", "real data",
                    f"the mark {MARK} of {made.out if made else folder}",
                    remedy="give `kit run` the challenge's data: --data DIR")]  # fmt: skip


def compare(rows: pd.DataFrame, made: Made, challenge: Challenge) -> list[Finding]:
    """Return how a submission differs from what its run says.

    Args:
        rows: Its rows as text, ids and values right each by itself.
        made: The run.
        challenge: Whose format the rows have.
    """
    style, own = challenge.style, made.rows(challenge)
    column = style.value_column
    if style.value == "all":
        column = f"prob_{challenge.dataset.positive or challenge.dataset.classes[-1]}"
    pairs = rows.merge(own, on=style.id_column, suffixes=("", "_own"))
    oof = made.rows(challenge, oof=True)[column]
    found = []
    if style.value == "label":
        if len(pairs):
            found = _other_labels(pairs[column], pairs[f"{column}_own"].astype(str), challenge)
        return found + other_shares(rows[column].tolist(), oof.astype(str).tolist())
    values = rows[column].astype(float).to_numpy()
    if len(pairs):
        found = _other_numbers(pairs[column].astype(float), pairs[f"{column}_own"])
    if len(pairs) and style.value == "all" and not found:  # the numbers are the run's
        label = style.value_column
        found = _other_labels(pairs[label], pairs[f"{label}_own"].astype(str), challenge)
    return found + elsewhere(values, oof.to_numpy(dtype=float))


def _other_numbers(values: pd.Series, own: pd.Series) -> list[Finding]:
    if np.allclose(values, own, atol=SAME):
        return []
    if np.allclose(values, 1 - own, atol=SAME):
        return [Finding("other_class", "these are the probabilities of the other class",
                        received="1 less what the run says",
                        remedy="submit the run's own file")]  # fmt: skip
    likeness = float(values.corr(own, method="spearman"))
    if np.allclose(np.sort(values), np.sort(own), atol=SAME) and likeness < ALIKE:
        return [_moved(likeness)]
    return [_differs(f"rank correlation {likeness:.3f}")]


def _moved(likeness: float) -> Finding:
    return Finding(
        "other_cases", "the run's values stand at other cases", "each value at its own id",
        f"the same values in another order, rank correlation {likeness:.2f}",
        remedy="join by the id: rows were copied by position",
    )  # fmt: skip


def _other_labels(labels: pd.Series, own: pd.Series, challenge: Challenge) -> list[Finding]:
    apart = int((labels != own).sum())
    if not apart:
        return []
    if apart == len(labels) >= FEW and len(challenge.dataset.classes) == 2:
        return [Finding("other_class", "each label is the other class", "the run's labels",
                        "all exchanged", remedy="look at the codes of the classes")]  # fmt: skip
    return [_differs(f"{apart} of {len(labels)} labels differ")]


def _differs(how: str) -> Finding:
    return Finding(
        "not_of_the_run", "not what the run wrote", "the run's own values", how,
        remedy="nothing to do for an ensemble or another threshold", level="warning",
    )  # fmt: skip
