"""Vectors of patches: files of ours and of others, networks that make them, comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from kit import embeddings, figures
from kit.errors import KitError, MissingDataError, ModelError, TableError
from kit.files import table_key


def patches(n: int, case_id: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": case_id, "x": np.arange(n) * 512, "y": 1024, "footprint": 511.5}
    )


def vectors(n: int = 7, d: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_vectors_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    embeddings.write(path, patches(7), vectors(), key="made so")
    places, found = embeddings.read(path)
    assert found.dtype == np.float16
    assert np.array_equal(found, vectors().astype(np.float16))
    pd.testing.assert_frame_equal(places, patches(7))
    assert table_key(path) == "made so"
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_slide_without_a_patch_has_a_file_of_no_rows(tmp_path: Path) -> None:
    empty = np.zeros((0, 5), np.float16)
    embeddings.write(tmp_path / "a.parquet", patches(0), empty)
    assert embeddings.read(tmp_path / "a.parquet")[1].shape == (0, 5)
    bags = embeddings.from_files(tmp_path, ["a"])
    assert bags("a").shape == (0, 5)
    assert len(bags.places("a")) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 65_520.0, -1e9])
def test_what_float16_cannot_hold_is_refused(wrong: float, tmp_path: Path) -> None:
    array = vectors()
    array[3, 2] = wrong
    with pytest.raises(TableError, match="float16 cannot") as caught:
        embeddings.write(tmp_path / "a.parquet", patches(7), array)
    assert "1 others in 1 of 7 rows" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_largest_number_of_float16_is_kept() -> None:
    assert embeddings.as_float16(np.array([[65_504.0, -65_504.0]])).tolist() == [[65504, -65504]]


@pytest.mark.parametrize(
    ("table", "array", "told"),
    [
        (patches(6), vectors(), "lengths differ"),
        (patches(7).drop(columns="x"), vectors(), "column x is missing"),
        (patches(7).assign(case_id=list("aaaaaab")), vectors(), "several slides"),
        (patches(7), vectors()[0], "no table of numbers"),
        (patches(7), vectors().astype(int), "no table of numbers"),
    ],
)
def test_a_file_is_of_one_slide_and_a_vector_for_each_patch(
    table: pd.DataFrame, array: np.ndarray, told: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=told):
        embeddings.write(tmp_path / "a.parquet", table, array)


@pytest.mark.parametrize("content", [b"", b"PAR1 cut off"])
def test_a_damaged_file_of_vectors_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(TableError, match=r"no file of vectors.*a\.parquet"):
        embeddings.read(tmp_path / "a.parquet")


class Twice:
    """A network of 2 x 2 images whose features are twice their grey levels."""

    input_shape, output_shape = (None, 2, 2, 1), (None, 4)

    def __init__(self, factor: float = 2.0) -> None:
        self.factor, self.sizes = factor, set[int]()

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.sizes.add(len(images))
        return images.reshape(len(images), 4) * np.float32(self.factor)


@pytest.mark.parametrize("n", [0, 1, 128, 131])
def test_images_are_embedded_in_batches_of_one_size(n: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 1), dtype=np.uint8)
    network = Twice()
    found = embeddings.Embedder(network)(images)
    assert found.dtype == np.float16
    assert np.array_equal(found, 2.0 * images.reshape(n, 4))
    assert network.sizes <= {128}
    rows = np.arange(n)[::-1]
    assert np.array_equal(embeddings.embed_images(network, images, rows), found[::-1])


def test_features_that_overflow_and_images_that_do_not_fit_are_refused() -> None:
    bright = np.full((1, 2, 2, 1), 255, np.uint8)
    with pytest.raises(TableError, match="float16 cannot"):
        embeddings.Embedder(Twice(1000.0))(bright)
    with pytest.raises(TableError, match="float16 cannot"):
        embeddings.Embedder(Twice(np.nan))(bright)
    with pytest.raises(ModelError, match="do not fit"):
        embeddings.Embedder(Twice())(bright.astype(np.float32))
    with pytest.raises(ModelError, match="do not fit"):
        embeddings.Embedder(Twice())(bright[:, :1])
    maps = Twice()
    maps.output_shape = (None, 2, 2, 8)  # type: ignore[assignment]
    with pytest.raises(ModelError, match="no vector"):
        embeddings.Embedder(maps)


def test_a_network_of_the_registry_gives_what_its_logits_are_read_from() -> None:
    import keras

    from kit.models import LOGITS, build_model, embedding_model

    keras.utils.set_random_seed(0)
    network = build_model("conv_small", (32, 32, 3), 2)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = embeddings.embed_images(embedding_model(network), images, np.arange(3))
    kernel, bias = network.get_layer(LOGITS).get_weights()
    logits = keras.Model(network.input, network.get_layer(LOGITS).output)
    told = np.asarray(logits(images, training=False))
    assert found.astype(np.float32) @ kernel + bias == pytest.approx(told, abs=2e-3)


def trident(path: Path, features: np.ndarray, coords: np.ndarray, **said: Any) -> None:
    """Write features as TRIDENT does: attributes stand at the coordinates."""
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords
        file["coords"].attrs.update(said)


XY = np.array([[0, 0], [512, 0], [0, 512]])


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ({"patch_size": 256, "patch_size_level0": 512}, 512.0),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024.0),
    ],
)
@pytest.mark.parametrize("leading", [(), (1,)])
def test_files_of_trident_and_clam_are_read(
    said: dict[str, Any], side: float, leading: tuple[int, ...], tmp_path: Path
) -> None:
    made = vectors(3)
    trident(tmp_path / "s.1.h5", made.reshape(*leading, 3, 5), XY.reshape(*leading, 3, 2), **said)
    bags = embeddings.from_files(tmp_path, pd.DataFrame({"case_id": ["s.1"]}))
    assert bags.width == 5
    assert np.array_equal(bags("s.1", 4), made)
    places = bags.places("s.1")
    assert places[["x", "y"]].to_numpy().tolist() == XY.tolist()
    assert places.footprint.tolist() == [side] * 3
    assert places.case_id.tolist() == ["s.1"] * 3


def test_arrays_are_read_with_and_without_places(tmp_path: Path) -> None:
    np.save(tmp_path / "a_uni.npy", vectors(3).astype(np.float16))
    np.save(tmp_path / "b_uni.npy", vectors(3))
    np.save(tmp_path / "a_uni_coords.npy", XY)
    bags = embeddings.from_files(tmp_path / "{case_id}_uni.npy", ["a", "b"], footprint=512)
    assert bags("a").dtype == np.float16
    assert bags("b").dtype == np.float32
    assert bags.places("a").footprint.tolist() == [512.0] * 3
    with pytest.raises(TableError, match=r"says no places.*b_uni\.npy"):
        bags.places("b")
    with pytest.raises(MissingDataError, match="no vectors of this case"):
        bags("c")


def test_a_footprint_that_no_file_says_is_asked_for(tmp_path: Path) -> None:
    trident(tmp_path / "a.h5", vectors(3), XY)
    with pytest.raises(TableError, match=r"how large a patch is.*footprint="):
        embeddings.from_files(tmp_path, ["a"]).places("a")


def test_missing_slides_are_counted_and_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors())
    with pytest.raises(MissingDataError, match="2 of 3: b, c"):
        embeddings.from_files(tmp_path, ["a", "b", "c"])


def test_widths_that_differ_name_the_odd_one(tmp_path: Path) -> None:
    for name, width in (("a", 5), ("b", 6), ("c", 5)):
        np.save(tmp_path / f"{name}.npy", vectors(d=width))
    with pytest.raises(TableError, match=r"Expected: 5.*Received: 6 of b\. File: .*b\.npy"):
        embeddings.from_files(tmp_path, ["a", "b", "c"])


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 5), np.float32), np.zeros((3, 0), np.float32), np.zeros(5, np.float32),
     np.zeros((2, 3, 5), np.float32), np.zeros((3, 5), np.int64)],
)  # fmt: skip
def test_arrays_that_are_no_vectors_of_a_slide_are_refused(
    array: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(TableError, match="not the vectors of a slide"):
        embeddings.from_files(tmp_path, ["a"])


def test_nan_is_refused_when_a_slide_is_read(tmp_path: Path) -> None:
    array = vectors(3)
    array[1] = np.nan
    trident(tmp_path / "a.h5", array, XY, patch_size_level0=512)
    bags = embeddings.from_files(tmp_path, ["a"])
    with pytest.raises(TableError, match=r"nan or infinite. Received: 1 of 3 rows.*a\.h5"):
        bags("a")


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.parquet"])
def test_a_file_that_is_none_names_itself(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not what its name says")
    with pytest.raises(KitError, match=name):
        embeddings.from_files(tmp_path, ["a"])


def test_hdf5_without_features_says_what_it_has(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"] = vectors()
    with pytest.raises(TableError, match=r"no dataset of features.*Received: feats"):
        embeddings.from_files(tmp_path, ["a"])


def test_places_for_another_number_of_vectors_are_refused(tmp_path: Path) -> None:
    trident(tmp_path / "a.h5", vectors(2), XY, patch_size_level0=512)
    with pytest.raises(TableError, match="places do not fit"):
        embeddings.from_files(tmp_path, ["a"]).places("a")


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_main_directions_agree_with_scikit_learn(shape: tuple[int, int]) -> None:
    array = vectors(*shape) * np.arange(1, shape[1] + 1)
    found, share = embeddings.principal(array, 3)
    peer = PCA(3, svd_solver="full").fit(array)
    assert share == pytest.approx(peer.explained_variance_ratio_, abs=1e-5)
    assert abs(found) == pytest.approx(abs(peer.transform(array)), abs=1e-3)


def test_directions_keep_their_sign_and_absent_ones_are_zero() -> None:
    line = np.outer([0.0, 1.0, 2.0], [0.0, 3.0, -4.0])  # the largest weight is made positive
    found, share = embeddings.principal(line)
    assert found[:, 0] == pytest.approx([5, 0, -5])
    assert found[:, 1] == pytest.approx([0, 0, 0], abs=1e-6)
    assert share == pytest.approx([1, 0], abs=1e-9)
    assert (embeddings.principal(line[:1])[0] == 0).all()
    with pytest.raises(TableError, match="no vectors"):
        embeddings.principal(line[:0])


def bags(n: int, moved: float, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"{seed}-{i}": rng.normal(size=(20, 12)) + moved for i in range(n)}


def test_a_shifted_test_set_is_told_apart_and_a_like_one_is_not() -> None:
    far = embeddings.shift(bags(30, 0, 1), bags(20, 0.5, 2))
    assert far.auc > 0.95
    assert far.p < 0.02
    near = embeddings.shift(bags(30, 0, 1), bags(20, 0, 2))
    assert 0.25 < near.auc < 0.75
    assert next(iter(near.columns.column)).startswith("direction")
    with pytest.raises(TableError, match="none of 9-0"):
        embeddings.shift(bags(30, 0, 1), {"9-0": np.zeros((0, 12))})


def test_copies_are_found_by_their_cosine() -> None:
    array = vectors(40, 16) + 50.0  # what all share, which would make all alike
    array[7] = array[3] + 0.01
    array[20] = 0
    found = embeddings.alike(array, [f"i{n}" for n in range(40)])
    assert found[["a", "b", "how"]].to_numpy().tolist() == [["i3", "i7", "embedding"]]
    three = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # few: nothing is taken out
    assert embeddings.alike(three, list("abcd")).to_numpy().tolist() == [["a", "b", "embedding", 0]]
    with pytest.raises(TableError, match="lengths differ"):
        embeddings.alike(three, list("abc"))


def test_the_map_names_what_it_colours_and_how_much_it_shows() -> None:
    line = np.outer(np.arange(6.0), [3.0, 4.0])
    figure = figures.embedding_map(line, ["x", "x", "y", "y", "y", None], of="scanner")
    (axis,) = figure.axes
    assert axis.get_xlabel() == "first direction (100 % of variance)"
    assert axis.get_ylabel() == "second direction (0 % of variance)"
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["(none) (1)", "x (2)", "y (3)"]
    drawn = np.concatenate([np.asarray(one.get_offsets()) for one in axis.collections])
    assert sorted(drawn[:, 0]) == pytest.approx([-12.5, -7.5, -2.5, 2.5, 7.5, 12.5])


def test_a_map_of_many_slides_keeps_the_largest_apart() -> None:
    names = [f"s{n:02d}" for n in range(40) for _ in range(40 - n)]
    figure = figures.embedding_map(vectors(len(names), 4), names, of="slide")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == 24
    assert texts[0] == "s00 (40)"
    assert texts[-1] == f"all others ({sum(range(1, 18))})"
