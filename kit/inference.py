"""Apply trained networks to stored pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import feed
from kit.backend import replicas
from kit.errors import ModelError
from kit.files import digest, fingerprint, read_json, read_table, table_key, write_table
from kit.stitch import patch_scores
from kit.store import Store

FORMAT = 1
BATCH = 256
View = Callable[[np.ndarray], np.ndarray]


def predictions_key(store: Store, rows: np.ndarray, model_sha256: str, policy: str) -> str:
    """Return the fingerprint of one network's predictions of some items."""
    items = store.items.iloc[rows][["case_id", "key", "label", "group"]]
    return fingerprint([FORMAT, model_sha256, policy, digest(items)])


def predict_rows(
    store: Store, rows: np.ndarray, model: Path, *, classes: Sequence[str], path: Path,
    policy: str,
) -> pd.DataFrame:  # fmt: skip
    """Return the predictions of some stored items by one network, kept as a table at `path`.

    Args:
        store: The pixels.
        rows: Row numbers of the items.
        model: The network's `.keras` file, its note (`.json`) beside it.
        classes: Class names, in the order of the network's outputs.
        path: The table; taken as it is where it agrees with its inputs.
        policy: Augmentation policy whose flips are averaged over; "none" has no flips.

    Returns:
        `case_id, group, y_true`, `prob_<class>`, and `x, y` for patches; a row for each item.

    Raises:
        ModelError: The network was trained on images of another stain normalisation, or does not
            fit.
    """
    note = check_stain(model, store.stain)
    key = predictions_key(store, rows, note["sha256"], policy)
    if table_key(path) == key:
        return read_table(path)
    items = store.items.iloc[rows].reset_index(drop=True)
    table = items[["case_id", "group", *[c for c in ("x", "y") if c in items]]].copy()
    table["y_true"] = items.label.where(items.split != "test", None)
    prob = probabilities(store, rows, model, len(classes), policy)
    for position, name in enumerate(classes):
        table[f"prob_{name}"] = prob[:, position]
    write_table(table, path, key)
    return table


def predict_all(
    store: Store, models: Sequence[Path], *, classes: Sequence[str], folder: Path, policy: str
) -> pd.DataFrame:
    """Return every item's predictions by every network of a run.

    Args:
        store: The pixels.
        models: `.keras` files, each with its note (`.json`) beside it.
        classes: Class names, in the order of the networks' outputs.
        folder: Where the parts are kept.
        policy: Augmentation policy whose flips are averaged over.

    Returns:
        Predictions table, a row for each item and network, `x, y` for patches.
    """
    rows = np.flatnonzero(store.items.predict)
    parts = []
    for model in models:
        note = read_json(model.with_suffix(".json"))
        table = predict_rows(
            store, rows, model, classes=classes, path=folder / f"{model.stem}.parquet",
            policy=policy,
        )  # fmt: skip
        parts.append(table.assign(**{name: note[name] for name in ("fold", "seed", "model")}))
    return pd.concat(parts, ignore_index=True)


def probabilities(
    store: Store, rows: np.ndarray, model: Path, n_classes: int, policy: str
) -> np.ndarray:
    """Return class probabilities, float64, shape (n, classes), averaged over the policy's views.

    Raises:
        ModelError: The file is not a network, or its input or outputs do not fit.
    """
    if len(rows) == 0:
        return np.zeros((0, n_classes))
    from kit.augment import views
    from kit.models import load_network

    network = load_network(model)
    check_fits(network, store.pixels.shape[1:], n_classes, model)
    return predict_images(network, store.pixels, rows, [one.forward for one in views(policy)])


def check_stain(model: Path, stain: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a network's note, if the network takes images whose stains are normalised like these.

    Args:
        model: The network's `.keras` file, its note (`.json`) beside it.
        stain: How the images were normalised (`kit.stain.Normaliser.to_dict`); None: not at all.

    Raises:
        ModelError: It was trained on images that were normalised otherwise.
    """
    note: dict[str, Any] = read_json(Path(model).with_suffix(".json"))
    wanted = note.get("stain")  # a note without the word is older than the setting
    if wanted != stain:
        expected, received = (one["method"] if one else "none" for one in (wanted, stain))
        same = " of another target" if expected == received else ""
        raise ModelError(
            "the network was trained on images of another stain normalisation",
            expected=f"stain={expected}", received=f"stain={received}{same}", path=model,
            remedy="read the images with the stain that its note (.json) holds",
        )  # fmt: skip
    return note


def check_fits(network: Any, shape: Sequence[int], n_classes: int, path: Path) -> None:
    """Raise `ModelError` if a network takes other images or gives other classes."""
    expected, classes = tuple(network.input_shape[1:]), network.output_shape[-1]
    if expected != tuple(shape) or classes != n_classes:
        raise ModelError(
            "network does not fit the data", expected=f"{tuple(shape)} in, {n_classes} classes out",
            received=f"{expected} in, {classes} out", path=path,
        )  # fmt: skip


def predict_images(
    network: Any, pixels: Any, rows: np.ndarray, views: Sequence[View] = (np.asarray,)
) -> np.ndarray:
    """Return class probabilities, float64, shape (n, classes), averaged over the views.

    A network that answers for each pixel answers for an image by the mean over its centre, half
    as wide and as high.

    Args:
        network: Keras model of images to probabilities.
        pixels: What is indexed by rows to uint8 images (n, height, width, channels).
        rows: Which images, in order; read by a thread while the network computes.
        views: Functions of an image batch.
    """
    size = min(BATCH, len(rows))  # of every batch, so that nothing is compiled twice
    size += -size % replicas()
    parts = [rows[start : start + size] for start in range(0, len(rows), size or 1)]
    found = np.zeros((len(rows), network.output_shape[-1]))
    start = 0
    for images in feed.ahead(lambda part: np.asarray(pixels[part]), parts):
        padded = np.zeros((size, *images.shape[1:]), images.dtype)
        padded[: len(images)] = images
        for view in views:
            prob = np.asarray(network.predict_on_batch(np.ascontiguousarray(view(padded))))
            found[start : start + len(images)] += of_image(prob)[: len(images)]
        start += len(images)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def of_image(prob: np.ndarray) -> np.ndarray:
    """Return probabilities of images, float64 (n, k), from those or from those of their pixels.

    Of pixels, (n, height, width, k), the mean over the centre, half as wide and as high.
    """
    return prob.astype(np.float64) if prob.ndim == 2 else patch_scores(prob, "mean")
