"""One network's training: killed and resumed to the bit, chosen, stopped, halved, distilled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tiny_store

from kit import backend, checkpoints, fitting, histories, models
from kit._network import Network, pooled
from kit.errors import SettingsError, TrainingError
from kit.files import read_json
from kit.fits import Fit
from kit.models import REGISTRY, load_network
from kit.recipes import Recipe
from kit.store import Store
from kit.trainer import Trainer


def _body(x: Any) -> Any:
    layers = keras.layers
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _plain(x: Any) -> Any:
    return keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store.make(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a moment, with batch normalisation and dropout, and without; no graphs."""
    shape = ((8, 8, 3), 2, "for tests")
    more = {"tiny": Network(_body, *shape, pooled(0.3)), "plain": Network(_plain, *shape, pooled())}
    monkeypatch.setattr(models, "REGISTRY", {**REGISTRY, **more})
    compile_ = Trainer.compile
    monkeypatch.setattr(
        Trainer, "compile", lambda self, optimizer: compile_(self, optimizer, run_eagerly=True)
    )


def fit_of(data: Store, folder: Path, recipe: Recipe, model: str = "plain", **more: Any) -> Fit:
    """Return a fit that learns from every other training image and is watched by the others."""
    rows = np.flatnonzero(data.items.train)
    codes = (data.items.label.iloc[rows] == "b").to_numpy().astype(np.int64)
    fit = Fit(
        data, rows[::2], codes[::2], rows[1::2], codes[1::2], ("a", "b"), model, recipe, 0, 0,
        folder / "fold0_seed0.keras", "key",
    )  # fmt: skip
    return replace(fit, **more)


def weights(fit: Fit) -> list[np.ndarray]:
    return [np.asarray(one) for one in load_network(fit.path).get_weights()]


def history(fit: Fit) -> pd.DataFrame:
    return histories.read(fit.path.with_suffix(".csv")).drop(columns="seconds")


