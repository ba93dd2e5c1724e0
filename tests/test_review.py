"""Doubtful labels: which come up, what a person's marks change, and what they leave alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import project
import pytest

from kit import kinds, marks, review, scoring, store
from kit.ensemble import Ensemble
from kit.errors import MissingDataError, TableError
from kit.files import read_json, read_table, write_table
from kit.settings import Settings

CLASSES = ["benign", "malignant"]


def cases() -> pd.DataFrame:
    return pd.DataFrame({
        "case_id": ["a", "b", "c", "d", "t"],
        "path": ["a.png", "b.png", "c.png", "d.png", "t.png"],
        "label": ["benign", "malignant", "benign", "malignant", None],
        "group": ["p", "q", "r", "s", "u"],
        "split": ["train"] * 4 + ["test"],
        "key": list("12345"),
    })  # fmt: skip


def csv(folder: Path, *rows: str) -> Path:
    path = folder / "review.csv"
    path.write_text("\n".join(["case_id,action,new_label", *rows]) + "\n")
    return path


def marked(folder: Path, *rows: str) -> pd.DataFrame:
    return marks.marked(cases(), csv(folder, *rows), CLASSES)


def test_marks_stand_beside_the_label_as_given(tmp_path: Path) -> None:
    found = marked(tmp_path, "a,relabel,malignant", "b,drop,", "d,keep,", "c,,")
    pd.testing.assert_frame_equal(found[cases().columns], cases())
    assert found[marks.ACTION].tolist() == ["relabel", "drop", "", "keep", ""]
    assert found[marks.REVIEWED].tolist()[:4] == ["malignant", "malignant", "benign", "malignant"]
    assert found[marks.REVIEWED].isna().tolist() == [False] * 4 + [True]


def test_a_review_that_marks_nothing_leaves_the_cases_table_as_it_was(tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(marked(tmp_path, "a,,", "zzz,,"), cases())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a,drpo,"], "unknown action.*one of drop, relabel, keep.*drpo at a.*did you mean drop"),
        (["aa,drop,"], "not in the data.*Received: aa.*did you mean a"),
        (["a,relabel,"], "relabel needs the class.*benign, malignant.*nothing at a"),
        (["a,relabel,malingant"], "malingant at a.*did you mean malignant"),
        (["a,drop,", "a,keep,"], "marked twice.*Received: a"),
        (["t,keep,"], "test cases are marked.*Received: t"),
        (["a,,malignant"], "a new label without an action.*malignant at a"),
        (["a,drop,malignant"], "belongs to action relabel alone.*drop malignant at a"),
    ],
)
def test_a_mark_that_cannot_be_is_one_line_with_file_and_remedy(
    rows: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=said) as found:
        marked(tmp_path, *rows)
    assert found.value.path == str(tmp_path / "review.csv")
    assert found.value.remedy and "\n" not in str(found.value)


def test_a_file_that_is_no_review_says_what_one_is(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    with pytest.raises(MissingDataError, match=r"no such review.*case_id, action.*kit review"):
        marks.marked(cases(), path, CLASSES)
    for text in ("case_id;action;new_label\na;drop;\n", "case_id,label\na,benign\n"):
        path.write_text(text)
        with pytest.raises(TableError, match=r"not a review of labels.*CSV with commas"):
            marks.marked(cases(), path, CLASSES)


def test_a_slide_whose_mask_labels_its_patches_is_not_relabelled(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,relabel,malignant")
    with pytest.raises(TableError, match=r"labelled by masks.*Received: a.*correct mask"):
        marks.marked(cases(), path, CLASSES, by_mask=True)
    marks.marked(cases(), csv(tmp_path, "a,drop,"), CLASSES, by_mask=True)


def test_a_dropped_image_is_predicted_and_not_learnt_from(tmp_path: Path) -> None:
    found = kinds.items(marked(tmp_path, "a,relabel,malignant", "b,drop,"), None, Settings())
    assert found.train.tolist() == [True, False, True, True, False]
    assert found.predict.all()
    assert found.label.tolist()[:4] == ["malignant", "malignant", "benign", "malignant"]
    plain = kinds.items(cases(), None, Settings())
    assert list(found.columns) == list(plain.columns)
    assert plain.train.tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("labelled", [True, False], ids=["slices with a label", "without"])
def test_marks_reach_every_patch_of_a_case_and_no_other(labelled: bool, tmp_path: Path) -> None:
    plan = pd.DataFrame(
        [(c, 0, y) for c in "abcdt" for y in range(4)], columns=["case_id", "x", "y"]
    )
    given = plan.case_id.map(cases().set_index("case_id").label)
    plan["label"] = given.where(labelled & given.notna(), None)
    few = Settings(patches_per_slide=2, predict_per_slide=1)
    before = kinds.items(cases(), plan, few)
    after = kinds.items(marked(tmp_path, "a,relabel,malignant", "b,drop,"), plan, few)
    place = ["case_id", "x", "y", "predict"]
    pd.testing.assert_frame_equal(before[place], after[place])
    assert set(after.label[after.train & (after.case_id == "a")]) == {"malignant"}
    assert not after.train[after.case_id == "b"].any()
    others = after.case_id.isin(["c", "d", "t"])
    pd.testing.assert_frame_equal(before[others], after[others])


def scored() -> scoring.Scored:
    prob = np.array([0.9, 0.2, 0.1, 0.8])
    table = pd.DataFrame({
        "case_id": list("abcd"), "group": list("pqrs"), "fold": [0, 0, 1, 1],
        "y_true": cases().label[:4], "prob_benign": 1 - prob, "prob_malignant": prob,
        "y_pred": ["malignant", "benign", "benign", "malignant"],
    })  # fmt: skip
    return scoring.Scored(table, 0.5, "a test", ("benign", "malignant"), "malignant")


def test_reviewed_figures_take_new_labels_and_leave_dropped_cases_out(tmp_path: Path) -> None:
    table = marked(tmp_path, "a,relabel,malignant", "b,drop,", "c,keep,")
    found = scoring.reviewed(scored(), table, resamples=100, seed=0)["reviewed"]
    assert [found[name] for name in ("n", "dropped", "relabelled", "kept")] == [3, 1, 1, 1]
    assert found["accuracy"]["value"] == 1.0  # a, c and d are right by the reviewed labels
    assert found["auc"]["value"] == 1.0
    as_given = scoring.figures(scored(), n_folds=2, resamples=100, seed=0, method=0.5)
    assert as_given["accuracy"]["value"] == 0.5  # a and b are wrong by those given


def test_without_marks_nothing_is_said_of_a_review() -> None:
    assert scoring.reviewed(scored(), cases(), resamples=100, seed=0) == {}
    assert marks.key(cases()) == []


def predictions(classes: list[str], prob: dict[str, list[list[float]]]) -> pd.DataFrame:
    """Return a table of `prob`: for each case a row of probabilities for each seed."""
    truth = cases().set_index("case_id")
    rows = [
        (case, truth.group[case], 0, seed, "net", truth.label[case], *values)
        for case, seeds in prob.items()
        for seed, values in enumerate(seeds)
    ]
    names = ["case_id", "group", "fold", "seed", "model", "y_true"]
    return pd.DataFrame(rows, columns=[*names, *(f"prob_{name}" for name in classes)])


def ranked(oof: pd.DataFrame, table: pd.DataFrame | None = None) -> pd.DataFrame:
    return review.ranked(oof, cases() if table is None else table, Ensemble("mean").fit(oof))


TWO = {"a": [[0.1, 0.9], [0.3, 0.7]], "b": [[0.1, 0.9], [0.1, 0.9]],
       "c": [[0.8, 0.2], [0.6, 0.4]], "d": [[0.6, 0.4], [0.8, 0.2]]}  # fmt: skip


def test_the_label_of_least_probability_comes_first_by_the_mean_over_seeds() -> None:
    found = ranked(predictions(CLASSES, TWO))
    assert list(found.columns) == review.COLUMNS
    assert found.case_id.tolist() == ["a", "d", "c", "b"]
    assert found["rank"].tolist() == [1, 2, 3, 4]
    assert found.suggested.tolist() == ["malignant", "benign", "benign", "malignant"]
    np.testing.assert_allclose(found.prob_label, [0.2, 0.3, 0.7, 0.9])
    np.testing.assert_allclose(found.prob_suggested, [0.8, 0.7, 0.7, 0.9])
    np.testing.assert_allclose(found.disagreement, [0.8, 0.7, 0.3, 0.1])
    np.testing.assert_allclose(found.spread, [0.1, 0.1, 0.1, 0.0], atol=1e-12)
    assert found.n_seeds.tolist() == [2] * 4
    assert found[review.FILLED].eq("").all(axis=None)


def test_of_many_classes_the_likeliest_is_suggested() -> None:
    classes = ["benign", "cyst", "malignant"]
    prob = {"a": [[0.2, 0.7, 0.1]], "b": [[0.3, 0.3, 0.4]]}
    found = ranked(predictions(classes, prob))
    assert found.suggested.tolist() == ["cyst", "malignant"]
    np.testing.assert_allclose(found.prob_label, [0.2, 0.4])
    assert found.spread.isna().all()  # one network


def test_marked_cases_say_so_kept_ones_stay_away_and_neither_takes_a_place(tmp_path: Path) -> None:
    table = marked(tmp_path, "a,relabel,malignant", "d,keep,")
    found = ranked(predictions(CLASSES, TWO), table)
    shown = review.listed(found, 1)
    assert shown.case_id.tolist() == ["a", "c"]
    assert shown.action.tolist() == ["relabel", ""]
    assert shown.new_label.tolist() == ["malignant", ""]


def test_the_csv_holds_the_listed_cases_and_every_mark_in_force(tmp_path: Path) -> None:
    found = ranked(predictions(CLASSES, TWO), marked(tmp_path, "b,keep,"))
    path = tmp_path / "new.csv"
    assert review.write(found, 2, path) == 0
    rows = marks.read(path)
    assert rows.case_id.tolist() == ["a", "d", "b"]
    assert rows.action.tolist() == ["", "", "keep"]
    assert list(rows.columns) == review.COLUMNS


def test_what_a_person_wrote_is_never_lost(tmp_path: Path) -> None:
    found, path = ranked(predictions(CLASSES, TWO)), tmp_path / "new.csv"
    review.write(found, 3, path)
    table = marks.read(path).assign(seen_by="")
    table.loc[table.case_id == "d", ["action", "note", "seen_by"]] = ["drop", "blurred", "K., L."]
    table.loc[table.case_id == "c", "note"] = "ask again"
    table.to_csv(path, index=False)
    assert review.write(found, 3, path) == 2
    after = marks.read(path).set_index("case_id")
    assert after.index.tolist() == ["d", "c", "a"]
    assert after.loc["d", ["action", "note", "seen_by"]].tolist() == ["drop", "blurred", "K., L."]
    assert after.loc["c", "note"] == "ask again"


@pytest.mark.parametrize("text", ["case_id,label\na,benign\n", "%PDF"])
def test_another_file_is_not_written_over(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=r"something else stands there.*another --out"):
        review.write(ranked(predictions(CLASSES, TWO)), 1, path)
    assert path.read_text() == text


def shade(rows: pd.DataFrame) -> np.ndarray:
    """Return an even image for each row, as bright as its `y` says."""
    return np.stack([np.full((8, 8, 3), 10 * y, np.uint8) for y in rows.y])


def test_a_slide_is_shown_by_the_patches_likest_to_what_is_suggested(tmp_path: Path) -> None:
    items = pd.DataFrame({"case_id": "a", "x": 0, "y": range(1, 7), "key": list("123456")})
    items = items.assign(train=False, predict=[True] * 5 + [False])
    store.build(tmp_path / "pixels", items, shade, "even", workers=1)
    prob = np.array([0.1, 0.9, 0.5, 0.7, 0.3])
    part = items[:5][["case_id", "x", "y"]].assign(prob_malignant=prob, prob_benign=1 - prob)
    write_table(part, tmp_path / "models" / "fold0_seed0_oof.parquet")
    found = ranked(predictions(CLASSES, {"a": TWO["a"]}))
    (axis,) = [one for one in review.sheet(tmp_path, found).axes if one.images]
    shown = np.asarray(axis.images[0].get_array())[..., 0]
    assert [shown[y, x] for y in (5, 15) for x in (5, 15)] == [20, 40, 30, 50]
    assert axis.get_title() == "a\nlabel: benign 0.20\nsuggested: malignant 0.80"


FLIPPED = ["p00_1", "p03_0", "p06_3", "p09_2", "p12_0", "p13_1"]
RUN = ["run", "tiny", "--out", "out", "--workers", "0", *project.quick(epochs=12)]
Kit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kit(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Call the command in this process, in a folder."""

    def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        code = project.code_of(*arguments)
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose labels of `FLIPPED` are wrong, with its finished run in `out`."""
    folder = tmp_path_factory.mktemp("flipped")
    path = project.make(folder, patients=14, each=4) / "labels.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    wrong = table.path.str.removesuffix(".png").isin(FLIPPED)
    other = table.label.map({"benign": "malignant", "malignant": "benign"})
    table.assign(label=table.label.where(~wrong, other)).to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert project.code_of(*RUN) == 0
    yield folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder)
    return folder


def networks(folder: Path) -> dict[str, str]:
    """Return the sha256 of each network's file: a network that is trained again has another."""
    return {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "out" / "models").glob("*.keras"))
    }


