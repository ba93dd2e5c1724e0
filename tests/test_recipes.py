"""Recipes: the rate at each step by hand, and the rate that the optimizer really had; stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny_store

from kit import fitting
from kit.errors import SettingsError
from kit.fits import Fit
from kit.recipes import Recipe, rate, rates, recipe_of
from kit.settings import resolve
from kit.store import Store
from kit.trainer import Trainer


def at(schedule: str, step: int, *, epochs: int = 20, per_epoch: int = 5, **more: Any) -> float:
    """Return the rate, highest 1, at a step of a single stage of 100 steps."""
    reductions = more.pop("reductions", 0)
    recipe = Recipe(epochs, learning_rate=1.0, schedule=schedule, **more)
    return rate(recipe, recipe.stages[0], step, per_epoch, reductions=reductions)


def test_cosine_rises_in_a_line_and_falls_to_a_hundredth() -> None:
    # a tenth of 100 steps to warm up: from a twentieth, by equal steps, to the highest
    assert at("cosine", 0) == pytest.approx(0.05)
    assert at("cosine", 1) == pytest.approx(0.05 + 0.095)
    assert at("cosine", 9) == pytest.approx(0.905)
    assert at("cosine", 10) == pytest.approx(1.0)
    assert at("cosine", 55) == pytest.approx((1 + 0.01) / 2)  # halfway down
    assert at("cosine", 99) == pytest.approx(0.01, abs=5e-4)
    assert at("cosine", 100) == pytest.approx(0.01)


def test_cosine_without_warm_up_begins_at_the_highest_rate() -> None:
    assert at("cosine", 0, warmup=0.0) == pytest.approx(1.0)
    assert at("cosine", 50, warmup=0.0) == pytest.approx(0.505)


def test_staircase_falls_after_every_epoch() -> None:
    found = [at("staircase", step) for step in range(11)]
    assert found == pytest.approx([1.0] * 5 + [0.975] * 5 + [0.975**2])
    assert at("staircase", 99) == pytest.approx(0.975**19)
    assert at("staircase", 5, decay=0.5) == pytest.approx(0.5)


def test_a_stair_may_be_counted_in_steps_and_outlast_the_training() -> None:
    found = [at("staircase", step, decay=0.96, decay_steps=40) for step in (0, 39, 40, 79, 99)]
    assert found == pytest.approx([1, 1, 0.96, 0.96, 0.96**2])
    assert {at("staircase", step, decay=0.96, decay_steps=100_000) for step in range(100)} == {1.0}


def test_one_cycle_peaks_at_three_tenths() -> None:
    found = [at("one_cycle", step) for step in range(100)]
    assert found[0] == pytest.approx(0.05)
    assert found[15] == pytest.approx((0.05 + 1) / 2)  # halfway up half a cosine
    assert int(np.argmax(found)) == 30
    assert found[30] == pytest.approx(1.0)
    assert found[65] == pytest.approx(0.505)
    assert found[99] == pytest.approx(0.01, abs=1e-3)


def test_plateau_halves_at_each_reduction_and_not_below_its_least() -> None:
    found = [at("plateau", 7, reductions=n, min_rate=0.2) for n in range(5)]
    assert found == pytest.approx([1, 0.5, 0.25, 0.2, 0.2])
    assert at("plateau", 7, reductions=9) == pytest.approx(2**-9)
    assert at("plateau", 7, min_rate=3.0) == pytest.approx(1.0)  # nor above its highest


def test_constant_is_constant() -> None:
    assert {at("constant", step) for step in range(100)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "staircase", "plateau", "one_cycle", "constant"])
@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 1), (1, 2), (2, 1), (3, 7)])
def test_every_rate_of_a_short_training_is_positive_and_not_above_the_highest(
    schedule: str, epochs: int, per_epoch: int
) -> None:
    found = rates(Recipe(epochs, learning_rate=0.5, schedule=schedule, warmup=0.9), per_epoch)
    assert len(found) == epochs * per_epoch
    assert all(0 < one <= 0.5 for one in found)


STAGED = Recipe(
    4, learning_rate=0.1, augment="patch", mix="mixup", label_smoothing=0.2, head_epochs=2,
    second_epochs=3, second_rate=0.25, second_augment="flips", second_smoothing=0.05,
)  # fmt: skip


def test_stages_are_the_head_then_all_then_the_mild_one() -> None:
    head, main, second = STAGED.stages
    assert [stage.name for stage in STAGED.stages] == ["head", "all", "second"]
    assert (head.epochs, main.epochs, second.epochs) == (2, 4, 3)
    assert (head.augment, head.mix, head.label_smoothing) == ("patch", "mixup", 0.2)
    assert (main.augment, main.mix, main.label_smoothing) == ("patch", "mixup", 0.2)
    assert (second.augment, second.mix, second.label_smoothing) == ("flips", "none", 0.05)
    assert (head.learning_rate, second.learning_rate) == (0.1, pytest.approx(0.025))
    assert STAGED.total == 9
    assert [stage.name for stage in Recipe(4).stages] == ["all"]


def test_an_epoch_knows_its_stage_and_that_stages_first_epoch() -> None:
    found = [STAGED.stage_at(epoch) for epoch in range(9)]
    assert found == [(0, 0)] * 2 + [(1, 2)] * 4 + [(2, 6)] * 3
    with pytest.raises(IndexError, match="has 9 epochs"):
        STAGED.stage_at(9)


def test_each_stage_has_a_schedule_of_its_own() -> None:
    found = rates(STAGED, 10)
    assert found[0] == pytest.approx(0.005)  # warm-up of the head
    assert found[20] == pytest.approx(0.005)  # of all
    assert max(found[60:]) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"optimizer": "adamww"}, "did you mean adamw"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"loss": "focl"}, "did you mean focal"),
        ({"mix": "mixupp"}, "did you mean mixup"),
        ({"monitor": "auroc"}, "did you mean auc"),
        ({"balance": "weight"}, "did you mean weights"),
        ({"augment": "fundsu"}, "did you mean fundus"),
        ({"second_augment": "flip"}, "did you mean flips"),
        ({"precision": "float16"}, "mixed_float16"),
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1"),
        ({"students": 0}, "students=0"),
        ({"keep": "best", "monitor": "none"}, "need a figure to watch"),
        ({"stop_after": 3, "monitor": "none"}, "--set monitor=auc"),
        ({"schedule": "plateau", "monitor": "none"}, "monitor=none"),
    ],
)
def test_what_cannot_be_is_refused_with_its_neighbours(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Recipe(**{"epochs": 2, **wrong})


def test_only_a_recipe_that_looks_at_the_held_out_fold_chooses_by_it() -> None:
    assert not Recipe(2).chooses
    assert Recipe(2, keep="best").chooses
    assert Recipe(2, stop_after=1).chooses
    assert Recipe(2, schedule="plateau").chooses


def test_a_runs_settings_give_its_recipe() -> None:
    found = recipe_of(resolve("arrays", overrides={"schedule": "one_cycle", "epochs": 7}))
    assert (found.schedule, found.epochs, found.augment) == ("one_cycle", 7, "flips")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store.make(tmp_path_factory.mktemp("store"))


def fit_of(data: Store, path: Path, recipe: Recipe) -> Fit:
    rows = np.flatnonzero(data.items.train)
    codes = (data.items.label.iloc[rows] == "b").to_numpy().astype(np.int64)
    return Fit(
        data, rows[::2], codes[::2], rows[1::2], codes[1::2], ("a", "b"), "conv_small", recipe,
        0, 0, path / "fold0_seed0.keras", "key",
    )  # fmt: skip


def test_a_number_in_words_becomes_one() -> None:
    assert Recipe(epochs="3").total == 3
    with pytest.raises(SettingsError, match="epochs"):
        Recipe(epochs="three")
    with pytest.raises(SettingsError, match="loss is unknown"):
        Recipe(3, loss=max)


class Watched:
    """Note at each step the rate that the optimizer uses and how far each weight moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[float] = []
        self.moved: list[set[str]] = []
        real = Trainer.train_on_batch

        def watched(trainer: Trainer, *args: Any, **more: Any) -> Any:
            variables = trainer.students[0].trainable_variables
            everything = trainer.students[0].weights
            before = [np.array(keras.ops.convert_to_numpy(one)) for one in everything]
            told = real(trainer, *args, **more)
            pairs = zip(everything, before, strict=True)
            self.rates.append(float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate)))
            self.moved.append({
                one.path.removeprefix("student_0/") for one, was in pairs
                if not np.array_equal(keras.ops.convert_to_numpy(one), was)
            })  # fmt: skip
            self.trainable = {one.path.removeprefix("student_0/") for one in variables}
            return told

        monkeypatch.setattr(Trainer, "train_on_batch", watched)


