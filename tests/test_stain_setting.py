"""The setting `stain`: the same pixels in training and prediction, and no network on others."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_store
from test_slides import write_pyramid
from test_stain import drawn
from test_streams import CLASSES, MeanRed, plan_of

from kit import fitting, images, inference, kinds, store, streams, synthetic
from kit.challenges import open_run
from kit.errors import KitError, ModelError, SettingsError
from kit.files import read_json, write_json
from kit.finished import predict
from kit.manifest import Dataset, load_manifest
from kit.models import build_model
from kit.recipes import Recipe
from kit.settings import Settings
from kit.slides import open_slide
from kit.stain import Normaliser
from kit.store import Store
from kit.streams import Member, predict_slide
from kit.training import plan

SIDE = 32


def dataset(name: str) -> Dataset:
    return load_manifest().dataset(name)


def patches(rows: pd.DataFrame) -> np.ndarray:
    """Read drawn patches; of numbers from 90 on, glass."""
    found = [drawn(number, side=SIDE) for number in rows.number]
    for place, number in enumerate(rows.number):
        if number >= 90:
            found[place] = np.full((SIDE, SIDE, 3), 250, np.uint8)
    return np.stack(found)


def items(numbers: list[int]) -> pd.DataFrame:
    table = tiny_store.items(each=len(numbers) // 2, tests=0)
    return table.assign(number=numbers)


def kept(folder: Path, numbers: list[int], method: str = "none") -> Store:
    how = None if method == "none" else Normaliser.standard(method)
    return store.build(folder, items(numbers), patches, "drawn", normaliser=how)[0]


@pytest.mark.parametrize("name", ["synthetic_fundus", "synthetic_mri", "breastmnist", "khd2019"])
def test_other_kinds_than_pathology_refuse_it(name: str) -> None:
    with pytest.raises(SettingsError, match=r"only pathology.*slides or patches.*stain=none"):
        kinds.normaliser(dataset(name), Settings(stain="macenko"))
    assert kinds.normaliser(dataset(name), Settings()) is None


def test_a_run_refuses_it_before_it_writes_anything(tmp_path: Path) -> None:
    synthetic.make("synthetic_fundus", tmp_path / "synthetic_fundus", scale=0.05)
    with pytest.raises(SettingsError, match="only pathology"):
        open_run("synthetic_fundus", data=tmp_path, out=tmp_path / "out",
                 settings={"stain": "reinhard"})  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_pathology_takes_the_standard_look() -> None:
    for name in ("synthetic_patches", "help2019"):
        found = kinds.normaliser(dataset(name), Settings(stain="reinhard"))
        assert found == Normaliser.standard("reinhard")


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_the_store_holds_normalised_pixels_and_says_how(tmp_path: Path, method: str) -> None:
    raw = kept(tmp_path / "raw", [0, 1, 2, 91])
    found = kept(tmp_path / "moved", [0, 1, 2, 91], method)
    wanted, alone = Normaliser.standard(method)(raw.pixels[:])
    np.testing.assert_array_equal(found.pixels[:], wanted)
    assert (found.pixels[:3] != raw.pixels[:3]).mean() > 0.5
    assert found.stain == Normaliser.standard(method).to_dict()
    assert Normaliser.from_dict(found.stain) == Normaliser.standard(method)
    assert found.items.left_alone.tolist() == alone.tolist() == [False, False, False, True]
    assert raw.stain is None and "left_alone" not in raw.items


def test_another_stain_is_another_store_in_the_same_folder(tmp_path: Path) -> None:
    def shards() -> set[str]:
        return {path.name for path in (tmp_path / "shards").iterdir()}

    numbers = [0, 1, 2, 3]
    first = kept(tmp_path, numbers).pixels[:]
    names = [shards()]
    for method in ("macenko", "reinhard", "none"):
        found = kept(tmp_path, numbers, method)
        names.append(shards())
        assert (found.stain or {"method": "none"})["method"] == method
    assert len(set.union(*names)) == 3 and names[0] == names[3]
    np.testing.assert_array_equal(Store(tmp_path).pixels[:], first)


def test_shards_that_stand_keep_their_count(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 2)
    before = kept(tmp_path, [0, 90, 91, 1], "macenko").items
    (tmp_path / "pixels.parquet").unlink()
    monkeypatch.setattr(store, "_read_chunk", None)  # nothing is read again
    assert kept(tmp_path, [0, 90, 91, 1], "macenko").items.equals(before)
    assert before.left_alone.tolist() == [False, True, True, False]


def test_grey_images_have_no_stain(tmp_path: Path) -> None:
    def grey(rows: pd.DataFrame) -> np.ndarray:
        return np.zeros((len(rows), 8, 8, 1), np.uint8)

    with pytest.raises(KitError, match="uint8 RGB"):
        store.build(
            tmp_path, items([0, 1]), grey, "grey", normaliser=Normaliser.standard("macenko")
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a raw and a normalised store, and a network trained on the latter."""
    folder = tmp_path_factory.mktemp("trained")
    kept(folder / "none", list(range(12)))
    data = kept(folder / "macenko", list(range(12)), "macenko")
    recipe = Recipe(1, batch_size=4, steps=1, monitor="none")
    (fit, _) = plan(
        tiny_store.folds(data), data, "conv_small", recipe, folder, 1, classes=("a", "b")
    )
    fitting.train(fit)
    return folder, fit.path


