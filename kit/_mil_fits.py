"""One network of bags: what decides it, and its training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import feed
from kit._bags import FoldBags
from kit.errors import TrainingError
from kit.files import atomic, fingerprint, sha256, write_json
from kit.fits import stands
from kit.models import LOGITS, check_model
from kit.plans import stem
from kit.recipes import Recipe, rate

if TYPE_CHECKING:
    import keras

FORMAT = 1
BATCH = 4  # bags of a step
KEPT = 0.8  # share of a slide's instances that an epoch sees
DROPPED = 0.25  # share of an instance's features that a step leaves out
STANDARD = "standardise"
"""Name of the layer that holds mean and spread of the features."""


@dataclass(frozen=True)
class Fit:
    """One network to train."""

    model: str
    classes: tuple[str, ...]
    recipe: Recipe
    instances: int
    fold: int
    seed: int
    out: Path

    @property
    def path(self) -> Path:
        """Return where the network is, its note (`.json`) and predictions beside it."""
        return network_path(self.out, self.fold, self.seed)

    def key(self, bags: FoldBags, learnt: pd.DataFrame) -> str:
        """Return the fingerprint of all that decides the network."""
        content = [(case, label, bags.digests[case])
                   for case, label in zip(learnt.case_id, learnt.label, strict=True)]  # fmt: skip
        return fingerprint([
            FORMAT, self.model, self.classes, asdict(self.recipe), self.instances, self.fold,
            self.seed, content, [KEPT, DROPPED],
        ])  # fmt: skip

    def done(self, key: str) -> bool:
        """Return whether the network stands, whole, with this fingerprint."""
        return stands(self.path, key)


def network_path(out: Path, fold: int, seed: int) -> Path:
    """Return where a network of bags is; the name is none of those that predict patches."""
    return out / f"mil_{stem(fold, seed)}.keras"


def network_of(model: str, width: int, classes: int) -> keras.Model:
    """Return a network of bags that standardises its features itself."""
    import keras
    from keras import layers

    from kit.attention import Standardise

    entry = check_model(model)
    inputs = keras.Input((None, width), name="features")
    x = layers.Dropout(DROPPED, name="dropout_features")(Standardise(width, name=STANDARD)(inputs))
    x = entry.head(entry.build(x), classes)
    outputs = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=model)


def train(fit: Fit, bags: FoldBags, learnt: pd.DataFrame) -> None:
    """Train one network and write it, and last its note.

    Args:
        fit: What is trained.
        bags: The fold's.
        learnt: The slides to learn from, `case_id, label`; each has an instance.

    Raises:
        TrainingError: The loss is not finite.
    """
    import keras

    from kit.trainer import average

    keras.utils.clear_session()  # layers are named alike in whatever order folds are trained
    drawn = np.random.SeedSequence([fit.recipe.seed, fit.fold + 1, fit.seed])
    keras.utils.set_random_seed(int(drawn.generate_state(1)[0] % 2**31))
    network = network_of(fit.model, bags.width, len(fit.classes))
    network.get_layer(STANDARD).fit(*bags.spread(list(learnt.case_id)))
    trainer = keras.Model(network.input, network.get_layer(LOGITS).output)
    losses = _fitted(fit, trainer, bags, learnt)
    average(trainer)
    with atomic(fit.path) as part:
        network.save(part)
    write_json(fit.path.with_suffix(".json"), {
        "key": fit.key(bags, learnt), "sha256": sha256(fit.path), "model": fit.model,
        "fold": fit.fold, "seed": fit.seed, "classes": fit.classes, "recipe": asdict(fit.recipe),
        "instances": fit.instances, "slides": len(learnt), "losses": losses,
    })  # fmt: skip


def _fitted(fit: Fit, trainer: Any, bags: FoldBags, learnt: pd.DataFrame) -> list[float]:
    """Train the weights of a model that gives logits; return the mean loss of each epoch."""
    import keras

    from kit.optimizers import build_optimizer

    recipe, stage = fit.recipe, fit.recipe.stages[0]
    batch = min(recipe.batch_size, len(learnt))
    steps = max(1, len(learnt) // batch)
    trainer.compile(
        build_optimizer(
            recipe.optimizer, recipe.learning_rate, weight_decay=recipe.weight_decay,
            ema=min(recipe.ema, max(0.0, 1 - 10 / (steps * recipe.epochs))),
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False,
    )  # fmt: skip
    codes = pd.Categorical(learnt.label, categories=list(fit.classes)).codes.astype(np.int64)
    cases, seed, losses = list(learnt.case_id), (recipe.seed, fit.fold + 1, fit.seed), []
    most = [min(fit.instances, math.ceil(KEPT * bags.sizes[case])) for case in cases]
    for epoch in range(recipe.epochs):

        def read(rows: np.ndarray, epoch: int = epoch) -> tuple[np.ndarray, np.ndarray]:
            drawn = bags.drawn(
                [cases[row] for row in rows], max(most), [most[row] for row in rows],
                [[*seed, epoch, int(row)] for row in rows],
            )  # fmt: skip
            return drawn, np.eye(len(fit.classes), dtype=np.float32)[codes[rows]]

        found = []
        for step, (taken, targets) in enumerate(
            feed.ahead(read, feed.order(codes, batch, steps, seed, epoch))
        ):
            trainer.optimizer.learning_rate = rate(recipe, stage, epoch * steps + step, steps)
            trainer.reset_metrics()
            found.append(float(trainer.train_on_batch(taken, targets, return_dict=True)["loss"]))
        losses.append(float(np.mean(found)))
        if not np.isfinite(losses[-1]):
            raise TrainingError(
                f"fold {fit.fold}, seed {fit.seed}: the loss is not finite",
                received=f"{losses[-1]} in epoch {epoch + 1}", remedy="lower learning_rate",
            )  # fmt: skip
    return losses
