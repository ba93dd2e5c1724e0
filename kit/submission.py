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

from kit.checks import columns, first
from kit.errors import SubmissionError
from kit.files import write_text

LEDGER = ["time", "run", "fingerprint", "mean_of_six", "low", "high", "auc", "leaderboard", "note"]


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
    """
    rows = predictions.sort_values("case_id", ignore_index=True)
    prob = rows[[f"prob_{name}" for name in classes]].to_numpy()
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


def write(path: Path, rows: pd.DataFrame, style: Format) -> Path:
    """Write the submission: UTF-8, LF, six decimals, whole or not at all."""
    text = rows.to_csv(
        index=False, header=style.header, sep=style.separator, float_format="%.6f",
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
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SubmissionError("cannot be read", received=str(error), path=path) from error
    if "\r" in text:
        raise SubmissionError("line ends are CRLF", expected="LF", path=path)
    names = [style.id_column, style.value_column]
    rows = pd.read_csv(
        io.StringIO(text), sep=style.separator, header=0 if style.header else None, dtype=str,
        keep_default_na=False,
    )  # fmt: skip
    if not style.header:
        rows.columns = pd.Index(names[: rows.shape[1]])
    if list(rows.columns[:2]) != names:
        raise SubmissionError("wrong header", expected=", ".join(names),
                              received=", ".join(map(str, rows.columns)), path=path)  # fmt: skip
    _check_ids(rows[style.id_column], [f"{case}{style.suffix}" for case in case_ids], path)
    numbers = [name for name in rows.columns[1:] if name.startswith("prob_")]
    if style.value == "probability":
        numbers.append(style.value_column)
    for name in numbers:
        values = pd.to_numeric(rows[name], errors="coerce")
        if not values.between(0, 1).all():
            bad = rows[name][~values.between(0, 1)]
            raise SubmissionError(f"column {name} must be in [0, 1]", received=first(bad), path=path)
    if style.value != "probability":
        known = {dict(style.codes).get(name, name) for name in classes}
        unknown = sorted(set(rows[style.value_column]) - known)
        if unknown:
            raise SubmissionError("unknown labels", expected=", ".join(sorted(known)),
                                  received=first(unknown), path=path)  # fmt: skip


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

    The file is locked while it is read and written, and replaced whole.
    """
    with _locked(ledger):
        rows = read_ledger(ledger)
        same = (rows.run == str(line["run"])) & (rows.fingerprint == str(line["fingerprint"]))
        if same.any():
            return
        stamped = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line}
        out = io.StringIO()
        writer = csv.DictWriter(out, LEDGER, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.to_dict("records"))
        writer.writerow(stamped)
        write_text(ledger, out.getvalue())


def read_ledger(ledger: Path) -> pd.DataFrame:
    """Return the ledger as text columns; an absent one is empty."""
    if not ledger.is_file():
        return pd.DataFrame(columns=LEDGER, dtype=str)
    return columns(
        pd.read_csv(ledger, dtype=str, keep_default_na=False), LEDGER, path=str(ledger)
    )[LEDGER]


@contextlib.contextmanager
def _locked(path: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold `path`.lock; a lock older than a minute is a dead writer's."""
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
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
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
