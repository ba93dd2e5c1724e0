"""KHD 2020: its stand-in, its recipes, and each mistake made on purpose."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from stand_in import data as data  # the fixtures
from stand_in import drawn as drawn
from stand_in import entry as entry

from kit import finished, platforms
from kit._stand_in_patches import SHARES, draw_patch, patches
from kit.challenges import find, khd2020, open_run, recipes, wanted
from kit.errors import KitError, MissingDataError, ModelError, SettingsError, TableError
from kit.images import read_image
from kit.manifest import Dataset, load_manifest
from kit.metrics import six_metrics
from kit.models import build_model, load_network
from kit.pipeline import Run
from kit.platforms import _nsml_run, nsml
from kit.policies import policy
from kit.recipes import rates, recipe_of
from kit.settings import resolve
from kit.synthetic import make

CHALLENGE = "khd2020"
FEW = {"image_size": 32, "epochs": 1, "resamples": 100, "n_splits": 2, "model": "conv_small",
       "batch_size": 8, "learning_rate": 1e-3}  # fmt: skip


def rewritten(table: Path, edit: object) -> None:
    lines = table.read_text().splitlines()
    table.unlink()  # the other name of the file keeps its content
    table.write_text("\n".join(edit(lines)) + "\n")  # type: ignore[operator]


def opened(data: Path, out: Path, recipe: str = "kit", **settings: object) -> Run:
    return open_run("khd2020", data=data, out=out, recipe=recipe, workers=0,
                    settings={**FEW, **settings})  # fmt: skip


def settings_of(recipe: str, **own: object):
    return resolve("patches", recipes("khd2020")[recipe], overrides=own)


# The stand-in


def test_the_whole_stand_in_has_the_published_numbers() -> None:
    table = pd.DataFrame(patches(0, 1.0))
    for split, shares in SHARES.items():
        mine = table[table.split == split]
        assert mine.label.value_counts().to_dict() == shares
        assert sorted(mine.number) == list(range(1, len(mine) + 1))
    assert table.groupby("slide").label.nunique().max() == 1
    assert table.groupby("slide").split.nunique().max() == 1
    train = table[table.split == "train"]
    # A number says nothing of the class: among the first thousand are as many as everywhere.
    assert (train.head(1000).label == "malignant").mean() == pytest.approx(0.3, abs=0.05)


def test_the_stand_in_has_the_true_layout_table_and_size(drawn: Path, entry: Dataset) -> None:
    root = drawn / "khd2020"
    assert (root / "synthetic.json").is_file()
    images = sorted(str(p.relative_to(root)) for p in root.rglob("*.png"))
    assert len(images) == 20
    assert all(re.fullmatch(r"(train/train_data|test/test_data)/\d+\.png", n) for n in images)
    assert read_image(root / images[0]).shape == (512, 512, 3)
    lines = (root / "train" / "train_label").read_text().splitlines()
    assert len(lines) == 16 and all(re.fullmatch(r"\d+ [01]", line) for line in lines)
    cases = entry.cases(drawn)
    train = cases[cases.split == "train"]
    assert train.label.value_counts().to_dict() == {"benign": 8, "malignant": 8}
    codes = dict(line.split() for line in lines)
    for case in train.itertuples():
        assert case.label == entry.classes[int(codes[Path(case.path).stem])]
    assert cases.label[cases.split == "test"].isna().all()


def test_a_file_of_the_stand_in_is_the_same_byte_for_byte(drawn: Path, tmp_path: Path) -> None:
    one = patches(0, 0.001)[0]
    for folder, seed in (("again", 0), ("other", 1)):
        draw_patch(tmp_path / folder, seed, one)
    first = (drawn / "khd2020" / one.path).read_bytes()
    assert (tmp_path / "again" / one.path).read_bytes() == first
    assert (tmp_path / "other" / one.path).read_bytes() != first


# The recipes


def test_the_teams_recipe_is_as_it_was() -> None:
    recipe = recipe_of(settings_of("team"))
    assert (recipe.optimizer, recipe.batch_size, recipe.epochs) == ("adam", 64, 25)
    assert (recipe.loss, recipe.label_smoothing) == ("cross_entropy", 0.0)
    assert policy(recipe.augment).active == ("flip", "vertical")
    steps = 6400 // 64  # of an epoch, with four of five folds
    found = rates(recipe, steps)
    assert len(found) == 25 * steps
    assert found[:steps] == [1e-4] * steps
    assert found[steps] == pytest.approx(9.75e-5, rel=1e-12)
    assert found[-1] == pytest.approx(1e-4 * 0.975**24, rel=1e-12)
    assert found[-1] == pytest.approx(5.446e-5, rel=1e-3)


def test_each_script_of_the_team_is_a_recipe() -> None:
    team, ensemble, mutual = (settings_of(name) for name in ("team", "ensemble", "mutual"))
    changed = {
        name: {k for k, v in one.model_dump().items() if v != getattr(team, k)}
        for name, one in {"ensemble": ensemble, "mutual": mutual}.items()
    }
    assert changed == {"ensemble": {"seeds"}, "mutual": {"students"}}
    assert (ensemble.seeds, mutual.students) == (3, 2)
    assert (team.n_splits, team.everything) == (5, "only")  # folds measure, all cases answer


def test_three_resnets_fit_the_platform_and_five_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """94.4 MB each: 3 are 283 MB of the 300 that are allowed, the five of the folds are 472."""
    from kit import pace

    one = pace.Pace(23_591_810 * 4 / 1e6, float("nan"), 0.1, 0.0)
    monkeypatch.setattr(nsml.pace, "measure", lambda *_, **__: one)
    here = platforms.detect({"KIT_PLATFORM": "nsml"}, Path("/"))
    dataset = wanted("khd2020")[0]
    nsml.expect(dataset, settings_of("ensemble"), 2000, here)
    with pytest.raises(KitError, match=r"at most 300 MB.*472 MB"):
        nsml.expect(dataset, settings_of("team", everything="no"), 2000, here)
    with pytest.raises(KitError, match=r"longer.*at most 3600 s"):  # 3 x .1 s for each image
        nsml.expect(dataset, settings_of("ensemble"), 20_000, here)


def test_the_platforms_data_set_is_found_by_its_name_and_another_is_refused(
    entry: Dataset, tmp_path: Path
) -> None:
    place = tmp_path / "Breast_Pathology"
    (place / "train").mkdir(parents=True)
    assert entry.root(None, "nsml", mount=place) == place
    assert entry.root(None, "nsml", mount=tmp_path) == place
    other = tmp_path / "Fundus"
    other.mkdir()
    with pytest.raises(MissingDataError, match="Breast_Pathology"):
        entry.root(None, "nsml", mount=other)


# Mistakes that were made, on purpose


def test_precision_and_recall_exchanged_are_visible_beside_the_kits() -> None:
    true = np.repeat([0, 0, 1, 1], [1350, 50, 30, 570])
    called = np.repeat([0, 1, 0, 1], [1350, 50, 30, 570])
    ours = six_metrics(true, called)
    assert ours["ppv"] == pytest.approx(570 / 620) and ours["sensitivity"] == pytest.approx(0.95)
    fp, fn = 30, 50  # as the organisers name them
    assert 570 / (570 + fp) == pytest.approx(ours["sensitivity"])  # their "precision"
    assert 570 / (570 + fn) == pytest.approx(ours["ppv"])  # their "recall"
    assert khd2020.OFFICIAL(true, called, called) == 0.951
    mean = np.mean(
        [ours[k] for k in ("accuracy", "ppv", "sensitivity", "specificity", "npv", "f1")]
    )
    assert khd2020.OFFICIAL(true, called, called) == pytest.approx(mean, abs=1e-3)
    assert "denominator" in khd2020.OFFICIAL.differs


def test_the_scaling_travels_inside_the_checkpoint(tmp_path: Path) -> None:
    """One script normalised and another did not; a network of the kit takes pixels."""
    model = build_model("vgg16", (32, 32, 3), 2)
    path = tmp_path / "m.keras"
    model.save(path)
    read = load_network(path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    assert np.allclose(read.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=1e-6)
    # As of ResNet50: BGR less Caffe's means, in one layer of the file.
    scaled = read.get_layer("scaled")
    assert np.ravel(scaled.mean).tolist() == pytest.approx([103.939, 116.779, 123.68])


def test_bgr_arrays_and_paths_are_one_image_to_infer(data: Path, tmp_path: Path) -> None:
    path = next((data / "khd2020" / "test" / "test_data").iterdir())
    _nsml_run._put(cv2.imread(str(path)), tmp_path, 1)  # what the platform may hand over
    _nsml_run._put(path, tmp_path, 2)
    array, file = (read_image(tmp_path / f"{n:06d}.png") for n in (1, 2))
    assert np.array_equal(array, file)
    assert not np.array_equal(array, cv2.imread(str(path)))  # RGB is not BGR


def test_an_option_that_would_be_ignored_is_refused_and_the_rate_is_used() -> None:
    with pytest.raises(SettingsError, match=r"'lr' is unknown"):
        settings_of("team", lr="1e-3")
    found = rates(recipe_of(settings_of("team", learning_rate="1e-3")), 10)
    assert found[0] == 1e-3 and found[10] == pytest.approx(9.75e-4)


def test_no_checkpoint_is_chosen_on_the_training_score() -> None:
    with pytest.raises(SettingsError, match="need a figure to watch"):
        recipe_of(settings_of("team", keep="best", monitor="none"))
    assert not recipe_of(settings_of("team")).chooses  # the last epoch, whatever the fold says


def test_what_is_refused_early_reads_no_data(tmp_path: Path, monkeypatch) -> None:
    """Labels were read before `paused`: the part before it works where there are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIT_PLATFORM", "nsml")
    small = {"model": "conv_small", "image_size": 32}
    here = platforms.detect({"KIT_PLATFORM": "nsml"}, tmp_path)
    nsml.expect(*wanted("khd2020", small), here)
    with pytest.raises(MissingDataError):
        load_manifest().dataset("khd2020").root(tmp_path)