def name_review(folder: Path, *rows: str) -> None:
    """Mark cases and name the review in the project's manifest."""
    csv(folder, *rows)
    (folder / "data_manifest.yaml").write_text(project.ENTRY + "    review: review.csv\n")


def test_labels_flipped_on_purpose_come_up_first(copy: Path, kit: Kit) -> None:
    code, out, err = kit(copy, "review", "out", "--top", "6", "--json")
    assert code == 0, err
    found = json.loads(out)
    hits = {row["case_id"] for row in found["cases"]} & set(FLIPPED)
    assert len(hits) >= 5, "by chance it is 0.6 of 6 that come up"
    assert found["n_cases"] == 56
    picture = cv2.imread(found["sheet"] if Path(found["sheet"]).is_absolute() else
                         str(copy / found["sheet"]))  # fmt: skip
    assert picture is not None and picture.std() > 20
    assert len(pd.read_csv(copy / found["review"])) == 6


def test_the_table_is_printed_with_the_places_of_csv_and_sheet(copy: Path, kit: Kit) -> None:
    code, out, _ = kit(copy, "review", "out", "--top", "3", "--out", "r.csv", "--sheet", "s.png")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["rank", "case_id", "group"]
    assert len(lines) == 7
    assert "likeliest in" in lines[4] and "of 56 cases" in lines[4]
    assert "r.csv" in lines[5] and "s.png" in lines[6]
    assert (copy / "r.csv").is_file() and (copy / "s.png").is_file()
    assert not (copy / "out" / "review.csv").exists()


