"""Submissions: written as the platform asks, and validated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import submission
from kit.errors import SubmissionError
from kit.submission import Format

CLASSES = ["benign", "malignant"]
KIT = Format()
NSML = Format(
    value="label", header=False, separator=" ", codes=(("benign", "0"), ("malignant", "1"))
)
HELP = Format("id", "score", value="probability", header=False)
RSNA = Format("BraTS21ID", "MGMT_value", value="probability", suffix=".dcm")
STYLES = {"kit": KIT, "nsml": NSML, "help": HELP, "rsna": RSNA}


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": ["b", "a"], "prob_malignant": [0.25, 2 / 3], "prob_benign": [0.75, 1 / 3]}
    )


def written(path: Path, style: Format, threshold: float | None = 0.5) -> Path:
    rows = submission.table(predictions(), style, CLASSES, "malignant", threshold)
    return submission.write(path, rows, style)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("kit", "case_id,label,prob_benign,prob_malignant\na,malignant,0.333333333,0.666666667\n"
                "b,benign,0.75,0.25\n"),
        ("nsml", "a 1\nb 0\n"),
        ("help", "a,0.666666667\nb,0.25\n"),
        ("rsna", "BraTS21ID,MGMT_value\na.dcm,0.666666667\nb.dcm,0.25\n"),
    ],
)  # fmt: skip
def test_each_format_is_written_to_the_letter_and_accepted(
    tmp_path: Path, style: str, text: str
) -> None:
    path = written(tmp_path / "s.csv", STYLES[style])
    assert path.read_bytes() == text.encode()
    submission.validate(path, STYLES[style], ["b", "a"], CLASSES)


def test_the_frozen_threshold_decides_and_a_tie_is_positive() -> None:
    for threshold, labels in [
        (0.25, ["malignant", "malignant"]), (0.26, ["malignant", "benign"]),
        (0.7, ["benign", "benign"]), (None, ["malignant", "benign"]),
    ]:  # fmt: skip
        rows = submission.table(predictions(), KIT, CLASSES, "malignant", threshold)
        assert list(rows.label) == labels


def test_above_two_classes_the_largest_probability_decides() -> None:
    table = pd.DataFrame({"case_id": ["a"], "prob_x": [0.2], "prob_y": [0.5], "prob_z": [0.3]})
    rows = submission.table(table, KIT, ["x", "y", "z"], None, None)
    assert list(rows.label) == ["y"]


def test_a_case_without_a_probability_is_named() -> None:
    table = predictions().assign(prob_malignant=[np.nan, 0.5])
    with pytest.raises(SubmissionError, match=r"without a probability\. Received: b"):
        submission.table(table, NSML, CLASSES, "malignant", 0.5)


GOOD = "case_id,label,prob_benign,prob_malignant\na,malignant,.3,.7\nb,benign,.8,.2\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,benign", "a,benign", "doubled ids"),
        ("b,benign,.8,.2\n", "", r"1 missing \(b\), 0 unknown"),
        ("b,benign", "c,benign", r"1 missing \(b\), 1 unknown \(c\)"),
        (".7", "1.7", r"prob_malignant must be in \[0, 1\]"),
        (".7", "nan", r"prob_malignant must be in \[0, 1\]\. Received: nan"),
        (".7", "", r"prob_malignant must be in \[0, 1\]"),
        (".7", "much", "Received: much"),
        ("a,malignant", "a,cancer", r"unknown labels.*benign, malignant.*cancer"),
        ("a,malignant", "a,", "unknown labels"),
        ("\n", "\r\n", "line ends are CRLF"),
        ("case_id", "id", "wrong header"),
        (",prob_malignant\n", "\n", "wrong header"),
        ("case_id", "\ufeffcase_id", "byte order mark"),
        (",.8,.2", ",.8", "line 3 is cut short"),
        (",.8,.2", ",.8,.2,1", "line 3 is cut short or too long"),
        (".2\n", ".2", "the last line has no end"),
        ("a,malignant", '"a,malignant', "not a table|cut short"),
        (GOOD, "", "the file is empty"),
    ],
)
def test_what_a_platform_would_refuse_is_refused_before_with_the_file_named(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(GOOD.encode())
    submission.validate(path, KIT, ["a", "b"], CLASSES)
    assert old in GOOD
    path.write_bytes(GOOD.replace(old, new).encode())
    with pytest.raises(SubmissionError, match=said) as caught:
        submission.validate(path, KIT, ["a", "b"], CLASSES)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,.5\nb,1.5\n", "score must be in"), ("a,.5,x\nb,.5,y\n", "line 1 is cut short or too"),
        ("id,score\na,.5\nb,.5\n", r"1 unknown \(id\)"), ("", "the file is empty"),
    ],
)  # fmt: skip
def test_a_format_without_a_header_is_checked_as_well(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s").write_bytes(text.encode())
    with pytest.raises(SubmissionError, match=said):
        submission.validate(tmp_path / "s", HELP, ["a", "b"], CLASSES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot be read.*s\.csv"),
        (b"case_id,label\n\xff,x\n", r"not UTF-8.*line 2.*s\.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content:
        (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(SubmissionError, match=said):
        submission.validate(tmp_path / "s.csv", KIT, [], CLASSES)


def test_numbers_that_are_ids_are_ids(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"007,.5\n7,.5\n")
    submission.validate(tmp_path / "s", HELP, ["007", "7"], CLASSES)
    with pytest.raises(SubmissionError):
        submission.validate(tmp_path / "s", HELP, ["07", "7"], CLASSES)