@pytest.mark.parametrize(
    ("edit", "error", "said"),
    [
        (lambda lines: [*lines, "99 1"], MissingDataError, "1 of .* rows have no image.*99"),
        (lambda lines: lines[1:], TableError, "1 images have no line in the label table"),
        (lambda lines: [*lines[:-1], lines[-1][:-1] + "2"], TableError, "2"),
        (lambda lines: [*lines, lines[0]], TableError, "1"),
        (lambda lines: [*lines[:-1], lines[-1].split()[0]], TableError, "label"),
        (lambda lines: ["number label", *lines], MissingDataError, "number"),
    ],
    ids=["a line without an image", "an image without a line", "an unknown integer",
         "a line twice", "no label", "a header"],
)  # fmt: skip
def test_a_wrong_label_table_is_an_error(
    data: Path, entry: Dataset, edit: object, error: type[KitError], said: str
) -> None:
    rewritten(data / "khd2020" / "train" / "train_label", edit)
    with pytest.raises(error, match=said):
        entry.cases(data)


def test_the_positive_class_is_named_and_never_inferred(entry: Dataset) -> None:
    assert (entry.positive, entry.labels) == ("malignant", {"0": "benign", "1": "malignant"})
    assert dict(khd2020.STYLE.codes) == {"benign": "0", "malignant": "1"}


