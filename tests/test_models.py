"""The networks: their sizes, what is inside them, and what a file of them gives back."""

from __future__ import annotations

import csv
import importlib.machinery
import inspect
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from kit._backbones import _FAMILIES, SCALES, scaled
from kit._own_networks import OWN, extra_strides
from kit.attention import AttentionPool
from kit.errors import ModelError, SettingsError
from kit.models import (
    LOGITS,
    REGISTRY,
    build_model,
    check_model,
    embedding_model,
    head_layers,
    load_network,
    set_trainable,
)
from kit.settings import SMOKE, Settings

OURS = [name for name, entry in OWN.items() if entry.takes == "images"]
PIXELS = ["help_simple", "help_unet", "help_inception"]
SEED = [*PIXELS, "rsna_cnn", "khd2019_vgg"]
# One of each way of scaling and of building; the others are in the slow tests.
FAMILY = ["mobilenet_v3_small", "efficientnet_b0", "efficientnet_pkg_b0", "vgg16"]
TABLE = Path(__file__).with_name("network_parameters.csv")
with TABLE.open(encoding="utf-8") as stream:
    PARAMETERS = {row["network"]: int(row["parameters"]) for row in csv.DictReader(stream)}

WORKED = {
    # Convolutions without bias, four numbers a channel for each normalisation, one dense layer.
    "conv_small": 27 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * (16 + 32 + 64) + 64 * 2 + 2,
    # Stem, then three blocks of two convolutions; the second and third have a 1 x 1 shortcut.
    "resnet_small": 27 * 32 + 2 * 9 * 32 * 32 + (32 + 9 * 32 + 9 * 64) * 64
    + (64 + 9 * 64 + 9 * 128) * 128 + 4 * (3 * 32 + 3 * 64 + 3 * 128) + 128 * 2 + 2,
    # 3 x 3 convolutions with bias, one 1 x 1 to two classes, one transposed 31 x 31.
    "help_simple": (27 * 100 + 100) + (900 * 200 + 200) + (1800 * 300 + 300) + (2700 * 300 + 300)
    + (300 * 2 + 2) + (31 * 31 * 2 * 2 + 2),
    # One channel: 4 x 4 to 64, 2 x 2 to 32, a map of 13 x 13, dense 32, dense 2.
    "rsna_cnn": (16 * 1 * 64 + 64) + (4 * 64 * 32 + 32) + (13 * 13 * 32 * 32 + 32) + (32 * 2 + 2),
    # Thirteen convolutions without bias, normalised, and one dense layer of four classes.
    "khd2019_vgg": 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256
    + 5 * 256 * 256) + 4 * (2 * 32 + 2 * 64 + 3 * 128 + 6 * 256) + 256 * 4 + 4,
    # Dense 512 to 256; the attention's two hidden layers and its score; dense 2.
    "attention_mil": (512 * 256 + 256) + 2 * (256 * 128 + 128) + 128 + (256 * 2 + 2),
    # One score of 512 features; five highest and five lowest to 200, 100 and 2.
    "chowder": 512 + (10 * 200 + 200) + (200 * 100 + 100) + (100 * 2 + 2),
}  # fmt: skip


def pixels(n: int = 3, size: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def inputs(name: str, n: int = 3, channels: int | None = None) -> np.ndarray:
    """Small inputs that a network of the registry takes."""
    entry = REGISTRY[name]
    if entry.takes == "bags":
        return np.random.default_rng(0).normal(size=(n, 5, 8)).astype(np.float32)
    size = max(16, entry.least)
    return pixels(n, size, channels or entry.input_shape[-1] or 3)


def small(name: str, classes: int = 2, channels: int | None = None) -> keras.Model:
    return build_model(name, inputs(name, 1, channels).shape[1:], classes)


def call(model: keras.Model, values: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(values, training=False)))


