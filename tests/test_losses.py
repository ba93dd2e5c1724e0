"""Losses: numbers worked by hand and by SciPy, no gradient to a target, softmax taken once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, softmax

from kit import losses
from kit.errors import ModelError
from kit.models import build_model
from kit.recipes import Recipe
from kit.trainer import compiled

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 4)).astype("float32")
OTHERS = RNG.normal(0, 2, (6, 4)).astype("float32")
HARD = np.eye(4, dtype="float32")[[0, 1, 2, 3, 3, 0]]
SOFT = RNG.dirichlet(np.ones(4), 6).astype("float32")


def gradients(value: Callable[..., Any], *inputs: np.ndarray) -> list[np.ndarray]:
    """Return the gradient of the sum of `value(*inputs)` to each input, by SGD of one step."""
    variables = [keras.Variable(one) for one in inputs]

    class Holder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.held, self.built = variables, True

        def call(self, x: Any) -> Any:
            return x

        def compute_loss(self, *_: Any, **more: Any) -> Any:
            nothing = sum(ops.sum(one) for one in variables) * 0.0  # each has a gradient
            return ops.sum(value(*[one.value for one in variables])) + nothing

    holder = Holder()
    holder.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    holder.train_on_batch(np.zeros((1, 1), "float32"))
    return [one - ops.convert_to_numpy(moved) for one, moved in zip(inputs, variables, strict=True)]


def of(value: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value))


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_cross_entropy_is_that_of_keras_and_of_its_definition(targets: np.ndarray) -> None:
    found = of(losses.cross_entropy(targets, LOGITS))
    assert found == pytest.approx(-(targets * log_softmax(LOGITS, axis=1)).sum(1), rel=1e-5)
    keras_loss = keras.losses.categorical_crossentropy(targets, LOGITS, from_logits=True)
    assert found == pytest.approx(of(keras_loss), rel=1e-5)


def test_two_equal_logits_cost_the_logarithm_of_two() -> None:
    assert of(losses.cross_entropy([[1.0, 0.0]], [[3.0, 3.0]])) == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal, losses.ordinal])
@pytest.mark.parametrize(("targets", "logits", "told"), [
    ([[0.0], [1.0]], [[1.0], [2.0]], "softmax of one class"),
    ([[1.0, 0.0]], [[1.0, 2.0, 3.0]], "do not fit"),
    ([1.0, 0.0], [[1.0, 2.0], [1.0, 2.0]], "do not fit"),
])  # fmt: skip
def test_shapes_that_would_give_a_wrong_number_are_refused(
    loss: Any, targets: Any, logits: Any, told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        loss(np.array(targets), np.array(logits))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal, losses.ordinal])
def test_targets_of_any_type_are_taken(loss: Any) -> None:
    whole = np.eye(3, dtype=np.int64)[:2]
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    assert of(loss(whole, logits)) == pytest.approx(of(loss(whole.astype("float32"), logits)))


def test_smoothed_targets_give_the_share_to_all_classes_alike() -> None:
    found = losses.smoothed(HARD[:1], 0.2)
    assert found == pytest.approx(np.array([[0.85, 0.05, 0.05, 0.05]]))
    assert losses.smoothed(HARD, 0.0) is HARD
    peer = keras.losses.categorical_crossentropy(
        HARD, LOGITS, from_logits=True, label_smoothing=0.2
    )
    assert of(losses.cross_entropy(losses.smoothed(HARD, 0.2), LOGITS)) == pytest.approx(
        of(peer), rel=1e-5
    )


def test_focal_loss_is_that_of_keras_and_weighs_an_easy_example_less() -> None:
    peer = keras.losses.categorical_focal_crossentropy(
        HARD, LOGITS, from_logits=True, alpha=1.0, gamma=2.0
    )
    assert of(losses.focal(HARD, LOGITS)) == pytest.approx(of(peer), rel=1e-4)
    # p = .9: .1 ** 2 of its cross-entropy
    easy = np.log(np.array([[0.9, 0.1]], "float32"))
    assert of(losses.focal([[1.0, 0.0]], easy)) == pytest.approx(-0.01 * np.log(0.9), rel=1e-4)


def test_ordinal_loss_is_worked_by_hand() -> None:
    prob = np.array([[0.2, 0.5, 0.3]])  # above 0: .8, above 1: .3
    found = losses.ordinal(np.array([[0.0, 0.0, 1.0]], "float32"), np.log(prob).astype("float32"))
    assert of(found) == pytest.approx([-(np.log(0.8) + np.log(0.3)) / 2], rel=1e-5)
    soft = losses.ordinal(np.array([[0.0, 0.4, 0.6]], "float32"), np.log(prob).astype("float32"))
    by_hand = -(np.log(0.8) + 0.6 * np.log(0.3) + 0.4 * np.log(0.7)) / 2
    assert of(soft) == pytest.approx([by_hand], rel=1e-5)


def test_two_grades_off_cost_more_than_one() -> None:
    sure = np.array([[0.0, 0.0, 0.0, 8.0]] * 4, "float32")
    found = of(losses.ordinal(np.eye(4, dtype="float32"), sure))
    assert (np.diff(found) < 0).all()
    assert found[3] < 0.01 < 2 < found[2]


def test_a_divergence_is_that_of_scipy() -> None:
    p, q = softmax(OTHERS, axis=1), softmax(LOGITS, axis=1)
    by_hand = (p * np.log(p / q)).sum(1)
    assert of(losses.divergence(OTHERS, LOGITS)) == pytest.approx(by_hand, rel=1e-4)
    assert of(losses.divergence(LOGITS, LOGITS)) == pytest.approx(np.zeros(6), abs=1e-6)


def test_distillation_divides_by_the_temperature_and_multiplies_by_its_square() -> None:
    p, q = softmax(OTHERS / 3, axis=1), softmax(LOGITS / 3, axis=1)
    by_hand = 9 * (p * np.log(p / q)).sum(1)
    assert of(losses.softened(OTHERS, LOGITS, 3.0)) == pytest.approx(by_hand, rel=1e-4)
    logarithms = log_softmax(OTHERS, axis=1).astype("float32")
    assert of(losses.softened(logarithms, LOGITS, 3.0)) == pytest.approx(by_hand, rel=1e-4)


def test_mutual_learning_is_the_own_losses_and_the_mean_divergence_from_the_others() -> None:
    students = [LOGITS, OTHERS, LOGITS[::-1].copy()]
    own = [of(losses.cross_entropy(HARD, one)) for one in students]
    kl = [[of(losses.divergence(a, b)) for a in students] for b in students]
    by_hand = sum(own) + sum((sum(kl[n]) - kl[n][n]) / 2 for n in range(3))
    assert of(losses.mutual(own, students)) == pytest.approx(by_hand, rel=1e-5)


def test_mutual_learning_of_one_is_refused() -> None:
    with pytest.raises(ModelError, match="needs students"):
        losses.mutual([np.zeros(6)], [LOGITS])


def test_no_gradient_reaches_the_teacher() -> None:
    teacher, student = gradients(lambda t, s: losses.softened(t, s, 2.0), OTHERS, LOGITS)
    assert not teacher.any()
    # the gradient by hand: temperature * (softmax(student / t) - softmax(teacher / t))
    by_hand = 2 * (softmax(LOGITS / 2, axis=1) - softmax(OTHERS / 2, axis=1))
    assert student == pytest.approx(by_hand, abs=1e-5)


def test_each_divergence_moves_only_its_own_student() -> None:
    """Were a target not detached, each student would also be drawn to be easily imitated."""
    none = np.zeros(6, "float32")
    one, two = gradients(lambda a, b: losses.mutual([none, none], [a, b]), LOGITS, OTHERS)
    p, q = softmax(LOGITS, axis=1), softmax(OTHERS, axis=1)
    assert one == pytest.approx(p - q, abs=1e-5)
    assert two == pytest.approx(q - p, abs=1e-5)
    first, second = gradients(lambda a, b: losses.divergence(a, b), LOGITS, OTHERS)
    assert not first.any()
    assert second.any()


EACH: dict[str, Callable[[Any], Any]] = {
    "cross_entropy": lambda x: losses.cross_entropy(HARD, x),
    "focal": lambda x: losses.focal(HARD, x),
    "ordinal": lambda x: losses.ordinal(HARD, x),
    "softened": lambda x: losses.softened(OTHERS, x, 2.0),
}


@pytest.mark.parametrize("name", EACH)
def test_extreme_logits_have_a_finite_loss_and_gradient(name: str) -> None:
    extreme = np.where(LOGITS > 0, 1e4, -1e4).astype("float32")
    assert np.isfinite(of(EACH[name](extreme))).all()
    (found,) = gradients(EACH[name], extreme)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_sure_and_wrong_answer_still_has_a_gradient(name: str) -> None:
    wrong = np.roll(HARD, 1, axis=1) * 60 - 30
    (found,) = gradients(lambda x: losses.own(name, HARD, x), wrong)
    assert (np.abs(found).max(axis=1) > 0.1).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_right_answer_costs_least(name: str) -> None:
    costs = [of(losses.own(name, HARD, np.eye(4, dtype="float32")[[k] * 6] * 5)) for k in range(4)]
    assert (np.argmin(costs, axis=0) == HARD.argmax(1)).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_loss_of_every_pixel_is_the_loss_of_its_row(name: str) -> None:
    dense = [x[[0, 1, 2, 3]].reshape(1, 2, 2, 4) for x in (SOFT, LOGITS)]
    found = of(losses.own(name, *dense))
    assert found.shape == (1, 2, 2)
    assert found.ravel() == pytest.approx(of(losses.own(name, SOFT[:4], LOGITS[:4])), rel=1e-5)


def test_an_unknown_loss_names_its_neighbours_and_other_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean focal"):
        losses.own("focl", HARD, LOGITS)
    with pytest.raises(ModelError, match="targets do not fit the logits"):
        losses.own("focal", HARD[:, :3], LOGITS)
    with pytest.raises(ModelError, match="a row of class shares"):
        losses.own("focal", HARD.argmax(1), LOGITS)


@pytest.mark.parametrize("students", [1, 2])
def test_softmax_is_taken_once(students: int) -> None:
    """The trainer's loss is -log of the probability that the saved network gives."""
    recipe = Recipe(1, students=students, weight_decay=0.0, learning_rate=1e-12, ema=0.0)
    networks = [build_model("conv_small", (8, 8, 1), 4) for _ in range(students)]
    for one in networks:  # far from equal probabilities
        one.get_layer("logits").bias.assign([3.0, -2.0, 0.0, 1.0])
    trainer = compiled(networks, recipe, recipe.stages[0], steps=1)
    images = RNG.integers(0, 255, (6, 8, 8, 1)).astype("uint8")
    inputs = {"images": images, "targets": HARD, "weights": np.full(6, 1 / 6, "float32")}
    told = trainer.compute_loss(x=inputs, y_pred=trainer(inputs, training=False))
    each = [of(one(images.astype("float32"))) for one in networks]
    by_hand = sum(-np.log((prob * HARD).sum(1)).mean() for prob in each)
    if students == 2:
        p, q = each
        by_hand += ((p - q) * np.log(p / q)).sum(1).mean()
    assert float(of(told)) == pytest.approx(by_hand, rel=1e-4)
    assert each[0].sum(1) == pytest.approx(np.ones(6), abs=1e-5)