# Weights of another run


def test_a_run_begins_with_a_network_of_another_data_set_and_not_of_its_own(
    drawn: Path, tmp_path: Path
) -> None:
    make("synthetic_patches", tmp_path / "synthetic_patches", scale=0.05)
    first = open_run("synthetic_patches", data=tmp_path, out=tmp_path / "first", workers=0,
                     folds=[0], settings={**FEW, "learning_rate": 1e-2})  # fmt: skip
    first.oof()
    rate = 1e-12  # nothing is learnt: what it answers is what it began with
    frozen = {"learning_rate": rate, "weight_decay": 0.0, "ema": 0.0}
    run = opened(drawn, tmp_path / "second", weights=str(first.out), **frozen)
    run.oof()
    begun = load_network(first.out / "models" / "fold0_seed0.keras")
    ended = load_network(run.out / "models" / "fold1_seed0.keras")
    for ours, theirs in zip(ended.trainable_weights, begun.trainable_weights, strict=True):
        assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    alone = opened(drawn, tmp_path / "third", **frozen)
    assert not np.allclose(alone.oof().prob_malignant, run.oof().prob_malignant)

    with pytest.raises(SettingsError, match=r"same data set.*teacher=RUN"):
        opened(drawn, tmp_path / "fourth", weights=str(run.out)).oof()
    (first.out / "models" / "fold0_seed0.keras").write_bytes(b"cut")
    with pytest.raises(ModelError, match="not the file"):
        opened(drawn, tmp_path / "fifth", weights=str(first.out)).oof()
    with pytest.raises(ModelError, match="folder of a finished run"):
        opened(drawn, tmp_path / "sixth", weights=str(tmp_path / "nothing")).oof()


def test_imagenets_weights_are_asked_for_by_name_and_place(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights imagenet are not here.*notop\.h5.*download"):
        opened(drawn, tmp_path / "out", "team", model="resnet50", weights="imagenet").oof()


# The whole road


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["team", "ensemble", "mutual"])
def test_a_recipe_goes_the_road_and_leaves_no_checkpoint(
    recipe: str, drawn: Path, tmp_path: Path
) -> None:
    run = opened(drawn, tmp_path / "out", recipe, seeds=2 if recipe == "ensemble" else 1)
    done = run.complete()
    rows = Path(done["submission"]).read_text().splitlines()
    assert len(rows) == 4 and all(re.fullmatch(r"\S+ [01]", row) for row in rows)
    seeds = range(run.settings.seeds)
    names = {f"{part}_seed{n}" for part in ("fold0", "fold1", "all") for n in seeds}
    assert {p.stem for p in run.models.rglob("*.keras")} == names
    assert not list(run.models.glob("state/*"))  # the team kept 125 of 94 MB
    answered = {name.removesuffix(".keras") for name in run._networks()}
    assert answered == {f"all_seed{n}" for n in seeds}  # validation merged back
    paths = sorted((drawn / "khd2020" / "test" / "test_data").iterdir(), key=lambda p: p.stem)
    infer = _nsml_run.hooks(run.out, platforms.detect({"KIT_PLATFORM": "nsml"}, tmp_path))[2]
    given = {Path(row.split()[0]).stem: int(row.split()[1]) for row in rows}
    assert infer([str(p) for p in paths]).tolist() == [given[p.stem] for p in paths]
    assert infer([cv2.imread(str(p)) for p in paths]).tolist() == [given[p.stem] for p in paths]
    table = finished.predict(run.out, drawn, tmp_path / "later.csv")
    assert (tmp_path / "later.csv").read_text().splitlines() == rows, table


def test_the_platform_is_told_by_the_manifest_and_the_challenge_by_its_name() -> None:
    found = find("khd2020", load_manifest(), "team")
    assert found.dataset.roots["nsml"] == "Breast_Pathology"
    assert (found.recipe, found.official) == ("team", khd2020.OFFICIAL)
