"""KHD 2019: its stand-in, its rules, both recipes, and each mistake made on purpose."""

from __future__ import annotations

import math
import re
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold
from stand_in import data as data  # the fixtures
from stand_in import drawn as drawn
from stand_in import entry as entry

from kit import finished, kinds
from kit._stand_in_eyes import SHARES, draw_photograph, photographs
from kit.challenges import find, khd2019, open_run
from kit.errors import GroupLeakError, ImageError, ModelError, SettingsError, TableError
from kit.files import sha256
from kit.folds import assign_folds, check_no_leak
from kit.images import read_image
from kit.losses import cross_entropy
from kit.manifest import Dataset, load_manifest
from kit.models import build_model
from kit.pipeline import Run
from kit.platforms import _nsml_run, detect
from kit.policies import policy
from kit.recipes import rates, recipe_of
from kit.settings import resolve

CHALLENGE = "khd2019"
FEW = {"image_size": 32, "epochs": 1, "second_epochs": 1, "resamples": 100, "n_splits": 2,
       "model": "conv_small", "batch_size": 8}  # fmt: skip


def replaced(path: Path, content: bytes) -> None:
    path.unlink()  # the other name of the file keeps its content
    path.write_bytes(content)


def opened(data: Path, out: Path, **settings: object) -> Run:
    return open_run("khd2019", data=data, out=out, settings={**FEW, **settings}, workers=0)


# The stand-in


def test_the_whole_stand_in_has_the_published_numbers() -> None:
    table = pd.DataFrame(photographs(0, 1.0))
    for split, shares in SHARES.items():
        assert table[table.split == split].label.value_counts().to_dict() == shares
    assert len(table) == 3844 + 401
    assert table.groupby("person").split.nunique().max() == 1
    eyes = table.groupby("person").side.agg(list)
    assert eyes.map(lambda sides: sides in (["R"], ["R", "L"])).all()
    assert eyes.map(len).eq(2).mean() > 0.9


def test_the_stand_in_has_the_true_layout_names_and_size(drawn: Path, entry: Dataset) -> None:
    root = drawn / "khd2019"
    found = sorted(str(p.relative_to(root)) for p in root.rglob("*.jpg"))
    form = re.compile(r"(train|test)/(NOR|AMD|DMR|RVO)/Wide_\2_\d{3,4}_[LR]\.jpg")
    assert len(found) == 40 and all(form.fullmatch(name) for name in found)
    assert read_image(root / found[0]).shape == (3072, 3900, 3)
    cases = entry.cases(drawn)
    assert cases[cases.split == "train"].label.value_counts().to_dict() == dict.fromkeys(
        entry.classes, 8
    )
    assert (cases.split == "test").sum() == 8
    number = cases.case_id.str.extract(r"_(\d+)_", expand=False)
    assert (cases.group == number).all()  # both eyes, whatever their classes


def test_a_file_of_the_stand_in_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    one, found = photographs(0, 0.001)[0], []
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        draw_photograph(tmp_path / folder, seed, one)
        found.append((tmp_path / folder / one.path).read_bytes())
    assert found[0] == found[1] != found[2]


# The recipes


@pytest.mark.parametrize("name", ["team", "kit"])
def test_both_recipes_have_two_stages_of_which_the_second_is_milder(name: str) -> None:
    challenge = find("khd2019", load_manifest(), name)
    recipe = recipe_of(resolve("images", challenge.settings, overrides={}))
    main, second = recipe.stages
    assert (main.name, second.name) == ("all", "second")
    assert second.learning_rate < main.learning_rate
    assert second.label_smoothing <= main.label_smoothing
    found = rates(recipe, 4)
    assert len(found) == 4 * (recipe.epochs + recipe.second_epochs)


def test_the_teams_recipe_is_as_it_was() -> None:
    recipe = recipe_of(resolve("images", khd2019.TEAM, overrides={}))
    main, second = recipe.stages
    assert (recipe.optimizer, recipe.ema) == ("radam", 0.0)
    assert set(policy(main.augment).active) == {"flip", "rotate", "zoom", "shift"}
    assert policy(second.augment).active == ("flip",)
    assert set(rates(recipe, 3)) == {1e-3, 1e-4}  # the schedule that never fired
    assert build_model("khd2019_vgg").count_params() == 9 * 408_672 + 4 * 2_112 + 257 * 4


def test_the_rules_forbid_pretrained_weights(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"rules of khd2019.*weights.*outside data.*imagenet"):
        opened(drawn, tmp_path / "out", weights="imagenet")


# Mistakes that were made, on purpose


def test_an_unknown_folder_is_an_error_and_not_class_0(data: Path, entry: Dataset) -> None:
    root = data / "khd2019"
    strange = next((root / "train" / "AMD").iterdir())
    (root / "train" / "CNV").mkdir()
    strange.rename(root / "train" / "CNV" / strange.name)
    with pytest.raises(TableError, match="CNV"):
        entry.cases(data)


