"""Optimizers: each moves a weight, RAdam by its recursion; decay, clipping, average as told."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kit.optimizers import RAdam, build_optimizer

NAMES = ("adamw", "adam", "radam", "sgd", "nadam", "rmsprop", "lion", "lamb", "adamax")


def variable(value: Any) -> keras.Variable:
    return keras.Variable(np.asarray(value, "float32"))


def steps(optimizer: Any, start: Any, gradients: Any) -> list[np.ndarray]:
    """Return the variable's values after each step."""
    one, found = variable(start), []
    optimizer.build([one])
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(np.asarray(gradient, "float32"))])
        found.append(np.array(ops.convert_to_numpy(one)))
    return found


def radam(start: np.ndarray, gradients: np.ndarray, rate: float) -> list[np.ndarray]:
    """The recursion of Liu et al. 2020, algorithm 2, in float64."""
    x, m, v, found = start.astype(float), 0.0, 0.0, []
    one, two = 0.9, 0.999
    longest = 2 / (1 - two) - 1
    for t, g in enumerate(gradients, 1):
        m, v = one * m + (1 - one) * g, two * v + (1 - two) * g**2
        corrected = m / (1 - one**t)
        length = longest - 2 * t * two**t / (1 - two**t)
        if length > 4:
            r = np.sqrt(
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            )
            x = x - rate * r * corrected / (np.sqrt(v / (1 - two**t)) + 1e-7)
        else:
            x = x - rate * corrected
        found.append(x)
    return found


def test_radam_follows_its_recursion_before_and_after_rectification() -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(0.3, 1, (20, 5))
    by_hand = radam(start, gradients, 0.01)
    for found, wanted in zip(steps(RAdam(0.01), start, gradients), by_hand, strict=True):
        assert found == pytest.approx(wanted, abs=2e-5)
    plain = start - 0.01 * np.cumsum(gradients, axis=0)[0]
    assert by_hand[0] == pytest.approx(plain)  # at first momentum alone


def test_radam_comes_back_from_its_configuration() -> None:
    config = keras.optimizers.serialize(build_optimizer("radam", 0.02, weight_decay=0.1))
    again = keras.optimizers.deserialize(config)
    assert isinstance(again, RAdam)
    assert again.weight_decay == pytest.approx(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_down_the_slope(name: str) -> None:
    optimizer = build_optimizer(name, 0.01)
    (moved,) = steps(optimizer, [1.0, -2.0], [[1.0, -1.0]])
    assert moved[0] < 1 and moved[1] > -2


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_takes_the_rate_that_is_set(name: str) -> None:
    moves = []
    for rate in (0.01, 0.02):
        optimizer = build_optimizer(name, 1.0)
        optimizer.learning_rate = rate
        (moved,) = steps(optimizer, [1.0], [[1.0]])
        moves.append(1 - moved[0])
    assert moves[1] == pytest.approx(2 * moves[0], rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_decoupled_from_the_gradient(name: str) -> None:
    """By the rate times the decay, whatever the gradient: Lamb scales its step by the weight."""
    steep = [[100.0]]
    (without,) = steps(build_optimizer(name, 0.01), [4.0], steep)
    (decayed,) = steps(build_optimizer(name, 0.01, weight_decay=0.5), [4.0], steep)
    assert without[0] - decayed[0] == pytest.approx(
        4 * 0.01 * 0.5, rel=0.01 if name != "lamb" else 0.1
    )


def test_sgd_is_with_nesterovs_momentum() -> None:
    found = steps(build_optimizer("sgd", 0.1), [0.0], [[1.0], [1.0]])
    # velocity -.1, then -.19; Nesterov looks one step ahead: .9 v - .1 g
    assert [one[0] for one in found] == pytest.approx([-0.19, -0.19 - 0.9 * 0.19 - 0.1])


def test_all_gradients_together_are_clipped() -> None:
    found = []
    for clip in (0.0, 1.0):
        optimizer = build_optimizer("sgd", 1.0, clip=clip)
        one, two = variable([0.0]), variable([0.0])
        optimizer.build([one, two])
        optimizer.apply([ops.convert_to_tensor([3.0]), ops.convert_to_tensor([4.0])])
        found.append([float(one[0]), float(two[0])])
    assert found[0] == pytest.approx([-3 * 1.9, -4 * 1.9])
    assert found[1] == pytest.approx([-0.6 * 1.9, -0.8 * 1.9], rel=1e-4)  # norm 5 becomes 1


def test_the_moving_average_is_that_of_the_weights() -> None:
    optimizer = build_optimizer("sgd", 0.1, ema=0.5)
    one = variable([1.0])
    optimizer.build([one])
    values = []
    for _ in range(4):
        optimizer.apply([ops.convert_to_tensor([1.0])])
        values.append(float(one[0]))
    average = values[0]  # it begins with the first step's weights
    for value in values[1:]:
        average = 0.5 * average + 0.5 * value
    optimizer.finalize_variable_values([one])
    assert float(one[0]) == pytest.approx(average, rel=1e-5)
    assert average > values[-1]


def test_small_batches_make_one_step_of_their_mean() -> None:
    (whole,) = steps(build_optimizer("adamw", 0.1, weight_decay=0.1), [1.0], [[2.0]])
    small = steps(
        build_optimizer("adamw", 0.1, weight_decay=0.1, accumulate=2), [1.0], [[1.0], [3.0]]
    )
    assert small[0] == pytest.approx([1.0])
    assert small[1] == pytest.approx(whole)


def test_the_average_is_as_long_with_small_batches() -> None:
    found = []
    for accumulate in (1, 2):
        optimizer = build_optimizer("sgd", 0.1, ema=0.8, accumulate=accumulate)
        one = variable([1.0])
        optimizer.build([one])
        for _ in range(30 * accumulate):
            optimizer.apply([ops.convert_to_tensor([0.1])])
        last = float(one[0])
        optimizer.finalize_variable_values([one])
        found.append(float(one[0]) - last)
    assert found[1] == pytest.approx(found[0], rel=0.15)
