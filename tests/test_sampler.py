from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from kit import sampler as sampler_module
from kit.annotations import read_mask
from kit.draws import draw, spread
from kit.errors import MissingMppError, SettingsError, SlideError, TableError
from kit.files import digest
from kit.sampler import COLUMNS, PatchSampler, read_planned
from kit.slides import open_slide
from kit.tissue import BLURRED

PINK = (205, 120, 170)


def image(tissue: bool = True) -> np.ndarray:
    """A slide of 640 x 448 with tissue at x 128 to 512, y 64 to 384."""
    noise = np.random.default_rng(0).normal(0, 2, (448, 640, 3))
    pixels = np.clip(243 + noise, 0, 255).astype(np.uint8)
    if tissue:
        cv2.rectangle(pixels, (128, 64), (511, 383), PINK, -1)
    return pixels


def tumour() -> np.ndarray:
    """Tumour at x 128 to 300, y 64 to 384, at half the resolution."""
    mask = np.zeros((224, 320), np.uint8)
    mask[32:192, 64:150] = 255
    return mask


@pytest.fixture
def folder(tmp_path):
    for name, tissue in (("a", True), ("b", True), ("bare", False)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image(tissue))
    cv2.imwrite(str(tmp_path / "a_mask.png"), tumour())
    return tmp_path


@pytest.fixture
def cases():
    return pd.DataFrame({
        "case_id": ["s1", "s2", "s3"], "path": ["b.png", "a.png", "bare.png"],
        "mask": [None, "a_mask.png", None], "split": "train",
    })  # fmt: skip


@pytest.fixture
def planned(folder):
    with open_slide(folder / "a.png") as slide:
        mask = read_mask(folder / "a_mask.png", slide)
        return PatchSampler(64).plan(slide, mask=mask)


def test_a_plan_holds_the_whole_patches_with_tissue_row_by_row(planned):
    assert tuple(planned.columns) == COLUMNS
    assert planned["x"].dtype == planned["y"].dtype == np.int64
    assert len(planned) == 6 * 5
    assert planned["x"].tolist()[:7] == [128, 192, 256, 320, 384, 448, 128]
    assert planned["y"].tolist()[:7] == [64] * 6 + [128]
    assert (planned["case_id"] == "a").all()
    assert planned["tissue"].between(0.9, 1).all()


def test_labels_follow_the_tumour_fraction_with_a_band_of_unsure(planned):
    by_x = planned.groupby("x")["tumour"].first()
    assert by_x.tolist() == pytest.approx([1, 1, 44 / 64, 0, 0, 0])
    assert set(planned["label"][planned["x"] <= 256]) == {"tumour"}
    assert set(planned["label"][planned["x"] > 256]) == {"normal"}


def test_a_patch_of_some_but_little_tumour_is_unsure(folder):
    with open_slide(folder / "a.png") as slide:
        mask = read_mask(folder / "a_mask.png", slide)
        plan = PatchSampler(64, min_tumour=0.7).plan(slide, mask=mask, classes=("no", "yes"))
    assert set(plan["label"][plan["x"] == 256]) == {"unsure"}
    assert set(plan["label"][plan["x"] < 256]) == {"yes"}
    assert set(plan["label"][plan["x"] > 256]) == {"no"}
    assert "unsure" not in set(draw(plan, per_slide=30, seed=0)["label"])


def test_the_masks_value_of_the_positive_class_is_the_tumour(folder):
    with open_slide(folder / "a.png") as slide:
        values = {"malignant": 255, "tumour": 7}
        mask = read_mask(folder / "a_mask.png", slide, values=values)
        plan = PatchSampler(64).plan(slide, mask=mask, classes=("benign", "malignant"))
    assert (plan["label"] == "malignant").sum() == 15


