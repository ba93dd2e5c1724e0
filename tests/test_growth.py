"""What many slides would take: arithmetic by hand, and rates that are measured."""

from __future__ import annotations

import json
from pathlib import Path

import project
import pytest

from kit import growth
from kit.errors import SettingsError
from kit.growth import Rates
from kit.manifest import load_manifest
from kit.pace import Pace
from kit.sampler import PatchSampler
from kit.settings import Settings
from kit.slides import open_slide
from kit.stubs import write_stub

SETTINGS = Settings(
    patches_per_slide=100, predict_per_slide=200, n_splits=5, seeds=2, epochs=3, head_epochs=1,
    batch_size=10,
)  # fmt: skip
FOUND = Rates(
    plan=1.8, planned=150.0, keep=0.036, read=0.018, bytes=2e4, plan_row=20.0, told_row=40.0,
    network=Pace(5.0, learn=0.009, predict=0.0045, memory=1.0), own=True,
)  # fmt: skip


def test_each_stage_is_its_amount_times_its_rate() -> None:
    table = growth.table(SETTINGS, FOUND, slides=1000, workers=4).set_index("stage")
    assert list(table.filter(like="hours")) == ["hours_1", "hours_2", "hours_4"]
    assert table.hours_1["plan"] == pytest.approx(1000 * 1.8 / 3600)
    assert table.hours_1["store"] == pytest.approx(1000 * 100 * 0.036 / 3600)
    # Ten networks, each 80,000 images in four epochs.
    assert table.hours_1["train"] == pytest.approx(10 * 80_000 * 4 * 0.009 / 3600)
    assert table.hours_4["train"] == pytest.approx(3 * 80_000 * 4 * 0.009 / 3600)  # 4, 4 and 2
    # 150 patches a slide are planned, and read once for two networks.
    assert table.hours_2["predict"] == pytest.approx(75_000 * (0.018 + 2 * 0.0045) / 3600)
    assert table.gigabytes["plan"] == pytest.approx(150_000 * 20 / 1e9)
    assert table.gigabytes["store"] == pytest.approx(100_000 * 2e4 / 1e9)
    assert table.gigabytes["train"] == pytest.approx(10 * 5e6 / 1e9)
    assert table.gigabytes["predict"] == pytest.approx(150_000 * 2 * 40 / 1e9)
    stages = ["plan", "store", "train", "predict"]
    assert table.hours_4["all"] == pytest.approx(table.hours_4[stages].sum())


def test_more_workers_than_networks_do_not_train_faster() -> None:
    table = growth.table(SETTINGS, FOUND, slides=10, workers=48).set_index("stage")
    assert [n for n in table if n.startswith("hours")] == [
        f"hours_{n}" for n in (1, 2, 4, 8, 16, 32, 48)
    ]  # fmt: skip
    assert table.hours_16["train"] == table.hours_48["train"]
    assert table.hours_48["train"] == pytest.approx(table.hours_1["train"] / 10)
    assert table.hours_48["plan"] == table.hours_16["plan"]  # no slide is planned by two


def test_steps_of_an_epoch_take_the_place_of_a_pass() -> None:
    few = SETTINGS.model_copy(update={"steps": 7})
    table = growth.table(few, FOUND, slides=1000, workers=1).set_index("stage")
    assert table.hours_1["train"] == pytest.approx(10 * 7 * 10 * 4 * 0.009 / 3600)


@pytest.mark.parametrize(("slides", "workers"), [(0, 1), (1, 0)])
def test_no_slides_and_no_workers_are_refused(slides: int, workers: int) -> None:
    with pytest.raises(SettingsError, match="=0"):
        growth.table(SETTINGS, FOUND, slides=slides, workers=workers)


@pytest.mark.slow
def test_the_command_measures_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # no data are here
    small = {"model": "conv_small", "image_size": 32, "batch_size": 4, "tta": False}
    monkeypatch.setattr("kit.challenges.wanted", lambda name: (
        load_manifest().dataset(name), Settings(**small), None
    ))  # fmt: skip
    monkeypatch.setattr("kit.challenges.real", lambda name: None)
    monkeypatch.setattr(growth, "SIZE", (6000, 9000))
    asked = ("doctor", "--estimate", "help2019", "--slides", "100", "--workers", "2")
    assert project.code_of(*asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    measured, stages = told["measured"], told["stages"]
    assert not measured["own"]
    assert [stage["stage"] for stage in stages] == ["plan", "store", "train", "predict", "all"]
    assert all(stage["hours_1"] >= stage["hours_2"] > 0 for stage in stages)
    assert measured["planned"] > 50 and 500 < measured["bytes"] <= 32 * 32 * 3 + 200
    assert measured["read"] <= measured["keep"] and measured["network"]["learn"] > 0


def test_an_estimate_of_what_are_no_slides_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert project.code_of("doctor", "--estimate", "khd2020") == 2
    assert "the estimate is of slides" in capsys.readouterr().err
    assert project.code_of("doctor", "--slides", "10") == 2
    assert "are of an estimate" in capsys.readouterr().err
    assert project.code_of("doctor", "--estimate", "help2091") == 2
    assert "help2019" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(9000, 6000), (1000, 3000), (3072, 4096)])
def test_a_stub_is_a_slide_of_its_size_with_tissue(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_stub(tmp_path / "s.tif", size, mpp=0.5)
    with open_slide(path) as slide:
        assert slide.size == size
        assert slide.mpp == pytest.approx(0.5, rel=1e-4)
        plan = PatchSampler(64).plan(slide)
    assert 0.05 < len(plan) * 64 * 64 / (size[0] * size[1]) < 0.5
    assert write_stub(tmp_path / "again.tif", size, mpp=0.5).read_bytes() == path.read_bytes()
