"""One registry of networks; each takes pixels in [0, 255] and holds its own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kit.checks import nearest
from kit.errors import ModelError

if TYPE_CHECKING:
    import keras

LOGITS = "logits"
"""Name of the last layer before the softmax: losses take its output, users the softmax's."""


@dataclass(frozen=True)
class Network:
    """How to build one network, and the input and classes that it has by default."""

    build: Callable[[Any], Any]
    input_shape: tuple[int, int, int]
    classes: int
    about: str


def check_model(name: str) -> Network:
    """Return how to build a network, or raise `ModelError` with the nearest names."""
    if name not in REGISTRY:
        raise ModelError(
            "network is unknown", received=f"model={name}", remedy=nearest(name, REGISTRY)
        )
    return REGISTRY[name]


def build_model(
    name: str, input_shape: tuple[int, int, int] | None = None, classes: int | None = None
) -> keras.Model:
    """Return an untrained Keras model.

    Args:
        name: A key of `REGISTRY`.
        input_shape: (height, width, channels); the network's own by default.
        classes: Number of classes, at least 2; the network's own by default.

    Returns:
        A model from pixels in [0, 255], shape (n, height, width, channels), to class
        probabilities, shape (n, classes), each row summing to 1. Its layer `logits` gives the
        values before the softmax.

    Raises:
        ModelError: The name is unknown, or the shape or number of classes cannot be.
    """
    import keras
    from keras import layers

    network = check_model(name)
    shape = network.input_shape if input_shape is None else input_shape
    n_classes = network.classes if classes is None else classes
    if len(shape) != 3 or min(shape) < 1 or n_classes < 2:
        raise ModelError(
            "network cannot be built", expected="(height, width, channels) and 2 classes or more",
            received=f"input_shape={shape}, classes={n_classes}",
        )  # fmt: skip
    inputs = keras.Input(shape, name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="to_unit")(inputs)
    x = layers.Dense(n_classes, dtype="float32", name=LOGITS)(network.build(x))
    outputs = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name)


def _conv_norm(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def _conv_small(x: Any) -> Any:
    from keras import layers

    for filters in (16, 32, 64):
        x = layers.ReLU()(_conv_norm(x, filters, strides=2))
    return layers.GlobalAveragePooling2D()(x)


def _block(x: Any, filters: int, strides: int) -> Any:
    from keras import layers

    short = x if strides == 1 and x.shape[-1] == filters else _conv_norm(x, filters, 1, strides)
    x = layers.ReLU()(_conv_norm(x, filters, strides=strides))
    return layers.ReLU()(layers.Add()([_conv_norm(x, filters), short]))


def _resnet(widths: tuple[int, ...], blocks: int, stem: int) -> Callable[[Any], Any]:
    def build(x: Any) -> Any:
        from keras import layers

        x = layers.ReLU()(_conv_norm(x, widths[0], strides=stem))
        for stage, filters in enumerate(widths):
            for block in range(blocks):
                x = _block(x, filters, 2 if stage and not block else 1)
        x = layers.GlobalAveragePooling2D()(x)
        return layers.Dropout(0.2)(x)

    return build


REGISTRY: Mapping[str, Network] = MappingProxyType(
    {
        "conv_small": Network(_conv_small, (32, 32, 3), 2, "three strided convolutions: smoke"),
        "resnet_small": Network(
            _resnet((32, 64, 128), 1, 2), (48, 48, 3), 2, "residual, trained from scratch"
        ),
    }
)