def test_without_a_mask_nothing_is_labelled(folder):
    with open_slide(folder / "a.png") as slide:
        plan = PatchSampler(64).plan(slide, case_id="x")
    assert plan["tumour"].isna().all()
    assert plan["label"].isna().all()
    assert set(plan["case_id"]) == {"x"}


def test_a_stride_makes_patches_overlap(folder):
    with open_slide(folder / "a.png") as slide:
        plan = PatchSampler(64, stride=32, min_tissue=0.99).plan(slide)
    assert len(plan) == 11 * 9
    assert np.unique(np.diff(np.unique(plan["x"]))).tolist() == [32]


def test_the_footprint_of_an_mpp_is_in_level0_pixels_and_partial_patches_are_dropped():
    slide = open_slide(image(), mpp=0.5)
    sampler = PatchSampler(64, mpp=0.75, min_tissue=0)
    assert sampler.footprint(slide) == (96.0, 96.0)
    plan = sampler.plan(slide)
    assert sorted(set(plan["x"])) == [0, 96, 192, 288, 384, 480]  # 576 + 96 > 640
    assert sorted(set(plan["y"])) == [0, 96, 192, 288]


def test_a_non_integer_downsample_does_not_drift_along_the_grid(tmp_path):
    full = image()[:385, :513]
    with tifffile.TiffWriter(tmp_path / "odd.tiff") as tiff:
        for number, level in enumerate([full, cv2.resize(full, (256, 192))]):
            tiff.write(level, tile=(128, 128), photometric="rgb", subfiletype=number)
    with open_slide(tmp_path / "odd.tiff") as slide:
        sampler = PatchSampler(15, level=1, min_tissue=0)
        side = sampler.footprint(slide)[0]
        plan = sampler.plan(slide)
    assert side == pytest.approx(15 * 2.0045, abs=0.01)
    expected = [round(n * side) for n in range(17)]
    assert sorted(set(plan["x"])) == expected
    assert expected[-1] == 481  # an integer step of 30 would have ended at 480


def test_only_the_bounds_are_planned_on_the_grid_of_the_slide():
    slide = open_slide(image())
    slide.properties = {
        "openslide.bounds-x": "100", "openslide.bounds-y": "70",
        "openslide.bounds-width": "200", "openslide.bounds-height": "130",
    }  # fmt: skip
    plan = PatchSampler(64, min_tissue=0).plan(slide)
    assert list(zip(plan["x"], plan["y"], strict=True)) == [(128, 128), (192, 128)]


@pytest.mark.parametrize(
    "wrong",
    [{"patch_size": 0}, {"patch_size": -8}, {"stride": 0}, {"min_tissue": 80}, {"min_tumour": 0}],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))}.*Received"):
        PatchSampler(**wrong)


def test_a_sampler_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PatchSampler().patch_size = 128


def test_a_patch_larger_than_the_slide_is_refused_with_the_file(folder):
    with (
        open_slide(folder / "a.png") as slide,
        pytest.raises(SlideError, match=r"larger than the slide. Expected: .*640 x 448.*a\.png"),
    ):
        PatchSampler(512).plan(slide)


def test_an_mpp_asked_of_a_slide_without_one_is_refused(folder):
    with open_slide(folder / "a.png") as slide, pytest.raises(MissingMppError, match="Remedy"):
        PatchSampler(64, mpp=1.0).plan(slide)


@pytest.mark.parametrize("workers", [1, 2])
def test_cases_are_planned_in_their_order_and_bare_slides_are_named(folder, cases, caplog, workers):
    with caplog.at_level(logging.WARNING):
        plan = PatchSampler(64).plan_cases(
            cases, folder, ["tumour", "normal"], "tumour", workers=workers
        )
    assert plan["case_id"].unique().tolist() == ["s1", "s2"]
    assert "1 slides: s3" in caplog.text
    assert plan["label"].isna().sum() == 30
    assert plan["label"].value_counts().to_dict() == {"tumour": 15, "normal": 15}
    assert plan.index.tolist() == list(range(60))


