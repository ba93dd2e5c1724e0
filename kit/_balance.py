"""Deal whole groups to folds so that the shares of the classes and the sizes are alike.

Counts are whole numbers in float64, so their sums are exact; costs are summed column by column, in
one order; and random draws are the generator's raw bits. The same counts and seed give the same
folds on any machine and with any version of NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

SIZE = 0.04  # a fold a quarter larger or smaller than due weighs as one per cent of prevalence
EMPTIED = 4.0  # cost of a fold without a class, above any difference of prevalence
TRIES = 20  # deals that are refined, of which the best is kept
WORK = 20_000  # pairs of counts, and ten for each pair of folds, in all tries: bounds the time
SWEEPS = 30  # over all pairs of folds; a dozen are rarely used
PAIR_CELLS = 2**18  # exchanges weighed at once, times columns: bounds time and memory of one pair
ENOUGH = 1e-4  # the criterion below which nobody could tell the difference
LEAST_GAIN = 1e-9  # relative; below, a gain is rounding
NEVER = 1e9  # cost of an empty fold


@dataclass(frozen=True)
class Load:
    """What each group brings to its fold.

    Attributes:
        counts: float64 whole numbers, shape (groups, columns): rows of each value (a class of the
            label, a scanner) that the group holds.
        sizes: float64 whole numbers, shape (groups,): rows of the group, at least 1.
        weights: shape (columns,): how much a column's difference in prevalence counts.
        needed: bool, shape (columns,): whether each fold must hold the value.
        due: shape (folds,): rows that each fold should have.
    """

    counts: np.ndarray
    sizes: np.ndarray
    weights: np.ndarray
    needed: np.ndarray
    due: np.ndarray


def deal(load: Load, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each group.

    Several deals, heaviest group first or at random, are refined by moving and exchanging groups
    between two folds while that helps; the last tries start from the best so far, a tenth of it
    dealt anew. The best is kept: the one whose largest difference of prevalence from the whole, in
    units of 2 * sqrt(p (1 - p)) and times the column's weight, plus `SIZE` times the largest
    relative difference of a fold's size from its due, is smallest.

    Returns:
        int64, shape (groups,).
    """
    tries = int(np.clip(WORK // (load.counts.size // 2 + 5 * len(load.due) ** 2 + 1), 1, TRIES))
    best, lowest = np.empty(0, dtype=np.int64), np.inf
    for turn in range(tries):
        if turn and turn >= tries // 2:
            folds = _shaken(best, len(load.due), rng)
        elif turn % 2:
            folds = _below(len(load.due), len(load.sizes), rng)
        else:
            folds = _greedy(load, rng)
        reached = _refine(folds, load, rng)
        if reached < lowest:
            best, lowest = folds, reached
        if lowest < ENOUGH:
            break
    if (load.due == load.due[0]).all():  # else a number says something about the fold
        best = shuffled(len(load.due), rng)[best]
    return best


def shuffled(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return 0 to n - 1 in random order, from raw bits, whose stream no version changes."""
    return np.argsort(_raw(n, rng), kind="stable")


def _raw(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.bit_generator.random_raw(n), dtype=np.uint64)


def _below(k: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return ((_raw(n, rng) >> np.uint64(11)) % np.uint64(k)).astype(np.int64)


def _shaken(folds: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the folds with a tenth of the groups, at least two, dealt at random."""
    chosen = shuffled(len(folds), rng)[: max(2, len(folds) // 10)]
    folds = folds.copy()
    folds[chosen] = _below(k, len(chosen), rng)
    return folds


def _greedy(load: Load, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each group: heaviest first, each to the fold that it unbalances least."""
    totals = load.counts.sum(axis=0)
    parts = np.column_stack([load.counts / totals, load.sizes / load.sizes.sum()])
    heaviness = np.zeros(len(parts))
    for column in range(parts.shape[1]):
        heaviness += parts[:, column] * parts[:, column]
    octave = np.frexp(heaviness)[1]  # like weights are shuffled, so that the seed matters
    order = shuffled(len(parts), rng)
    order = order[np.argsort(-octave[order], kind="stable")]

    folds = np.empty(len(parts), dtype=np.int64)
    state = np.zeros((parts.shape[1], len(load.due)))
    share = load.due / load.due.sum()
    needed = np.append(load.needed, True)[:, None]
    for row in order:
        part = parts[row][:, None]
        cost = ((2 * state + part) * part).sum(axis=0) / share
        cost -= NEVER * ((state == 0) & (part > 0) & needed).sum(axis=0)
        fold = int(cost.argmin())
        folds[row] = fold
        state[:, fold] += parts[row]
    return folds


class _State:
    """Rows of each column and in all that the folds hold, and what they cost."""

    def __init__(self, folds: np.ndarray, load: Load) -> None:
        self.load, self.prevalence = load, load.counts.sum(axis=0) / load.sizes.sum()
        spread = 2 * np.sqrt(self.prevalence * (1 - self.prevalence))
        self.scale = np.divide(load.weights, spread, out=np.zeros(len(spread)), where=spread > 0)
        k = len(load.due)
        self.counts, self.sizes = np.zeros((k, len(spread))), np.zeros(k)
        np.add.at(self.counts, folds, load.counts)
        np.add.at(self.sizes, folds, load.sizes)

    def cost(self, fold: int, counts: list[np.ndarray], size: np.ndarray) -> np.ndarray:
        """Return what `fold` costs with these rows: squared, so that the worst fold counts most."""
        off = SIZE * (size / self.load.due[fold] - 1)
        total = off * off
        rows = np.maximum(size, 1)
        for column, count in enumerate(counts):
            off = self.scale[column] * (count / rows - self.prevalence[column])
            total = total + off * off
            if self.load.needed[column]:
                total = total + EMPTIED * (count == 0)
        return np.where(size > 0, total * total, NEVER)

    def worst(self) -> float:
        """Return the criterion by which deals are compared; lower is better."""
        if (self.sizes == 0).any():
            return NEVER
        share = self.counts / self.sizes[:, None]
        off = np.abs(share - self.prevalence) * self.scale
        size = np.abs(self.sizes / self.load.due - 1)
        emptied = int((self.counts[:, self.load.needed] == 0).sum())
        return float(off.max(initial=0) + SIZE * size.max() + EMPTIED * emptied)

    def exchange(
        self, a: int, b: int, mine: np.ndarray, theirs: np.ndarray
    ) -> tuple[int, int] | None:
        """Return the places of the two whose exchange lowers the cost of a and b most, if any.

        The groups of fold a and of fold b end with -1, no group, so that one can move alone.
        """
        sizes = [np.append(self.load.sizes[part[:-1]], 0)[:, None] for part in (mine, theirs)]
        size = sizes[0] - sizes[1].T
        moved = []
        for column in self.load.counts.T:
            one, other = (np.append(column[part[:-1]], 0) for part in (mine, theirs))
            moved.append(one[:, None] - other)
        left = [n - m for n, m in zip(self.counts[a], moved, strict=True)]
        grown = [n + m for n, m in zip(self.counts[b], moved, strict=True)]
        cost = self.cost(a, left, self.sizes[a] - size) + self.cost(b, grown, self.sizes[b] + size)
        i, j = np.unravel_index(int(cost.argmin()), cost.shape)
        if cost[i, j] < cost[-1, -1] * (1 - LEAST_GAIN):  # the last is to exchange nothing
            return int(i), int(j)
        return None

    def move(self, folds: np.ndarray, group: int, old: int, new: int) -> None:
        """Put a group into another fold, in `folds` too; -1 is no group."""
        if group < 0:
            return
        folds[group] = new
        for fold, sign in ((old, -1), (new, 1)):
            self.counts[fold] += sign * self.load.counts[group]
            self.sizes[fold] += sign * self.load.sizes[group]


def _refine(folds: np.ndarray, load: Load, rng: np.random.Generator) -> float:
    """Move or exchange groups between pairs of folds, in place; return the criterion reached."""
    state = _State(folds, load)
    most = max(4, int((PAIR_CELLS / (load.counts.shape[1] + 1)) ** 0.5))
    changed, turn = np.zeros(len(load.due), dtype=np.int64), 0
    settled: dict[tuple[int, int], int] = {}
    for _ in range(SWEEPS):
        if state.worst() < ENOUGH:
            break
        before = turn
        for a, b in combinations(range(len(load.due)), 2):
            if settled.get((a, b), -1) >= max(changed[a], changed[b]):
                continue
            members = [np.flatnonzero(folds == fold) for fold in (a, b)]
            mine, theirs = (_some(part, most, rng) for part in members)
            found = state.exchange(a, b, mine, theirs)
            if found is not None:
                turn += 1
                changed[[a, b]] = turn
                state.move(folds, mine[found[0]], a, b)
                state.move(folds, theirs[found[1]], b, a)
            elif max(map(len, members)) <= most:
                settled[a, b] = turn
        if turn == before:
            break
    return state.worst()


def _some(members: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `most` of the members, and -1 for none of them."""
    if len(members) > most:
        members = members[shuffled(len(members), rng)[:most]]
    return np.append(members, -1)
