"""Submissions: written as the platform asks, validated, and entered in the ledger once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import submission
from kit.errors import SubmissionError
from kit.submission import LEDGER, Format

ROOT = Path(__file__).parents[1]
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
        ("case_id", "\ufeffcase_id", "wrong header"),
        (",.8,.2", ",.8", "line 3 is cut short"),
        (",.8,.2", ",.8,.2,1", "line 3 is cut short or too long"),
        (".2\n", ".2", "the last line has no end"),
        ("a,malignant", '"a,malignant', "not a table|cut short"),
        (GOOD, "", "wrong header"),
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
        ("id,score\na,.5\nb,.5\n", r"1 unknown \(id\)"), ("", r"2 missing \(a, b\)"),
    ],
)  # fmt: skip
def test_a_format_without_a_header_is_checked_as_well(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s").write_bytes(text.encode())
    with pytest.raises(SubmissionError, match=said):
        submission.validate(tmp_path / "s", HELP, ["a", "b"], CLASSES)


@pytest.mark.parametrize("content", [None, b"case_id,label\n\xff,x\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(SubmissionError, match=r"cannot be read.*s\.csv"):
        submission.validate(tmp_path / "s.csv", KIT, [], CLASSES)


def test_numbers_that_are_ids_are_ids(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"007,.5\n7,.5\n")
    submission.validate(tmp_path / "s", HELP, ["007", "7"], CLASSES)
    with pytest.raises(SubmissionError):
        submission.validate(tmp_path / "s", HELP, ["07", "7"], CLASSES)


def line(run: str = "r", fingerprint: str = "f", **more: object) -> dict[str, object]:
    return {"run": run, "fingerprint": fingerprint, "auc": 0.5, **more}


def test_the_ledger_grows_by_one_line_for_each_new_result(tmp_path: Path) -> None:
    ledger = tmp_path / "new" / "ledger.csv"
    assert submission.read_ledger(ledger).empty
    for run, mark in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("b", "1")]:
        submission.record(ledger, line(run, mark))
    rows = submission.read_ledger(ledger)
    assert list(rows.columns) == LEDGER
    assert list(rows.run + rows.fingerprint) == ["a1", "a2", "b1"]
    assert list(rows.auc) == ["0.5"] * 3
    assert (rows.leaderboard == "").all()
    assert pd.to_datetime(rows.time, utc=True).notna().all()
    assert os.listdir(ledger.parent) == ["ledger.csv"]


def test_older_lines_keep_every_byte_also_those_written_by_hand(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.csv"
    submission.record(ledger, line("a"))
    edited = ledger.read_text().replace(",0.5,,", ',0.50,.93,"first, by hand"')
    ledger.write_text(edited)
    submission.record(ledger, line("b"))
    assert ledger.read_text().startswith(edited)
    rows = submission.read_ledger(ledger)
    assert list(rows.leaderboard) == [".93", ""]
    assert list(rows.note) == ["first, by hand", ""]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda text: text[:-6], "line 3 is cut short"),
        (lambda text: text[:-1], "the last line has no end"),
        (lambda text: text.replace("run", "name", 1), "wrong header"),
        (lambda text: "", "wrong header"),
        (lambda text: text + "\n", "line 4 is cut short"),
        (lambda text: text.replace(",", ";"), "wrong header"),
    ],
)
def test_a_ledger_cut_or_edited_is_refused_and_left_as_it_is(
    tmp_path: Path, cut: object, said: str
) -> None:
    ledger = tmp_path / "ledger.csv"
    submission.record(ledger, line("a"))
    submission.record(ledger, line("b"))
    damaged = cut(ledger.read_text())  # type: ignore[operator]
    ledger.write_text(damaged)
    with pytest.raises(SubmissionError, match=said) as caught:
        submission.record(ledger, line("c"))
    assert caught.value.path == str(ledger)
    assert ledger.read_text() == damaged
    assert os.listdir(tmp_path) == ["ledger.csv"]


WRITER = """
import sys
from pathlib import Path
from kit import submission
sys.stdin.readline()
for n in range(15):
    submission.record(Path(sys.argv[1]), {"run": sys.argv[2], "fingerprint": n})
"""


def test_two_writers_at_once_lose_no_line_and_a_reader_sees_whole_ones(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.csv"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(ledger), name], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = 0
    while any(writer.poll() is None for writer in writers):
        now = len(submission.read_ledger(ledger))
        assert now >= seen
        seen = now
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    rows = submission.read_ledger(ledger)
    assert sorted(rows.run + rows.fingerprint) == sorted(f"{r}{n}" for r in "ab" for n in range(15))


def test_the_lock_of_a_dead_writer_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "ledger.csv.lock"
    lock.touch()
    old = time.time() - 120
    os.utime(lock, (old, old))
    submission.record(tmp_path / "ledger.csv", line())
    assert os.listdir(tmp_path) == ["ledger.csv"]


def test_the_lock_of_a_living_writer_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ledger.csv.lock").touch()
    monkeypatch.setattr(submission, "PATIENCE", 0.1)
    with pytest.raises(SubmissionError, match=r"written by another run.*delete .*lock if none is"):
        submission.record(tmp_path / "ledger.csv", line())
    assert os.listdir(tmp_path) == ["ledger.csv.lock"]


def test_an_interrupted_write_leaves_the_ledger_whole_and_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger.csv"
    submission.record(ledger, line("a"))
    before = ledger.read_text()

    def stopped(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            submission.record(ledger, line("b"))
    assert ledger.read_text() == before
    assert os.listdir(tmp_path) == ["ledger.csv"]
