"""A bundle where it arrives: either layout, three rows or three thousand, in time, few packages.

`tools/on_kaggle.py` runs the notebook itself; its small form is the slow test here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import project
import pytest

from kit import bundles, carried, finished, mounts, platforms
from kit.bundles import kaggle, parts, there
from kit.challenges import find, open_run
from kit.errors import BundleError, MissingDataError
from kit.files import read_json, write_json, write_text
from kit.manifest import load_manifest

ROOT = Path(__file__).parents[1]
ABSENT = ("simplejpeg", "imagecodecs", "tifffile", "efficientnet", "jupytext", "nbconvert",
          "kerashub", "openslide")  # fmt: skip
"""What Kaggle's image may lack: no run on patches may ask for it."""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose run on a tiny data set is finished and bundled."""
    place = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        project.make(place)
        project.mounted(place)
        open_run("tiny", settings=project.QUICK, workers=0).submission()
        bundles.make("kaggle", "tiny", place / "bundle", owner="ann")
        yield place


def only_tests(folder: Path, n: int) -> Path:
    """Write a tiny data set of `n` test images alone, the first ones always the same."""
    rows = []
    for number in range(n):
        name = f"t{number:04d}.png"
        project.write(folder / name, project.image(number, number % 2 == 1))
        rows.append((name, f"q{number:04d}", "test"))
    table = pd.DataFrame(rows, columns=["path", "patient", "split"])
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def arrived(pushed: Path, root: Path, *, by_kind: bool, tests: int = 3) -> Path:
    """Lay bundle and data out below a /kaggle-like root; return it."""
    inputs = root / "kaggle" / "input"
    base = inputs / "datasets" / "ann" if by_kind else inputs
    shutil.copytree(pushed / "bundle" / "dataset", base / "kit-tiny-files")
    (base / "kit-tiny-files" / "dataset-metadata.json").unlink()
    only_tests(base / "tiny-data" / "tiny", tests)
    return root


@pytest.fixture
def on_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root to lay inputs below, where this process believes to be on Kaggle."""
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "kaggle" / "working")
    return tmp_path


def test_three_rows_and_three_thousand_give_valid_files_that_agree(
    pushed: Path, on_kaggle: Path
) -> None:
    arrived(pushed, on_kaggle, by_kind=True, tests=3)
    path = there.answer("tiny")
    assert path == on_kaggle / "kaggle" / "working" / "submission.csv"
    few = pd.read_csv(path)
    only_tests(on_kaggle / "kaggle" / "input" / "datasets" / "ann" / "tiny-data" / "tiny", 3000)
    many = pd.read_csv(there.answer("tiny"))
    assert list(few.case_id) == ["t0000", "t0001", "t0002"]
    assert list(many.case_id) == [f"t{number:04d}" for number in range(3000)]
    probs = ["prob_benign", "prob_malignant"]
    np.testing.assert_allclose(few[probs], many[probs][:3], atol=1e-6)
    assert list(few.label) == list(many.label[:3])
    assert many.prob_malignant[1::2].mean() > many.prob_malignant[::2].mean() + 0.01


@pytest.mark.slow
def test_an_ensemble_travels_in_one_file_that_is_not_unpacked(
    pushed: Path, on_kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out,) = (path.parent for path in (pushed / "submissions" / "tiny").glob("*/ensemble.json"))
    monkeypatch.chdir(pushed)
    other = open_run("tiny", settings={**project.QUICK, "seed": 1}, workers=0, out=pushed / "two",
                     data=pushed / "data")  # fmt: skip
    other.complete()
    assert project.code_of("ensemble", out, other.out, "--method", "mean",
                           "--out", on_kaggle / "both.json") == 0  # fmt: skip
    made = bundles.make("kaggle", "tiny", on_kaggle / "bundle", owner="ann",
                        run=on_kaggle / "both.json")  # fmt: skip
    sent = made.folder / "dataset"
    assert all(path.is_file() for path in sent.iterdir()) and (sent / parts.SEVERAL).is_file()
    monkeypatch.chdir(on_kaggle)
    arrived(on_kaggle, on_kaggle, by_kind=True)
    joined = pd.read_csv(there.answer("tiny"))
    root = on_kaggle / "kaggle" / "input" / "datasets" / "ann" / "tiny-data" / "tiny"
    each = [finished.predict(run, None, on_kaggle / f"{n}.csv", root=root).prob_malignant
            for n, run in enumerate((out, other.out))]  # fmt: skip
    np.testing.assert_allclose(joined.prob_malignant, (each[0] + each[1]) / 2, atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


PLAY = """
import json, sys
for cell in json.load(open(sys.argv[1]))["cells"]:
    source = "".join(cell["source"]).replace("SMOKE = False", "SMOKE = True")
    if cell["cell_type"] == "code":
        exec(source, globals())