def count(name: str, shape: tuple[int, ...] | None = None) -> int:
    """Count a network's parameters without giving them memory."""
    with keras.StatelessScope():
        found = build_model(name, shape).count_params()
        keras.utils.clear_session()
    return int(found)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(3)


def test_the_table_of_parameters_names_every_network_and_no_other() -> None:
    assert set(PARAMETERS) == set(REGISTRY)


@pytest.mark.parametrize("name", [*OWN, *SEED, *FAMILY, "resnet50", "densenet121"])
def test_a_network_has_the_number_of_parameters_of_the_table(name: str) -> None:
    assert count(name) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_every_network_has_the_number_of_parameters_of_the_table(name: str) -> None:
    assert count(name) == PARAMETERS[name]


@pytest.mark.parametrize("name", WORKED)
def test_the_table_agrees_with_the_sum_worked_by_hand(name: str) -> None:
    assert PARAMETERS[name] == WORKED[name]


def test_the_published_numbers_of_the_seed_challenges_are_met() -> None:
    assert (PARAMETERS["help_simple"], PARAMETERS["rsna_cnn"]) == (1_538_048, 182_466)
    assert REGISTRY["rsna_cnn"].input_shape == (32, 32, 1)


def test_every_classifier_of_keras_applications_is_in_the_registry() -> None:
    theirs = {name for name in dir(keras.applications)
              if inspect.isfunction(getattr(keras.applications, name))}  # fmt: skip
    assert {function for function, *_ in _FAMILIES.values()} == theirs


def test_names_are_checked_without_importing_keras() -> None:
    code = (
        "import sys\nfrom kit.models import check_model\ncheck_model('nasnet_large')\n"
        "check_model('resnet_small')\nprint('keras' in sys.modules, 'h5py' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_the_default_networks_of_the_settings_exist() -> None:
    assert {Settings().model, SMOKE["model"]} <= set(REGISTRY)


@pytest.mark.parametrize("name", [*OWN, *SEED])
def test_a_network_has_its_own_input_and_classes(name: str) -> None:
    network, entry = build_model(name), REGISTRY[name]
    assert network.input_shape == (None, *entry.input_shape)
    sizes = entry.input_shape[:2] if entry.dense else ()
    assert network.output_shape == (None, *sizes, entry.classes)


@pytest.mark.parametrize("name", [*OURS, *SEED])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 3)])
def test_any_channels_and_classes_give_probabilities(
    name: str, channels: int, classes: int
) -> None:
    found = call(small(name, classes, channels), inputs(name, 2, channels))
    size = inputs(name, 1).shape[1:3] if REGISTRY[name].dense else ()
    assert found.shape == (2, *size, classes)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert found.sum(axis=-1) == pytest.approx(np.ones((2, *size)), abs=1e-5)


@pytest.mark.parametrize(("name", "kernel", "filters"), [
    ("mobilenet_v3_small", 3, 16), ("efficientnet_pkg_b0", 3, 32), ("vgg16", 3, 64),
    ("resnet50", 7, 64),
])  # fmt: skip
def test_from_scratch_the_first_convolution_takes_the_channels(
    name: str, kernel: int, filters: int
) -> None:
    for channels in (1, 4):
        found = count(name, (64, 64, channels))
        assert found == PARAMETERS[name] + kernel**2 * filters * (channels - 3)


@pytest.mark.parametrize("name", OURS)
def test_the_smallest_image_of_the_settings_goes_through(name: str) -> None:
    assert np.isfinite(call(build_model(name, (8, 8, 3), 2), pixels(2, 8))).all()


@pytest.mark.parametrize("name", ["resnet_small", "convnext_small"])
def test_the_stem_keeps_the_first_stage_small_whatever_the_image(name: str) -> None:
    def largest(size: int) -> int:
        model = build_model(name, (size, size, 3), 2)
        kinds = (keras.layers.Add,)
        return max(layer.output.shape[1] for layer in model.layers if isinstance(layer, kinds))

    assert [largest(size) for size in (48, 64, 96, 128, 224, 512)] == [24, 32, 24, 32, 28, 32]


