"""A submission judged before it is handed in: all that is wrong with it, not the first thing only.

`kit.submission.validate` asks whether a file is what the platform takes; this also asks whether it
can be right: which cases are demanded and in what order, whether the values can be a network's, and
whether they are those of the run that made the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit import _submission_run as runs
from kit._submission_cells import of_ids, of_values
from kit._submission_rows import SEPARATORS, Finding, Format, is_number, read
from kit._submission_run import Made
from kit._submission_spread import of_column
from kit.challenge import Challenge
from kit.checks import first
from kit.errors import MissingDataError, SettingsError, SubmissionError


@dataclass(frozen=True)
class Verdict:
    """What is said of a submission.

    Args:
        findings: All that was found, errors first.
        cases: Rows that could be read.
        ids_from: What says which cases are demanded: "sample", "run" or "nothing".
        run: Folder of the run that it was compared with.
    """

    findings: tuple[Finding, ...]
    cases: int
    ids_from: str
    run: Path | None

    @property
    def accepted(self) -> bool:
        """Return whether nothing speaks against it."""
        return not _refused(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: `accepted`, `cases`, `ids_from`, `run`, `errors`, `warnings`."""
        said: dict[str, Any] = {
            "accepted": self.accepted, "cases": self.cases, "ids_from": self.ids_from,
            "run": self.run and str(self.run),
        }  # fmt: skip
        for level in ("error", "warning"):
            said[f"{level}s"] = [
                {"rule": one.rule, "message": str(one.error())}
                for one in self.findings
                if one.level == level
            ]
        return said


