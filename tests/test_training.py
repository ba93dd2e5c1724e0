"""Cross-validation: tables without leaks, resumed by fingerprint, cut by time, refused if mixed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_store

from kit import fitting, losses, training
from kit.errors import JobError, KitError, ModelError, SettingsError, TableError, TrainingError
from kit.files import read_json, write_table
from kit.fits import EVERYTHING, Fit
from kit.recipes import Recipe
from kit.store import Store
from kit.training import cross_validate

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(2, 8, steps=2, augment="flips")
COLUMNS = ["case_id", "group", "y_true", "prob_a", "prob_b", "fold", "seed", "model"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store.make(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def folds(data: Store) -> pd.DataFrame:
    return tiny_store.folds(data, 3)


def run(
    folds: pd.DataFrame, data: Store, out: Path, recipe: Recipe = RECIPE, **more: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return cross_validate(folds, data, "conv_small", recipe, out, **{"workers": 0, **more})


@pytest.fixture(scope="module")
def finished(
    data: Store, folds: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """A folder of three trained folds, and its two tables."""
    out = tmp_path_factory.mktemp("finished")
    return (out, *run(folds, data, out))


@pytest.fixture
def out(finished: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path) -> Path:
    """A copy of the finished folder, with its times."""
    return Path(shutil.copytree(finished[0], tmp_path / "out", copy_function=shutil.copy2))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Fit]:
    """The fits that are trained from here on, as they come."""
    seen: list[Fit] = []
    real = fitting.train

    def train(fit: Fit, **more: Any) -> bool:
        seen.append(fit)
        return real(fit, **more)

    monkeypatch.setattr(fitting, "train", train)
    return seen


def late(monkeypatch: pytest.MonkeyPatch, *numbers: int, after: int = 1) -> None:
    """Let the time be up in these folds, after so many epochs."""
    monkeypatch.setattr(
        fitting.Session, "_late",
        lambda self: self.fit.fold in numbers and self.progress.epoch >= after,
    )  # fmt: skip


def test_each_training_item_is_predicted_once_by_the_fold_that_did_not_see_it(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], folds: pd.DataFrame
) -> None:
    _, oof, _ = finished
    assert list(oof) == COLUMNS
    assert sorted(oof.case_id) == sorted(folds.case_id)
    known = folds.set_index("case_id")
    assert (oof.fold.to_numpy() == known.fold[oof.case_id]).all()
    assert (oof.y_true.to_numpy() == known.label[oof.case_id]).all()
    assert np.allclose(oof.prob_a + oof.prob_b, 1)
    assert set(oof.seed) == {0} and set(oof.model) == {"conv_small"}


def test_each_test_item_is_predicted_by_every_network_and_its_label_is_not_told(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store
) -> None:
    _, _, test = finished
    assert list(test) == COLUMNS
    asked = data.items[data.items.split == "test"].case_id
    for fold in range(3):
        assert sorted(test.case_id[test.fold == fold]) == sorted(asked)
    assert test.y_true.isna().all()


def test_no_network_sees_its_own_fold_or_a_test_case(
    data: Store, folds: pd.DataFrame, tmp_path: Path
) -> None:
    fits = training.plan(folds, data, "conv_small", RECIPE, tmp_path, 2, classes=["a", "b"])
    assert [(fit.fold, fit.seed) for fit in fits] == [(f, s) for s in (0, 1) for f in range(3)]
    for fit in fits:
        learnt = data.items.iloc[fit.rows]
        mine = folds[folds.fold == fit.fold]
        assert (learnt.split == "train").all()
        assert not set(learnt.case_id) & set(mine.case_id)
        assert not set(learnt.group) & set(mine.group)
        assert set(learnt.case_id) | set(mine.case_id) == set(folds.case_id)
        assert set(data.items.case_id.iloc[fit.held]) == set(mine.case_id)
        assert (np.array(["a", "b"])[fit.codes] == learnt.label).all()
    assert len({fit.key for fit in fits}) == 6


def test_an_item_that_is_not_for_training_is_not_learnt_from(data: Store, tmp_path: Path) -> None:
    items = tiny_store.items()
    items["train"] &= items.case_id != "a03"  # as a review drops a case
    store = tiny_store.make(tmp_path / "store", items)
    folds = tiny_store.folds(store)
    fits = training.plan(folds, store, "conv_small", RECIPE, tmp_path, 1, classes=["a", "b"])
    for fit in fits:
        assert "a03" not in set(items.case_id.iloc[np.r_[fit.rows, fit.held]])


ANOTHER = """
import sys
from pathlib import Path
import pandas as pd
from kit.recipes import Recipe
from kit.store import Store
from kit.training import cross_validate
folder = Path(sys.argv[1])
folds = pd.read_parquet(folder / "folds.parquet")
found = cross_validate(folds, Store(Path(sys.argv[2])), "conv_small", Recipe(**eval(sys.argv[3])),
                       folder / "out", workers=int(sys.argv[4]))
