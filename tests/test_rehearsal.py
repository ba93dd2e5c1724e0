"""Rehearsals: drawn data in every layout, a command cut off from all else, and steps told."""

from __future__ import annotations

import importlib
import json
import socket
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from kit import pace, rehearsal
from kit.challenge import Real
from kit.challenges import open_run
from kit.cli import main
from kit.duplicates import near_duplicates
from kit.errors import BundleError, KitError, SettingsError
from kit.files import write_text
from kit.images import read_image
from kit.manifest import load_manifest
from kit.rehearsal import bare, estimate, stand_in
from kit.rehearsal.scene import Scene
from kit.settings import resolve

MANIFEST = load_manifest()
HOWS = ["sockets", *(["namespaces"] if bare.isolation() == "namespaces" else [])]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@pytest.mark.parametrize(
    "name", ["khd2020", "khd2019", "rsna2021", "idc_patches", "breastmnist", "retinamnist"]
)
def test_drawn_cases_lie_as_the_data_set_s_own(name: str, drawn: Path, tmp_path: Path) -> None:
    dataset = MANIFEST.dataset(name)
    cases = stand_in.draw(dataset, drawn / name)
    answers = stand_in.place(dataset, cases, tmp_path)
    found = dataset.cases(root=tmp_path)
    train = found[found.split == "train"]
    assert set(train.label) == set(answers.label) == set(dataset.classes)
    assert set(found.case_id[found.split == "test"]) == set(answers.case_id)
    assert len(train) == (cases.split == "train").sum()
    assert found.label[found.split == "test"].isna().all()
    sides = cases.groupby("group").split.nunique()
    assert (sides == 1).all()  # whole patients


@pytest.mark.parametrize("name", ["khd2019", "khd2020", "idc_patches"])
def test_drawn_cases_are_no_copies_of_each_other(name: str, drawn: Path, tmp_path: Path) -> None:
    dataset = MANIFEST.dataset(name)
    stand_in.place(dataset, stand_in.draw(dataset, drawn / name), tmp_path)
    found = dataset.cases(root=tmp_path)
    train = found[found.split == "train"]
    small = [cv2.resize(read_image(tmp_path / path), (32, 32)) for path in train.path]
    assert len(near_duplicates(small, list(train.case_id))) == 0


def test_drawn_slides_lie_with_masks_in_the_data_set_s_own_values(tmp_path: Path) -> None:
    dataset = MANIFEST.dataset("idc_pseudo_slides")  # whose layout cannot tell a test case
    assert not stand_in.marks_tests(dataset)
    cases = stand_in.draw(dataset, tmp_path / "drawn")
    tests = cases.split == "test"
    stand_in.place(dataset, cases[~tests].reset_index(drop=True), tmp_path / "train")
    found = dataset.cases(root=tmp_path / "train")
    assert len(found) == (~tests).sum() and found["mask"].notna().all()
    read = [
        cv2.imread(str(tmp_path / "train" / mask), cv2.IMREAD_UNCHANGED) for mask in found["mask"]
    ]
    values = {int(value) for pixels in read for value in np.unique(pixels)}
    assert values == {1, 2}
    later = stand_in.place(dataset, cases[tests], tmp_path / "later", labels=False)
    assert set(later.case_id) == set(cases.case_id[tests])
    assert not list((tmp_path / "later").glob("*_mask*"))


