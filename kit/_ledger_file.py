"""The file of a ledger: lines that are only added, chained, counted and written under a lock.

Each line carries the fingerprint of itself and of the line before it (`chain`), so that a line
changed by hand is found. `ledger.head`, beside the file, says how many lines there were, so that
lines cut off at the end are missed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from kit import _writers
from kit.errors import LedgerError
from kit.files import fingerprint, write_text

FIELDS = ["id", "time", "event", "run", "fingerprint", "metric", "local", "low", "high",
          "leaderboard", "note"]  # fmt: skip
CHAIN = "chain"
HEAD = ".head"
PATIENCE, STALE = 10.0, 60.0
"""Seconds to wait for another writer, and after which one of another machine is thought dead."""
MEND = "take the file back from version control, or move it and its .head away: a new one is begun"

Head = tuple[int, str]


def lines(ledger: Path) -> list[dict[str, str]]:
    """Return the lines as text, each checked against the one before it, and their number.

    Raises:
        LedgerError: A line was edited by hand or cut: says which.
    """
    head = _head(ledger)  # first: a writer writes it last
    if not ledger.is_file():
        if head is not None and head[0]:
            raise LedgerError("the ledger is gone, its head is there", path=ledger, remedy=MEND)
        return []
    found: list[dict[str, str]] = []
    chain = ""
    for number, cells in enumerate(_cells(ledger), start=2):
        if len(cells) != len(FIELDS) + 1:
            raise _edited(ledger, number, f"{len(cells)} values", f"{len(FIELDS) + 1} values")
        *own, said = cells
        if said != _chain(chain, own):
            raise _edited(ledger, number, ",".join(own), "the line as the kit wrote it")
        chain = said
        found.append(dict(zip([*FIELDS, CHAIN], cells, strict=True)))
    _check_head(ledger, head or _head(ledger), found)
    return found


def append(ledger: Path, line: Mapping[str, str], now: datetime | None = None) -> None:
    """Add a line to a ledger that is locked: its head stands first and is written last.

    Args:
        ledger: The file.
        line: Fields by name; those left out are empty.
        now: The time; None: the clock's.
    """
    known = lines(ledger)
    place = ledger.with_suffix(HEAD)
    if not place.is_file():
        write_text(place, "0 none\n")
    before = ledger.read_bytes().decode() if ledger.is_file() else _joined([*FIELDS, CHAIN])
    stamp = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    fields = {"time": stamp, **{name: " ".join(text.split()) for name, text in line.items()}}
    cells = [fields.get(name, "") for name in FIELDS]
    chain = _chain(known[-1][CHAIN] if known else "", cells)
    write_text(ledger, before + _joined([*cells, chain]))
    write_text(place, f"{len(known) + 1} {chain}\n")


def _head(ledger: Path) -> Head | None:
    """Return how many lines there were and the chain of the last; None: there is no head."""
    place = ledger.with_suffix(HEAD)
    try:
        count, chain = place.read_text(encoding="utf-8").split()
        return int(count), chain
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LedgerError("the ledger's head is damaged", received=error, path=place,
                          remedy=MEND) from error  # fmt: skip


def _check_head(ledger: Path, head: Head | None, found: list[dict[str, str]]) -> None:
    """Raise if lines were cut off at the end; one more than the head knows is a killed writer's."""
    if head is None:
        raise LedgerError("the ledger's head is missing: whether lines were cut off cannot be told",
                          path=ledger.with_suffix(HEAD), remedy=MEND)  # fmt: skip
    known, chain = head
    if known > len(found):
        raise LedgerError(
            f"the ledger was cut: line {len(found) + 2} and what followed are missing",
            expected=f"{known} lines", received=f"{len(found)}", path=ledger, remedy=MEND,
        )  # fmt: skip
    if known and found[known - 1][CHAIN] != chain:
        raise _edited(ledger, known + 1, found[known - 1][CHAIN], f"{chain}, as its head says")


def _joined(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _chain(before: str, cells: list[str]) -> str:
    return fingerprint([before, *cells])


def _cells(ledger: Path) -> list[list[str]]:
    try:
        text = ledger.read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LedgerError(
            "the ledger cannot be read", received=error, path=ledger, remedy=MEND
        ) from error
    if not lines or lines[0] != [*FIELDS, CHAIN]:
        raise _edited(ledger, 1, ",".join(lines[0]) if lines else "nothing",
                      ",".join([*FIELDS, CHAIN]))  # fmt: skip
    if not text.endswith("\n"):
        raise LedgerError(f"the ledger was cut in line {len(lines)}", path=ledger, remedy=MEND)
    return lines[1:]


def _edited(ledger: Path, number: int, received: str, expected: str) -> LedgerError:
    return LedgerError(f"line {number} of the ledger was edited by hand or cut", expected=expected,
                       received=received, path=ledger,
                       remedy=f"scores go in by `kit ledger score`; {MEND}")  # fmt: skip


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path`.lock; a dead writer's is taken over."""
    lock = path.with_name(path.name + ".lock")
    end = time.monotonic() + PATIENCE
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        while not _taken(lock):
            if time.monotonic() > end:
                raise LedgerError("the ledger is being written by another run", path=path,
                                  remedy=f"delete {lock} if none is")  # fmt: skip
            time.sleep(0.05)
    except OSError as error:
        raise LedgerError("the ledger cannot be written", received=error, path=path) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _taken(lock: Path) -> bool:
    """Make the lock, with the writer's name in it; a dead writer's is moved out of the way."""
    with contextlib.suppress(FileExistsError):
        with os.fdopen(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as stream:
            stream.write(f"{_writers.prefix()}{time.time_ns()}")
        return True
    with contextlib.suppress(FileNotFoundError):
        name, old = lock.read_text(encoding="utf-8"), time.time() - lock.stat().st_mtime > STALE
        if old or _writers.is_dead(name):
            aside = lock.with_name(f"{lock.name}.{os.getpid()}")
            lock.rename(aside)
            if aside.read_text(encoding="utf-8") != name:  # another took it over in between
                aside.rename(lock)
            aside.unlink(missing_ok=True)
    return False
