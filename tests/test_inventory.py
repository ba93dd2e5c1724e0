from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from kit import inventory
from kit.errors import JobError
from kit.inventory import overview, verify
from kit.jobs import Job, Outcome, call
from kit.manifest import Manifest, load_manifest

ENTRY: dict[str, Any] = {
    "kind": "images",
    "licence": "CC0-1.0",
    "source": "https://example.org",
    "classes": ["benign", "malignant"],
    "positive": "malignant",
    "group": {"unit": "image"},
}
FOLDERS = {**ENTRY, "roots": {"local": "mine"}, "pattern": "{label}/{case_id}.png"}


def manifest_of(folder: Path, **entries: dict[str, Any]) -> Manifest:
    path = folder / "data_manifest.yaml"
    path.write_text(yaml.safe_dump({"datasets": entries}), encoding="utf-8")
    return load_manifest(path)


def draw(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name in ("benign/1.png", "benign/2.png", "malignant/3.png"):
        draw(tmp_path / "data/mine" / name)
    return tmp_path


def test_the_overview_tells_what_is_here_missing_and_broken(mine: Path) -> None:
    draw(mine / "data/broken/unheard_of/1.png")
    manifest = manifest_of(
        mine, mine=FOLDERS, lost={**FOLDERS, "roots": {"local": "lost"}, "synthetic": True},
        broken={**FOLDERS, "roots": {"local": "broken"}},
    )  # fmt: skip
    table = overview(manifest).set_index("name")
    assert table.here.to_dict() == {"mine": True, "lost": False, "broken": False}
    assert table.cases["mine"] == 3
    assert table.groups["mine"] == 3
    assert table.test["mine"] == 0
    assert table.classes["mine"] == "benign 2, malignant 1"
    assert table["where"]["mine"] == str(mine / "data/mine")
    assert "kit data make lost" in table["where"]["lost"]
    assert "unheard_of" in table["where"]["broken"]


def test_whole_files_are_good(mine: Path) -> None:
    digest = draw(mine / "data/mine/benign/1.png")
    entry = {**FOLDERS, "sha256": {"benign/1.png": digest}, "counts": {"benign": 2, "malignant": 1}}
    table = verify(manifest_of(mine, mine=entry).dataset("mine"))
    assert set(table.status) == {"good"}
    assert list(table.what) == ["labels", "labels", "sha256", "image", "image", "image"]
    assert table.note.iloc[-1] == "12 x 8"


def test_drawn_cases_need_not_be_as_many_as_the_real_ones(mine: Path) -> None:
    entry = manifest_of(mine, mine={**FOLDERS, "counts": {"benign": 99, "malignant": 1}})
    assert list(verify(entry.dataset("mine")).status).count("differs") == 1
    (mine / "data/mine/synthetic.json").write_text("{}")
    table = verify(entry.dataset("mine"))
    assert set(table.status) == {"good"}
    assert table.note.iloc[0].endswith("2 groups; drawn data, the real have 99")


def test_each_fault_is_a_row(mine: Path) -> None:
    image = mine / "data/mine/benign/2.png"
    image.write_bytes(image.read_bytes()[:60])
    entry = {
        **FOLDERS, "sha256": {"benign/1.png": "0" * 64, "gone.csv": "0" * 64},
        "counts": {"benign": 5, "malignant": 1},
    }  # fmt: skip
    table = verify(manifest_of(mine, mine=entry).dataset("mine"))
    found = table[table.status != "good"].set_index(["what", "name"]).status.to_dict()
    assert found == {
        ("labels", "benign"): "differs",
        ("sha256", "benign/1.png"): "differs",
        ("sha256", "gone.csv"): "missing",
        ("image", "benign/2.png"): "unreadable",
    }


def test_a_file_whose_decoder_kills_its_worker_is_a_row(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(jobs: list[Job], **_: Any) -> list[Outcome]:
        died = JobError(f"{jobs[1].name} killed its worker twice, and was set aside")
        return [call(jobs[0]), Outcome(jobs[1].name, None, died, 0.0), call(jobs[2])]

    monkeypatch.setattr(inventory, "run", run)
    table = verify(manifest_of(mine, mine=FOLDERS).dataset("mine")).tail(3)
    assert list(table.status) == ["good", "unreadable", "good"]
    assert table.name.iloc[1] == "benign/2.png"
    assert "killed its worker twice" in table.note.iloc[1]


def test_missing_and_broken_sets_are_rows_and_no_errors(tmp_path: Path) -> None:
    dataset = manifest_of(tmp_path, mine=FOLDERS).dataset("mine")
    assert list(verify(dataset).status) == ["missing"]
    draw(tmp_path / "data/mine/unheard_of/1.png")
    table = verify(dataset)
    assert list(table.status) == ["bad"]
    assert "unheard_of" in table.note[0]


@pytest.mark.parametrize(("dtype", "status"), [(np.uint8, "good"), (np.float32, "unreadable")])
def test_arrays_are_looked_into(tmp_path: Path, dtype: type, status: str) -> None:
    (tmp_path / "data/mine").mkdir(parents=True)
    content = {"train_images": np.zeros((2, 4, 4), dtype), "train_labels": np.array([0, 1])}
    np.savez(tmp_path / "data/mine/x.npz", **content)  # type: ignore[arg-type]
    entry = {**ENTRY, "kind": "arrays", "roots": {"local": "mine"}, "arrays": "x.npz",
             "labels": {0: "benign", 1: "malignant"}}  # fmt: skip
    table = verify(manifest_of(tmp_path, mine=entry).dataset("mine"))
    assert table.set_index("what").status["arrays"] == status


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["idc_pseudo_slides", "breakhis_200x", "breastmnist"])
def test_real_sets_are_good(real_data: Path, name: str) -> None:
    table = verify(load_manifest().dataset(name), real_data)
    assert set(table.status) == {"good"}
    assert "sha256" in set(table.what)


@pytest.mark.real_data
def test_real_series_are_read_and_a_cut_file_is_found(real_data: Path, tmp_path: Path) -> None:
    whole = sorted((real_data / "dicom/t1_mprage").iterdir())[:3]
    for case in ("whole", "cut"):
        (tmp_path / "data/mine" / case).mkdir(parents=True)
        for path in whole:
            (tmp_path / "data/mine" / case / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data/mine/cut" / whole[1].name).write_bytes(whole[1].read_bytes()[:20_000])
    entry = {**FOLDERS, "kind": "dicom", "pattern": "{case_id}", "label": "benign"}
    table = verify(manifest_of(tmp_path, mine=entry).dataset("mine"))
    status = table[table.what == "series"].set_index("name").status.to_dict()
    assert status == {"cut": "unreadable", "whole": "good"}
