"""The bags of one fold's networks: checked, kept in memory where they fit, drawn and padded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from kit._memory import free as free_memory
from kit.errors import TableError

SHARE = 0.25  # of the free memory that the bags of a fold may take
LEAST = 64  # instances of a padded bag
Source = Callable[[str, int], np.ndarray]


class FoldBags:
    """The bags of one fold's networks; kept in memory as long as there is room.

    Args:
        bags: From case id and fold to the slide's vectors, floats (n, d).
        fold: The fold.
        case_ids: The slides.

    Attributes:
        width: Features of an instance, d.
        sizes: Instances of each slide.
        digests: Fingerprint of each slide's vectors.

    Raises:
        TableError: A bag is no finite (n, d), or widths differ.
    """

    def __init__(self, bags: Source, fold: int, case_ids: Sequence[str]) -> None:
        self._bags, self._fold = bags, fold
        self._kept: dict[str, np.ndarray] = {}
        self._room = SHARE * free_memory()
        self.width, self.sizes, self.digests = 0, dict[str, int](), dict[str, str]()
        for case_id in case_ids:
            bag = self(case_id)
            self.width = self.width or bag.shape[1]
            if bag.shape[1] != self.width:
                raise TableError("bags of several widths", expected=f"{self.width} features",
                                 received=f"{bag.shape[1]} of {case_id}")  # fmt: skip
            self.sizes[case_id] = len(bag)
            self.digests[case_id] = hashlib.sha256(
                f"{bag.dtype} {bag.shape}".encode() + np.ascontiguousarray(bag).tobytes()
            ).hexdigest()

    def __call__(self, case_id: str) -> np.ndarray:
        """Return the vectors of a slide, floats (n, d)."""
        if case_id in self._kept:
            return self._kept[case_id]
        bag = np.asarray(self._bags(case_id, self._fold))
        if bag.ndim != 2 or bag.dtype.kind != "f" or not bag.shape[1]:
            raise TableError("not a bag of vectors", expected="floats, shape (n, d)",
                             received=f"{bag.dtype} {bag.shape} of {case_id}")  # fmt: skip
        if not np.isfinite(bag).all():
            raise TableError("features are nan or infinite", received=f"in case {case_id}")
        if bag.nbytes <= self._room:
            self._room -= bag.nbytes
            self._kept[case_id] = bag
        return bag

    def spread(self, case_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each feature, every slide counting alike."""
        mean, square = np.zeros(self.width), np.zeros(self.width)
        for case_id in case_ids:
            bag = self(case_id).astype(np.float64)
            mean += bag.mean(axis=0) / len(case_ids)
            square += np.square(bag).mean(axis=0) / len(case_ids)
        return mean, np.sqrt(np.maximum(square - mean**2, 0))

    def drawn(self, case_ids: Sequence[str], length: int, most: Sequence[int],
              seed: Sequence[Sequence[int]]) -> np.ndarray:  # fmt: skip
        """Return bags of instances drawn without order, float32 (slides, length, d), zeros behind.

        Args:
            case_ids: The slides.
            length: Instances of each padded bag.
            most: Instances to draw of each slide.
            seed: Of each slide's draw, whole numbers.
        """
        found = np.zeros((len(case_ids), length, self.width), np.float32)
        for row, case_id in enumerate(case_ids):
            bag, n = self(case_id), most[row]
            rng = np.random.default_rng(seed[row])
            chosen = rng.choice(len(bag), n, replace=False, shuffle=False)
            found[row, :n] = bag[np.sort(chosen)]
        return found


def padded(bag: np.ndarray) -> np.ndarray:
    """Return one bag as a batch, float32 (1, m, d): m is the next power of two, zeros behind.

    So that a backend that compiles for each shape does so a few times only.
    """
    length = max(LEAST, 1 << max(0, len(bag) - 1).bit_length())
    found = np.zeros((1, length, bag.shape[1]), np.float32)
    found[0, : len(bag)] = bag
    return found
