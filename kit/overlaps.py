"""Cases that share pixels by what their tables say: equal content, crops that overlap."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit import checks

HELD = 1_000_000  # pairs after which only those are kept that connect


def equal_content(cases: pd.DataFrame) -> pd.DataFrame:
    """Return each case with the first one of the same content: `a`, `b`, `how`.

    Args:
        cases: `case_id`, and `key`, a fingerprint of the content; an empty one is like no other.
    """
    checks.columns(cases, ["case_id", "key"])
    known = cases[cases["key"].notna()]
    first = known.groupby("key", sort=False)["case_id"].transform("first")
    again = known["key"].duplicated()
    return _pairs(first[again], known["case_id"][again], "the same content")


def overlapping(crops: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of cases whose crops share pixels: `a`, `b`, `how`.

    Not all pairs are listed where there are many, but enough to connect all cases that overlap: a
    chain of crops cannot be cut without parting a pair.

    Args:
        crops: case_id, x, y, footprint (level-0 pixels); `slide`, the file that a crop is of
            (`case_id` if there is no such column).
    """
    checks.columns(crops, ["case_id", "x", "y", "footprint"])
    case, names = pd.factorize(crops["case_id"])
    slide, _ = pd.factorize(crops["slide" if "slide" in crops else "case_id"])
    if not len(crops):
        return _pairs([], [], "")
    a, b = _connecting(slide, crops[["x", "y", "footprint"]].to_numpy(np.float64), case, len(names))
    return _pairs(names[a], names[b], "crops that overlap")


def _pairs(a: object, b: object, how: str) -> pd.DataFrame:
    table = pd.DataFrame({"a": np.asarray(a, dtype=object), "b": np.asarray(b, dtype=object)})
    return table.astype(str).assign(how=how)


def _connecting(
    slide: np.ndarray, box: np.ndarray, case: np.ndarray, cases: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of cases that overlap, enough of them to connect all that do.

    Crops lie in square cells as wide as the widest of them, so that each touches four at most and
    two that overlap share a cell.
    """
    row, cell_x, cell_y = _cells(box, float(box[:, 2].max()))
    cell, _ = pd.factorize(pd.MultiIndex.from_arrays([slide[row], cell_x, cell_y]))
    order = np.lexsort((row, cell))
    row, cell = row[order], cell[order]
    last = np.searchsorted(cell, cell, side="right")  # where each row's cell ends
    near = np.arange(len(row))
    found = np.empty((0, 2), np.int64)
    for step in range(1, len(row) + 1):
        near = near[near + step < last[near]]
        if not len(near):
            break
        a, b = row[near], row[near + step]
        low = np.maximum(box[a, :2], box[b, :2])
        high = np.minimum(box[a, :2] + box[a, 2:], box[b, :2] + box[b, 2:])
        hit = (low < high).all(axis=1) & (case[a] != case[b])
        ends = np.sort(np.stack([case[a[hit]], case[b[hit]]], axis=1), axis=1)
        found = np.unique(np.concatenate([found, ends]), axis=0)
        if len(found) > HELD:
            found = _forest(found, cases)
    return found[:, 0], found[:, 1]


def _forest(pairs: np.ndarray, cases: int) -> np.ndarray:
    """Return pairs that connect what these connect, one fewer than the cases of each part."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    ends = pairs.astype(np.int32)  # the tree of older SciPy takes no others
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(cases, cases))
    tree = minimum_spanning_tree(links).tocoo()
    return np.stack([tree.row, tree.col], axis=1).astype(np.int64)


def _cells(box: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells that each crop touches: its row, and the cell's column and row."""
    low = np.floor(box[:, :2] / width).astype(np.int64)
    high = np.ceil((box[:, :2] + box[:, 2:]) / width).astype(np.int64) - 1
    found = []
    for right in (0, 1):
        for down in (0, 1):
            touches = np.flatnonzero((low + np.array([right, down]) <= high).all(axis=1))
            found.append((touches, low[touches, 0] + right, low[touches, 1] + down))
    row, cell_x, cell_y = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return row, cell_x, cell_y
