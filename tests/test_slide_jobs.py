"""Slides as jobs: each by the networks that may, one that fails is named, what stands is kept."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_slides import picture, write_pyramid
from test_streams import CLASSES, damage, everywhere

from kit import jobs, slide_jobs
from kit.errors import JobError, ModelError, SlideError, TableError
from kit.files import read_table, sha256, write_json
from kit.models import build_model
from kit.sampler import PatchSampler
from kit.slide_jobs import predict_slides
from kit.slides import open_slide


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, and a network of each of two folds."""
    folder = tmp_path_factory.mktemp("place")
    for number, name in enumerate("abc"):
        write_pyramid(folder / f"{name}.tiff", [np.roll(picture(512, 512), 50 * number, axis=1)])
    for fold in (0, 1):
        path = folder / f"fold{fold}_seed0.keras"
        build_model("conv_small", (16, 16, 3), 2).save(path)
        note = {"fold": fold, "seed": 0, "model": "conv_small", "sha256": sha256(path)}
        write_json(path.with_suffix(".json"), note)
    return folder


@pytest.fixture
def cases() -> pd.DataFrame:
    return pd.DataFrame({
        "case_id": list("abc"), "path": [f"{name}.tiff" for name in "abc"], "key": list("xyz"),
        "fold": [0, 1, np.nan],
    })  # fmt: skip


def plan(folder: Path, names: str = "abc", size: int = 64) -> pd.DataFrame:
    parts = []
    for name in names:
        with open_slide(folder / f"{name}.tiff") as slide:
            parts.append(PatchSampler(size).plan(slide, everywhere(slide), case_id=name))
    return pd.concat(parts, ignore_index=True)


def networks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.keras"))


def test_each_slide_is_predicted_by_the_networks_that_have_not_seen_it(place, cases, tmp_path):
    done = predict_slides(
        cases, plan(place), networks(place), root=place, classes=CLASSES, folder=tmp_path
    )
    assert [one.name for one in done] == list("abc") and not any(one.error for one in done)
    tables = [read_table(one.value) for one in done]
    assert [sorted(set(table.fold)) for table in tables] == [[0], [1], [0, 1]]
    assert [len(table) for table in tables] == [64, 64, 128]
    again = predict_slides(
        cases, plan(place), networks(place), root=tmp_path / "gone", classes=CLASSES,
        folder=tmp_path,
    )  # fmt: skip
    assert [one.value for one in again] == [one.value for one in done]  # no slide was opened


def test_two_processes_predict_the_same(place, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(slide_jobs, "LEAST", 64)  # a process for each slide
    made = [
        predict_slides(
            cases, plan(place), networks(place), root=place, classes=CLASSES, policy="patch",
            folder=tmp_path / str(workers), workers=workers,
        )
        for workers in (1, 2)
    ]  # fmt: skip
    for one, other in zip(*made, strict=True):
        pd.testing.assert_frame_equal(
            read_table(one.value), read_table(other.value), check_exact=False, atol=1e-6
        )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_of_a_process_that_dies_each_slide_has_the_error_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(slide_jobs, "LEAST", 100)
    work = [jobs.Job("a", _die), *(jobs.Job(str(n), abs, (n,)) for n in range(-1, -10, -1))]
    patches = {job.name: 50 for job in work}
    done = list(slide_jobs._apart(work, patches, 1))  # four parts, the first of two
    assert [one.name for one in done] == [job.name for job in work]
    assert all(isinstance(one.error, JobError) for one in done[:2])
    assert [one.value for one in done[2:]] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_slide_that_is_damaged_half_way_is_named_and_the_others_go_on(place, cases, tmp_path):
    broken = tmp_path / "data"
    broken.mkdir()
    for name in "abc":
        (broken / f"{name}.tiff").write_bytes((place / f"{name}.tiff").read_bytes())
    asked = plan(place).drop(columns="slide_key")  # damaged later, it is not the same
    damage(broken / "b.tiff", 8)
    done = predict_slides(
        cases, asked, networks(place), root=broken, classes=CLASSES, folder=tmp_path / "out"
    )
    assert [one.error is None for one in done] == [True, False, True]
    assert isinstance(done[1].error, SlideError) and "b.tiff" in str(done[1].error)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


def test_a_slide_smaller_than_a_patch_is_named_and_the_others_go_on(place, cases, tmp_path):
    shutil.copytree(place, tmp_path / "data")
    write_pyramid(tmp_path / "data" / "b.tiff", [picture(60, 200)])
    planned = PatchSampler(64, min_tissue=0).outcomes(cases[["case_id", "path"]], tmp_path / "data")
    assert [one.error is None for one in planned] == [True, False, True]
    assert "larger than the slide" in str(planned[1].error) and "b.tiff" in str(planned[1].error)
    done = predict_slides(  # by a plan that was made of another file of this name
        cases, plan(place), networks(place), root=tmp_path / "data", classes=CLASSES,
        folder=tmp_path / "out",
    )  # fmt: skip
    assert [one.error is None for one in done] == [True, False, True]
    assert "made from another slide" in str(done[1].error)


def test_a_network_that_does_not_fit_is_told_of_each_slide(place, cases, tmp_path):
    done = predict_slides(
        cases, plan(place), networks(place), root=place, classes=("a", "b", "c"), folder=tmp_path
    )
    assert all(isinstance(one.error, ModelError) for one in done)
    assert "3 classes out: a, b, c" in str(done[0].error) and not list(tmp_path.rglob("*.parquet"))


def test_a_slide_without_patches_has_no_job(place, cases, tmp_path):
    done = predict_slides(
        cases, plan(place, "ac"), networks(place), root=place, classes=CLASSES, folder=tmp_path
    )
    assert [one.name for one in done] == ["a", "c"]


def test_changed_inputs_are_predicted_again(place, cases, tmp_path):
    def times(**other: object) -> dict[str, int]:
        table = cases.assign(**other)
        predict_slides(
            table, plan(place), networks(place), root=place, classes=CLASSES, folder=tmp_path
        )
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}

    first, second = times(), times()
    assert first == second
    third = times(key=["x", "y", "other"])
    assert sum(first[name] != third[name] for name in first) == 1


def test_what_cannot_be_is_refused(place, cases, tmp_path):
    how = {"root": place, "classes": CLASSES, "folder": tmp_path}
    with pytest.raises(TableError, match="planned slides are no cases"):
        predict_slides(cases[cases.case_id != "a"], plan(place), networks(place), **how)
    with pytest.raises(TableError, match=r"no network has left a case out.*a, fold 7"):
        predict_slides(cases.assign(fold=7.0), plan(place), networks(place), **how)
    with pytest.raises(TableError, match="doubled ids"):
        predict_slides(pd.concat([cases, cases]), plan(place), networks(place), **how)


def test_a_network_that_changed_meanwhile_is_refused(place):
    with pytest.raises(ModelError, match="changed while it was used"):
        slide_jobs._loaded(networks(place)[0], "another")
