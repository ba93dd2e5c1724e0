"""The model that learns: augmentation, one or more networks up to their logits, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kit import losses, parallel
from kit.augment import Augment
from kit.models import LOGITS
from kit.optimizers import build_optimizer
from kit.recipes import Recipe, Stage


class Trainer(keras.Model):  # type: ignore[misc]
    """Trains networks; what is saved and predicts is `network`, with neither loss nor augmentation.

    Takes `{"images": (n, height, width, channels), "targets": (n, classes), "weights": (n,)}`; the
    weights of a batch sum to 1.

    Args:
        students: Networks with a layer `logits`; two or more learn from one another as well.
        recipe: Its loss, temperature and share of the teacher.
        stage: Its augmentation and label smoothing.
        teacher: Network with class probabilities to distil from; None: none.
    """

    def __init__(
        self, students: Sequence[Any], recipe: Recipe, stage: Stage, teacher: Any | None = None
    ) -> None:
        super().__init__(dtype=students[0].dtype_policy, autocast=False)  # targets stay float32
        self.students, self.teacher = list(students), teacher
        self.bodies = [keras.Model(one.input, one.get_layer(LOGITS).output) for one in students]
        self.augment = Augment(stage.augment, mix=stage.mix)
        self.recipe, self.stage = recipe, stage
        if teacher is not None:
            teacher.trainable = False
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return targets after mixing, weights, each student's logits, and the teacher's.

        Of several devices each answers for its share of the batch.
        """
        changed = self.augment(
            {"images": inputs["images"], "targets": inputs["targets"]}, training=training
        )
        mine = parallel.share({**changed, "weights": inputs["weights"]})
        images = mine["images"]
        logits = [ops.cast(body(images, training=training), "float32") for body in self.bodies]
        told = {"targets": mine["targets"], "weights": mine["weights"], "logits": logits}
        if self.teacher is not None:
            prob = ops.cast(self.teacher(images, training=False), "float32")
            told["teacher"] = ops.stop_gradient(ops.log(ops.clip(prob, 1e-6, 1.0)))
        return told

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """Return the weighted mean of the examples' losses, a scalar."""
        recipe, logits = self.recipe, y_pred["logits"]
        targets = losses.smoothed(_like(y_pred["targets"], logits[0]), self.stage.label_smoothing)
        each = [losses.own(recipe.loss, targets, one) for one in logits]
        if self.teacher is not None:
            share, heat = recipe.teacher_weight, recipe.temperature
            each = [
                (1 - share) * own + share * losses.softened(y_pred["teacher"], one, heat)
                for own, one in zip(each, logits, strict=True)
            ]
        value = losses.mutual(each, logits) if len(logits) > 1 else each[0]
        value = ops.mean(ops.reshape(value, (ops.shape(value)[0], -1)), axis=1)
        return ops.sum(ops.multiply(value, y_pred["weights"]))

    def reseed(self, *seed: int) -> None:
        """Set every generator anew, those inside layers too, from whole numbers."""
        generators = [v for v in self.variables if "seed_generator_state" in v.path]
        for number, state in enumerate(generators):
            drawn = np.random.SeedSequence([*seed, number]).generate_state(2)
            state.assign(drawn.astype(state.dtype))


def _like(targets: Any, logits: Any) -> Any:
    """Return the targets of an image for each of its pixels, where the network answers for each."""
    for _ in range(len(logits.shape) - len(targets.shape)):
        targets = ops.expand_dims(targets, 1)
    return targets + ops.zeros_like(logits)


def network_of(students: Sequence[Any]) -> Any:
    """Return the network that predicts: the student, or the mean of the students' probabilities."""
    if len(students) == 1:
        return students[0]
    name, pixels = students[0].name, keras.Input(students[0].input_shape[1:], name="pixels")
    for number, one in enumerate(students):
        one.name = f"{name}_{number}"  # within a network names are unique
    mean = keras.layers.Average(dtype="float32", name="probabilities")
    return keras.Model(pixels, mean([one(pixels) for one in students]), name=name)


def compiled(
    students: Sequence[Any], recipe: Recipe, stage: Stage, *, steps: int, teacher: Any = None,
    accumulate: int = 1, devices: int = 1,
) -> Trainer:  # fmt: skip
    """Return a trainer with an optimizer of its own, its variables made.

    Args:
        students: The networks.
        recipe: Its optimizer, decay, clipping and moving average.
        stage: The stage that begins.
        steps: Steps of the stage: an average longer than a tenth of it would still hold the
            weights that the stage began with.
        teacher: See `Trainer`.
        accumulate: Small batches that make one step.
        devices: How many take the step together (`kit.parallel.across`).
    """
    from kit.models import set_trainable

    for one in students:
        set_trainable(one, "head" if stage.name == "head" else "all")
    trainer = Trainer(students, recipe, stage, teacher)
    trainer.compile(
        build_optimizer(
            recipe.optimizer, stage.learning_rate, weight_decay=recipe.weight_decay,
            clip=recipe.clip, ema=min(recipe.ema, max(0.0, 1 - 10 / steps)), accumulate=accumulate,
        )
    )  # fmt: skip
    trainer.optimizer.build(trainer.trainable_variables)
    if devices > 1:
        parallel.join(trainer.optimizer, students)
    return trainer


def variables(trainer: Trainer) -> dict[str, Any]:
    """Return every variable that training moves, by a name that a rebuilt trainer gives it too.

    Sums of gradients of a step under way are left out: they are zero after each step.
    """
    fixed = set() if trainer.teacher is None else {id(v) for v in trainer.teacher.variables}
    moved = [one for one in trainer.variables if id(one) not in fixed]
    own = {f"model{number:04d}": one for number, one in enumerate(moved)}
    moving = [v for v in trainer.optimizer.variables if "gradient_accumulator" not in v.path]
    return own | {f"optimizer{number:04d}": one for number, one in enumerate(moving)}


def captured(trainer: Trainer) -> dict[str, np.ndarray]:
    """Return a copy of every variable of the training."""
    return {name: np.array(ops.convert_to_numpy(one)) for name, one in variables(trainer).items()}


def restore(trainer: Trainer, arrays: dict[str, np.ndarray], *, iterations: float = 1) -> None:
    """Set every variable of the training to what `captured` gave.

    Args:
        trainer: Built of the same recipe and stage.
        arrays: What `captured` gave.
        iterations: What the count of small batches is multiplied by.
    """
    for name, one in variables(trainer).items():
        value = arrays[name]
        if "iteration" in one.path.rsplit("/", 1)[-1]:
            value = (value * iterations).astype(value.dtype)
        one.assign(value)


def average(trainer: Trainer) -> None:
    """Set the networks' weights to their moving average, where there is one."""
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    for one in trainer.trainable_variables:
        one.assign(ops.copy(one.value))  # JAX would share the array, and give it up later
