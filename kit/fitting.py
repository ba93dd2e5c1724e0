"""One network's training, epoch after epoch; killed at any moment it goes on where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kit import checkpoints, feed, histories, inference, parallel
from kit.backend import out_of_memory
from kit.checks import first
from kit.errors import TrainingError
from kit.files import atomic, sha256, write_json
from kit.fits import Fit
from kit.models import build_model, load_network
from kit.monitor import better, figure
from kit.recipes import rate
from kit.trainer import average, captured, compiled, network_of, restore

log = logging.getLogger(__name__)

STATES = "state"
"""Folder, beside the networks, of what unfinished ones go on from."""


@dataclass
class Progress:
    """What the state of a training holds beside its variables."""

    key: str
    epoch: int = 0  # finished ones; those that an early stop leaves out count
    halvings: int = 0  # of the batch, for want of memory
    reductions: int = 0  # of a plateau's rate
    since: int = 0  # epochs without a better figure
    waited: int = 0  # the same, since the last reduction
    best: float | None = None
    best_epoch: int = 0
    chosen: list[int] = field(default_factory=list)  # how many epochs each ended stage kept
    rows: list[dict[str, Any]] = field(default_factory=list)  # `kit.histories.COLUMNS`


def train(fit: Fit, *, cut: bool = False) -> bool:
    """Train one network and write it; return whether it stands.

    Args:
        fit: What is trained.
        cut: Write it after the epochs that it has, when the time is up.

    Returns:
        False: the time was up; its state stands and the next call goes on from there.

    Raises:
        TrainingError: The loss is not finite; memory does not suffice for one image.
    """
    halvings = 0
    while True:
        try:
            devices = parallel.devices_for(_sizes(fit, halvings), fit.recipe.precision)
            keras.utils.clear_session()  # layers are named alike whatever was trained before
            with parallel.across(devices):
                return Session(fit, halvings, max(1, len(devices))).run(cut)
        except Exception as error:
            if "determinis" in str(error):
                raise _without_order(error) from error
            if not out_of_memory(error):
                raise
            halvings = _halved(fit, halvings, error)


def _without_order(error: Exception) -> TrainingError:
    return TrainingError(
        "the GPU has no way to take a step of this network that gives the same each time",
        received=str(error)[:200], remedy="set TF_DETERMINISTIC_OPS=0 in the environment: the "
        "training is not the same to the last digit then, when it is repeated or resumed",
    )  # fmt: skip


def _halved(fit: Fit, halvings: int, error: Exception) -> int:
    known = checkpoints.load(_states(fit), fit.path.stem, fit.key)
    halvings = max(halvings, known[1]["halvings"] if known else 0) + 1
    batch = min(fit.recipe.batch_size, len(fit.rows))
    if batch >> halvings < 1:
        raise TrainingError(
            "memory does not suffice for one image", received=str(error)[:200], path=fit.path,
            remedy="choose a smaller model or image_size, or fewer --workers",
        ) from error  # fmt: skip
    log.warning(
        "%s: too little memory for %d images at once: %d at once from here on; %d together make "
        "a step as before (batch normalisation sees the smaller ones)",
        fit.name, batch >> (halvings - 1), batch >> halvings, batch,
    )  # fmt: skip
    return halvings


def _sizes(fit: Fit, halvings: int) -> list[int]:
    """Return the sizes of the small batches that make a step."""
    known = checkpoints.load(_states(fit), fit.path.stem, fit.key)
    halvings = max(halvings, known[1]["halvings"] if known else 0)
    batch = min(fit.recipe.batch_size, len(fit.rows))
    return [len(part) for part in np.array_split(np.arange(batch), 1 << halvings)]


def _states(fit: Fit) -> Path:
    return fit.path.parent / STATES


class Session:
    """The training of one fit in this process, from its newest state on."""

    def __init__(self, fit: Fit, halvings: int, devices: int = 1) -> None:
        self.fit, self.recipe, self.devices = fit, fit.recipe, devices
        arrays, note = checkpoints.load(_states(fit), fit.path.stem, fit.key) or ({}, None)
        self.progress = Progress(**(note or {"key": fit.key}))
        was, self.progress.halvings = self.progress.halvings, max(halvings, self.progress.halvings)
        self.pixels, self.places = feed.decoded(fit.store.pixels, fit.rows)
        self.held, self.held_places = feed.decoded(fit.store.pixels, fit.held)
        self.batch = min(self.recipe.batch_size, len(fit.rows))
        self.steps = self.recipe.steps or max(1, len(fit.rows) // self.batch)
        self.share = _shares(fit)
        self.students = _students(fit)
        self.network = network_of(self.students)
        self.teacher = _teacher(fit)
        self.best_weights = [arrays.pop(name) for name in sorted(arrays) if name.startswith("best")]
        self.pace, self.watching = 0.0, 0.0  # seconds: of a step, of a look at the held-out fold
        self._begin(self.recipe.stage_at(max(0, self.progress.epoch - 1))[0])
        if note:
            restore(self.trainer, arrays, iterations=2.0 ** (self.progress.halvings - was))

    def run(self, cut: bool) -> bool:
        """Train the epochs that are left, write the network, and say whether it stands."""
        fit, progress = self.fit, self.progress
        histories.write(fit.path.with_suffix(".csv"), progress.rows)
        while progress.epoch < self.recipe.total:
            number, start = self.recipe.stage_at(progress.epoch)
            if fit.epochs and progress.epoch - start >= fit.epochs[number]:
                progress.epoch = start + self.recipe.stages[number].epochs
                continue
            if cut or self._late():
                break
            if number != self.number:
                self._settle()
                self._begin(number)
            self._epoch(start)
            self._save()
        finished = progress.epoch >= self.recipe.total
        if finished or cut:
            self._settle()
            self._write(finished)
        return finished or cut

    def _late(self) -> bool:
        """Return whether another epoch, and the predictions after it, would end too late.

        To predict takes less than half of what it takes to learn; the first step, which compiles,
        says nothing of the next.
        """
        epoch = self.pace * self.steps + self.watching
        after = self.pace * self.fit.predictions / self.batch / 2
        return time.time() + epoch + after > self.fit.until

    def _begin(self, number: int) -> None:
        """Make the trainer of a stage, with an optimizer of its own."""
        self.number, stage, self.warm = number, self.recipe.stages[number], False
        self.trainer = compiled(
            self.students, self.recipe, stage, steps=stage.epochs * self.steps,
            teacher=self.teacher, accumulate=1 << self.progress.halvings,
            devices=self.devices,
        )  # fmt: skip

    def _settle(self) -> None:
        """End a stage: its networks become their moving average, or the best there was."""
        progress = self.progress
        _, start = self.recipe.stage_at(max(0, progress.epoch - 1))
        average(self.trainer)
        if self.best_weights:
            self.network.set_weights(self.best_weights)
        trained = sum(row["epoch"] > start for row in progress.rows)
        found = self.recipe.chooses and progress.best is not None
        progress.chosen.append(progress.best_epoch - start if found else trained)
        self.best_weights, progress.best = [], None
        progress.since = progress.waited = progress.reductions = 0

    def _epoch(self, start: int) -> None:
        """Train one epoch, measure the held-out fold, and note both."""
        fit, progress, recipe, begun = self.fit, self.progress, self.recipe, time.monotonic()
        seed, stage = (recipe.seed, fit.fold + 1, fit.seed), recipe.stages[self.number]
        self.trainer.reseed(*seed, progress.epoch)
        batches = feed.order(
            fit.codes, self.batch, self.steps, seed, progress.epoch,
            balanced=recipe.balance == "sampling",
        )  # fmt: skip
        losses, before, now, taken = [], (progress.epoch - start) * self.steps, 0.0, []
        for step, (rows, parts) in enumerate(feed.ahead(self._read, batches)):
            now = rate(recipe, stage, before + step, self.steps, reductions=progress.reductions)
            self.trainer.optimizer.learning_rate, ready = now, time.monotonic()
            losses.append(self._step(parts))
            taken.append(time.monotonic() - ready)
            if not np.isfinite(losses[-1]):
                raise _not_finite(fit, rows, progress.epoch + 1, step + 1, now, losses)
        progress.epoch += 1
        taken, self.warm, ready = taken if self.warm else taken[1:], True, time.monotonic()
        value = self._watch()
        self.pace, self.watching = float(np.median(taken or [0.0])), time.monotonic() - ready
        progress.rows.append({
            "epoch": progress.epoch, "stage": stage.name, "loss": float(np.mean(losses)),
            "rate": now, "monitor": recipe.monitor, "value": value, "best": progress.best,
            "batch": self.batch >> progress.halvings, "seconds": time.monotonic() - begun,
        })  # fmt: skip
        histories.write(fit.path.with_suffix(".csv"), progress.rows)
        if recipe.stop_after and progress.since >= recipe.stop_after:
            progress.epoch = start + stage.epochs

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Return the rows of a batch, and it in one or several parts, on the device.

        Each part has images, targets and weights; the optimizer takes the mean of the gradients.
        """
        codes, parts = self.fit.codes[rows], 1 << self.progress.halvings
        whole = {
            "images": np.asarray(self.pixels[self.places[rows]]),
            "targets": np.eye(len(self.fit.classes), dtype="float32")[codes],
            "weights": self.share[codes] * np.float32(parts / self.share[codes].sum()),
        }
        cuts = {name: np.array_split(values, parts) for name, values in whole.items()}
        return rows, [
            {name: keras.ops.convert_to_tensor(values[n]) for name, values in cuts.items()}
            for n in range(parts)
        ]

    def _step(self, parts: list[dict[str, Any]]) -> float:
        """Return the loss of one step, taken in one or several small batches."""
        losses = []
        for part in parts:
            self.trainer.reset_metrics()  # Keras before 3.14 would tell a running mean
            losses.append(float(self.trainer.train_on_batch(part, return_dict=True)["loss"]))
        return float(np.mean(losses))

    def _watch(self) -> float | None:
        """Measure the held-out fold by the averaged weights, and note whether it got better."""
        fit, progress, recipe = self.fit, self.progress, self.recipe
        if recipe.monitor == "none" or not len(fit.held):
            return None
        kept = [
            np.array(keras.ops.convert_to_numpy(one)) for one in self.trainer.trainable_variables
        ]
        average(self.trainer)
        prob = inference.predict_images(self.network, self.held, self.held_places)
        if not np.isfinite(prob).all():
            raise TrainingError(
                f"{fit.name}: the probabilities are not finite after epoch {progress.epoch}",
                received=f"rate {float(self.trainer.optimizer.learning_rate):.3g} in its last step",
                remedy="lower learning_rate, or set clip=1",
            )
        value = figure(recipe.monitor, fit.held_codes, prob)
        if better(recipe.monitor, value, progress.best):
            progress.best, progress.best_epoch = value, progress.epoch
            progress.since = progress.waited = 0
            if recipe.keep == "best":
                self.best_weights = self.network.get_weights()
        elif np.isfinite(value):  # an undefined figure speaks neither for nor against
            progress.since, progress.waited = progress.since + 1, progress.waited + 1
            if progress.waited >= recipe.patience:
                progress.waited, progress.reductions = 0, progress.reductions + 1
        for one, weights in zip(self.trainer.trainable_variables, kept, strict=True):
            one.assign(weights)
        return value

    def _save(self) -> None:
        best = {f"best{n:04d}": weights for n, weights in enumerate(self.best_weights)}
        checkpoints.save(
            _states(self.fit), self.fit.path.stem, self.progress.epoch,
            {**captured(self.trainer), **best}, asdict(self.progress),
        )  # fmt: skip

    def _write(self, finished: bool) -> None:
        """Write the network and, last, the note that makes it count; then its states may go."""
        fit, progress = self.fit, self.progress
        parallel.part(self.students)
        with atomic(fit.path) as part:
            self.network.save(part)
        write_json(fit.path.with_suffix(".json"), {
            "key": fit.key if finished else "cut", "sha256": sha256(fit.path), "model": fit.model,
            "fold": fit.fold, "seed": fit.seed, "recipe": asdict(fit.recipe),
            "images": len(fit.rows), "epochs": len(progress.rows), "chosen": progress.chosen,
            "batch": self.batch >> progress.halvings, "stain": fit.store.stain,
            "devices": self.devices,
        })  # fmt: skip
        if finished:
            checkpoints.remove(_states(fit), fit.path.stem)


