"""`data_manifest.yaml` as validated objects: where each dataset is, what it holds, its terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import Field, StrictInt, StrictStr, ValidationError, model_validator

from kit import checks, marks, mounts
from kit.errors import ManifestError, MissingDataError
from kit.layout import PLACES, Columns, Group, Layout, Model, Table, Test

FILE = "data_manifest.yaml"
PACKAGED = Path(__file__).resolve().parent / FILE  # where a wheel puts it
OWN = frozenset({"name", "manifest"})  # set by the loader, never written in an entry


class Weights(Model):
    """A file of pretrained weights.

    Attributes:
        path: Relative to the data folder or to the platform's mounted inputs, or absolute.
        sha256: Of the file; it is compared before the file is read.
        url: Where it is downloaded from, by hand: the kit downloads nothing.
    """

    path: str
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$")
    url: str | None = None


class Dataset(Layout):
    """One entry of the manifest."""

    name: str
    manifest: Path = Field(exclude=True)
    about: str = ""
    licence: str
    source: str
    synthetic: bool = False
    roots: dict[str, str]
    mask_values: dict[str, StrictInt | StrictStr | list[StrictStr]] | None = None
    mask_frame: Literal["slide", "bounds"] | None = None  # what masks show; None: by their shape
    mpp: float | None = Field(None, gt=0)
    review: str | None = None  # a person's marks on labels, from the manifest's folder on
    caution: str | None = None  # stands with the figures of every run on these data
    graded: bool = False  # the classes are grades, in order
    image_size: int | None = Field(None, ge=8)
    mixed_sizes: Literal["resize", "pad"] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, int] | None = None  # training cases of each class, as published
    sha256: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, Weights] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    def root(
        self,
        data: str | Path | None = None,
        platform: str = "local",
        *,
        mount: Path | None = None,
    ) -> Path:
        """Return the folder that pattern, table and paths are relative to.

        Args:
            data: The folder that relative roots start from, as the user says it.
            platform: Which of the roots.
            mount: The platform's mounted inputs, where they start without `data`, in either of the
                layouts of `kit.mounts`; None: `data` in its `home`.

        Raises:
            ManifestError: The entry names no root for the platform.
            MissingDataError: The folder is not there; says how to get it.
        """
        if platform not in self.roots:
            raise ManifestError(
                f"dataset {self.name} has no root for {platform}",
                expected=f"one of {', '.join(self.roots)}", path=self.manifest,
            )  # fmt: skip
        place = Path(self.roots[platform])
        if data is None and mount is not None:
            return self._mounted(mount, mounts.below(self.roots[platform]), platform)
        if data is not None and place.is_absolute():
            place = Path(self.roots["local"])
        root = (Path(data) if data is not None else home(self.manifest) / "data") / place
        if not root.is_dir():
            raise self.missing(root)
        return root

    def _mounted(self, mount: Path, path: str, platform: str) -> Path:
        own = [mount] if mount.name == path else []  # NSML mounts one dataset, under its name
        for root in [*own, *mounts.places(mount, path)]:
            if root.is_dir():
                return root
        error = self.missing(mount / path)
        if platform == "nsml":
            raise MissingDataError(
                error.what, expected=f"{mount}, named {path}, or {mount / path}",
                remedy=f"nsml run -d {path}, or the manifest's root for nsml corrected",
            )  # fmt: skip
        raise MissingDataError(
            error.what, expected=f"one of {mounts.looked_for(mount, path)}",
            remedy=f"add it to the notebook's inputs, or {error.remedy}",
        )  # fmt: skip

    def could_take(self, root: Path, place: Path) -> bool:
        """Return whether the pattern could take files below `place` for images of the set."""
        root, place = root.resolve(), place.resolve()
        if not place.is_relative_to(root):
            return False
        start = (self.pattern or "").split("/")[0]
        inside = place.relative_to(root).parts
        return not inside or "{" in start or "*" in start or inside[0] == start

    def missing(self, path: Path) -> MissingDataError:
        """Return the error of a file or folder of this dataset that is not there."""
        get = f"kit data make {self.name}" if self.synthetic else f"get it from {self.source}"
        return MissingDataError(
            f"data of {self.name} are missing", path=path,
            remedy=f"{get}, or pass --data DIR, the folder that holds {self.roots['local']}",
        )  # fmt: skip

    def cases(
        self,
        data: str | Path | None = None,
        *,
        platform: str = "local",
        labels: bool = True,
        root: str | Path | None = None,
    ) -> pd.DataFrame:
        """Return the cases table, sorted by case id.

        Labels of test rows are never read: they may be empty, absent or unknown.

        Args:
            data: See `root`.
            platform: See `root`.
            labels: False reads and asks for no label; every row is then a test row, unless the
                data mark test rows: then those alone are returned and nothing else is needed.
            root: The root itself, in place of data and platform.

        Returns:
            Text columns case_id, path (relative to the root, with /), label (a class; None for
            test rows), group, split (train or test); then mask (path or None) where the manifest
            has masks, index and part (a row of `<part>_images`) of arrays, series (those present,
            joined by commas) of dicom, and the columns that the manifest keeps; with a review
            that marks cases, those of `kit.marks.marked`.

        Raises:
            MissingDataError: A folder, a table, an image or a needed mask is not there.
            TableError: Ids are doubled; labels or groups are empty or unknown; no case is found.
            GroupLeakError: A group has both training and test rows.
        """
        base = self.root(data, platform) if root is None else Path(root)
        if not base.is_dir():
            raise self.missing(base)
        table = self.find(base, labels=labels)
        if self.review is None or not labels:
            return table
        by_mask = self.kind == "slides" and "mask" in table
        path = home(self.manifest) / self.review
        return marks.marked(table, path, self.classes, by_mask=by_mask)


class Manifest(Model):
    """All datasets of one manifest file."""

    path: Path
    datasets: dict[str, Dataset]

    def dataset(self, name: str) -> Dataset:
        """Return one dataset, or raise `ManifestError` with the known names."""
        if name not in self.datasets:
            raise ManifestError(
                f"dataset {name!r} is unknown", path=self.path,
                remedy=checks.nearest(name, self.datasets),
            )  # fmt: skip
        return self.datasets[name]


def load_manifest(path: str | Path | None = None) -> Manifest:
    """Read and validate a manifest.

    Args:
        path: The file; None: `data_manifest.yaml` in the working folder, in one of its parents,
            or beside the package.

    Raises:
        ManifestError: The file is missing or not YAML, or a key or value does not fit; names
            the dataset, the key and the nearest right key.
    """
    found = (Path(path) if path is not None else _find()).resolve()
    if not found.is_file():
        raise ManifestError("no such manifest", path=found, remedy="work in the project's folder")
    try:
        content = yaml.load(found.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError("not valid YAML", received=str(error), path=found) from error
    if not isinstance(content, dict) or list(content) != ["datasets"]:
        received = ", ".join(map(str, content)) if isinstance(content, dict) else content
        raise ManifestError(
            "the top holds one key", expected="datasets", received=received, path=found
        )
    entries = content["datasets"] if isinstance(content["datasets"], dict) else {}
    return Manifest(
        path=found, datasets={str(name): _dataset(name, entries[name], found) for name in entries}
    )


def home(manifest: Path) -> Path:
    """Return the folder of data and runs: the manifest's, or the working one for a wheel's."""
    return Path.cwd() if manifest == PACKAGED else manifest.parent


class _Loader(yaml.SafeLoader):
    """The safe loader, to which a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} stands twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def _find() -> Path:
    here, package = Path.cwd(), PACKAGED.parent
    # Beside the package in a checkout; inside it where a wheel was installed.
    places = [folder / FILE for folder in (here, *here.parents, package.parent, package)]
    return next((place for place in places if place.is_file()), places[0])


