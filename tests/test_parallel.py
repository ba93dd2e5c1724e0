"""One network on two devices: the same step as on one, on virtual devices of JAX and TensorFlow.

Each backend runs in a process of its own, which is this file as a script: virtual devices are asked
for before Keras loads. JAX is skipped where it is not installed.
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

CASES: dict[str, dict[str, Any]] = {
    "normalised": {"augment": "flips", "clip": 0.05, "learning_rate": 1e-2},
    "mixed": {"augment": "patch_strong", "mix": "both", "balance": "weights", "students": 2},
    "halved": {"augment": "none", "clip": 0.05, "ema": 0.5},  # two small batches make a step
}
SIDE = 16


def pixels_and_folds(folder: Path) -> tuple[Any, pd.DataFrame]:
    """Return a store of 24 drawn images, and two folds of them."""
    from kit import store

    numbers = np.arange(24)
    items = pd.DataFrame({
        "case_id": numbers.astype(str), "label": np.where(numbers % 2, "bright", "dark"),
        "group": numbers.astype(str), "split": "train", "key": numbers.astype(str),
        "train": True, "predict": True,
    })  # fmt: skip

    def read(rows: pd.DataFrame) -> np.ndarray:
        drawn = [
            np.random.default_rng(int(n)).normal(150 if int(n) % 2 else 90, 40, (SIDE, SIDE, 3))
            for n in rows.case_id
        ]
        return np.clip(drawn, 0, 255).astype(np.uint8)

    pixels, _ = store.build(folder / "pixels", items, read, "drawn")
    return pixels, items[["case_id", "group", "label"]].assign(fold=numbers // 2 % 2)


def trained(folder: Path, case: str, devices: int) -> dict[str, Any]:
    """Return one fold's losses, weights' sums and predictions, of so many devices."""
    import keras

    from kit import backend, fitting, training
    from kit.files import read_json
    from kit.models import load_network
    from kit.recipes import Recipe

    backend.gpus = lambda: keras.distribution.list_devices()[:devices]
    pixels, folds = pixels_and_folds(folder)
    halved = fitting._sizes
    if case == "halved":
        fitting._sizes = lambda fit, halvings: halved(fit, 1)
        whole, fitting.Session = fitting.Session, lambda fit, n, d: whole(fit, 1, d)
    recipe = Recipe(**{"epochs": 2, "batch_size": 8, "monitor": "auc", **CASES[case]})
    out = folder / f"{case}{devices}"
    oof, _ = training.cross_validate(
        folds, pixels, "conv_small", recipe, out, classes=["bright", "dark"], tta=False, only=[0],
        workers=0,
    )  # fmt: skip
    if case == "halved":
        fitting._sizes, fitting.Session = halved, whole
    network = load_network(out / "fold0_seed0.keras")
    note = read_json(out / "fold0_seed0.json")
    return {
        "devices": note["devices"], "batch": note["batch"],
        "loss": pd.read_csv(out / "fold0_seed0.csv").loss.tolist(),
        "prob": oof.prob_bright.tolist(),
        "moved": [float(np.abs(one).sum()) for one in network.get_weights()],
        "synchronized": [one.synchronized for one in network._flatten_layers()
                         if isinstance(one, keras.layers.BatchNormalization)],
    }  # fmt: skip


def main(folder: Path, cases: list[str]) -> None:
    """Print what one and two devices give, and how many devices a batch allows."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        virtual = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, virtual)
    from kit import backend

    backend.load_backend(1, "cpu")
    found: dict[str, Any] = {
        case: [trained(folder, case, devices) for devices in (1, 2)] for case in cases
    }
    from kit import parallel

    backend.gpus = lambda: ["a", "b", "c", "d"]
    found["counts"] = [len(parallel.devices_for(sizes)) for sizes in ([8], [6], [7], [8, 6], [3])]
    found["float16"] = parallel.devices_for([8], "mixed_float16")
    backend.gpus = list
    found["none"] = parallel.devices_for([8])
    print(json.dumps(found))


def found(backend: str, folder: Path, *cases: str) -> Any:
    """Return what this file prints in a process of its own, with two virtual devices."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, __file__, folder, *cases],
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": flags},
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def agree(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert two["prob"] == pytest.approx(one["prob"], abs=2e-3)
    assert two["moved"] == pytest.approx(one["moved"], rel=2e-3, abs=1e-5)
    assert one["batch"] == two["batch"]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_take_the_steps_of_one(backend: str, tmp_path: Path) -> None:
    said = found(backend, tmp_path, "normalised")
    one, two = said["normalised"]
    assert (one["devices"], two["devices"]) == (1, 2)
    agree(one, two)
    assert len(two["synchronized"]) > 1 and not any(two["synchronized"])  # as it is saved
    assert said["counts"] == [4, 3, 1, 1 if backend == "tensorflow" else 2, 3]
    assert (said["float16"], said["none"]) == (["a"], [])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_mixing_students_and_small_batches_are_those_of_one_device(
    backend: str, tmp_path: Path
) -> None:
    said = found(backend, tmp_path, "mixed", "halved")
    for case, devices, batch in (
        ("mixed", 2, 8),
        ("halved", 1 if backend == "tensorflow" else 2, 4),
    ):
        one, two = said[case]
        assert (two["devices"], two["batch"]) == (devices, batch)
        agree(one, two)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
