"""The platform is found by what it leaves, and NSML's hooks run in NSML's order."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import project
import pytest

from kit import finished, platforms
from kit.backend import gpus
from kit.challenges import open_run
from kit.errors import KitError, SettingsError
from kit.manifest import Dataset, load_manifest
from kit.pace import Pace
from kit.platforms import _nsml_run as nsml_run
from kit.platforms import nsml
from kit.settings import SMOKE, Settings, resolve

MAIN = Path(__file__).parents[1] / "main.py"


def test_a_bare_machine_is_local(tmp_path: Path) -> None:
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.data, found.output) == ("local", None, Path("submissions"))


def test_kaggle_is_known_by_its_variable_or_its_folder(tmp_path: Path) -> None:
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN"):
        found = platforms.detect({name: "1"}, tmp_path)
        assert (found.name, found.how) == ("kaggle", f"{name} is set")
    (tmp_path / "kaggle" / "input").mkdir(parents=True)
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.data) == ("kaggle", tmp_path / "kaggle" / "input")
    assert found.output == tmp_path / "kaggle" / "working"


def test_a_container_is_a_competition_only_with_its_data(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert platforms.detect({}, tmp_path).name == "local"
    (tmp_path / "data" / "test").mkdir(parents=True)
    found = platforms.detect({}, tmp_path)
    assert (found.name, found.data) == ("docker", tmp_path / "data")
    assert found.output == tmp_path / "data" / "model"
    assert found.answer == tmp_path / "data" / "output" / "output.csv"
    volume = platforms.detect({"KIT_MODEL": "/data/volume"}, tmp_path)
    assert volume.output == tmp_path / "data" / "volume"


def test_each_platform_says_its_limits_and_how_it_is_known(tmp_path: Path) -> None:
    found = {name: platforms.detect({"KIT_PLATFORM": name}, tmp_path) for name in platforms.NAMES}
    assert {one.how for one in found.values()} == {"KIT_PLATFORM says so"}
    assert {name for name, one in found.items() if one.network} == {"local", "nsml"}
    assert (found["nsml"].inference, found["nsml"].most_mb) == (3600.0, 300.0)
    assert found["kaggle"].seconds == 9 * 3600
    assert [found["local"].answer, found["nsml"].answer] == [None, None]


def test_a_model_of_more_megabytes_than_nsml_takes_is_refused(tmp_path: Path) -> None:
    here = platforms.detect({"KIT_PLATFORM": "nsml"}, tmp_path)
    here.refuse_large(300.0, tmp_path)
    with pytest.raises(KitError, match=r"too large for nsml.*300 MB.*Received: 301 MB"):
        here.refuse_large(301.0, tmp_path)
    platforms.detect({"KIT_PLATFORM": "local"}, tmp_path).refuse_large(1e6, tmp_path)


def test_undefined_figures_are_not_reported() -> None:
    values = {"auc": 0.5, "ppv": None, "npv": float("nan"), "f1": np.float64(0.25)}
    found = platforms.defined(values)
    assert found == {"auc": 0.5, "f1": 0.25} and type(found["f1"]) is float


def test_the_variable_overrides_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kaggle" / "input").mkdir(parents=True)
    assert platforms.detect({"KIT_PLATFORM": "local"}, tmp_path).name == "local"
    with pytest.raises(SettingsError, match="kagle"):
        platforms.detect({"KIT_PLATFORM": "kagle"}, tmp_path)


def test_a_checkpoint_is_a_finished_run_where_it_lies(finished_run: Path, tmp_path: Path) -> None:
    here = platforms.detect({"KIT_PLATFORM": "docker"}, tmp_path)
    assert here.load(here.save(finished_run)) == finished_run
    with pytest.raises(KitError, match="no finished run"):
        here.load(tmp_path)
    small = replace(here, most_mb=1e-3)
    with pytest.raises(KitError, match="too large for docker"):
        small.save(finished_run)


def test_figures_are_reported_in_the_log_and_accelerators_are_those_of_the_backend(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = platforms.detect({"KIT_PLATFORM": "local"})
    with caplog.at_level("INFO", logger="kit"):
        here.report(3, auc=0.91234, ppv=None)
    assert [record.getMessage() for record in caplog.records] == ["step 3: auc 0.9123"]
    assert here.accelerators() == gpus()


class Stub(ModuleType):
    """A local stand-in for the nsml package: it notes the order of the calls."""

    def __init__(self) -> None:
        super().__init__("nsml")
        self.DATASET_PATH = "dataset"
        self.calls: list[str] = []

    def bind(self, save: object, load: object, infer: object) -> None:
        self.calls.append("bind")

    def paused(self, scope: dict[str, object]) -> None:
        self.calls.append("paused")

    def save(self, name: str) -> None:
        self.calls.append(f"save {name}")

    def report(self, summary: bool, scope: object, step: int, **values: float) -> None:
        self.calls.append(f"report {sorted(values)}")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    module = Stub()
    monkeypatch.setitem(sys.modules, "nsml", module)
    monkeypatch.setattr(nsml.platforms.carried, "megabytes", lambda out: 1.0)
    return module


class Challenges:
    """A stand-in for `kit.challenges` and for the run that it opens."""

    def __init__(self, calls: list[str], **settings: object) -> None:
        self.calls = calls
        self.settings = resolve("patches", SMOKE, overrides=settings)

    def wanted(self, name: str, settings: object) -> tuple[Dataset, Settings, int]:
        self.calls.append(f"build {name}")
        return load_manifest().dataset(name), self.settings, 2000

    def open_run(self, name: str, *, out: Path, settings: object) -> Challenges:
        self.calls.append(f"open {name}")
        return self

    def complete(self) -> dict[str, dict[str, float]]:
        self.calls.append("complete")
        return {"mean_of_six": {"value": 0.5}, "auc": {"value": float("nan")}}


def test_nsml_builds_binds_and_pauses_before_data_are_read(stub: Stub) -> None:
    nsml.session("khd2020", Challenges(stub.calls), mode="train", pause=1)
    assert stub.calls == ["build khd2020", "bind", "paused", "open khd2020", "complete",
                          "report ['mean_of_six']", "save complete"]  # fmt: skip


def test_nsml_reads_no_data_and_builds_nothing_at_submit(stub: Stub) -> None:
    nsml.session("khd2020", Challenges(stub.calls), mode="test", pause=1)
    assert stub.calls == ["bind", "paused"]


def test_networks_that_are_too_large_or_too_slow_are_refused_before_training(stub: Stub) -> None:
    """24,050 parameters of 4 bytes are .0962 MB: 5,000 networks are 481 MB, in 2 folds each."""
    with pytest.raises(KitError, match=r"too large for nsml.*Received: 481 MB"):
        nsml.session("khd2020", Challenges(stub.calls, seeds=2500), mode="train", pause=1)
    assert stub.calls == ["build khd2020"]


def test_predicting_that_would_take_too_long_is_refused_before_training(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Pace(megabytes=1, learn=float("nan"), predict=0.91, memory=100)
    monkeypatch.setattr(nsml.pace, "measure", lambda *given, **more: slow)
    with pytest.raises(KitError, match=r"at most 3600 s.*about 3640 s"):  # 2 x 2000 x .91
        nsml.session("khd2020", Challenges(stub.calls), mode="train", pause=1)


def test_nsml_is_for_single_images_alone(stub: Stub) -> None:
    with pytest.raises(KitError, match=r"single images.*help2019, of kind slides"):
        nsml.session("help2019", Challenges(stub.calls), mode="train", pause=1)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of bright (malignant) and dark patches."""
    place = tmp_path_factory.mktemp("nsml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        project.make(place)
        run = open_run("tiny", settings=project.QUICK | {"epochs": 20}, workers=0)
        run.submission()
    return run.out


def placed(limit: float | None = None) -> platforms.Platform:
    return replace(platforms.detect({"KIT_PLATFORM": "nsml"}), inference=limit)


def test_nsml_infers_in_order_from_what_was_saved(finished_run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    nsml_run.hooks(finished_run, placed())[0](str(kept))
    assert {path.suffix for path in kept.iterdir()} == {".json", ".keras"}
    _, load, infer = nsml_run.hooks(tmp_path / "fresh", placed())
    load(str(kept))
    images = [project.image(n, n % 3 == 0)[..., ::-1] for n in range(12)]  # BGR
    answer = infer(images)
    assert answer.tolist() == [int(n % 3 == 0) for n in range(12)] and answer.dtype == np.int64
    paths = [tmp_path / f"{n:02d}.png" for n in range(12)]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    turned = np.array([str(path) for path in paths[::-1]])
    assert infer(turned).tolist() == answer.tolist()[::-1]
    assert infer([]).tolist() == []


def test_an_older_stub_s_file_holds_the_same(finished_run: Path, tmp_path: Path) -> None:
    kept, fresh = tmp_path / "kept.model", tmp_path / "fresh"
    nsml_run.hooks(finished_run, placed())[0](str(kept))
    assert kept.is_file()
    nsml_run.hooks(fresh, placed())[1](str(kept))
    assert finished.load(fresh).ensemble == finished.load(finished_run).ensemble


def test_load_leaves_nothing_that_save_did_not_write(finished_run: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out"
    (out / "models").mkdir(parents=True)
    (out / "models" / "other.keras").write_bytes(b"of another run")
    save = nsml_run.hooks(finished_run, placed())[0]
    save(str(kept))
    nsml_run.hooks(out, placed())[1](str(kept))
    assert sorted(p.name for p in out.rglob("*")) == sorted(p.name for p in kept.iterdir())


def test_a_damaged_checkpoint_is_refused(finished_run: Path, tmp_path: Path) -> None:
    save, _, _ = nsml_run.hooks(finished_run, placed())
    save(str(tmp_path / "kept"))
    network = next((tmp_path / "kept").glob("*.keras"))
    network.write_bytes(network.read_bytes()[:-1])
    with pytest.raises(KitError, match=r"missing or damaged.*\.keras"):
        nsml_run.hooks(tmp_path / "out", placed())[1](str(tmp_path / "kept"))


def test_images_come_in_parts_and_stop_once_they_cannot_end_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second an image: 8, then 64, then 256 at a time; 1,000 take 1,000 s."""
    now = [0.0]
    monkeypatch.setattr(nsml_run.time, "monotonic", lambda: now[0])
    taken = []

    def go(limit: float | None) -> list[int]:
        taken.clear()
        now[0] = 0.0
        for part in nsml_run._in_time(list(range(1000)), limit):
            taken.append(len(part))
            now[0] += len(part)
        return taken

    assert go(None) == [8, 64, 256, 256, 256, 160]
    assert go(1000.0) == [8, 64, 256, 256, 256, 160]
    with pytest.raises(KitError, match="about 1000 s for 1000 images; stopped after 72"):
        go(999.0)
    assert taken == [8, 64]


def test_main_says_in_one_line_that_it_is_for_nsml() -> None:
    done = subprocess.run(
        [sys.executable, str(MAIN), "--pause", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "kit run" in done.stderr