def _dataset(name: Any, entry: Any, path: Path) -> Dataset:
    if not isinstance(entry, dict):
        raise ManifestError(f"dataset {name} is no mapping of keys", received=entry, path=path)
    taken = OWN & set(entry)
    try:
        if taken:
            raise ManifestError(
                f"key {min(taken)!r} in dataset {name} is unknown", path=path,
                remedy="an entry is named by its place under datasets",
            )  # fmt: skip
        return Dataset.model_validate({**entry, "name": str(name), "manifest": path})
    except ValidationError as error:
        bad = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        raise _told(bad, f"in dataset {name}", path) from error


def _told(bad: Any, where: str, path: Path) -> ManifestError:
    """Return pydantic's finding as one line."""
    place, key = ".".join(map(str, bad["loc"])), str(bad["loc"][-1]) if bad["loc"] else ""
    if bad["type"] == "extra_forbidden":
        return ManifestError(
            f"key {place!r} {where} is unknown", received=key, path=path,
            remedy=checks.nearest(key, _keys(bad["loc"])),
        )  # fmt: skip
    if not place:
        return ManifestError(f"{bad['ctx']['error']}, {where}", path=path)
    if bad["type"] == "missing":
        return ManifestError(f"key {place!r} {where} is missing", path=path)
    return ManifestError(
        f"key {place!r} {where} does not fit", expected=bad["msg"], received=repr(bad["input"]),
        path=path, remedy="put it in quotes" if bad["type"] == "string_type" else None,
    )  # fmt: skip


