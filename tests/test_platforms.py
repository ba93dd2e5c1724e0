"""The platform is found by what it leaves, and NSML's hooks run in NSML's order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from kit import platforms
from kit.challenges import find
from kit.errors import SettingsError
from kit.images import read_image
from kit.manifest import load_manifest
from kit.platforms import nsml

MAIN = Path(__file__).parents[1] / "main.py"


def test_a_bare_machine_is_local(tmp_path: Path) -> None:
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.data, found.output) == ("local", None, Path("submissions"))


def test_kaggle_is_known_by_its_variable_or_its_folder(tmp_path: Path) -> None:
    assert platforms.detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, tmp_path).name == "kaggle"
    (tmp_path / "kaggle" / "input").mkdir(parents=True)
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.data) == ("kaggle", tmp_path / "kaggle" / "input")
    assert found.output == tmp_path / "kaggle" / "working"


def test_a_container_is_a_competition_only_with_its_data(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert platforms.detect({}, tmp_path).name == "local"
    (tmp_path / "data" / "test").mkdir(parents=True)
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.output) == ("docker", tmp_path / "data" / "output")


def test_the_variable_overrides_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kaggle" / "input").mkdir(parents=True)
    assert platforms.detect({"KIT_PLATFORM": "local"}, tmp_path).name == "local"
    with pytest.raises(SettingsError, match="kagle"):
        platforms.detect({"KIT_PLATFORM": "kagle"}, tmp_path)


class Stub(ModuleType):
    """A local stand-in for the nsml package: it notes the order of the calls."""

    def __init__(self) -> None:
        super().__init__("nsml")
        self.DATASET_PATH = "dataset"
        self.calls: list[str] = []

    def bind(self, save: object, load: object, infer: object) -> None:
        self.calls.append("bind")

    def paused(self, scope: object) -> None:
        self.calls.append("paused")

    def save(self, name: str) -> None:
        self.calls.append(f"save {name}")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    module = Stub()
    monkeypatch.setitem(sys.modules, "nsml", module)
    return module


class StubRun:
    """A stand-in for `kit.pipeline.Run`."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def complete(self) -> None:
        self.calls.append("complete")


def session(stub: Stub, mode: str) -> list[str]:
    def open_run(challenge: str, *, out: Path) -> StubRun:
        stub.calls.append(f"open {challenge}")
        return StubRun(stub.calls)

    nsml.session("khd2020", open_run, mode=mode, pause=1)
    return stub.calls


def test_nsml_binds_and_pauses_before_data_are_read(stub: Stub) -> None:
    expected = ["bind", "paused", "open khd2020", "complete", "save complete"]
    assert session(stub, "train") == expected


def test_nsml_does_not_read_training_data_at_submit(stub: Stub) -> None:
    assert session(stub, "test") == ["bind", "paused"]


@pytest.mark.parametrize(("challenge", "numbers"), [("khd2020", [1, 0, 1]), ("khd2019", [3, 0, 3])])
def test_nsml_infers_the_challenge_s_numbers_in_the_order_of_the_images(
    challenge: str, numbers: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(challenge, load_manifest())
    dataset = found.dataset
    run = SimpleNamespace(dataset=dataset, style=found.style, threshold=None)

    def predict(out: Path, data: Path, path: Path) -> pd.DataFrame:
        """The last class for bright images, the first for dark ones; rows in another order."""
        cases = dataset.cases(data, labels=False)
        root = dataset.root(data)
        bright = [float(read_image(root / p).mean() > 100) for p in cases.path]
        table = pd.DataFrame({"case_id": cases.case_id, "prob_x": 0.0})
        for name in dataset.classes:
            table[f"prob_{name}"] = 0.0
        table[f"prob_{dataset.classes[0]}"] = [1 - value for value in bright]
        table[f"prob_{dataset.classes[-1]}"] = bright
        return table[::-1]

    monkeypatch.setattr(nsml.finished, "load", lambda out: run)
    monkeypatch.setattr(nsml.finished, "predict", predict)
    infer = nsml.hooks(tmp_path)[2]
    images = [np.full((16, 16, 3), value, np.uint8) for value in (200, 20, 220)]
    answer = infer(images)
    assert answer.tolist() == numbers and answer.dtype == np.int64
    paths = [tmp_path / f"{name}.png" for name in "zya"]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    assert infer(np.array([str(path) for path in paths])).tolist() == numbers


def test_nsml_saves_and_loads_the_whole_run(tmp_path: Path) -> None:
    out, kept, fresh = tmp_path / "run", tmp_path / "kept", tmp_path / "fresh"
    (out / "models").mkdir(parents=True)
    (out / "models" / "f0.keras").write_bytes(b"weights")
    nsml.hooks(out)[0](str(kept))
    nsml.hooks(fresh)[1](str(kept))
    assert (fresh / "models" / "f0.keras").read_bytes() == b"weights"


def test_main_says_in_one_line_that_it_is_for_nsml() -> None:
    done = subprocess.run(
        [sys.executable, str(MAIN), "--pause", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "kit run" in done.stderr
