"""RSNA-MICCAI 2021: its recipes, and each mistake of its entries made on purpose."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import slice_file
from pydicom import dcmread

from kit import synthetic
from kit.aggregate import to_cases
from kit.challenges import open_run, recipes
from kit.errors import GroupLeakError, ImageError, MissingDataError, SettingsError
from kit.finished import predict
from kit.folds import check_no_leak
from kit.inventory import verify
from kit.manifest import load_manifest
from kit.metrics import auc
from kit.pipeline import Run
from kit.recipes import Recipe, rates, recipe_of
from kit.submission import completed

CLASSES = ["unmethylated", "methylated"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make("rsna2021", tmp_path_factory.mktemp("drawn") / "d", scale=0.02)


@pytest.fixture
def data(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the drawn stand-in, in its place below a data folder, to be spoilt."""
    shutil.copy(Path(__file__).parent.parent / "data_manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(drawn, tmp_path / "data/rsna2021"))


def opened(data: Path, recipe: str = "kit", **settings: Any) -> Run:
    return open_run(
        "rsna2021", data=data.parent, smoke=True, recipe=recipe, workers=1,
        settings={"epochs": 1, "resamples": 100, **settings},
    )  # fmt: skip


def ids(data: Path) -> tuple[list[str], list[str]]:
    """The studies to learn from, and those that are asked for."""
    cases = load_manifest().dataset("rsna2021").cases(root=data)
    return tuple(list(cases.case_id[cases.split == part]) for part in ("train", "test"))  # type: ignore[return-value]


def test_the_teams_network_has_its_parameters_to_the_digit() -> None:
    from kit.models import build_model

    settings = recipes("rsna2021")["team"]
    assert settings["image_size"] == 32
    assert build_model(settings["model"], (32, 32, 1), 2).count_params() == 182_466


def mended(**more: Any) -> Recipe:
    given = {k: v for k, v in recipes("rsna2021")["mended"].items()
             if k in Recipe.__dataclass_fields__}  # fmt: skip
    return Recipe(**{**given, **more})


def test_the_staircase_is_used_and_its_first_stair_outlasts_the_training() -> None:
    # 582 patients with at most 60 slices in the middle half, a third of them, in batches of 32
    per_epoch = 582 * 20 // 32
    curve = rates(mended(), per_epoch)
    assert len(curve) == 40 * per_epoch < 100_000
    assert set(curve) == {1e-4}
    shorter = rates(mended(decay_steps=1000), per_epoch)
    assert shorter[999:1001] == [1e-4, pytest.approx(0.96e-4)]
    assert shorter[-1] == pytest.approx(1e-4 * 0.96 ** (len(curve) // 1000))


def test_the_teams_own_rate_never_saw_the_staircase() -> None:
    team, right = recipes("rsna2021")["team"], recipes("rsna2021")["mended"]
    differ = {key for key in right if team.get(key) != right[key]}
    assert differ == {"learning_rate", "schedule", "decay", "decay_steps", "votes"}
    assert (team["schedule"], team["learning_rate"]) == ("constant", 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["team", "mended"])
def test_the_rate_that_the_optimizer_had_is_that_of_the_recipe(data: Path, recipe: str) -> None:
    from kit.histories import read_all

    run = opened(data, recipe, epochs=2, decay_steps=1, decay=0.5, learning_rate=0.01)
    run.oof()
    history = read_all(run.models)
    found = history[history.network == history.network[0]].rate.tolist()
    assert len(found) == 2
    if recipe == "team":
        assert found == pytest.approx([0.01, 0.01])
    else:
        assert 0 < found[1] < found[0] < 0.01


def sliced(probabilities: dict[str, list[float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [(case, p) for case, values in probabilities.items() for p in values]
    table = pd.DataFrame(rows, columns=["case_id", "prob_methylated"])
    table = table.assign(fold=0, seed=0, model="m", prob_unmethylated=1 - table.prob_methylated)
    cases = pd.DataFrame({"case_id": list(probabilities), "group": list(probabilities)})
    return table, cases.assign(label="methylated", split="train")


def test_votes_are_rounded_to_tenths_and_tie_where_probabilities_do_not() -> None:
    given = {"a": [0.51, 0.9, 0.2], "b": [0.6, 0.55, 0.49], "c": [0.1, 0.2, 0.3]}
    table, cases = sliced(given)
    votes = to_cases(table, cases, CLASSES, "methylated", votes=True)
    assert votes.prob_methylated.tolist() == [0.7, 0.7, 0.0]  # two of three
    assert votes.prob_unmethylated.tolist() == pytest.approx([0.3, 0.3, 1.0])
    mean = to_cases(table, cases, CLASSES, "methylated")
    assert mean.prob_methylated.tolist() == pytest.approx([1.61 / 3, 1.64 / 3, 0.2])


def test_what_votes_throw_away_is_missed_in_the_auc() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1], 100)
    table, cases = sliced({
        f"{i:03d}": list(np.clip(random.normal(0.42 + 0.05 * kind, 0.02, 9), 0, 1))
        for i, kind in enumerate(truth)
    })  # fmt: skip
    votes, mean = (
        to_cases(table, cases, CLASSES, "methylated", votes=votes).prob_methylated
        for votes in (True, False)
    )
    assert votes.nunique() <= 11 and mean.nunique() == 200
    assert auc(truth, mean.to_numpy()) > 0.99
    assert auc(truth, votes.to_numpy()) < 0.8


def test_slices_of_a_patient_on_both_sides_are_refused() -> None:
    slices = pd.DataFrame({
        "case_id": [f"{patient}-{i}" for patient in "abcd" for i in range(4)],
        "group": np.repeat(list("abcd"), 4), "label": np.repeat(CLASSES, 8),
    })  # fmt: skip
    by_slice = slices.assign(fold=np.arange(16) % 2)
    with pytest.raises(GroupLeakError):
        check_no_leak(by_slice)


def test_a_run_deals_whole_patients(data: Path) -> None:
    run = opened(data)
    folds, items = run.folds(), run.pixels().items
    assert folds.case_id.is_unique and set(folds.group) == set(folds.case_id)
    of_slice = items.case_id.map(folds.set_index("case_id").fold)[items.split == "train"]
    assert of_slice.notna().all()
    assert (items.assign(fold=of_slice).groupby("case_id").fold.nunique() <= 1).all()


def test_every_way_of_storing_a_study_gives_the_same_pixels(data: Path) -> None:
    train = ids(data)[0][0]
    folder = data / "train" / train / "T1wCE"
    before = opened(data).pixels()
    rows = np.flatnonzero(before.items.case_id == train)
    images = before.pixels[rows]
    names = sorted(path.name for path in folder.iterdir())
    for i, name in enumerate(names):  # other names, other numbers, stored the other way round
        file = dcmread(folder / name)
        kept = file.pixel_array
        if file.PhotometricInterpretation == "MONOCHROME2":
            file.PhotometricInterpretation = "MONOCHROME1"
            file.PixelData = (4095 - kept).astype("<u2").tobytes()
        file.InstanceNumber = len(names) - i
        file.save_as(folder / f"other-{len(names) - i:03d}.dcm")
        (folder / name).unlink()
    again = opened(data).pixels()
    found = again.pixels[np.flatnonzero(again.items.case_id == train)]
    assert np.abs(found.astype(int) - images).max() <= 12  # MONOCHROME1 takes its black for 0
    assert np.corrcoef(found.ravel(), images.ravel())[0, 1] > 0.999


def test_ids_are_joined_and_a_case_without_a_prediction_gets_the_stated_row() -> None:
    predictions = pd.DataFrame({
        "case_id": ["00003", "00001"],
        "prob_unmethylated": [0.1, 0.8], "prob_methylated": [0.9, 0.2],
    })  # fmt: skip
    found = completed(predictions, ["00001", "00002", "00003"], CLASSES)
    assert found.case_id.tolist() == ["00001", "00002", "00003"]
    assert found.prob_methylated.tolist() == [0.2, 0.5, 0.9]
    assert completed(predictions, None, CLASSES) is predictions
    assert completed(predictions, ["00001"], CLASSES).prob_methylated.tolist() == [0.2]


def spoilt(data: Path) -> tuple[str, str, str]:
    """Take a test study's series away, ask for an unknown one, and turn the sample round."""
    _, (first, *rest) = ids(data)
    shutil.rmtree(data / "test" / first / "T1wCE")
    asked = [*rest, "00999", first][::-1]
    lines = ["BraTS21ID,MGMT_value", *(f"{int(case)},0.5" for case in asked)]
    (data / "sample_submission.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return first, "00999", rest[0]


def test_what_is_asked_for_and_missing_is_named(data: Path) -> None:
    first, unknown, _ = spoilt(data)
    lines = opened(data).failures()
    assert len(lines) == 2
    for case, line in zip((unknown, first), sorted(lines, reverse=True), strict=True):
        assert f"{case}: sample_submission.csv asks for it" in line
        assert f"no test/{case}/T1wCE" in line and "same probability" in line


def test_what_is_asked_for_and_missing_is_told_by_verify(data: Path) -> None:
    first, unknown, _ = spoilt(data)
    found = verify(load_manifest().dataset("rsna2021"), data.parent)
    lost = found[found.what == "sample"]
    assert sorted(lost.name) == sorted([first, unknown]) and set(lost.status) == {"missing"}
    assert set(found.status[found.what != "sample"]) == {"good"}


def test_a_study_that_nobody_asks_for_is_named(data: Path) -> None:
    _, (first, *rest) = ids(data)
    text = "".join(f"{case},0.5\n" for case in rest)
    (data / "sample_submission.csv").write_text("BraTS21ID,MGMT_value\n" + text, encoding="utf-8")
    (line,) = opened(data).failures()
    assert line.startswith(f"{first}: sample_submission.csv does not ask for it")


def test_without_a_sample_a_missing_series_is_an_error_as_in_training(data: Path) -> None:
    (data / "sample_submission.csv").unlink()
    train, (first, *_) = ids(data)
    shutil.rmtree(data / "test" / first / "T1wCE")
    with pytest.raises(MissingDataError, match=f"{first}/T1wCE"):
        opened(data).cases()
    shutil.rmtree(data / "test" / first)
    shutil.rmtree(data / "train" / train[0] / "T1wCE")
    with pytest.raises(MissingDataError, match=f"{train[0]}/T1wCE"):
        opened(data).cases()


@pytest.mark.slow
def test_the_submission_holds_every_id_once_whatever_is_missing(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, unknown, other = spoilt(data)
    run = opened(data)
    found = run.complete()
    assert len(found["failures"]) == 2 and found["synthetic"]
    rows = pd.read_csv(found["submission"], dtype={"BraTS21ID": str}).set_index("BraTS21ID")
    assert sorted(rows.index) == sorted([first, unknown, *ids(data)[1]])
    assert rows.MGMT_value[[first, unknown]].tolist() == [0.5, 0.5]
    own = run.ensemble().predict(run.test()).set_index("case_id").prob_methylated
    assert rows.MGMT_value[other] == pytest.approx(own[other])
    with caplog.at_level(logging.WARNING):
        later = predict(run.out, data.parent, tmp_path / "later.csv")
    assert sorted(later.case_id) == sorted(rows.index)
    assert f"{first}: sample_submission.csv asks for it" in caplog.text
    assert (tmp_path / "later.csv").read_bytes() == Path(found["submission"]).read_bytes()


def cut(folder: Path) -> Path:
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])
    return path


def test_a_study_cut_off_is_left_out_by_name_and_a_test_study_is_refused(data: Path) -> None:
    train, tests = ids(data)
    damaged = cut(data / "train" / train[0] / "T1wCE")
    with pytest.raises(ImageError, match=f"too many.*{damaged.name}"):  # one of twelve
        opened(data).pixels()
    cut(data / "test" / tests[0] / "T1wCE")
    with pytest.raises(ImageError, match="none may be left out") as caught:
        opened(data).pixels()
    assert f"{tests[0]}: " in str(caught.value) and f"{train[0]}: " not in str(caught.value)


@pytest.mark.parametrize("series", ["T1wCE", "FLAIR"])
def test_a_test_series_without_a_file_is_missing(data: Path, series: str) -> None:
    _, tests = ids(data)
    folder = data / "test" / tests[0] / series
    for path in folder.iterdir():
        path.unlink()
    (folder / ".DS_Store").touch()
    run = opened(data)
    own = series == "T1wCE"
    assert (tests[0] in set(run.cases().case_id)) is not own
    assert any(line.startswith(f"{tests[0]}: ") for line in run.failures()) is own
    plan = run.patches()
    noted = plan[plan.case_id == tests[0]].notes
    assert own or "FLAIR: not there, its channel is black" in noted.iloc[0]


@pytest.mark.parametrize("what", ["mixed sizes", "empty", "black"])
def test_odd_series_are_refused_by_name(data: Path, what: str) -> None:
    train, _ = ids(data)
    folder = data / "train" / train[0] / "T1wCE"
    if what == "mixed sizes":
        slice_file(folder / "odd.dcm", np.ones((5, 6)))
    for path in folder.iterdir() if what != "mixed sizes" else ():
        if what == "empty":
            path.unlink()
        else:
            file = dcmread(path)
            file.PhotometricInterpretation = "MONOCHROME2"
            file.PixelData = bytes(len(file.PixelData))
            file.save_as(path)
    said = {"mixed sizes": "differ in size", "empty": "no DICOM file", "black": "is black"}
    with pytest.raises(ImageError, match=f"{train[0]}.*{said[what]}"):
        opened(data).pixels()


def test_all_series_are_channels_and_a_missing_one_is_black_and_said(data: Path) -> None:
    train, _ = ids(data)
    shutil.rmtree(data / "train" / train[0] / "FLAIR")
    run = opened(data)
    store = run.pixels()
    assert store.pixels.shape[1:] == (32, 32, 4)
    mine = store.items.case_id == train[0]
    flair = store.pixels[np.flatnonzero(mine)][..., 0]
    assert (flair == 0).all()
    others = store.pixels[np.flatnonzero(~mine)]
    assert (others.max(axis=(1, 2)) > 100).all()
    # One head in every channel: what is air in one series is air in all.
    air = others[..., 2] < 20
    assert np.median(others[air]) < 30 and np.median(others[~air]) > 60
    (warned,) = [line for line in run._warnings({"warnings": []}) if "odd series" in line]
    assert f"{train[0]} (FLAIR: not there, its channel is black)" in warned


def test_another_series_changed_is_another_study_where_it_is_a_channel(data: Path) -> None:
    train, _ = ids(data)
    keys = {name: opened(data, channels=name).cases().key for name in ("slice", "series")}
    path = next(iter((data / "train" / train[0] / "T2w").iterdir()))
    file = dcmread(path)
    file.PixelData = bytes(len(file.PixelData))
    file.save_as(path)
    again = {name: opened(data, channels=name).cases().key for name in keys}
    assert again["slice"].equals(keys["slice"])
    assert (again["series"] != keys["series"]).sum() == 1


def test_neighbours_are_three_channels(data: Path) -> None:
    assert opened(data, channels="neighbours").pixels().pixels.shape[1:] == (32, 32, 3)


def test_settings_of_studies_are_refused_elsewhere(data: Path) -> None:
    with pytest.raises(SettingsError, match=r"channels is of kind dicom alone.*channels=series"):
        open_run("khd2020", smoke=True, settings={"channels": "series"})
    synthetic.make("synthetic_mri", data.parent / "synthetic_mri", scale=0.05)
    with pytest.raises(SettingsError, match=r"synthetic_mri does not say which series"):
        open_run("synthetic_mri", data=data.parent, settings={"channels": "series"})


def test_the_settings_are_those_of_the_facts() -> None:
    team = recipe_of(open_team := open_settings("team"))
    assert (team.optimizer, team.epochs, team.stop_after, team.monitor) == ("adam", 40, 3, "auc")
    assert (open_team.channels, open_team.scaling, open_team.votes) == ("slice", "maximum", True)
    assert not open_settings("mended").votes


def open_settings(recipe: str) -> Any:
    from kit.settings import resolve

    return resolve("dicom", recipes("rsna2021")[recipe], overrides={})