def _keys(place: tuple[int | str, ...]) -> set[str]:
    parts: dict[Any, type[Model]] = {
        "table": Table, "columns": Columns, "group": Group, "test": Test, "weights": Weights,
    }  # fmt: skip
    model = parts.get(place[0], Dataset) if len(place) > 1 else Dataset
    return set(model.model_fields) - OWN


def _problems(entry: Dataset) -> Iterator[str]:
    """Say what in an entry cannot be."""
    if "local" not in entry.roots:
        yield "roots names no local folder"
    if (entry.arrays is None) == (entry.pattern is None and entry.table is None):
        yield "cases come either from arrays, or from pattern or table or both"
    if (entry.kind == "arrays") != (entry.arrays is not None):
        yield "the key arrays belongs to kind arrays, and to no other"
    if entry.test.pattern and entry.test.table:
        yield "test has both pattern and table: keep one"
    if len({isinstance(value, int) for value in (entry.mask_values or {}).values()}) == 2:
        yield "mask_values names both pixel values and groups of annotations: keep one kind"
    yield from _pattern_problems(entry)
    yield from _class_problems(entry)


def _pattern_problems(entry: Dataset) -> Iterator[str]:
    for pattern in filter(None, (entry.pattern, entry.test.pattern)):
        places = re.findall(r"\{(.*?)\}", pattern)
        for place in places:
            if place not in PLACES:
                yield f"{{{place}}} in a pattern is unknown: {checks.nearest(place, PLACES)}"
        if "case_id" not in places:
            yield f"pattern {pattern} has no {{case_id}}"
        if "series" in places and entry.series is None:
            yield "the pattern has {series}, and no key series says which one is read"
    if entry.all_series and entry.series not in entry.all_series:
        yield f"all_series does not hold series, which is {entry.series}"
    if entry.all_series and not (entry.pattern or "").endswith("/{series}"):
        yield "all_series needs a pattern that ends in /{series}"
    if entry.group.column is not None and entry.table is None:
        yield "group.column needs a table"
    if entry.group.pattern is not None:
        try:
            brackets = re.compile(entry.group.pattern).groups
        except re.error as error:
            yield f"group.pattern is no regular expression: {error}"
        else:
            if brackets != 1:
                yield f"group.pattern must have one pair of brackets, and has {brackets}"


def _class_problems(entry: Dataset) -> Iterator[str]:
    written = entry.arrays or entry.table or entry.label or "{label}" in (entry.pattern or "")
    if not written:
        yield "no labels: the pattern has no {label}, and there is neither table nor label"
    if len(set(entry.classes)) < len(entry.classes):
        yield f"classes are doubled: {', '.join(entry.classes)}"
    named = {
        "label": [entry.label], "labels": (entry.labels or {}).values(),
        "positive": [entry.positive], "counts": entry.counts or {},
    }  # fmt: skip
    for key, values in named.items():
        for value in values:
            if value is not None and value not in entry.classes:
                yield f"{key} names {value!r}, which is none of {', '.join(entry.classes)}"
    if (len(entry.classes) == 2) != (entry.positive is not None):
        yield "positive must name the positive one of two classes; above two it is left out"
