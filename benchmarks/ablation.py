"""What each part of the defaults is worth: `python benchmarks/ablation.py --data DIR [--save]`.

Cross-validation on the real sets, folds by patient (or by copies, where no patient is named), the
default recipe and the same without one of its parts. Nothing is chosen on the rows it is judged
on: thresholds are nested by fold, no epoch is picked. Called again it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from bench import arguments, keep, off_ledger

from kit import aggregate, scoring
from kit.challenges import open_run
from kit.comparison import compare
from kit.ensemble import Ensemble
from kit.jobs import visible_devices
from kit.pipeline import Run
from kit.recipes import recipe_of
from kit.training import cross_validate

SETS = ("breastmnist", "retinamnist", "idc_patches")
COLUMNS = ("data set", "recipe", "AUC", "folds", "against the default", "mean of six", "accuracy",
           "trained by")  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "without test-time views": {"tta": False},
    "without augmentation": {"augment": "none"},
    "without EMA": {"ema": 0.0},
    "without stain jitter": {"augment": "patch-stain"},
}


def variants(run: Run) -> dict[str, dict[str, Any]]:
    """Return the recipes by name: what differs from the run's own."""
    stained = run.settings.augment == "patch"
    return {name: VARIANTS[name] for name in VARIANTS if stained or "stain" not in name}


def predictions(run: Run, name: str, change: dict[str, Any], out: Path) -> pd.DataFrame:
    """Return the out-of-fold table of one variant, from the folder of its networks."""
    tta = change.pop("tta", run.settings.tta) and change.get("augment") != "none"
    recipe = replace(recipe_of(run.settings), **change)
    folder = out / ("default" if not change else name.replace(" ", "_"))
    oof, _ = cross_validate(
        run.folds(), run.pixels(), run.settings.model, recipe, folder, run.settings.seeds,
        classes=run.dataset.classes, tta=tta, workers=run.trainers,
    )  # fmt: skip
    cases = run.cases()[["case_id", "label", "split"]].merge(run.folds().drop(columns="label"))
    return aggregate.to_cases(oof, cases, "mean", run.dataset.classes, run.dataset.positive)


def figures(run: Run, oof: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return a variant's figures with intervals, and its joined probabilities."""
    scored = scoring.score(
        oof, run.folds(), Ensemble().fit(oof), classes=run.dataset.classes,
        positive=run.dataset.positive, method="mean_of_six",
    )  # fmt: skip
    found = scoring.figures(
        scored, n_folds=run.settings.n_splits, resamples=2000, seed=0, method="mean_of_six",
        graded=run.dataset.graded, by="fold",
    )  # fmt: skip
    return found, scored.table


def auc_of_folds(run: Run, table: pd.DataFrame) -> str:
    """Return the least and the greatest AUC of a fold."""
    from kit.metrics import macro_auc

    names = [f"prob_{name}" for name in run.dataset.classes]
    found = [
        macro_auc(rows.y_true, rows[names].to_numpy(), run.dataset.classes)
        for _, rows in table.groupby("fold")
    ]
    return f"{min(found):.3f} to {max(found):.3f}"


def difference(run: Run, mine: pd.DataFrame, default: pd.DataFrame) -> str:
    """Return the AUC beyond the default's, with its paired interval."""
    both = default.merge(mine, on="case_id", suffixes=("", "_mine"))
    positive, classes = run.dataset.positive, run.dataset.classes
    names = [f"prob_{positive}"] if positive else [f"prob_{name}" for name in classes]
    theirs, ours = (both[[n + end for n in names]].to_numpy() for end in ("", "_mine"))
    found = compare(
        both.y_true, theirs[:, 0] if positive else theirs, ours[:, 0] if positive else ours,
        threshold=0.5 if positive else None, positive=positive or classes[-1], classes=classes,
        groups=both.group,
    )["auc"]  # fmt: skip
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def interval(metric: dict[str, float]) -> str:
    """Return a figure with its interval."""
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def machine() -> str:
    """Return the backend, and whether a GPU trained."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return f"{backend}, {'GPU' if visible_devices() else 'CPU'}"


def judged(run: Run, wanted: Sequence[str], out: Path) -> None:
    """Train and judge the variants of one set; each one's line of the table is kept in `out`."""
    default: pd.DataFrame | None = None
    for variant, change in variants(run).items():
        if variant not in ("default", *wanted):
            continue
        found, table = figures(run, predictions(run, variant, dict(change), out))
        default = table if default is None else default
        line = [
            run.dataset.name, variant, interval(found["auc"]), auc_of_folds(run, table),
            "" if variant == "default" else difference(run, table, default),
            interval(found["mean_of_six"]), interval(found["accuracy"]), machine(),
        ]  # fmt: skip
        print(" | ".join(line), flush=True)
        (out / f"{variant.replace(' ', '_')}.json").write_text(json.dumps(line))


def main() -> None:
    """Judge what is asked for, print the table of all that stands and, if asked, keep it."""
    asked = arguments(
        "What each part of the defaults is worth", data="", out="", sets=",".join(SETS),
        variants="", workers=0,
    )  # fmt: skip
    out, lines = Path(asked.out or Path(tempfile.gettempdir()) / "kit-ablation"), []
    for name in SETS:
        if name in asked.sets.split(","):
            run = open_run(
                name, data=asked.data or None, out=out / name / "run", workers=asked.workers or None
            )
            judged(
                off_ledger(run),
                asked.variants.split(",") if asked.variants else list(VARIANTS),
                out / name,
            )
        files = [out / name / f"{one.replace(' ', '_')}.json" for one in VARIANTS]
        lines += [json.loads(file.read_text()) for file in files if file.is_file()]
    notes = (
        "Out-of-fold, one seed, `kit run`'s defaults; brackets are 95 % intervals over patients "
        "(BreastMNIST and RetinaMNIST name none: over groups of copies); `folds` is the range of "
        "the folds' AUC. A difference whose interval holds 0 cannot be told from noise, and "
        "another seed moves every line a little."
    )
    keep("ablation", "What each part of the defaults is worth", COLUMNS, lines, notes=notes,
         save=asked.save)  # fmt: skip


if __name__ == "__main__":
    main()
