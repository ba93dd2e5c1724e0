"""Fit the folds: each network is a job that is recognised by what made it, and resumed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import inference, jobs
from kit.checks import first
from kit.errors import KitError, TableError
from kit.files import atomic, digest, fingerprint, read_json, sha256, table_key, write_json
from kit.store import Store

FORMAT = 1
EPOCH_LOG = "epoch,loss,rate,seconds\n"


@dataclass(frozen=True)
class Recipe:
    """How one network is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    ema: float
    augment: str
    threads: int
    seed: int


@dataclass(frozen=True)
class Fit:
    """One network to train: fold `fold` left out, with seed number `seed`."""

    store: Store
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    model: str
    recipe: Recipe
    fold: int
    seed: int
    path: Path
    key: str

    @property
    def name(self) -> str:
        """Return the name that progress and errors show."""
        return f"fold {self.fold}, seed {self.seed}"

    def done(self) -> bool:
        """Return whether the network stands, whole, with this fingerprint."""
        try:
            note = read_json(self.path.with_suffix(".json"))
        except KitError:  # missing or damaged: trained again
            return False
        whole = self.path.is_file() and sha256(self.path) == note["sha256"]
        return bool(whole and note["key"] == self.key)


def cross_validate(
    folds: pd.DataFrame,
    data: Store,
    model: str,
    recipe: Recipe,
    out: Path,
    seeds: int,
    *,
    classes: Sequence[str],
    tta: bool = True,
    only: Sequence[int] | None = None,
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a network for each fold and seed, and predict what it has not seen.

    A network sees the training items of the other folds and nothing else, so that a changed
    image trains again exactly the folds that see it.

    Args:
        folds: The folds table: `case_id, group, label, fold`.
        data: The pixels; items with `train` are learnt from, items with `predict` are predicted.
        model: A name of `kit.models.REGISTRY`.
        recipe: How each network is trained.
        out: Folder of the networks.
        seeds: Networks of each fold.
        classes: Class names, in the order of the networks' outputs.
        tta: Average each prediction over the flips of the recipe's policy.
        only: Fold numbers to train; all by default.
        workers: Processes; each fit keeps to its own `recipe.threads`.

    Returns:
        The out-of-fold and the test predictions table, a row for each item and network:
        `case_id, group, fold, seed, model, y_true`, `prob_<class>`, and `x, y` for patches.
    """
    fits = plan(folds, data, model, recipe, out, seeds, classes=classes, only=only)
    policy = recipe.augment if tta else "none"
    work = [jobs.Job(fit.name, _fit_and_predict, (fit, folds, policy)) for fit in fits]
    left = sum(recipe.epochs for fit in fits if not fit.done())
    ready = all(_predicted(fit, folds, policy) for fit in fits)
    with _epochs_bar([fit.path.with_suffix(".csv") for fit in fits if not fit.done()], left):
        found = jobs.values(
            jobs.run(work, title="folds", workers=1 if ready else workers, progress=False)
        )
    oof = pd.concat([one for one, _ in found], ignore_index=True)
    test = pd.concat([other for _, other in found], ignore_index=True)
    return oof, test


def plan(
    folds: pd.DataFrame, data: Store, model: str, recipe: Recipe, out: Path, seeds: int, *,
    classes: Sequence[str], only: Sequence[int] | None = None,
) -> list[Fit]:  # fmt: skip
    """Return the networks to train, each with the fingerprint of all that decides it."""
    items = data.items.merge(folds[["case_id", "fold"]], on="case_id", how="left")
    numbers = sorted(folds.fold.unique())
    chosen = numbers if only is None else list(only)
    unknown = sorted(set(chosen) - set(numbers))
    if unknown:
        raise TableError(
            "no such fold", expected=f"of {first(numbers, 20)}", received=first(unknown)
        )
    fits = []
    for fold in chosen:
        rows = np.flatnonzero(items.train & items.fold.notna() & (items.fold != fold))
        labels = items.label.iloc[rows]
        if labels.nunique() < 2:
            raise TableError(
                f"without fold {fold} there are not two classes to learn from",
                expected=" and ".join(classes), received=first(labels.unique()) or "no image",
            )  # fmt: skip
        codes = pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64)
        content = digest(items.iloc[rows][["case_id", "key", "label"]])
        for seed in range(seeds):
            key = fingerprint([FORMAT, model, vars(recipe), classes, fold, seed, content])
            path = out / f"fold{fold}_seed{seed}.keras"
            fits.append(
                Fit(data, rows, codes, tuple(classes), model, recipe, int(fold), seed, path, key)
            )
    return fits


def _predicted(fit: Fit, folds: pd.DataFrame, policy: str) -> bool:
    if not fit.done():
        return False
    model_key = read_json(fit.path.with_suffix(".json"))["sha256"]
    return all(
        table_key(_part(fit, side)) == inference.predictions_key(fit.store, rows, model_key, policy)
        for side, rows in _sides(fit, folds).items()
    )


def _part(fit: Fit, side: str) -> Path:
    return fit.path.with_name(f"{fit.path.stem}_{side}.parquet")


def _sides(fit: Fit, folds: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the rows of the fold's own cases and of the test cases, to be predicted."""
    items = fit.store.items
    own = set(folds.case_id[folds.fold == fit.fold])
    return {
        "oof": np.flatnonzero(items.predict & items.case_id.isin(own)),
        "test": np.flatnonzero(items.predict & (items.split == "test")),
    }


def _fit_and_predict(
    fit: Fit, folds: pd.DataFrame, policy: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not _predicted(fit, folds, policy):
        load_backend(fit.recipe.threads)
    if not fit.done():
        _fit(fit)
    sides = [
        inference.predict_rows(
            fit.store, rows, fit.path, classes=fit.classes, path=_part(fit, side),
            policy=policy,
        ).assign(fold=fit.fold, seed=fit.seed, model=fit.model)
        for side, rows in _sides(fit, folds).items()
    ]  # fmt: skip
    return sides[0], sides[1]


def load_backend(threads: int) -> None:
    """Load Keras with so many threads; without effect where it is loaded already.

    The backend's C++ greets on standard error before anybody can tell it not to, so that stream
    is closed to it while it loads; errors of the import come as exceptions.
    """
    if "keras" in sys.modules:
        return
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import keras

        keras.ops.zeros(1)  # the devices are looked up at the first use
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _fit(fit: Fit) -> None:
    """Train one network and write it, its history and, last, the note that makes it count."""
    import keras

    recipe, log = fit.recipe, fit.path.with_suffix(".csv")
    keras.utils.clear_session()  # layers are named alike in whatever order folds are trained
    keras.utils.set_random_seed(int(np.random.SeedSequence([recipe.seed, fit.fold, fit.seed])
                                    .generate_state(1)[0] % 2**31))  # fmt: skip
    images = fit.store.pixels[fit.rows]
    targets = np.eye(len(fit.classes), dtype="float32")[fit.labels]
    network, trainer, augment = _compiled(fit, images.shape[1:], len(images))
    fit.path.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(EPOCH_LOG)
    batch = min(recipe.batch_size, len(images))
    for epoch in range(recipe.epochs):
        start, losses = time.monotonic(), []
        augment.reseed(recipe.seed, fit.fold, fit.seed, epoch)
        order = np.random.default_rng([recipe.seed, fit.fold, fit.seed, epoch]).permutation(
            len(images)
        )
        for step in range(len(images) // batch):
            rows = np.sort(order[step * batch : (step + 1) * batch])
            losses.append(float(np.mean(trainer.train_on_batch(images[rows], targets[rows]))))
        rate = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
        with log.open("a") as stream:
            stream.write(
                f"{epoch + 1},{np.mean(losses):.6f},{rate:.8f},{time.monotonic() - start:.2f}\n"
            )
    if trainer.optimizer.use_ema:
        trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    with atomic(fit.path) as part:
        network.save(part)
    write_json(
        fit.path.with_suffix(".json"),
        {
            "key": fit.key,
            "sha256": sha256(fit.path),
            "model": fit.model,
            "fold": fit.fold,
            "seed": fit.seed,
            "recipe": vars(recipe),
            "images": len(images),
        },
    )


def _compiled(fit: Fit, shape: tuple[int, ...], n: int) -> tuple[Any, Any, Any]:
    """Return the network, the model that trains it (augmentation, then logits), that layer."""
    import keras

    from kit.augment import Augment
    from kit.models import LOGITS, build_model

    recipe = fit.recipe
    height, width, channels = shape
    network = build_model(fit.model, (height, width, channels), len(fit.classes))
    body = keras.Model(network.input, network.get_layer(LOGITS).output)
    augment = Augment(recipe.augment)
    inputs = keras.Input(shape)
    trainer = keras.Model(inputs, body(augment(inputs)))
    steps = recipe.epochs * max(1, n // min(recipe.batch_size, n))
    warm = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 20, max(1, steps - warm), alpha=0.01,
        warmup_target=recipe.learning_rate, warmup_steps=warm,
    )  # fmt: skip
    # An average longer than a tenth of the training would still hold the untrained weights.
    momentum = min(recipe.ema, max(0.0, 1 - 10 / steps))
    ema = {"use_ema": True, "ema_momentum": momentum} if momentum else {}
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, **ema)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )
    trainer.compile(optimizer, loss)
    return network, trainer, augment


def histories(out: Path) -> pd.DataFrame:
    """Return the epochs of every network in a folder: `epoch, loss, rate, seconds, network`."""
    parts = [
        pd.read_csv(path).assign(network=path.stem) for path in sorted(Path(out).glob("*.csv"))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


@contextlib.contextmanager
def _epochs_bar(logs: list[Path], total: int) -> Iterator[None]:
    """Show epochs done of all epochs, with the time left, by the logs that the fits write."""
    from tqdm import tqdm

    if not logs:
        yield
        return
    for log in logs:
        log.unlink(missing_ok=True)
    stop = threading.Event()
    with tqdm(total=total, desc="training", unit="epoch", leave=False) as bar:

        def watch() -> None:
            while not stop.wait(0.5 if sys.stderr.isatty() else 10):
                bar.n = sum(max(0, log.read_text().count("\n") - 1) for log in logs if log.exists())
                bar.refresh()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