def test_a_stem_has_one_more_stride_for_each_doubling_above_64() -> None:
    found = [extra_strides(size, 2 * size) for size in (8, 64, 95, 96, 128, 191, 192, 256, 512)]
    assert found == [0, 0, 0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("name", [*OWN, *SEED, "mobilenet_v3_small"])
def test_softmax_is_applied_once_to_the_logits(name: str) -> None:
    network = small(name, 3)
    both = keras.Model(network.input, [network.get_layer(LOGITS).output, network.output])
    logits, found = (keras.ops.convert_to_numpy(y) for y in both(inputs(name)))
    power = np.exp(logits.astype(np.float64))
    assert found == pytest.approx(power / power.sum(axis=-1, keepdims=True), abs=1e-5)
    softmaxes = [layer for layer in network.layers if isinstance(layer, keras.layers.Softmax)]
    assert [layer.name for layer in softmaxes] == ["probabilities"]
    assert getattr(network.get_layer(LOGITS), "activation", None) is keras.activations.linear


@pytest.mark.parametrize("name", ["resnet_small", "help_simple", "attention_mil", "vgg16"])
def test_logits_and_probabilities_stay_float32_in_mixed_precision(name: str) -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = small(name)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert network.get_layer(LOGITS).output.dtype == network.output.dtype == "float32"
    assert any(layer.compute_dtype == "bfloat16" for layer in network.layers)
    assert call(network, inputs(name)).dtype == np.float32


def scaling(name: str) -> keras.Model:
    image = keras.Input((None, None, 3))
    return keras.Model(image, scaled(image, name))


@pytest.mark.parametrize(("scale", "module"), [
    ("caffe", "resnet"), ("caffe", "vgg16"), ("torch", "densenet"), ("unit", "inception_v3"),
    ("unit", "xception"), ("unit", "mobilenet_v2"), ("unit", "nasnet"), ("unit", "resnet_v2"),
])  # fmt: skip
def test_pixels_are_scaled_as_keras_scales_them_for_its_weights(scale: str, module: str) -> None:
    images = pixels().astype(np.float32)
    wanted = getattr(keras.applications, module).preprocess_input(images.copy())
    assert call(scaling(scale), images) == pytest.approx(np.asarray(wanted), abs=1e-4)


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "EfficientNetV2B0", "EfficientNetV2S",
                                  "MobileNetV3Small"])  # fmt: skip
def test_our_scaling_is_that_inside_the_families_which_carry_their_own(name: str) -> None:
    scale = {function: scale for function, _, _, scale in _FAMILIES.values()}[name]
    with keras.StatelessScope():
        full = getattr(keras.applications, name)(include_top=False, weights=None)
        keras.utils.clear_session()
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    last = [layer for layer in full.layers[1:3] if isinstance(layer, kinds)][-1]
    images = pixels().astype(np.float32)
    wanted = call(keras.Model(full.input, last.output), images)
    assert call(scaling(scale), images) == pytest.approx(wanted, abs=1e-4)


def test_efficientnet_scales_as_its_published_weights_were_trained() -> None:
    network = small("efficientnet_b0")
    inside = next(layer for layer in network.layers if hasattr(layer, "layers"))
    kinds = [type(layer).__name__ for layer in inside.layers[1:4]]
    assert kinds == ["Rescaling", "Normalization", "Rescaling"]
    stem = keras.Model(inside.input, inside.layers[3].output)
    images = pixels().astype(np.float32)
    wanted = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert call(stem, images) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_the_preprocessing_is_inside_and_takes_raw_pixels(name: str) -> None:
    network = small(name)
    unit = keras.Model(network.input, network.get_layer("to_unit").output)
    ends = call(unit, np.array([0, 127.5, 255]).repeat(768).reshape(3, 16, 16, 3))
    assert ends[:, 0, 0, 0] == pytest.approx([-1, 0, 1], abs=1e-6)
    as_bytes, as_floats = inputs(name), inputs(name).astype(np.float32)
    assert (network.predict_on_batch(as_bytes) == network.predict_on_batch(as_floats)).all()


