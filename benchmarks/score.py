"""Reports with intervals beside a scikit-learn loop: `python benchmarks/score.py [--save]`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from bench import Row, arguments, measure, tell

from kit.metrics import evaluate

LOOPED = 20  # resamples that scikit-learn is timed on


def cases(n: int, groups: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return labels, probabilities and groups."""
    rng = np.random.default_rng(0)
    truth = (rng.random(n) < 0.3).astype(int)
    prob = 1 / (1 + np.exp(1 - 2 * truth - rng.normal(size=n)))
    return truth, prob, None if groups is None else rng.integers(0, groups, n)


def loop(truth: np.ndarray, prob: np.ndarray, groups: np.ndarray | None, auc: bool) -> float:
    """Return the seconds that scikit-learn takes for one resample of all figures."""
    from sklearn import metrics as peer

    rng, called = np.random.default_rng(0), (prob >= 0.5).astype(int)
    unit = np.arange(len(truth)) if groups is None else groups
    rows_of = np.argsort(unit, kind="stable")
    ends = np.searchsorted(unit[rows_of], np.arange(unit.max() + 2))
    start = time.process_time()
    for _ in range(LOOPED):
        drawn = rng.integers(0, unit.max() + 1, unit.max() + 1)
        rows = drawn if groups is None else np.concatenate(
            [rows_of[ends[g]:ends[g + 1]] for g in drawn])  # fmt: skip
        y, p = truth[rows], called[rows]
        peer.accuracy_score(y, p)
        peer.f1_score(y, p)
        for side in (0, 1):
            peer.recall_score(y, p, pos_label=side)
            peer.precision_score(y, p, pos_label=side, zero_division=np.nan)
        if auc:
            peer.roc_auc_score(y, prob[rows])
    return (time.process_time() - start) / LOOPED


def row(what: str, work: Callable[[], object], peer: float, resamples: int, goal: str) -> Row:
    """Time a report beside so many resamples of scikit-learn's."""
    mine = measure({"kit": work}, repeats=3)["kit"].cpu
    return Row(what, f"{mine:.3f} s", f"{peer * resamples:,.0f} s, scikit-learn loop",
               peer * resamples / mine, goal)  # fmt: skip


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Reports")
    rows = []
    for n, groups, goal in ((2_000, None, "0.1 s"), (100_000, 1_000, "1.5 s")):
        truth, prob, group = cases(n, groups)
        said = f"n = {n:,}" + (f" in {groups:,} patients" if groups else "")
        rows.append(row(
            f"report, {said}, 2,000 resamples",
            lambda t=truth, p=prob, g=group: evaluate(t, p, threshold=0.5, groups=g),
            loop(truth, prob, group, auc=True), 2_000, goal,
        ))  # fmt: skip
    truth, prob, _ = cases(1_000_000, None)
    called = (prob >= 0.5).astype(int)
    rows.append(row(
        "six metrics, n = 1,000,000, 10,000 resamples",
        lambda: evaluate(truth, None, y_pred=called, resamples=10_000),
        loop(truth, prob, None, auc=False), 10_000, "0.1 s, 100x",
    ))  # fmt: skip
    notes = (
        "A report: the six, their mean and AUC with 95 % intervals, and all further figures. "
        f"scikit-learn's seconds are those of {LOOPED} resamples, times the rest."
    )
    tell("score", "Figures with intervals", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
