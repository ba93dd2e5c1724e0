"""Write a submission as the platform takes it, and read it back before anybody else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit._submission_cells import of_ids, of_values
from kit._submission_rows import Format as Format
from kit._submission_rows import first_error, read
from kit.checks import first
from kit.errors import SubmissionError
from kit.files import write_text


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
    """Read a submission back and raise `SubmissionError` on the first thing wrong with its form.

    Args:
        path: The file.
        style: The platform's format.
        case_ids: The cases that must stand in it, each once.
        classes: All classes.
    """
    rows, found = read(path, style, classes)
    first_error(found, path)
    if rows is not None:
        ids = [f"{case}{style.suffix}" for case in case_ids]
        first_error(of_ids(rows[style.id_column], ids, ordered=False), path)
        first_error(of_values(rows, style, classes), path)
