"""A run's folder: each stage's table or files, made where inputs differ and kept where not."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.errors import KitError
from kit.files import (
    fingerprint,
    read_json,
    read_table,
    sha256,
    table_key,
    write_json,
    write_table,
)

log = logging.getLogger(__name__)

FORMATS: dict[str, int] = {"metrics": 2, "report": 2}
"""Format number of a stage's output where it is no longer 1. It is raised when the stage comes to
mean something else, so that a new version of the package alone makes nothing again."""


class Stages:
    """What a run has made, recognised by the fingerprint of its inputs.

    Args:
        out: The run's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def table(self, name: str, inputs: Any, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the stage's table: read where its inputs agree, made and written where not."""
        path, key = self.out / f"{name}.parquet", self._key(name, inputs)
        if table_key(path) == key:
            with contextlib.suppress(KitError):  # damaged behind its key: made again
                found = read_table(path)
                log.info("%s: unchanged", name)
                return found
        log.info("%s: making", name)
        write_table(make(), path, key)
        return read_table(path)

    def files(
        self, name: str, inputs: Any, paths: Sequence[Path], make: Callable[[], None]
    ) -> None:
        """Make files that are not tables, unless they stand, whole, and their inputs agree."""
        notes, known = self.out / "stages.json", {}
        with contextlib.suppress(KitError):  # without its notes a stage is made again
            known = read_json(notes)
        key = self._key(name, inputs)
        there = all(path.is_file() for path in paths)
        if there and known.get(name) == [key, *map(sha256, paths)]:
            log.info("%s: unchanged", name)
            return
        log.info("%s: making", name)
        make()
        write_json(notes, {**known, name: [key, *map(sha256, paths)]})

    def _key(self, name: str, inputs: Any) -> str:
        return fingerprint([name, FORMATS.get(name, 1), inputs])
