from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import project
import pytest

from kit import locks
from kit.cli import main
from kit.files import read_json, read_table
from kit.store import Store


@dataclass
class Done:
    """What one call of the command gave."""

    code: int
    out: str
    err: str


Kit = Callable[..., Done]


@pytest.fixture
def kit(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Call the command in this process, in a folder, with one worker."""

    def call(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return Done(int(stopped.value.code or 0), said.out, said.err)

    return call


RUN = ["run", "tiny", "--out", "out", "--workers", "0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one finished quick run in `out`."""
    folder = tmp_path_factory.mktemp("finished")
    project.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as stopped:
            main([*RUN, *project.quick()])
    assert stopped.value.code == 0
    yield folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished project, to be changed."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != locks.NAME and path.name != "settings.json"
    }


def test_a_run_leaves_every_table_and_file(finished: Path) -> None:
    out = finished / "out"
    for name in (
        "cases.parquet", "folds.parquet", "oof.parquet", "test.parquet", "metrics.json",
        "settings.json", "report.html", "submission.csv", "models/fold0_seed0.keras",
        "figures/forest.png",
    ):  # fmt: skip
        assert (out / name).is_file(), name
    assert not list(out.rglob(".part-*"))


def test_out_of_fold_predictions_have_each_training_case_once_from_its_own_fold(
    finished: Path,
) -> None:
    oof, folds = (read_table(finished / "out" / f"{name}.parquet") for name in ("oof", "folds"))
    joined = oof.merge(folds, on="case_id", suffixes=("", "_of_case"))
    assert sorted(oof.case_id) == sorted(folds.case_id)
    assert (joined.fold == joined.fold_of_case).all()
    assert folds.groupby("group").fold.nunique().max() == 1


def test_test_rows_are_in_the_submission_and_nowhere_in_training(finished: Path) -> None:
    out = finished / "out"
    cases = read_table(out / "cases.parquet")
    test = set(cases.case_id[cases.split == "test"])
    assert len(test) == 6
    assert set(pd.read_csv(out / "submission.csv").case_id) == test
    assert not test & set(read_table(out / "folds.parquet").case_id)
    assert not test & set(read_table(out / "oof.parquet").case_id)
    predicted = read_table(out / "test.parquet")
    assert set(predicted.case_id) == test
    assert predicted.fold.nunique() == 2
    assert predicted.y_true.isna().all()


def test_the_submission_is_the_mean_of_the_folds(finished: Path) -> None:
    out = finished / "out"
    mean = read_table(out / "test.parquet").groupby("case_id").prob_malignant.mean()
    sent = pd.read_csv(out / "submission.csv").set_index("case_id")
    np.testing.assert_allclose(sent.prob_malignant, mean.loc[sent.index], atol=1e-6)
    threshold = read_json(out / "metrics.json")["threshold"]
    assert (sent.label.eq("malignant") == (mean.loc[sent.index] >= threshold)).all()


def test_the_second_call_makes_nothing_again(copy: Path, kit: Kit) -> None:
    kit(copy, *RUN, *project.quick())  # files moved to another folder are read once more
    before = times(copy)
    assert kit(copy, *RUN, *project.quick()).code == 0
    assert times(copy) == before


def test_the_ledger_has_one_line_for_a_run_called_twice(copy: Path, kit: Kit) -> None:
    kit(copy, *RUN, *project.quick())
    ledger = pd.read_csv(copy / "submissions" / "tiny" / "ledger.csv")
    assert len(ledger) == 1
    figure = read_json(copy / "out" / "metrics.json")["mean_of_six"]
    assert list(ledger.loc[0, ["local", "low", "high"]]) == list(figure.values())
    assert ledger.metric[0] == "mean_of_six" and ledger.id[0] == "tiny-1"


def test_a_changed_training_image_trains_again_the_folds_that_see_it_and_no_other(
    copy: Path, kit: Kit
) -> None:
    folds = read_table(copy / "out" / "folds.parquet")
    case = folds.iloc[0]
    project.write(copy / "data" / "tiny" / f"{case.case_id}.png", project.image(999, True))
    before = times(copy / "out" / "models")
    assert kit(copy, *RUN, *project.quick()).code == 0
    after = times(copy / "out" / "models")
    unseen, seen = case.fold, 1 - case.fold
    assert after[f"fold{unseen}_seed0.keras"] == before[f"fold{unseen}_seed0.keras"]
    assert after[f"fold{unseen}_seed0_oof.parquet"] > before[f"fold{unseen}_seed0_oof.parquet"]
    assert after[f"fold{seen}_seed0.keras"] > before[f"fold{seen}_seed0.keras"]


