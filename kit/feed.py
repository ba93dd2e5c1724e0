"""Training batches: which images each step takes, read ahead while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from kit._memory import free as free_memory

AHEAD = 2  # batches that wait while one is learnt from
SHARE = 0.25  # of the free memory that decoded images may take
T = TypeVar("T")


def decoded(pixels: Any, rows: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return images and row numbers into them: decoded once into memory where they fit.

    Args:
        pixels: An array, or what is indexed like one (`kit.store.Pixels`), uint8,
            shape (n, height, width, channels).
        rows: The images that are needed, int64.
    """
    one = int(np.prod(pixels.shape[1:])) * np.dtype(pixels.dtype).itemsize
    if len(rows) * one > SHARE * free_memory():
        return pixels, rows
    return np.asarray(pixels[rows]), np.arange(len(rows))


def order(
    codes: np.ndarray, batch: int, steps: int, seed: tuple[int, ...], epoch: int, *,
    balanced: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    """Return the positions of each step of one epoch; stateless: (seed, epoch) decides.

    Without `balanced` the epochs walk through one permutation after another, so that every image
    is seen as often as any other, to one, whatever the number of steps. With it the classes are
    drawn alike often, and within a class each image as often as any other.

    Args:
        codes: The class of each image, int, shape (n,).
        batch: Images a step, at most n.
        steps: Steps of an epoch.
        seed: Whole numbers.
        epoch: From 0.
        balanced: Draw classes alike.

    Returns:
        `steps` arrays of `batch` positions in [0, n).
    """
    start, n = epoch * steps * batch, len(codes)
    places = np.arange(start, start + steps * batch)
    if not balanced:
        return np.split(_walk(np.arange(n), places, seed), steps)
    kinds = np.unique(codes)
    turn = np.random.default_rng([*seed, epoch]).permutation(len(places)) % len(kinds)
    drawn = np.empty(len(places), np.int64)
    for number, kind in enumerate(kinds):
        mine = np.flatnonzero(turn == number)  # as many in each epoch
        among = np.arange(epoch * len(mine), (epoch + 1) * len(mine))
        drawn[mine] = _walk(np.flatnonzero(codes == kind), among, (*seed, int(kind) + 1))
    return np.split(drawn, steps)


def _walk(members: np.ndarray, places: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Return the members at some places of an endless row of permutations."""
    n, found = len(members), np.empty(len(places), np.int64)
    for turn in np.unique(places // n):
        here = places // n == turn
        shuffled = np.random.default_rng([*seed, int(turn)]).permutation(members)
        found[here] = shuffled[places[here] % n]
    return found


def ahead(read: Callable[[np.ndarray], T], batches: Iterable[np.ndarray]) -> Generator[T]:
    """Yield what `read` gives for each batch, read by a thread while the one before is used."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for rows in batches:
                waiting.append(reader.submit(read, rows))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
