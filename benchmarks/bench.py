"""What the benchmarks share: interleaved timing, ratios, and the result files of README."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of a benchmark: what was done, the kit beside what a user would pick instead.

    Attributes:
        what: The work.
        kit: The kit's figure, with its unit, such as "7,100 / s".
        peer: The other's, and whose it is; empty where there is none.
        ratio: How many times better the kit is (a rate over a rate, seconds over seconds).
        goal: What it should be, in words.
    """

    what: str
    kit: str
    peer: str = ""
    ratio: float | None = None
    goal: str = ""


@dataclass(frozen=True)
class Timed:
    """Median seconds of several runs of one piece of work, and their spread."""

    wall: float
    cpu: float
    spread: float  # (largest - smallest) / median of the CPU seconds


def off_ledger(run: Any) -> Any:
    """Return a run that writes no line into the project's ledgers: a benchmark is no entry."""
    run.ledger = None
    return run


def measure(work: Mapping[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, Timed]:
    """Time pieces of work in turn (a, b, a, b, ...), so that a slow spell hits all alike.

    CPU seconds are those of this process with all its threads; work that runs in other processes
    is judged by its wall time. Each piece runs once before it is timed.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, call in work.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: _timed(pairs) for name, pairs in taken.items()}


def _timed(pairs: Sequence[tuple[float, float]]) -> Timed:
    walls, cpus = zip(*pairs, strict=True)
    cpu = statistics.median(cpus)
    spread = (max(cpus) - min(cpus)) / cpu if cpu else 0.0
    return Timed(statistics.median(walls), cpu, spread)


def arguments(about: str, **choices: object) -> argparse.Namespace:
    """Return the command line's options: `--save`, and `--name VALUE` for each choice."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--save", action="store_true", help="keep the result for README's table")
    for name, default in choices.items():
        kind = type(default) if default is not None else str
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    return parser.parse_args()


def tell(name: str, title: str, rows: Sequence[Row], *, notes: str = "", save: bool) -> None:
    """Print the rows as a table and, if asked, keep them in `results/NAME.json`."""
    print(title)
    width = max(len(row.what) for row in rows)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f}x"
        print(f"  {row.what:{width}}  {row.kit:>18}  {row.peer:>34}  {ratio:>8}  {row.goal}")
    if notes:
        print(notes)
    if save:
        _write(name, title, notes, {"rows": [asdict(row) for row in rows]})


def keep(
    name: str, title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], *,
    notes: str = "", save: bool, command: str = "",
) -> None:  # fmt: skip
    """Print a table of other columns and, if asked, keep it in `results/NAME.json`.

    Args:
        name: Of the result, and of the script unless `command` says otherwise.
        title: Of the table.
        columns: Its head.
        lines: Its cells.
        notes: What stands below it.
        save: Whether it is kept.
        command: What made it.
    """
    print(title)
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    for line in (columns, *lines):
        print(
            "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        )
    if notes:
        print(notes)
    if save:
        table = {"columns": list(columns), "lines": [list(line) for line in lines]}
        _write(name, title, notes, table, command)


def _write(
    name: str, title: str, notes: str, table: Mapping[str, object], command: str = ""
) -> None:
    found = {
        "title": title, "command": command or f"python benchmarks/{name}.py", "machine": machine(),
        "date": date.today().isoformat(), "notes": notes, **table,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(RESULTS / f"{name}.json")


def machine() -> str:
    """Return the machine in words."""
    python = ".".join(map(str, sys.version_info[:2]))
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {python}"
