"""A run on slides from their cases to scores, heatmaps and later slides: small ones, drawn here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import project
import pytest
from test_pipeline import Kit, times
from test_pipeline import kit as kit  # the fixture
from test_slides import write_pyramid
from test_streams import damage

from kit import carried, finished, heatmaps, slide_report, submission
from kit.aggregate import fit
from kit.challenges import open_run
from kit.errors import ImageError, KitError, MaskError, MissingDataError
from kit.files import read_json, read_table, write_table
from kit.rules import Rule
from kit.settings import parse
from kit.slide_features import table
from kit.slides import open_slide

SIDE, PATCH, TRAIN, TEST = 512, 64, 24, 4
ENTRY = """
datasets:
  small:
    kind: slides
    licence: none
    source: the tests
    roots: {local: small}
    table: labels.csv
    columns: {case_id: case_id, path: path, label: label, mask: mask}
    classes: [negative, positive]
    positive: positive
    group: {unit: patient, column: patient}
    mask_values: {tumour: 255}
"""
QUICK = project.quick(patch_size=PATCH, patches_per_slide=12, epochs=5, learning_rate=0.01)


def run_in(folder: Path) -> list[str]:
    """Return the arguments of the run in a folder; processes may have another working folder."""
    return ["run", "small", "--data", f"{folder}/data", "--out", f"{folder}/out", "--workers", "0",
            *QUICK]  # fmt: skip


def draw(root: Path, number: int, positive: bool) -> tuple[str, str]:
    """Write a slide of pink tissue, a part of it dark in positive ones, and its mask."""
    random = np.random.default_rng(number)
    tissue = np.zeros((SIDE, SIDE), bool)
    tissue[64:448, 64:448] = True
    tumour = np.zeros_like(tissue)
    if positive:
        tumour[128:320, 128:320] = True
    colour = np.where(tumour[..., None], (110, 60, 150), (225, 150, 190))
    image = np.where(tissue[..., None], colour + random.normal(0, 12, (SIDE, SIDE, 3)), 250)
    image = np.clip(image, 0, 255).astype(np.uint8)
    small = cv2.resize(image, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
    slide, mask = root / f"slides/s{number:02d}.tif", root / f"masks/s{number:02d}.png"
    for path in (slide, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(slide, [image, small], mpp=2.0)
    assert cv2.imwrite(str(mask), tumour[::16, ::16] * np.uint8(255))
    return f"slides/{slide.name}", f"masks/{mask.name}"


def make(folder: Path) -> Path:
    """Write the manifest and the slides into a folder; return the data set's folder."""
    (folder / "data_manifest.yaml").write_text(ENTRY)
    root, rows = folder / "data" / "small", []
    for number in range(TRAIN + TEST):
        positive, test = number % 2 == 1, number >= TRAIN
        slide, mask = draw(root, number, positive)
        label = "" if test else ("positive" if positive else "negative")
        rows.append((f"s{number:02d}", slide, label, f"p{number:02d}",
                     "test" if test else "train", "" if test else mask))  # fmt: skip
    names = ["case_id", "path", "label", "patient", "split", "mask"]
    pd.DataFrame(rows, columns=names).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, slides and a finished run."""
    folder = tmp_path_factory.mktemp("slides")
    make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert project.code_of(*run_in(folder)) == 0
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done, tmp_path / "project")


def test_slides_are_scored_out_of_fold_by_networks_that_have_not_seen_them(done: Path) -> None:
    out = done / "out"
    oof, test, folds = (read_table(out / f"{name}.parquet") for name in ("oof", "test", "folds"))
    assert len(oof) == TRAIN and len(test) == 2 * TEST
    both = oof.merge(folds[["case_id", "fold"]], on="case_id", suffixes=("", "_own"))
    assert (both.fold == both.fold_own).all()
    for table_of in (out / "slides").glob("*.parquet"):
        seen = read_table(table_of)
        case = seen.case_id.iloc[0]
        own = folds.fold[folds.case_id == case]
        assert set(seen.fold) == (set(own) if len(own) else {0, 1})
        assert len(seen) == 36 * seen.fold.nunique()  # all that is planned, not the few learnt from
        top = seen[seen.fold == seen.fold.iloc[0]].prob_positive.nlargest(2).mean()  # of 36: 5 %
        rows = pd.concat([oof, test])
        score = rows.prob_positive[(rows.case_id == case) & (rows.fold == seen.fold.iloc[0])]
        assert score.iloc[0] == pytest.approx(top, abs=1e-6)


def test_each_slide_has_a_heatmap_in_its_own_frame(done: Path) -> None:
    folder = done / "out" / "heatmaps"
    names = {path.stem for path in folder.glob("*.tif")}
    assert names == {path.stem for path in folder.glob("*.geojson")}
    assert names == {f"s{number:02d}" for number in range(TRAIN + TEST)}
    found = heatmaps.read_tiff(folder / "s01.tif")
    assert found.size_level0 == (SIDE, SIDE) and found.downsample == PATCH
    seen = ~np.isnan(found.values)
    assert seen[1:7, 1:7].all() and seen.sum() == 36
    inside, outside = found.values[2:5, 2:5].mean(), found.values[5:7, 1:7].mean()
    assert inside > outside


def test_figures_tell_of_patches_and_lesions_too(done: Path) -> None:
    told = read_json(done / "out" / "metrics.json")
    assert told["auc"]["value"] >= 0.9
    assert told["slide_score"]["rule"] == "top=0.05"
    assert told["slide_score"]["ties"] == {"any": 0, "other_class": 0}
    assert told["patches"]["slides"] == TRAIN / 2 and told["patches"]["auc"] > 0.9
    lesions = read_json(done / "out" / "lesions.json")
    assert lesions["slides"] == TRAIN and lesions["lesions"] == TRAIN / 2
    lines = slide_report.beside(told, lesions)
    assert "top=0.05" in lines[0] and "Dice" in lines[2]
    page = (done / "out" / "report.html").read_text()
    assert "figures/slide_heatmap.png" in page or "slide_heatmap" in page
    assert lines[1].split(":")[0] in page


def test_the_second_run_makes_nothing_again(copy: Path, kit: Kit) -> None:
    kit(copy, *run_in(copy))  # files that moved are read once more
    before = times(copy)
    assert kit(copy, *run_in(copy)).code == 0
    assert times(copy) == before


def later(copy: Path, names: list[str]) -> Path:
    """Return a folder of later slides, unlabelled."""
    root = copy / "later" / "small"
    root.mkdir(parents=True)
    known = pd.read_csv(copy / "data/small/labels.csv").set_index("case_id").loc[names]
    for path in known.path:
        (root / path).parent.mkdir(exist_ok=True)
        shutil.copy(copy / "data/small" / path, root / path)
    known.reset_index().assign(label="", split="test", mask="").to_csv(
        root / "labels.csv", index=False
    )
    return root


def test_later_slides_get_the_scores_of_the_run_and_heatmaps(copy: Path) -> None:
    later(copy, [f"s{number}" for number in range(TRAIN, TRAIN + TEST)])
    found = finished.predict(
        copy / "out", copy / "later", copy / "later.csv", heatmaps=copy / "maps"
    )
    test = read_table(copy / "out" / "test.parquet").groupby("case_id").prob_positive.mean()
    assert found.set_index("case_id").prob_positive.to_dict() == pytest.approx(test.to_dict())
    one = heatmaps.read_tiff(copy / "maps" / "s24.tif").values
    np.testing.assert_array_equal(one, heatmaps.read_tiff(copy / "out/heatmaps/s24.tif").values)


def test_a_later_slide_that_is_damaged_is_an_error_or_has_the_stated_score(
    copy: Path, kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    root = later(copy, ["s24", "s25"])
    damage(root / "slides" / "s25.tif", 8)
    with pytest.raises(ImageError, match=r"no case may be left out.*s25"):
        finished.predict(copy / "out", copy / "later", copy / "later.csv")
    said = kit(copy, "predict", f"{copy}/out", "--data", f"{copy}/later", "--out", "later.csv",
               "--failed-score", "0.25")  # fmt: skip
    assert said.code == 1 and "scored 0.25" in caplog.text and "s25" in caplog.text
    assert not (copy / ".later.csv.parts").exists()
    rows = pd.read_csv(copy / "later.csv").set_index("case_id")
    test = read_table(copy / "out" / "test.parquet").groupby("case_id").prob_positive.mean()
    column = rows.columns[-1]
    assert rows.loc["s25", column] == pytest.approx(0.25)
    assert rows.loc["s24", column] == pytest.approx(test["s24"], abs=1e-5)


def test_later_slides_go_on_where_they_were_cut_off(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(copy, ["s24", "s25"])
    asked: list[str] = []
    real, stop = heatmaps.write, KeyboardInterrupt
    monkeypatch.setattr(heatmaps, "write", lambda *_, **__: (_ for _ in ()).throw(stop))
    with pytest.raises(KeyboardInterrupt):
        finished.predict(copy / "out", copy / "later", copy / "later.csv", heatmaps=copy / "maps")
    parts = copy / ".later.csv.parts"
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    assert len([path for path in before if path.parent.name != "plans"]) >= 2
    monkeypatch.setattr(
        heatmaps, "write", lambda *a, **k: (asked.append("drawn"), real(*a, **k))[1]
    )
    monkeypatch.setattr("kit.slide_jobs.predict_slide", lambda *_, **__: pytest.fail("read again"))
    finished.predict(copy / "out", copy / "later", copy / "later.csv", heatmaps=copy / "maps")
    assert asked == ["drawn", "drawn"] and not parts.exists()


def test_a_folder_for_heatmaps_that_cannot_be_written_is_told_before_anything_is_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(copy, ["s24"])
    (copy / "maps").write_text("a file")
    monkeypatch.setattr("kit.slide_jobs.predict_slide", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(KitError, match=r"the folder cannot be written.*maps"):
        finished.predict(copy / "out", copy / "later", copy / "later.csv", heatmaps=copy / "maps")


def test_every_later_slide_that_cannot_be_read_is_named(copy: Path) -> None:
    root = later(copy, ["s24", "s25", "s26"])
    for name in ("s24", "s26"):
        damage(root / "slides" / f"{name}.tif", 8)
    with pytest.raises(ImageError, match=r"2: .*s24.*s26"):
        finished.predict(copy / "out", copy / "later", copy / "later.csv")


def test_lesions_are_scored_on_what_networks_said_not_on_grey_levels(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probability of .4999 is no tumour; as a grey level it would be a half."""
    monkeypatch.chdir(copy)
    asked = parse([pair for pair in QUICK if pair != "--set"])
    run = open_run("small", data=copy / "data", out=copy / "out", settings=asked, workers=0)
    tables = run.patch_predictions()
    seen = read_table(tables["s01"])
    write_table(seen.assign(prob_positive=0.4999, prob_negative=0.5001), tables["s01"])
    cases = run.cases()
    cases = cases[cases.case_id == "s01"]
    found = run.slides.lesions(cases, tables).overlap
    assert found["dice"].iloc[0] == 0
    write_table(seen.assign(prob_positive=0.5, prob_negative=0.5), tables["s01"])
    assert run.slides.lesions(cases, tables).overlap["dice"].iloc[0] > 0


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], Path]:
    """A project whose slide is damaged half-way: its overview stands."""

    def make_with(name: str) -> Path:
        root = make(tmp_path)
        damage(root / "slides" / f"{name}.tif", 8)
        return tmp_path

    return make_with


