"""The only validators: each returns what it checked, or raises with the first offenders."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kit.errors import SettingsError, TableError

SHOWN = 5


def first(values: Iterable[object], n: int = SHOWN) -> str:
    """Return the first `n` values as text, and how many more there are."""
    listed = [str(value) for value in values]
    more = f" and {len(listed) - n} more" if len(listed) > n else ""
    return ", ".join(listed[:n]) + more


def close(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the known words nearest to `word`; None if none is near."""
    names = {name.lower(): name for name in sorted(known)}
    found = [names[one] for one in difflib.get_close_matches(word.lower(), names, 3, cutoff=0.5)]
    return f"did you mean {' or '.join(found)}?" if found else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known words nearest to `word`, or all of them."""
    names = sorted(known)
    return close(word, names) or f"known: {', '.join(names)}"


def choice(name: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of `known`."""
    names = list(known)
    if value not in names:
        raise SettingsError(
            f"{name} is unknown", expected=f"one of {', '.join(sorted(names))}",
            received=f"{name}={value}", remedy=nearest(str(value), names),
        )  # fmt: skip
    return value


def fraction(name: str, value: float) -> float:
    """Return `value` if it lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise SettingsError(f"{name} must be in [0, 1]", received=f"{name}={value}")
    return float(value)


def above_zero(name: str, value: float, expected: str | None = None) -> float:
    """Return `value` if it is above 0 and finite."""
    if not 0 < value < math.inf:
        raise SettingsError(
            f"{name} must be above 0", expected=expected, received=f"{name}={value}"
        )
    return float(value)


def positive_int(name: str, value: int, *, least: int = 1) -> int:
    """Return `value` if it is a whole number of at least 1, or of at least `least`."""
    try:
        whole = not isinstance(value, bool) and int(value) == value and value >= least
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise SettingsError(
            f"{name} must be a whole number of at least {least}", received=f"{name}={value}"
        )
    return int(value)


def columns(table: pd.DataFrame, names: Sequence[str], *, path: str | None = None) -> pd.DataFrame:
    """Return `table` if it has all the columns named."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise TableError(
            f"column {first(missing)} is missing", expected=", ".join(names),
            received=", ".join(map(str, table.columns)), path=path,
        )  # fmt: skip
    return table


def unique_ids(ids: pd.Series, *, path: str | None = None) -> pd.Series:
    """Return `ids` if no value is empty or doubled."""
    empty = int((ids.isna() | ids.astype(str).str.strip().eq("")).sum())
    if empty:
        raise TableError(
            "empty ids", expected="an id in each row",
            received=f"{empty} empty cells in column {ids.name}", path=path,
        )  # fmt: skip
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        raise TableError(
            "doubled ids", expected="each id once",
            received=f"{len(doubled)} doubled: {first(doubled)}", path=path,
        )  # fmt: skip
    return ids


def same_length(**arrays: Sequence[object] | np.ndarray | pd.Series) -> int:
    """Return the common length of the arrays."""
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(
            "lengths differ",
            received=", ".join(f"{name} has {n}" for name, n in lengths.items()),
        )
    return next(iter(lengths.values()))


def labels(values: pd.Series, known: Sequence[str], *, path: str | None = None) -> pd.Series:
    """Return `values` if each is one of the `known` classes and none is empty."""
    if values.isna().any():
        rows = values.index[values.isna()]
        raise TableError(
            "empty labels", expected=f"one of {', '.join(known)}",
            received=f"{len(rows)} empty cells, first in rows {first(rows)}", path=path,
        )  # fmt: skip
    unknown = sorted({str(value) for value in set(values) - set(known)})
    if unknown:
        raise TableError(
            "unknown labels", expected=f"one of {', '.join(known)}", received=first(unknown),
            path=path, remedy=nearest(unknown[0], known),
        )  # fmt: skip
    return values


def probabilities(values: np.ndarray, *, name: str = "prob") -> np.ndarray:
    """Return `values` as float64 if all lie in [0, 1] and, with columns, each row sums to 1.

    Args:
        values: shape (n,) or (n, classes).
        name: What to call them in an error.
    """
    array = np.asarray(values, dtype=np.float64)
    bad = ~((array >= 0) & (array <= 1))
    if bad.any():
        raise TableError(
            f"{name} must be in [0, 1]",
            received=f"{int(bad.sum())} outside or NaN: {first(array[bad])}",
        )
    if array.ndim == 2 and len(array):
        off = np.abs(array.sum(axis=1) - 1) > 1e-3
        if off.any():
            raise TableError(
                f"rows of {name} must sum to 1",
                received=f"{int(off.sum())} rows do not: {first(array.sum(axis=1)[off])}",
            )
    return array
