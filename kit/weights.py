"""Files of pretrained weights: found, checked by sha256, and loaded whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.checks import nearest
from kit.errors import ModelError
from kit.files import sha256 as sha256_of
from kit.manifest import Dataset, Weights

if TYPE_CHECKING:
    import keras

SCRATCH = "resnet_small"
"""The network that the errors name for those who have no weights."""
FORMS = "a file .keras, .weights.h5, or .h5 of keras.applications without top"
Arrays = list[tuple[str, list[np.ndarray]]]


def find(entry: Dataset | Mapping[str, Weights], name: str, roots: Path | Sequence[Path]) -> Path:
    """Return the file of weights that a manifest entry names, its sha256 checked.

    Args:
        entry: The entry, or its `weights`.
        name: One of them.
        roots: The folders that relative paths start from, such as the data folder and the
            platform's mounted inputs; below each also Kaggle's datasets/OWNER, models and
            competitions are looked through.

    Raises:
        ModelError: The name is unknown; no such file, and what to download and attach; or the
            file is another one.
    """
    known = entry.weights if isinstance(entry, Dataset) else entry
    if name not in known:
        raise ModelError(
            "weights are unknown", received=f"weights={name}",
            remedy=nearest(name, known) if known else "name them under weights in the manifest",
        )  # fmt: skip
    wanted = known[name]
    folders = [roots] if isinstance(roots, Path) else list(roots)
    tried = list(dict.fromkeys(_places(wanted.path, folders)))
    for place in tried:
        if place.is_file():
            return verified(place, wanted.sha256)
    listed = ", ".join(map(str, tried))
    raise ModelError(
        f"weights {name} are not here", expected=f"one of {listed}",
        remedy=_advice(wanted, tried[0] if tried else Path(wanted.path)),
    )  # fmt: skip


def _places(path: str, roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield root / path
        if not Path(path).is_absolute():
            for pattern in ("datasets/*", "models/*/*/*/*", "competitions"):
                yield from (folder / path for folder in sorted(root.glob(pattern)))


def _advice(wanted: Weights, place: Path) -> str:
    source = f"download {wanted.url}" if wanted.url else "get the file (the manifest has no url)"
    return (
        f"{source} and save it as {place}; on Kaggle upload it as a dataset and add that as an "
        f"input (/kaggle/input/{wanted.path}); on NSML put it inside the folder that nsml run "
        f"uploads, or save it with nsml.save; without it model={SCRATCH} trains from scratch"
    )


def verified(path: Path, sha256: str | None) -> Path:
    """Return `path` if there is such a file and it has that sha256 (None: any).

    Raises:
        ModelError: It is missing or another file.
    """
    if not path.is_file():
        raise ModelError(
            "no such file of weights", expected=FORMS, path=path,
            remedy=f"correct the path, or model={SCRATCH} without weights, from scratch",
        )  # fmt: skip
    if sha256 is not None:
        found = sha256_of(path)
        if found != sha256.lower():
            raise ModelError(
                "weights are not the file that the manifest names", path=path,
                expected=f"sha256 {sha256}", received=f"{found}, {path.stat().st_size:,} bytes",
                remedy="download it again, or correct the manifest's sha256",
            )  # fmt: skip
    return path


def repeats_grey(path: Path, channels: int | None) -> bool:
    """Return whether grey images must be repeated to three channels for a file's weights.

    Raises:
        ModelError: The file's first convolution takes other channels than the images have.
    """
    wanted = _first_channels(path)
    if wanted is None or wanted == channels:
        return False
    if (wanted, channels) == (3, 1):
        return True
    raise ModelError(
        "weights do not fit the images",
        path=path,
        expected=f"{wanted} channels, as the first convolution was trained on"
        + (" (grey is repeated)" if wanted == 3 else ""),
        received=f"{channels} channels",
        remedy="choose the channels, or train from scratch without weights",
    )


def load(model: keras.Model, path: Path, *, head: Sequence[Any], classes: int) -> None:
    """Load a file's weights into a model: all of them, or all but the head's last layers.

    A `.keras` or legacy `.h5` file is matched layer by layer, in order and by shape. Where the
    file has no head, or one for another number of classes, the model keeps its own there.

    Args:
        model: Of `kit.models.build_model`.
        path: A `.keras` file, a legacy `.h5` of weights, or a `.weights.h5` of the whole model or
            its backbone.
        head: The layers that a file may lack.
        classes: Of the model.

    Raises:
        ModelError: The file is no file of weights, is damaged, or does not fit; names the first
            layer that differs. The model must then not be used.
    """
    if _kind(path) == "weights":
        _load_new(model, path)
        return
    ours = list(_leaves(model))
    inside = {id(layer) for layer in head}
    start = sum(1 for top, _ in ours if id(top) not in inside)
    stored = _read(path)
    n = _fitting(stored, [layer for _, layer in ours], start, classes, path)
    for (_, arrays), (_, layer) in zip(stored[:n], ours[:n], strict=True):
        layer.set_weights(arrays)
        if hasattr(layer, "finalize_state"):  # a normalisation works with what it derives
            layer.finalize_state()


def _leaves(model: Any, top: Any = None) -> Iterator[tuple[Any, Any]]:
    """Yield each layer that has weights, models inside opened, with the outer layer it is of."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, top or layer)
        elif layer.weights:
            yield top or layer, layer


