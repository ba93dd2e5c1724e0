"""How the cases of a dataset lie on disk: a pattern, a label table, or the arrays of an .npz."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

from kit import checks, patterns
from kit.errors import GroupLeakError, MissingDataError, TableError
from kit.files import holds_files, read_text_table

PLACES = ("case_id", "label", "group", "series")
TRAIN = ("train", "training", "val", "valid", "validation", "dev", "")
"""What a split column may say of a training row."""
COLUMNS = ["case_id", "path", "label", "group", "split"]
FREE = ["index", "part", "mask", "series"]


class Model(BaseModel):
    """A frozen part of the manifest that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Table(Model):
    """A label table: its file, relative to the root, and how it is written."""

    file: str
    separator: str = ","  # " ": any blanks
    header: tuple[str, ...] | None = None  # the columns' names where the file has no header
    id_format: str | None = None  # "{:05d}" turns 12 into 00012, as the folders are named


class Columns(Model):
    """What the columns of the label table are called."""

    case_id: str | None = None  # none: the path without its suffix is the id
    path: str = "path"
    label: str = "label"
    mask: str | None = None
    keep: tuple[str, ...] = ()  # carried into the cases table


class Group(Model):
    """The unit that no split divides; with neither column nor pattern, the case itself."""

    unit: str
    column: str | None = None
    pattern: str | None = None  # searched in the case id; its bracket is the group


class Test(Model):
    """Which rows are `test`: those with one of `values` in `column`, a pattern, or a table.

    A label table without the column has no test rows; train, val or nothing is training.
    """

    column: str = "split"
    values: tuple[str, ...] = ("test",)
    pattern: str | None = None
    table: str | None = None


