"""The platform is found by what it leaves, and NSML's hooks run in NSML's order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kit import platforms
from kit.errors import SettingsError
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


class StubRun:
    """A stand-in for `kit.pipeline.Run` that answers the second class for every odd image."""

    calls: list[str]
    dataset = SimpleNamespace(classes=("a", "b"))

    @classmethod
    def open(cls, challenge: str, data: Path | None = None, out: Path | None = None) -> StubRun:
        cls.calls.append(f"open {challenge} {data}")
        return cls()

    def complete(self) -> None:
        self.calls.append("complete")

    def predict(self, paths: list[Path]) -> pd.DataFrame:
        odd = [float(number % 2) for number in range(len(paths))]
        return pd.DataFrame({"prob_b": odd, "prob_a": [1 - p for p in odd]})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    module = Stub()
    pipeline = ModuleType("kit.pipeline")
    StubRun.calls = module.calls
    pipeline.Run = StubRun  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nsml", module)
    monkeypatch.setitem(sys.modules, "kit.pipeline", pipeline)
    return module


def test_nsml_binds_and_pauses_before_data_are_read(stub: Stub) -> None:
    nsml.session("khd2020", mode="train", pause=1)
    assert stub.calls == ["bind", "paused", "open khd2020 dataset", "complete", "save complete"]


def test_nsml_does_not_read_training_data_at_submit(stub: Stub) -> None:
    nsml.session("khd2020", mode="test", pause=1)
    assert stub.calls == ["bind", "paused"]


def test_nsml_infers_class_numbers_in_the_order_of_the_images(stub: Stub, tmp_path: Path) -> None:
    infer = nsml.hooks("khd2020", tmp_path)[2]
    assert infer(np.array(["x.png", "y.png", "z.png"])).tolist() == [0, 1, 0]
    assert infer([np.zeros((8, 8, 3), np.uint8)] * 2).tolist() == [0, 1]


def test_nsml_saves_and_loads_the_whole_run(tmp_path: Path) -> None:
    out, kept, fresh = tmp_path / "run", tmp_path / "kept", tmp_path / "fresh"
    (out / "models").mkdir(parents=True)
    (out / "models" / "f0.keras").write_bytes(b"weights")
    nsml.hooks("khd2020", out)[0](str(kept))
    nsml.hooks("khd2020", fresh)[1](str(kept))
    assert (fresh / "models" / "f0.keras").read_bytes() == b"weights"


def test_main_says_in_one_line_that_it_is_for_nsml() -> None:
    done = subprocess.run(
        [sys.executable, str(MAIN), "--pause", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "kit run" in done.stderr