print(path)
"""
STUB = """
DATASET_PATH = {path!r}
def report(summary=False, scope=None, step=None, **values):
    print("reported", *values)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", platforms.NAMES)
def test_the_same_notebook_file_runs_on_all_four(name: str, pushed: Path, tmp_path: Path) -> None:
    arrived(pushed, tmp_path, by_kind=True)
    shutil.copytree(pushed / "data", tmp_path / "data")
    shutil.copytree(pushed / "data" / "tiny", tmp_path / "data", dirs_exist_ok=True)
    entry = (pushed / "data_manifest.yaml").read_text()
    entry = entry.replace("roots: {local: tiny,", "roots: {local: tiny, docker: '.', nsml: tiny,")
    (tmp_path / "data_manifest.yaml").write_text(entry)
    stub = STUB.format(path=str(tmp_path / "data"))
    write_text(tmp_path / "site" / "nsml" / "__init__.py", stub)
    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", PLAY, pushed / "bundle" / "notebook.ipynb"], cwd=tmp_path,
        env=os.environ | {"KIT_PLATFORM": name, "KIT_ROOT": str(tmp_path),
                          "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / done.stdout.splitlines()[-1]
    taken = {"kaggle": "kaggle/working/submission.csv", "docker": "data/output/output.csv"}
    if name in taken:
        assert path == tmp_path / taken[name]
    assert len(pd.read_csv(path)) == (3 if name == "kaggle" else 6)
    assert ("reported mean_of_six auc" in done.stdout) == (name == "nsml")


def test_a_teacher_s_folder_stays_here(pushed: Path, tmp_path: Path) -> None:
    (out,) = (pushed / "submissions" / "tiny").glob("*/ensemble.json")
    shutil.copytree(out.parent, tmp_path / "run")
    said = read_json(tmp_path / "run" / "settings.json")
    for part in ("settings", "compared"):
        said[part]["teacher"] = str(tmp_path / "private" / "teacher_run")
    write_json(tmp_path / "run" / "settings.json", said)
    (tmp_path / "copy").mkdir()
    carried.carry(tmp_path / "run", tmp_path / "copy")
    text = (tmp_path / "copy" / "settings.json").read_text()
    assert "teacher_run" in text and "private" not in text
    assert finished.load(tmp_path / "copy").settings.teacher == "teacher_run"


CHILD = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from kit.bundles import there
print(there.answer("tiny"))
"""


def test_the_older_layout_and_an_image_without_our_packages_do(
    pushed: Path, on_kaggle: Path
) -> None:
    arrived(pushed, on_kaggle, by_kind=False)
    path = project.printed(CHILD, ",".join(ABSENT)).strip()
    assert len(Path(path).read_text().splitlines()) == 4


def test_what_was_looked_for_is_listed_where_nothing_is_mounted(
    pushed: Path, on_kaggle: Path
) -> None:
    arrived(pushed, on_kaggle, by_kind=True)
    shutil.rmtree(on_kaggle / "kaggle" / "input" / "datasets" / "ann" / "tiny-data")
    with pytest.raises(MissingDataError) as told:
        there.answer("tiny")
    for place in ("input/tiny-data/tiny", "competitions/tiny-data", "datasets/*/tiny-data"):
        assert place in str(told.value)
    assert "add it to the notebook's inputs" in str(told.value)


def test_a_damaged_upload_and_two_bundles_are_told(pushed: Path, on_kaggle: Path) -> None:
    arrived(pushed, on_kaggle, by_kind=True)
    base = on_kaggle / "kaggle" / "input" / "datasets" / "ann"
    shutil.copytree(base / "kit-tiny-files", base / "kit-tiny-files-2")
    with pytest.raises(BundleError, match="two bundles"):
        there.answer("tiny")
    shutil.rmtree(base / "kit-tiny-files-2")
    with next((base / "kit-tiny-files").glob("*.keras")).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match="did not arrive"):
        there.answer("tiny")


def test_a_run_there_takes_the_time_that_the_session_has_left(
    pushed: Path, on_kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pushed / "data_manifest.yaml", on_kaggle / "kaggle" / "working")
    shutil.copytree(pushed / "data" / "tiny", on_kaggle / "kaggle" / "input" / "tiny-data" / "tiny")
    monkeypatch.setattr(platforms, "STARTED", time.time() - 8 * 3600)
    run = open_run("tiny", settings=project.QUICK)
    assert run.until - run.begun == pytest.approx(3600 - 600, abs=30)  # 9 h less 8 and the spare
    assert run.out.is_relative_to(on_kaggle / "kaggle" / "working")
    run = open_run("tiny", settings=project.QUICK, time_budget=60.0)
    assert run.until - run.begun == pytest.approx(60)


def test_a_submission_is_handed_in_where_kaggle_takes_it(pushed: Path, on_kaggle: Path) -> None:
    (made,) = (pushed / "submissions" / "tiny").glob("*/submission.csv")
    taken = there.hand_in(made)
    assert taken == on_kaggle / "kaggle" / "working" / "submission.csv"
    assert taken.read_bytes() == made.read_bytes()


def test_a_session_s_hours_are_said_by_a_variable() -> None:
    kaggle_, local = {"KIT_PLATFORM": "kaggle"}, {"KIT_PLATFORM": "local"}
    assert platforms.detect(kaggle_).seconds == 9 * 3600
    assert platforms.detect({**kaggle_, "KIT_HOURS": "12"}).seconds == 12 * 3600
    assert platforms.detect(local).left() is None


@pytest.mark.parametrize(
    ("name", "datasets", "competitions"),
    [
        ("rsna2021", [], ["rsna-miccai-brain-tumor-radiogenomic-classification"]),
        ("idc_patches", ["ann/kit-data"], []),
        ("synthetic_mri", [], []),
    ],
)
def test_the_data_are_attached_as_the_manifest_names_them(
    name: str, datasets: list[str], competitions: list[str], tmp_path: Path
) -> None:
    challenge = find(name, load_manifest(ROOT / "data_manifest.yaml"))
    kaggle.fill(tmp_path, challenge, bundles.Options(train=True, owner="ann"))
    said = read_json(tmp_path / "kernel-metadata.json")
    own = said["dataset_sources"][0]
    assert own == read_json(tmp_path / "dataset" / "dataset-metadata.json")["id"]
    assert (said["dataset_sources"][1:], said["competition_sources"]) == (datasets, competitions)


def test_mounted_inputs_are_found_in_each_layout(tmp_path: Path) -> None:
    wanted = [tmp_path / place / "slug" / "a" for place in ("", "competitions", "datasets/ann")]
    for place in wanted:
        place.mkdir(parents=True)
        assert place in list(mounts.places(tmp_path, "slug/a"))
    assert mounts.find(tmp_path, "*/a") == sorted(wanted)
    assert mounts.below("/kaggle/input/slug/a") == mounts.below("slug/a") == "slug/a"


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("on_kaggle", ROOT / "tools" / "on_kaggle.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("trains", [False, True], ids=["predicts", "trains"])
def test_the_notebook_runs_as_on_kaggle(
    trains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "data_manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = tool().rehearse("synthetic_patches", tmp_path / "work", trains=trains)
    assert found["lines"] > 10
    executed = json.loads((tmp_path / "work" / "root" / "executed.ipynb").read_text())
    shown = json.dumps(executed)
    assert "/kaggle/input is there" in shown or "KAGGLE_KERNEL_RUN_TYPE is set" in shown
    site = tmp_path / "work" / "venv" / "lib"
    assert list(site.glob("python*/site-packages/kit/bundles/there.py"))  # by the wheel
    tool().release(tmp_path / "work" / "root" / "kaggle" / "input")


def test_the_network_is_refused_where_the_notebook_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(tool().GUARD)
    code = "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=3)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode and "no network here" in done.stderr
