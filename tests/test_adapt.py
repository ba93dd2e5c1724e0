"""Batch statistics of new images: nothing else changes, and nothing is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kit.adapt import BATCH, batch_statistics
from kit.errors import ImageError, ModelError
from kit.models import build_model


def images(n: int, side: int = 16, shift: int = 0) -> np.ndarray:
    rng = np.random.default_rng(n)
    return (rng.integers(0, 200, (n, side, side, 3)) + shift).astype(np.uint8)


def two_norms(dropout: float = 0.0) -> Any:
    """A network with a normalisation at its door, and another inside a network in it."""
    maps = keras.Input((16, 16, 4))
    inner = keras.Model(maps, keras.layers.BatchNormalization()(maps))
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(name="door")(keras.layers.Rescaling(1 / 255)(x))
    x = inner(keras.layers.Conv2D(4, 3, padding="same")(keras.layers.Dropout(dropout)(x)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


@pytest.mark.parametrize("make", [two_norms, lambda: build_model("conv_small", (16, 16, 3), 2)])
def test_moving_statistics_change_and_nothing_else(make: Any) -> None:
    network = make()
    before = network.get_weights()
    adapted = batch_statistics(network, images(40), np.arange(40))
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    changed = [
        weight.path for weight, old in zip(adapted.weights, before, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(weight), old)
    ]  # fmt: skip
    moving = [weight.path for weight in adapted.weights if "moving_" in weight.path]
    assert changed == moving and len(moving) >= 4


def test_the_statistics_are_the_means_over_the_batches() -> None:
    pixels, n = images(2 * BATCH + 10), 2 * BATCH + 10
    adapted = batch_statistics(two_norms(), pixels, np.arange(n))
    parts = [pixels[start::3].astype(np.float64) / 255 for start in range(3)]
    door = adapted.get_layer("door")
    for moving, each in (
        (door.moving_mean, [part.mean(axis=(0, 1, 2)) for part in parts]),
        (door.moving_variance, [part.var(axis=(0, 1, 2)) for part in parts]),
    ):
        found = keras.ops.convert_to_numpy(moving)
        np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-4)
    assert door.momentum == two_norms().get_layer("door").momentum


def test_dropout_is_off_and_the_same_images_give_the_same_network() -> None:
    network = two_norms(dropout=0.9)
    one, other = (batch_statistics(network, images(50), np.arange(50)) for _ in range(2))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = two_norms()
    plain.set_weights(network.get_weights()[: len(plain.get_weights())])
    without = batch_statistics(plain, images(50), np.arange(50))
    moving = [w for w in without.weights if "moving_" in w.path]
    same = [w for w in one.weights if "moving_" in w.path]
    for a, b in zip(moving, same, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), rtol=1e-5
        )


def test_images_of_another_level_are_seen_as_those_of_training() -> None:
    """A network adapted to brighter images says of them what it said of the others."""
    network, dark, bright = two_norms(), images(64), images(64, shift=50)
    usual = batch_statistics(network, dark, np.arange(64))
    adapted = batch_statistics(usual, bright, np.arange(64))
    wanted = usual.predict_on_batch(dark)
    assert np.abs(usual.predict_on_batch(bright) - wanted).max() > 0.01
    np.testing.assert_allclose(adapted.predict_on_batch(bright), wanted, atol=1e-4)


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    network = build_model("conv_small", (16, 16, 3), 2)
    network.save(tmp_path / "n.keras")
    np.save(tmp_path / "x.npy", images(30))
    code = (
        "import sys, numpy as np\n"
        "from kit.adapt import batch_statistics\nfrom kit.models import load_network\n"
        "x = np.load(sys.argv[1] + '/x.npy')\n"
        "found = batch_statistics(load_network(sys.argv[1] + '/n.keras'), x, np.arange(30))\n"
        "np.save(sys.argv[1] + '/p.npy', np.concatenate([w.ravel() for w in found.get_weights()]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    found = batch_statistics(network, images(30), np.arange(30))
    mine = np.concatenate([weight.ravel() for weight in found.get_weights()])
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), mine)


def test_what_cannot_be_adapted_is_told() -> None:
    bare = build_model("convnext_small", (32, 32, 3), 2)
    with pytest.raises(ModelError, match="no batch normalisation"):
        batch_statistics(bare, images(4, 32), np.arange(4))
    with pytest.raises(ImageError, match="too few images"):
        batch_statistics(two_norms(), images(4), np.arange(1))
