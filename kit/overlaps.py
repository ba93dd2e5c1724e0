"""Crops that share pixels, or images that are the same, on two sides of a fold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit import checks
from kit.errors import GroupLeakError

ENOUGH = 100_000  # pairs after which counting stops: the answer no longer changes
REMEDY = "join these cases in one group, then make the folds again"


def check_no_overlap(patches: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """Return `patches` if no pixel of theirs stands in two folds.

    Two crops of one slide file that share a place, or two images of equal content, must stand in
    one fold. Rows of cases without a fold (tests) are not compared.

    Args:
        patches: case_id; where crops, also x, y, footprint (level-0 pixels); `slide`, the file
            that a crop is of (`case_id` if there is no such column); `key`, a fingerprint of the
            content.
        folds: case_id, group, fold.

    Raises:
        GroupLeakError: Crops overlap, or contents are equal, in different folds.
    """
    checks.columns(patches, ["case_id"])
    checks.columns(folds, ["case_id", "group", "fold"])
    number = patches["case_id"].map(folds.set_index("case_id")["fold"])
    seen = number.notna().to_numpy(dtype=bool)
    rows, fold = patches[seen], number[seen].to_numpy(dtype=np.int64)
    if "key" in rows:
        _check_keys(rows, fold)
    if {"x", "y", "footprint"} <= set(rows.columns):
        _check_crops(rows, fold)
    return patches


def _mixed(codes: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return for each row whether its code occurs in several folds; codes are >= 0."""
    count = int(codes.max(initial=-1)) + 1
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(low, codes, fold)
    np.maximum.at(high, codes, fold)
    return np.asarray((low < high)[codes])


def _check_keys(rows: pd.DataFrame, fold: np.ndarray) -> None:
    codes, _ = pd.factorize(rows["key"])
    known = codes >= 0
    mixed = np.flatnonzero(known)[_mixed(codes[known], fold[known])]
    if not len(mixed):
        return
    a = mixed[0]
    b = mixed[(codes[mixed] == codes[a]) & (fold[mixed] != fold[a])][0]
    names = rows["case_id"].iloc[[a, b]].tolist()
    raise GroupLeakError(
        "images with the same content stand in different folds",
        expected="equal images in one fold",
        received=f"{len(np.unique(codes[mixed]))} contents, first {names[0]} (fold {fold[a]}) and "
        f"{names[1]} (fold {fold[b]})", remedy=REMEDY,
    )  # fmt: skip


def _check_crops(rows: pd.DataFrame, fold: np.ndarray) -> None:
    slide, _ = pd.factorize(rows["slide" if "slide" in rows else "case_id"])
    near = np.flatnonzero(_mixed(slide, fold))
    if not len(near):
        return
    box = rows[["x", "y", "footprint"]].to_numpy(dtype=np.float64)[near]
    pairs, first = _overlaps(slide[near], box, fold[near])
    if not pairs:
        return
    where = [
        f"{rows['case_id'].iloc[near[i]]} at x={box[i, 0]:.0f}, y={box[i, 1]:.0f} "
        f"(fold {fold[near[i]]})" for i in first
    ]  # fmt: skip
    raise GroupLeakError(
        "crops of one slide overlap in different folds", expected="overlapping crops in one fold",
        received=f"{pairs:,}{' or more' if pairs >= ENOUGH else ''} pairs, first {where[0]} and "
        f"{where[1]}", remedy=REMEDY,
    )  # fmt: skip


def _overlaps(slide: np.ndarray, box: np.ndarray, fold: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Return how many pairs of crops in different folds overlap, and the first one.

    Crops lie in square cells as wide as the widest of them, so that each touches four at most and
    two that overlap share the cell where their common part begins: there the pair counts.
    """
    width = float(box[:, 2].max())
    row, cell_x, cell_y = _cells(box, width)
    cell, _ = pd.factorize(pd.MultiIndex.from_arrays([slide[row], cell_x, cell_y]))
    keep = _mixed(cell, fold[row])
    row, cell, cell_x, cell_y = (part[keep] for part in (row, cell, cell_x, cell_y))
    order = np.lexsort((row, cell))
    row, cell, cell_x, cell_y = (part[order] for part in (row, cell, cell_x, cell_y))
    last = np.searchsorted(cell, cell, side="right")  # where each row's cell ends
    pairs, near = 0, np.arange(len(row))
    first: tuple[int, ...] = ()
    for step in range(1, len(row) + 1):
        near = near[near + step < last[near]]
        if not len(near):
            break
        a, b = row[near], row[near + step]
        low = np.maximum(box[a, :2], box[b, :2])
        high = np.minimum(box[a, :2] + box[a, 2:], box[b, :2] + box[b, 2:])
        here = (np.floor(low / width) == np.stack([cell_x[near], cell_y[near]], axis=1)).all(axis=1)
        hit = np.flatnonzero((low < high).all(axis=1) & (fold[a] != fold[b]) & here)
        pairs += len(hit)
        if len(hit) and not first:
            first = (int(a[hit[0]]), int(b[hit[0]]))
        if pairs >= ENOUGH:
            break
    return pairs, first


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
