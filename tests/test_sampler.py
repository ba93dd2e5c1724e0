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

from kit.annotations import read_mask
from kit.errors import MissingMppError, SettingsError, SlideError
from kit.files import digest
from kit.sampler import COLUMNS, PatchSampler, draw, spread
from kit.slides import open_slide

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
    drawn = draw(table(a=(100, 900, 500)), per_slide=500, seed=3, balance=False)
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
from kit.sampler import PatchSampler, draw, spread
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