def test_a_folder_without_a_run_and_a_sheet_that_is_no_png_are_told(copy: Path, kit: Kit) -> None:
    for arguments, said in (
        (["nowhere"], "no finished run"),
        (["out", "--sheet", "s.jpg"], "ending in .png"),
    ):
        code, _, err = kit(copy, "review", *arguments)
        assert code == 2 and said in err


def test_marks_change_what_is_learnt_and_figures_stand_both_ways(copy: Path, kit: Kit) -> None:
    before, oof = networks(copy), read_table(copy / "out" / "oof.parquet")
    given = read_json(copy / "out" / "metrics.json")
    folds = read_table(copy / "out" / "folds.parquet").set_index("case_id").fold
    mine = [name for name in FLIPPED if folds[name] == 0]
    truth = oof.set_index("case_id").y_true[mine[0]]
    right = "benign" if truth == "malignant" else "malignant"
    name_review(copy, f"{mine[0]},relabel,{right}", f"{mine[1]},drop,")
    code, out, err = kit(copy, *RUN)
    assert code == 0, err
    after = networks(copy)
    assert after["fold0_seed0"] == before["fold0_seed0"], "it never saw the marked cases"
    assert after["fold1_seed0"] != before["fold1_seed0"]
    items = read_table(copy / "out" / "pixels" / "pixels.parquet").set_index("case_id")
    assert items.label[mine[0]] == right and not items.train[mine[1]]
    assert (
        read_json(copy / "out" / "models" / "fold1_seed0.json")["images"] == (folds == 0).sum() - 1
    )
    again = read_table(copy / "out" / "oof.parquet")
    pd.testing.assert_frame_equal(
        again[["case_id", "fold", "y_true"]], oof[["case_id", "fold", "y_true"]]
    )
    found = read_json(copy / "out" / "metrics.json")
    assert found["n"] == given["n"] == 56
    assert "reviewed" not in given and found["reviewed"]["n"] == 55
    assert found["reviewed"]["accuracy"]["value"] > found["accuracy"]["value"]
    assert "1 dropped, 1 relabelled, 0 kept" in out and "reviewed   95 % interval" in out
    assert "by reviewed labels" in (copy / "out" / "report.html").read_text()
    assert read_json(copy / "out" / "settings.json")["entry"]["review"] == "review.csv"


