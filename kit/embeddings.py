"""Vectors of patches: made by a network, kept a file a slide, compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kit import feed
from kit._vector_files import Bags as Bags
from kit._vector_files import as_float16 as as_float16
from kit._vector_files import from_files as from_files
from kit._vector_files import read as read
from kit._vector_files import write as write
from kit.checks import first, same_length
from kit.duplicates import BLOCK, COLUMNS, FOR_EACH
from kit.errors import ModelError, TableError
from kit.shift import Shift, train_test_shift

BATCH = 128  # images that a network takes at once
SAME = 0.99  # cosine
DIRECTIONS = 8  # principal components in which training and test cases are compared
CASES_FOR_EACH = 5  # cases that a component needs


class Embedder:
    """Vectors of images by a network, in batches of one size, so that nothing is compiled twice.

    Args:
        network: Of pixels to features, (n, d), as `kit.models.embedding_model` returns it.

    Raises:
        ModelError: It gives maps rather than rows.
    """

    def __init__(self, network: Any) -> None:
        if len(network.output_shape) != 2:
            raise ModelError("the network gives no vector for each image",
                             expected="outputs of shape (n, d)",
                             received=str(network.output_shape))  # fmt: skip
        self.network = network
        self.width = int(network.output_shape[-1])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the vectors of uint8 images (n, height, width, channels), float16 (n, d).

        Raises:
            ModelError: The images are not what the network takes.
            TableError: A feature is nan, or beyond what float16 holds.
        """
        taken = tuple(self.network.input_shape[1:])
        if images.dtype != np.uint8 or images.shape[1:] != taken:
            raise ModelError("images do not fit the network", expected=f"uint8, (n, *{taken})",
                             received=f"{images.dtype}, {images.shape}")  # fmt: skip
        found = np.empty((len(images), self.width), np.float16)
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            padded = np.zeros((BATCH, *taken), np.uint8)
            padded[: len(part)] = part
            vectors = np.asarray(self.network.predict_on_batch(padded), np.float32)
            found[start : start + BATCH] = as_float16(vectors[: len(part)])
        return found


def embed_images(network: Any, pixels: Any, rows: np.ndarray) -> np.ndarray:
    """Return the vectors of some stored images, float16 (n, d).

    Args:
        network: Of pixels to features, as `kit.models.embedding_model` returns it.
        pixels: What is indexed by rows to uint8 images (n, height, width, channels).
        rows: Which images, in order; read by a thread while the network computes.
    """
    embedder = Embedder(network)
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    found = [np.empty((0, embedder.width), np.float16)]
    found += map(embedder, feed.ahead(lambda part: np.asarray(pixels[part]), parts))
    return np.concatenate(found)


def principal(vectors: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the main directions' coordinates of vectors, and each direction's share of variance.

    A direction's sign is such that its largest weight is above 0, so that the same vectors give the
    same picture.

    Args:
        vectors: shape (rows, d), finite.
        n: Directions.

    Returns:
        float64, shape (rows, n), and (n,), in [0, 1]; both 0 in directions that the vectors lack.

    Raises:
        TableError: There is no row, or a number is not finite.
    """
    array = np.asarray(vectors, np.float64)
    if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
        raise TableError("no vectors to look at", expected="finite numbers, shape (n, d)",
                         received=f"shape {array.shape}")  # fmt: skip
    centred = array - array.mean(axis=0)
    tall = len(centred) > centred.shape[1]
    square = centred.T @ centred if tall else centred @ centred.T
    values, directions = np.linalg.eigh(square)
    order = np.argsort(values)[::-1][:n]
    strength = np.maximum(values[order], 0.0)
    axes = directions[:, order] if tall else centred.T @ directions[:, order]
    axes = axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(order))] < 0, -1, 1)
    found, share = np.zeros((len(array), n)), np.zeros(n)
    found[:, : len(order)] = centred @ axes
    share[: len(order)] = strength / max(float(np.trace(square)), 1e-300)
    return found, share


def shift(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], *,
    groups: Mapping[str, str] | None = None, seed: int = 0,
) -> Shift:  # fmt: skip
    """Return how well a classifier tells test slides from training slides by their mean vectors.

    The means are seen in a few main directions of all of them, at most 8, and one for five cases.

    Args:
        train: Vectors (n, d) of each training case, n at least 1.
        test: The same of the test cases.
        groups: Patient of each case; None: each case is its own.
        seed: Of the deals and parts.

    Raises:
        TableError: A case has no vector, widths differ, or a side has too few cases
            (`kit.shift.train_test_shift`).
    """
    cases = [*train, *test]
    bags = [np.asarray(bag) for side in (train, test) for bag in side.values()]
    bare = [case for case, bag in zip(cases, bags, strict=True) if not len(bag)]
    if bare or len({bag.shape[1:] for bag in bags}) > 1:
        raise TableError(
            "slides cannot be compared", expected="vectors of one width for each",
            received=f"none of {first(bare)}" if bare else "several widths",
        )  # fmt: skip
    means = np.array([bag.mean(axis=0, dtype=np.float64) for bag in bags])
    directions = max(1, min(DIRECTIONS, len(means) // CASES_FOR_EACH, means.shape[1]))
    found, _ = principal(means, directions)
    table = pd.DataFrame(found, columns=[f"direction {n + 1}" for n in range(directions)])
    side = np.arange(len(cases)) >= len(train)
    own = None if groups is None else [groups[case] for case in cases]
    return train_test_shift(table, side, groups=own, seed=seed)


def alike(vectors: np.ndarray, ids: Sequence[str], *, least: float = SAME) -> pd.DataFrame:
    """Return the pairs of images whose vectors point the same way: near duplicates.

    What all vectors of a set share says nothing: from 25 vectors on their mean is taken out first.

    Args:
        vectors: shape (n, d), finite.
        ids: Name of each.
        least: Smallest cosine of a pair, in (0, 1].

    Returns:
        A row for each pair, in the order of the vectors: `a`, `b`, `how` ("embedding"), `distance`:
        1 - the cosine. Rows without a direction (zeros) have no pair.

    Raises:
        TableError: Lengths differ, or a number is not finite.
    """
    array = np.asarray(vectors, np.float32)
    same_length(vectors=array, ids=ids)
    if not np.isfinite(array).all():
        raise TableError("vectors must be finite", received="nan or infinite numbers")
    if len(array) >= FOR_EACH:
        array = array - array.mean(axis=0)
    length = np.linalg.norm(array, axis=1, keepdims=True)
    unit = array / np.maximum(length, 1e-12)
    rows = []
    for start in range(0, len(unit), BLOCK):
        cosine = unit[start : start + BLOCK] @ unit[start:].T
        rows += [
            (str(ids[start + i]), str(ids[start + j]), "embedding",
             round(max(0.0, 1 - float(cosine[i, j])), 6))
            for i, j in np.argwhere(cosine >= least) if i < j
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
