"""The two recipes of KHD 2019 on real eyes: `python benchmarks/khd2019.py --data DIR [--save]`.

RetinaMNIST (1,200 photographs, five grades, 28 px) at 48 px, five folds, the same for both. Called
again with the same `--out` it goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench import arguments, keep, off_ledger

from kit.challenges import open_run, recipes
from kit.comparison import compare
from kit.pipeline import Run

COLUMNS = ("recipe", "AUC", "accuracy", "mean of six", "AUC less the team's",
           "accuracy less the team's", "minutes a fold")  # fmt: skip
SHARED = {"image_size": 48, "fundus": "none"}
"""The images are cut to the eye already; 48 px is what a CPU trains a VGG on."""
RECIPES: dict[str, dict[str, Any]] = {
    **{name: dict(values) for name, values in recipes("khd2019").items()},
    "kit without second stage": {**recipes("khd2019")["kit"], "second_epochs": 0},
}


def interval(found: dict[str, Any]) -> str:
    """Return a figure with its 95 % interval."""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def differences(team: Run, run: Run) -> tuple[str, str]:
    """Return by how much a run's AUC and accuracy lie above the team's, on the same rows."""
    a, b = (one.scored().table.sort_values("case_id") for one in (team, run))
    columns = [f"prob_{name}" for name in team.dataset.classes]
    found = compare(
        a.y_true, a[columns].to_numpy(), b[columns].to_numpy(), pred_a=a.y_pred, pred_b=b.y_pred,
        classes=team.dataset.classes, groups=a.group,
    )  # fmt: skip
    auc, accuracy = (
        f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}), p {one.p:.3f}"
        for one in (found["auc"], found["accuracy"])
    )
    return auc, accuracy


def minutes(run: Run) -> str:
    """Return how long a fold was trained, mean over the folds."""
    from kit import histories

    table = histories.read_all(run.models)
    return f"{table.groupby('network').seconds.sum().mean() / 60:.1f}"


def main() -> None:
    """Train what is missing, print the table and, if asked, keep it."""
    asked = arguments("The recipes of KHD 2019", data="", out="", recipes=",".join(RECIPES),
                      workers=0)  # fmt: skip
    out = Path(asked.out or Path(tempfile.gettempdir()) / "kit-khd2019")
    runs = {
        name: off_ledger(open_run(
            "retinamnist", data=asked.data or None, out=out / name.replace(" ", "_"),
            settings={**RECIPES[name], **SHARED}, workers=asked.workers or None,
        ))
        for name in asked.recipes.split(",")
    }  # fmt: skip
    lines = []
    for name, run in runs.items():
        found = run.complete()
        figures = [interval(found[key]) for key in ("auc", "accuracy", "mean_of_six")]
        others = ("", "") if name == "team" else differences(runs["team"], run)
        lines.append([name, *figures, *others, minutes(run)])
    notes = (
        "Out-of-fold on the published training and validation parts, one seed; brackets are 95 % "
        "intervals over groups of copies, those of the differences paired. Both recipes train 25 "
        "epochs. RetinaMNIST names no patients. Minutes are of one thread on a machine that did "
        "other work besides."
    )
    keep("khd2019", "KHD 2019's recipes on RetinaMNIST", COLUMNS, lines, notes=notes,
         save=asked.save)  # fmt: skip


if __name__ == "__main__":
    main()
