"""Which datasets are here, and whether their files are whole."""

from __future__ import annotations

import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from kit import synthetic
from kit.errors import KitError, MissingDataError
from kit.files import holds_files, sha256
from kit.jobs import Job, run
from kit.manifest import Dataset, Manifest

GOOD = "good"


def overview(manifest: Manifest, data: str | Path | None = None) -> pd.DataFrame:
    """Return one row for each dataset; one that is missing or broken is a row that says so.

    Args:
        manifest: The manifest.
        data: The folder that relative roots start from; None: `data` beside the manifest.

    Returns:
        name, kind, here (bool), cases and groups and test (whole numbers, missing where unknown),
        classes (text: each class with its training cases), where (the root, or what is wrong).
    """
    rows = [_line(dataset, data) for dataset in manifest.datasets.values()]
    names = ["name", "kind", "here", "cases", "classes", "groups", "test", "where"]
    table = pd.DataFrame(rows, columns=names)
    return table.astype({"cases": "Int64", "groups": "Int64", "test": "Int64"})


def _line(dataset: Dataset, data: str | Path | None) -> dict[str, object]:
    line: dict[str, object] = {"name": dataset.name, "kind": dataset.kind, "here": False}
    try:
        root = dataset.root(data)
        cases = dataset.cases(root=root)
    except MissingDataError as error:
        return {**line, "classes": "", "where": f"{error.path}; {error.remedy}"}
    except (KitError, OSError) as error:
        return {**line, "classes": "", "where": str(error)}
    counts = _counts(dataset, cases)
    return {
        **line, "here": True, "cases": len(cases), "groups": cases.group.nunique(),
        "classes": ", ".join(f"{name} {n}" for name, n in counts.items()),
        "test": int(cases.split.eq("test").sum()), "where": str(root),
    }  # fmt: skip


def _counts(dataset: Dataset, cases: pd.DataFrame) -> dict[str, int]:
    found = cases.label.value_counts()
    return {name: int(found.get(name, 0)) for name in dataset.classes}


def verify(dataset: Dataset, data: str | Path | None = None, workers: int = 1) -> pd.DataFrame:
    """Read every file of a dataset and compare it with the manifest.

    Args:
        dataset: The dataset.
        data: The folder that relative roots start from; None: `data` beside the manifest.
        workers: Processes that read files.

    Returns:
        One row for each class (what = labels), each id that the sample submission asks for and
        that has no image (what = sample), each file with a sha256 (what = sha256) and each image,
        series, mask or array file (what = image, series, mask, arrays); columns what, name (the
        class, the id, or the path from the root), status (good, missing, differs, unreadable, or
        bad where the cases cannot be listed), bytes (0 of what is no file), note (what was found).
        A broken dataset gives rows, never an error.
    """
    try:
        root = dataset.root(data)
    except (KitError, OSError) as error:
        return _table([("data", dataset.name, "missing", 0, str(error))])
    try:
        cases = dataset.cases(root=root)
        rows = _label_rows(dataset, cases, drawn=synthetic.drawn(root))
        lost = dataset.unseen(root, cases)
        rows += [("sample", case, "missing", 0, line) for case, line in lost.items()]
    except (KitError, OSError) as error:
        cases, rows = None, [("data", dataset.name, "bad", 0, str(error))]
    files = [("sha256", name, digest) for name, digest in dataset.sha256.items()]
    if cases is not None:
        what = {"dicom": "series", "arrays": "arrays"}.get(dataset.kind, "image")
        files += [(what, path, "") for path in _of_cases(dataset, root, cases)]
        if "mask" in cases:
            files += [("mask", str(path), "") for path in cases["mask"].dropna().unique()]
    jobs = [Job(f"{file[0]} {file[1]}", _check, (dataset.kind, root, *file)) for file in files]
    found = run(jobs, title=f"verify {dataset.name}", workers=workers)
    rows += [
        (what, name, "unreadable", 0, str(one.error)) if one.error else one.value
        for (what, name, _), one in zip(files, found, strict=True)
    ]
    return _table(rows)


def _of_cases(dataset: Dataset, root: Path, cases: pd.DataFrame) -> list[str]:
    """Return the path of each case, and of a study those of its other series that are there."""
    found = [str(path) for path in cases.path.unique()]
    if dataset.kind != "dicom":
        return found
    beside = [
        (PurePosixPath(path).parent / name).as_posix() for path in found
        for name in dataset.all_series
    ]  # fmt: skip
    return list(dict.fromkeys([*found, *(path for path in beside if holds_files(root / path))]))


Row = tuple[str, str, str, int, str]


def _table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["what", "name", "status", "bytes", "note"])


def _label_rows(dataset: Dataset, cases: pd.DataFrame, *, drawn: bool) -> list[Row]:
    """Return the row of each class; drawn cases are as many as were asked for."""
    rows: list[Row] = []
    for name, n in _counts(dataset, cases).items():
        note = f"{n} training cases in {cases.group[cases.label.eq(name)].nunique()} groups"
        status, expected = GOOD, (dataset.counts or {}).get(name, n if not dataset.counts else 0)
        if n != expected and drawn:
            note = f"{note}; drawn data, the real have {expected}"
        elif n != expected:
            status, note = "differs", f"{note}, expected {expected}"
        rows.append(("labels", name, status, 0, note))
    return rows


def _check(kind: str, root: Path, what: str, name: str, digest: str) -> Row:
    """Return the row of one file; `digest` is its sha256 where what = sha256."""
    path = root / name
    if not path.exists():
        return what, name, "missing", 0, str(path)
    parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    size = sum(part.stat().st_size for part in parts)
    if what == "sha256":
        found = sha256(path)
        same = found == digest
        note = found if same else f"{found}, expected {digest}"
        return what, name, GOOD if same else "differs", size, note
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a decoder's warning is no fault; a failure is
            note = _look(kind, path, what)
    except Exception as error:  # any failure of any decoder is the finding
        return what, name, "unreadable", size, str(error) or type(error).__name__
    return what, name, GOOD, size, note


def _look(kind: str, path: Path, what: str) -> str:
    """Decode a file and say what it holds."""
    if what == "series":
        from kit.dicom import read_series

        series = read_series(path)
        return " ".join([f"{series.volume.shape}", *series.warnings])
    if what == "arrays":
        return _look_arrays(path)
    if what == "image" and kind == "slides":
        from kit.slides import open_slide

        with open_slide(path) as slide:
            slide.thumbnail((256, 256))
            return f"{slide.size[0]} x {slide.size[1]}"
    from kit.images import read_image

    height, width = read_image(path).shape[:2]
    return f"{width} x {height}"


def _look_arrays(path: Path) -> str:
    notes = []
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays:
            array = arrays[name]
            notes.append(f"{name} {array.shape} {array.dtype}")
            if name.endswith("_images") and (array.dtype != np.uint8 or array.ndim not in (3, 4)):
                raise ValueError(
                    f"{notes[-1]}: expected uint8 (n, height, width) or (n, height, width, 3)"
                )
    return ", ".join(notes)
