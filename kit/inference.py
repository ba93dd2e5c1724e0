"""Apply trained networks to stored pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.errors import ModelError
from kit.files import digest, fingerprint, read_json, read_table, table_key, write_table
from kit.store import Store

FORMAT = 1
BATCH = 256


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
    """
    key = predictions_key(store, rows, read_json(model.with_suffix(".json"))["sha256"], policy)
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
    import keras

    from kit.augment import views

    try:
        network = keras.saving.load_model(model, compile=False)
    except (ValueError, OSError) as error:
        raise ModelError(
            "network cannot be read", received=str(error), path=model,
            remedy="delete it and run again: it is trained anew",
        ) from error  # fmt: skip
    expected, shape = tuple(network.input_shape[1:]), tuple(store.pixels.shape[1:])
    if expected != shape or network.output_shape[-1] != n_classes:
        raise ModelError(
            "network does not fit the data", expected=f"{shape} in, {n_classes} classes out",
            received=f"{expected} in, {network.output_shape[-1]} out", path=model,
        )  # fmt: skip
    result = np.zeros((len(rows), n_classes))
    each = views(policy)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        images = np.zeros((min(BATCH, len(rows)), *shape), np.uint8)
        images[: len(part)] = store.pixels[part]
        for view in each:
            found = network.predict_on_batch(np.ascontiguousarray(view(images)))[: len(part)]
            result[start : start + len(part)] += np.asarray(found, np.float64) / len(each)
    return result / result.sum(axis=1, keepdims=True)
