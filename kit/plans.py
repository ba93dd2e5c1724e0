"""The networks of a cross-validation: what each learns from, and the fingerprint of all that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from kit.checks import columns, first, positive_int
from kit.errors import SettingsError, TableError
from kit.files import digest, fingerprint, read_json, read_table, sha256, table_key, write_table
from kit.fits import EVERYTHING, Fit
from kit.folds import check_no_leak
from kit.models import check_model
from kit.recipes import Recipe
from kit.store import Store
from kit.weights import verified

FORMAT = 2


def plan(
    folds: pd.DataFrame, data: Store, model: str, recipe: Recipe, out: Path, seeds: int, *,
    classes: Sequence[str], only: Sequence[int] | None = None, weights: Path | None = None,
    teacher: Path | None = None,
) -> list[Fit]:  # fmt: skip
    """Return the networks to train, each with the fingerprint of all that decides it.

    The first seed of every fold comes before the second of any, so that a budget of time that
    does not suffice for all leaves whole rounds.

    Raises:
        GroupLeakError: A group stands in two folds.
        TableError: The folds table is no such table, or a fold is empty or lacks a class to learn.
        SettingsError: The classes are not those of the labels, or the teacher is of other folds.
    """
    check_model(model)
    check_folds(folds)
    _check_classes(data.items, classes)
    positive_int("seeds", seeds)
    items = data.items.merge(folds[["case_id", "fold"]], on="case_id", how="left")
    numbers = sorted(folds.fold.unique())
    chosen = numbers if only is None else list(only)
    unknown = sorted(set(chosen) - set(numbers))
    if unknown:
        raise TableError(
            "no such fold", expected=f"of {first(numbers, 20)}", received=first(unknown)
        )
    pretrained = sha256(weights) if weights else None
    common = [FORMAT, model, asdict(recipe), list(classes), pretrained]
    common += [data.stain] if data.stain else []
    fits = []
    for seed in range(seeds):
        for fold in map(int, chosen):
            rows = learnt(items, items.fold.notna() & (items.fold != fold), fold, classes)
            held = np.flatnonzero(items.train & (items.fold == fold) & items.label.notna())
            teachers = _teachers(teacher, folds, fold)
            content = items.iloc[rows][["case_id", "key", "label"]]
            seen = items.iloc[held][["case_id", "key", "label"]] if recipe.chooses else None
            key = fingerprint([
                *common, fold, seed, digest(content), seen is not None and digest(seen),
                [sha256(path) for path in teachers],
            ])  # fmt: skip
            fits.append(
                Fit(
                    data, rows, codes(items, rows, classes), held,
                    codes(items, held, classes), tuple(classes), model, recipe, fold, seed,
                    Path(out) / f"{stem(fold, seed)}.keras", key, weights, teachers,
                )
            )  # fmt: skip
    return fits


def stem(fold: int, seed: int) -> str:
    """Return the name of a network's files."""
    return f"all_seed{seed}" if fold == EVERYTHING else f"fold{fold}_seed{seed}"


def write_networks(fits: Sequence[Fit], out: Path) -> None:
    """Write the table of the networks that are finished (see `networks`)."""
    rows = [
        {"name": fit.path.stem, "fold": fit.fold, "seed": fit.seed, "model": fit.model,
         "sha256": sha256(fit.path)} for fit in fits
    ]  # fmt: skip
    path, key = out / "networks.parquet", fingerprint(rows)
    if table_key(path) != key:
        write_table(pd.DataFrame(rows), path, key)


def networks(out: Path) -> pd.DataFrame:
    """Return the networks that a cross-validation finished in this folder, a row each.

    Columns: `name`, of its files (`.keras`, and its note, `.json`); `fold`, `EVERYTHING` where it
    was trained on all items; `seed, model`; `sha256` of the file.

    Raises:
        KitError: No cross-validation ended here.
    """
    return read_table(Path(out) / "networks.parquet")


def check_folds(folds: pd.DataFrame) -> None:
    """Raise where a folds table is none, or a group stands in two of its folds."""
    columns(folds, ["case_id", "group", "label", "fold"])
    numbers = pd.to_numeric(folds.fold, errors="coerce")
    wrong = folds[~(numbers.ge(0) & numbers.mod(1).eq(0))]
    if len(wrong) or not len(folds):
        raise TableError(
            "folds are no whole numbers from 0", expected="one for each training case",
            received=f"fold {wrong.fold.iloc[0]} of case {wrong.case_id.iloc[0]}" if len(wrong)
            else "an empty table", remedy="kit.folds.assign_folds deals them",
        )  # fmt: skip
    check_no_leak(folds)


