"""Drawn data in the layout of a dataset that is not here, with the answers of its test cases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from kit import patterns, synthetic
from kit.challenges import STAND_IN
from kit.errors import SettingsError
from kit.files import write_text
from kit.images import read_image
from kit.manifest import Dataset, load_manifest

SCALE = {"slides": 0.25, "patches": 0.2, "arrays": 0.2, "images": 0.25, "dicom": 0.25}
"""Share of the drawn set, by kind: four to six patients of a class, of whom tests are taken.

At least 25 eyes are for training: among fewer, what all eyes share makes them look like copies.
"""
MOST_IMAGES = 3
"""Of one patient: as few as show that patients are kept together."""
TESTS = 3
"""One patient of so many is a test case."""


def draw(dataset: Dataset, folder: Path, *, seed: int = 0) -> pd.DataFrame:
    """Draw the cases that stand in for a dataset's, into a folder of their own.

    Args:
        dataset: The entry whose data are not here.
        folder: Where the drawn set is put; nothing is laid out yet.
        seed: Decides every byte.

    Returns:
        One row a case: `case_id`, `path` (of the drawn file or folder), `mask` (of slides),
        `label` (a class of the dataset), `group`, `split` (train or test, whole patients of every
        class on both sides).
    """
    name = STAND_IN[dataset.kind]
    source = load_manifest(dataset.manifest).dataset(name)
    more = max(1.0, len(dataset.classes) / len(source.classes))
    root = synthetic.make(name, folder, seed=seed, scale=min(1.0, more * SCALE[dataset.kind]))
    cases = source.cases(root=root)
    cases = cases[cases.split == "train"].groupby("group").head(MOST_IMAGES)
    cases = cases.reset_index(drop=True)
    known = list(source.classes)
    cases["label"] = [_class(known.index(label), dataset.classes) for label in cases.label]
    if len(dataset.classes) > len(known):  # by turns: the drawn set has fewer classes
        people = {group: n for n, group in enumerate(cases.group.unique())}
        turns = [people[group] % len(dataset.classes) for group in cases.group]
        cases["label"] = [dataset.classes[turn] for turn in turns]
    cases["path"] = [root / path for path in cases.path]
    if "mask" in cases:
        masks = [root / mask if isinstance(mask, str) else None for mask in cases["mask"]]
        cases["mask"] = pd.Series(masks, dtype=object)
    cases["split"] = _split(cases)
    cases["case_id"] = _ids(dataset, cases)
    return cases[[c for c in ("case_id", "path", "mask", "label", "group", "split") if c in cases]]


def _class(position: int, classes: tuple[str, ...]) -> str:
    return classes[min(position, len(classes) - 1)]


def _split(cases: pd.DataFrame) -> list[str]:
    """Return train or test of each case: of the patients of each class every third is for tests."""
    first = cases.drop_duplicates("group")
    turn = first.groupby("label").cumcount() % TESTS == TESTS - 1
    tests = set(first.group[turn])
    return ["test" if group in tests else "train" for group in cases.group]


def _ids(dataset: Dataset, cases: pd.DataFrame) -> list[str]:
    """Return ids such as the dataset's own: those from which a group is read keep their form."""
    wanted = dataset.group.pattern
    form = dataset.table.id_format if dataset.table else None
    if wanted is None:
        return [(form or "{}").format(number) for number in range(1, len(cases) + 1)]
    names = [Path(str(path)).stem for path in cases.path]
    if not all(re.search(wanted, name) for name in names):
        raise SettingsError(
            "no stand-in can be drawn: the drawn names show no patient", received=names[0],
            expected=f"names in which group.pattern {wanted!r} finds one", path=dataset.manifest,
            remedy="rehearse with --data DIR, a few of your own cases",
        )  # fmt: skip
    return names


def marks_tests(dataset: Dataset) -> bool:
    """Return whether the dataset's layout can say which of its cases are test cases."""
    return bool(dataset.test.pattern or dataset.table or dataset.arrays)


def place(
    dataset: Dataset, cases: pd.DataFrame, root: Path, *, labels: bool = True
) -> pd.DataFrame:
    """Lay drawn cases out under `root` as the manifest says that the dataset lies.

    Args:
        dataset: The entry.
        cases: See `draw`.
        root: The dataset's root.
        labels: Whether labels and masks are written; never those of test cases.

    Returns:
        The answers: `case_id` as the kit then names it, `drawn`, the case that it is, and `label`,
        of the test cases.
    """
    root.mkdir(parents=True, exist_ok=True)
    if dataset.arrays is not None:
        return _arrays(dataset, cases, root / dataset.arrays)
    rows, answers = [], {}
    for number, values in enumerate(cases.to_dict("records")):
        case = {str(name): value for name, value in values.items()}
        test = case["split"] == "test"
        path = _place_of(dataset, case, test)
        _copy(Path(case["path"]), root / path)
        row = _row(dataset, case, path, number, known=labels and not test)
        if labels and not test and case.get("mask") is not None:
            _mask(dataset, case, root, row)
        rows.append((test, row))
        if test:
            answers[path] = (case["case_id"], case["label"])
    _tables(dataset, rows, root)
    found = dataset.cases(root=root, labels=False)
    found = found[found.path.isin(list(answers))]
    drawn, labels_of = zip(*found.path.map(answers), strict=True) if len(found) else ((), ())
    return pd.DataFrame({"case_id": found.case_id, "drawn": drawn, "label": labels_of})