def test_a_cases_table_may_be_given_in_place_of_a_slide(folder, cases):
    sampler = PatchSampler(64)
    plan = sampler.plan(cases, classes=("no", "yes"), root=folder)
    assert digest(plan) == digest(sampler.plan_cases(cases, folder, ("no", "yes"), "yes"))


def test_masks_of_test_rows_are_not_opened(folder, cases):
    cases["split"] = ["train", "test", "train"]
    (folder / "a_mask.png").write_text("no mask")
    plan = PatchSampler(64).plan_cases(cases, folder)
    assert plan["label"].isna().all()


def test_only_bare_slides_give_an_empty_plan_with_its_columns(folder, cases):
    plan = PatchSampler(64).plan_cases(cases.iloc[2:], folder)
    assert plan.empty
    assert tuple(plan.columns) == COLUMNS
    assert plan["x"].dtype == np.int64
    assert draw(plan, per_slide=4, seed=0).empty
    assert spread(plan, per_slide=4, seed=0).empty


def test_cases_need_two_classes_of_which_one_is_positive(folder, cases):
    with pytest.raises(SettingsError, match="one of them positive"):
        PatchSampler(64).plan_cases(cases, folder, ["a", "b"], "c")


def test_a_slide_that_cannot_be_read_is_named(folder, cases):
    (folder / "a.png").write_text("no image")
    with pytest.raises(SlideError, match=r"a\.png"):
        PatchSampler(64).plan_cases(cases, folder)


def table(**counts: tuple[int, int, int]) -> pd.DataFrame:
    """A plan with (tumour, normal, unsure) patches for each slide."""
    rows = [
        (case_id, label)
        for case_id, numbers in counts.items()
        for label, n in zip(("tumour", "normal", "unsure"), numbers, strict=True)
        for _ in range(n)
    ]
    plan = pd.DataFrame(rows, columns=["case_id", "label"])
    return plan.assign(x=np.arange(len(plan)) * 8, y=0)


def drawn_counts(drawn: pd.DataFrame, case_id: str) -> dict[str, int]:
    return drawn["label"][drawn["case_id"] == case_id].value_counts().to_dict()


def test_a_draw_is_balanced_and_hard_slides_give_what_they_have():
    plan = table(rich=(50, 90, 9), hard=(3, 90, 9), negative=(0, 90, 0), small=(2, 2, 0))
    drawn = draw(plan, per_slide=20, seed=0)
    assert drawn_counts(drawn, "rich") == {"tumour": 10, "normal": 10}
    assert drawn_counts(drawn, "hard") == {"tumour": 3, "normal": 10}
    assert drawn_counts(drawn, "negative") == {"normal": 20}
    assert drawn_counts(drawn, "small") == {"tumour": 2, "normal": 2}
    assert not drawn["x"].duplicated().any()
    assert drawn["x"].is_monotonic_increasing
    assert sum(drawn_counts(draw(plan, per_slide=7, seed=0), "rich").values()) == 7
    assert len(draw(plan, per_slide=1, seed=0)) == 4


def test_an_unbalanced_draw_is_uniform():
    drawn = draw(table(a=(100, 900, 500)), per_slide=500, seed=3, by=None)
    assert 35 <= drawn_counts(drawn, "a")["tumour"] <= 65
    assert len(drawn) == 500


def test_a_slides_draw_does_not_depend_on_the_other_slides_or_on_their_order():
    plan = table(a=(50, 50, 0), b=(50, 50, 0))
    alone = plan[plan["case_id"] == "b"]
    mixed = pd.concat([alone, plan[plan["case_id"] == "a"]])
    for choose in (draw, spread):
        expected = choose(plan, per_slide=10, seed=1).query("case_id == 'b'")["x"].tolist()
        assert choose(alone, per_slide=10, seed=1)["x"].tolist() == expected
        assert choose(mixed, per_slide=10, seed=1).query("case_id == 'b'")["x"].tolist() == expected
        assert choose(alone, per_slide=10, seed=2)["x"].tolist() != expected


