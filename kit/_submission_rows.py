"""The rows of a submission, read back from its bytes: what a platform would refuse is a finding."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from kit.errors import SubmissionError

LARGEST = 100e6
"""Bytes: a line a case is never as much, so that such a file is something else."""
MARKS = {
    codecs.BOM_UTF8: "UTF-8 with a byte order mark", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
SEPARATORS = ",;\t| "
DECIMAL = re.compile(r"[;\t| ]-?\d+,\d+$")
AGAIN = "write it again: kit run or kit predict"


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

    def columns(self, classes: Sequence[str]) -> list[str]:
        """Return the names of all columns, in order."""
        more = [f"prob_{name}" for name in classes] if self.value == "all" else []
        return [self.id_column, self.value_column, *more]

    def labels(self, classes: Sequence[str]) -> list[str]:
        """Return what stands for each class; nothing where probabilities alone are asked for."""
        codes = dict(self.codes)
        return [] if self.value == "probability" else [codes.get(name, name) for name in classes]

    def numbers(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the columns that hold probabilities."""
        return self.columns(classes)[1 if self.value == "probability" else 2 :]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a submission, or, as a warning, something to look at.

    Args:
        rule: Its name, the same for the same fault.
        what: What is wrong.
        expected: What would have been right.
        received: What was found instead.
        remedy: What the user can do about it.
        level: Whether the submission is refused.
    """

    rule: str
    what: str
    expected: object = None
    received: object = None
    _: KW_ONLY
    remedy: str
    level: Literal["error", "warning"] = "error"

    def error(self, path: Path | None = None) -> SubmissionError:
        """Return it as an error of that file."""
        return SubmissionError(self.what, expected=self.expected, received=self.received,
                               path=path, remedy=self.remedy)  # fmt: skip


def read(
    path: Path, style: Format, classes: Sequence[str]
) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return a submission's rows as text, None where it is no such table, and what is wrong.

    Args:
        path: The file.
        style: The platform's format.
        classes: All classes.

    Raises:
        SubmissionError: There is no such file, or it cannot be opened.
    """
    try:
        size = Path(path).stat().st_size
        content = Path(path).read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise SubmissionError("cannot be read", received=error.strerror, path=path) from error
    if size > LARGEST:
        return None, [Finding("size", "the file is too large for a submission",
                              f"at most {LARGEST / 1e6:.0f} MB", f"{size / 1e6:.0f} MB",
                              remedy="give the file with one line a case")]  # fmt: skip
    text, found = _decoded(content)
    if text is None:
        return None, found
    found += _line_ends(text)
    rows, wrong = _parsed(text.replace("\r\n", "\n").replace("\r", "\n"), style, classes)
    return rows, found + wrong


def _decoded(content: bytes) -> tuple[str | None, list[Finding]]:
    """Return the text, None where it is none."""
    if not content.strip():
        return None, [Finding("empty", "the file is empty", remedy=AGAIN)]
    mark = next((name for start, name in MARKS.items() if content.startswith(start)), None)
    if mark == "UTF-16" or b"\0" in content:
        return None, [Finding("encoding", "the encoding is not UTF-8", "UTF-8",
                              mark or "bytes of value 0", remedy="save it as UTF-8")]  # fmt: skip
    found = []
    if mark is not None:
        found.append(
            Finding(
                "byte_order_mark",
                "the file begins with a byte order mark",
                "UTF-8 without one",
                mark,
                remedy="save it as plain UTF-8",
            )
        )
    try:
        return content.decode("utf-8-sig"), found
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return None, [Finding("encoding", "the encoding is not UTF-8", "UTF-8",
                              f"{error.reason} in line {line}",
                              remedy="save it as UTF-8")]  # fmt: skip


def _line_ends(text: str) -> list[Finding]:
    found = []
    if "\r" in text:
        which = "CRLF" if "\r\n" in text else "CR"
        found.append(Finding("line_ends", f"line ends are {which}", "LF",
                             f"{text.count(chr(13))} of {which}",
                             remedy="save it with LF"))  # fmt: skip
    if not text.endswith(("\n", "\r")):
        found.append(Finding("last_line", "the last line has no end: it may be cut short",
                             remedy="look whether it is whole, and end it with LF"))  # fmt: skip
    return found


