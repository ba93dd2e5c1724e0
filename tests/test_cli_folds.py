"""`kit folds`: a table to folds; bad input is one clear line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import project
import pytest

from kit.files import read_table
from kit.folds import check_no_leak


def code_of(*arguments: object) -> int:
    return project.code_of("folds", *arguments)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 120
    patient = np.arange(n) // 3
    made = pd.DataFrame({
        "case_id": [f"{i:03}" for i in range(n)],
        "diagnosis": rng.choice(["no", "yes"], 40)[patient],
        "patient": [f"p{k}" for k in patient],
        "site": np.array(["A", "B", "C"])[patient % 3],
        "oedema": rng.integers(0, 2, n), "effusion": rng.integers(0, 2, n),
    })  # fmt: skip
    path = tmp_path / "t.csv"
    made.to_csv(path, index=False)
    return path


BASE = ("--label", "diagnosis", "--group", "patient")


@pytest.mark.parametrize("name", ["f.csv", "f.parquet"])
def test_folds_are_written_that_no_patient_stands_in_twice(table, tmp_path, capsys, name) -> None:
    out = tmp_path / name
    assert code_of(table, *BASE, "--n-splits", 4, "--out", out) == 0
    made = check_no_leak(read_table(out))
    assert list(made.columns) == ["case_id", "group", "diagnosis", "fold"]
    assert sorted(made.fold.unique()) == [0, 1, 2, 3] and len(made) == 120
    text = capsys.readouterr().out
    assert "yes" in text and "120 cases in 40 groups" in text


def test_json_says_what_each_fold_holds(table, tmp_path, capsys) -> None:
    assert code_of(table, *BASE, "--out", tmp_path / "f.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(row["cases"] for row in found["folds"]) == 120 and found["joined"] == []


def test_a_site_a_fold_a_held_out_part_repeats_and_several_labels(table, tmp_path) -> None:
    out = tmp_path / "f.csv"
    assert code_of(table, *BASE, "--by-site", "site", "--out", out) == 0
    sites = pd.read_csv(table).merge(pd.read_csv(out)[["case_id", "fold"]], on="case_id")
    assert (sites.groupby("fold").site.nunique() == 1).all()
    assert code_of(table, *BASE, "--hold-out", 0.2, "--balance", "site", "--out", out) == 0
    held = pd.read_csv(out)
    assert 15 <= (held.fold == -1).sum() <= 33
    assert not set(held.group[held.fold == -1]) & set(held.group[held.fold >= 0])
    assert code_of(table, *BASE, "--repeats", 3, "--out", out) == 0
    assert pd.read_csv(out).groupby("repeat").size().tolist() == [120] * 3
    assert code_of(table, "--label", "oedema", "--label", "effusion", "--group", "patient",
                   "--out", out) == 0  # fmt: skip
    by_fold = pd.read_csv(out).groupby("fold")[["oedema", "effusion"]].mean()
    assert (by_fold.max() - by_fold.min()).max() < 0.15


def test_near_copies_are_joined_by_their_pixels(table, tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    made = pd.read_csv(table, dtype={"case_id": str}).head(30)
    made["path"] = made.case_id + ".png"
    for i, path in enumerate(made.path):
        spots = rng.integers(0, 255, (8, 8, 3), np.uint8)
        image = cv2.resize(spots, (40, 40), interpolation=cv2.INTER_CUBIC)
        if i == 29:
            image = np.rot90(cv2.imread(str(tmp_path / made.path[0])))
        cv2.imwrite(str(tmp_path / path), image)
    made.to_csv(table, index=False)
    out = tmp_path / "f.csv"
    assert code_of(table, *BASE, "--n-splits", 3, "--images", tmp_path, "--out", out) == 0
    folds = pd.read_csv(out, dtype={"case_id": str}).set_index("case_id")
    assert folds.fold["000"] == folds.fold["029"] and folds.group["000"] == folds.group["029"]
    assert "000 and 029 are alike" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [({}, ("--n-splits", 41), "fewer groups"), ({}, ("--n-splits", 1), "at least 2"),
     ({"case_id": "001"}, (), "doubled"), ({"case_id": ""}, (), "empty ids"),
     ({"patient": ""}, (), "empty cells"), ({}, ("--label", "grade"), "column grade is missing"),
     ({}, ("--balance", "scanner"), "column scanner is missing"),
     ({"diagnosis": ["no", "yes"] * 60}, ("--one-label",), "more than one"),
     ({}, ("--hold-out", 2), "share"), ({"site": "A"}, ("--by-site", "site"), "one value"),
     ({"site": ["A", "B"] * 60}, ("--by-site", "site"), "more than one site"),
     ({}, ("--images", "nowhere"), "column path is missing"), ({}, ("--out", "f.xlsx"), "CSV")],
)  # fmt: skip
def test_bad_input_is_one_clear_line(table, tmp_path, capsys, change, arguments, said) -> None:
    pd.read_csv(table, dtype={"case_id": str}).assign(**change).to_csv(table, index=False)
    out = ("--out", tmp_path / "f.csv")
    assert code_of(table, *BASE, *out, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "f.csv").exists()