for name, table in zip(("oof", "test"), found):
    table.to_parquet(folder / f"{name}.parquet")
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_another_process_gives_the_same_tables_to_the_bit(
    workers: str, finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store,
    folds: pd.DataFrame, tmp_path: Path,
) -> None:  # fmt: skip
    write_table(folds, tmp_path / "folds.parquet")
    subprocess.run(
        [sys.executable, "-c", ANOTHER, tmp_path, data.folder, str(asdict(RECIPE)), workers],
        check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "3"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for name, table in zip(("oof", "test"), finished[1:], strict=True):
        found = pd.read_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(found, table, check_exact=True, check_dtype=False)


def test_what_stands_is_taken_and_nothing_is_trained(
    out: Path, finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store,
    folds: pd.DataFrame, trained: list[Fit],
) -> None:  # fmt: skip
    for found, table in zip(run(folds, data, out, workers=1), finished[1:], strict=True):
        pd.testing.assert_frame_equal(found, table, check_exact=True)
    assert trained == []


def test_a_file_that_is_not_whole_is_not_taken(
    out: Path, finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store,
    folds: pd.DataFrame, trained: list[Fit],
) -> None:  # fmt: skip
    damaged = out / "fold1_seed0.keras"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = run(folds, data, out)
    assert [fit.fold for fit in trained] == [1]
    pd.testing.assert_frame_equal(found[0], finished[1], check_exact=True)


def test_a_changed_image_trains_again_only_the_folds_that_see_it(
    out: Path, data: Store, folds: pd.DataFrame, tmp_path: Path, trained: list[Fit]
) -> None:
    items = tiny_store.items()
    items.loc[items.case_id == "a02", "key"] = "another picture"
    (mine,) = folds.fold[folds.case_id == "a02"]
    store = tiny_store.make(tmp_path / "store", items)
    run(folds, store, out)
    assert sorted(fit.fold for fit in trained) == sorted({0, 1, 2} - {int(mine)})


def test_a_recipe_that_chooses_by_the_fold_sees_a_changed_image_there_too(
    data: Store, folds: pd.DataFrame, tmp_path: Path
) -> None:
    items = tiny_store.items()
    items.loc[items.case_id == "a02", "key"] = "another picture"
    store = tiny_store.make(tmp_path / "store", items)
    for recipe, unchanged in ((RECIPE, 1), (Recipe(2, 8, keep="best"), 0)):
        keys = [
            {fit.key for fit in training.plan(folds, one, "conv_small", recipe, tmp_path, 1,
                                              classes=["a", "b"])}
            for one in (data, store)
        ]  # fmt: skip
        assert len(keys[0] & keys[1]) == unchanged


def test_folds_that_are_asked_for_are_trained_and_no_other(
    data: Store, folds: pd.DataFrame, tmp_path: Path, trained: list[Fit]
) -> None:
    oof, test = run(folds, data, tmp_path, only=[2])
    assert [fit.fold for fit in trained] == [2]
    assert set(oof.fold) == set(test.fold) == {2}
    with pytest.raises(TableError, match=r"no such fold.*Expected: of 0, 1, 2.*Received: 7"):
        run(folds, data, tmp_path, only=[7])


def test_a_second_seed_is_another_network_and_the_first_stands(
    out: Path, data: Store, folds: pd.DataFrame, trained: list[Fit]
) -> None:
    oof, _ = run(folds, data, out, seeds=2, only=[0])
    assert [(fit.fold, fit.seed) for fit in trained] == [(0, 1)]
    one, two = (oof.prob_a[oof.seed == seed].to_numpy() for seed in (0, 1))
    assert len(one) == len(two) and not np.allclose(one, two, atol=1e-4)


def test_a_class_that_a_fold_cannot_learn_is_an_error(tmp_path: Path) -> None:
    store = tiny_store.make(tmp_path / "store", tiny_store.items(classes="abc"))
    folds = tiny_store.folds(store)
    folds.loc[folds.label == "c", "fold"] = 1
    with pytest.raises(
        TableError, match=r"without fold 1 .* class c.*6 a, 6 b.*Remedy: fewer folds"
    ):
        run(folds, store, tmp_path / "out")


def test_an_empty_fold_is_an_error(data: Store, folds: pd.DataFrame, tmp_path: Path) -> None:
    lost = pd.DataFrame([("x", "x", "a", 3)], columns=folds.columns)
    with pytest.raises(TableError, match=r"fold 3 is empty.*leave it out with --folds"):
        run(pd.concat([folds, lost]), data, tmp_path)


@pytest.mark.parametrize(("change", "more", "told"), [
    ({"group": "p"}, {}, "stands in more than one fold|group"),
    ({"fold": 0.5}, {}, "no whole numbers from 0.*fold 0.5 of case"),
    ({"fold": -1}, {}, "no whole numbers from 0"),
    ({"fold": np.nan}, {}, "no whole numbers from 0"),
    ({}, {"seeds": 0}, "seeds must be a whole number"),
    ({}, {"workers": -1}, "workers must be a whole number"),
    ({}, {"everything": "yes"}, "everything is unknown"),
    ({}, {"classes": ["a"]}, "not those of the labels.*labels b"),
    ({}, {"classes": ["a", "b", "b"]}, "each once"),
    ({}, {"weights": Path("no.h5")}, "weights are not there"),
    ({}, {"teacher": Path("nowhere")}, "no finished run.*teacher=nowhere"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(
    change: dict[str, Any], more: dict[str, Any], told: str, data: Store, folds: pd.DataFrame,
    tmp_path: Path, trained: list[Fit],
) -> None:  # fmt: skip
    with pytest.raises(KitError, match=told):
        run(folds.assign(**change), data, tmp_path, **more)
    assert not trained


def test_tables_that_are_no_fold_tables_are_refused(
    data: Store, folds: pd.DataFrame, tmp_path: Path
) -> None:
    for wrong in (folds.iloc[:0], pd.concat([folds, folds.iloc[:1]]), folds.drop(columns="group")):
        with pytest.raises(KitError):
            run(wrong, data, tmp_path, classes=["a", "b"])


def test_an_unknown_network_is_named_with_its_neighbours(
    data: Store, folds: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="conv_small"):
        cross_validate(folds, data, "conv_smal", RECIPE, tmp_path)


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(
    out: Path, data: Store, folds: pd.DataFrame
) -> None:
    other = Recipe(3, 8, steps=2, augment="flips", loss="focal")
    with pytest.raises(SettingsError, match="another recipe") as caught:
        run(folds, data, out, other)
    assert "epochs: 2 there, 3 now" in str(caught.value)
    assert "loss: cross_entropy there, focal now" in str(caught.value)
    assert read_json(out / "recipe.json")["epochs"] == 2


def test_a_recipe_may_change_before_anything_is_trained(
    data: Store, folds: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError):
        run(folds, data, tmp_path, Recipe(9, 8), until=0.0)
    run(folds, data, tmp_path, RECIPE, only=[0])
    assert read_json(tmp_path / "recipe.json")["epochs"] == 2


def test_no_time_at_all_is_a_clear_error(data: Store, folds: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"before the first epoch.*allow more --time-budget"):
        run(folds, data, tmp_path, until=time.time() - 1)
    assert not list(tmp_path.glob("*.keras"))


def test_folds_that_are_finished_in_time_are_kept_and_the_rest_named(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store, folds: pd.DataFrame,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patched:
        late(patched, 1, 2)
        oof, test = run(folds, data, tmp_path)
    assert set(oof.fold) == set(test.fold) == {0}
    said = capsys.readouterr().err
    for fold in (1, 2):
        assert f"fold {fold}, seed 0: epoch 1/2" in said
    assert said.count("not finished, the time was up") == 2
    for found, table in zip(run(folds, data, tmp_path), finished[1:], strict=True):
        pd.testing.assert_frame_equal(found, table, check_exact=True)


def test_where_no_fold_is_finished_they_are_taken_as_they_are(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store, folds: pd.DataFrame,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with monkeypatch.context() as patched:
        late(patched, 0, 1, 2)
        oof, test = run(folds, data, tmp_path)
    assert sorted(oof.case_id) == sorted(folds.case_id) and len(test) == 3 * 8
    assert "fold 2, seed 0 is taken as it is" in caplog.text
    oof, test = run(folds, data, tmp_path, until=0.0)  # no time for more than one
    assert set(oof.fold) == {0} and len(test) == 8
    for found, table in zip(run(folds, data, tmp_path), finished[1:], strict=True):
        pd.testing.assert_frame_equal(found, table, check_exact=True)


@pytest.mark.slow
def test_a_fold_that_crashes_leaves_the_others_standing(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store, folds: pd.DataFrame,
    tmp_path: Path, trained: list[Fit],
) -> None:  # fmt: skip
    obstacle = tmp_path / "fold1_seed0.keras" / "in the way"
    obstacle.mkdir(parents=True)
    with pytest.raises(JobError, match="the process of fold 1, seed 0 died"):
        run(folds, data, tmp_path, workers=1)
    shutil.rmtree(obstacle.parent)
    found = run(folds, data, tmp_path)
    assert [fit.fold for fit in trained] == [1]
    for table, wanted in zip(found, finished[1:], strict=True):
        pd.testing.assert_frame_equal(table, wanted, check_exact=True)


@pytest.mark.parametrize("everything", [pytest.param("add", marks=pytest.mark.slow), "only"])
def test_networks_of_everything_are_trained_as_long_as_the_folds_chose(
    everything: str, data: Store, folds: pd.DataFrame, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, trained: list[Fit],
) -> None:  # fmt: skip
    # best at the first, third and second epoch of the one stage; always at the last of the other
    told = iter([3, 2, 1, 4, 1, 2, 3, 4, 1, 3, 2, 4])
    monkeypatch.setattr(fitting, "figure", lambda *_: float(next(told)))
    recipe = Recipe(3, 8, steps=1, keep="best", second_epochs=1)
    oof, test = run(folds, data, tmp_path, recipe, everything=everything)
    notes = [read_json(tmp_path / f"fold{fold}_seed0.json")["chosen"] for fold in range(3)]
    assert notes == [[1, 1], [3, 1], [2, 1]]
    (fit,) = [fit for fit in trained if fit.fold == EVERYTHING]
    assert fit.epochs == (2, 1)
    assert set(data.items.case_id.iloc[fit.rows]) == set(folds.case_id)
    assert list(fitting.histories.read(fit.path.with_suffix(".csv")).stage) == ["all"] * 2 + [
        "second"
    ]
    assert set(oof.fold) == {0, 1, 2}
    assert set(test.fold) == ({EVERYTHING} if everything == "only" else {0, 1, 2, EVERYTHING})
    again = run(folds, data, tmp_path, recipe, everything=everything)
    assert len(trained) == 4
    pd.testing.assert_frame_equal(again[1], test, check_exact=True)


def test_without_time_for_everything_the_folds_networks_predict(
    out: Path, finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store,
    folds: pd.DataFrame, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    late(monkeypatch, EVERYTHING, after=0)
    for everything in ("add", "only"):
        _, test = run(folds, data, out, everything=everything)
        pd.testing.assert_frame_equal(test, finished[2], check_exact=True)


def test_a_teacher_must_not_have_seen_the_fold(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], data: Store, folds: pd.DataFrame,
    tmp_path: Path, trained: list[Fit],
) -> None:  # fmt: skip
    teacher = tmp_path / "teacher"
    shutil.copytree(finished[0], teacher / "models")
    write_table(folds, teacher / "folds.parquet")
    run(folds, data, tmp_path / "out", teacher=teacher, only=[1])
    assert [path.name for path in trained[0].teachers] == ["fold1_seed0.keras"]
    others = folds.assign(fold=(folds.fold + 1) % 3)
    write_table(others, teacher / "folds.parquet")
    with pytest.raises(SettingsError, match="not trained on the same folds"):
        run(folds, data, tmp_path / "other", teacher=teacher)
    with pytest.raises(KitError, match=r"no finished run.*nowhere"):
        run(folds, data, tmp_path / "none", teacher=tmp_path / "nowhere")


def test_a_rehearsal_goes_all_the_way_and_leaves_nothing(
    data: Store, folds: pd.DataFrame, tmp_path: Path, trained: list[Fit]
) -> None:
    recipe = Recipe(50, 8, augment="flips", head_epochs=5, second_epochs=5, keep="best")
    fits = training.plan(folds, data, "conv_small", recipe, tmp_path, 1, classes=["a", "b"])
    oof, test = training.rehearse(fits, folds, "flips", workers=0)
    assert list(oof) == list(test) == COLUMNS
    assert 0 < len(oof) <= training.REHEARSED and 0 < len(test) <= training.REHEARSED
    assert [fit.total for fit in trained] == [3]
    assert not any(tmp_path.iterdir())


def test_a_rehearsal_fails_where_the_network_does_not_fit(
    data: Store, folds: pd.DataFrame, tmp_path: Path, trained: list[Fit]
) -> None:
    fits = training.plan(folds, data, "vgg16", RECIPE, tmp_path, 1, classes=["a", "b"])
    with pytest.raises(ModelError, match="cannot take images of this size"):
        training.rehearse(fits, folds, "none", workers=0)
    assert trained == []


def test_a_rehearsal_fails_where_the_loss_does_not_fit(
    data: Store, folds: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = training.plan(folds, data, "conv_small", RECIPE, tmp_path, 1, classes=["a", "b"])
    real = losses.own
    monkeypatch.setattr(losses, "own", lambda *given: real(*given) * np.nan)
    with pytest.raises(TrainingError, match="the loss is not finite"):
        training.rehearse(fits, folds, "none", workers=0)