def _parsed(
    text: str, style: Format, classes: Sequence[str]
) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Return the rows, or None and why they are no table of this format."""
    names = style.columns(classes)
    try:
        lines = _split(text, style.separator)
    except csv.Error as error:
        return None, [Finding("no_table", "not a table", received=error, remedy=AGAIN)]
    start = 1
    if style.header:
        wrong = _header(lines.pop(0), names, style, classes)
        start = 2
    else:
        wrong = _unasked_header(lines)
    wrong = _separator(text, names, style.separator) or wrong
    for number, line in enumerate(lines, start):
        wrong = wrong or _line(number, line, names, style, classes)
    if wrong:
        return None, wrong
    if not lines:
        return None, [Finding("empty", "there are no rows", "a line for each case", remedy=AGAIN)]
    return pd.DataFrame(lines, columns=names, dtype=str), []


def _line(
    number: int, line: list[str], names: list[str], style: Format, classes: Sequence[str]
) -> list[Finding]:
    """Return why a line is no case."""
    if not line:
        return [Finding("blank_lines", f"line {number} is empty", "a case in each line",
                        remedy="delete it")]  # fmt: skip
    if style.header and line == names:
        return [Finding("header", f"the header stands again in line {number}", "it once, in line 1",
                        remedy="delete it: two files may have been put together")]  # fmt: skip
    surplus = len(line) - len(names)
    expected = f"{len(names)} values: {', '.join(names)}"
    if surplus == 0:
        return []
    halves = line[len(line) - 2 * surplus :]
    if surplus == len(style.numbers(classes)) and all(half.isdigit() for half in halves):
        return [Finding("decimal_comma", f"line {number} has decimal commas", expected,
                        ",".join(line), remedy="write decimal points")]  # fmt: skip
    return [Finding("columns", f"line {number} is cut short or too long", expected, len(line),
                    remedy="write the file again: rows may be lost or run together")]  # fmt: skip


def _split(text: str, separator: str) -> list[list[str]]:
    if separator == " ":  # there quotes are part of an id
        return [line.split(" ") if line else [] for line in text.removesuffix("\n").split("\n")]
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))


def _header(
    line: list[str], names: list[str], style: Format, classes: Sequence[str]
) -> list[Finding]:
    if line == names:
        return []
    expected, received = style.separator.join(names), style.separator.join(line) or "nothing"
    what = "wrong header"
    if sorted(line) == sorted(names):
        what = "wrong header: the columns stand in another order"
    elif len(line) == len(names) and _is_data(line, style, classes):
        what = "wrong header: there is none"
    return [Finding("header", what, expected, received,
                    remedy="write line 1 as expected, and the columns in that order")]  # fmt: skip


def _unasked_header(lines: list[list[str]]) -> list[Finding]:
    """Return that line 1 names columns: no number in it, and its id unlike the next one."""
    names, *rest = lines
    numbers = any(map(is_number, names[1:])) or not all(map(str.strip, names))
    if len(names) < 2 or numbers or (rest and rest[0] and _shape(rest[0][0]) == _shape(names[0])):
        return []
    return [Finding("header", "a header where none is asked for", "the first case in line 1",
                    ",".join(names), remedy="delete line 1")]  # fmt: skip


def _shape(name: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", name))


def _is_data(line: list[str], style: Format, classes: Sequence[str]) -> bool:
    value = line[1] if len(line) > 1 else ""
    return value in style.labels(classes) if style.value != "probability" else is_number(value)


def is_number(text: str) -> bool:
    """Return whether a text is a number; NaN and infinity are."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _separator(text: str, names: list[str], right: str) -> list[Finding]:
    """Return that another separator makes the table.

    The right one then leaves one column, or stands in numbers alone, as decimal comma.
    """
    lines = text.splitlines()
    comma = right == "," and all(DECIMAL.search(line) for line in lines[1:] or lines)
    if not comma and any(right in line for line in lines):
        return []
    for other in SEPARATORS.replace(right, ""):
        if all(line.count(other) == len(names) - 1 for line in lines):
            return [Finding("separator", "wrong separator", repr(right), repr(other),
                            remedy=f"write {right!r}, and decimal points")]  # fmt: skip
    return []


def first_error(findings: Iterable[Finding], path: Path) -> None:
    """Raise the first error among the findings."""
    for finding in findings:
        if finding.level == "error":
            raise finding.error(path)