def _refused(findings: Iterable[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def check(
    path: Path, challenge: Challenge, *, sample: Path | None = None, run: Path | None = None,
    runs_in: Path | None = None, others: Iterable[Challenge] = (),
) -> Verdict:  # fmt: skip
    """Judge a submission.

    Args:
        path: The file.
        challenge: What it is handed in to.
        sample: The platform's sample, in its format: its ids, in its order, are demanded.
        run: Folder of the run to compare with; None: the one in whose folder the file lies, or
            one in `runs_in` that wrote the same bytes. Its cases are demanded if there is no
            sample.
        runs_in: Folder of the challenge's runs.
        others: Other challenges, whose submissions are recognised.

    Raises:
        SubmissionError: There is no such file, or the sample cannot be read.
        MissingDataError: `run` is no finished run.
        SettingsError: `run` is of another challenge.
    """
    if not Path(path).is_file():
        raise SubmissionError("no such file", expected="a submission", path=path)
    made = _made(Path(path), challenge, run, runs_in)
    ids = None if sample is None else _ids_of(sample, challenge)
    ids_from = "nothing" if sample is None else "sample"
    if ids is None and made is not None and made.finished and made.challenge == challenge.name:
        ids, ids_from = list(made.rows(challenge)[challenge.style.id_column]), "run"
    found = runs.stand_in(Path(path), made)
    rows, wrong = read(path, challenge.style, challenge.dataset.classes)
    if made is not None and made.challenge != challenge.name:
        found.append(_of_other(made.challenge, f"the run {made.out}"))
    elif rows is None:
        found += _recognised(Path(path), challenge, ids, others) or wrong
    else:
        found += [*wrong, *_contents(rows, challenge, ids, ordered=sample is not None)]
        if made is not None and made.finished and not _refused(found):
            found += runs.compare(rows, made, challenge)
    found += _unknown(ids_from, made)
    found.sort(key=lambda one: one.level == "warning")
    cases = 0 if rows is None else len(rows)
    return Verdict(tuple(found), cases, ids_from, None if made is None else made.out)


def _made(path: Path, challenge: Challenge, run: Path | None, runs_in: Path | None) -> Made | None:
    """Return the run to compare with, if there is any."""
    if run is None:
        return runs.find(path, runs_in or path.parent)
    made = runs.of_folder(run)
    if made.challenge != challenge.name:
        raise SettingsError("the run is of another challenge", expected=challenge.name,
                            received=made.challenge, path=run)  # fmt: skip
    return made


def _ids_of(sample: Path, challenge: Challenge) -> list[str]:
    """Return the ids of a platform's sample, in its order; its values may be anything."""
    if not Path(sample).is_file():
        raise MissingDataError("no such sample", path=sample,
                               remedy="it comes with the challenge's data")  # fmt: skip
    rows, found = read(sample, challenge.style, challenge.dataset.classes)
    if rows is None:
        raise SubmissionError(
            f"the sample is not in {challenge.name}'s format: {found[-1].what}",
            expected=found[-1].expected, received=found[-1].received, path=sample,
        )  # fmt: skip
    ids = rows[challenge.style.id_column]
    if ids.duplicated().any():
        raise SubmissionError("the sample doubles ids", path=sample,
                              received=first(ids[ids.duplicated()]))  # fmt: skip
    return [str(name) for name in ids]


def _contents(
    rows: pd.DataFrame, challenge: Challenge, ids: Sequence[str] | None, *, ordered: bool
) -> list[Finding]:
    style, classes = challenge.style, challenge.dataset.classes
    found = of_ids(rows[style.id_column], ids, ordered=ordered)
    found = found or _form(rows[style.id_column], challenge)
    values = of_values(rows, style, classes)
    return found + (values or of_column(rows, style, classes))


def _form(ids: pd.Series, challenge: Challenge) -> list[Finding]:
    """Return whether ids are written as the data set writes them, such as 00012."""
    table = challenge.dataset.table
    if table is None or table.id_format is None:
        return []
    bare = [str(name).removesuffix(challenge.style.suffix) for name in ids]
    bad = [name for name in bare if not _is_written(name, table.id_format)]
    if not bad:
        return []
    return [Finding("form_of_ids", "ids are not written as the data's",
                    f"such as {table.id_format.format(12)}", first(bad),
                    remedy="keep ids as text, with the zeros at their front")]  # fmt: skip


def _is_written(name: str, form: str) -> bool:
    if not is_number(name) or not float(name).is_integer():
        return not form.startswith("{:0")
    return form.format(int(float(name))) == name


def _recognised(
    path: Path, challenge: Challenge, ids: Sequence[str] | None, others: Iterable[Challenge]
) -> list[Finding]:
    """Return that a file is another challenge's, unless one slip alone makes it differ from ours.

    Such a slip is a wrong separator, or a header too many or too few.
    """
    mine = challenge.style
    slips = [replace(mine, separator=other) for other in SEPARATORS]
    for slip in [*slips, replace(mine, header=not mine.header)]:
        if _fits(path, slip, challenge, ids):
            return []
    names = [other.name for other in others if _fits(path, other.style, other, None)]
    return [_of_other(first(names), "the file's columns and values")] if names else []


def _fits(path: Path, style: Format, challenge: Challenge, ids: Sequence[str] | None) -> bool:
    rows, _ = read(path, style, challenge.dataset.classes)
    if rows is None:
        return False
    found = _contents(rows, replace(challenge, style=style), ids, ordered=False)
    return not _refused(found)


def _of_other(name: str, how: str) -> Finding:
    return Finding("other_challenge", f"this is a submission of {name}", received=how,
                   remedy="give the right file, or that --challenge")  # fmt: skip


def _unknown(ids_from: str, made: Made | None) -> list[Finding]:
    """Return what could not be checked, as warnings."""
    found = []
    if ids_from == "nothing":
        found.append(Finding("ids_unknown", "which cases are demanded is not known",
                             remedy="give --sample FILE or --run RUN",
                             level="warning"))  # fmt: skip
    if made is None:
        found.append(Finding("run_unknown", "not compared with out-of-fold predictions",
                             remedy="give --run RUN", level="warning"))  # fmt: skip
    elif made.said["compared"].get("smoke"):
        found.append(Finding("smoke", "a smoke run made it: small settings",
                             remedy="kit run without --smoke", level="warning"))  # fmt: skip
    return found
