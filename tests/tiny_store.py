"""A tiny store on disk for tests of training: images of 8 px whose class can be seen."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from kit import store
from kit.store import Store

SIDE = 8


def read(rows: pd.DataFrame) -> np.ndarray:
    """Return noisy images; the first class is dark, each further one brighter."""
    images = []
    for key, label in zip(rows.key, rows.truth, strict=True):
        rng = np.random.default_rng(zlib.crc32(str(key).encode()))
        level = 70 + 60 * "abc".index(label)
        images.append(rng.normal(level, 50, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8))
    return np.stack(images)


def items(each: int = 12, tests: int = 4, classes: str = "ab") -> pd.DataFrame:
    """Return items, two a group: `each` of each class to learn from, `tests` to predict."""
    rows = []
    for label in classes:
        for number in range(each + tests):
            test = number >= each
            rows.append((f"{label}{number:02d}", "" if test else label, label,
                         f"{label}{number // 2}", "test" if test else "train"))  # fmt: skip
    table = pd.DataFrame(rows, columns=["case_id", "label", "truth", "group", "split"])
    table["label"] = table.label.astype(object).where(table.label != "", None)
    return table.assign(key=table.case_id, train=table.split == "train", predict=True)


def make(folder: Path, table: pd.DataFrame | None = None) -> Store:
    """Write a store and return it."""
    return store.build(folder, items() if table is None else table, read, "tiny")[0]


def folds(data: Store, n: int = 2) -> pd.DataFrame:
    """Return a folds table: groups in turn, so that each fold has each class."""
    cases = data.items[data.items.split == "train"][["case_id", "group", "label"]]
    return cases.assign(fold=cases.group.str[1:].astype(int) % n).reset_index(drop=True)