def test_a_case_marked_keep_trains_nothing_again_and_comes_up_no_more(copy: Path, kit: Kit) -> None:
    before = networks(copy)
    first = review.listed(review.doubts(copy / "out"), 1).case_id[0]
    name_review(copy, f"{first},keep,")
    code, out, err = kit(copy, *RUN, "--json")
    assert code == 0, err
    assert json.loads(out)["reviewed"]["kept"] == 1
    assert networks(copy) == before
    assert first not in set(review.listed(review.doubts(copy / "out"), 100).case_id)


def test_a_wrong_mark_stops_the_run_before_it_touches_anything(copy: Path, kit: Kit) -> None:
    before = networks(copy)
    name_review(copy, "p00_9,drop,")
    code, _, err = kit(copy, *RUN)
    assert code == 2
    assert "not in the data" in err and "review.csv" in err and "did you mean p00_" in err
    assert networks(copy) == before


def test_a_review_beside_the_manifest_is_found_from_another_folder(copy: Path, kit: Kit) -> None:
    (copy / "data_manifest.yaml").write_text(project.ENTRY + "    review: gone.csv\n")
    (copy / "sub").mkdir()
    code, _, err = kit(copy / "sub", "run", "tiny", "--out", "../other", *project.quick())
    assert code == 2
    assert f"File: {copy / 'gone.csv'}" in err and "kit review" in err
