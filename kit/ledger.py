"""The ledger of a challenge: what was made, what was handed in, and what the judge said.

Lines are only ever added (`kit._ledger_file`). A score is a line of its own, with the id of the
submission that it is of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from kit._ledger_file import FIELDS, append, lines, locked
from kit.checks import close
from kit.errors import LedgerError
from kit.files import sha256
from kit.official import Official

MADE, SUBMITTED, SCORED = "made", "submitted", "scored"
FEW = 5
"""Scored submissions below which nothing is said of their order."""


@dataclass(frozen=True)
class Quota:
    """How many submissions a platform takes: in any hour, or on a day as UTC counts it."""

    most: int
    per: Literal["hour", "day"]

    def free_at(self, times: list[datetime], now: datetime) -> datetime:
        """Return from when on the next submission is allowed: `now`, or later.

        Args:
            times: When the earlier ones were handed in, with their zones.
            now: The time asked about.
        """
        begin = now - timedelta(hours=1)
        if self.per == "day":
            begin = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        recent = sorted(one for one in times if one > begin or (self.per == "day" and one >= begin))
        if len(recent) < self.most:
            return now
        if self.per == "day":
            return begin + timedelta(days=1)
        return recent[-self.most] + timedelta(hours=1)

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.most} a{'n' if self.per == 'hour' else ''} {self.per}"


def read(ledger: Path) -> pd.DataFrame:
    """Return a row for each submission, as text: what was made, and what became of it.

    Columns: `id, time, run, fingerprint, metric, local, low, high` of its making, `submitted`, the
    time, and the last `leaderboard` score and `note`; "" where there is none. An absent file has no
    rows.

    Raises:
        LedgerError: It was edited by hand or cut; says in which line.
    """
    found: dict[str, dict[str, str]] = {}
    for line in lines(ledger):
        row = found.setdefault(line["id"], {**line, "submitted": "", "note": ""})
        if line["event"] in (SUBMITTED, SCORED):
            row["submitted"] = row["submitted"] or line["time"]
        if line["event"] == SCORED:
            row["leaderboard"] = line["leaderboard"]
        row["note"] = line["note"] or row["note"]
    names = [name for name in FIELDS if name != "event"]
    names.insert(2, "submitted")
    return pd.DataFrame(list(found.values()), columns=names, dtype=str)


def record(ledger: Path, line: Mapping[str, object]) -> str:
    """Enter what a run made, unless the same line stands there already; return its id.

    The file is locked while it is read and written, and replaced whole; older lines stay as they
    are, to the byte.

    Args:
        ledger: The challenge's file.
        line: `run`, `fingerprint` of the submission, `metric`, its value `local` with `low` and
            `high`; None where undefined.

    Raises:
        LedgerError: The ledger was edited by hand or cut, or cannot be written.
    """
    with locked(ledger):
        said = {name: _text(line.get(name)) for name in FIELDS[3:]}
        known = read(ledger)
        keys = ["run", "fingerprint", "metric", "local", "low", "high"]
        same = known[(known[keys] == pd.Series(said)[keys]).all(axis=1)]
        if len(same):
            return str(same["id"].iloc[-1])
        name = f"{ledger.parent.name}-{len(known) + 1}"
        append(ledger, {**said, "id": name, "event": MADE})
        return name


def submit(
    ledger: Path, name: str, quota: Quota | None = None, *, note: str = "",
    now: datetime | None = None,
) -> None:  # fmt: skip
    """Enter that a submission is handed in, if the platform still takes one.

    Args:
        ledger: The challenge's file.
        name: Id, fingerprint or run of the submission.
        quota: How many the platform takes; None: as many as come.
        note: What to remember.
        now: The time; None: the clock's.

    Raises:
        LedgerError: The quota is spent: says when the next is taken; or there is no such line.
    """
    with locked(ledger):
        found = _find(ledger, name)
        if found["submitted"]:
            raise LedgerError("it was handed in before", received=f"{found['id']}, "
                              f"{found['submitted']}", path=ledger,
                              remedy="its line stands: hand it in again if the upload failed, "
                              "then kit ledger score")  # fmt: skip
        now = now or datetime.now(UTC)
        free = free_at(ledger, quota, now)
        if quota is not None and free > now:
            raise LedgerError(
                "the quota is spent", expected=f"at most {quota}", path=ledger,
                remedy=f"hand it in from {free.astimezone().strftime('%Y-%m-%d %H:%M %Z')} on",
            )  # fmt: skip
        append(ledger, {"id": found["id"], "event": SUBMITTED, "note": note}, now)


def score(ledger: Path, name: str, value: float, *, note: str = "") -> str:
    """Enter the leaderboard's score of a submission; a later one counts. Return its id.

    Raises:
        LedgerError: The score is no number, or there is no such line.
    """
    if not math.isfinite(value):
        raise LedgerError("the leaderboard's score must be a number", received=value)
    with locked(ledger):
        found = _find(ledger, name)
        line = {"id": found["id"], "event": SCORED, "leaderboard": repr(float(value)), "note": note}
        append(ledger, line)
    return found["id"]


def free_at(ledger: Path, quota: Quota | None, now: datetime) -> datetime:
    """Return from when on the platform takes the next submission: `now`, or later."""
    if quota is None:
        return now
    handed = read(ledger)["submitted"]
    return quota.free_at([datetime.fromisoformat(one) for one in handed if one], now)


def _find(ledger: Path, name: str) -> dict[str, str]:
    """Return the submission of an id, or the last one of a fingerprint or run."""
    known = read(ledger)
    for column in ("id", "fingerprint", "run"):
        same = known[known[column] == name]
        if len(same) and name:
            return {str(key): str(one) for key, one in same.iloc[-1].items()}
    raise LedgerError(
        "no such submission", received=name, path=ledger,
        remedy=close(name, [*known["id"], *known["run"]]) or "kit ledger show",
    )  # fmt: skip


def mark(path: Path) -> str:
    """Return the fingerprint of a submission's bytes, by which its line is found again."""
    return sha256(path)[:16]


