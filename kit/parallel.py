"""One network on several devices: each learns from its share of the batch, all take one step.

The batch is the same as on one device, and so is the step, to rounding: augmentation is drawn for
the whole batch, normalisation sees it whole, gradients are summed before they are clipped. Only
dropout differs on TensorFlow, where each device draws its own share's.

JAX does it by `keras.distribution`, TensorFlow by its mirrored strategy; PyTorch trains on one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from kit import _tf, backend

log = logging.getLogger(__name__)


def devices_for(sizes: Sequence[int], precision: str = "float32") -> list[str]:
    """Return the GPUs that train one network together: as many as divide every batch.

    A process trains on all GPUs that it sees; `kit.apart` shows each process its share of them.

    Args:
        sizes: Of the small batches of a step; TensorFlow gathers several on one device alone.
        precision: Of the recipe; where float16 scales its losses, one device trains.
    """
    found, kind = backend.gpus(), keras.backend.backend()
    gathers = kind == "torch" or (kind == "tensorflow" and len(sizes) > 1)
    if gathers or precision == "mixed_float16":
        return found[:1]
    counts = range(len(found), 0, -1)
    return found[: next((n for n in counts if not any(size % n for size in sizes)), 0)]


@contextlib.contextmanager
def across(devices: Sequence[str]) -> Iterator[None]:
    """Have networks that are built and trained in the block live on these devices together.

    Args:
        devices: Names of Keras; with fewer than two nothing changes.
    """
    if len(devices) < 2:
        yield
    elif keras.backend.backend() == "tensorflow":
        with _tf.mirrored(devices):
            yield
    else:
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=list(devices), auto_shard_dataset=False)
        )
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)


def share(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return this device's rows of an augmented batch; JAX deals a batch out by itself."""
    if keras.backend.backend() != "tensorflow" or _tf.copies() == 1:
        return dict(batch)
    return {name: _tf.share(values) for name, values in batch.items()}


def join(optimizer: Any, networks: Sequence[Any]) -> None:
    """Have several devices take the step of one: of the whole batch's gradients and moments."""
    if keras.backend.backend() == "tensorflow":
        _tf.sum_first(optimizer)
        _synchronise(networks, True)


def part(networks: Sequence[Any]) -> None:
    """Have trained networks know nothing of the devices, before they are saved."""
    _synchronise(networks, False)


def _synchronise(networks: Sequence[Any], whole: bool) -> None:
    """Say whether batch normalisation sees the shares of all devices."""
    for layer in (layer for one in networks for layer in one._flatten_layers()):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = whole
