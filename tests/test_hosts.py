"""Bundles for containers and NSML, and the look that a prediction begins with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import project
import pytest
from packaging.requirements import Requirement

from kit import bundles, finished, selfcheck
from kit.bundles import docker, nsml, parts
from kit.challenges import open_run
from kit.errors import BundleError, ImageError, KitError, MissingDataError
from kit.files import read_json, write_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run, `run`."""
    place = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        project.make(place)
        manifest = place / "data_manifest.yaml"
        roots = "roots: {local: tiny, docker: '.', nsml: '.'}"
        manifest.write_text(manifest.read_text().replace("roots: {local: tiny}", roots))
        open_run("tiny", settings=project.QUICK, workers=0, out=place / "run").submission()
    return place


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


# Containers


def test_the_scripts_are_what_linux_takes(home: Path) -> None:
    out = bundles.make("docker", "tiny", home / "out", train=True, place="/data/volume").folder
    for name in ("train.sh", "inference.sh"):
        data = (out / name).read_bytes()
        assert data.startswith(b"#!/usr/bin/env bash\n") and b"\r" not in data and data.isascii()
        assert b"set -euo pipefail\n" in data and b"/data/volume" in data
        assert (out / name).stat().st_mode & 0o777 == 0o755
        assert subprocess.run(["bash", "-n", out / name], check=False).returncode == 0


def test_base_and_packages_are_pinned(home: Path) -> None:
    out = bundles.make("docker", "tiny", home / "out", train=True).folder
    image = (out / "Dockerfile").read_text()
    assert f"FROM python:{sys.version_info[0]}.{sys.version_info[1]}." in image
    lines = [Requirement(line) for line in (out / "requirements.txt").read_text().splitlines()]
    assert all(len(one.specifier) == 1 and str(one.specifier).startswith("==") for one in lines)
    names = {one.name for one in lines}
    assert {"keras", "tensorflow", "numpy", "openslide-bin", "protobuf"} <= names
    assert not names & {"papermill", "kit-medical"}
    (tensorflow,) = [one for one in lines if one.name == "tensorflow"]
    assert tensorflow.extras == {"and-cuda"}


def test_networks_travel_in_the_image_or_are_trained_there(home: Path) -> None:
    packed = bundles.make("docker", "tiny", home / "packed", run=home / "run")
    assert len(finished.load(packed.folder / "model").models) == 2
    assert "self-check model --out" in (packed.folder / "inference.sh").read_text()
    assert "kit run" not in (packed.folder / "train.sh").read_text()
    assert [step for step in packed.steps if "train.sh" in step] == []
    parts.check_sums(packed.folder)
    trained = bundles.make("docker", "tiny", home / "trained", train=True)
    assert not list(trained.folder.rglob("*.keras"))
    assert '"${KIT_ROOT:-}$KIT_MODEL/tiny"' in (trained.folder / "inference.sh").read_text()
    assert "train.sh" in trained.steps[1] and "--network none" in trained.steps[1]
    assert trained.steps[0] == f"docker build -t kit-tiny {home / 'trained'}"
    assert not [step for step in packed.steps if "MODEL" in step]


def test_networks_that_have_learnt_from_drawn_data_are_told(home: Path) -> None:
    assert bundles.make("docker", "tiny", home / "own", run=home / "run").left == ()
    drawn = shutil.copytree(home / "run", home / "drawn")
    write_json(drawn / "settings.json", {**read_json(drawn / "settings.json"), "synthetic": True})
    (told,) = bundles.make("docker", "tiny", home / "packed", run=drawn).left
    assert str(drawn) in told and "drawn data" in told


def test_an_ensemble_travels_whole_and_gives_the_answers_that_it_gives_here(home: Path) -> None:
    open_run("tiny", settings={**project.QUICK, "seed": 1}, workers=0, out=home / "two").complete()
    assert project.code_of("ensemble", home / "run", home / "two", "--method", "mean",
                           "--out", home / "both.json") == 0  # fmt: skip
    out = bundles.make("docker", "tiny", home / "packed", run=home / "both.json").folder
    assert "self-check model/ensemble.json" in (out / "inference.sh").read_text()
    shutil.rmtree(home / "two")
    shutil.move(home / "run", home / "kept")
    packed = out / "model" / "ensemble.json"
    assert selfcheck.examine(packed, home / "data")[0] == "4 networks whole"
    assert str(home) not in packed.read_text()
    joined = finished.predict(packed, home / "data", home / "p.csv")
    one = finished.predict(home / "kept", home / "data", home / "one.csv")
    two = finished.predict(out / "model" / "run2", home / "data", home / "two.csv")
    mean = (one.prob_malignant + two.prob_malignant) / 2
    np.testing.assert_allclose(joined.prob_malignant, mean, atol=1e-6)
    assert np.abs(one.prob_malignant - two.prob_malignant).max() > 1e-3
    network = next((out / "model" / "run2").glob("*.keras"))
    network.write_bytes(network.read_bytes()[:-1])
    with pytest.raises(MissingDataError, match="missing or damaged"):
        selfcheck.examine(packed, home / "data")