ELSEWHERE = (
    "import sys, pathlib, numpy as np, keras\n"
    "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
    "    if path.stem == 'attention_mil':\n"
    "        from kit.models import load_network as load\n"
    "    else:\n"
    "        assert 'kit' not in sys.modules and 'efficientnet' not in sys.modules\n"
    "        load = lambda path: keras.saving.load_model(path, compile=False)\n"
    "    x = np.load(path.with_suffix('.npy'))\n"
    "    np.save(path.with_suffix('.after.npy'), np.asarray(load(path)(x, training=False)))\n"
)


def differences(names: list[str], folder: Path) -> dict[str, float]:
    """Save networks, predict with them in a process that knows only Keras, and compare.

    Returns each one's largest error as a share of the largest difference between inputs.
    """
    before = {}
    for name in names:
        network = small(name, 3)
        moved = [np.asarray(w) + 0.01 for w in network.get_layer(LOGITS).get_weights()]
        network.get_layer(LOGITS).set_weights(moved)  # so that no state is at its start
        network.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", inputs(name))
        before[name] = call(network, inputs(name))
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(folder)], check=True, cwd=root)
    return {
        name: float(
            abs(np.load(folder / f"{name}.after.npy") - found).max()
            / abs(found - found.mean(axis=0)).max()
        )
        for name, found in before.items()
    }


def test_a_file_of_plain_keras_gives_the_same_predictions_elsewhere(tmp_path: Path) -> None:
    names = ["resnet_small", "convnext_small", "help_simple", "rsna_cnn", "vgg16"]
    assert max(differences(names, tmp_path).values()) < 0.01


def test_a_file_of_bags_needs_the_kit_and_gives_the_same_elsewhere(tmp_path: Path) -> None:
    assert differences(["attention_mil"], tmp_path)["attention_mil"] < 1e-3


@pytest.mark.slow
def test_files_of_larger_networks_give_the_same_predictions_elsewhere(tmp_path: Path) -> None:
    names = ["conv_small", "resnet_deep", "help_unet", "help_inception", "khd2019_vgg",
             "efficientnet_b0", "efficientnet_pkg_b0", "resnet50", "densenet121"]  # fmt: skip
    assert max(differences(names, tmp_path).values()) < 0.01


