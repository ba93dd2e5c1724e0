"""Errors: one line with every part, the same after crossing a process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from kit import errors
from kit.errors import KitError, MissingMppError, TableError

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KitError)
]


def full(kind: type[KitError]) -> KitError:
    return kind("doubled ids", expected="each once", received=["a", "b"], path=Path("x") / "y.csv",
                remedy="delete one")  # fmt: skip


def test_an_error_says_what_expected_received_file_and_remedy_in_this_order() -> None:
    assert str(full(TableError)) == (
        "doubled ids. Expected: each once. Received: ['a', 'b']. "
        f"File: {Path('x') / 'y.csv'}. Remedy: delete one."
    )


def test_parts_that_are_not_given_are_not_spoken_of() -> None:
    assert str(KitError("bad", received=0)) == "bad. Received: 0."


def test_a_full_stop_is_not_doubled() -> None:
    assert str(KitError("bad.", remedy="mend it.")) == "bad. Remedy: mend it."


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\u2028"])
def test_an_error_of_several_lines_is_told_in_one(end: str) -> None:
    assert str(KitError(f"first{end}second")) == "first second."


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_a_kit_error_and_keeps_its_parts_through_pickle(kind: type[KitError]) -> None:
    error = full(kind)
    error.add_note("a note that is not a part")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, KitError)
    assert type(back) is kind
    assert str(back) == str(error)
    names = ("what", "expected", "received", "path", "remedy")
    assert [getattr(back, n) for n in names] == [getattr(error, n) for n in names]


def test_a_missing_resolution_is_an_error_of_the_slide() -> None:
    assert issubclass(MissingMppError, errors.SlideError)
