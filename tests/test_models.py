"""The networks: their sizes, what is inside them, and what a file of them gives back."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kit.errors import ModelError
from kit.models import LOGITS, REGISTRY, build_model
from kit.settings import SMOKE, Settings

# Convolutions without bias, four numbers a channel for each normalisation, one dense layer.
# conv_small: 27*16 + 9*16*32 + 9*32*64, normalisations 4*(16+32+64), dense 64*2+2.
# resnet_small: stem 27*32; 2 x 9*32*32; (32 + 9*32 + 9*64)*64; (64 + 9*64 + 9*128)*128;
# normalisations 4*(3*32 + 3*64 + 3*128); dense 128*2+2.
PARAMETERS = {"conv_small": 24_050, "resnet_small": 308_962}


def pixels(n: int = 3, size: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(3)


def test_every_network_has_a_number_of_parameters_in_the_table() -> None:
    assert {name: build_model(name).count_params() for name in REGISTRY} == PARAMETERS


def test_the_default_networks_of_the_settings_exist() -> None:
    assert {Settings().model, SMOKE["model"]} <= set(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 4)])
def test_rows_are_probabilities_of_the_classes(name: str, channels: int, classes: int) -> None:
    network = build_model(name, (16, 16, channels), classes)
    found = network.predict_on_batch(pixels(5, channels=channels))
    assert found.shape == (5, classes)
    assert found.dtype == np.float32
    assert (found > 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-6)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_network_has_its_own_input_and_classes(name: str) -> None:
    network, entry = build_model(name), REGISTRY[name]
    assert network.input_shape == (None, *entry.input_shape)
    assert network.output_shape == (None, entry.classes)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_smallest_image_of_the_settings_goes_through(name: str) -> None:
    found = build_model(name, (8, 8, 3), 2).predict_on_batch(pixels(2, 8))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_softmax_is_applied_once_to_the_logits(name: str) -> None:
    network = build_model(name, (16, 16, 3), 3)
    both = keras.Model(network.input, [network.get_layer(LOGITS).output, network.output])
    logits, found = both.predict_on_batch(pixels())
    power = np.exp(logits.astype(np.float64))
    assert found == pytest.approx(power / power.sum(axis=1, keepdims=True), abs=1e-6)
    assert abs(logits.sum(axis=1) - 1).min() > 1e-3  # no probabilities themselves


@pytest.mark.parametrize("name", REGISTRY)
def test_the_preprocessing_is_inside_and_takes_raw_pixels(name: str) -> None:
    network = build_model(name, (16, 16, 3), 2)
    scaled = keras.Model(network.input, network.get_layer("to_unit").output)
    ends = scaled.predict_on_batch(np.array([0, 127.5, 255]).repeat(768).reshape(3, 16, 16, 3))
    assert ends[:, 0, 0, 0] == pytest.approx([-1, 0, 1], abs=1e-6)
    as_bytes = network.predict_on_batch(pixels())
    as_floats = network.predict_on_batch(pixels().astype(np.float32))
    assert (as_bytes == as_floats).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_a_saved_network_gives_the_same_predictions_from_raw_pixels(
    name: str, tmp_path: Path
) -> None:
    network = build_model(name, (16, 16, 3), 2)
    network.compile("sgd", "categorical_crossentropy")
    network.train_on_batch(pixels(), np.eye(2)[[0, 1, 0]])  # so that no state is at its start
    network.save(tmp_path / "a.keras")
    back = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    before, after = network.predict_on_batch(pixels()), back.predict_on_batch(pixels())
    assert (before == after).all()
    assert before.std(axis=0).min() > 0


@pytest.mark.parametrize("name", REGISTRY)
def test_the_same_seed_gives_the_same_network_and_another_another(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        found.append(build_model(name, (16, 16, 3)).predict_on_batch(pixels()))
    assert (found[0] == found[1]).all()
    assert not (found[0] == found[2]).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_a_network_learns_what_is_easy(name: str) -> None:
    bright = np.repeat([20, 230], 16).astype(np.float32)
    images = bright[:, None, None, None] + np.random.default_rng(0).normal(0, 9, (32, 16, 16, 1))
    network = build_model(name, (16, 16, 1), 2)
    network.compile(keras.optimizers.Adam(1e-2), "categorical_crossentropy")
    truth = np.eye(2)[(bright > 100).astype(int)]
    for _ in range(15):
        network.train_on_batch(images, truth)
    assert (network.predict_on_batch(images).argmax(axis=1) == truth.argmax(axis=1)).all()


def test_an_unknown_network_names_its_neighbours() -> None:
    with pytest.raises(ModelError, match=r"model=resnet_smal\. .*did you mean resnet_small"):
        build_model("resnet_smal")


@pytest.mark.parametrize(
    ("shape", "classes"), [((16, 16), 2), ((16, 16, 0), 2), ((16, 16, 3), 1), ((16, 16, 3), 0),
                           ((), 2)],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(ModelError, match="cannot be built") as caught:
        build_model("conv_small", shape, classes)  # type: ignore[arg-type]
    assert f"classes={classes}" in str(caught.value)