def test_what_is_predicted_does_not_depend_on_labels():
    plan = table(a=(50, 50, 50), b=(4, 0, 0))
    blind = plan.assign(label=None)
    seen, unseen = spread(plan, per_slide=20, seed=0), spread(blind, per_slide=20, seed=0)
    assert seen["x"].tolist() == unseen["x"].tolist()
    assert seen["case_id"].value_counts().to_dict() == {"a": 20, "b": 4}


SCRIPT = """
import sys
from pathlib import Path
from kit.annotations import read_mask
from kit.files import digest
from kit.draws import draw, spread
from kit.sampler import PatchSampler
from kit.slides import open_slide
folder = Path(sys.argv[1])
with open_slide(folder / "a.png") as slide:
    plan = PatchSampler(32).plan(slide, mask=read_mask(folder / "a_mask.png", slide))
for table in (plan, draw(plan, per_slide=20, seed=5), spread(plan, per_slide=20, seed=5)):
    print(digest(table))
"""


def test_another_process_makes_the_same_plan_and_draws(folder):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True
    )
    with open_slide(folder / "a.png") as slide:
        sampler = PatchSampler(32)
        plan = sampler.plan(slide, mask=read_mask(folder / "a_mask.png", slide))
        again = sampler.plan(slide, mask=read_mask(folder / "a_mask.png", slide))
    assert digest(plan) == digest(again)
    tables = (plan, draw(plan, per_slide=20, seed=5), spread(plan, per_slide=20, seed=5))
    assert done.stdout.split() == [digest(table) for table in tables]


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["14082", "14306"])
def test_the_plan_of_a_real_slide_agrees_with_its_polygons(real_data, case):
    folder = real_data / "slides" / "idc_pseudo_slides"
    with open_slide(folder / f"{case}.tif") as slide:
        values = {"background": 0, "normal": 1, "tumour": 2}
        mask = read_mask(folder / f"{case}_mask.tif", slide, values=values)
        plan = PatchSampler(50).plan(slide, mask=mask)
    polygons = [
        np.array([[c.get("X"), c.get("Y")] for c in polygon.iter("Coordinate")], dtype=np.float32)
        for polygon in ElementTree.parse(folder / f"{case}.xml").iter("Annotation")
        if polygon.get("PartOfGroup") == "Tumor"
    ]
    inside = [
        any(cv2.pointPolygonTest(polygon, (x + 25.0, y + 25.0), False) > 0 for polygon in polygons)
        for x, y in zip(plan["x"].tolist(), plan["y"].tolist(), strict=True)
    ]
    assert min(plan["label"].value_counts()) > 100
    assert (plan["label"] == np.where(inside, "tumour", "normal")).all()


def test_help_2019s_rule_keeps_all_tumour_or_none(planned, folder):
    rule = PatchSampler(64, min_tumour=1.0, partial="drop")
    with open_slide(folder / "a.png") as slide:
        plan = rule.plan(slide, mask=read_mask(folder / "a_mask.png", slide))
    partly = planned[(planned.tumour > 0) & (planned.tumour < 1)]
    assert len(partly) and len(plan) == len(planned) - len(partly)
    assert set(plan.tumour) == {0.0, 1.0}
    assert set(plan.label) == {"normal", "tumour"}


def test_normal_may_hold_a_little_tumour_if_asked(folder):
    with open_slide(folder / "a.png") as slide:
        mask = read_mask(folder / "a_mask.png", slide)
        plan = PatchSampler(64, min_tumour=0.9, max_normal=0.75).plan(slide, mask=mask)
    assert set(plan[plan.tumour <= 0.75].label) == {"normal"}
    assert set(plan[plan.tumour >= 0.9].label) == {"tumour"}


