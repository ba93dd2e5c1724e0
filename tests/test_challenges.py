"""Challenges by name, and the four seeds on drawn data up to the format of their judges."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kit.challenges import find, names, open_run
from kit.errors import MissingDataError, SettingsError
from kit.manifest import load_manifest

SEEDS = ["help2019", "khd2020", "khd2019", "rsna2021"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the project's manifest, as the working folder."""
    shutil.copy(Path(__file__).parent.parent / "data_manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_challenge_and_every_data_set_is_known_by_name() -> None:
    manifest = load_manifest()
    known = names(manifest)
    assert {*SEEDS, *manifest.datasets} == set(known)
    for name in known:
        assert find(name, manifest).dataset.name == name


def test_an_unknown_challenge_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean help2019"):
        find("help2091", load_manifest())


def test_without_data_only_a_smoke_run_opens_and_it_says_synthetic(home: Path) -> None:
    with pytest.raises(MissingDataError, match="help2019"):
        open_run("help2019")
    with pytest.raises(MissingDataError):
        open_run("help2019", smoke=True, data=home / "nowhere")
    run = open_run("help2019", smoke=True)
    assert run.synthetic
    assert "SYNTHETIC" in run.out.name


def test_the_default_folder_follows_the_settings(home: Path) -> None:
    first = open_run("khd2020", smoke=True).out
    assert open_run("khd2020", smoke=True).out == first
    assert open_run("khd2020", smoke=True, settings={"epochs": 3}).out != first
    assert first.parent == home / "submissions" / "khd2020"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("help2019", r"S\d{3},[0-9.e-]+"),
        ("khd2020", r"\S+ [01]"),
        ("khd2019", r"\S+,[0-3]"),
        ("rsna2021", r"\d{5},[0-9.e-]+"),
    ],
)
def test_a_seed_challenge_goes_the_road_on_drawn_data(name: str, line: str, home: Path) -> None:

    run = open_run(name, smoke=True, workers=0, settings={"epochs": 1, "resamples": 100})
    found = run.complete()
    rows = Path(found["submission"]).read_text().splitlines()
    headed = {"khd2019": "case_id,label", "rsna2021": "BraTS21ID,MGMT_value"}
    if name in headed:
        assert rows.pop(0) == headed[name]
    assert rows
    assert all(re.fullmatch(line, row) for row in rows), rows[:3]
    assert not (home / "submissions" / name / "ledger.csv").exists()
