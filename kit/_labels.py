"""Labels, probabilities and groups of `kit.metrics`, checked and turned into codes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from kit.checks import first, labels, probabilities, same_length
from kit.errors import TableError

Values = npt.ArrayLike


def label_array(values: Values, name: str) -> np.ndarray:
    """Return labels as one flat array without empty cells."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise TableError(f"{name} must have one dimension", received=f"shape {array.shape}")
    empty = pd.isna(array)
    if empty.any():
        rows = np.flatnonzero(empty)
        raise TableError(f"{name} has empty labels", received=f"first in rows {first(rows)}")
    return array


def matches(values: np.ndarray, positive: Hashable) -> np.ndarray:
    """Return which labels are the positive one, bool."""
    if values.dtype == bool and isinstance(positive, bool | int):
        return values if positive else ~values
    if values.dtype.kind in "iufU":
        return np.asarray(values == positive)
    return np.fromiter((v == positive for v in values.tolist()), dtype=bool, count=len(values))


def distinct(values: np.ndarray) -> list[Hashable]:
    """Return the labels that occur, as Python's own types."""
    return list(pd.unique(values).tolist())


def row_weights(weights: Values, n: int) -> np.ndarray:
    """Return the weight of each row, float64; raise on another length, a negative or no number."""
    array = np.asarray(weights, dtype=np.float64)
    same_length(rows=range(n), weights=array)
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise TableError("weights must be finite and at least 0",
                         received=f"{int(bad.sum())} are not: {first(array[bad])}")  # fmt: skip
    return array


def check_positive(positive: Hashable, **arrays: np.ndarray) -> None:
    """Raise if labels are text and `positive` is not, or if two other labels stand without it."""
    seen: set[Hashable] = set()
    for name, array in arrays.items():
        found = set(distinct(array))
        if any(isinstance(v, str) != isinstance(positive, str) for v in found):
            raise _no_positive(positive, name, found)
        seen |= found
    if positive not in seen and len(seen) > 1:
        raise _no_positive(positive, " and ".join(arrays), seen)


def _no_positive(positive: Hashable, name: str, found: set[Hashable]) -> TableError:
    return TableError(
        f"positive class {positive!r} is not among the labels of {name}",
        received=first(sorted(map(repr, found))),
        remedy="name it with `positive=`",
    )


def two_classes(
    arrays: Sequence[np.ndarray], classes: Sequence[Hashable] | None, positive: Hashable
) -> tuple[str, str]:
    """Return the names of the negative and the positive class of some label arrays."""
    found = {label for array in arrays for label in distinct(array)}
    if classes is not None:
        labels(pd.Series(sorted(map(str, found))), [str(c) for c in classes])
        found |= set(classes)
    check_positive(positive, y_true=np.asarray(list(found), dtype=object))
    others = sorted(str(label) for label in found if label != positive)
    if len(others) > 1:
        raise TableError(
            "more than two classes", expected="y_prob of shape (n, classes), and `classes`",
            received=first([*others, positive]),
        )  # fmt: skip
    named = next((str(label) for label in found if label == positive), str(positive))
    return (others[0] if others else f"not {named}"), named


def class_probabilities(y_prob: Values, classes: Sequence[Hashable]) -> np.ndarray:
    """Return probabilities of shape (n, classes), checked; raise `TableError` on another shape."""
    prob = probabilities(np.asarray(y_prob), name="y_prob")
    if prob.ndim != 2 or prob.shape[1] != len(classes):
        raise TableError(
            "y_prob does not fit the classes", expected=f"shape (n, {len(classes)})",
            received=f"shape {prob.shape}",
        )  # fmt: skip
    return prob


def class_codes(values: Values, classes: Sequence[Hashable]) -> np.ndarray:
    """Return the position of each label in `classes`, compared as text."""
    names = [str(c) for c in classes]
    codes, found = pd.factorize(label_array(values, "labels"))
    text = labels(pd.Series([str(label) for label in found], dtype=object), names)
    return np.asarray(pd.Index(names).get_indexer(pd.Index(text)))[codes]


def group_codes(groups: Values | None, n: int) -> tuple[np.ndarray, int]:
    """Return the rank of each row's group among the sorted ones, and how many groups there are."""
    if groups is None:
        return np.arange(n), n
    named = np.asarray(groups)
    same_length(y_true=range(n), groups=named)
    if pd.isna(named).any():
        raise TableError("groups are empty", received=f"{int(pd.isna(named).sum())} rows")
    names, codes = np.unique(named.astype(str), return_inverse=True)
    return codes, len(names)


def given_weights(weights: Values | None, rows: np.ndarray) -> np.ndarray | None:
    """Return the weight of each row, checked; None where none are given."""
    return None if weights is None else row_weights(weights, len(rows))


def ranked(
    y_true: Values, y_prob: Values, positive: Hashable, weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return which rows are positive, their scores, and their weights."""
    true, score = label_array(y_true, "y_true"), np.asarray(y_prob, dtype=np.float64)
    same_length(y_true=true, y_prob=score)
    check_positive(positive, y_true=true)
    if np.isnan(score).any():
        raise TableError("scores hold NaN", received=f"{int(np.isnan(score).sum())} rows")
    return matches(true, positive), score, given_weights(weights, true)


def scored(
    y_true: Values, y_prob: Values, classes: Sequence[Hashable], weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes of the truth, probabilities of shape (n, classes), and weights."""
    prob = np.asarray(y_prob, dtype=np.float64)
    if prob.ndim == 1 and len(classes) == 2:
        prob = probabilities(prob, name="y_prob")
        prob = np.stack([1 - prob, prob], axis=1)
    prob, true = class_probabilities(prob, classes), class_codes(y_true, classes)
    same_length(y_true=true, y_prob=prob)
    own = given_weights(weights, true)
    return true, prob, np.ones(len(true)) if own is None else own