def test_several_resolutions_are_planned_and_each_row_is_read_at_its_own(folder):
    with open_slide(folder / "a.png", mpp=0.5) as slide:
        both = PatchSampler(32, mpp=(0.5, 1.0)).plan(slide)
        alone = [PatchSampler(32, mpp=mpp).plan(slide) for mpp in (0.5, 1.0)]
        assert digest(both) == digest(pd.concat(alone, ignore_index=True))
        assert both.groupby("mpp").footprint.first().to_dict() == {0.5: 32.0, 1.0: 64.0}
        rows = both.sample(20, random_state=0)
        found = read_planned(slide, rows)
        for patch, row in zip(found, rows.itertuples(), strict=True):
            expected = slide.read_patch((row.x, row.y), 32, mpp=row.mpp)
            np.testing.assert_array_equal(patch, expected)


def test_rows_of_two_sizes_are_not_read_as_one(folder):
    with open_slide(folder / "a.png") as slide:
        rows = pd.concat([PatchSampler(32).plan(slide), PatchSampler(64).plan(slide)])
        with pytest.raises(TableError, match="must be of one size"):
            read_planned(slide, rows)
        with pytest.raises(TableError, match="no rows"):
            read_planned(slide, rows.iloc[:0])


def test_jitter_moves_each_place_by_the_seed_and_stays_within_the_bounds(folder):
    with open_slide(folder / "a.png") as slide:
        still = PatchSampler(64, min_tissue=0).plan(slide)
        moved = PatchSampler(64, min_tissue=0, jitter=10).plan(slide)
        again = PatchSampler(64, min_tissue=0, jitter=10).plan(slide)
        other = PatchSampler(64, min_tissue=0, jitter=10, seed=1).plan(slide)
    away = (moved[["x", "y"]] - still[["x", "y"]]).abs().to_numpy()
    assert digest(moved) == digest(again) != digest(other)
    assert away.max() <= 10 and away.mean() > 3
    assert moved.x.min() >= 0 and moved.x.max() + 64 <= 640
    assert moved.y.min() >= 0 and moved.y.max() + 64 <= 448


def test_a_slide_with_little_tumour_is_planned_again_at_a_smaller_patch(folder, caplog):
    sampler = PatchSampler(64, smaller=32, enough=40)
    with open_slide(folder / "a.png") as slide, caplog.at_level(logging.INFO):
        mask = read_mask(folder / "a_mask.png", slide)
        plan = sampler.plan(slide, mask=mask)
        assert set(plan["size"]) == {32}
        assert set(plan.footprint) == {32.0}
        assert digest(plan) == digest(PatchSampler(32).plan(slide, mask=mask))
        assert set(PatchSampler(64, smaller=32, enough=5).plan(slide, mask=mask)["size"]) == {64}
        assert set(sampler.plan(slide)["size"]) == {64}  # without a mask nothing is known
    assert "planned again at 32" in caplog.text


def test_a_slide_without_any_tumour_is_not_planned_again(folder):
    cv2.imwrite(str(folder / "none.png"), np.zeros((224, 320), np.uint8))
    with open_slide(folder / "a.png") as slide:
        plan = PatchSampler(64, smaller=32).plan(slide, mask=read_mask(folder / "none.png", slide))
    assert set(plan["size"]) == {64}


def test_blurred_patches_are_left_out_where_focus_is_asked(tmp_path):
    random = np.random.default_rng(0)
    pixels = np.full((256, 512, 3), 243, np.uint8)
    cells = np.kron(random.integers(-90, 40, (16, 48)), np.ones((8, 8), int))[..., None]
    pixels[64:192, 64:448] = np.array(PINK) + cells
    pixels[:, 256:] = cv2.GaussianBlur(pixels, (0, 0), 3)[:, 256:]
    with open_slide(pixels, mpp=2.0) as slide:
        every, sharp = (PatchSampler(64, min_focus=least).plan(slide) for least in (0, BLURRED))
    assert every.x.max() == 384
    assert sharp.x.tolist() == every[every.x < 256].x.tolist()


