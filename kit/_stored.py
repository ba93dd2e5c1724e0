"""What a file of weights holds, and how it goes into a network: whole, or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.errors import ModelError
from kit.weights import FORMS, SCRATCH, verified

if TYPE_CHECKING:
    import keras

Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """The weights of one file.

    Attributes:
        path: The file.
        layers: Name and arrays of each layer that has weights, in order; None for a
            `.weights.h5`, whose order only its network knows.
        shapes: Of all arrays, in order; of a `.weights.h5` in the order of their names.
        channels: What its first convolution takes; None where it has none.
    """

    path: Path
    layers: list[tuple[str, list[np.ndarray]]] | None
    shapes: Shapes
    channels: int | None

    def repeats_grey(self, channels: int | None) -> bool:
        """Return whether images must be repeated to three channels for these weights.

        Raises:
            ModelError: The first convolution takes other channels than the images have.
        """
        if self.channels in (None, channels):
            return False
        if (self.channels, channels) == (3, 1):
            return True
        grey = " (grey is repeated)" if self.channels == 3 else ""
        raise ModelError(
            "weights do not fit the images", received=f"{channels} channels", path=self.path,
            expected=f"{self.channels} channels, which the first convolution was trained on{grey}",
            remedy="choose the channels, or train from scratch without weights",
        )  # fmt: skip


def read(path: Path) -> Stored:
    """Return what a file of weights holds: `.keras`, legacy `.h5`, or `.weights.h5`.

    Its form is known by its content, not by its name.

    Raises:
        ModelError: The file is missing, damaged, or holds no weights.
    """
    verified(path, None)
    if zipfile.is_zipfile(path):
        layers = [(layer.name, layer.get_weights()) for _, layer in _leaves(load_keras(path))]
    else:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                group = file.get("model_weights", file)
                if not _names(group, "layer_names"):
                    return _new(path, file)
                layers = list(_legacy(group))
        except (OSError, KeyError, RuntimeError) as error:
            raise _damaged(path, error) from error
    shapes = [array.shape for _, arrays in layers for array in arrays]
    channels = next((shape[2] for shape in shapes if len(shape) == 4), None)
    return Stored(path, layers, shapes, channels)


def _names(group: Any, key: str) -> list[str]:
    """Return a list of names in Keras 2's attributes; long lists lie there in numbered parts."""
    parts = sorted((name for name in group.attrs if name.rstrip("0123456789") == key),
                   key=lambda name: int(name[len(key) :] or 0))  # fmt: skip
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _legacy(group: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    for layer in _names(group, "layer_names"):
        arrays = [np.asarray(group[layer][name]) for name in _names(group[layer], "weight_names")]
        if arrays:
            yield layer, arrays


def _new(path: Path, file: Any) -> Stored:
    """Return the shapes in Keras 3's `.weights.h5`; random state and optimizer do not count."""
    import h5py

    found: list[tuple[str, tuple[int, ...]]] = []

    def visit(name: str, item: Any) -> None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and "vars" in parts[:-1]:
            if not {"seed_generator", "optimizer"} & set(parts):
                found.append((name, tuple(item.shape)))

    file.visititems(visit)
    if not found:
        raise _damaged(path, "an HDF5 file without weights")
    first = [(name.count("/"), shape[2]) for name, shape in found
             if name.endswith("/conv2d/vars/0") and len(shape) == 4]  # fmt: skip
    channels = min(first)[1] if first else None
    return Stored(path, None, [shape for _, shape in found], channels)


def load(model: keras.Model, stored: Stored, *, head: Sequence[Any], classes: int) -> None:
    """Load weights into a model: all of them, or all but the last layers of its head.

    Layers are matched in their order and by the shapes of all their arrays. Where the file has no
    head, or one for another number of classes, the model keeps its own there.

    Args:
        model: Of `kit.models.build_model`.
        stored: What `read` returns.
        head: The layers that the file may lack.
        classes: Of the model.

    Raises:
        ModelError: Something does not fit; names the first layer that differs. The model must
            then not be used.
    """
    if stored.layers is None:
        _load_new(model, stored)
        return
    ours = list(_leaves(model))
    inside = {id(layer) for layer in head}
    start = sum(1 for top, _ in ours if id(top) not in inside)
    layers = [layer for _, layer in ours]
    n = _fitting(stored, layers, start, classes)
    for (_, arrays), layer in zip(stored.layers[:n], layers[:n], strict=True):
        layer.set_weights(arrays)
        if hasattr(layer, "finalize_state"):  # a normalisation works with what it derives
            layer.finalize_state()


def _leaves(model: Any, top: Any = None) -> Iterator[tuple[Any, Any]]:
    """Yield each layer that has weights, models inside opened, with the outer layer it is of.

    A sequence inside a network, such as ConvNeXt's stem, is one layer, as in published files.
    """
    import keras

    for layer in model.layers:
        if hasattr(layer, "layers") and not isinstance(layer, keras.Sequential):
            yield from _leaves(layer, top or layer)
        elif layer.weights:
            yield top or layer, layer


def _fitting(stored: Stored, ours: list[Any], start: int, classes: int) -> int:
    """Return how many layers are loaded, or raise with the first that differs.

    Args:
        stored: The file.
        ours: The layers of the network.
        start: How many of them stand before the head.
        classes: Of the network.
    """
    theirs = [(name, [array.shape for array in arrays]) for name, arrays in stored.layers or []]
    mine = [(layer.name, [tuple(weight.shape) for weight in layer.weights]) for layer in ours]
    pairs = list(zip(theirs, mine, strict=False))
    same = next((i for i, (a, b) in enumerate(pairs) if a[1] != b[1]), len(pairs))
    if len(theirs) in (start, len(mine)):
        if same == len(theirs):
            return same
        if same >= start and all(_other_classes(a[1], b[1], classes) for a, b in pairs[same:]):
            return same
    raise _misfit(f"layer {same + 1} of {len(mine)}: {_told(mine, same)}",
                  f"of {len(theirs)}: {_told(theirs, same)}", stored.path)  # fmt: skip


def _told(layers: list[tuple[str, Shapes]], at: int) -> str:
    if at >= len(layers):
        return "no layer"
    name, shapes = layers[at]
    return f"{name} {', '.join(map(str, shapes))}"


def _other_classes(theirs: Shapes, mine: Shapes, classes: int) -> bool:
    """Return whether a layer differs in the number of classes and in nothing else."""
    if [len(shape) for shape in theirs] != [len(shape) for shape in mine]:
        return False
    pairs = [pair for a, b in zip(theirs, mine, strict=True) for pair in zip(a, b, strict=True)]
    changed = {pair for pair in pairs if pair[0] != pair[1]}
    return len(changed) < 2 and all(ours == classes for _, ours in changed)


def _misfit(expected: str, received: str, path: Path) -> ModelError:
    return ModelError(
        "weights do not fit the network", expected=expected, received=received, path=path,
        remedy="name the network that the file was made with (a published one without its top), "
        f"or model={SCRATCH} without weights, from scratch",
    )  # fmt: skip


def _load_new(model: Any, stored: Stored) -> None:
    """Load Keras 3's `.weights.h5` into the model, or into the backbone inside it."""
    parts = [model, *(layer for layer in model.layers if hasattr(layer, "layers"))]
    sizes, found = [len(part.weights) for part in parts], len(stored.shapes)
    part = parts[sizes.index(found)] if found in sizes else model
    wanted = f"{' or '.join(map(str, sizes))} arrays"
    try:
        part.load_weights(stored.path)
    except Exception as error:  # Keras names the layer and what it misses
        told = " ".join(str(error).split())
        raise _misfit(wanted, f"{found} arrays; {told}", stored.path) from error
    if found not in sizes:  # Keras is silent about what a file has too much
        raise _misfit(wanted, f"{found} arrays", stored.path)


def _damaged(path: Path, reason: object) -> ModelError:
    return ModelError(
        "the file holds no weights that can be read", expected=FORMS, path=path,
        received=f"{path.stat().st_size:,} bytes; {' '.join(str(reason).split())[:300]}",
        remedy="it may be cut off or another file: download or save it again",
    )  # fmt: skip


def load_keras(path: Path) -> keras.Model:
    """Return the model of a `.keras` file, not compiled; layers of the kit are known.

    Raises:
        ModelError: The file is missing, damaged, or no `.keras` file.
    """
    import keras

    import kit.attention  # noqa: F401  registers its layer

    verified(path, None)
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises what its parts raise
        raise _damaged(path, error) from error
