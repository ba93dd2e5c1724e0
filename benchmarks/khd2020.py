"""The two recipes of KHD 2020 on real patches: `python benchmarks/khd2020.py --data DIR [--save]`.

IDC patches (some 1,500 of 50 px, whole patients, three folds), then BreakHis (268 images, 16
patients, five folds) from scratch and after IDC, beginning with a network of the IDC run. Called
again with the same `--out` it goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench import arguments, keep, off_ledger
from khd2019 import interval, minutes

from kit.challenges import open_run, recipes
from kit.comparison import compare
from kit.pipeline import Run

COLUMNS = ("data set", "recipe", "AUC", "accuracy", "mean of six", "AUC less the team's",
           "accuracy less the team's", "minutes a fold")  # fmt: skip
SHARED = {"image_size": 48, "model": "conv_small", "epochs": 20}
"""One tiny network for all: ResNet50 at 331 px is more than a CPU trains."""
IDC = {"limit": 1500, "n_splits": 3}
RECIPES: dict[str, dict[str, Any]] = {
    "team": {**recipes("khd2020")["team"], **SHARED},
    "team at 2e-3": {**recipes("khd2020")["team"], **SHARED, "learning_rate": 2e-3},
    "kit": {**recipes("khd2020")["kit"], **SHARED},
}
"""The team's rate is one for pretrained weights: the second line says what is due to it alone."""
NOTES = (
    "Out-of-fold by patient, one seed; brackets are 95 % intervals over patients, those of the "
    "differences paired. All train the kit's smallest network (24,050 parameters) for 20 epochs at "
    "48 px: what differs is augmentation, optimizer, rate and schedule, averaged weights and "
    "views, and the threshold. 1e-4 is a rate for pretrained weights: the line at 2e-3 is what is "
    "due to that alone. Every interval of a difference holds 0: no recipe is shown to win, and "
    "beginning with IDC is not shown to help. BreakHis has 16 patients: its intervals say how "
    "little that is. Minutes are of one thread on a machine that did other work besides."
)


def opened(data: str | None, out: Path, name: str, recipe: str, **more: Any) -> Run:
    """Return the run of a recipe on one data set, in a folder of its own."""
    folder = f"{name}_{recipe.replace(' ', '_')}{'_begun' if 'weights' in more else ''}"
    values = {**RECIPES[recipe], **more}
    run = open_run(name, data=data, out=out / folder, settings=values, workers=0)
    return off_ledger(run)


def differences(team: Run, run: Run) -> tuple[str, str]:
    """Return by how much a run's AUC and accuracy lie above the team's, on the same rows."""
    a, b = (one.scored().table.sort_values("case_id") for one in (team, run))
    column = f"prob_{team.dataset.positive}"
    found = compare(a.y_true, a[column], b[column], pred_a=a.y_pred, pred_b=b.y_pred,
                    positive=team.dataset.positive, groups=a.group)  # fmt: skip
    auc, accuracy = (
        f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}), p {one.p:.3f}"
        for one in (found["auc"], found["accuracy"])
    )
    return auc, accuracy


def line(name: str, recipe: str, run: Run, team: Run) -> list[str]:
    """Return a line of the table; `team` is what a run is compared with, unless it is itself."""
    found = run.complete()
    figures = [interval(found[key]) for key in ("auc", "accuracy", "mean_of_six")]
    others = ("", "") if team is run else differences(team, run)
    return [name, recipe, *figures, *others, minutes(run)]


def main() -> None:
    """Train what is missing, print the table and, if asked, keep it."""
    asked = arguments("The recipes of KHD 2020", data="", out="")
    out, data = Path(asked.out or Path(tempfile.gettempdir()) / "kit-khd2020"), asked.data or None
    idc = {name: opened(data, out, "idc_patches", name, **IDC) for name in RECIPES}
    lines = [line("IDC", name, run, idc["team"]) for name, run in idc.items()]
    small = {name: opened(data, out, "breakhis_200x", name) for name in RECIPES}
    small |= {
        f"{name} after IDC": opened(data, out, "breakhis_200x", name, weights=str(idc[name].out))
        for name in RECIPES
    }
    lines += [line("BreakHis", name, run, small["team"]) for name, run in small.items()]
    keep("khd2020", "KHD 2020's recipes on IDC and BreakHis", COLUMNS, lines, notes=NOTES,
         save=asked.save)  # fmt: skip


if __name__ == "__main__":
    main()
