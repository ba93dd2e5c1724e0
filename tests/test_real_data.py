"""The whole road on the real sets, with small settings: marked, and run by `make check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from kit.cli import main
from kit.files import read_json, read_table, sha256

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
SIX = ["accuracy", "specificity", "sensitivity", "ppv", "npv", "f1", "mean_of_six", "auc"]


def run(name: str, data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["run", name, "--data", str(data), "--out", str(out), "--smoke", "--json",
              "--workers", "0"])  # fmt: skip
    assert stopped.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("name", "least_auc"),
    [("idc_patches", 0.65), ("breakhis_200x", 0.6), ("breastmnist", 0.65), ("retinamnist", 0.6)],
)
def test_a_real_set_goes_the_whole_road_and_learns(
    name: str, least_auc: float, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(name, real_data, tmp_path / "out", capsys)
    assert found["auc"]["value"] > least_auc
    assert (found["threshold"] is None) == (name == "retinamnist")
    assert not found["synthetic"]
    assert not (tmp_path / "out" / "SYNTHETIC.txt").exists()
    folds = read_table(tmp_path / "out" / "folds.parquet")
    assert folds.groupby("group").fold.nunique().max() == 1
    sent = pd.read_csv(found["submission"], dtype={"case_id": str})
    assert sorted(sent.case_id) == sorted(folds.case_id)


def test_two_real_slides_go_the_road_and_what_they_cannot_say_is_undefined(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("idc_pseudo_slides", real_data, tmp_path / "out", capsys)
    assert found["n"] == 2
    assert found["specificity"]["value"] is None
    assert found["auc"]["value"] is None
    assert "no row is normal" in found["reasons"]["specificity"]
    plan = read_table(tmp_path / "out" / "patches.parquet")
    assert set(plan.label) == {"normal", "tumour"}
    assert (plan.groupby("case_id").size() > 250).all()  # of 478 and 431 that the masks know


def test_forty_patients_marked_as_test_are_predicted_and_touch_nothing_else(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data" / "patches" / "idc"
    shutil.copytree(real_data / "patches" / "idc", root, copy_function=shutil.copyfile)
    root.chmod(0o755)
    table = pd.read_csv(root / "labels.csv", dtype=str)
    chosen = sorted(table.patient_id.unique())[::4]
    test = table.patient_id.isin(chosen)
    assert len(chosen) == 40
    table["split"] = np.where(test, "test", "train")
    table["label"] = table.label.where(~test, "")
    (root / "labels.csv").unlink()
    table.to_csv(root / "labels.csv", index=False)

    first = run("idc_patches", tmp_path / "data", tmp_path / "out", capsys)
    sent = pd.read_csv(first["submission"])
    expected = table.path[test].str.removesuffix(".png")
    assert sorted(sent.case_id) == sorted(expected)
    assert not set(expected) & set(read_table(tmp_path / "out" / "oof.parquet").case_id)
    weights = {path.name: sha256(path) for path in (tmp_path / "out" / "models").glob("*.keras")}
    assert len(weights) == 2

    for path in table.path[test][:60]:
        (root / path).unlink()
        assert cv2.imwrite(str(root / path), np.full((50, 50, 3), (160, 60, 140), np.uint8))
    second = run("idc_patches", tmp_path / "data", tmp_path / "out", capsys)
    again = {path.name: sha256(path) for path in (tmp_path / "out" / "models").glob("*.keras")}
    assert again == weights
    assert {k: second[k] for k in [*SIX, "threshold"]} == {k: first[k] for k in [*SIX, "threshold"]}
    assert not pd.read_csv(second["submission"]).equals(sent)
    assert read_json(tmp_path / "out" / "ensemble.json")["threshold"] == first["threshold"]