@pytest.mark.parametrize("name", OURS)
def test_the_same_seed_gives_the_same_network_and_another_another(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        found.append(call(small(name), inputs(name)))
    assert (found[0] == found[1]).all()
    assert not (found[0] == found[2]).all()


LARGE = pytest.mark.slow  # these take seconds to trace


@pytest.mark.parametrize("name", [
    "conv_small", "resnet_small", *(pytest.param(name, marks=LARGE) for name in OURS[2:])
])  # fmt: skip
def test_a_network_learns_what_is_easy(name: str) -> None:
    bright = np.repeat([20, 230], 16).astype(np.float32)
    images = bright[:, None, None, None] + np.random.default_rng(0).normal(0, 9, (32, 16, 16, 1))
    network = build_model(name, (16, 16, 1), 2)
    network.compile(keras.optimizers.Adam(1e-2), "categorical_crossentropy")
    truth = np.eye(2)[(bright > 100).astype(int)]
    for _ in range(30):
        network.train_on_batch(images, truth)
    assert (network.predict_on_batch(images).argmax(axis=1) == truth.argmax(axis=1)).all()


@pytest.mark.parametrize("name", ["resnet_small", "rsna_cnn", "help_simple", "help_unet",
                                  "attention_mil", "mobilenet_v3_small"])  # fmt: skip
def test_head_training_moves_the_head_and_nothing_else(name: str) -> None:
    network = small(name)
    set_trainable(network, "head")
    head = {id(weight) for layer in head_layers(network) for weight in layer.weights}
    assert head
    before = [np.asarray(w).copy() for w in network.get_weights()]
    network.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
    shape = call(network, inputs(name)).shape
    network.train_on_batch(inputs(name), np.eye(2)[np.resize([0, 0, 1], shape[:-1])])
    moved = [not np.array_equal(old, new)
             for old, new in zip(before, network.get_weights(), strict=True)]  # fmt: skip
    inside = [id(weight) in head for weight in network.weights]
    # The bias of a score that softmax does not see, or a dead unit, may rest; the head moves.
    assert any(moved)
    assert not any(m and not i for m, i in zip(moved, inside, strict=True))


def test_all_layers_train_again_after_the_head() -> None:
    network = small("mobilenet_v3_small")
    every = len(network.trainable_weights)
    set_trainable(network, "head")
    assert [w.path.split("/")[0] for w in network.trainable_weights] == [LOGITS, LOGITS]
    set_trainable(network, "all")
    assert len(network.trainable_weights) == every
    with pytest.raises(SettingsError, match="trainable=heads"):
        set_trainable(network, "heads")


def test_a_model_that_the_kit_did_not_build_has_no_head() -> None:
    image = keras.Input((4,))
    with pytest.raises(ModelError, match=r"no head.*named pool.*model mine"):
        head_layers(keras.Model(image, keras.layers.Dense(2)(image), name="mine"))


@pytest.mark.parametrize(("name", "width"), [
    ("resnet_small", 128), ("rsna_cnn", 32), ("help_simple", 300), ("help_unet", 16),
    ("attention_mil", 256), ("mobilenet_v3_small", 576),
])  # fmt: skip
def test_the_embedding_is_the_same_network_without_its_head(name: str, width: int) -> None:
    network = small(name)
    features = call(embedding_model(network), inputs(name))
    assert features.shape[-1] == width
    if name == "resnet_small":
        kernel, bias = network.get_layer(LOGITS).get_weights()
        logits = keras.Model(network.input, network.get_layer(LOGITS).output)
        assert features @ kernel + bias == pytest.approx(call(logits, inputs(name)), abs=1e-4)


def test_the_efficientnet_package_leaves_the_other_networks_alone() -> None:
    before = dict(keras.utils.get_custom_objects())
    count("efficientnet_pkg_b0")
    assert keras.utils.get_custom_objects() == before
    assert keras.activations.get("swish") is keras.activations.silu


def test_padding_changes_nothing_in_a_bag() -> None:
    network = build_model("attention_mil", (None, 8), 2)
    bags = inputs("attention_mil")
    padded = np.concatenate([bags, np.zeros((3, 4, 8), np.float32)], axis=1)
    assert call(network, padded) == pytest.approx(call(network, bags), abs=1e-6)


def test_attention_returns_its_weights_on_request() -> None:
    bags = keras.ops.convert_to_tensor(inputs("attention_mil"))
    layer = AttentionPool(4)
    mask = np.ones((3, 5), bool)
    mask[0, 3:] = False
    mask[2] = False
    pooled, weights = layer(bags, mask=mask, return_weights=True)
    weights = keras.ops.convert_to_numpy(weights)
    assert weights.sum(axis=1) == pytest.approx([1, 1, 0], abs=1e-6)
    assert (weights[0, 3:] == 0).all()
    mean = (weights[..., None] * inputs("attention_mil")).sum(axis=1)
    assert keras.ops.convert_to_numpy(pooled) == pytest.approx(mean, abs=1e-5)
    assert keras.ops.shape(layer(bags)) == (3, 8)


def test_attention_is_the_formula_of_its_paper() -> None:
    bags, layer = inputs("attention_mil"), AttentionPool(4)
    _, found = layer(bags, return_weights=True)
    (v, a), (u, b) = layer.value.get_weights(), layer.gate.get_weights()
    (w,) = layer.score.get_weights()
    scores = (np.tanh(bags @ v + a) / (1 + np.exp(-(bags @ u + b)))) @ w
    power = np.exp(scores[..., 0])
    wanted = power / power.sum(axis=1, keepdims=True)
    assert keras.ops.convert_to_numpy(found) == pytest.approx(wanted, abs=1e-5)


def test_an_unknown_network_names_its_neighbours() -> None:
    with pytest.raises(ModelError, match=r"model=resnet_smal\. .*did you mean resnet_small"):
        build_model("resnet_smal")


@pytest.mark.parametrize(
    ("shape", "classes"), [((16, 16), 2), ((16, 16, 0), 2), ((16, 16, 3), 1), ((16, 16, 3), 0),
                           ((), 2), ((None, 16, 3), 2)],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(ModelError, match="cannot be built") as caught:
        build_model("conv_small", shape, classes)
    assert f"classes={classes}" in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 8, 3), (None, None), (0, 8)])
