"""What the registry's entries are made of: a network's parts, and the heads that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

LOGITS = "logits"
"""Name of the last layer before the softmax: losses take its output, users the softmax's."""
POOL = "pool"
"""Name of the layer that turns a map or a bag into one row; the head begins with it."""
TO_CLASSES = "to_classes"
"""Name of the layer that a head begins with where there is no such row."""


@dataclass(frozen=True)
class Network:
    """How to build one network, and the input and classes that it has by default.

    Attributes:
        build: From scaled pixels, shape (n, h, w, c), or a bag, (n, instances, features), to a
            map or bag of features.
        input_shape: Without the batch: (h, w, c), or (instances, features).
        classes: Number of classes.
        about: One line.
        head: From what `build` gives and the number of classes to the layer `logits`.
        scale: How pixels in [0, 255] are scaled; a key of `kit._backbones.SCALES`.
        gives: Probabilities for each image or bag, or for each pixel.
        takes: Images or bags.
        least: The smallest height and width.
        multiple: What height and width are multiples of.
        published: Whether ImageNet weights were published for it.
    """

    build: Callable[[Any], Any]
    input_shape: tuple[int | None, ...]
    classes: int
    about: str
    head: Callable[[Any, int], Any]
    scale: str = "unit"
    gives: Literal["classes", "pixels"] = "classes"
    takes: Literal["images", "bags"] = "images"
    least: int = 1
    multiple: int = 1
    published: bool = False

    @property
    def dense(self) -> bool:
        """Return whether each pixel has its own probabilities."""
        return self.gives == "pixels"


def dense_logits(x: Any, classes: int) -> Any:
    """Return the logits of rows of features, (n, features) to (n, classes), in float32."""
    from keras import layers

    return layers.Dense(classes, dtype="float32", name=LOGITS)(x)


def pooled(dropout: float = 0.0) -> Callable[[Any, int], Any]:
    """Return a head of average pooling, dropout and one dense layer."""

    def head(x: Any, classes: int) -> Any:
        from keras import layers

        x = layers.GlobalAveragePooling2D(name=POOL)(x)
        if dropout:
            x = layers.Dropout(dropout, name="dropout_head")(x)
        return dense_logits(x, classes)

    return head
