"""Write a submission, validate it, and keep the ledger of what was handed in."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.checks import first
from kit.errors import SubmissionError
from kit.files import write_text

LEDGER = ["time", "run", "fingerprint", "mean_of_six", "low", "high", "auc", "leaderboard", "note"]
PATIENCE = 10.0
"""Seconds to wait for another writer of the ledger."""


@dataclass(frozen=True)
class Format:
    """What a platform takes: one line a case.

    `value` is "probability" (of the positive class), "label", or "all": the label and the
    probability of each class, which is the kit's own format.
    """

    id_column: str = "case_id"
    value_column: str = "label"
    value: str = "all"
    header: bool = True
    separator: str = ","
    codes: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


def table(predictions: pd.DataFrame, style: Format, classes: Sequence[str], positive: str | None,
          threshold: float | None) -> pd.DataFrame:  # fmt: skip
    """Return the submission's rows, sorted by case.

    Args:
        predictions: One row for each case: `case_id`, `prob_<class>`.
        style: The platform's format.
        classes: All classes.
        positive: The positive class of two; None above two.
        threshold: Frozen threshold of the positive class; None: the largest probability.

    Raises:
        SubmissionError: A case has no probability.
    """
    rows = predictions.sort_values("case_id", ignore_index=True)
    prob = rows[[f"prob_{name}" for name in classes]].to_numpy(dtype=float)
    bare = np.isnan(prob).any(axis=1)
    if bare.any():
        raise SubmissionError("cases without a probability", received=first(rows.case_id[bare]))
    if threshold is not None and positive is not None:
        (other,) = [name for name in classes if name != positive]
        label = np.where(rows[f"prob_{positive}"] >= threshold, positive, other)
    else:
        label = np.asarray(classes, dtype=object)[prob.argmax(axis=1)]
    result = pd.DataFrame({style.id_column: rows.case_id + style.suffix})
    if style.value == "probability":
        result[style.value_column] = rows[f"prob_{positive}"]
        return result
    codes = dict(style.codes)
    result[style.value_column] = [codes.get(str(name), str(name)) for name in label]
    if style.value == "all":
        for name in classes:
            result[f"prob_{name}"] = rows[f"prob_{name}"]
    return result


def completed(
    predictions: pd.DataFrame, asked: Sequence[str] | None, classes: Sequence[str]
) -> pd.DataFrame:
    """Return a row for each case that is asked for, joined by id, and no other.

    A case without a prediction (its image is missing) speaks for no class: the probability of each
    is the same, 0.5 of two.

    Args:
        predictions: One row for each case: `case_id`, `prob_<class>`.
        asked: The ids that the platform asks for; None: those of the predictions.
        classes: All classes.
    """
    if asked is None:
        return predictions
    rows = pd.DataFrame({"case_id": list(asked)}).merge(predictions, on="case_id", how="left")
    names = [f"prob_{name}" for name in classes]
    return rows.assign(**{name: rows[name].fillna(1 / len(names)) for name in names})


def write(path: Path, rows: pd.DataFrame, style: Format) -> Path:
    """Write the submission: UTF-8, LF, nine digits, whole or not at all."""
    text = rows.to_csv(
        index=False, header=style.header, sep=style.separator, float_format="%.9g",
        lineterminator="\n",
    )  # fmt: skip
    write_text(path, text)
    return path


def validate(path: Path, style: Format, case_ids: Sequence[str], classes: Sequence[str]) -> None:
    """Read a submission back and raise `SubmissionError` on the first thing wrong with it.

    Args:
        path: The file.
        style: The platform's format.
        case_ids: The cases that must stand in it, each once.
        classes: All classes.
    """
    text = _text(path)
    if "\r" in text:
        raise SubmissionError("line ends are CRLF", expected="LF", path=path)
    names = [style.id_column, style.value_column]
    if style.value == "all":
        names += [f"prob_{name}" for name in classes]
    rows = _rows(text, names, path, header=style.header, separator=style.separator)
    _check_ids(rows[style.id_column], [f"{case}{style.suffix}" for case in case_ids], path)
    for name in names[1:] if style.value == "probability" else names[2:]:
        values = pd.to_numeric(rows[name], errors="coerce")
        if not values.between(0, 1).all():
            bad = rows[name][~values.between(0, 1)]
            raise SubmissionError(
                f"column {name} must be in [0, 1]", received=first(bad), path=path
            )
    if style.value != "probability":
        known = {dict(style.codes).get(name, name) for name in classes}
        unknown = sorted(set(rows[style.value_column]) - known)
        if unknown:
            raise SubmissionError("unknown labels", expected=", ".join(sorted(known)),
                                  received=first(unknown), path=path)  # fmt: skip


def _text(path: Path) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SubmissionError("cannot be read", received=str(error), path=path) from error


def _rows(
    text: str, names: Sequence[str], path: Path, *, header: bool = True, separator: str = ","
) -> pd.DataFrame:
    """Return a table of texts, or raise on a wrong header, a line cut short, or one too long."""
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise SubmissionError("not a table", received=str(error), path=path) from error
    if header:
        found = lines.pop(0) if lines else []
        if found != list(names):
            raise SubmissionError(
                "wrong header", expected=separator.join(names),
                received=separator.join(found) or "nothing", path=path,
            )  # fmt: skip
    for number, line in enumerate(lines, start=2 if header else 1):
        if len(line) != len(names):
            raise SubmissionError(
                f"line {number} is cut short or too long", path=path, received=len(line),
                expected=f"{len(names)} values: {', '.join(names)}",
            )  # fmt: skip
    if text and not text.endswith("\n"):
        raise SubmissionError("the last line has no end: it may be cut short", path=path)
    return pd.DataFrame(lines, columns=list(names), dtype=str)


def _check_ids(found: pd.Series, expected: Sequence[str], path: Path) -> None:
    doubled = found[found.duplicated()]
    if len(doubled):
        raise SubmissionError("doubled ids", received=first(doubled), path=path)
    missing, strange = set(expected) - set(found), set(found) - set(expected)
    if missing or strange:
        raise SubmissionError(
            "ids do not match", expected=f"{len(set(expected))} cases", path=path,
            received=f"{len(missing)} missing ({first(sorted(missing))}), "
            f"{len(strange)} unknown ({first(sorted(strange))})",
        )  # fmt: skip


def record(ledger: Path, line: dict[str, object]) -> None:
    """Append a line to the ledger unless the same run and fingerprint stand there already.

    The file is locked while it is read and written, and replaced whole; older lines stay as they
    are, to the byte.
    """
    with _locked(ledger):
        rows = read_ledger(ledger)
        same = (rows.run == str(line["run"])) & (rows.fingerprint == str(line["fingerprint"]))
        if same.any():
            return
        stamped = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line}
        out = io.StringIO()
        writer = csv.DictWriter(out, LEDGER, restval="", lineterminator="\n")
        if not ledger.is_file():
            writer.writeheader()
        writer.writerow(stamped)
        before = _text(ledger) if ledger.is_file() else ""
        write_text(ledger, before + out.getvalue())


def read_ledger(ledger: Path) -> pd.DataFrame:
    """Return the ledger as text columns; an absent one is empty.

    Raises:
        SubmissionError: It was cut or edited so that it is no ledger any more.
    """
    if not ledger.is_file():
        return pd.DataFrame(columns=LEDGER, dtype=str)
    return _rows(_text(ledger), LEDGER, ledger)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path`.lock; a lock older than a minute is a dead writer's."""
    lock = path.with_name(path.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubmissionError("the ledger cannot be written", received=error, path=path) from error
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError as error:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > 60:
                    lock.unlink(missing_ok=True)
            if time.monotonic() > end:
                raise SubmissionError("the ledger is being written by another run", path=path,
                                      remedy=f"delete {lock} if none is") from error  # fmt: skip
            time.sleep(0.05)
        except OSError as error:
            raise SubmissionError(
                "the ledger cannot be written", received=error, path=path
            ) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