def test_the_note_holds_the_stain_and_the_key_depends_on_it(trained: tuple[Path, Path]) -> None:
    folder, path = trained
    note = read_json(path.with_suffix(".json"))
    assert note["stain"] == Normaliser.standard("macenko").to_dict()
    keys = [
        plan(tiny_store.folds(data), data, "conv_small", Recipe(1), folder, 1,
             classes=("a", "b"))[0].key
        for data in (Store(folder / "none"), Store(folder / "macenko"))
    ]  # fmt: skip
    assert keys[0] != keys[1]


def test_a_network_refuses_images_of_another_stain(trained: tuple[Path, Path]) -> None:
    folder, path = trained
    rows, how = np.arange(3), {"classes": ("a", "b"), "policy": "none"}
    with pytest.raises(ModelError, match=r"another stain.*stain=macenko.*stain=none"):
        inference.predict_rows(
            Store(folder / "none"), rows, path, path=folder / "no.parquet", **how
        )
    assert not (folder / "no.parquet").exists()
    found = inference.predict_rows(
        Store(folder / "macenko"), rows, path, path=folder / "yes.parquet", **how
    )
    assert len(found) == 3
    other = {**Normaliser.standard("macenko").to_dict(), "most": [1.0, 1.0]}
    with pytest.raises(ModelError, match="another target"):
        inference.check_stain(path, other)