def _check_classes(items: pd.DataFrame, classes: Sequence[str]) -> None:
    unknown = sorted(set(items.label[items.train].dropna()) - set(classes))
    if len(set(classes)) < max(2, len(classes)) or unknown:
        raise SettingsError(
            "the classes are not those of the labels", expected="two or more, each once",
            received=f"classes {', '.join(map(str, classes))}"
            + (f"; labels {first(unknown)}" if unknown else ""),
        )  # fmt: skip


def learnt(items: pd.DataFrame, mine: pd.Series, fold: int, classes: Sequence[str]) -> np.ndarray:
    """Return the rows that a fold's network learns from; every class must be among them."""
    if not (items.fold == fold).any() and fold != EVERYTHING:
        raise TableError(
            f"fold {fold} is empty", expected="images of its cases", received="none that is read",
            remedy="deal the folds anew, or leave it out with --folds",
        )  # fmt: skip
    rows = np.flatnonzero(items.train & mine)
    labels = items.label.iloc[rows]
    lacking = sorted(set(classes) - set(labels))
    if lacking:
        raise TableError(
            f"without fold {fold} there is nothing to learn from of class {first(lacking)}",
            expected=f"images of each of {', '.join(classes)}",
            received=", ".join(f"{n} {name}" for name, n in labels.value_counts().items()),
            remedy="fewer folds, another seed, or a fold table of your own",
        )  # fmt: skip
    return rows


def codes(items: pd.DataFrame, rows: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the number of each row's class."""
    labels = pd.Categorical(items.label.iloc[rows], categories=list(classes))
    return np.asarray(labels.codes, np.int64)


def begun_with(folder: Path, dataset: str) -> Path:
    """Return the network of a finished run that a run on another data set begins with.

    It is one trained on all cases where there is one, else the first fold's: whatever the fold,
    it has not seen a case of the other set.

    Args:
        folder: Of the finished run.
        dataset: Name of the data set that is trained on now.

    Raises:
        SettingsError: The run was on the same data set, so that its networks know held-out cases.
        KitError: It is not finished, or the network is damaged.
    """
    theirs = read_json(Path(folder) / "settings.json")["compared"]["dataset"]
    if theirs == dataset:
        raise SettingsError(
            "weights of a run on the same data set have seen the cases that are held out",
            expected="a run on another data set", received=f"weights={folder}, of {theirs}",
            path=folder, remedy="begin without weights, or distil fold by fold: --set teacher=RUN",
        )  # fmt: skip
    there = networks(Path(folder) / "models").sort_values(["fold", "seed"]).iloc[0]
    path = Path(folder) / "models" / f"{there['name']}.keras"
    return verified(path, there["sha256"])


def check_teacher(folder: Path) -> Path:
    """Return the folder if it is that of a run."""
    if not (Path(folder) / "folds.parquet").is_file():
        raise SettingsError(
            "the teacher is no finished run", received=f"teacher={folder}",
            expected="the folder that kit run wrote, with folds.parquet and models", path=folder,
        )  # fmt: skip
    return Path(folder)


def _teachers(folder: Path | None, folds: pd.DataFrame, fold: int) -> tuple[Path, ...]:
    """Return the networks of another run that have not seen a fold; its folds must be ours."""
    if folder is None:
        return ()
    check_teacher(folder)
    theirs = read_table(Path(folder) / "folds.parquet")[["case_id", "fold"]]
    both = folds[["case_id", "fold"]].merge(theirs, on="case_id", suffixes=("", "_theirs"))
    differ = both.case_id[both.fold != both.fold_theirs]
    found = tuple(sorted((Path(folder) / "models").glob(f"fold{fold}_seed*.keras")))
    if len(differ) or len(both) < len(folds) or not found:
        raise SettingsError(
            "the teacher was not trained on the same folds, so it would tell of the held-out ones",
            received=first(differ) or f"{len(both)} of {len(folds)} cases, {len(found)} networks",
            path=folder, remedy="run both with the same --fold-table",
        )  # fmt: skip
    return found
