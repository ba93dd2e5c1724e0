"""Training as it goes: one bar over all epochs, the figure watched, a line per network."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kit import histories
from kit.fits import Fit
from kit.jobs import Outcome

OFTEN, SELDOM = 0.5, 10.0  # seconds between looks: on a terminal, in a log
Say = Callable[[Fit, Outcome], None]


@contextlib.contextmanager
def bar(fits: Sequence[Fit]) -> Iterator[Say]:
    """Show epochs done of all epochs, with the time left, by the histories that the fits write.

    Yields:
        A function that says, in a line on standard error, how a network ended.
    """
    from tqdm import tqdm

    if not fits:
        yield lambda fit, outcome: None
        return
    stop = threading.Event()
    begun = sum(len(histories.read(fit.path.with_suffix(".csv"))) for fit in _resumed(fits))
    with tqdm(
        total=sum(fit.total for fit in fits), initial=begun, desc="training", unit="epoch",
        leave=False,
    ) as shown:  # fmt: skip
        watcher = threading.Thread(target=_watch, args=(fits, shown, stop), daemon=True)
        watcher.start()
        try:
            yield lambda fit, outcome: shown.write(line(fit, outcome), file=sys.stderr)
        finally:
            stop.set()
            watcher.join()


def _resumed(fits: Sequence[Fit]) -> list[Fit]:
    """Return the fits that go on from a state; a history of any other is an old one."""
    found = []
    for fit in fits:
        if any((fit.path.parent / "state").glob(f"{fit.path.stem}-*.npz")):
            found.append(fit)
        else:
            fit.path.with_suffix(".csv").unlink(missing_ok=True)
    return found


def _watch(fits: Sequence[Fit], shown: Any, stop: threading.Event) -> None:
    while not stop.wait(OFTEN if sys.stderr.isatty() else SELDOM):
        done, running = 0, []
        for fit in fits:
            table = histories.read(fit.path.with_suffix(".csv"))
            done += len(table)
            if 0 < len(table) < fit.total and not fit.path.with_suffix(".json").is_file():
                running.append(f"{fit.name}: {epoch(table.iloc[-1], fit.total)}")
        shown.n = done
        shown.set_postfix_str(" | ".join(running[:2]), refresh=True)


def epoch(row: Any, total: int) -> str:
    """Return an epoch in words: its number, its figure and the best one."""
    said = f"epoch {int(row['epoch'])}/{total}"
    if np.isfinite(row["value"]):
        said += f", {row['monitor']} {row['value']:.4f} (best {row['best']:.4f})"
    return said


def line(fit: Fit, outcome: Outcome) -> str:
    """Return how a network ended: its epochs, its figure and its seconds."""
    if outcome.error is not None:
        return f"{fit.name}: {str(outcome.error).removeprefix(f'{fit.name}: ')}"
    table = histories.read(fit.path.with_suffix(".csv"))
    if not len(table):
        return f"{fit.name}: no epoch yet"
    last, seconds = table.iloc[-1], table.seconds.sum()
    said = f"{fit.name}: {epoch(last, fit.total)}, loss {last['loss']:.4f}, {seconds:.0f} s"
    return said if outcome.value is not None else f"{said}; not finished, the time was up"
