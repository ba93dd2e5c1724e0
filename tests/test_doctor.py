"""`kit doctor` tells what is wrong and what to do about it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kit import doctor
from kit.doctor import Finding
from kit.errors import ManifestError
from kit.manifest import load_manifest

NUMPY = Requirement("numpy>=2.0.2")


def versions(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    known = {name.replace("_", "-"): version for name, version in installed.items()}
    monkeypatch.setattr(doctor, "_version", known.get)


def test_a_package_within_its_bound_is_good() -> None:
    assert doctor._package(NUMPY, "2.1.0") == Finding("numpy", "good", "2.1.0 (>=2.0.2)")


def test_an_older_package_is_a_warning_with_its_remedy() -> None:
    found = doctor._package(NUMPY, "1.26.4")
    assert (found.level, found.remedy) == ("warning", "pip install 'numpy>=2.0.2'")
    assert "1.26.4" in found.message


def test_a_missing_package_is_an_error_with_its_remedy() -> None:
    found = doctor._package(NUMPY, None)
    assert (found.level, found.remedy) == ("error", "pip install 'numpy>=2.0.2'")


def test_either_build_of_opencv_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, opencv_contrib_python="4.13")
    required = Requirement("opencv-python-headless>=4.13")
    assert doctor._package(required, None).level == "good"
    versions(monkeypatch)
    assert doctor._package(required, None).level == "error"


def test_both_builds_of_opencv_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, opencv_python="4.13", opencv_python_headless="4.13")
    (found,) = doctor._opencv()
    assert found.level == "warning" and found.remedy.startswith("pip uninstall -y opencv")
    versions(monkeypatch, opencv_python="4.13")
    assert list(doctor._opencv()) == []


def test_an_openslide_without_its_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("Couldn't locate OpenSlide shared library.\nTry pip.")

    assert doctor._openslide().level == "good"
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    found = doctor._openslide()
    assert found.level == "error" and "openslide-bin" in found.remedy
    assert "\n" not in found.message


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 10), "error"), ((3, 11), "good"), ((3, 13), "good"), ((3, 14), "error")],
)
def test_python_is_judged(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], level: str
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (*version, 0))
    assert doctor._python().level == level


def test_the_requirements_are_those_of_pyproject_where_the_kit_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    names = {requirement.name for requirement in doctor.requirements()}
    assert {"numpy", "keras", "opencv-python-headless"} - names <= {"opencv-python-headless"}
    assert len(names & {"opencv-python-headless", "opencv-python"}) == 1
    assert "pytest" not in names


def test_keras_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = 'import json; print("noise"); print(json.dumps(["jax", ["gpu:0"]]))'
    monkeypatch.setattr(doctor, "PROBE", probe)
    backend, accelerator = doctor._backend()
    assert backend == Finding("backend", "good", "Keras runs on jax")
    assert accelerator == Finding("accelerator", "good", "1 GPU: gpu:0")


@pytest.mark.parametrize("probe", ["raise ImportError('no backend')", "import os; os._exit(134)"])
def test_a_backend_that_fails_or_dies_is_an_error(
    monkeypatch: pytest.MonkeyPatch, probe: str
) -> None:
    monkeypatch.setattr(doctor, "PROBE", probe)
    (found,) = doctor._backend()
    assert found.level == "error" and found.remedy
    assert "no backend" in found.message or "134" in found.message


def test_no_gpu_says_that_the_processor_trains() -> None:
    found = doctor._accelerator([])
    assert found.level == "warning" and "processor" in found.message and found.remedy


@pytest.mark.parametrize(("free", "level"), [(0.4, "error"), (2.0, "warning"), (3.0, "good")])
def test_free_memory_is_judged(monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr(doctor, "_free_memory", lambda: free * doctor.GIGA)
    found = doctor._memory()
    assert found.level == level
    assert bool(found.remedy) == (level != "good")


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1e8

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage)
    assert doctor._disk().level == "error"


def test_the_worst_level_counts() -> None:
    good, warning = Finding("a", "good", ""), Finding("b", "warning", "", "x")
    assert doctor.worst([good]) == "good"
    assert doctor.worst([good, warning]) == "warning"
    assert doctor.worst([warning, Finding("c", "error", "", "x"), good]) == "error"


MANIFEST = """
datasets:
  moles:
    kind: patches
    licence: CC0-1.0
    source: a shelf
    roots: {local: moles}
    table: labels.csv
    classes: [benign, malignant]
    positive: malignant
    group: {unit: patient, column: patient}
    weights:
      resnet50: {path: weights/resnet50.h5, url: the other shelf}
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest of one dataset, and no data yet."""
    file = tmp_path / "data_manifest.yaml"
    file.write_text(MANIFEST, encoding="utf-8")
    entries = load_manifest(file)
    monkeypatch.setattr("kit.manifest.load_manifest", lambda: entries)
    return tmp_path


def test_missing_data_and_weights_are_warnings_with_their_place(shelf: Path) -> None:
    data, weights = doctor._datasets(shelf)
    assert (data.name, data.level) == ("moles", "warning")
    assert str(shelf / "moles") in data.message and "a shelf" in data.remedy
    assert (weights.name, weights.level) == ("moles: resnet50", "warning")
    assert str(shelf / "weights") in weights.message and "the other shelf" in weights.remedy


def test_found_data_and_weights_are_good_and_counted(shelf: Path) -> None:
    (shelf / "moles").mkdir()
    for name in ("a.png", "b.png"):
        (shelf / "moles" / name).touch()
    rows = "path,label,patient\na.png,benign,1\nb.png,malignant,2\n"
    (shelf / "moles" / "labels.csv").write_text(rows, encoding="utf-8")
    (shelf / "weights").mkdir()
    (shelf / "weights" / "resnet50.h5").touch()
    data, weights = doctor._datasets(shelf)
    assert (data.level, weights.level) == ("good", "good")
    assert data.message == "2 cases, 2 groups, 0 test (benign 1, malignant 1)"


def test_data_that_are_there_and_wrong_are_an_error(shelf: Path) -> None:
    (shelf / "moles").mkdir()
    (shelf / "moles" / "a.png").touch()
    rows = "path,label,patient\na.png,odd,1\n"
    (shelf / "moles" / "labels.csv").write_text(rows, encoding="utf-8")
    data, _ = doctor._datasets(shelf)
    assert data.level == "error" and "odd" in data.message and "verify" in data.remedy


def test_a_wrong_manifest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ManifestError("key kindd is unknown", remedy="did you mean kind?")

    monkeypatch.setattr("kit.manifest.load_manifest", broken)
    (found,) = doctor._datasets(None)
    assert (found.level, found.remedy) == ("error", "did you mean kind?")


def test_the_whole_examination_gives_every_warning_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "PROBE", "print('[\"tensorflow\", []]')")  # Keras takes seconds
    findings = doctor.examine(tmp_path)
    assert [f for f in findings if f.level != "good" and not f.remedy] == []
    names = {f.name for f in findings}
    assert {"Python", "numpy", "OpenSlide", "backend", "memory", "disk", "idc_patches"} <= names


@pytest.mark.slow
def test_keras_itself_answers_the_probe() -> None:
    backend, accelerator = doctor._backend()
    assert backend.level == "good" and "tensorflow" in backend.message
    assert accelerator.name == "accelerator"


@pytest.mark.parametrize(
    ("said", "level", "told"),
    [
        ("550.54.15, NVIDIA T4", "good", "550.54.15, NVIDIA T4"),
        ("470.223.02, Tesla K80", "error", "CUDA 12 needs 525.60 or newer"),
        ("No devices were found", "warning", "names no GPU"),
    ],
)
def test_the_driver_is_compared_with_what_cuda_needs(
    said: str, level: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (found,) = doctor._driver()
    assert (found.name, found.level) == ("driver", level) and told in found.message


def test_without_nvidia_there_is_no_driver_to_speak_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(doctor._driver()) == []