def local(metrics: Mapping[str, Any], official: Official | None) -> dict[str, object]:
    """Return the local score of a run as a ledger's line has it: in points of the judge.

    Args:
        metrics: As in a run's `metrics.json`.
        official: The judge's scorer; None: the mean of six is taken.
    """
    name, scale = ("mean_of_six", 1.0) if official is None else (official.beside, official.scale)
    ends = {"local": "value", "low": "low", "high": "high"}
    figure = metrics[name]
    return {"metric": name, **{
        key: None if figure[end] is None else scale * figure[end] for key, end in ends.items()
    }}  # fmt: skip


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """Return the submissions that have both scores, with numbers in place of text.

    Args:
        table: As `read` returns it.

    Returns:
        `local, low, high, leaderboard` are float64; an end that is not known is NaN.
    """
    names = ["local", "low", "high", "leaderboard"]
    rows = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in names})
    return rows[rows["local"].notna() & rows["leaderboard"].notna()].reset_index(drop=True)


def meaning(table: pd.DataFrame) -> list[str]:
    """Return what the gap between local and leaderboard scores says, and what it does not.

    Args:
        table: As `read` returns it.

    Source: for the order, Kendall's tau with its exact test (Kendall 1938, 10.2307/2332226).
    """
    rows = scored(table)
    if not len(rows):
        judged = int((table["leaderboard"] != "").sum())
        missing = (
            f"the {judged} judged have no local score: kit ledger submit FILE --run RUN gives it"
            if judged else "kit ledger score ID VALUE"
        )  # fmt: skip
        return [f"no submission has both scores yet: nothing can be said ({missing})"]
    gap = rows["leaderboard"] - rows["local"]
    said = [f"leaderboard less local: {gap.mean():+.4f}"]
    if len(rows) > 1:
        said = [f"{said[0]} on average of {len(rows)}, from {gap.min():+.4f} to {gap.max():+.4f}"]
    order = _order(rows)
    shared = "all are judged on the same cases and share their luck"
    if "a worse one there" in order:
        shared += "; the local score does not measure what is judged: look at it before you choose"
    else:
        shared += ": choose by the local score"
    return [*said, _inside(rows), order, shared]


def _inside(rows: pd.DataFrame) -> str:
    """Return how many leaderboard scores lie within the local intervals, and what that means."""
    known = rows[rows["low"].notna() & rows["high"].notna()]
    if not len(known):
        return "the local scores have no interval: whether the gap is chance cannot be told"
    below = int((known["leaderboard"] < known["low"]).sum())
    above = int((known["leaderboard"] > known["high"]).sum())
    inside = len(known) - below - above
    share = f"{inside} of {len(known)} leaderboard scores lie in the local 95 % interval"
    parts = [f"{n} {side}" for n, side in ((below, "below"), (above, "above")) if n]
    share = ", ".join([share, " and ".join(parts)]) if parts else share
    if len(known) < FEW:
        return f"{share}; from fewer than {FEW} no claim is made"
    if not parts:
        return f"{share}: chance among our own patients is enough to explain the gap"
    flatters = ", or a local score that flatters" if below else ""
    return (
        f"{share}: more than chance among our own patients; the judge's cases have theirs besides, "
        f"and may be of other patients, scanners or prevalence{flatters}"
    )


def _order(rows: pd.DataFrame) -> str:
    """Return whether a better local score went with a better leaderboard score."""
    if len(rows) < FEW:
        return (f"{len(rows)} scored, fewer than {FEW}: no claim whether a better local score is a "
                "better one there")  # fmt: skip
    from scipy.stats import kendalltau

    found = kendalltau(rows["local"], rows["leaderboard"])
    if math.isnan(found.statistic):
        return "one score is the same for all: their order says nothing"
    said = f"Kendall's tau {found.statistic:.2f}, p = {found.pvalue:.3f}, {len(rows)} scored"
    if found.pvalue < 0.05:
        other = "better" if found.statistic > 0 else "worse"
        return f"a better local score went with a {other} one there: {said}"
    return f"whether a better local score is a better one there cannot be told: {said}"


def _text(value: object) -> str:
    """Return a cell: "" where nothing is known, a number with all its digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)
