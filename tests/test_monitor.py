"""The figure that a training is watched by: worked by hand, and never bettered by NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kit.monitor import better, figure

CODES = np.array([0, 0, 1, 1])
PROB = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]])


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    assert figure("auc", CODES, PROB) == pytest.approx(0.75)  # one of four pairs is wrong


def test_the_loss_is_the_mean_of_the_true_classes_logarithms() -> None:
    by_hand = -np.mean(np.log([0.9, 0.4, 0.4, 0.8]))
    assert figure("loss", CODES, PROB) == pytest.approx(by_hand)


def test_the_mean_of_six_is_that_of_the_likeliest_class() -> None:
    # of either class: one of two right, so that each of the six is a half
    assert figure("mean_of_six", CODES, PROB) == pytest.approx(0.5)
    perfect = np.eye(2)[CODES]
    assert figure("mean_of_six", CODES, perfect) == pytest.approx(1.0)


def test_three_classes_are_taken_each_against_the_rest() -> None:
    codes = np.array([0, 1, 2, 2])
    prob = np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8]])
    by_hand = np.mean([1.0, 2 / 3, 1.0])
    assert figure("auc", codes, prob) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", ["auc", "mean_of_six", "loss"])
def test_nothing_to_watch_is_undefined(name: str) -> None:
    assert math.isnan(figure(name, np.zeros(0, int), np.zeros((0, 2))))


def test_one_class_alone_has_no_area() -> None:
    assert math.isnan(figure("auc", np.zeros(4, int), PROB))


def test_a_certain_mistake_costs_much_but_is_finite() -> None:
    assert 20 < figure("loss", np.array([0]), np.array([[0.0, 1.0]])) < 100


@pytest.mark.parametrize(
    ("name", "value", "best", "expected"),
    [
        ("auc", 0.8, 0.7, True),
        ("auc", 0.7, 0.8, False),
        ("auc", 0.7, 0.7, False),
        ("loss", 0.7, 0.8, True),
        ("loss", 0.8, 0.7, False),
        ("auc", 0.1, None, True),
        ("auc", math.nan, None, False),
        ("loss", math.nan, 0.5, False),
        ("loss", -math.inf, 0.5, False),
    ],
)
def test_better_is_higher_but_for_a_loss(
    name: str, value: float, best: float | None, expected: bool
) -> None:
    assert better(name, value, best) is expected
