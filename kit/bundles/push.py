"""Kaggle's push folder as it lies on disk, and what a rule about it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

KERNEL, DATASET, FOLDER = "kernel-metadata.json", "dataset-metadata.json", "dataset"
PLACEHOLDER = "your-name"


@dataclass(frozen=True)
class Push:
    """A push folder; what cannot be read is empty, and a rule says so."""

    folder: Path

    @cached_property
    def kernel(self) -> dict[str, Any]:
        """Return what `kernel-metadata.json` says."""
        return read(self.folder / KERNEL) or {}

    @cached_property
    def attached(self) -> Path:
        """Return the folder of the dataset that is attached."""
        return self.folder / FOLDER

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """Return what `dataset-metadata.json` says."""
        return read(self.attached / DATASET) or {}

    @cached_property
    def code(self) -> Path | None:
        """Return the file that is uploaded, or None if there is no such file."""
        named = self.kernel.get("code_file")
        path = self.folder / named if isinstance(named, str) and named else None
        return path if path is not None and path.is_file() else None

    @cached_property
    def notebook(self) -> dict[str, Any]:
        """Return the notebook's content; {} where the code is none that can be read."""
        if self.kernel.get("kernel_type") != "notebook" or self.code is None:
            return {}
        return read(self.code) or {}

    @property
    def cells(self) -> list[dict[str, Any]]:
        """Return the notebook's cells."""
        found = self.notebook.get("cells")
        return [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else []

    def sources(self, key: str) -> list[str]:
        """Return the sources of one key that are text; [] where they are no list."""
        found = self.kernel.get(key)
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


Find = Callable[[Push], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it demands, what to do, and what finds each breach."""

    name: str
    demands: str
    remedy: str
    find: Find


class Rules(list[Rule]):
    """A table of rules; `@rules(name, demands, remedy)` adds the function below it."""

    def __call__(self, name: str, demands: str, remedy: str) -> Callable[[Find], Find]:
        """Return what adds a function that yields what breaks the rule."""

        def add(find: Find) -> Find:
            self.append(Rule(name, demands, remedy, find))
            return find

        return add


def read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, or None if it is not there or is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def unread(path: Path) -> str:
    """Return why a file is no JSON object."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return str(error)
    return "no JSON object"


def said(value: object) -> str:
    """Return a value of a metadata file as it is written there."""
    return json.dumps(value, ensure_ascii=False)
