"""Pairs of cases that must stand together: copies of an image, crops that share pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from kit.checks import first
from kit.duplicates import COLUMNS, near_duplicates
from kit.overlaps import equal_content, overlapping
from kit.store import Store

CONTENT = ("case_id", "slide", "x", "y", "footprint")
STEP = 256  # images read at a time


def pairs_of(cases: pd.DataFrame, store: Store, *, planned: bool) -> pd.DataFrame:
    """Return the pairs of cases that are alike: `a`, `b`, `how`, `distance`.

    Args:
        cases: The cases table, with `key`, the fingerprint of each content; where cases are crops
            of slides, with `x`, `y`, `footprint` (level-0 pixels) and `slide`.
        store: The images, as the network is given them.
        planned: Whether a case is a slide or study of many images: only equal files are found.
    """
    found = []
    if planned:
        found.append(equal_content(cases).assign(distance=0.0))
    else:
        kept = store.items.drop_duplicates("case_id")
        train = kept[kept["split"] != "test"]
        found.append(_copies(store, train))  # apart: no pixel of a test case moves a fold
        if len(train) < len(kept):
            every = _copies(store, kept)
            tests = [every[end].isin(kept["case_id"][kept["split"] == "test"]) for end in "ab"]
            found.append(every[tests[0] != tests[1]])
    if {"x", "y", "footprint"} <= set(cases):
        crops = cases[[name for name in CONTENT if name in cases]]
        found.append(overlapping(crops).assign(distance=0.0))
    full = [part for part in found if len(part)]
    if not full:
        return pd.DataFrame({name: [] for name in COLUMNS}).astype({"distance": float})
    return pd.concat(full, ignore_index=True).drop_duplicates(["a", "b"], ignore_index=True)


def _copies(store: Store, items: pd.DataFrame) -> pd.DataFrame:
    return near_duplicates(_images(store, items.index.to_numpy()), list(items["case_id"]))


def _images(store: Store, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), STEP):
        yield from store.pixels[rows[start : start + STEP]]


def within(pairs: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of which both stand among these cases (`case_id`)."""
    return pairs[pairs["a"].isin(cases["case_id"]) & pairs["b"].isin(cases["case_id"])]


def cautions(pairs: pd.DataFrame, cases: pd.DataFrame, own: str | None) -> list[str]:
    """Return what a reader of the figures must know of the training cases, a line each.

    Args:
        pairs: As `pairs_of` returns them.
        cases: The cases table: `case_id`, `group`, `label`, `split`.
        own: What the data set's entry warns of.
    """
    train = cases[cases["split"] != "test"]
    known = train.set_index("case_id")[["group", "label"]]
    rows = within(pairs, train).join(known, on="a").join(known.add_suffix("_b"), on="b")
    return [
        *([own] if own else []),
        *_said(rows[rows["group"] != rows["group_b"]],
               "pairs of cases of different groups are alike: their groups were joined"),
        *_said(rows[rows["label"] != rows["label_b"]],
               "pairs of cases are alike and their labels differ"),
    ]  # fmt: skip


def of_tests(pairs: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """Return a line on test cases that are alike to training cases, if there are any."""
    train, test = (cases[(cases["split"] == "test") == side] for side in (False, True))
    inside = [*within(pairs, train).index, *within(pairs, test).index]
    return _said(pairs.drop(index=inside), "test cases are alike to training cases")


def _said(rows: pd.DataFrame, what: str) -> list[str]:
    pairs: Sequence[str] = [f"{row.a} and {row.b} ({row.how})" for row in rows.itertuples()]
    return [f"{len(pairs)} {what}: {first(pairs, 2)}"] if pairs else []
