"""Pretrained weights: found, the right file, and whole in the network or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from kit.errors import ModelError
from kit.manifest import Weights
from kit.models import LOGITS, build_model, embedding_model
from kit.weights import find, verified

SIZE = 32


def pixels(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, channels), dtype=np.uint8)


def build(name: str, classes: int = 2, channels: int = 3, **options: Any) -> keras.Model:
    return build_model(name, (SIZE, SIZE, channels), classes, **options)


def call(model: keras.Model, values: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(values.astype("float32"), training=False)))


def stirred(model: keras.Model) -> keras.Model:
    """Move every weight, so that no two networks agree by chance of their start."""
    rng = np.random.default_rng(1)
    model.set_weights([np.asarray(w) * rng.uniform(0.9, 1.1, np.shape(w)) for w in model.weights])
    return model


def legacy(model: keras.Model, path: Path) -> Path:
    """Write a file of weights as Keras 2 did: layer after layer, names in attributes."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{number}:0" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.get_weights(), strict=True):
                group[name] = weight
    return path


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network of three classes, saved in each form, and what it predicts."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(4)
    model = stirred(build("resnet_small", 3))
    model.save(folder / "net.keras")
    model.save_weights(folder / "net.weights.h5")
    legacy(model, folder / "net.h5")
    np.save(folder / "net.npy", call(model, pixels()))
    np.save(folder / "features.npy", call(embedding_model(model), pixels()))
    return folder


FORMS = ["net.keras", "net.weights.h5", "net.h5"]


@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_the_same_name_predicts_as_the_file_did(files: Path, form: str) -> None:
    found = build("resnet_small", 3, weights=files / form)
    assert call(found, pixels()) == pytest.approx(np.load(files / "net.npy"), abs=1e-6)


@pytest.mark.parametrize("form", ["net.keras", "net.h5"])
def test_for_other_classes_the_head_is_new_and_the_rest_is_the_file_s(
    files: Path, form: str
) -> None:
    found = build("resnet_small", 5, weights=files / form)
    features = call(embedding_model(found), pixels())
    assert features == pytest.approx(np.load(files / "features.npy"), abs=1e-5)
    assert call(found, pixels()).shape == (3, 5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["resnet_deep", "resnet_wide", "conv_small", "convnext_small"])
def test_weights_of_another_network_are_refused(files: Path, form: str, name: str) -> None:
    with pytest.raises(ModelError, match="weights do not fit the network") as caught:
        build(name, 3, weights=files / form)
    assert form in str(caught.value)
    assert "resnet_small" in str(caught.value)  # what trains without


def test_the_first_layer_that_differs_is_named_with_both_shapes(files: Path) -> None:
    with pytest.raises(ModelError, match=r"layer 1 of .* \(3, 3, 3, 48\).*\(3, 3, 3, 32\)"):
        build("resnet_wide", 3, weights=files / "net.keras")


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_fewer_layers_are_refused(files: Path, form: str, tmp_path: Path) -> None:
    deep = build("resnet_deep", 3)
    path = tmp_path / form
    if form == "net.keras":
        deep.save(path)
    elif form == "net.h5":
        legacy(deep, path)
    else:
        deep.save_weights(path)
    with pytest.raises(ModelError, match="weights do not fit the network"):
        build("resnet_small", 3, weights=path)


def test_a_file_with_a_layer_too_many_is_refused(tmp_path: Path) -> None:
    small = build("conv_small", 2)
    more = keras.layers.Conv2D(4, 3, name="more")(small.get_layer("to_unit").output)
    larger = keras.Model(small.input, [small.output, more])
    for path in (tmp_path / "a.weights.h5", tmp_path / "a.keras"):
        larger.save_weights(path) if "weights" in path.name else larger.save(path)
        with pytest.raises(ModelError, match="weights do not fit the network"):
            build("conv_small", 2, weights=path)


def test_another_head_of_the_same_width_but_not_its_shape_is_refused(tmp_path: Path) -> None:
    small = build("conv_small", 2)
    features = small.get_layer("pool").output
    wide = keras.layers.Dense(7)(keras.layers.Dense(9)(features))
    path = tmp_path / "a.keras"
    keras.Model(small.input, wide).save(path)
    with pytest.raises(ModelError, match=r"of 8: dense.* \(64, 9\), \(9,\)"):
        build("conv_small", 2, weights=path)