def test_a_bag_that_cannot_be_is_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ModelError, match=r"\(instances, features\)"):
        build_model("attention_mil", shape, 2)


@pytest.mark.parametrize(("name", "shape", "told"), [
    ("inception_v3", (74, 99, 3), "at least 75"), ("resnet50", (99, 31, 3), "at least 32"),
    ("rsna_cnn", (6, 7, 1), "at least 7"), ("help_unet", (100, 96, 3), "in steps of 16"),
])  # fmt: skip
def test_an_impossible_size_names_the_smallest(
    name: str, shape: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        build_model(name, shape)
    assert f"{shape[0]} x {shape[1]}" in str(caught.value)


@pytest.mark.parametrize("name", ["inception_v3", "xception", "rsna_cnn", "khd2019_vgg",
                                  "help_inception"])  # fmt: skip
def test_the_smallest_size_is_possible(name: str) -> None:
    least = REGISTRY[name].least
    assert count(name, (least, least, 3)) > 0


def test_every_scaling_is_used_by_a_network() -> None:
    assert {entry.scale for entry in REGISTRY.values()} == set(SCALES)


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a stand-in for the package keras_hub, of that name alone, reads."""

    def backbone(folder: str) -> keras.Model:
        image = keras.Input((None, None, 3))
        return keras.Model(image, keras.layers.Conv2D(6, 3, strides=2)(image))

    stand_in = types.ModuleType("keras_hub")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("keras_hub", None)
    converter = types.SimpleNamespace(scale=1 / 255, offset=None)
    stand_in.models = types.SimpleNamespace(  # type: ignore[attr-defined]
        Backbone=types.SimpleNamespace(from_preset=backbone)
    )
    stand_in.layers = types.SimpleNamespace(  # type: ignore[attr-defined]
        ImageConverter=types.SimpleNamespace(from_preset=lambda folder: converter)
    )
    monkeypatch.setitem(sys.modules, "keras_hub", stand_in)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_preset_of_kerashub_becomes_a_network(preset: Path, channels: int) -> None:
    network = build_model(f"hub:{preset}", (32, 32, channels), 3)
    found = call(network, pixels(2, 32, channels))
    assert found.sum(axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    unit = keras.Model(network.input, network.get_layer("scaled").output)
    assert call(unit, np.full((1, 32, 32, channels), 255)).max() == pytest.approx(1)


def test_a_preset_without_the_package_or_the_folder_says_so(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"config\.json.*kaggle/input"):
        check_model(f"hub:{preset / 'none'}")
    monkeypatch.delitem(sys.modules, "keras_hub")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"keras_hub.*pip install.*resnet_small"):
        check_model(f"hub:{preset}")


def test_a_damaged_network_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with pytest.raises(ModelError, match="no such file"):
        load_network(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"22 bytes.*a\.keras"):
        load_network(path)
