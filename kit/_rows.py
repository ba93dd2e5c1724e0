"""The rows that `kit.metrics.evaluate` is about: checked, as codes, with their groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kit._labels import (
    Values,
    class_codes,
    class_probabilities,
    group_codes,
    label_array,
    matches,
    row_weights,
    two_classes,
)
from kit._measures import confusion
from kit._ranks import Area, area
from kit.checks import fraction, probabilities, same_length
from kit.errors import SettingsError, TableError


@dataclass(frozen=True)
class Rows:
    """Truth and prediction as codes of the classes; of two classes the last is the positive one.

    Args:
        names: The classes.
        true: Code of each row's class.
        pred: Code of the class that it is called.
        prob: Probabilities, shape (rows, classes); None where there are none.
        weight: Weight of each row; None: one each.
        group: Group of each row.
        n_groups: Groups in all.
        single: Whether each row is a group of its own.
        order: Where each row stood among those given: they are sorted by group and probability,
            so that sums do not depend on the order of the rows.
    """

    names: tuple[str, ...]
    true: np.ndarray
    pred: np.ndarray
    prob: np.ndarray | None
    weight: np.ndarray | None
    group: np.ndarray
    n_groups: int
    single: bool
    order: np.ndarray

    @property
    def asked(self) -> range:
        """Return the codes of the classes whose figures are wanted: of two, the last alone."""
        return range(1, 2) if len(self.names) == 2 else range(len(self.names))

    @cached_property
    def confusion(self) -> np.ndarray:
        """Return the rows of each true class (outer) given each class (inner)."""
        return confusion(self.true, self.pred, len(self.names), self.weight)

    @cached_property
    def areas(self) -> list[Area]:
        """Return the area under the ROC curve of each class asked about."""
        if self.prob is None:
            return []
        return [area(self.true == c, self.prob[:, c], self.weight) for c in self.asked]

    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct confusion matrices of groups, and how many groups have each.

        Returns:
            shape (kinds, classes * classes), and shape (kinds,).
        """
        cells = len(self.names) ** 2
        if self.single and self.weight is None:
            flat = self.confusion.reshape(-1)
            held = np.flatnonzero(flat)
            return np.eye(cells)[held], flat[held]
        cell = self.group * cells + self.true * len(self.names) + self.pred
        of_group = np.bincount(cell, self.weight, minlength=cells * self.n_groups)
        found, counts = np.unique(of_group.reshape(-1, cells), axis=0, return_counts=True)
        return found, counts

    def held(self) -> np.ndarray:
        """Return the groups behind each figure's denominator, shape (classes asked about, 4).

        Groups with rows of the class, of the others, called the class, called another.
        """
        if self.single and self.weight is None:
            true, called = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
            n = len(self.true)
            found = [[true[c], n - true[c], called[c], n - called[c]] for c in self.asked]
            return np.asarray(found)
        found = [
            [np.count_nonzero(np.bincount(self.group[side])) for side in (t, ~t, p, ~p)]
            for t, p in ((self.true == c, self.pred == c) for c in self.asked)
        ]
        return np.asarray(found)

    def part(self, mask: np.ndarray) -> Rows:
        """Return the rows of a mask."""
        names, group = np.unique(self.group[mask], return_inverse=True)
        return Rows(
            self.names, self.true[mask], self.pred[mask],
            None if self.prob is None else self.prob[mask],
            None if self.weight is None else self.weight[mask], group, len(names), self.single,
            self.order[mask],
        )  # fmt: skip


def rows_of(
    y_true: Values, y_prob: Values | None, y_pred: Values | None, threshold: float | None,
    groups: Values | None, classes: Sequence[Hashable] | None, positive: Hashable,
    weights: Values | None, *, ordered: bool = True,
) -> Rows:  # fmt: skip
    """Return checked rows; the arguments are those of `kit.metrics.evaluate`.

    `ordered` sorts them; rows of two models stay as they are, side by side.
    """
    true = label_array(y_true, "y_true")
    if not len(true):
        raise TableError("no rows to evaluate")
    many = np.ndim(y_prob) == 2 if y_prob is not None else len(classes or ()) > 2
    if many and threshold is not None:
        raise SettingsError("several classes take no threshold", received=f"{threshold}")
    if y_prob is None and y_pred is None:
        raise SettingsError("nothing to evaluate", expected="y_prob, y_pred or both")
    if many:
        names, codes, called, prob = _many(true, y_prob, y_pred, classes)
    else:
        names, codes, called, prob = _binary(true, y_prob, y_pred, classes, positive, threshold)
    group, n_groups = group_codes(groups, len(true))
    own = None if weights is None else row_weights(weights, len(true))
    every = np.arange(len(true))
    found = Rows(names, codes, called, prob, own, group, n_groups, groups is None, every)
    return _sorted(found) if ordered else found


def _sorted(rows: Rows) -> Rows:
    """Return the rows by group, class, decision and probability; a single row is its own group."""
    if rows.prob is None and rows.weight is None:
        return rows
    keys = [rows.pred, rows.true, *([] if rows.single else [rows.group])]
    keys = [*([] if rows.weight is None else [rows.weight]), *keys]
    keys = [*([] if rows.prob is None else rows.prob.T[1:]), *keys]
    order = np.lexsort(keys)
    prob, weight = (None if v is None else v[order] for v in (rows.prob, rows.weight))
    group = rows.group if rows.single else rows.group[order]
    return Rows(
        rows.names, rows.true[order], rows.pred[order], prob, weight, group, rows.n_groups,
        rows.single, order,
    )  # fmt: skip


Parts = tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray | None]


def _binary(
    true: np.ndarray, y_prob: Values | None, y_pred: Values | None,
    classes: Sequence[Hashable] | None, positive: Hashable, threshold: float | None,
) -> Parts:  # fmt: skip
    prob = None if y_prob is None else probabilities(np.asarray(y_prob), name="y_prob")
    if prob is not None:
        same_length(y_true=true, y_prob=prob)
    if threshold is not None:
        fraction("threshold", threshold)
    named = [true]
    if y_pred is not None:
        pred = label_array(y_pred, "y_pred")
        same_length(y_true=true, y_pred=pred)
        if pred.dtype == bool and true.dtype != bool:
            called = pred
        else:
            called = matches(pred, positive)
            named.append(pred)
    elif threshold is not None and prob is not None:
        called = prob >= threshold
    else:
        raise SettingsError("two classes need a threshold, or y_pred")
    names = two_classes(named, classes, positive)
    both = None if prob is None else np.stack([1 - prob, prob], axis=1)
    return names, matches(true, positive).astype(np.intp), called.astype(np.intp), both


def _many(
    true: np.ndarray, y_prob: Values | None, y_pred: Values | None,
    classes: Sequence[Hashable] | None,
) -> Parts:  # fmt: skip
    if classes is None or len(classes) < 3:
        raise TableError(
            "probabilities of two dimensions are for three classes or more, all named",
            received=f"{len(classes or ())} classes",
            remedy="for two classes give the positive one's probability, shape (n,)",
        )
    code = class_codes(true, classes)
    prob = None if y_prob is None else class_probabilities(y_prob, classes)
    if prob is not None:
        same_length(y_true=true, y_prob=prob)
    if y_pred is not None:
        called = class_codes(y_pred, classes)
    else:
        called = np.asarray(prob).argmax(axis=1)
    same_length(y_true=true, y_pred=called)
    return tuple(map(str, classes)), code, called, prob