def test_a_head_on_other_features_is_no_head_of_other_classes(tmp_path: Path) -> None:
    small = build("conv_small", 2)
    features = keras.layers.Concatenate()([small.get_layer("pool").output] * 2)
    path = tmp_path / "a.keras"
    keras.Model(small.input, keras.layers.Dense(7)(features)).save(path)
    with pytest.raises(ModelError, match=r"layer 7 of 7: logits \(64, 2\).*\(128, 7\)"):
        build("conv_small", 2, weights=path)


def test_a_backbone_alone_is_loaded_and_the_head_is_new(tmp_path: Path) -> None:
    options = {"include_top": False, "weights": None, "input_shape": (SIZE, SIZE, 3)}
    base = stirred(keras.applications.MobileNetV3Small(**options, include_preprocessing=False))
    scaled = pixels() / 127.5 - 1
    wanted = call(base, scaled).mean(axis=(1, 2))
    base.save(tmp_path / "base.keras")
    base.save_weights(tmp_path / "base.weights.h5")
    for path in ("base.keras", "base.weights.h5"):
        found = build("mobilenet_v3_small", weights=tmp_path / path)
        assert error(call(embedding_model(found), pixels()), wanted) < 0.01


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest error as a share of the largest difference between images.

    Untrained networks hardly tell images apart: next to the features' size every error is small.
    """
    return float(abs(found - wanted).max() / abs(wanted - wanted.mean(axis=0)).max())


def published(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[keras.Model, Path]:
    """Return what Keras builds for `weights="imagenet"`, its download replaced by our own file."""
    build_theirs = getattr(keras.applications, name)
    options = {"include_top": False, "input_shape": (SIZE, SIZE, 3)}
    made = stirred(build_theirs(weights=None, **options))
    path = legacy(made, tmp_path / f"{name}_notop.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    return build_theirs(weights="imagenet", **options), path


@pytest.mark.filterwarnings("ignore:.input_shape. is undefined:UserWarning")  # of MobileNet
@pytest.mark.parametrize(("ours", "theirs", "module"), [
    ("efficientnet_b0", "EfficientNetB0", "efficientnet"),
    pytest.param("mobilenet_v3_small", "MobileNetV3Small", "mobilenet_v3",
                 marks=pytest.mark.slow),
    pytest.param("resnet50", "ResNet50", "resnet", marks=pytest.mark.slow),
    pytest.param("densenet121", "DenseNet121", "densenet", marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "ConvNeXtTiny", "convnext", marks=pytest.mark.slow),
    pytest.param("efficientnet_v2_b0", "EfficientNetV2B0", "efficientnet_v2",
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_published_files_give_what_keras_gives_with_its_own_preprocessing(
    ours: str, theirs: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, path = published(theirs, monkeypatch, tmp_path)
    prepare = getattr(keras.applications, module).preprocess_input
    wanted = call(base, prepare(pixels().astype("float32"))).mean(axis=(1, 2))
    found = call(embedding_model(build(ours, weights=path)), pixels())
    assert error(found, wanted) < 0.01


@pytest.mark.slow
def test_a_file_of_the_efficientnet_package_is_loaded(tmp_path: Path) -> None:
    code = (  # in a process of its own: the package registers its swish for every network
        "import sys, numpy as np, efficientnet.tfkeras as package\n"
        "base = package.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))\n"
        "base.save(sys.argv[1])\n"
        "np.save(sys.argv[3], np.asarray(base(np.load(sys.argv[2]))).mean(axis=(1, 2)))\n"
    )
    scaled = (pixels() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    names = [str(tmp_path / name) for name in ("b0.h5", "in.npy", "out.npy")]
    np.save(names[1], scaled.astype(np.float32))
    subprocess.run([sys.executable, "-c", code, *names], check=True)
    found = call(embedding_model(build("efficientnet_pkg_b0", weights=Path(names[0]))), pixels())
    assert error(found, np.load(names[2])) < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_grey_is_repeated_for_weights_of_three_channels(files: Path, form: str) -> None:
    grey = pixels(1)
    found = build("resnet_small", 3, 1, weights=files / form)
    same = build("resnet_small", 3, 3, weights=files / form)
    assert found.input_shape[-1] == 1
    assert call(found, grey) == pytest.approx(call(same, grey.repeat(3, axis=-1)), abs=1e-6)


def test_weights_of_one_channel_are_taken_as_they_are(tmp_path: Path) -> None:
    model = stirred(build("conv_small", 2, 1))
    model.save(tmp_path / "grey.keras")
    found = build("conv_small", 2, 1, weights=tmp_path / "grey.keras")
    assert found.count_params() == model.count_params()
    assert call(found, pixels(1)) == pytest.approx(call(model, pixels(1)), abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_other_channels_are_refused_with_the_reason(files: Path, form: str) -> None:
    with pytest.raises(ModelError, match=r"3 channels.*grey is repeated.*4 channels"):
        build("resnet_small", 3, 4, weights=files / form)


@pytest.mark.parametrize(("name", "content"), [
    ("page.h5", b"<html>404 not found</html>"), ("none.keras", b""), ("table.weights.h5", b"a,b\n"),
])  # fmt: skip
def test_a_file_that_holds_no_weights_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{len(content)} bytes.*{name}.*download"):
        build("conv_small", weights=path)


def test_a_table_in_hdf5_is_no_file_of_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(ModelError, match="without weights"):
        build("conv_small", weights=tmp_path / "a.h5")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_file_that_was_cut_off_is_told(
    files: Path, form: str, share: float, tmp_path: Path
) -> None:
    whole = (files / form).read_bytes()
    path = tmp_path / form
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"no weights that can be read|do not fit") as caught:
        build("resnet_small", 3, weights=path)
    assert str(path) in str(caught.value)
    assert "remedy" in str(caught.value).lower()


def test_a_file_of_another_sha256_is_refused_and_the_right_one_taken(files: Path) -> None:
    path = files / "net.keras"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert verified(path, right.upper()) == path
    assert build("resnet_small", 3, weights=path, sha256=right).name == "resnet_small"
    with pytest.raises(ModelError, match=rf"sha256 {'0' * 64}.*{right}.*net\.keras.*download"):
        build("resnet_small", 3, weights=path, sha256="0" * 64)


def test_a_missing_file_says_what_trains_without(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.keras.*resnet_small"):
        build("resnet50", weights=tmp_path / "a.keras")


def named(path: str, sha256: str | None = None) -> dict[str, Weights]:
    return {"imagenet": Weights(path=path, sha256=sha256, url="https://example.org/w.h5")}


@pytest.mark.parametrize("below", [
    "nets", "datasets/owner/nets", "competitions/nets", "models/owner/keras/b0/1/nets",
])  # fmt: skip
def test_weights_are_found_below_a_root_and_where_kaggle_mounts_them(
    tmp_path: Path, below: str
) -> None:
    place = tmp_path / "input" / below / "w.h5"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    roots = [tmp_path / "data", tmp_path / "input"]
    assert find(named("nets/w.h5", sha256), "imagenet", roots) == place
    place.write_bytes(b"others")
    with pytest.raises(ModelError, match="not the file that the manifest names"):
        find(named("nets/w.h5", sha256), "imagenet", roots)


def test_missing_weights_say_what_to_download_and_how_to_attach_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find(named("nets/w.h5"), "imagenet", tmp_path)
    told = str(caught.value)
    for part in ("https://example.org/w.h5", str(tmp_path / "nets" / "w.h5"), "/kaggle/input/nets",
                 "nsml run", "nsml.save", "model=seresnet_small trains from scratch"):  # fmt: skip
        assert part in told


def test_an_unknown_name_of_weights_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean imagenet"):
        find(named("w.h5"), "imagnet", tmp_path)
    with pytest.raises(ModelError, match="in the manifest"):
        find({}, "imagenet", tmp_path)


def test_the_logits_of_a_file_for_the_same_classes_are_kept(files: Path) -> None:
    found = build("resnet_small", 3, weights=files / "net.keras")
    stored = keras.saving.load_model(files / "net.keras", compile=False)
    for a, b in zip(found.get_layer(LOGITS).weights, stored.get_layer(LOGITS).weights, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))
