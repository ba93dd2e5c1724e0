"""TensorFlow, JAX and PyTorch run the same code: train, resume, predict, and agree.

Each backend runs in a process of its own, which is this file as a script: a backend is chosen once,
when Keras loads. JAX and PyTorch are skipped where they are not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

BACKENDS = {
    "tensorflow": "tensorflow",
    "jax": "jax; make jax puts it into .venv",
    "torch": "torch; make test-torch has it",
}
NETWORKS = {
    "conv_small": (16, 16, 3), "seresnet_small": (48, 48, 3), "resnet_small": (48, 48, 3),
    "resnet_wide": (32, 32, 3), "resnet_deep": (32, 32, 1), "convnext_small": (48, 48, 3),
    "attention_mil": (5, 64), "chowder": (5, 64), "help_simple": (64, 64, 3),
    "mobilenet_v2": (64, 64, 3),
}  # fmt: skip
"""Every network of our own, one of HeLP's and one family of keras.applications: input shapes."""
CASES = {
    "plain": {"augment": "patch", "schedule": "plateau", "keep": "best", "clip": 1.0},
    "students": {
        "augment": "flips", "epochs": 5, "students": 2, "optimizer": "radam", "balance": "weights",
    },
    "stages": {
        "augment": "patch_strong", "mix": "both", "second_epochs": 2, "head_epochs": 1,
        "optimizer": "sgd", "loss": "focal", "label_smoothing": 0.1,
    },
}  # fmt: skip
"""Recipes that together touch the optimizers, losses, stages and mixing."""


def images(rows: pd.DataFrame) -> np.ndarray:
    """Return drawn images, brighter where the label says so."""
    found = []
    for number, label in zip(rows.case_id, rows.label, strict=True):
        noise = np.random.default_rng(int(number)).normal(
            150 if label == "bright" else 90, 40, (16, 16, 3)
        )
        found.append(np.clip(noise, 0, 255))
    return np.array(found).astype(np.uint8)


def drawn(folder: Path) -> tuple[object, pd.DataFrame]:
    """Return a store of 48 drawn images, and two folds of them."""
    from kit import store

    numbers = np.arange(48)
    items = pd.DataFrame({
        "case_id": numbers.astype(str), "label": np.where(numbers % 2, "bright", "dark"),
        "group": numbers.astype(str), "split": "train", "key": numbers.astype(str),
        "train": True, "predict": True,
    })  # fmt: skip
    pixels, _ = store.build(folder / "pixels", items, images, "drawn")
    return pixels, items[["case_id", "group", "label"]].assign(fold=numbers // 2 % 2)


def trained(folder: Path, case: str) -> dict[str, object]:
    """Return what a cross-validation of two folds and two epochs gives, whole and cut off."""
    from kit import training
    from kit.files import digest
    from kit.recipes import Recipe

    pixels, folds = drawn(folder)
    recipe = Recipe(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **CASES[case]})
    work = {"classes": ["bright", "dark"], "tta": case == "plain"}
    apart = int(case == "plain")  # the others in this process, which is quicker
    oof, _ = training.cross_validate(
        folds, pixels, "conv_small", recipe, folder / "whole", workers=apart, **work
    )
    _cut_off(folds, pixels, recipe, folder / "cut", work)
    again, _ = training.cross_validate(
        folds, pixels, "conv_small", recipe, folder / "cut", workers=0, **work
    )
    histories = [pd.read_csv(path) for path in sorted((folder / "whole").glob("*.csv"))]
    prob = oof[["prob_bright", "prob_dark"]].to_numpy()
    return {
        "cases": sorted(oof.case_id, key=int), "sums": np.ptp(prob.sum(axis=1)),
        "right": float(np.mean((prob[:, 0] > prob[:, 1]) == (oof.y_true == "bright"))),
        "finite": bool(np.isfinite([history.loss for history in histories]).all()),
        "resumed": digest(oof) == digest(again),
        "difference": float(np.abs(prob - again[["prob_bright", "prob_dark"]].to_numpy()).max()),
    }  # fmt: skip


