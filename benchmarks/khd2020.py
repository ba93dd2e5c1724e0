"""The two recipes of KHD 2020 on real patches: `python benchmarks/khd2020.py --data DIR [--save]`.

IDC patches (some 1,500 of 50 px, whole patients, three folds), then BreakHis (268 images, 16
patients, five folds) from scratch and after IDC: a network of the IDC run is what it begins with.
Called again with the same `--out` it goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench import arguments, keep
from khd2019 import differences, interval, minutes

from kit.challenges import open_run, recipes
from kit.pipeline import Run

COLUMNS = ("data set", "recipe", "AUC", "accuracy", "mean of six", "AUC less the team's",
           "accuracy less the team's", "minutes a fold")  # fmt: skip
SHARED = {"image_size": 48, "model": "seresnet_small", "epochs": 20}
"""One small network for both: ResNet50 at 331 px is more than a CPU trains."""
IDC = {"limit": 1500, "n_splits": 3}
NOTES = (
    "Out-of-fold by patient, one seed; brackets are 95 % intervals over patients, those of the "
    "differences paired. Both recipes train the kit's small network for 20 epochs at 48 px: what "
    "differs is augmentation, optimizer, rate and its schedule, averaged weights and views, and "
    "the threshold. BreakHis has 16 patients: its intervals say how little that is. Minutes are "
    "of one thread on a machine that did other work besides."
)


def opened(data: str | None, out: Path, name: str, recipe: str, **more: Any) -> Run:
    """Return the run of a recipe on one data set, in a folder of its own."""
    values = {**recipes("khd2020")[recipe], **SHARED, **more}
    return open_run(name, data=data, out=out, settings=values, workers=0)


def line(name: str, recipe: str, run: Run, team: Run | None) -> list[str]:
    """Return a line of the table; `team` is what a run is compared with."""
    found = run.complete()
    figures = [interval(found[key]) for key in ("auc", "accuracy", "mean_of_six")]
    others = ("", "") if team is None else differences(team, run)
    return [name, recipe, *figures, *others, minutes(run)]


def main() -> None:
    """Train what is missing, print the table and, if asked, keep it."""
    asked = arguments("The recipes of KHD 2020", data="", out="")
    out, data = Path(asked.out or Path(tempfile.gettempdir()) / "kit-khd2020"), asked.data or None
    lines = []
    idc = {
        name: opened(data, out / f"idc_{name}", "idc_patches", name, **IDC)
        for name in ("team", "kit")
    }
    for name, run in idc.items():
        lines.append(line("IDC", name, run, None if name == "team" else idc["team"]))
    first: Run | None = None
    for begun in ("", " after IDC"):
        for name, run in idc.items():
            more = {"weights": str(run.out)} if begun else {}
            folder = out / f"breakhis_{name}{begun.replace(' ', '_')}"
            found = opened(data, folder, "breakhis_200x", name, **more)
            lines.append(line("BreakHis", name + begun, found, first))
            first = first or found
    keep("khd2020", "KHD 2020's recipes on IDC and BreakHis", COLUMNS, lines, notes=NOTES,
         save=asked.save)  # fmt: skip


if __name__ == "__main__":
    main()