@pytest.mark.parametrize("how", HOWS)
def test_a_command_has_neither_network_nor_this_environment(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "a secret of this process")
    code = (
        "import os, socket\n"
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        "socket.create_connection(s.getsockname()); print('loopback')\n"
        "print(os.environ.get('KAGGLE_KEY'), os.environ['KIT_ROOT'])\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = bare.run(["python", "-c", code], root=tmp_path, cwd=tmp_path, seconds=20, how=how)
    assert done.out.split() == ["loopback", "None", str(tmp_path), "101"], done.err
    assert done.megabytes > 1


@pytest.mark.parametrize("how", HOWS)
def test_a_command_that_writes_among_its_inputs_is_told(how: str, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    write_text(inputs / "a.txt", "a")
    command = ["python", "-c", "open('in/a.txt', 'w').write('other')"]
    given = {"root": tmp_path, "cwd": tmp_path, "seconds": 20, "read_only": [inputs], "how": how}
    if how == "namespaces":
        done = bare.run(command, **given)
        assert done.code == 1 and "Read-only file system" in done.last()
        assert (inputs / "a.txt").read_text() == "a"
    else:
        with pytest.raises(KitError, match="an input was changed"):
            bare.run(command, **given)


def test_a_command_is_killed_with_its_children_at_its_time_limit(tmp_path: Path) -> None:
    start, mark = time.monotonic(), tmp_path / "late.txt"
    command = ["bash", "-c", f"(sleep 2; touch {mark}) & sleep 20"]
    done = bare.run(command, root=tmp_path, cwd=tmp_path, seconds=0.5, how="sockets")
    assert done.code is None and time.monotonic() - start < 10
    time.sleep(2.5)
    assert not mark.exists()


def test_an_environment_has_every_package_but_the_kit(tmp_path: Path) -> None:
    bare.environment(tmp_path / "python")
    code = "import numpy, keras_applications, importlib.util as u; print(u.find_spec('kit'))"
    done = bare.run(["python", "-c", code], root=tmp_path, cwd=tmp_path, seconds=60,
                    programs=tmp_path / "python" / "bin")  # fmt: skip
    assert done.out.strip() == "None", done.err


class Contract:
    """Steps of no platform: the second fails where a file says so."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def second(self) -> str:
        if (self.root / "fault").exists():
            raise BundleError("it is broken", received="a fault", remedy="mend it")
        return "mended"


def go(root: Path, fault: bool, seconds: float = 10) -> list[tuple[str, str, str, str]]:
    scene = Scene.of("khd2020", "nsml", root, settings=[], end=time.monotonic() + seconds)
    contract = Contract(root)
    steps = [("first", lambda: "good"), ("second", contract.second), ("third", lambda: "good")]

    def before(name: str, place: Path) -> None:
        if fault and name == "second":
            (place / "fault").touch()

    done = rehearsal._go(steps, scene, before)
    return [(step.name, step.state, step.said, step.remedy) for step in done]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("import urllib.request as u; u.urlopen('http://192.0.2.1/model')", "docker gives no network"),
     ("import urllib.request as u; u.urlopen('http://example.org')", "docker gives no network"),
     ("raise SystemExit('no model. Remedy: train first.')", "train first"),
     ("raise SystemExit('no model')", "look at the script")],
)  # fmt: skip
def test_a_command_that_fails_is_told_with_the_remedy_that_helps(
    code: str, remedy: str, tmp_path: Path
) -> None:
    scene = Scene.of("help2019", "docker", tmp_path, settings=[], end=time.monotonic() + 60)
    with pytest.raises(KitError, match=remedy) as told:
        scene.run(["python", "-c", code], cwd=tmp_path, env={}, read_only=[], what="inference.sh",
                  remedy="look at the script")  # fmt: skip
    assert "inference.sh failed with code 1" in str(told.value)
    assert str(told.value).count("Remedy: ") == 1


def test_the_step_that_fails_is_named_with_its_remedy_and_the_rest_is_not_reached(
    tmp_path: Path,
) -> None:
    assert [step[1] for step in go(tmp_path, fault=False)] == ["ok"] * 3
    assert go(tmp_path, fault=True) == [
        ("first", "ok", "good", ""),
        ("second", "failed", "it is broken. Received: a fault.", "mend it"),
        ("third", "not reached", "", ""),
    ]


def test_the_stand_in_for_nsml_sees_answers_out_of_order_short_or_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = [(str(n), f"{n}.png") for n in range(6)]
    session = {"dataset": "d", "name": "n", "log": str(tmp_path / "log"), "tests": tests,
               "arrays": False}  # fmt: skip
    write_text(tmp_path / "session.json", json.dumps(session))
    monkeypatch.setenv("NSML_STAND_IN", str(tmp_path / "session.json"))
    there = importlib.import_module("kit.rehearsal._nsml_stand_in")
    out = str(tmp_path / "out.txt")
    there.feed_infer(out, lambda paths: [int(path[0]) % 4 for path in paths])
    assert Path(out).read_text() == "0 0\n1 1\n2 2\n3 3\n4 0\n5 1\n"
    assert json.loads((tmp_path / "log").read_text())["numbers"] == 2
    for wrong in (sorted, lambda found: found[::-1], lambda found: [*found[1:], found[0]]):
        with pytest.raises(there.ContractError, match=r"not keep the order.*Remedy: "):
            there.feed_infer(out, lambda paths: wrong([int(path[0]) > 2 for path in paths]))  # noqa: B023
    with pytest.raises(there.ContractError, match="5 answers for 6 images"):
        there.feed_infer(out, lambda paths: [0] * (len(paths) - 1))
    with pytest.raises(there.ContractError, match="whole numbers"):
        there.feed_infer(out, lambda paths: [0.5] * len(paths))


def test_a_rehearsal_run_is_marked_as_drawn(tmp_path: Path) -> None:
    scene = Scene.of("rsna2021", "kaggle", tmp_path, settings=[], end=time.monotonic() + 10)
    scene.draw()
    scene.lay_out(tmp_path / "data" / "rsna2021", tests=False)
    run = open_run("rsna2021", data=tmp_path / "data", out=tmp_path / "run")
    assert run.synthetic  # so that no ledger has a line of it


def test_a_rehearsal_that_takes_too_long_is_told(tmp_path: Path) -> None:
    found = go(tmp_path, fault=False, seconds=-1)
    assert found[0][1] == "failed" and "the time of the rehearsal is up" in found[0][2]
    assert {step[1] for step in found[1:]} == {"not reached"}


def test_an_unknown_platform_and_a_folder_that_is_not_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="kagle"):
        rehearsal.rehearse("khd2020", "kagle")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(KitError, match="not empty"):
        rehearsal.rehearse("khd2020", "nsml", keep=tmp_path)


def test_nsml_cannot_be_asked_for_slides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["rehearse", "help2019", "--platform", "nsml"])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "failed" in said and "single images" in said and "did not pass" in said


FOUND = pace.Pace(megabytes=2.0, learn=0.01, predict=0.005, memory=900.0)


def test_the_estimate_is_the_measured_rate_times_what_there_is() -> None:
    """5 folds x 2 seeds; 800 of 1,000 cases learnt for 20 epochs at 10 ms; 300 tests at 5 ms."""
    settings = resolve("patches", overrides={"seeds": 2, "epochs": 20})
    found = estimate.of(
        MANIFEST.dataset("khd2020"), settings, FOUND, Real((512, 512), train=1000, tests=300)
    )
    assert found["train_seconds"] == pytest.approx(10 * 800 * 20 * 0.01)
    assert found["predict_seconds"] == pytest.approx(10 * 300 * 0.005)
    assert (found["networks"], found["megabytes"]) == (10, 20.0)


def test_of_slides_patches_are_counted_and_nobody_s_number_stays_unknown() -> None:
    settings = resolve("slides", overrides={"patches_per_slide": 100, "predict_per_slide": 50})
    real = Real((9000, 9000), train=100, tests=10)
    found = estimate.of(MANIFEST.dataset("help2019"), settings, FOUND, real)
    assert found["train_seconds"] == pytest.approx(5 * 100 * 100 * 0.8 * 20 * 0.01)
    assert found["predict_seconds"] == pytest.approx(5 * 10 * 50 * 0.005)
    unknown = estimate.of(MANIFEST.dataset("idc_patches"), settings, FOUND, None)
    assert unknown["predict_seconds"] is None and unknown["train_seconds"] > 0


def test_what_would_take_longer_than_the_challenge_allows_fails(tmp_path: Path) -> None:
    scene = Scene.of("khd2020", "nsml", tmp_path, settings=[], end=time.monotonic() + 10)
    scene.estimate = {
        "networks": 5, "train_seconds": 60.0, "predict_seconds": 3601.0,
        "predict_seconds_each": 1.8, "limit_seconds": 3600.0, "megabytes": 10.0,
        "memory_megabytes": 1.0, "gpu": True,
    }  # fmt: skip
    with pytest.raises(KitError, match=r"at most 1\.0 h"):
        estimate._said(scene)
    scene.estimate["gpu"] = False
    assert "1.0 h (allowed are 1.0 h: it needs a GPU" in estimate._said(scene)
    scene.estimate["predict_seconds"] = 3540.0
    assert "predicting 59.0 min" in estimate._said(scene)
    scene.estimate["megabytes"] = 301.0
    with pytest.raises(KitError, match="too large for nsml"):
        estimate._said(scene)


def test_the_official_scorer_judges_the_platform_s_file(tmp_path: Path) -> None:
    scene = Scene.of("khd2020", "nsml", tmp_path, settings=[], end=time.monotonic() + 10)
    truth = ["malignant"] * 3 + ["benign"] * 7
    scene.answers = pd.DataFrame({"case_id": [str(n) for n in range(10)], "label": truth})
    path = tmp_path / "S.csv"
    write_text(path, "".join(f"{n} {int(n < 3)}\n" for n in range(10)))
    assert "0.9997" in scene.score(path)  # perfect, with 1e-3 in each of the denominators
    write_text(path, "".join(f"{n} {int(n < 3)}\n" for n in range(9)))
    with pytest.raises(KitError, match="1 missing"):
        scene.score(path)


def test_loopback_is_open_here_too() -> None:
    """The session's own guard, on which the test above would otherwise depend."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