def _shares(fit: Fit) -> np.ndarray:
    """Return the weight of an example of each class, float32; balanced, all classes count alike."""
    n = np.bincount(fit.codes, minlength=len(fit.classes))
    if fit.recipe.balance != "weights":
        return np.ones(len(n), np.float32)
    return np.asarray(len(fit.codes) / (n * len(n)), np.float32)


def _students(fit: Fit) -> list[Any]:
    """Return the networks to train, each begun from a seed of its own."""
    found = []
    keras.config.set_dtype_policy(fit.recipe.precision)
    try:
        for student in range(fit.recipe.students):
            drawn = np.random.SeedSequence([fit.recipe.seed, fit.fold + 1, fit.seed, student])
            keras.utils.set_random_seed(int(drawn.generate_state(1)[0] % 2**31))
            shape = tuple(fit.store.pixels.shape[1:])
            with keras.name_scope(f"student_{student}"):  # PyTorch knows weights by their paths
                found.append(build_model(fit.model, shape, len(fit.classes), weights=fit.weights))
    finally:
        keras.config.set_dtype_policy("float32")
    return found


def _teacher(fit: Fit) -> Any:
    """Return the network to distil from, the mean of several; None without one."""
    for path in fit.teachers:
        inference.check_stain(path, fit.store.stain)
    teachers = [load_network(path) for path in fit.teachers]
    for path, one in zip(fit.teachers, teachers, strict=True):
        inference.check_fits(one, fit.store.pixels.shape[1:], len(fit.classes), path)
    return network_of(teachers) if teachers else None


def _not_finite(
    fit: Fit, rows: np.ndarray, epoch: int, step: int, now: float, losses: Sequence[float]
) -> TrainingError:
    cases = fit.store.items.case_id.iloc[fit.rows[rows]]
    before = f"{losses[-2]:.4g} a step before" if len(losses) > 1 else "from the first step on"
    return TrainingError(
        f"{fit.name}: the loss is not finite in epoch {epoch}, step {step}",
        received=f"loss {losses[-1]} ({before}), rate {now:.3g}, cases {first(cases, 8)}",
        remedy="lower learning_rate, set clip=1, or look at these images",
    )  # fmt: skip