def test_changed_test_pixels_change_no_weight_and_no_threshold(copy: Path, kit: Kit) -> None:
    out = copy / "out"
    for number in range(3):
        project.write(copy / "data" / "tiny" / f"p10_{number}.png", project.image(number, True))
    before, metrics = contents(out), read_json(out / "metrics.json")
    assert kit(copy, *RUN, *project.quick()).code == 0
    after = contents(out)
    same = ["folds.parquet", "oof.parquet", "metrics.json", "ensemble.json"]
    same += [name for name in before if name.endswith(".keras")]
    assert len(same) == 6
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert read_json(out / "metrics.json")["threshold"] == metrics["threshold"]
    assert after["submission.csv"] != before["submission.csv"]


def test_the_same_seed_gives_the_same_run_in_another_folder(
    finished: Path, tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    assert kit(tmp_path, *RUN, *project.quick()).code == 0
    for name in ("folds.parquet", "oof.parquet", "test.parquet", "submission.csv", "metrics.json"):
        assert contents(tmp_path / "out")[name] == contents(finished / "out")[name], name


def test_json_is_one_object_and_nothing_else(copy: Path, kit: Kit) -> None:
    done = kit(copy, *RUN, *project.quick(), "--json")
    found = json.loads(done.out)
    for name in (
        "accuracy", "specificity", "sensitivity", "ppv", "npv", "f1", "mean_of_six", "auc",
    ):  # fmt: skip
        assert set(found[name]) == {"value", "low", "high"}
    assert found["n"] == 30
    assert found["n_groups"] == 10
    assert 0 <= found["threshold"] <= 1
    assert {"seconds", "out", "submission"} <= set(found)


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(
    copy: Path, kit: Kit
) -> None:
    before = contents(copy)
    done = kit(copy, *RUN, *project.quick(epochs=2))
    assert done.code == 2
    assert "epochs: 1 there, 2 now" in done.err
    assert contents(copy) == before


def test_an_unknown_setting_names_its_neighbours(finished: Path, kit: Kit) -> None:
    done = kit(finished, "run", "tiny", "--set", "epoch=3")
    assert done.code == 2
    assert "did you mean epochs" in done.err


def test_an_unknown_challenge_lists_the_known_ones(finished: Path, kit: Kit) -> None:
    done = kit(finished, "run", "tinny")
    assert done.code == 2
    assert "help2019" in done.err
    assert "did you mean tiny" in done.err


def test_a_misspelt_manifest_key_names_the_right_one(copy: Path, kit: Kit) -> None:
    manifest = copy / "data_manifest.yaml"
    manifest.write_text(project.ENTRY.replace("licence", "license"))
    done = kit(copy, "run", "tiny")
    assert done.code == 2
    assert "licence" in done.err
    assert "data_manifest.yaml" in done.err


def test_a_missing_data_folder_is_named_with_a_remedy(finished: Path, kit: Kit) -> None:
    done = kit(finished, "run", "tiny", "--data", "nowhere")
    assert done.code == 2
    assert "nowhere/tiny" in done.err
    assert "--data DIR" in done.err


def labels(folder: Path) -> tuple[Path, pd.DataFrame]:
    path = folder / "data" / "tiny" / "labels.csv"
    return path, pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: pd.concat([t, t.iloc[:2]]), "doubled"),
        (lambda t: t.assign(label=t.label.where(t.index != 3, "malingant")), "malingant"),
        (lambda t: t.assign(label=t.label.where(t.index != 3, "")), "empty"),
        (lambda t: t.assign(split=t.split.where(t.index != 3, "test")), "p01"),
        (lambda t: t[t.patient.isin(["p00", "p02", "p01", "p11"])], "malignant"),
    ],
    ids=["doubled ids", "unknown label", "empty label", "group on both sides", "too few groups"],
)
def test_a_bad_label_table_stops_with_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str, tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    path, table = labels(tmp_path)
    change(table).to_csv(path, index=False)
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out" / "folds.parquet").exists()