def _fitting(stored: Arrays, ours: list[Any], start: int, classes: int, path: Path) -> int:
    """Return how many layers are loaded, or raise with the first that differs."""
    if len(stored) not in (start, len(ours)):
        at = next((i for i, pair in enumerate(zip(stored, ours, strict=False))
                   if not _same(*pair)), min(len(stored), len(ours)))  # fmt: skip
        _differ(stored, ours, at, path)
    for at, (found, layer) in enumerate(zip(stored, ours, strict=False)):
        if _same(found, layer):
            continue
        if at >= start and all(map(_other_classes, stored[at:], ours[at:], [classes] * len(ours))):
            return at
        _differ(stored, ours, at, path)
    return len(stored)


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _same(found: tuple[str, list[np.ndarray]], layer: Any) -> bool:
    return [array.shape for array in found[1]] == _shapes(layer)


def _other_classes(found: tuple[str, list[np.ndarray]], layer: Any, classes: int) -> bool:
    """Return whether a layer differs in the number of classes and in nothing else."""
    theirs, mine = [array.shape for array in found[1]], _shapes(layer)
    if [len(shape) for shape in theirs] != [len(shape) for shape in mine]:
        return False
    pairs = [pair for a, b in zip(theirs, mine, strict=True) for pair in zip(a, b, strict=True)]
    other = {a for a, b in pairs if a != b}
    return len(other) < 2 and all(b == classes for a, b in pairs if a != b)


def _differ(stored: Arrays, ours: list[Any], at: int, path: Path) -> None:
    def told(name: str, shapes: list[tuple[int, ...]]) -> str:
        return f"{name} {', '.join(map(str, shapes))}"

    mine = told(ours[at].name, _shapes(ours[at])) if at < len(ours) else "no more layers"
    theirs = (
        told(stored[at][0], [array.shape for array in stored[at][1]])
        if at < len(stored) else "no more layers"
    )  # fmt: skip
    raise _misfit(f"layer {at}: {mine} ({len(ours)} layers in all)",
                  f"{theirs} ({len(stored)} layers in all)", path)  # fmt: skip


def _misfit(expected: str, received: str, path: Path) -> ModelError:
    return ModelError(
        "weights do not fit the network", expected=expected, received=received, path=path,
        remedy="name the network that the file was made with (a published one without its top), "
        f"or model={SCRATCH} without weights, from scratch",
    )  # fmt: skip


def _load_new(model: Any, path: Path) -> None:
    """Load Keras 3's `.weights.h5` into the model, or into the backbone inside it."""
    found = sum(1 for _ in _arrays(path))
    parts = [model, *(layer for layer in model.layers if hasattr(layer, "layers"))]
    sizes = [len(part.weights) for part in parts]
    part = parts[sizes.index(found)] if found in sizes else model
    wanted = f"{' or '.join(map(str, sizes))} arrays"
    try:
        part.load_weights(path)
    except Exception as error:  # Keras names the layer and what it misses
        told = " ".join(str(error).split())
        raise _misfit(wanted, f"{found} arrays; {told}", path) from error
    if found not in sizes:  # Keras is silent about what a file has too much
        raise _misfit(wanted, f"{found} arrays", path)


def _kind(path: Path) -> str:
    """Return "keras", "weights" (Keras 3) or "legacy" (Keras 2), by what is in the file."""
    import h5py

    if zipfile.is_zipfile(path):
        return "keras"
    try:
        with h5py.File(path, "r") as file:
            if "layer_names" in file.attrs or "model_weights" in file:
                return "legacy"
            if any(True for _ in _arrays(path)):
                return "weights"
    except OSError as error:
        raise _damaged(path, error) from error
    raise _damaged(path, "an HDF5 file without weights")


def _damaged(path: Path, reason: object) -> ModelError:
    return ModelError(
        "the file holds no weights that can be read", expected=FORMS, path=path,
        received=f"{path.stat().st_size:,} bytes; {' '.join(str(reason).split())[:300]}",
        remedy="it may be cut off or another file: download or save it again",
    )  # fmt: skip


def _arrays(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each array of weights in a `.weights.h5`."""
    import h5py

    names: list[tuple[str, tuple[int, ...]]] = []

    def visit(name: str, item: Any) -> None:
        parts = name.split("/")
        state = {"seed_generator", "optimizer"} & set(parts)
        if isinstance(item, h5py.Dataset) and "vars" in parts and not state:
            names.append((name, tuple(item.shape)))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    yield from names


def _first_channels(path: Path) -> int | None:
    """Return the input channels of a file's first convolution; None if it has none."""
    kind = _kind(path)
    if kind == "weights":
        first = [name_shape for name_shape in _arrays(path)
                 if "/conv2d/vars/0" in name_shape[0] and len(name_shape[1]) == 4]  # fmt: skip
        return min(first, key=lambda found: found[0].count("/"))[1][2] if first else None
    shapes = [array.shape for _, arrays in _read(path) for array in arrays]
    return next((shape[2] for shape in shapes if len(shape) == 4), None)


def _read(path: Path) -> Arrays:
    """Return the layers of a `.keras` or legacy `.h5` file that have weights, in their order."""
    if _kind(path) == "keras":
        model = load_keras(path)
        return [(layer.name, list(layer.get_weights())) for _, layer in _leaves(model)]
    import h5py

    found: Arrays = []
    try:
        with h5py.File(path, "r") as file:
            top = file if "layer_names" in file.attrs else file["model_weights"]
            for layer in map(_text, top.attrs["layer_names"]):
                names = map(_text, top[layer].attrs["weight_names"])
                arrays = [np.asarray(top[layer][name]) for name in names]
                if arrays:
                    found.append((layer, arrays))
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return found


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


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
