"""A training beside plain `model.fit`, and its input: `python benchmarks/training.py [--save]`."""

from __future__ import annotations

import os

os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from bench import Row, arguments, measure, tell

from kit import feed, histories, store
from kit.augment import Augment
from kit.fits import Fit
from kit.fitting import Session
from kit.models import LOGITS, build_model
from kit.optimizers import build_optimizer
from kit.recipes import Recipe

MODEL, CLASSES, BATCH = "seresnet_small", ("a", "b"), 64
SIZES = {"56 px grey, 512 images": (512, 56, 1), "48 px RGB, 4,672 images": (4672, 48, 3)}
"""An epoch of BreastMNIST's and of the IDC patches' folds."""


def drawn(folder: Path, n: int, side: int, channels: int) -> store.Store:
    """Return a store of noise."""
    items = pd.DataFrame({
        "case_id": [str(k) for k in range(n)], "label": [CLASSES[k % 2] for k in range(n)],
        "group": "g", "split": "train", "key": [str(k) for k in range(n)], "train": True,
        "predict": True,
    })  # fmt: skip

    def read(rows: pd.DataFrame) -> np.ndarray:
        rng = np.random.default_rng(int(rows.case_id.iloc[0]))
        return rng.integers(0, 256, (len(rows), side, side, channels), dtype=np.uint8)

    return store.build(folder / "pixels", items, read, "noise")[0]


def session(pixels: store.Store, folder: Path, augment: str) -> Session:
    """Return a training that has not begun; nothing is held out, nothing watched."""
    n, none = len(pixels.items), np.zeros(0, np.int64)
    recipe = Recipe(10_000, BATCH, augment=augment, monitor="none")
    rows = np.arange(n)
    return Session(
        Fit(pixels, rows, rows % 2, none, none, CLASSES, MODEL, recipe, 0, 0,
            folder / "fold0_seed0.keras", "k"), 0,
    )  # fmt: skip


def plain(shape: tuple[int, ...], augment: str) -> keras.Model:
    """Return what a user would write: augmentation, network, Keras' own loss, AdamW with EMA."""
    network = build_model(MODEL, shape, len(CLASSES))
    pixels = keras.Input(shape)
    body = keras.Model(network.input, network.get_layer(LOGITS).output)
    model = keras.Model(pixels, body(Augment(augment)(pixels)))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(build_optimizer("adamw", 2e-3, weight_decay=0.05, ema=0.99), loss)
    return model


def waited(own: Session) -> float:
    """Return the share of an epoch in which the network waits for its input."""
    real, lost = feed.ahead, [0.0]

    def timed(*given: Any) -> Iterator[Any]:
        batches = iter(real(*given))
        while True:
            start = time.perf_counter()
            try:
                found = next(batches)
            except StopIteration:
                return
            finally:
                lost[0] += time.perf_counter() - start
            yield found

    feed.ahead = timed
    try:
        start = time.perf_counter()
        own._epoch(0)
        return lost[0] / (time.perf_counter() - start)
    finally:
        feed.ahead = real


def rows_of(name: str, n: int, side: int, channels: int, folder: Path, repeats: int) -> list[Row]:
    """Return the rows of one size of images."""
    pixels, augment = drawn(folder, n, side, channels), "patch" if channels == 3 else "flips"
    memory = session(pixels, folder / "memory", augment)
    share, feed.SHARE = feed.SHARE, 0.0
    disk = session(pixels, folder / "disk", augment)
    feed.SHARE = share
    images, targets = pixels.pixels[:], np.eye(2, dtype="float32")[np.arange(n) % 2]
    fitted = plain(images.shape[1:], augment)
    held = [memory._read(rows)[1][0] for rows in np.split(np.arange(n), n // BATCH)]

    def tensors() -> None:
        for one in held:
            memory.trainer.train_on_batch(one)

    work = {
        "kit": lambda: memory._epoch(0), "disk": lambda: disk._epoch(0), "tensors": tensors,
        "fit": lambda: fitted.fit(images, targets, batch_size=BATCH, verbose=0),
        "state": memory._save,
        "log": lambda: histories.write(folder / "log.csv", memory.progress.rows[-1:] * 50),
    }  # fmt: skip
    took = {key: one.wall for key, one in measure(work, repeats=repeats).items()}
    cost = (took["state"] + took["log"]) / took["kit"]

    def rate(key: str) -> str:
        return f"{n / took[key]:,.0f} images / s"

    return [
        Row(f"{name}: an epoch", rate("kit"), f"{rate('fit')}, model.fit",
            took["fit"] / took["kit"], ">= .98x"),
        Row(f"{name}: decoded once into memory", rate("kit"), f"{rate('tensors')}, tensors",
            took["tensors"] / took["kit"], ">= .95x"),
        Row(f"{name}: read from the store", rate("disk"), f"{rate('tensors')}, tensors",
            took["tensors"] / took["disk"], ">= .95x"),
        Row(f"{name}: waiting for input", f"{100 * waited(memory):.1f} % of the time"),
        Row(f"{name}: writing state and logs", f"{100 * cost:.1f} % of the time", goal="< 3 %"),
    ]  # fmt: skip


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Training", repeats=5)
    rows = []
    for name, (n, side, channels) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(name, n, side, channels, Path(folder), asked.repeats)
    notes = (
        f"{MODEL}, batch {BATCH}, float32, augmentation, AdamW, moving average of the weights; one "
        "thread and the reader's; medians of wall times of epochs taken in turn. model.fit has the "
        "same network, augmentation layer and optimizer, and its arrays in memory. State: every "
        "variable with the optimizer's, after each epoch; the log is one of 50 epochs."
    )
    tell("training", "Training", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