def test_an_unreadable_training_image_is_left_out_by_name(tmp_path: Path, kit: Kit) -> None:
    root = project.make(tmp_path, patients=10, each=5)
    (root / "p00_0.png").write_bytes((root / "p00_0.png").read_bytes()[:50])
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 1
    assert "left out: p00_0" in done.out
    assert "p00_0" not in set(read_table(tmp_path / "out" / "oof.parquet").case_id)
    assert kit(tmp_path, *RUN, *project.quick()).code == 1, "the second call must not forget it"


@pytest.mark.parametrize("names", [["p10_0"], ["p00_0", "p00_1"]], ids=["test row", "too many"])
def test_unreadable_images_stop_the_run(names: list[str], tmp_path: Path, kit: Kit) -> None:
    root = project.make(tmp_path)
    for name in names:
        (root / f"{name}.png").write_bytes(b"no image")
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 2
    assert names[0] in done.err
    assert not (tmp_path / "out" / "submission.csv").exists()


def test_one_fold_now_and_the_rest_later_is_the_same_run(
    finished: Path, tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    done = kit(tmp_path, *RUN, *project.quick(), "--folds", "1")
    assert done.code == 0
    assert "only folds 1" in done.out
    assert set(read_table(tmp_path / "out" / "oof.parquet").fold) == {1}
    assert kit(tmp_path, *RUN, *project.quick()).code == 0
    assert (tmp_path / "out" / "oof.parquet").read_bytes() == (
        finished / "out" / "oof.parquet"
    ).read_bytes()


def test_a_fold_table_is_used_and_a_leak_in_it_is_refused(
    finished: Path, tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    folds = read_table(finished / "out" / "folds.parquet")
    folds["fold"] = 1 - folds.fold
    folds.to_csv(tmp_path / "mine.csv", index=False)
    assert kit(tmp_path, *RUN, *project.quick(), "--fold-table", "mine.csv").code == 0
    used = read_table(tmp_path / "out" / "folds.parquet").set_index("case_id").fold
    assert (used == folds.set_index("case_id").fold.loc[used.index]).all()
    folds.loc[0, "fold"] = 1 - folds.fold[0]
    folds.to_csv(tmp_path / "leak.csv", index=False)
    done = kit(tmp_path, "run", "tiny", "--out", "leak", "--workers", "0", *project.quick(),
               "--fold-table", "leak.csv")  # fmt: skip
    assert done.code == 2
    assert folds.group[0] in done.err


@pytest.mark.parametrize("way", ["exact", "turned"])
def test_an_image_that_stands_in_two_folds_under_two_names_stops_the_run(
    finished: Path, tmp_path: Path, kit: Kit, way: str
) -> None:
    root = project.make(tmp_path)
    folds = read_table(finished / "out" / "folds.parquet").set_index("case_id").fold
    first = next(name for name in folds.index if folds[name] == 0)
    other = next(name for name in folds.index if folds[name] == 1)
    side = cv2.imread(str(root / f"{first}.png")).shape[0]
    spots = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    pixels = cv2.resize(spots, (side, side), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(root / f"{first}.png"), pixels)
    turned = pixels if way == "exact" else np.ascontiguousarray(np.rot90(pixels))
    cv2.imwrite(str(root / f"{other}.png"), turned)
    folds.reset_index().to_csv(tmp_path / "mine.csv", index=False)
    done = kit(tmp_path, *RUN, *project.quick(), "--fold-table", "mine.csv")
    assert done.code == 2
    assert "alike stand in more than one fold" in done.err
    assert {"exact": ": exact", "turned": ": turned"}[way] in done.err
    assert first in done.err and other in done.err
    done = kit(tmp_path, *RUN, *project.quick())  # left to itself the run joins the two
    assert done.code == 0
    assert "their groups were joined" in done.out
    made = read_table(tmp_path / "out" / "folds.parquet").set_index("case_id")
    assert made.fold[first] == made.fold[other] and made.group[first] == made.group[other]


def test_pixels_may_be_kept_as_jpeg(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    assert kit(tmp_path, *RUN, *project.quick(jpeg_quality=90)).code == 0
    kept = Store(tmp_path / "out" / "pixels")
    assert kept.pixels.encoding == "jpeg q90"
    assert len(kept.pixels) == 36


def test_without_test_rows_the_submission_holds_the_out_of_fold_predictions(
    tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path, tests=0)
    assert kit(tmp_path, *RUN, *project.quick()).code == 0
    sent = pd.read_csv(tmp_path / "out" / "submission.csv")
    assert sorted(sent.case_id) == sorted(read_table(tmp_path / "out" / "oof.parquet").case_id)


def test_predicting_the_same_data_later_gives_the_same_submission(copy: Path, kit: Kit) -> None:
    path, table = labels(copy)
    later = copy / "later" / "tiny"
    shutil.copytree(path.parent, later)
    table[table.split == "test"].drop(columns=["label"]).to_csv(later / "labels.csv", index=False)
    done = kit(copy, "predict", "out", "--data", "later", "--out", "later.csv", "--workers", "1")
    assert done.code == 0, done.err
    assert (copy / "later.csv").read_bytes() == (copy / "out" / "submission.csv").read_bytes()


def test_predicting_with_a_run_that_is_not_there_is_one_line(copy: Path, kit: Kit) -> None:
    done = kit(copy, "predict", "nowhere", "--data", "data", "--out", "later.csv")
    assert done.code == 2
    assert "nowhere" in done.err
    assert not (copy / "later.csv").exists()


def test_runs_stand_side_by_side_with_the_settings_that_differ(copy: Path, kit: Kit) -> None:
    done = kit(copy, "run", "tiny", "--out", "other", "--workers", "0", *project.quick(epochs=2))
    assert done.code == 0
    rows = json.loads(kit(copy, "runs", ".", "--json").out)["runs"]
    assert {row["run"]: row["epochs"] for row in rows} == {"out": 1, "other": 2}
    assert all("model" not in row for row in rows)
    assert all(set(row["auc"]) == {"value", "low", "high"} for row in rows)
    shown = kit(copy, "runs").out
    assert "no finished runs" not in shown


def test_smoke_without_data_says_synthetic_everywhere_and_writes_no_ledger(
    tmp_path: Path, kit: Kit
) -> None:
    manifest = Path(__file__).parent.parent / "data_manifest.yaml"
    shutil.copy(manifest, tmp_path)
    done = kit(tmp_path, "run", "idc_patches", "--smoke", "--workers", "0", "--json",
               "--set", "epochs=1", "--set", "resamples=100")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    out = Path(found["out"])
    assert "SYNTHETIC" in done.err
    assert "SYNTHETIC" in out.name
    assert (out / "SYNTHETIC.txt").is_file()
    assert "SYNTHETIC" in (out / "report.html").read_text()
    assert read_json(out / "settings.json")["synthetic"] is True
    assert not list(tmp_path.rglob("ledger.csv"))


def test_a_run_from_before_a_setting_existed_goes_on(copy: Path, kit: Kit) -> None:
    path = copy / "out" / "settings.json"
    told = read_json(path)
    del told["compared"]["aggregate"]
    path.write_text(json.dumps(told))
    assert kit(copy, *RUN, *project.quick()).code == 0


def test_a_damaged_network_is_trained_again_and_not_predicted_with(copy: Path, kit: Kit) -> None:
    model = copy / "out" / "models" / "fold1_seed0.keras"
    whole, sent = model.read_bytes(), (copy / "out" / "submission.csv").read_bytes()
    model.write_bytes(whole[:5000])
    done = kit(copy, "predict", "out", "--data", "data", "--out", "later.csv")
    assert done.code == 2
    assert "fold1_seed0.keras" in done.err
    assert kit(copy, *RUN, *project.quick()).code == 0
    assert len(model.read_bytes()) > 100_000
    assert (copy / "out" / "submission.csv").read_bytes() == sent


def test_predicting_with_a_part_of_the_ensemble_is_refused(copy: Path, kit: Kit) -> None:
    (copy / "out" / "models" / "fold0_seed0.keras").unlink()
    done = kit(copy, "predict", "out", "--data", "data", "--out", "later.csv")
    assert done.code == 2
    assert "fold0_seed0.keras" in done.err
    assert not (copy / "later.csv").exists()


@pytest.mark.parametrize("target", ["data", "out/submission.csv"])
def test_later_predictions_are_never_written_over_a_folder_or_the_run(
    target: str, copy: Path, kit: Kit
) -> None:
    before = contents(copy)
    done = kit(copy, "predict", "out", "--data", "data", "--out", target)
    assert done.code == 2
    assert contents(copy) == before


@pytest.mark.parametrize("name", ["stages.json", "metrics.json", "submission.csv", "oof.parquet",
                                  "report.html", "models/fold0_seed0.json"])  # fmt: skip
def test_a_damaged_file_of_the_run_is_made_again(name: str, copy: Path, kit: Kit) -> None:
    path = copy / "out" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert kit(copy, *RUN, *project.quick()).code == 0
    if name.startswith("models"):  # a network's file holds the time of its writing
        assert read_json(path)["key"] == json.loads(whole)["key"]
    elif name != "report.html":
        assert path.read_bytes() == whole


def test_a_refused_command_can_be_given_right_into_the_same_folder(
    tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    refused = kit(tmp_path, *RUN, *project.quick(n_splits=50))
    assert refused.code == 2
    assert "n_splits" in refused.err
    assert kit(tmp_path, *RUN, *project.quick()).code == 0


def test_a_run_among_the_images_that_its_pattern_takes_is_refused(tmp_path: Path, kit: Kit) -> None:
    root = project.make(tmp_path, tests=0)
    entry = project.ENTRY.replace("table: labels.csv", 'pattern: "{label}/{case_id}.png"')
    (tmp_path / "data_manifest.yaml").write_text(
        entry.replace("column: patient", "pattern: (p..)_")
    )
    table = labels(tmp_path)[1]
    for path, label in zip(table.path, table.label, strict=True):
        (root / label).mkdir(exist_ok=True)
        (root / path).rename(root / label / path)
    done = kit(tmp_path, "run", "tiny", "--out", "data/tiny/out", *project.quick())
    assert done.code == 2
    assert not (root / "out").exists()
    assert kit(tmp_path, *RUN, *project.quick()).code == 0


@pytest.mark.parametrize("folds", ["7", "a", ""])
def test_folds_that_cannot_be_are_refused_before_anything_is_read(
    folds: str, tmp_path: Path, kit: Kit
) -> None:
    project.make(tmp_path)
    done = kit(tmp_path, *RUN, *project.quick(), "--folds", folds)
    assert done.code == 2
    assert "--folds" in done.err
    assert not (tmp_path / "out").exists()


def test_a_misspelt_split_is_not_taken_for_training(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    path, table = labels(tmp_path)
    table.replace({"split": {"test": "tset"}}).to_csv(path, index=False)
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 2
    assert "did you mean test" in done.err


def test_a_table_of_another_separator_names_the_key_that_says_so(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    path, table = labels(tmp_path)
    table.to_csv(path, index=False, sep=";")
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 2
    assert "separator" in done.err


def test_images_of_one_class_alone_cannot_be_learnt_from(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    path, table = labels(tmp_path)
    table["label"] = table.label.replace("malignant", "benign")
    table.to_csv(path, index=False)
    done = kit(tmp_path, *RUN, *project.quick())
    assert done.code == 2
    assert "nothing to learn from of class malignant" in done.err
    assert " benign" in done.err


def test_a_fixed_threshold_is_said_to_be_given(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    done = kit(tmp_path, *RUN, *project.quick(threshold=0.3))
    assert done.code == 0
    assert "from 0.3000 on. Decided by the threshold given." in done.out


def test_a_misspelt_setting_of_an_entry_names_entry_and_manifest(tmp_path: Path, kit: Kit) -> None:
    project.make(tmp_path)
    manifest = tmp_path / "data_manifest.yaml"
    manifest.write_text(project.ENTRY + "    settings: {epoch: 3}\n")
    done = kit(tmp_path, *RUN)
    assert done.code == 2
    assert "dataset tiny" in done.err
    assert "did you mean epochs" in done.err
    assert "data_manifest.yaml" in done.err


def test_every_setting_is_listed_with_its_choices(tmp_path: Path, kit: Kit) -> None:
    done = kit(tmp_path, "run", "tiny", "--set", "?")
    assert done.code == 0
    assert "resnet_small" in done.out
    assert "mean_of_six" in done.out


def test_mixed_sizes_without_a_rule_stop_the_run_and_name_both_rules(
    tmp_path: Path, kit: Kit
) -> None:
    root = project.make(tmp_path)
    project.write(root / "p03_1.png", project.image(1, True)[:, :12])
    refused = kit(tmp_path, *RUN, *project.quick())
    assert refused.code == 2
    for word in ("mixed sizes", "p03_1.png", "(16, 12, 3)", "resize", "pad", "manifest"):
        assert word in refused.err, word
    padded = kit(tmp_path, *RUN, *project.quick(mixed_sizes="pad"))
    assert padded.code == 0