def test_an_unknown_folder_of_the_test_set_is_an_error_too(data: Path, entry: Dataset) -> None:
    root = data / "khd2019"
    strange = next((root / "test" / "AMD").iterdir())
    (root / "test" / "CNV").mkdir()
    strange.rename(root / "test" / "CNV" / strange.name)
    for labels in (True, False):
        with pytest.raises(TableError, match=r"no class: CNV.*NOR, AMD, DMR, RVO"):
            entry.cases(data, labels=labels)


def test_a_photograph_counts_whatever_its_suffix_is_written_as(data: Path, entry: Dataset) -> None:
    root, before = data / "khd2019", entry.cases(data)
    first, second, *_ = sorted((root / "train" / "AMD").iterdir())
    first.rename(first.with_suffix(".JPG"))
    second.rename(second.with_suffix(".jpeg"))
    after = entry.cases(data)
    assert after.drop(columns="path").equals(before.drop(columns="path"))
    assert {path for path in after.path if not path.endswith(".jpg")} == {
        f"train/AMD/{first.stem}.JPG", f"train/AMD/{second.stem}.jpeg"
    }  # fmt: skip


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_photograph_beside_the_folders_of_the_classes_is_an_error(
    part: str, data: Path, entry: Dataset
) -> None:
    path = next((data / "khd2019" / part / "AMD").iterdir())
    path.rename(path.parents[1] / path.name)
    with pytest.raises(TableError, match=rf"beside the folders of the classes.*{path.name}"):
        entry.cases(data)


def test_two_files_of_one_name_are_an_error(data: Path, entry: Dataset) -> None:
    path = next((data / "khd2019" / "train" / "AMD").iterdir())
    path.with_suffix(".JPG").write_bytes(path.read_bytes())
    with pytest.raises(TableError, match=rf"two files are one case.*{path.stem}\.JPG"):
        entry.cases(data)


def test_an_eye_in_train_and_its_fellow_in_test_are_an_error(data: Path, entry: Dataset) -> None:
    root = data / "khd2019"
    both = entry.cases(data).query("split == 'train'").groupby("group").filter(lambda x: len(x) > 1)
    path = root / both.path.iloc[0]
    path.rename(root / "test" / path.parent.name / path.name)
    with pytest.raises(GroupLeakError, match=r"both training and test.*under group"):
        entry.cases(data)


def test_a_split_by_class_alone_parts_the_eyes_of_a_person_and_is_refused() -> None:
    table = pd.DataFrame(photographs(0, 0.05)).query("split == 'train'").reset_index(drop=True)
    folds = table.rename(columns={"person": "group"}).assign(case_id=table.index.astype(str))
    folds["fold"] = 0
    parts = StratifiedKFold(5, shuffle=True, random_state=0).split(folds, folds.label)
    for number, (_, held) in enumerate(parts):
        folds.loc[held, "fold"] = number
    apart = folds.groupby("group").fold.nunique().gt(1)
    assert apart.mean() > 0.5  # the team's way: most people stand on both sides
    with pytest.raises(GroupLeakError):
        check_no_leak(folds[["case_id", "group", "label", "fold"]])
    ours = folds.assign(fold=assign_folds(folds, 5, label="label", group="group", seed=0))
    assert ours.groupby("group").fold.nunique().max() == 1
    check_no_leak(ours[["case_id", "group", "label", "fold"]])


def test_photographs_are_read_small_and_one_at_a_time(drawn: Path, entry: Dataset) -> None:
    """The team held all of them whole: 138 GB, of which it got to 3211 of 3823."""
    cases = entry.cases(drawn).iloc[:10]
    values = resolve("images", khd2019.KIT, overrides={})
    read = kinds.reader(entry, drawn / "khd2019", values, cases)
    read(cases[:1])  # what is loaded once does not count
    tracemalloc.start()
    found = read(cases)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (10, 96, 96, 3)
    frame = 3072 * 3900 * 3
    assert most < frame / 4  # ten images and all that was made on the way


def test_softmax_before_a_loss_that_applies_it_cannot_be_built() -> None:
    perfect = np.array([[1.0, 0.0, 0.0, 0.0]])
    softmax = np.exp(perfect) / np.exp(perfect).sum()
    floor = -math.log(softmax[0, 0])
    assert floor == pytest.approx(0.7437, abs=1e-4)  # what the team's loss could not go below
    model = build_model("khd2019_vgg", (32, 32, 3), 4)
    logits = model.get_layer("logits")
    assert logits.activation.__name__ == "linear"
    assert model.layers[-1].name == "probabilities"  # the one softmax, behind the logits
    sure = np.array([[40.0, 0.0, 0.0, 0.0]], np.float32)
    assert float(cross_entropy(perfect.astype(np.float32), sure)[0]) == pytest.approx(0, abs=1e-6)