def test_planning_resumes_by_slide(folder, cases, tmp_path, monkeypatch):
    parts, sampler = tmp_path / "parts", PatchSampler(64)
    opened: list[str] = []
    original = sampler_module.open_slide

    def counted(path, **how):
        opened.append(path.name)
        if path.name == "a.png" and len(opened) == 2:
            raise KeyboardInterrupt
        return original(path, **how)

    monkeypatch.setattr(sampler_module, "open_slide", counted)
    with pytest.raises(KeyboardInterrupt):
        sampler.plan_cases(cases, folder, folder=parts)
    plan = sampler.plan_cases(cases, folder, folder=parts)
    assert opened == ["b.png", "a.png", "a.png", "bare.png"]
    assert digest(sampler.plan_cases(cases, folder, folder=parts)) == digest(plan)
    assert digest(sampler.plan_cases(cases, folder)) == digest(plan)
    assert len(opened) == 4 + 3
    cv2.imwrite(str(folder / "a_mask.png"), 255 - tumour())  # another mask: its slide alone
    sampler.plan_cases(cases, folder, folder=parts)
    assert opened[7:] == ["a.png"]
    PatchSampler(32).plan_cases(cases, folder, folder=parts)
    assert len(opened) == 8 + 3


def test_a_damaged_part_is_made_again(folder, cases, tmp_path):
    parts = tmp_path / "parts"
    plan = PatchSampler(64).plan_cases(cases, folder, folder=parts)
    for part in parts.glob("*.parquet"):
        part.write_bytes(part.read_bytes()[:200])
    assert digest(PatchSampler(64).plan_cases(cases, folder, folder=parts)) == digest(plan)


def test_workers_do_not_change_the_plan(folder, cases):
    one, two = (PatchSampler(64).plan_cases(cases, folder, workers=n) for n in (1, 2))
    assert digest(one) == digest(two)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1"),
        ({"jitter": -1}, "jitter must be a whole number of at least 0. Received: jitter=-1"),
        ({"level": -1}, "level must be a whole number of at least 0"),
        ({"mpp": 0}, "mpp must be above 0"),
        ({"mpp": ()}, "mpp must be above 0"),
        ({"mpp": (1.0, 1.0)}, "mpp must be above 0"),
        ({"max_normal": 0.5}, "max_normal must be in"),
        ({"partial": "keep"}, "partial"),
        ({"smaller": 64}, "smaller must be below patch_size"),
        ({"min_focus": -1}, "min_focus must be 0 or more"),
    ],
)
def test_every_setting_says_what_it_takes(setting, line):
    with pytest.raises(SettingsError, match=line.replace("(", r"\(")):
        PatchSampler(**{"patch_size": 64, **setting})


def test_every_setting_of_a_plan_reaches_the_sampler(folder, cases, monkeypatch):
    from kit import kinds
    from kit.settings import Settings

    given = {
        "patch_size": 96, "mpp": 1.5, "level": 1, "stride": 48, "tissue": "otsu",
        "min_tissue": 0.25, "min_tumour": 0.75, "max_normal": 0.125, "partial": "drop",
        "min_focus": 0.5, "smaller": 64,
    }  # fmt: skip
    assert set(given) == set(kinds.PLANS)
    seen = []
    monkeypatch.setattr(
        PatchSampler, "outcomes", lambda self, *_, **__: seen.append(self) or [_Outcome()]
    )
    dataset = _Dataset()
    kinds.patches(cases, dataset, folder, Settings(**given), folder=folder / "plans")
    assert {name: getattr(seen[0], name) for name in given} == given


class _Outcome:
    error, value, name = None, pd.DataFrame({"case_id": []}), "s"


class _Dataset:
    kind, classes, positive = "slides", ["normal", "tumour"], "tumour"
    mask_values, mask_frame, mpp = None, None, None