def same(one: Fit, other: Fit) -> bool:
    pairs = zip(weights(one), weights(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


class Killed(BaseException):
    """Nothing in the package catches it, as nothing catches a signal."""


def killed_in_every_epoch(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train with a kill in each epoch's second step; return how often it was begun."""
    real, begun = fitting.Session._step, 0
    while True:
        begun += 1
        with monkeypatch.context() as patched:
            steps: list[int] = []

            def step(self: Any, inputs: Any, steps: list[int] = steps) -> float:
                steps.append(1)
                if len(steps) == self.steps + 2:  # the next epoch is under way
                    raise Killed
                return real(self, inputs)

            patched.setattr(fitting.Session, "_step", step)
            try:
                assert fitting.train(fit)
                return begun
            except Killed:
                assert not fit.done()


RECIPES = {
    "default": Recipe(3, 4, steps=3),
    "everything": Recipe(
        3, 4, steps=4, augment="flips", mix="both", optimizer="radam", schedule="plateau",
        patience=1, keep="best", head_epochs=1, second_epochs=1, label_smoothing=0.1, clip=1.0,
        balance="sampling", loss="focal",
    ),
    "mutual": Recipe(2, 4, steps=2, students=2, balance="weights", stop_after=1),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_killed_in_every_epoch_is_the_one_that_never_was(
    name: str, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[name]
    whole = fit_of(data, tmp_path / "whole", recipe, "tiny")
    cut = fit_of(data, tmp_path / "cut", recipe, "tiny")
    assert fitting.train(whole)
    assert killed_in_every_epoch(cut, monkeypatch) >= len(history(whole)) - 1 >= 1
    assert same(whole, cut)
    pd.testing.assert_frame_equal(history(whole), history(cut), check_exact=True)
    notes = [read_json(fit.path.with_suffix(".json")) for fit in (whole, cut)]
    assert notes[0]["chosen"] == notes[1]["chosen"]
    assert whole.done() and cut.done()
    assert not list((tmp_path / "cut" / "state").iterdir())


def test_two_trainings_alike_are_alike_and_another_seed_is_not(data: Store, tmp_path: Path) -> None:
    recipe = Recipe(1, 4, steps=2, augment="flips")
    fits = [
        fit_of(data, tmp_path / str(n), recipe, "tiny", seed=seed)
        for n, seed in enumerate((0, 0, 1))
    ]
    assert all(fitting.train(fit) for fit in fits)
    assert same(fits[0], fits[1])
    assert not same(fits[0], fits[2])


def test_a_damaged_state_costs_an_epoch_and_no_bit(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(3, 4, steps=2, augment="flips", keep="best")
    whole = fit_of(data, tmp_path / "whole", recipe, "tiny")
    cut = fit_of(data, tmp_path / "cut", recipe, "tiny")
    assert fitting.train(whole)
    stopped_after(2, cut, monkeypatch)
    newest = tmp_path / "cut" / "state" / "fold0_seed0-00002.npz"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert fitting.train(cut)
    assert "damaged" in caplog.text
    assert same(whole, cut)


def stopped_after(epochs: int, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train so many epochs, and find the time up."""
    with monkeypatch.context() as patched:
        patched.setattr(fitting.Session, "_late", lambda self: self.progress.epoch >= epochs)
        assert fitting.train(fit) is False
    assert not fit.done()


def test_no_time_is_no_epoch_and_no_network(data: Store, tmp_path: Path) -> None:
    fit = fit_of(data, tmp_path, Recipe(2, 4, steps=1), until=0.0)
    assert fitting.train(fit) is False
    assert len(history(fit)) == 0
    assert not fit.path.exists()


def test_an_epoch_is_not_begun_that_would_leave_no_time_to_predict(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(data, tmp_path, Recipe(9, 4, steps=1), predictions=100, until=1000.0)
    now = [0.0]
    monkeypatch.setattr(fitting.time, "time", lambda: now[0])
    real = fitting.Session._epoch

    def epoch(self: Any, start: int) -> None:
        real(self, start)
        self.pace, self.watching = 100.0, 0.0
        now[0] += 100.0

    monkeypatch.setattr(fitting.Session, "_epoch", epoch)
    # a step of 4 images takes 100 s, so 100 predictions may take 1,250 s: one epoch, no second
    assert fitting.train(fit) is False
    assert len(history(fit)) == 1


def test_the_first_step_says_nothing_of_the_next(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles, which may take a hundred times as long."""
    now, real = [0.0], fitting.Session._step
    monkeypatch.setattr(fitting.time, "monotonic", lambda: now[0])

    def step(self: Any, parts: Any) -> float:
        now[0] += 2.0 if self.warm or now[0] else 300.0
        return real(self, parts)

    monkeypatch.setattr(fitting.Session, "_step", step)
    session = fitting.Session(fit_of(data, tmp_path, Recipe(9, 4, steps=1, monitor="none")), 0)
    session._epoch(0)
    assert session.pace == 0.0
    session._epoch(0)
    assert session.pace == 2.0


def test_what_there_is_can_be_written_and_the_training_goes_on_after(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(3, 4, steps=2)
    whole, cut = (fit_of(data, tmp_path / name, recipe, "tiny") for name in ("whole", "cut"))
    assert fitting.train(whole)
    stopped_after(2, cut, monkeypatch)
    assert fitting.train(cut, cut=True)
    assert cut.path.exists() and not cut.done()
    assert len(history(cut)) == 2
    assert fitting.train(cut)
    assert cut.done() and same(whole, cut)


def told(monkeypatch: pytest.MonkeyPatch, *figures: float) -> list[list[np.ndarray]]:
    """Let the held-out fold say these figures; return the weights that each was said of."""
    waiting, seen = iter(figures), []
    real = fitting.inference.predict_images

    def predict(network: Any, *args: Any) -> np.ndarray:
        seen.append([np.array(one) for one in network.get_weights()])
        return real(network, *args)

    monkeypatch.setattr(fitting.inference, "predict_images", predict)
    monkeypatch.setattr(fitting, "figure", lambda *_: next(waiting))
    return seen


def test_the_best_epoch_is_written(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(monkeypatch, 0.5, 0.9, 0.7)
    fit = fit_of(data, tmp_path, Recipe(3, 4, steps=2, keep="best"), "tiny")
    assert fitting.train(fit)
    for found, wanted in zip(weights(fit), seen[1], strict=True):
        assert np.array_equal(found, wanted)
    assert read_json(fit.path.with_suffix(".json"))["chosen"] == [2]
    assert list(history(fit).best) == [0.5, 0.9, 0.9]


def test_the_last_epoch_is_written_unless_asked_otherwise(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(monkeypatch, 0.5, 0.9, 0.7)
    fit = fit_of(data, tmp_path, Recipe(3, 4, steps=2), "tiny")
    assert fitting.train(fit)
    for found, wanted in zip(weights(fit), seen[2], strict=True):
        assert np.array_equal(found, wanted)
    assert read_json(fit.path.with_suffix(".json"))["chosen"] == [3]


def test_an_early_stop_ends_the_stage_and_the_next_begins_from_the_best(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first stage: best at its second epoch, stopped after two more; its figure counts no more
    seen = told(monkeypatch, 0.5, 0.9, 0.7, 0.8, 0.1, 0.2)
    recipe = Recipe(6, 4, steps=2, keep="best", stop_after=2, second_epochs=2, second_rate=1e-9,
                    weight_decay=0.0)  # fmt: skip
    fit = fit_of(data, tmp_path, recipe)
    assert fitting.train(fit)
    assert list(history(fit).stage) == ["all"] * 4 + ["second"] * 2
    assert list(history(fit).epoch) == [1, 2, 3, 4, 7, 8]
    assert read_json(fit.path.with_suffix(".json"))["chosen"] == [2, 2]
    for found, best, last in zip(seen[4], seen[1], seen[3], strict=True):
        assert found == pytest.approx(best, abs=1e-6)
        assert not np.allclose(found, last, atol=1e-5)


def test_an_undefined_figure_neither_stops_nor_chooses(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, *[float("nan")] * 4)
    fit = fit_of(data, tmp_path, Recipe(4, 4, steps=1, keep="best", stop_after=2))
    assert fitting.train(fit)
    assert len(history(fit)) == 4
    assert read_json(fit.path.with_suffix(".json"))["chosen"] == [4]


def test_the_moving_average_is_what_is_watched_and_written(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the average of the weights after each step, begun with the first step's."""
    passed: list[list[np.ndarray]] = []
    real = Trainer.train_on_batch

    def watched(self: Trainer, *args: Any, **named: Any) -> Any:
        loss = real(self, *args, **named)
        passed.append([np.array(one) for one in self.students[0].get_weights()])
        return loss

    monkeypatch.setattr(Trainer, "train_on_batch", watched)
    recipe = Recipe(2, 4, steps=15, ema=0.6, learning_rate=0.05)
    fit = fit_of(data, tmp_path, recipe)
    assert fitting.train(fit)
    average = passed[0]
    for now in passed[1:]:
        average = [0.6 * a + 0.4 * b for a, b in zip(average, now, strict=True)]
    for found, wanted in zip(weights(fit), average, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert not np.allclose(weights(fit)[0], passed[-1][0], atol=1e-5)


def test_classes_count_alike_by_weight(data: Store, tmp_path: Path) -> None:
    fit = fit_of(data, tmp_path, Recipe(1, balance="weights"))
    few = replace(fit, rows=fit.rows[:9], codes=np.array([0] * 6 + [1] * 3))
    shares = fitting._shares(few)
    assert shares == pytest.approx([0.75, 1.5])
    assert shares[few.codes].sum() == pytest.approx(9)
    assert fitting._shares(replace(few, recipe=Recipe(1))) == pytest.approx([1, 1])


def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """Return the batches that are learnt from, as they come."""
    seen: list[dict[str, np.ndarray]] = []
    real = Trainer.train_on_batch

    def watched(self: Trainer, inputs: dict[str, Any], **named: Any) -> Any:
        seen.append({name: np.array(one) for name, one in inputs.items()})
        return real(self, inputs, **named)

    monkeypatch.setattr(Trainer, "train_on_batch", watched)
    return seen


@pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
def test_a_rare_class_counts_as_the_recipe_says(
    balance: str, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = batches(monkeypatch)
    fit = fit_of(data, tmp_path, Recipe(3, 8, balance=balance, monitor="none", augment="none"))
    rare = np.flatnonzero(np.cumsum(fit.codes == 1) <= 2)  # six of one class, two of the other
    fit = replace(fit, rows=fit.rows[rare], codes=fit.codes[rare])
    assert np.bincount(fit.codes).tolist() == [6, 2]
    assert fitting.train(fit)
    drawn = sum(one["targets"].sum(axis=0) for one in seen)
    weight = sum((one["targets"] * one["weights"][:, None]).sum(axis=0) for one in seen)
    assert drawn.tolist() == ([12, 12] if balance == "sampling" else [18, 6])
    assert weight == pytest.approx([2.25, 0.75] if balance == "none" else [1.5, 1.5])


def test_a_loss_that_is_not_finite_stops_with_place_rate_and_cases(
    data: Store, tmp_path: Path
) -> None:
    recipe = Recipe(2, 4, steps=3, learning_rate=1e30, optimizer="sgd", schedule="constant")
    fit = fit_of(data, tmp_path, recipe)
    with pytest.raises(TrainingError, match=r"fold 0, seed 0: the loss is not finite") as caught:
        fitting.train(fit)
    said = str(caught.value)
    assert "in epoch 1, step 2" in said or "in epoch 1, step 3" in said
    assert "rate 1e+30" in said and "a step before" in said and "clip=1" in said
    known = set(data.items.case_id.iloc[fit.rows])
    cases = said.split("cases ")[1].split(". ")[0].split(", ")
    assert len(cases) == 4 and set(cases) <= known


def test_the_cases_that_are_named_are_those_of_the_batch(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(data, tmp_path, Recipe(2, 4, monitor="none", augment="none"))
    bad = fit.rows[7]
    real = fitting.Session._read

    def read(self: Any, rows: np.ndarray) -> Any:
        rows, (part,) = real(self, rows)
        weight = np.array(part["weights"]) * np.where(self.fit.rows[rows] == bad, np.inf, 1)
        return rows, [{**part, "weights": weight.astype("float32")}]

    monkeypatch.setattr(fitting.Session, "_read", read)
    with np.errstate(invalid="ignore"), pytest.raises(TrainingError) as caught:
        fitting.train(fit)
    assert data.items.case_id[bad] in str(caught.value)


def test_weights_that_are_not_finite_are_seen_after_the_epoch(data: Store, tmp_path: Path) -> None:
    """The loss of the last step was still of the weights before it."""
    recipe = Recipe(2, 4, steps=1, learning_rate=1e38, optimizer="sgd", schedule="constant",
                    weight_decay=10.0)  # fmt: skip
    with pytest.raises(TrainingError, match="not finite after epoch 1"):
        fitting.train(fit_of(data, tmp_path, recipe))


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


def memory_for(images: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no more images than that be learnt from at once; return how many were."""
    taken: list[int] = []
    real = Trainer.train_on_batch

    def limited(self: Trainer, inputs: dict[str, Any], **named: Any) -> Any:
        if len(inputs["images"]) > images:
            raise ResourceExhaustedError("failed to allocate memory")
        taken.append(len(inputs["images"]))
        return real(self, inputs, **named)

    monkeypatch.setattr(Trainer, "train_on_batch", limited)
    return taken


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_too_little_memory_halves_the_batch_and_keeps_the_step(
    optimizer: str, data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    recipe = Recipe(3, 10, steps=3, optimizer=optimizer, learning_rate=0.01, ema=0.0, clip=1.0,
                    balance="weights", augment="none")  # fmt: skip
    full, small = (fit_of(data, tmp_path / name, recipe) for name in ("full", "small"))
    assert fitting.train(full)
    taken = memory_for(3, monkeypatch)
    assert fitting.train(small)
    assert set(taken) == {2, 3} and sum(taken) == 3 * 3 * 10
    said = caplog.messages
    assert len(said) == 2
    assert "10 images at once: 5 at once" in said[0] and "5 images at once: 2 at once" in said[1]
    assert "10 together make a step as before" in said[1]
    for found, wanted in zip(weights(small), weights(full), strict=True):
        assert found == pytest.approx(wanted, abs=2e-4)
    assert set(history(small).batch) == {2}
    assert list(history(small).loss) == pytest.approx(list(history(full).loss), rel=1e-3)


def test_memory_that_runs_out_later_goes_on_from_the_state(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(4, 8, steps=2, learning_rate=0.01, ema=0.0, augment="none")
    full, small = (fit_of(data, tmp_path / name, recipe) for name in ("full", "small"))
    assert fitting.train(full)
    stopped_after(2, small, monkeypatch)
    memory_for(4, monkeypatch)
    assert fitting.train(small)
    assert list(history(small).batch) == [8, 8, 4, 4]
    for found, wanted in zip(weights(small), weights(full), strict=True):
        assert found == pytest.approx(wanted, abs=2e-4)


def test_the_halved_batch_is_remembered(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(3, 8, steps=2, augment="flips")
    whole, cut = (fit_of(data, tmp_path / name, recipe) for name in ("whole", "cut"))
    memory_for(4, monkeypatch)
    assert fitting.train(whole)
    stopped_after(1, cut, monkeypatch)
    caplog.clear()
    assert fitting.train(cut)
    assert caplog.messages == []
    assert same(whole, cut)


def test_no_memory_for_one_image_is_an_error(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(0, monkeypatch)
    with pytest.raises(TrainingError, match="does not suffice for one image"):
        fitting.train(fit_of(data, tmp_path, Recipe(1, 4, steps=1)))


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhaustedError("failed to allocate"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("OOM when allocating tensor with shape[64,512]"),
        MemoryError(),
    ],
)
def test_every_backends_word_for_it_is_known(error: Exception) -> None:
    assert backend.out_of_memory(error)
    assert not backend.out_of_memory(ValueError("shapes differ"))


def test_another_error_is_not_taken_for_it(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any, **__: Any) -> Any:
        raise ValueError("shapes differ")

    monkeypatch.setattr(Trainer, "train_on_batch", wrong)
    with pytest.raises(ValueError, match="shapes differ"):
        fitting.train(fit_of(data, tmp_path, Recipe(1, 4, steps=1)))


def test_a_step_without_an_order_says_what_to_do(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("A deterministic GPU implementation of Op is not currently available.")

    monkeypatch.setattr(Trainer, "train_on_batch", refused)
    with pytest.raises(TrainingError, match=r"of Op is not.*TF_DETERMINISTIC_OPS=0"):
        fitting.train(fit_of(data, tmp_path, Recipe(1, 4, steps=1)))


def test_two_students_are_one_network_with_the_mean_of_their_softmax(
    data: Store, tmp_path: Path
) -> None:
    fit = fit_of(data, tmp_path, Recipe(2, 4, steps=3, students=2), "tiny")
    assert fitting.train(fit)
    network = load_network(fit.path)
    members = [one for one in network.layers if isinstance(one, keras.Model)]
    images = data.pixels[:5].astype("float32")
    each = [np.asarray(one.predict_on_batch(images)) for one in members]
    assert len(each) == 2 and np.abs(each[0] - each[1]).max() > 1e-3
    found = np.asarray(network.predict_on_batch(images))
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert found.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_no_two_weights_of_students_have_one_path(data: Store, tmp_path: Path) -> None:
    """PyTorch's gradients are set to zero by path: two weights of one path would add theirs up."""
    session = fitting.Session(fit_of(data, tmp_path, Recipe(1, 4, steps=1, students=2)), 0)
    paths = [one.path for one in session.trainer.trainable_variables]
    assert len(set(paths)) == len(paths) > 2


@pytest.mark.parametrize("teachers", [1, 2])
def test_a_network_learns_from_its_teachers_alone_where_they_have_the_whole_share(
    teachers: int, data: Store, tmp_path: Path
) -> None:
    """The labels are the wrong way round: what it knows in the end is the teachers'."""
    paths = []
    for number in range(teachers):
        fit = fit_of(data, tmp_path / str(number), Recipe(6, 4, learning_rate=0.05), seed=number)
        assert fitting.train(fit)
        paths.append(fit.path)
    recipe = Recipe(12, 4, learning_rate=0.05, teacher_weight=1.0)
    student = fit_of(data, tmp_path / "student", recipe, teachers=tuple(paths))
    student = replace(student, codes=1 - student.codes)
    before = [path.read_bytes() for path in paths]
    assert fitting.train(student)
    images = data.pixels[student.held]
    told = np.mean([load_network(path).predict_on_batch(images) for path in paths], axis=0)
    found = np.asarray(load_network(student.path).predict_on_batch(images))
    assert np.corrcoef(found[:, 1], told[:, 1])[0, 1] > 0.9
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("given", ["", "--xla_dump_to=x", "--xla_gpu_deterministic_ops=false"])
def test_gpus_are_asked_for_one_order_of_sums(given: str) -> None:
    """Before the backend loads; what the environment says already stands."""
    program = (
        "import os; from kit.backend import _repeatable; _repeatable();"
        "print(os.environ['TF_DETERMINISTIC_OPS'], os.environ['XLA_FLAGS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "XLA_FLAGS": given, "TF_DETERMINISTIC_OPS": "0" if given else "1"},
    )  # fmt: skip
    order = "" if "determ" in given else " --xla_gpu_deterministic_ops=true"
    assert done.stdout.split() == ["0" if given else "1", *f"{given}{order}".split()]


def test_pytorch_names_its_gpus_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert backend.gpus() == ["cuda:0", "cuda:1"]


def test_a_gpu_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "gpus", lambda: [])
    with pytest.raises(SettingsError, match=r"no GPU is there.*device=gpu.*kit doctor") as caught:
        backend.load_backend(1, "gpu")
    assert "\n" not in str(caught.value)
    backend.load_backend(1, "auto")


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_and_gives_float32_probabilities(
    precision: str, data: Store, tmp_path: Path
) -> None:
    recipe = Recipe(4, 4, learning_rate=0.03, precision=precision, augment="flips", mix="both")
    fit = fit_of(data, tmp_path, recipe, "tiny")
    assert fitting.train(fit)
    network = load_network(fit.path)
    prob = network(data.pixels[:4].astype("float32"))
    assert keras.backend.standardize_dtype(prob.dtype) == "float32"
    assert {one.compute_dtype for one in network.layers if "conv" in one.name} == {precision[6:]}
    assert keras.config.dtype_policy().name == "float32"
    losses = history(fit).loss
    assert np.isfinite(losses).all() and losses.iloc[-1] < losses.iloc[0]


def test_mixed_precision_is_resumed_to_the_bit(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(2, 4, steps=2, precision="mixed_float16")
    whole, cut = (fit_of(data, tmp_path / name, recipe, "tiny") for name in ("whole", "cut"))
    assert fitting.train(whole)
    assert killed_in_every_epoch(cut, monkeypatch) == 2
    assert same(whole, cut)


def test_the_default_learns_what_can_be_seen(data: Store, tmp_path: Path) -> None:
    fit = fit_of(data, tmp_path, Recipe(12, 4, augment="flips"), "tiny")
    assert fitting.train(fit)
    assert history(fit).value.iloc[-1] > 0.9


def test_graphs_resume_to_the_bit_too(
    data: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run: every other test here goes without graphs."""
    compile_: Callable[..., None] = keras.Model.compile
    monkeypatch.setattr(Trainer, "compile", compile_)
    recipe = Recipe(2, 4, steps=2, augment="flips", keep="best", second_epochs=1)
    whole, cut = (fit_of(data, tmp_path / name, recipe, "tiny") for name in ("whole", "cut"))
    assert fitting.train(whole)
    assert killed_in_every_epoch(cut, monkeypatch) == 3
    assert same(whole, cut)


def test_states_hold_all_that_moves(data: Store, tmp_path: Path) -> None:
    fit = fit_of(data, tmp_path, Recipe(1, 4, steps=12, optimizer="radam"), "tiny")
    session = fitting.Session(fit, 0)
    before = fitting.captured(session.trainer)
    session._epoch(0)
    session._save()
    moved = fitting.captured(session.trainer)
    unmoved = [name for name in before if np.array_equal(before[name], moved[name])]
    by_name = fitting_variables(session)
    assert all("seed" not in by_name[name] for name in unmoved)
    kinds = " ".join(by_name.values())
    for part in ("moving_mean", "momentum", "velocity", "average", "iteration", "learning_rate"):
        assert part in kinds
    loaded = checkpoints.load(tmp_path / "state", "fold0_seed0", "key")
    assert loaded is not None and set(moved) <= set(loaded[0])


def fitting_variables(session: Any) -> dict[str, str]:
    from kit.trainer import variables

    return {name: one.path for name, one in variables(session.trainer).items()}
