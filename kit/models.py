"""One registry of networks; each takes pixels in [0, 255] and holds its own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kit import _stored
from kit._backbones import FAMILIES, HUB, hub, scaled
from kit._network import LOGITS as LOGITS
from kit._network import POOL, TO_CLASSES
from kit._network import Network as Network
from kit._own_networks import OWN
from kit._seed_networks import SEED
from kit.checks import choice, nearest
from kit.errors import ModelError
from kit.weights import verified

if TYPE_CHECKING:
    import keras

REGISTRY: Mapping[str, Network] = MappingProxyType({**OWN, **SEED, **FAMILIES})
TRAINABLE = ("head", "all")


def check_model(name: str) -> Network:
    """Return how to build a network, or raise `ModelError` with the nearest names.

    A name is a key of `REGISTRY`, or `hub:FOLDER`, a KerasHub preset in a folder.
    """
    if str(name).startswith(HUB):
        return hub(name)
    if name not in REGISTRY:
        raise ModelError(
            "network is unknown", received=f"model={name}", remedy=nearest(str(name), REGISTRY)
        )
    return REGISTRY[name]


def build_model(
    name: str,
    input_shape: tuple[int | None, ...] | None = None,
    classes: int | None = None,
    *,
    weights: Path | None = None,
    sha256: str | None = None,
) -> keras.Model:
    """Return a Keras model, untrained or with the weights of a file.

    Args:
        name: A key of `REGISTRY`, or `hub:FOLDER`.
        input_shape: (height, width, channels), or (instances, features) of a bag, where None
            instances are any number; the network's own by default.
        classes: Number of classes, at least 2; the network's own by default.
        weights: A `.keras` file, a legacy `.h5` of keras.applications without top, or a
            `.weights.h5` of the network or its backbone. Grey images are repeated to three
            channels for weights of three; from scratch the first convolution takes any number.
        sha256: Of the file of weights; None: not compared.

    Returns:
        A model from pixels in [0, 255], shape (n, height, width, channels), to class
        probabilities, shape (n, classes), each row summing to 1; for a network that gives pixels
        (n, height, width, classes). Its layer `logits` gives the values before the softmax; both
        are float32, whatever the precision.

    Raises:
        ModelError: The name is unknown, the shape or number of classes cannot be, or the file of
            weights is missing, damaged, or does not fit.
    """
    network = check_model(name)
    shape = network.input_shape if input_shape is None else input_shape
    n_classes = network.classes if classes is None else classes
    shape = _check_shape(name, network, shape, n_classes)
    if weights is None:
        return _assembled(name, network, shape, n_classes)
    stored = _stored.read(verified(Path(weights), sha256))
    repeat = network.takes == "images" and stored.repeats_grey(shape[-1])
    model = _assembled(name, network, shape, n_classes, repeat=repeat)
    _stored.load(model, stored, head=head_layers(model), classes=n_classes)
    return model


def _check_shape(name: str, network: Network, given: Any, classes: Any) -> tuple[int | None, ...]:
    """Return the shape, or raise `ModelError` where a network cannot be built for it."""
    bag = network.takes == "bags"
    shape = tuple(given) if isinstance(given, Sequence) else (given,)
    sizes = [side for side in shape if side is not None]
    whole = len(shape) == (2 if bag else 3) and None not in (shape[1:] if bag else shape)
    numbers = all(isinstance(one, Integral) for one in (*sizes, classes))
    if not (whole and numbers) or min(sizes) < 1 or classes < 2:
        form = "(instances, features)" if bag else "(height, width, channels)"
        raise ModelError(
            "network cannot be built", expected=f"{form} and 2 classes or more",
            received=f"input_shape={given!r}, classes={classes!r}",
        )  # fmt: skip
    if bag:
        return shape
    least, multiple = network.least, network.multiple
    if min(sizes[:2]) < least or any(side % multiple for side in sizes[:2]):
        steps = f", in steps of {multiple}" if multiple > 1 else ""
        raise ModelError(
            f"network {name} cannot take images of this size",
            expected=f"height and width of at least {least} pixels{steps}",
            received=f"{sizes[0]} x {sizes[1]}",
            remedy="resize the images, or model=seresnet_small, which takes any size",
        )  # fmt: skip
    return shape


def _assembled(
    name: str, network: Network, shape: tuple[int | None, ...], classes: int, *,
    repeat: bool = False,
) -> keras.Model:  # fmt: skip
    """Return the model: its input, scaling, features, logits and softmax."""
    import keras
    from keras import layers

    inputs = keras.Input(shape, name="features" if network.takes == "bags" else "pixels")
    x = layers.Concatenate(name="grey_to_rgb")([inputs] * 3) if repeat else inputs
    x = network.head(network.build(scaled(x, network.scale)), classes)
    outputs = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name.replace(":", "_").replace("/", "_"))


def head_layers(model: keras.Model) -> list[Any]:
    """Return the layers from the pooling on: what trains while the pretrained rest is frozen.

    Raises:
        ModelError: The model is none of `build_model`'s.
    """
    names = [layer.name for layer in model.layers]
    start = next((name for name in (POOL, TO_CLASSES, LOGITS) if name in names), None)
    if start is None:
        raise ModelError(
            "the model has no head that the kit knows", received=f"model {model.name}",
            expected=f"a layer named {POOL}, {TO_CLASSES} or {LOGITS}, as build_model gives",
        )  # fmt: skip
    return list(model.layers[names.index(start) :])


def set_trainable(model: keras.Model, part: str) -> None:
    """Let the head alone ("head") or all layers ("all") of a model train.

    Frozen batch normalisation runs with its moving statistics and keeps them. A compiled trainer
    of the model must be compiled again.

    Raises:
        SettingsError: `part` is neither.
    """
    choice("trainable", part, TRAINABLE)
    head = {id(layer) for layer in head_layers(model)}
    for layer in model.layers:
        layer.trainable = part == "all" or id(layer) in head


def embedding_model(model: keras.Model) -> keras.Model:
    """Return the same network, with the same weights, up to the features before the logits.

    Returns:
        A model from pixels to features, (n, features), or for a network that gives pixels to the
        map that its classes are read from, (n, h, w, features).
    """
    import keras

    names = {layer.name for layer in model.layers}
    last = model.get_layer(TO_CLASSES if TO_CLASSES in names else LOGITS)
    return keras.Model(model.input, last.input, name=f"{model.name}_embedding")


def load_network(path: Path) -> keras.Model:
    """Return a saved network; layers of the kit are known, however the process began.

    Raises:
        ModelError: The file is missing, damaged, or no `.keras` file.
    """
    return _stored.load_keras(Path(path))