def _raw(dataset: Dataset, label: str) -> str:
    """Return a class as the data write it."""
    written = {name: raw for raw, name in (dataset.labels or {}).items()}
    return written.get(label, label)


def _place_of(dataset: Dataset, case: dict[str, Any], test: bool) -> str:
    """Return where a case's file or folder lies, relative to the root."""
    pattern = dataset.test.pattern if test and dataset.test.pattern else dataset.pattern
    suffix = Path(str(case["path"])).suffix
    if pattern is None:
        return f"images/{case['case_id']}{suffix}"
    values = {
        "case_id": case["case_id"], "label": _raw(dataset, case["label"]),
        "group": str(case["group"]), "series": dataset.series,
    }  # fmt: skip
    return str(patterns.fill(pattern.replace("*", "drawn"), values))


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder; an image whose suffix differs is written anew."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.suffix == target.suffix or target.suffix not in (".png", ".jpg", ".jpeg"):
        shutil.copyfile(source, target)
    else:
        pixels = cv2.cvtColor(read_image(source), cv2.COLOR_RGB2BGR)
        target.write_bytes(cv2.imencode(target.suffix, pixels)[1].tobytes())


def _row(
    dataset: Dataset, case: dict[str, Any], path: str, number: int, *, known: bool
) -> dict[str, Any]:
    """Return a case's line of the label table, under the dataset's own names of columns."""
    columns = dataset.columns
    row: dict[str, Any] = {columns.case_id or "case_id": case["case_id"]}
    if dataset.table and dataset.table.id_format and case["case_id"].isdigit():
        row[columns.case_id or "case_id"] = int(case["case_id"])
    if dataset.pattern is None:
        row[columns.path] = path
    row[columns.label] = _raw(dataset, case["label"]) if known else ""
    if dataset.group.column is not None:
        row[dataset.group.column] = case["group"]
    # Columns that are kept are places in a slide: far apart, so that no two crops overlap.
    row |= {name: 10_000 * number for name in columns.keep}
    row[dataset.test.column] = "train" if case["split"] == "train" else dataset.test.values[0]
    return row


def _mask(dataset: Dataset, case: dict[str, Any], root: Path, row: dict[str, Any]) -> None:
    """Write a slide's mask where the dataset has it, in its own values."""
    name = f"masks/{case['case_id']}.png"
    if dataset.mask is not None:
        values = {"case_id": case["case_id"], "label": _raw(dataset, case["label"])}
        name = str(patterns.fill(dataset.mask, values))
    elif dataset.columns.mask is not None:
        row[dataset.columns.mask] = name
    else:
        return
    meanings = dataset.mask_values or {"tumour": 255}
    if not all(isinstance(value, int) for value in meanings.values()):
        raise SettingsError(
            "no stand-in can be drawn of annotations", received=f"dataset {dataset.name}",
            remedy="rehearse with --data DIR, a few of your own cases",
        )  # fmt: skip
    tumour = read_image(case["mask"])[..., 0] > 0
    rest = meanings.get("normal", meanings.get("background", 0))
    pixels = np.where(tumour, meanings["tumour"], rest).astype(np.uint8)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(cv2.imencode(Path(name).suffix, pixels)[1].tobytes())


def _tables(dataset: Dataset, rows: Iterable[tuple[bool, dict[str, Any]]], root: Path) -> None:
    """Write the label table, and that of the tests where the dataset has one."""
    rows = list(rows)
    if dataset.table is None:
        return
    own = dataset.test.table is not None or dataset.test.pattern is not None
    files = {dataset.table.file: [row for test, row in rows if not (test and own)]}
    if dataset.test.table is not None:
        files[dataset.test.table] = [row for test, row in rows if test]
    for file, lines in files.items():
        if not lines:
            continue
        table, header = pd.DataFrame(lines), dataset.table.header
        if header is not None:
            table = table[list(header)]
        elif own:
            table = table.drop(columns=dataset.test.column)
        text = table.to_csv(
            index=False, header=header is None, sep=dataset.table.separator, lineterminator="\n"
        )
        write_text(root / file, text)


def _arrays(dataset: Dataset, cases: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write the .npz of a dataset of arrays, 28 px grey; return the answers."""
    pixels = [
        cv2.resize(cv2.cvtColor(read_image(p), cv2.COLOR_RGB2GRAY), (28, 28)) for p in cases.path
    ]
    labels = np.array([int(_raw(dataset, label)) for label in cases.label])
    test = (cases.split == "test").to_numpy()
    images, parts = np.stack(pixels), {}
    if not test.all():
        parts = {"train_images": images[~test], "train_labels": labels[~test][:, None]}
    if test.any():
        parts["test_images"] = images[test]
    write: Callable[..., None] = np.savez
    write(path, **parts)
    ids = [f"test_{number:05d}" for number in range(int(test.sum()))]
    tests = cases[test]
    return pd.DataFrame({
        "case_id": ids, "drawn": tests.case_id.to_numpy(), "label": tests.label.to_numpy()
    })  # fmt: skip
