"""Challenges by name, and the four seeds on drawn data up to the format of their judges."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import kit.challenges
from kit import challenges
from kit.challenges import find, names, open_run, recipes
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
    assert {*SEEDS, "template", *manifest.datasets} == set(known)
    for name in set(known) - {"template"}:
        assert find(name, manifest).dataset.name == name
    assert find("template", manifest).dataset.name == "synthetic_patches"


def test_an_unknown_challenge_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean help2019"):
        find("help2091", load_manifest())


def test_a_challenge_without_recipes_and_a_data_set_have_the_kits_alone() -> None:
    assert recipes("breastmnist") == {"kit": {}}
    assert all("kit" in recipes(name) for name in SEEDS)


def test_the_named_recipe_gives_the_settings_and_what_smoke_keeps(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = challenges._module("rsna2021")
    both = {"kit": {"epochs": 9}, "team": {"epochs": 7, "learning_rate": 1e-4}}
    made = SimpleNamespace(**{**vars(own), "RECIPES": both, "SMOKE": {"team": {"epochs": 2}}})
    monkeypatch.setattr(kit.challenges, "_module", lambda name: made)
    kits, teams = (find("rsna2021", load_manifest(), name) for name in ("kit", "team"))
    assert find("rsna2021", load_manifest()) == kits
    assert (kits.recipe, kits.settings, kits.smoke) == ("kit", both["kit"], {})
    assert (teams.recipe, teams.settings) == ("team", both["team"])
    opened = open_run("rsna2021", recipe="team", smoke=True)
    assert (opened.settings.epochs, opened.settings.learning_rate) == (2, 1e-4)
    mine = open_run("rsna2021", recipe="team", smoke=True, settings={"epochs": 3})
    assert mine.settings.epochs == 3  # the user's own stand over all
    with pytest.raises(SettingsError, match=r"recipe=teem.*did you mean team"):
        find("rsna2021", load_manifest(), "teem")


ASKS = re.compile(
    rf"challenge(\.name)?\s*(==|!=|in\b)(?!\s*challenge\.name)|(==|!=|\bin)\s*[(\[{{]?[\"']({'|'.join(SEEDS)})[\"']"
)


def test_nothing_below_the_challenges_asks_which_challenge_it_is() -> None:
    folder = Path(kit.challenges.__file__).parents[1]
    above = {"challenges", "platforms", "cli"}
    below = [p for p in folder.rglob("*.py") if not above & set(p.relative_to(folder).parts)]
    assert len(below) > 50
    assert [p.name for p in below if ASKS.search(p.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "line", ["if challenge == name:", 'if name == "khd2020":', "x in ('rsna2021', 'help2019')"]
)
def test_the_search_for_it_finds_it(line: str) -> None:
    assert ASKS.search(line)


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
        ("help2019", r"Slide\d{3},[0-9.e-]+"),
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