def _cut_off(
    folds: pd.DataFrame, pixels: object, recipe: object, out: Path, work: dict[str, object]
) -> None:
    """Train as `trained` does until the first epoch's state stands, and no further."""
    from kit import checkpoints, training

    class Cut(Exception):
        pass

    whole = checkpoints.save

    def once(*arguments: object) -> None:
        whole(*arguments)
        raise Cut

    checkpoints.save = once
    try:
        training.cross_validate(folds, pixels, "conv_small", recipe, out, workers=0, **work)
    except Cut:
        return
    finally:
        checkpoints.save = whole


def inputs(name: str) -> np.ndarray:
    """Return six images, or bags, for a network."""
    drawn = np.random.default_rng(1).integers(0, 256, (6, *NETWORKS[name]))
    drawn = drawn * np.linspace(0.2, 1, 6).reshape(6, *[1] * len(NETWORKS[name]))
    return (drawn / (1 if len(NETWORKS[name]) == 3 else 255)).astype(np.float32)


def save_networks(folder: Path) -> None:
    """Write each network with weights, moving statistics too, that no initializer gives."""
    import keras

    from kit.models import build_model

    for name, shape in NETWORKS.items():
        keras.utils.set_random_seed(7)
        network, rng = build_model(name, shape, 3), np.random.default_rng(7)
        network.set_weights([w * rng.uniform(0.8, 1.2, w.shape) for w in network.get_weights()])
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0  # one look sets the statistics, so that deep maps do not fade
        network(inputs(name), training=True)
        network.save(folder / f"{name}.keras")


def predict_networks(folder: Path) -> dict[str, list[list[float]]]:
    """Return each saved network's predictions."""
    from kit.models import load_network

    return {
        name: np.asarray(
            load_network(folder / f"{name}.keras").predict_on_batch(inputs(name))
        ).tolist()
        for name in NETWORKS
    }


def run(backend: str, *arguments: str) -> dict[str, object]:
    """Run this file as a script with a backend, and return the JSON that it prints last."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"not installed: {BACKENDS[backend]}")
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu",
             "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("backend") == backend
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_trains_resumes_to_the_bit_and_predicts(
    backend: str, case: str, tmp_path: Path
) -> None:
    found = run(backend, "train", str(tmp_path), case)
    assert found["cases"] == [str(number) for number in range(48)]
    assert found["sums"] < 1e-6
    assert found["finite"]
    assert found["right"] > 0.8
    assert found["resumed"], f"differs by {found['difference']}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """Networks saved by TensorFlow, and what they predict there."""
    folder = tmp_path_factory.mktemp("networks")
    return folder, run("tensorflow", "save", str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_weights_predict_alike_on_every_backend(
    backend: str, saved: tuple[Path, dict[str, object]]
) -> None:
    folder, expected = saved
    found = run(backend, "predict", str(folder))
    assert set(found) == set(NETWORKS)
    for name, prob in expected.items():
        assert np.ptp(prob, axis=0).max() > 3e-3, f"{name} says the same of all: it shows nothing"
        np.testing.assert_allclose(found[name], prob, atol=1e-4, rtol=0, err_msg=name)


def _like_a_gpu(tensor: Any) -> None:
    """Stand in for a GPU, whose tensors the kit cannot use as arrays."""
    whole = tensor.__array__

    def refuse(self: Any, *given: Any, **named: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("kit."):
            raise TypeError("the kit uses a tensor as an array")
        return whole(self, *given, **named)

    tensor.__array__ = refuse


def main(task: str, folder: str, *more: str) -> None:
    """Do one task and print what it found, in JSON."""
    import keras

    if keras.backend.backend() == "torch":
        _like_a_gpu(sys.modules["torch"].Tensor)
    if task == "save":
        save_networks(Path(folder))
    found = trained(Path(folder), *more) if task == "train" else predict_networks(Path(folder))
    print(json.dumps({**found, "backend": keras.backend.backend()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