def test_a_training_slide_damaged_half_way_is_left_out_and_named(
    damaged: Callable[[str], Path], kit: Kit
) -> None:
    folder = damaged("s03")
    said = kit(folder, *run_in(folder), "--json")
    told = json.loads(said.out)
    assert said.code == 1
    assert any("s03" in line for line in told["failures"])
    oof = read_table(folder / "out" / "oof.parquet")
    assert set(oof.case_id) == {f"s{number:02d}" for number in range(TRAIN)} - {"s03"}


def test_a_test_slide_damaged_half_way_stops_the_run_when_all_others_are_read(
    damaged: Callable[[str], Path], kit: Kit
) -> None:
    folder = damaged("s25")
    said = kit(folder, *run_in(folder))
    assert said.code == 2 and "s25" in said.err and "mend or replace" in said.err
    assert len(list((folder / "out" / "slides").glob("*.parquet"))) == TRAIN + TEST - 1


def test_a_slide_without_tissue_has_the_stated_score(
    copy: Path, kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    blank = np.full((SIDE, SIDE, 3), 250, np.uint8)
    root = copy / "data" / "small"
    write_pyramid(root / "slides" / "s27.tif", [blank, blank[::4, ::4].copy()], mpp=2.0)
    said = kit(copy, *run_in(copy))
    assert said.code == 0 and "no patch, so the stated score: s27" in caplog.text
    test = read_table(copy / "out" / "test.parquet")
    assert (test.prob_positive[test.case_id == "s27"] == 0).all()
    assert not (copy / "out" / "heatmaps" / "s27.tif").exists()


@pytest.mark.parametrize("rule", ["top", "region", "logistic", "mean"])
def test_another_rule_scores_the_same_predictions(copy: Path, rule: str) -> None:
    """The table of features holds what each rule asks for, of a run's own slides."""
    out, parts = copy / "out", []
    for path in sorted((out / "slides").glob("*.parquet")):
        seen = read_table(path)
        with open_slide(copy / "data/small/slides" / f"{seen.case_id.iloc[0]}.tif") as slide:
            parts.append(table(seen, "positive", mpp={seen.case_id.iloc[0]: slide.mpp}))
    features = pd.concat(parts, ignore_index=True)
    folds = read_table(out / "folds.parquet")
    found = fit(Rule.parse(rule), features, folds, ["negative", "positive"], "positive").oof()
    truth = found.y_true == "positive"
    assert found.prob_positive[truth].mean() > found.prob_positive[~truth].mean()


POOLED = [*QUICK, "--set", "aggregate=attention_mil"]


@pytest.fixture(scope="module")
def pooled(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project with a run whose slides are scored by networks of bags."""
    folder = shutil.copytree(done, tmp_path_factory.mktemp("pooled") / "project")
    arguments = ["run", "small", "--data", f"{folder}/data", "--out", f"{folder}/bags",
                 "--workers", "0", *POOLED]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert project.code_of(*arguments) == 0
        before = times(folder)
        assert project.code_of(*arguments) == 0
        assert times(folder) == before  # nothing is made again
    return folder


@pytest.mark.slow
def test_networks_of_bags_score_slides_that_their_encoders_have_not_seen(pooled: Path) -> None:
    out = pooled / "bags"
    oof, test, folds = (read_table(out / f"{name}.parquet") for name in ("oof", "test", "folds"))
    assert set(oof.model) == {"attention_mil"} and set(oof.seed) == {0, 1, 2}
    assert len(oof) == 3 * TRAIN and len(test) == 2 * 3 * TEST
    both = oof.merge(folds[["case_id", "fold"]], on="case_id", suffixes=("", "_own"))
    assert (both.fold == both.fold_own).all()
    told = read_json(out / "metrics.json")
    assert told["auc"]["value"] >= 0.9
    assert told["slide_score"]["rule"] == "attention_mil"
    assert told["slide_score"]["chosen"] == {"all": "attention_mil"}
    assert told["slide_score"]["ties"]["other_class"] == 0  # slides as plain as these are all sure
    vectors = sorted(path.name for path in (out / "slides" / "vectors").iterdir())
    assert vectors == ["fold0_seed0", "fold1_seed0"]


@pytest.mark.slow
def test_attention_is_drawn_on_the_slides_and_in_the_report(pooled: Path) -> None:
    out = pooled / "bags"
    found = heatmaps.read_tiff(out / "attention" / "s01.tif")
    assert found.name == "attention" and found.size_level0 == (SIDE, SIDE)
    values = found.values[~np.isnan(found.values)]
    assert len(values) == 36 and len(np.unique(values)) > 10
    assert values.mean() == pytest.approx(37 / 72, abs=0.005)  # ranks 1 to 36 of 36, three times
    assert len(list((out / "attention").glob("*.geojson"))) == TRAIN + TEST
    page = (out / "report.html").read_text()
    assert "slide_attention" in page and "embedding_map" in page


@pytest.mark.slow
def test_later_slides_are_scored_by_the_same_networks_of_bags(pooled: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(pooled, tmp_path / "project")
    root = later(copied, ["s24", "s25"])
    found = finished.predict(copied / "bags", copied / "later", tmp_path / "later.csv")
    test = read_table(copied / "bags" / "test.parquet").groupby("case_id").prob_positive.mean()
    expected = {name: test[name] for name in ("s24", "s25")}
    assert found.set_index("case_id").prob_positive.to_dict() == pytest.approx(expected)
    damage(root / "slides" / "s25.tif", 8)
    found = finished.predict(
        copied / "bags", copied / "later", tmp_path / "later.csv", failed=0.25
    ).set_index("case_id")
    assert found.loc["s24", "prob_positive"] == pytest.approx(expected["s24"])
    assert found.loc["s25", "prob_positive"] == pytest.approx(0.25)


@pytest.mark.slow
def test_a_run_with_networks_of_bags_is_carried_whole_and_refused_when_one_is_damaged(
    pooled: Path, tmp_path: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    carried.carry(pooled / "bags", tmp_path / "bundle")
    later(copied := shutil.copytree(pooled, tmp_path / "project"), ["s24"])
    found = finished.predict(tmp_path / "bundle", copied / "later", tmp_path / "later.csv")
    test = read_table(pooled / "bags" / "test.parquet").groupby("case_id").prob_positive.mean()
    assert found.prob_positive.iloc[0] == pytest.approx(test["s24"])
    with (tmp_path / "bundle" / "mil_fold0_seed1.keras").open("ab") as file:
        file.write(b"more")
    with pytest.raises(MissingDataError, match=r"missing or damaged.*mil_fold0_seed1"):
        finished.load(tmp_path / "bundle")


def test_encoders_that_have_seen_all_slides_serve_no_fold(copy: Path, kit: Kit) -> None:
    said = kit(copy, *run_in(copy)[: -len(QUICK)], *POOLED, "--set", "everything=add")
    assert said.code == 2 and "Expected: everything=no" in said.err


def test_the_rehearsal_takes_slides_to_a_submission_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slides are predicted after the training, so that the rehearsal has images of its own."""
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = parse([pair for pair in QUICK if pair != "--set"])
    run = open_run("small", data=tmp_path / "data", out=tmp_path / "out", settings=asked, workers=0)
    seen: list[int] = []
    written = submission.table
    monkeypatch.setattr(
        submission, "table", lambda rows, *rest: (seen.append(len(rows)), written(rows, *rest))[1]
    )
    run._rehearse()
    assert seen and seen[0] > 0


def test_the_rehearsal_takes_a_slide_to_its_heatmap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would fail after the last network fails before the first."""
    root = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = parse([pair for pair in QUICK if pair != "--set"])
    run = open_run("small", data=tmp_path / "data", out=tmp_path / "out", settings=asked, workers=0)
    drawn: list[str] = []
    written = heatmaps.write

    def counted(seen: pd.DataFrame, *rest: Path, **how: float) -> tuple[Path, Path]:
        drawn.append(seen.case_id.iloc[0])
        return written(seen, *rest, **how)

    monkeypatch.setattr(heatmaps, "write", counted)
    run._rehearse()
    assert drawn == ["s00"]  # the first with a mask
    for path in (root / "masks").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(MaskError, match="s00"):
        run._rehearse()