@pytest.mark.parametrize("schedule", ["cosine", "staircase", "one_cycle", "constant"])
def test_the_optimizer_has_the_rates_that_the_figure_draws(
    schedule: str, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(
        3, 4, learning_rate=0.01, schedule=schedule, steps=3, second_epochs=1, monitor="none",
        optimizer="sgd",
    )  # fmt: skip
    watched = Watched(monkeypatch)
    assert fitting.train(fit_of(data, tmp_path, recipe))
    assert watched.rates == pytest.approx(rates(recipe, 3), rel=1e-6)


def test_a_plateau_halves_after_its_patience(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.5, 0.4, 0.4, 0.6, 0.6, 0.6, math.nan, 0.5])
    monkeypatch.setattr(fitting, "figure", lambda *_: next(told))
    recipe = Recipe(
        8, 4, learning_rate=0.08, schedule="plateau", patience=2, min_rate=0.03, steps=1
    )
    watched = Watched(monkeypatch)
    assert fitting.train(fit_of(data, tmp_path, recipe))
    # two epochs without gain after .5, and two after .6; then at its least
    assert watched.rates == pytest.approx([0.08] * 3 + [0.04] * 3 + [0.03] * 2, rel=1e-6)


def test_a_weight_moves_as_far_as_its_rate(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is not only told: ten times the rate moves a weight ten times as far."""
    found = []
    for high in (1e-4, 1e-3):
        recipe = Recipe(
            1, 4, learning_rate=high, schedule="constant", steps=1, optimizer="sgd",
            weight_decay=0.0, ema=0.0, monitor="none",
        )  # fmt: skip
        fit = fit_of(data, tmp_path / str(high), recipe)
        first = fitting._students(fit)[0].get_weights()
        assert fitting.train(fit)
        last = keras.saving.load_model(fit.path).get_weights()
        found.append(np.abs(last[0] - first[0]).max())
    assert found[1] == pytest.approx(10 * found[0], rel=0.01)


def test_the_first_stage_moves_the_head_alone_and_then_all_moves(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(1, 4, learning_rate=0.01, head_epochs=1, steps=2, monitor="none")
    watched = Watched(monkeypatch)
    assert fitting.train(fit_of(data, tmp_path, recipe))
    for moved in watched.moved[:2]:
        assert moved == {"logits/kernel", "logits/bias"}
    for moved in watched.moved[2:]:
        assert watched.trainable <= moved and len(watched.trainable) > 2