def test_one_output_unit_with_argmax_cannot_be_built() -> None:
    assert np.argmax(np.maximum(np.array([[-3.0], [9.0]]), 0), axis=1).tolist() == [0, 0]
    with pytest.raises(ModelError, match="2 classes or more"):
        build_model("khd2019_vgg", (32, 32, 3), 1)


def test_a_plateau_rebuilt_at_each_fit_never_fires_and_the_kits_does() -> None:
    import keras

    def lowered(keep: bool) -> int:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3)
        for epoch in range(12):  # fit(epochs=1), twelve times, without any gain
            if not keep:
                plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3)
            plateau.set_model(model)
            if epoch == 0 or not keep:
                plateau.on_train_begin()
            plateau.on_epoch_end(epoch, {"val_loss": 1.0})
        return round(-math.log2(float(model.optimizer.learning_rate.numpy())))

    assert (lowered(keep=False), lowered(keep=True)) == (0, 3)


# Bad input


def test_a_half_jpeg_and_a_black_photograph_are_left_out_by_name(
    data: Path, tmp_path: Path
) -> None:
    root = data / "khd2019"
    victim = sorted((root / "train" / "DMR").iterdir())[0]
    for content, said in (
        (victim.read_bytes()[: victim.stat().st_size // 2], "cut off or damaged"),
        (bytes(cv2.imencode(".jpg", np.zeros((3072, 3900, 3), np.uint8))[1]), "no eye"),
    ):
        replaced(victim, content)
        run = opened(data, tmp_path / said.split()[0])
        (failure,) = run.failures()
        assert said in failure and victim.name in failure
        assert victim.stem not in set(run.folds().case_id)


def test_a_black_photograph_of_the_test_set_stops_the_run(data: Path, tmp_path: Path) -> None:
    victim = next((data / "khd2019" / "test" / "NOR").iterdir())
    replaced(victim, bytes(cv2.imencode(".jpg", np.zeros((3072, 3900, 3), np.uint8))[1]))
    with pytest.raises(ImageError, match=rf"none may be left out.*{victim.name}"):
        opened(data, tmp_path / "out").pixels()


def test_photographs_of_another_size_are_refused_unless_cut_to_the_eye(
    data: Path, tmp_path: Path
) -> None:
    victim = sorted((data / "khd2019" / "train" / "NOR").iterdir())[-1]
    image = cv2.resize(read_image(victim), (3890, 3072))
    replaced(victim, bytes(cv2.imencode(".jpg", image[:, :, ::-1])[1]))
    with pytest.raises(SettingsError, match=r"mixed sizes.*\(3072, 3900, 3\).*\(3072, 3890, 3\)"):
        opened(data, tmp_path / "whole", fundus="none").pixels()
    assert len(opened(data, tmp_path / "eye").pixels().items) == 40


def test_slides_and_studies_have_no_eyes(tmp_path: Path) -> None:
    dataset = load_manifest().dataset("rsna2021")
    values = resolve("dicom", {"fundus": "graham"}, overrides={})
    with pytest.raises(SettingsError, match="fundus is for photographs"):
        kinds.reader(dataset, tmp_path, values, pd.DataFrame())


# The whole road


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["team", "kit"])
def test_the_answer_on_nsml_is_that_of_kit_predict(
    recipe: str, drawn: Path, tmp_path: Path
) -> None:
    run = open_run("khd2019", recipe=recipe, data=drawn, out=tmp_path / "run", settings=FEW,
                   workers=0)  # fmt: skip
    done = run.complete()
    assert done["synthetic"] and done["official"]["value"] >= 0
    rows = Path(done["submission"]).read_text().splitlines()
    assert rows[0] == "case_id,label" and len(rows) == 9
    assert all(re.fullmatch(r"Wide_[A-Z]{3}_\d{3}_[LR],[0-3]", row) for row in rows[1:])

    before = sha256(run.out / "ensemble.json")
    table = finished.predict(run.out, drawn, tmp_path / "later.csv")
    assert (tmp_path / "later.csv").read_text().splitlines() == rows
    given = dict(row.split(",") for row in rows[1:])
    paths = sorted((drawn / "khd2019" / "test").rglob("*.jpg"), key=lambda p: p.stem)
    infer = _nsml_run.hooks(run.out, detect())[2]
    assert infer([str(path) for path in paths]).tolist() == [int(given[p.stem]) for p in paths]
    answer = infer([cv2.imread(str(path)) for path in paths])  # decoded whole, as NSML does
    assert answer.dtype == np.int64 and set(answer) <= {0, 1, 2, 3}
    agree = np.mean(answer == [int(given[p.stem]) for p in paths])
    assert agree >= 7 / 8, table
    assert sha256(run.out / "ensemble.json") == before
