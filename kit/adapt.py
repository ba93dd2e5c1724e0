"""A trained network to images of another scanner, by their colours and sharpness alone: no label.

Batch normalisation scales each feature by the mean and variance that it had in training. On another
scanner's images they are others, and can be taken from those instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from kit.errors import ImageError, ModelError

BATCH = 128  # images whose statistics are taken at once


def batch_statistics(network: Any, pixels: Any, rows: np.ndarray | Sequence[int]) -> Any:
    """Return a copy of a network whose batch normalisation has the statistics of other images.

    Each layer's moving mean and variance become the plain mean, over batches of 128 images, of the
    batches' own; nothing else changes, and dropout is off. The images are spread over the batches
    (the first of n batches takes the 1st, n + 1st, …), so that each holds some of every slide, and
    nothing is drawn: the same images give the same network.

    Off by default everywhere: where the new images hold other shares of the classes than those of
    training, the statistics tell of the classes too, and the network can get worse. Take all
    images of the new scanner, not those of one slide.

    Args:
        network: A Keras model with batch normalisation; it is not changed.
        pixels: What is indexed by rows to uint8 images (n, height, width, channels), normalised as
            those of its training.
        rows: Which images, in order, at least 2.

    Raises:
        ModelError: The network has no batch normalisation that learns.
        ImageError: There are fewer than two images.

    Source: Li et al. 2018, 10.1016/j.patcog.2018.03.005 (arXiv:1603.04779); Schneider et al. 2020,
        arXiv:2006.16971.
    """
    import keras

    rows = np.asarray(rows)
    if len(rows) < 2:
        raise ImageError("too few images to take statistics of", expected="two or more",
                         received=len(rows))  # fmt: skip
    adapted = keras.models.clone_model(network)
    adapted.set_weights(network.get_weights())
    layers = [layer for layer in _leaves(adapted) if _normalises(layer)]
    if not layers:
        raise ModelError("the network has no batch normalisation", received=network.name,
                         remedy="adapt a network that has: seresnet_small, a ResNet")  # fmt: skip
    momenta = [layer.momentum for layer in layers]
    parts = -(-len(rows) // BATCH)
    with _learning(layers):
        for number in range(parts):
            for layer in layers:  # so that all batches count alike
                layer.momentum = number / (number + 1)
            adapted(np.asarray(pixels[rows[number::parts]]), training=False)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return adapted


@contextlib.contextmanager
def _learning(layers: Sequence[Any]) -> Iterator[None]:
    """Let these layers alone be in training, however the network around them is called."""
    for layer in layers:
        layer.call = partial(_in_training, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _in_training(layer: Any, *inputs: Any, **how: Any) -> Any:
    return type(layer).call(layer, *inputs, **{**how, "training": True})


def _normalises(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.BatchNormalization)


def _leaves(network: Any) -> Iterator[Any]:
    """Yield the layers of a network and of the networks inside it."""
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer
