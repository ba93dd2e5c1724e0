"""HeLP 2019 on its stand-in: the layout, both recipes, and each mistake made on purpose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
from test_pipeline import Kit
from test_pipeline import kit as kit  # the fixture

from kit import _mirax, synthetic
from kit.annotations import read_mask
from kit.challenges import find, recipes
from kit.errors import KitError, MissingDataError
from kit.files import read_json, read_table
from kit.manifest import load_manifest
from kit.models import build_model
from kit.official import SLIDE_AUC
from kit.sampler import PatchSampler
from kit.settings import resolve
from kit.slides import open_slide
from kit.streams import Dense

NAMES = ("negative", "positive")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in at its smallest, in the folder that `--data` names."""
    folder = tmp_path_factory.mktemp("help")
    synthetic.make("help2019", folder / "help2019", scale=0.02)
    return folder


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data, tmp_path / "data")


def slides(data: Path, *parts: str) -> list[Path]:
    return sorted(data.joinpath("help2019", *parts).glob("*.mrxs"))


def test_the_stand_in_lies_as_the_challenge_does(data: Path) -> None:
    cases = load_manifest().dataset("help2019").cases(data)
    train, test = cases[cases.split == "train"], cases[cases.split == "test"]
    assert set(train.label) == set(NAMES) and len(test) >= 2 and test.label.isna().all()
    assert train.path.str.match(r"train/image/(negative|positive)/Slide\d{3}\.mrxs").all()
    assert train["mask"].str.match(r"train/mask/(negative|positive)/Slide\d{3}\.png").all()
    assert test.path.str.match(r"test/Slide\d{3}\.mrxs").all()
    answers = pd.read_csv(data / "help2019" / "answers.csv")
    assert set(answers.phase) == {1, 2}
    assert set(answers.case_id[answers.phase == 1]) == set(test.case_id)
    assert not set(train.case_id) & set(answers.case_id)


def test_slides_have_bounds_void_and_masks_cropped_to_them(data: Path) -> None:
    offsets = set()
    for path in [p for name in NAMES for p in slides(data, "train", "image", name)]:
        with open_slide(path) as slide:
            x, y, width, height = slide.bounds
            offsets.add((x, y))
            assert slide.downsamples == [1, 2, 4, 8] and slide.mpp == 0.5
            mask_path = data / f"help2019/train/mask/{path.parent.name}/{path.stem}.png"
            mask = read_mask(mask_path, slide, values={"tumour": 255}, frame="bounds")
            assert mask.origin_level0 == (x, y) and mask.downsample == (16, 16)
            assert cv2.imread(str(mask_path), 0).shape == (height // 16, width // 16)
        thumb = np.asarray(openslide.OpenSlide(str(path)).read_region((0, 0), 3, (64, 64)))
        assert (thumb[..., :3].max(axis=2) == 0).any()  # never scanned
    assert len(offsets) > 1


def test_some_positive_slides_have_no_patch_that_is_all_tumour(data: Path) -> None:
    values, root = find("help2019", load_manifest()).settings, data / "help2019"
    sampler = PatchSampler(256, min_tumour=float(values["min_tumour"]), partial="drop")
    tumour = {}
    for path in slides(data, "train", "image", "positive"):
        with open_slide(path) as slide:
            mask = read_mask(root / f"train/mask/positive/{path.stem}.png", slide,
                             values={"tumour": 255}, frame="bounds")  # fmt: skip
            plan = sampler.plan(slide, mask=mask)
        tumour[path.stem] = int((plan.label == "tumour").sum())
        assert set(plan.label) <= {"tumour", "normal"}  # what is neither is dropped
    assert 0 in tumour.values() and max(tumour.values()) > 0


def test_the_second_phase_is_another_scanner(data: Path) -> None:
    def colours(paths: list[Path]) -> np.ndarray:
        found = []
        for path in paths:
            with open_slide(path) as slide:
                rgb, seen = slide.overview((64, 64))
                tissue = seen & (rgb.min(axis=2) < 215) & (rgb.max(axis=2) > 0)
                found.append(np.median(rgb[tissue], axis=0))
        return np.median(found, axis=0)

    first = colours(slides(data, "test") + slides(data, "train", "image", "negative"))
    second = colours(slides(data, "phase2", "help2019", "test"))
    assert np.abs(first - second).max() > 8


def test_the_team_s_recipe_is_its_entry() -> None:
    challenge = find("help2019", load_manifest(), "team")
    values = resolve("slides", challenge.settings, overrides={})
    assert (values.patch_size, values.min_tumour, values.partial) == (256, 1.0, "drop")
    assert (values.tissue, values.patches_per_slide, values.predict_per_slide) == (
        "otsu", 2000, 5000)  # fmt: skip
    assert (values.pixel_score, values.pixel_map, values.aggregate) == ("max", "centre", "max")
    assert (values.draw, values.steps * values.batch_size) == ("kind", 19_968)  # 20k an epoch
    assert (values.schedule, values.patience, values.min_rate) == ("plateau", 3, 5e-5)
    assert set(recipes("help2019")) == {"kit", "team", "team_unet", "team_inception", "mended"}
    assert not challenge.style.header and challenge.official is SLIDE_AUC


def test_the_simple_network_has_the_team_s_parameters() -> None:
    assert build_model("help_simple", (256, 256, 3), 2).count_params() == 1_538_048


def test_one_to_one_to_two(data: Path) -> None:
    """Of a negative slide twice what of a positive one is taken of each kind."""
    from kit.draws import draw

    rows = [("n", "normal")] * 5000 + [("p", "normal")] * 4000 + [("p", "tumour")] * 3000
    rows += [("h", "normal")] * 4000 + [("h", "tumour")] * 7
    plan = pd.DataFrame(rows, columns=["case_id", "label"]).assign(x=0, y=range(len(rows)))
    taken = draw(plan, per_slide=2000, seed=0).groupby(["case_id", "label"]).size().to_dict()
    assert taken == {
        ("n", "normal"): 2000, ("p", "normal"): 1000, ("p", "tumour"): 1000,
        ("h", "normal"): 1000, ("h", "tumour"): 7,
    }  # fmt: skip


def test_all_that_is_learnt_from_is_one_to_one_to_two(caplog: pytest.LogCaptureFixture) -> None:
    from kit.draws import in_ratio

    rows = [("n", "negative", 900), ("p", "negative", 700), ("p", "positive", 300)]
    plan = pd.concat([
        pd.DataFrame({"case_id": case, "label": label, "x": range(count), "y": 0})
        for case, label, count in rows
    ])  # fmt: skip
    cases = pd.DataFrame({"case_id": ["n", "p"], "label": ["negative", "positive"]})
    taken = in_ratio(plan, cases, seed=0, positive="positive")
    assert taken.groupby(["case_id", "label"]).size().to_dict() == {
        ("n", "negative"): 600, ("p", "negative"): 300, ("p", "positive"): 300
    }  # fmt: skip
    bare = plan[plan.label == "negative"]
    taken = in_ratio(bare, cases, seed=0, positive="positive")
    assert taken.case_id.value_counts().to_dict() == {"n": 900, "p": 450}
    assert "the ratio is of the others: positive tumour" in caplog.text


def smoke(kit: Kit, data: Path, *more: str) -> tuple[Path, dict]:
    out = data.parent / "out"
    said = kit(data.parent, "run", "help2019", "--data", str(data), "--out", str(out), "--smoke",
               "--workers", "0", "--json", *more)  # fmt: skip
    assert said.code == 0, said.err
    return out, json.loads(said.out)


@pytest.mark.slow
def test_the_maximum_of_the_maximum_is_run_as_it_was_and_its_submission_is_headerless(
    own: Path, kit: Kit
) -> None:
    out, told = smoke(kit, own, "--recipe", "team", "--set", "epochs=1")
    lines = (out / "submission.csv").read_text().splitlines()
    wanted = {path.stem for path in slides(own, "test")}
    assert {line.split(",")[0] for line in lines} == wanted
    assert all(0 <= float(line.split(",")[1]) <= 1 for line in lines)
    assert told["slide_score"]["rule"] == "max"
    for table in (out / "slides").glob("*.parquet"):
        assert read_table(table).prob_positive.between(0, 1).all()
    assert list((out / "slides").glob("*.npz"))  # the maps of networks of pixels


def test_the_maximum_of_saturated_patches_ties_and_that_is_said() -> None:
    from kit import slide_report
    from kit.aggregate import fit
    from kit.rules import Rule
    from kit.slide_features import table

    rng, parts, cases = np.random.default_rng(0), [], []
    for n in range(12):
        prob = np.clip(rng.normal(0.6 + 0.2 * (n % 2), 0.3, 64), 0, 1)  # the largest are all 1
        parts.append(pd.DataFrame({
            "case_id": f"s{n:02d}", "fold": n // 2 % 2, "seed": 0, "model": "net",
            "x": np.arange(64) % 8 * 256, "y": np.arange(64) // 8 * 256, "footprint": 256.0,
            "prob_positive": prob, "prob_negative": 1 - prob,
        }))  # fmt: skip
        cases.append((f"s{n:02d}", f"s{n:02d}", NAMES[n % 2], n // 2 % 2))
    folds = pd.DataFrame(cases, columns=["case_id", "group", "label", "fold"])
    mpp = dict.fromkeys(folds.case_id, 0.5)
    features = table(pd.concat(parts), "positive", mpp=mpp)
    worst = fit(Rule.parse("max"), features, folds, NAMES, "positive")
    assert worst.ties == {"any": 12, "other_class": 12}
    assert "12 slides share their score" in slide_report.cautions(worst.ties)[0]
    mended = fit(Rule.parse("percentile=90"), features, folds, NAMES, "positive")
    assert mended.ties["other_class"] < 12


def test_a_mask_read_in_the_wrong_frame_is_refused_or_stated(data: Path, own: Path) -> None:
    path = slides(data, "train", "image", "positive")[0]
    mask = data / "help2019" / "train" / "mask" / "positive" / f"{path.stem}.png"
    small = cv2.imread(str(mask), 0)[1:]
    wrong = own / "wrong.png"
    assert cv2.imwrite(str(wrong), small[: len(small) // 2])
    with open_slide(path) as slide, pytest.raises(KitError, match=r"wrong\.png"):
        read_mask(wrong, slide, values={"tumour": 255}, frame="bounds")
    assert load_manifest().dataset("help2019").mask_frame == "bounds"


def test_a_mask_without_its_slide_is_named(own: Path) -> None:
    path = slides(own, "train", "image", "positive")[0]
    path.unlink()
    assert len(load_manifest().dataset("help2019").cases(own, labels=False))  # the tests alone
    with pytest.raises(MissingDataError, match=rf"1 masks have no case.*{path.stem}\.png"):
        load_manifest().dataset("help2019").cases(own)


def test_a_positive_slide_without_its_mask_is_named(own: Path) -> None:
    path = slides(own, "train", "image", "positive")[0]
    (own / "help2019" / "train" / "mask" / "positive" / f"{path.stem}.png").unlink()
    with pytest.raises(MissingDataError, match=rf"no mask.*{path.stem}"):
        load_manifest().dataset("help2019").cases(own)


def test_patches_of_one_slide_stand_on_one_side(data: Path, kit: Kit) -> None:
    dataset = load_manifest().dataset("help2019")
    assert dataset.cases(data).groupby("case_id").group.nunique().eq(1).all()
    assert dataset.group.unit == "slide"


@pytest.mark.parametrize("how", ["mean", "max"])
def test_a_patch_of_a_network_of_pixels_is_scored_by_its_centre(how: str) -> None:
    from kit.dense import scores

    maps = np.zeros((1, 256, 256, 2), np.float32)
    maps[..., 0] = 1
    maps[0, 60, 60] = (0, 1)  # outside the centre 128: it does not count
    assert scores(maps, how, 1)[0, 1] == 0
    maps[0, 100, 100] = (0, 1)
    wanted = 1.0 if how == "max" else 1 / 128**2
    assert scores(maps, how, 1)[0, 1] == pytest.approx(wanted)
    assert Dense("positive", how, "centre").score == how


def test_tiles_come_back_from_where_they_were_put(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 220, (24, 32, 3), np.uint8)
    image = cv2.resize(coarse, (1024, 768), interpolation=cv2.INTER_CUBIC)
    scanned = np.zeros((3, 4), bool)
    scanned[1:, 1:3] = True
    _mirax.write(tmp_path / "one.mrxs", image, scanned, mpp=0.25, levels=3, quality=95)
    with openslide.OpenSlide(str(tmp_path / "one.mrxs")) as slide:
        assert slide.dimensions == (1024, 768)
        names = ("x", "y", "width", "height")
        found = tuple(int(slide.properties[f"openslide.bounds-{name}"]) for name in names)
        assert found == (256, 256, 512, 512)
        for level in range(3):
            size = 512 >> level
            seen = np.asarray(slide.read_region((256, 256), level, (size, size)).convert("RGB"))
            whole = cv2.resize(image, (1024 >> level, 768 >> level), interpolation=cv2.INTER_AREA)
            at = 256 >> level
            apart = np.abs(seen.astype(int) - whole[at : at + size, at : at + size])
            assert apart.mean() < 4


def test_the_second_run_of_the_stand_in_draws_the_same(tmp_path: Path, data: Path) -> None:
    again = synthetic.make("help2019", tmp_path / "help2019", scale=0.02)
    one = slides(data, "test")[0].with_suffix("")
    for name in ("Index.dat", "Data0000.dat", "Slidedat.ini"):
        assert (again / "test" / one.name / name).read_bytes() == (one / name).read_bytes()
    assert read_json(again / "synthetic.json")["name"] == "help2019"
