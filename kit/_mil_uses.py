"""What trained networks of bags say of a slide and of its patches; `kit.mil` has it all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from kit._bags import padded
from kit._network import POOL
from kit.errors import MissingDataError, ModelError, TableError
from kit.files import read_json
from kit.models import LOGITS, load_network

if TYPE_CHECKING:
    import keras

SMALL = 0.1  # of the spread of a bag's scores: how far they are moved to see what they speak for


class PlacedBags(Protocol):
    """Vectors of slides, and where their patches lie."""

    def __call__(self, case_id: str, fold: int) -> np.ndarray:
        """Return a slide's vectors for a fold, floats (n, d)."""

    def places(self, case_id: str, fold: int) -> pd.DataFrame:
        """Return `case_id, x, y, footprint` of its patches, in the vectors' order."""


def probabilities(network: keras.Model, bag: np.ndarray) -> np.ndarray:
    """Return a slide's class probabilities by a network of bags, float64 (classes,), sum 1.

    Args:
        network: As `kit.models.load_network` returns it.
        bag: The slide's vectors, floats (n, d), n at least 1; all are looked at.

    Raises:
        TableError: The bag is empty, of another width, or not finite.
    """
    import keras

    _check_bag(network, bag)
    logits = keras.Model(network.input, network.get_layer(LOGITS).output)
    given = np.asarray(_numbers(logits(padded(bag), training=False))[0], np.float64)
    found = np.exp(given - given.max())  # of float64: float32 ties slides that are sure
    return np.asarray(found / found.sum())


def attention(network: keras.Model, bag: np.ndarray, *, towards: int = -1) -> np.ndarray:
    """Return what a network makes of each instance of a slide, float64 (n,), for drawing.

    Args:
        network: As `kit.models.load_network` returns it.
        bag: The slide's vectors, floats (n, d), n at least 1.
        towards: Position of the class that high scores of chowder shall speak for.

    Returns:
        Of attention pooling the weights, in [0, 1], whose sum is 1: how much an instance was
        looked at, whatever it speaks for. Of chowder the scores, without unit: the network may
        have learnt them upside down, so they are turned where this slide's probability of the
        class falls as they rise.

    Raises:
        TableError: The bag is empty, of another width, or not finite.
        ModelError: The network pools in neither way.
    """
    import keras

    from kit.attention import AttentionPool, ExtremeScores

    _check_bag(network, bag)
    pool = network.get_layer(POOL)
    if not isinstance(pool, AttentionPool | ExtremeScores):
        raise ModelError("the network has no weights of instances", received=pool.name,
                         expected="attention_mil or chowder")  # fmt: skip
    x = padded(bag)
    parts = keras.Model(network.input, pool.input)(x, training=False)
    instances = parts[0] if isinstance(parts, list) else parts  # the mask may stand beside it
    mask = np.arange(x.shape[1])[None] < len(bag)
    if isinstance(pool, AttentionPool):
        _, weights = pool(instances, mask=mask, return_weights=True)
        return np.asarray(_numbers(weights)[0, : len(bag)], np.float64)
    pooled, scores = map(_numbers, pool(instances, mask=mask, return_scores=True))
    kind = towards if pool.scores > 1 else 0
    mine = np.asarray(scores[0, : len(bag), kind], np.float64)
    step = np.zeros((2 * pool.extremes, pool.scores), np.float32)
    step[:, kind] = SMALL * (mine.std() or 1.0)
    head = keras.Model(pool.output, network.get_layer(LOGITS).output)
    ends = [_numbers(head(pooled + sign * step.reshape(1, -1), training=False))[0]
            for sign in (-1, 1)]  # fmt: skip
    rises = [end[towards] - np.delete(end, towards).mean() for end in ends]
    return mine if rises[1] >= rises[0] else -mine


def attention_table(
    out: Path, bags: PlacedBags, case_id: str, *, fold: int | None, towards: int = -1
) -> pd.DataFrame:
    """Return what a slide's patches meant to the networks of `cross_validate`, to be drawn.

    `kit.heatmaps.raster` and `write` draw the column `attention`. It is a rank, so that slides of
    few and of many patches, both kinds of network and several seeds go together: each slide has a
    patch of the highest rank, whether or not it has anything to show.

    Args:
        out: Folder that `cross_validate` was given.
        bags: The vectors, and where their patches lie (`kit.encoders.bags`,
            `kit.embeddings.from_files`).
        case_id: The slide; at least one patch.
        fold: Its own, whose networks have not seen it; None of a slide without one: all networks.
        towards: As in `attention`.

    Returns:
        A row for each patch and network: `case_id, x, y, footprint, fold, seed, model`; `weight`,
        as `attention` gives it; `attention`, the share of the slide's patches whose weight is not
        larger, in (0, 1].

    Raises:
        MissingDataError: There is no network of the fold.
        TableError: The slide has no patch, or the file does not say where its patches lie.
    """
    named = "*" if fold is None else str(fold)
    paths = sorted(Path(out).glob(f"mil_fold{named}_seed*.keras"))
    if not paths:
        raise MissingDataError("no network of bags", path=out, received=f"fold {fold}",
                               expected="what cross_validate wrote")  # fmt: skip
    parts = []
    for path in paths:
        note = read_json(path.with_suffix(".json"))
        own = int(note["fold"])
        weight = attention(load_network(path), bags(case_id, own), towards=towards)
        rank = np.searchsorted(np.sort(weight), weight, side="right") / len(weight)
        parts.append(bags.places(case_id, own).assign(
            fold=own, seed=note["seed"], model=note["model"], weight=weight, attention=rank
        ))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _check_bag(network: keras.Model, bag: np.ndarray) -> None:
    width = network.input_shape[-1]
    if bag.ndim != 2 or not len(bag) or bag.shape[1] != width or not np.isfinite(bag).all():
        raise TableError("not a bag that the network takes", received=f"shape {bag.shape}",
                         expected=f"finite, shape (n, {width}), n at least 1")  # fmt: skip


def _numbers(tensor: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))
