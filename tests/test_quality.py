"""`kit patches` and the table of what stands on each slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from kit import quality
from kit.cli import main
from kit.errors import SlideError
from kit.files import read_table
from kit.store import Store


def stained(height: int = 512, width: int = 768) -> np.ndarray:
    """White glass with one stained and textured rectangle in rows 128..384, columns 128..640."""
    random = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 245, np.uint8)
    noise = random.integers(-20, 20, (256, 512, 1))
    pixels[128:384, 128:640] = np.clip(np.array([170, 80, 150]) + noise, 0, 255)
    return pixels


def slide(path: Path, mpp: float | None = 1.0) -> Path:
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    tifffile.imwrite(
        path, stained(), tile=(128, 128), compression="deflate", photometric="rgb", metadata=None,
        resolution=resolution, resolutionunit="CENTIMETER" if mpp else None,
    )  # fmt: skip
    return path


def mask(path: Path) -> Path:
    drawn = np.zeros((512, 768), np.uint8)
    drawn[128:384, 128:256] = 7
    cv2.imwrite(str(path), drawn)
    return path


def kit(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in ("patches", *arguments, "--workers", "1")])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_slide_and_its_mask_give_a_plan_and_a_row(tmp_path, capsys):
    out = tmp_path / "p.parquet"
    assert kit(slide(tmp_path / "a.tif"), "--mask", mask(tmp_path / "m.png"), "--tumour-value", 7,
               "--patch-size", 64, "--level", 0, "--out", out, "--json") == 0  # fmt: skip
    found, plan = said(capsys), read_table(out)
    assert len(plan) == found["patches"] == 4 * 8  # the rectangle is 256 x 512, aligned to 64
    assert (plan.label == "tumour").sum() == 4 * 2
    assert plan.loc[plan.label == "tumour", "x"].max() < 256
    (row,) = found["slides"]
    assert (row["width"], row["height"], row["levels"], row["mpp"]) == (768, 512, 1, 1.0)
    assert row["tissue_percent"] == pytest.approx(100 / 3, abs=2)
    assert (row["patches"], row["tumour_patches"], row["reader"]) == (32, 8, "tiles")
    assert row["blurred_percent"] == 0
    kept = pd.read_csv(tmp_path / "p.slides.csv")
    assert kept.slide.tolist() == ["a.tif"]


def test_stride_and_mpp_reach_the_plan(tmp_path, capsys):
    out = tmp_path / "p.parquet"
    kit(slide(tmp_path / "a.tif"), "--patch-size", 32, "--mpp", 2.0, "--stride", 16,
        "--min-tissue", 1, "--out", out, "--json")  # fmt: skip
    plan = read_table(out)
    assert set(plan.footprint) == {64.0}
    assert sorted(plan.x.diff().loc[lambda d: d > 0].unique()) == [32]
    assert said(capsys)["slides"][0]["tumour_patches"] is None


def test_a_folder_takes_each_slide_with_the_mask_of_its_name(tmp_path, capsys):
    for name in ("a", "b"):
        slide(tmp_path / f"{name}.tif")
    mask(tmp_path / "a_mask.png")
    out = tmp_path / "out" / "p.parquet"
    code = kit(tmp_path, "--mask", tmp_path, "--tumour-value", 7, "--patch-size", 64, "--out", out)
    assert code == 0
    plan = read_table(out)
    assert plan.groupby("case_id").label.agg(lambda s: s.notna().any()).to_dict() == {
        "a": True, "b": False,
    }  # fmt: skip
    assert "b.tif: no mask of its name" in capsys.readouterr().err


def test_a_broken_slide_among_others_is_named_and_the_rest_goes_on(tmp_path, capsys):
    slide(tmp_path / "a.tif")
    (tmp_path / "b.svs").write_text("not a slide")
    out = tmp_path / "p.parquet"
    assert kit(tmp_path, "--patch-size", 64, "--out", out, "--json") == 1
    found = said(capsys)
    assert len(found["slides"]) == 1
    assert len(found["failures"]) == 1
    assert "b.svs" in found["failures"][0]
    assert set(read_table(out).case_id) == {"a"}


def test_a_slide_of_glass_gives_a_row_and_no_patch(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", np.full((256, 256, 3), 244, np.uint8), photometric="rgb")
    out = tmp_path / "p.parquet"
    assert kit(tmp_path / "a.tif", "--patch-size", 64, "--out", out, "--json") == 0
    (row,) = said(capsys)["slides"]
    assert (row["patches"], row["blurred_percent"], row["tissue_percent"]) == (0, None, 0)
    assert len(read_table(out)) == 0


def test_the_patches_are_kept_as_the_slide_has_them(tmp_path, capsys):
    out, folder = tmp_path / "p.parquet", tmp_path / "store"
    kit(slide(tmp_path / "a.tif"), "--patch-size", 64, "--out", out, "--store", folder)
    plan, kept = read_table(out), Store(folder)
    assert kept.pixels.shape == (32, 64, 64, 3)
    first = kept.items.iloc[0]
    expected = stained()[first.y : first.y + 64, first.x : first.x + 64]
    np.testing.assert_array_equal(kept.pixels[0:1][0], expected)
    assert kept.items[["case_id", "x", "y"]].equals(plan[["case_id", "x", "y"]])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--patch-size", 0], "patch_size must be"),
        (["--patch-size", 2000], "the patch is larger than the slide"),
        (["--patch-size", 64, "--mpp", 1, "--level", 0], "--mpp and --level exclude each other"),
        (["--patch-size", 64, "--level", 3], "no such level"),
        (["--patch-size", 64, "--min-tissue", 80], "min_tissue must be in [0, 1]"),
        (["--patch-size", 64, "--mpp", -1], "mpp must be"),
        (["--patch-size", 64, "--mask", "missing.png"], "no such mask"),
        (["--patch-size", 64, "--mask", "m", "--annotations", "a"], "exclude each other"),
        (["--patch-size", 64, "--mask", "m", "--tumour-value", "x"], "takes a whole number"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, line):
    assert kit(slide(tmp_path / "a.tif"), *arguments, "--out", tmp_path / "p.parquet") == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "p.parquet").exists()


def test_a_mask_without_the_tumour_value_is_refused_and_other_values_beside_it_are_not(
    tmp_path, capsys
):
    drawn = np.full((512, 768), 1, np.uint8)
    drawn[128:384, 128:256] = 2
    cv2.imwrite(str(tmp_path / "m.png"), drawn)
    asked = [slide(tmp_path / "a.tif"), "--mask", tmp_path / "m.png", "--patch-size", 64,
             "--out", tmp_path / "p.parquet", "--json"]  # fmt: skip
    assert kit(*asked) == 2
    assert "the mask holds values that have no name" in capsys.readouterr().err
    assert kit(*asked, "--tumour-value", 2) == 0
    assert said(capsys)["slides"][0]["tumour_patches"] == 8


def test_a_group_of_an_annotation_is_named(tmp_path, capsys):
    square = [[128, 128], [256, 128], [256, 384], [128, 384], [128, 128]]
    far = [[384, 128], [640, 128], [640, 384], [384, 384], [384, 128]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
         "properties": {"classification": {"name": name}}}
        for name, ring in (("Tumor", square), ("Stroma", far))
    ]  # fmt: skip
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    asked = [slide(tmp_path / "a.tif"), "--annotations", path, "--patch-size", 64,
             "--out", tmp_path / "p.parquet", "--json"]  # fmt: skip
    assert kit(*asked) == 2
    assert "Stroma" in capsys.readouterr().err
    assert kit(*asked, "--tumour-value", "Tumor") == 0
    assert said(capsys)["slides"][0]["tumour_patches"] == 8


def test_a_slide_without_mpp_names_the_remedies_and_takes_one(tmp_path, capsys):
    path, out = slide(tmp_path / "a.tif", mpp=None), tmp_path / "p.parquet"
    assert kit(path, "--patch-size", 32, "--mpp", 2, "--out", out) == 2
    told = capsys.readouterr().err
    assert "a.tif" in told and "--slide-mpp" in told and "level" in told
    assert kit(path, "--patch-size", 32, "--mpp", 2, "--slide-mpp", 1, "--out", out) == 0
    assert set(read_table(out).footprint) == {64.0}


def test_a_missing_slide_and_an_empty_folder_are_told(tmp_path, capsys):
    assert kit(tmp_path / "no.svs", "--patch-size", 64, "--out", tmp_path / "p.parquet") == 2
    assert "no such slide" in capsys.readouterr().err
    assert kit(tmp_path, "--patch-size", 64, "--out", tmp_path / "p.parquet") == 2
    assert "the folder holds no slide" in capsys.readouterr().err


def test_two_slides_of_one_name_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(SlideError, match="the same name"):
        quality.slides_in([slide(tmp_path / "a.tif"), slide(tmp_path / "x" / "a.tif")])


@pytest.mark.real_data
def test_the_mask_and_the_polygons_of_a_real_slide_label_its_patches_alike(
    real_data, tmp_path, capsys
):
    folder, plans = real_data / "slides" / "idc_pseudo_slides", {}
    common = ["--patch-size", 50, "--level", 0, "--min-tissue", 0, "--json"]
    for name in ("14082", "14306"):
        for drawn in (["--mask", folder / f"{name}_mask.tif", "--tumour-value", 2],
                      ["--annotations", folder / f"{name}.xml"]):  # fmt: skip
            out = tmp_path / "p.parquet"
            assert kit(folder / f"{name}.tif", *drawn, *common, "--out", out) == 0
            plans[drawn[0]] = read_table(out)
        by_mask, by_polygon = plans["--mask"], plans["--annotations"]
        assert by_mask[["x", "y"]].equals(by_polygon[["x", "y"]])
        assert (by_mask.label == "tumour").sum() > 100
        assert by_mask.label.tolist() == by_polygon.label.tolist()


@pytest.mark.real_data
def test_every_real_slide_gets_its_row(real_data, tmp_path, capsys):
    slides = real_data / "slides"
    out = tmp_path / "p.parquet"
    code = kit(
        slides / "CMU-1-Small-Region.svs", slides / "TCGA-CR-7395-01A-01-TS1.svs",
        slides / "idc_pseudo_slides", slides / "mirax" / "Mirax2-Fluorescence-2.mrxs",
        "--patch-size", 64, "--out", out, "--json",
    )  # fmt: skip
    found = said(capsys)
    assert code == 1
    assert [line.split(":")[0] for line in found["failures"]] == ["Mirax2-Fluorescence-2.mrxs"]
    rows = {row["slide"]: row for row in found["slides"]}
    assert set(rows) == {
        "CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "14082.tif", "14306.tif",
    }  # fmt: skip
    assert rows["TCGA-CR-7395-01A-01-TS1.svs"]["mpp"] is None
    assert all(row["patches"] > 0 and row["reader"] == "tiles" for row in rows.values())


def test_one_mask_file_for_several_slides_is_refused(tmp_path, capsys):
    slides = [slide(tmp_path / f"{name}.tif") for name in "ab"]
    drawn = mask(tmp_path / "m.png")
    code = kit(*slides, "--mask", drawn, "--patch-size", 128, "--out", tmp_path / "p.parquet")
    assert code == 2
    assert "one mask for several slides" in capsys.readouterr().err


def test_a_changed_slide_leaves_the_kept_patches_of_the_others(tmp_path):
    slides = [slide(tmp_path / f"{name}.tif") for name in "ab"]
    arguments = (*slides, "--patch-size", 128, "--store", tmp_path / "kept")
    assert kit(*arguments, "--out", tmp_path / "p.parquet") == 0
    before = Store(tmp_path / "kept").items.set_index("case_id")
    slides[0].write_bytes(slides[0].read_bytes() + b"more")
    assert kit(*arguments, "--out", tmp_path / "p.parquet") == 0
    after = Store(tmp_path / "kept").items.set_index("case_id")
    assert (before.key["b"] == after.key["b"]).all()
    assert (before.key["a"] != after.key["a"]).all()
