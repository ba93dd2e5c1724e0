"""Ensembles: seconds beside a scikit-learn loop, and what a choice flatters itself by.

`python benchmarks/ensemble.py [--save]`
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from bench import Row, arguments, tell

from kit import _members
from kit.ensemble import Ensemble, nested
from kit.metrics import auc

MODELS, CASES = 50, 20_000
SETS, SMALL = 60, 200  # drawn sets of the optimism


def drawn(rng: np.random.Generator, cases: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and correlated models of unlike skill, shape (cases, models)."""
    truth = rng.random(cases) < 0.3
    shared = rng.normal(size=cases) + 1.2 * truth
    skill = rng.uniform(0.0, 0.6, models)
    noise = rng.normal(size=(cases, models)) * rng.uniform(0.6, 1.4, models)
    score = shared[:, None] + skill * truth[:, None] + noise
    return truth, 1 / (1 + np.exp(-(score - 1)))


def table(truth: np.ndarray, probs: np.ndarray) -> pd.DataFrame:
    """Return a predictions table of five folds."""
    ids = np.arange(len(truth)).astype(str)
    parts = [
        pd.DataFrame({
            "case_id": ids, "group": ids, "fold": np.arange(len(truth)) % 5, "seed": 0,
            "model": f"m{j:02}", "y_true": np.where(truth, "yes", "no"),
            "prob_no": 1 - prob, "prob_yes": prob,
        })
        for j, prob in enumerate(probs.T)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def speed(name: str, codes: np.ndarray, probs: np.ndarray) -> Row:
    """Time a bagged greedy choice, and one step of it with scikit-learn's metrics."""
    from sklearn import metrics as peer

    score, budget = _members.objective(name), _members.Budget([{}] * MODELS)
    start = time.process_time()
    _members.bagged_greedy(codes, probs, score, budget, 0)
    mine = time.process_time() - start
    evaluations = _members.BAGS * (MODELS // 2) * _members.STEPS
    grid = np.linspace(0, 1, 101)[1:-1]

    def theirs(prob: np.ndarray) -> float:
        if name == "auc":
            return float(peer.roc_auc_score(codes, prob))
        return max(
            np.mean([
                peer.accuracy_score(codes, prob >= cut), peer.f1_score(codes, prob >= cut),
                peer.recall_score(codes, prob >= cut),
                peer.recall_score(codes, prob >= cut, pos_label=0),
                peer.precision_score(codes, prob >= cut, zero_division=0),
                peer.precision_score(codes, prob >= cut, pos_label=0, zero_division=0),
            ]) for cut in grid
        )  # fmt: skip

    times = 20 if name == "auc" else 1
    start = time.process_time()
    for j in range(times):
        theirs(probs[:, j, 1])
    loop = (time.process_time() - start) / times * evaluations
    limit = 30 if name == "auc" else 20
    return Row(f"bagged greedy by {name}, {MODELS} models x {CASES:,} cases", f"{mine:.1f} s",
               f"{loop:,.0f} s, scikit-learn's metrics", loop / mine, f"{limit} s")  # fmt: skip


def optimism(method: str) -> tuple[float, float]:
    """Return by how much the AUC on the rows of the choice, and nested, is above that of new cases.

    Means over the drawn sets.
    """
    flattered, honest = [], []
    for seed in range(SETS):
        rng = np.random.default_rng(seed)
        truth, probs = drawn(rng, SMALL + CASES, 20)
        old, new = slice(0, SMALL), slice(SMALL, None)
        oof, later = table(truth[old], probs[old]), probs[new]
        fitted = Ensemble(method, objective="auc").fit(oof)
        fresh = auc(truth[new], _joined(fitted, later), positive=True)
        seen = fitted.predict(oof)
        folds = oof[["case_id", "fold"]].drop_duplicates()
        held = pd.concat([p.held for p in nested(Ensemble(method, objective="auc"), oof, folds)])
        flattered.append(auc(seen.y_true, seen.prob_yes, positive="yes") - fresh)
        honest.append(auc(held.y_true, held.prob_yes, positive="yes") - fresh)
    return float(np.mean(flattered)), float(np.mean(honest))


def _joined(fitted: Ensemble, probs: np.ndarray) -> np.ndarray:
    """Return the joined probabilities of new cases, without building their table."""
    from kit._votes import Votes

    cases = pd.DataFrame({"case_id": np.arange(len(probs))})
    both = np.stack([1 - probs, probs], axis=2)
    found = fitted._joined(Votes(cases, both, fitted.models, fitted.classes))
    return np.asarray(found.prob_yes)


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Ensembles", sets=SETS)
    truth, probs = drawn(np.random.default_rng(0), CASES, MODELS)
    both = np.stack([1 - probs, probs], axis=2)
    rows = [speed(name, truth.astype(int), both) for name in ("mean_of_six", "auc")]
    for method in ("stacked", "greedy", "bagged_greedy", "mean"):
        same, held = optimism(method)
        rows.append(Row(f"AUC above that of new cases, {method}", f"{held:+.3f} nested",
                        f"{same:+.3f}, on the rows of the choice", None, "0"))  # fmt: skip
    notes = (
        f"Optimism: {SETS} drawn sets of {SMALL} cases, 20 models, judged on {CASES:,} new cases. "
        "CPU seconds on one core; scikit-learn's are of one evaluation (of the mean of six: at 99 "
        "thresholds), times their number."
    )
    tell("ensemble", "Ensembles", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