def test_a_run_of_another_challenge_is_refused(home: Path) -> None:
    with pytest.raises(BundleError, match=r"of another challenge\. Expected: khd2020"):
        parts.networks(home / "run", home, "khd2020")


@pytest.mark.parametrize(
    "place", ["data/model", "/data/mo del", '/data/"; rm', "/etc", "/work/model", "/", "/data/../x"]
)
def test_a_place_of_the_model_that_is_no_folder_of_its_own_is_refused(
    place: str, home: Path
) -> None:
    with pytest.raises(BundleError, match="must be an absolute folder"):
        bundles.make("docker", "tiny", home / "out", train=True, place=place)


def test_a_python_without_a_pinned_base_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker.sys, "version_info", (3, 14, 0))
    with pytest.raises(BundleError, match=r"3\.11 to 3\.13"):
        docker._base()


# NSML


def test_the_upload_is_small_and_holds_what_main_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = bundles.make("nsml", "khd2019", tmp_path / "up")
    assert {"main.py", "setup.py", "data_manifest.yaml", "kit/__init__.py"} < set(found.files)
    tops = {name.split("/")[0] for name in found.files}
    assert tops == {"main.py", "setup.py", "data_manifest.yaml", "kit", ".nsmlignore"}
    assert not [name for name in found.files if "__pycache__" in name]
    assert found.bytes < 5e6
    assert 'default="khd2019"' in (found.folder / "main.py").read_text()


def test_slides_are_no_upload_for_nsml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(KitError, match="single images"):
        bundles.make("nsml", "help2019", tmp_path / "up")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_no_upload_for_nsml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(BundleError, match="trained there"):
        bundles.make("nsml", "khd2020", tmp_path / "up", run=tmp_path / "run")


def test_what_nsmlignore_names_stays_here(tmp_path: Path) -> None:
    for name in ("a.py", "data/b.py", "kit/c.py", "kit/__pycache__/c.pyc", "x/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".nsmlignore").write_text("# a comment\ndata\n__pycache__\n*.md\n.nsmlignore\n")
    kept = [path.relative_to(tmp_path).as_posix() for path in nsml.uploaded(tmp_path)]
    assert kept == ["a.py", "kit/c.py"]


def test_a_project_without_its_entry_is_refused(home: Path) -> None:
    with pytest.raises(BundleError, match=r"without main\.py, setup\.py, kit"):
        bundles.make("nsml", "tiny", home / "up")


# The look before a prediction


def test_what_is_good_is_said(home: Path) -> None:
    found = selfcheck.examine(home / "run", home / "data", home / "out" / "output.csv")
    assert found == ["2 networks whole", "6 cases", "p10_0 read", "output.csv can be written"]
    assert list((home / "out").iterdir()) == []


def test_one_case_that_cannot_be_read_is_no_reason_to_refuse_but_all_are(home: Path) -> None:
    tests = sorted((home / "data" / "tiny").glob("p1[01]_*.png"))
    tests[0].write_bytes(b"damaged")
    assert "p10_1 read" in selfcheck.examine(home / "run", home / "data")
    for path in tests:
        path.write_bytes(b"damaged")
    with pytest.raises(ImageError, match="not one case can be read"):
        selfcheck.examine(home / "run", home / "data")


def test_a_missing_or_damaged_network_is_refused(home: Path) -> None:
    network = next((home / "run" / "models").glob("*.keras"))
    network.write_bytes(network.read_bytes()[:-1])
    with pytest.raises(MissingDataError, match="missing or damaged"):
        selfcheck.examine(home / "run", home / "data")
    with pytest.raises(MissingDataError, match="no finished run"):
        selfcheck.examine(home / "nothing", home / "data")


def test_an_output_that_cannot_be_written_is_refused_in_one_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").write_text("in the way")
    given = ("self-check", home / "run", "--data", home / "data", "--out", home / "file" / "o.csv")
    assert project.code_of(*given) == 2
    said = capsys.readouterr().err
    assert "the output cannot be written" in said and said.count("\n") == 1


def test_a_container_predicts_what_is_mounted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_PLATFORM", "docker")
    monkeypatch.setenv("KIT_ROOT", str(tmp_path / "root"))
    shutil.copytree(home / "data" / "tiny", tmp_path / "root" / "data")
    out = tmp_path / "root" / "data" / "output" / "output.csv"
    assert project.code_of("predict", home / "run", "--out", out) == 0
    assert len(out.read_text().splitlines()) == 7