class Layout(Model):
    """What finds, labels and groups the cases under a root."""

    kind: Literal["slides", "patches", "images", "dicom", "arrays"]
    pattern: str | None = None  # where images are: {case_id} {label} {group} {series} and *
    table: Table | None = None
    columns: Columns = Columns()
    arrays: str | None = None  # an .npz of train_images, train_labels, val_…, test_images
    series: str | None = None  # the {series} that is read
    all_series: tuple[str, ...] = ()  # the study's, each a channel where channels=series
    label: str | None = None  # the label of every case, where all are alike
    labels: dict[str, str] | None = None  # as written in the data -> class
    classes: tuple[str, ...] = Field(min_length=2)
    positive: str | None = None
    group: Group
    test: Test = Test()
    sample: str | None = None  # a table whose ids a submission must hold
    exclude: tuple[Annotated[str, Strict()], ...] = ()
    mask: str | None = None  # where masks are, as a pattern

    @field_validator("table", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    def missing(self, path: Path) -> MissingDataError:
        """Return the error of a file or folder that is not there."""
        return MissingDataError("data are missing", path=path)

    def find(self, root: Path, *, labels: bool = True) -> pd.DataFrame:
        """Return the cases table under `root`; see `kit.manifest.Dataset.cases`."""
        where = root / str(self.arrays or (self.table.file if self.table else self.pattern))
        rows = _array_rows(self, root, labels) if self.arrays else _listed_rows(self, root, labels)
        if not labels:
            rows = rows[rows.test] if rows.test.any() else rows.assign(test=True)
        rows = rows[~rows.case_id.isin(self.exclude)].reset_index(drop=True)
        asked = rows.case_id.isin(self.asked(root) or ())  # without an image, `unseen` names them
        rows = rows[~rows.test | ~asked | rows.path.notna()].reset_index(drop=True)
        _check_found(rows, where, labels)
        rows["split"] = np.where(rows.test, "test", "train")
        rows["label"] = _labels(self, rows, where)
        rows["group"] = _groups(self, rows, where, labels)
        if "mask" in rows:
            rows["mask"] = _masks(self, rows, root, labels)
        names = [name for name in (*FREE, *self.columns.keep) if name in rows]
        rows = rows.astype(dict.fromkeys(["case_id", "path", "group", "split"], str))
        return rows[[*COLUMNS, *names]].sort_values("case_id", ignore_index=True)

    def asked(self, root: Path) -> list[str] | None:
        """Return the ids that the sample submission asks for; None where there is none.

        Raises:
            TableError: Ids are doubled or empty, or their column is missing.
        """
        path = root / str(self.sample)
        if self.sample is None or not path.is_file():
            return None
        form, column = self.table or Table(file=self.sample), self.columns.case_id or "case_id"
        lines = checks.columns(read_text_table(path, form.separator), [column], path=str(path))
        return list(_with_ids(pd.DataFrame({"case_id": lines[column]}), form, path).case_id)

    def unseen(self, root: Path, cases: pd.DataFrame) -> dict[str, str]:
        """Return the ids that the sample submission asks for and that have no image, and why."""
        there = set(cases.case_id[cases.split == "test"])
        lost = [case for case in self.asked(root) or () if case not in there]
        pattern, series = self.test.pattern or "{case_id}", {"series": self.series}
        return {
            case: f"{case}: {self.sample} asks for it, and there is no "
            f"{patterns.fill(pattern, {'case_id': case, **series}) or case}"
            for case in lost
        }


def _array_rows(layout: Layout, root: Path, labels: bool) -> pd.DataFrame:
    """Return the rows of an .npz; of test parts and of images only headers are read."""
    path = root / str(layout.arrays)
    if not path.is_file():
        raise layout.missing(path)
    parts: list[pd.DataFrame] = []
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            for part in ("train", "val", "test"):
                if f"{part}_images" in arrays:
                    n, raw = _length(archive, f"{part}_images.npy"), None
                    if labels and part != "test":
                        raw = arrays[f"{part}_labels"].reshape(-1).astype(str)
                    parts.append(_array_part(part, n, raw, path))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TableError("not a readable .npz", received=str(error), path=path) from error
    if not parts:
        raise TableError(
            "no images in the .npz", expected="train_images, val_images or test_images", path=path
        )
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(path=str(layout.arrays), lost=rows.case_id, listed=True)


def _array_part(part: str, n: int, raw: np.ndarray | None, path: Path) -> pd.DataFrame:
    if raw is not None and len(raw) != n:
        raise TableError(
            f"{part}_labels and {part}_images differ in number", expected=f"{n} labels",
            received=str(len(raw)), path=path,
        )  # fmt: skip
    ids = [f"{part}_{i:05d}" for i in range(n)]
    values = [""] * n if raw is None else raw.tolist()
    return pd.DataFrame(
        {"case_id": ids, "raw": values, "test": part == "test", "index": range(n), "part": part}
    )


def _length(archive: zipfile.ZipFile, name: str) -> int:
    form = np.lib.format
    with archive.open(name) as stream:
        first = form.read_magic(stream) == (1, 0)
        read = form.read_array_header_1_0 if first else form.read_array_header_2_0
        return int(read(stream)[0][0])


def _listed_rows(layout: Layout, root: Path, labels: bool) -> pd.DataFrame:
    """Return case_id, path (None: no image), raw label, test, listed, lost (what to call it)."""
    lines = _lines(layout, root, labels)
    if layout.pattern is None:
        rows = _with_images(layout, lines, root)
    else:
        rows = _match(layout, root, layout.pattern, loose=not labels)
        if lines is None:
            rows["case_id"] = _unique(rows.case_id, rows.path, set())
        else:
            rows = _joined(rows, lines, root)
    if layout.test.pattern is not None:
        more = _match(layout, root, layout.test.pattern, loose=True).assign(test=True)
        _check_folders(layout, more, root)
        more["case_id"] = _unique(more.case_id, more.path, set(rows.case_id))
        rows = pd.concat([rows, more], ignore_index=True) if len(rows) else more
    return rows.astype({"test": bool, "listed": bool})


def _check_folders(layout: Layout, tests: pd.DataFrame, root: Path) -> None:
    """Raise if test cases lie in a folder that is no class where the pattern has its {label}."""
    known = layout.labels or layout.classes
    strange = [] if "raw" not in tests else sorted(set(tests.raw.dropna()) - set(known))
    if strange:
        raise TableError(
            f"test cases lie in folders that are no class: {checks.first(strange)}", path=root,
            expected=", ".join(known), received=layout.test.pattern,
            remedy="name the folders as the classes, or lay the cases side by side without any",
        )  # fmt: skip


def _lines(layout: Layout, root: Path, labels: bool) -> pd.DataFrame | None:
    """Return the lines of the label tables; None if there are none and none are needed."""
    files = [layout.table.file] if layout.table else []
    if layout.test.table is not None:
        files = [*files, layout.test.table] if labels else [layout.test.table]
    elsewhere = layout.pattern is not None or layout.test.pattern is not None
    if not labels and elsewhere:
        files = [file for file in files if (root / file).is_file()]
    parts = [_read(layout, root, file, labels) for file in files]
    return pd.concat(parts, ignore_index=True) if parts else None


def _read(layout: Layout, root: Path, file: str, labels: bool) -> pd.DataFrame:
    """Return one label table, all text, its columns under our names."""
    path, columns, form = root / file, layout.columns, layout.table or Table(file=file)
    if not path.is_file():
        raise layout.missing(path)
    table = read_text_table(path, form.separator, form.header)
    own = file == layout.test.table
    wanted: dict[str, str] = {}
    if layout.pattern is None:
        wanted["path"] = columns.path
    if layout.pattern is not None or columns.case_id is not None:
        wanted["case_id"] = columns.case_id or "case_id"
    if labels and not own and layout.label is None and "{label}" not in (layout.pattern or ""):
        wanted["raw"] = columns.label
    if labels and layout.group.column is not None:
        wanted["group"] = layout.group.column
    checks.columns(table, list(wanted.values()), path=str(path))
    for name, column in (("raw", columns.label), ("group", layout.group.column),
                         ("mask", columns.mask), *((k, k) for k in columns.keep)):  # fmt: skip
        if column in table and not (name == "raw" and not labels):
            wanted[name] = str(column)
    rows = pd.DataFrame({name: _numbers(table[column]) if name in columns.keep else table[column]
                         for name, column in wanted.items()})  # fmt: skip
    test = layout.test
    values = [value.lower() for value in test.values]
    marked: pd.Series | bool = False
    if test.column in table:
        said = table[test.column].str.lower()
        strange = sorted(set(said) - {*values, *TRAIN})
        if strange:
            raise TableError(
                f"unknown values in column {test.column}", received=checks.first(strange),
                expected=f"{', '.join(values)} for test rows; train, val or nothing for others",
                path=path, remedy=checks.nearest(strange[0], [*values, *filter(None, TRAIN)]),
            )  # fmt: skip
        marked = said.isin(values)
    rows = rows.assign(test=own or marked)
    return _with_ids(rows, form, path)


def _numbers(column: pd.Series) -> pd.Series:
    """Return whole numbers as such; 007 is none."""
    whole = column.str.fullmatch(r"0|-?[1-9]\d{0,17}").all()
    return column.astype("int64") if whole else column


def _with_ids(rows: pd.DataFrame, form: Table, path: Path) -> pd.DataFrame:
    if "path" in rows:
        rows["path"] = rows.path.str.replace("\\", "/").str.removeprefix("./")
    if "case_id" not in rows:
        checks.unique_ids(rows.path.mask(rows.path.eq("")), path=str(path))
        rows["case_id"] = _unique(rows.path.map(_stem), rows.path, set())
    elif form.id_format is not None:
        try:
            number = form.id_format.rstrip("}").endswith("d")
            ids = [form.id_format.format(int(x) if number else x) for x in rows.case_id]
        except ValueError as error:
            raise TableError(
                "an id does not fit id_format", expected=form.id_format, received=str(error),
                path=path,
            ) from error  # fmt: skip
        rows["case_id"] = ids
    checks.unique_ids(rows.case_id.mask(rows.case_id.eq("")), path=str(path))
    return rows


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _unique(ids: pd.Series, paths: pd.Series, taken: set[str]) -> pd.Series:
    """Return the ids, or, where they are not unique, the paths without (else with) suffix."""
    if not ids.duplicated().any() and not ids.isin(taken).any():
        return ids
    stems = paths.map(_stem, na_action="ignore").fillna(ids)
    return paths.fillna(ids) if stems.duplicated().any() else stems


def _with_images(layout: Layout, lines: pd.DataFrame | None, root: Path) -> pd.DataFrame:
    """Return the lines of a table that names its images, without the paths that are not there."""
    if lines is None:
        return _frame([])
    there = np.array([bool(path) and os.path.exists(root / path) for path in lines.path], bool)
    rows = lines.assign(lost=lines.path, path=lines.path.where(there), listed=True)
    if layout.mask is not None:
        rows["mask"] = [patterns.fill(layout.mask, {"case_id": name}) for name in rows.case_id]
    return rows


def _joined(found: pd.DataFrame, lines: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the lines of a table with the images that a pattern found, joined by id."""
    checks.unique_ids(found.case_id, path=str(root))
    checks.unique_ids(lines.case_id, path=str(root))
    ours = [name for name in found if name == "case_id" or name not in lines]
    both = found[ours].merge(lines, how="outer", on="case_id", indicator=True)
    both["listed"] = both["_merge"] != "left_only"
    both["lost"] = both.lost.where(both.lost.notna(), both.case_id)
    return pd.DataFrame(both.assign(test=both.test.eq(True)))


def _match(layout: Layout, root: Path, pattern: str, *, loose: bool) -> pd.DataFrame:
    """Return a row for each case found; loose: class folders may be left out."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for hit, values in patterns.find(root, pattern, layout.labels or layout.classes):
        if layout.kind == "dicom" or (root / hit).is_file():
            series = values.pop("series", layout.series)
            row = found.setdefault(tuple(values.values()), {**values, "path": None, "all": []})
            if series in row["all"]:
                raise TableError(
                    "two files are one case", expected="one file a case",
                    received=f"{row['path']}, {hit}", path=root,
                    remedy="take one of them away, or make the manifest's pattern tell them apart",
                )  # fmt: skip
            row["all"].append(series)
            bare = loose and layout.kind == "dicom" and not holds_files(root / hit)
            if series == layout.series and not bare:
                row["path"] = hit
    if not found and loose and "{label}/" in pattern:
        return _match(layout, root, pattern.replace("{label}/", ""), loose=False)
    beside = patterns.find(root, pattern.replace("{label}/", "")) if "/{label}/" in pattern else []
    stray = [hit for hit, _ in beside if (root / hit).is_file()]
    if stray:
        raise TableError(
            f"{len(stray)} images lie beside the folders of the classes", path=root,
            expected=pattern, received=checks.first(stray),
            remedy="lay each into the folder of its class, or take them away",
        )  # fmt: skip
    rows = _frame(list(found.values()))
    if "{series}" in pattern:
        rows["series"] = [",".join(names) for names in rows["all"]]
        rows["lost"] = rows.case_id + f"/{layout.series}"
    if layout.mask is not None:
        rows["mask"] = [patterns.fill(layout.mask, row) for row in found.values()]
        rows = rows[~rows.path.isin(set(rows["mask"]))].reset_index(drop=True)
    return rows.rename(columns={"label": "raw"}).drop(columns="all")


def _frame(found: list[dict[str, Any]]) -> pd.DataFrame:
    rows = pd.DataFrame(found, columns=None if found else ["case_id", "path", "label", "all"])
    return rows.astype(object).assign(test=False, listed=True, lost=rows.case_id)


def _check_found(rows: pd.DataFrame, where: Path, labels: bool) -> None:
    part = rows if not labels else rows[~rows.test]
    if not len(part):
        kind = "training cases" if labels and len(rows) else "cases"
        raise TableError(
            f"no {kind} found", expected="at least one", path=where,
            remedy="compare the pattern or table of the manifest with the folder",
        )  # fmt: skip
    lost = rows.lost[rows.path.isna()]
    if len(lost):
        raise MissingDataError(
            f"{len(lost)} of {len(rows)} rows have no image", received=checks.first(lost),
            path=where, remedy="bring the images, or take their lines out of the label table",
        )  # fmt: skip
    bare = rows.path[~rows.listed & ~rows.test]
    if labels and len(bare):
        raise TableError(
            f"{len(bare)} images have no line in the label table", received=checks.first(bare),
            path=where, remedy="add their lines, or name them under exclude in the manifest",
        )  # fmt: skip
    checks.unique_ids(rows.case_id, path=str(where))


def _labels(layout: Layout, rows: pd.DataFrame, where: Path) -> pd.Series:
    """Return the class of each training row and None for the others."""
    result = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    train = ~rows.test
    if layout.label is not None:
        return result.mask(train, layout.label)
    if train.any():
        known = layout.labels or {name: name for name in layout.classes}
        raw = rows.raw[train].where(rows.raw[train].notna(), "").astype(object)
        # a table with empty cells is often saved with 1.0 for 1
        raw = raw.map(lambda x: x[:-2] if x not in known and x.endswith(".0") else x)
        named = raw.where(raw.ne(""), None).set_axis(rows.case_id[train])
        result[train] = checks.labels(named, list(known), path=str(where)).map(known).to_numpy()
    return result


def _groups(layout: Layout, rows: pd.DataFrame, where: Path, labels: bool) -> pd.Series:
    """Return the group of each row; a test row without one is its own."""
    groups = rows.case_id
    if "group" in rows:
        groups = rows.group.where(rows.group.notna() & rows.group.ne(""))
    elif layout.group.pattern is not None:
        groups = rows.case_id.str.extract(layout.group.pattern, expand=False)
    empty = groups.isna()
    if labels and (empty & ~rows.test).any():
        bad = rows.case_id[empty & ~rows.test]
        raise TableError(
            f"{len(bad)} cases have no group", expected=f"a {layout.group.unit} for each case",
            received=checks.first(bad), path=where,
        )  # fmt: skip
    groups = groups.where(~empty, rows.case_id)
    both = sorted(set(groups[rows.test]) & set(groups[~rows.test]))
    if both:
        raise GroupLeakError(
            f"a {layout.group.unit} stands in both training and test rows",
            expected=f"all rows of a {layout.group.unit} in one split",
            received=f"{len(both)} do not: {checks.first(both)}", path=where,
            remedy="leave these cases out (exclude); or, if one name is several of them, say more "
            "of it under group in the manifest",
        )  # fmt: skip
    return pd.Series(groups)


def _masks(layout: Layout, rows: pd.DataFrame, root: Path, labels: bool) -> pd.Series:
    """Return the masks that exist; a training case of the positive class must have one.

    Where labels are read, all cases are there, and so each mask must have one.
    """
    named = [mask if isinstance(mask, str) and mask else None for mask in rows["mask"]]
    there = [mask if mask and (root / mask).is_file() else None for mask in named]
    if layout.mask is not None and labels:
        found = {
            path for path, places in patterns.find(root, layout.mask, layout.classes)
            if places.get("case_id") not in layout.exclude
        }  # fmt: skip
        alone = sorted(found - set(there))
        if alone:
            raise MissingDataError(
                f"{len(alone)} masks have no case", received=checks.first(alone), path=root,
                remedy="bring the slides or images that they are of, or take the masks away",
            )  # fmt: skip
    masks = pd.Series(there, index=rows.index, dtype=object)
    needed = ~rows.test
    if layout.positive is not None:
        needed &= rows.label.eq(layout.positive)
    if (needed & masks.isna()).any():
        bad = rows.case_id[needed & masks.isna()]
        raise MissingDataError(
            f"{len(bad)} training cases have no mask", received=checks.first(bad), path=root,
            remedy="bring the masks: without one, tumour would be read as normal tissue",
        )  # fmt: skip
    return masks