def test_a_teacher_refuses_them_too(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, path = trained
    data = Store(folder / "none")
    (fit, _) = plan(tiny_store.folds(data), data, "conv_small", Recipe(1, monitor="none"),
                    tmp_path, 1, classes=("a", "b"))  # fmt: skip
    with pytest.raises(ModelError, match="another stain"):
        fitting.Session(dataclasses.replace(fit, teachers=(path,)), 0)


def test_a_network_without_the_word_takes_images_as_they_are(trained: tuple[Path, Path]) -> None:
    folder, path = trained
    old = folder / "old.keras"
    old.write_bytes(path.read_bytes())
    note = read_json(path.with_suffix(".json"))
    write_json(old.with_suffix(".json"), {k: v for k, v in note.items() if k != "stain"})
    assert inference.check_stain(old, None)["key"] == note["key"]
    assert streams.load(old).stain is None
    assert streams.load(path).stain == Normaliser.standard("macenko")


@pytest.mark.parametrize("side", [64, 24])
def test_a_slide_is_seen_as_its_patches_were_in_training(tmp_path: Path, side: int) -> None:
    picture = drawn(3, side=320, bare=4)
    write_pyramid(tmp_path / "one.tiff", [picture])
    how = Normaliser.standard("macenko")
    with open_slide(tmp_path / "one.tiff") as slide:
        places = plan_of(slide, 64)
        members = [Member(MeanRed(side), 0, seed, "red", str(seed), stain)
                   for seed, stain in enumerate((None, how))]  # fmt: skip
        table = predict_slide(slide, places, members, classes=CLASSES)
    rows = places.assign(path="one.tiff", key=places.index.astype(str), label="tumour")
    for seed, stain in enumerate((None, how)):
        data, _ = store.build(
            tmp_path / f"pixels{seed}", rows,
            functools.partial(kinds.read_slides, tmp_path, side, None), "slide", normaliser=stain,
        )  # fmt: skip
        seen = data.pixels[:][..., 0].astype(np.float64).mean(axis=(1, 2)) / 255
        mine = table[table.seed == seed].prob_tumour
        np.testing.assert_array_equal(mine, seen.astype(np.float32))
    raw, moved = (table[table.seed == seed].prob_tumour.to_numpy() for seed in (0, 1))
    alone = Store(tmp_path / "pixels1").items.left_alone.to_numpy()
    assert alone.any() and np.array_equal(raw == moved, alone)


def test_a_slide_says_how_many_patches_are_left_alone(tmp_path: Path, caplog) -> None:
    write_pyramid(tmp_path / "glass.tiff", [np.full((128, 128, 3), 245, np.uint8)])
    network = Member(MeanRed(64), 0, 0, "red", "key", Normaliser.standard("reinhard"))
    with open_slide(tmp_path / "glass.tiff") as slide, caplog.at_level("INFO"):
        predict_slide(slide, plan_of(slide, 64), [network], classes=CLASSES)
    assert "4 of the 4 patches read now say too little of their stains" in caplog.text


def test_a_run_and_what_it_predicts_later_are_normalised_alike(tmp_path: Path) -> None:
    root = synthetic.make("synthetic_patches", tmp_path / "synthetic_patches", scale=0.05)
    images.write_image(root / "images/P0001_01.png", np.full((64, 64, 3), 245, np.uint8))
    run = open_run(
        "synthetic_patches", data=tmp_path, out=tmp_path / "out", workers=0,
        settings={"stain": "macenko", "image_size": 16, "epochs": 1, "n_splits": 2, "tta": False,
                  "model": "conv_small", "resamples": 100},
    )  # fmt: skip
    done = run.complete()
    wanted = Normaliser.standard("macenko").to_dict()
    assert read_json(tmp_path / "out" / "settings.json")["stain"] == wanted
    for path in (tmp_path / "out" / "models").glob("*.keras"):
        assert read_json(path.with_suffix(".json"))["stain"] == wanted
    assert run.pixels().items.left_alone.sum() == 1
    said = [line for line in done["warnings"] if "left as they came" in line]
    assert len(said) == 1 and said[0].startswith("stain=macenko: 1 of ")
    assert "left as they came" in (tmp_path / "out" / "report.html").read_text("utf-8")
    joined = predict(tmp_path / "out", tmp_path, tmp_path / "later.csv")
    tests = joined.set_index("case_id").prob_malignant
    own = pd.read_csv(done["submission"]).set_index("case_id").prob_malignant
    np.testing.assert_allclose(tests[own.index], own, atol=1e-6)
    assert len(own) > 2


def test_a_whole_network_and_its_note_go_through_a_slide(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "one.tiff", [drawn(5, side=128)])
    path = tmp_path / "fold0_seed0.keras"
    build_model("conv_small", (32, 32, 3), 2).save(path)
    found = {}
    for method in ("none", "macenko"):
        stain = None if method == "none" else Normaliser.standard(method).to_dict()
        write_json(path.with_suffix(".json"), {
            "fold": 0, "seed": 0, "model": "conv_small", "sha256": method, "stain": stain,
        })  # fmt: skip
        with open_slide(tmp_path / "one.tiff") as slide:
            found[method] = predict_slide(
                slide, plan_of(slide, 32), [streams.load(path)], classes=CLASSES
            ).prob_tumour
    assert (found["none"] != found["macenko"]).all()
