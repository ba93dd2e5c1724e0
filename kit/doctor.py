"""`kit doctor`: what is installed, which accelerator, what is missing, with the remedy."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from kit.errors import KitError, MissingDataError

if TYPE_CHECKING:
    from kit.manifest import Dataset, Weights

Level = Literal["good", "warning", "error"]
DISTRIBUTION = "kit-medical"
PYTHONS = ((3, 11), (3, 13))
GIGA = 1e9
# Least and comfortable free amounts, GB: `kit run idc_patches` stays below 3 GB of memory.
MEMORY = (1.0, 3.0)
DISK = (0.5, 5.0)
DRIVER = (525, 60)
"""NVIDIA's oldest driver that runs CUDA 12, for which TensorFlow is built."""
OPENCV = ("opencv-python-headless", "opencv-python")
PROBE = """
import json, keras
from kit.backend import gpus
print(json.dumps([keras.backend.backend(), gpus()]))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, how it stands, and what to do about it."""

    name: str
    level: Level
    message: str
    remedy: str = ""


def examine(data: str | Path | None = None) -> list[Finding]:
    """Return the findings on this machine, in the order in which they are shown.

    Args:
        data: The folder that the manifest's relative roots start from; None: the default.
    """
    return [
        _python(),
        *_packages(),
        *_opencv(),
        _openslide(),
        *_driver(),
        *_backend(),
        _memory(),
        _disk(),
        *_datasets(data),
    ]


def worst(findings: list[Finding]) -> Level:
    """Return the worst level among the findings."""
    levels = {finding.level for finding in findings}
    return "error" if "error" in levels else "warning" if "warning" in levels else "good"


def _python() -> Finding:
    has = sys.version_info[:2]
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if PYTHONS[0] <= has <= PYTHONS[1]:
        return Finding("Python", "good", text)
    return Finding("Python", "error", f"{text}; 3.11 to 3.13 are supported", "install Python 3.12")


def declared() -> list[str]:
    """Return what the kit requires on any system, from its metadata or its pyproject.toml."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        source = Path(__file__).parents[1] / "pyproject.toml"
        if not source.is_file():
            return []
        return list(tomllib.loads(source.read_text(encoding="utf-8"))["project"]["dependencies"])


def requirements() -> list[Requirement]:
    """Return what the kit requires on this system."""
    parsed = [Requirement(line) for line in declared()]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    required = requirements()
    if not required:
        yield Finding(
            "packages", "warning", "the kit is not installed, so its bounds are not known",
            "pip install -e .",
        )  # fmt: skip
    for requirement in required:
        yield _package(requirement, _version(requirement.name))


def _package(requirement: Requirement, version: str | None) -> Finding:
    """Compare an installed version (None: absent) with what is required."""
    name, bound = requirement.name, str(requirement.specifier)
    remedy = f"pip install '{name}{bound}'"
    if version is None:
        other = _elsewhere(name)
        if other:
            return Finding(name, "good", f"{other} stands in for it")
        return Finding(name, "error", f"missing, {bound} is required", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, "warning", f"{version} was never tested, {bound} was", remedy)
    return Finding(name, "good", f"{version} ({bound})")


def _elsewhere(name: str) -> str | None:
    """Return what supplies a package that goes by another name here, as conda's do."""
    if name in OPENCV:
        others = (*OPENCV, "opencv-contrib-python", "opencv-contrib-python-headless")
        return next((other for other in others if _version(other)), None)
    if name == "openslide-bin" and _openslide().level == "good":
        return "an OpenSlide library of this system"
    return None


def _opencv() -> Iterator[Finding]:
    if all(_version(name) for name in OPENCV):
        yield Finding(
            "OpenCV", "warning", f"{' and '.join(OPENCV)} overwrite each other's files",
            f"pip uninstall -y {' '.join(OPENCV)}, then pip install the one you want",
        )  # fmt: skip


def _openslide() -> Finding:
    try:
        version = importlib.import_module("openslide").__library_version__
    except (ImportError, OSError) as error:
        text = f"cannot be loaded: {' '.join(str(error).split())}"
        return Finding("OpenSlide", "error", text, "pip install openslide-bin openslide-python")
    return Finding("OpenSlide", "good", f"library {version}")


def _driver() -> Iterator[Finding]:
    """Compare NVIDIA's driver with the oldest that runs CUDA 12; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return
    asked = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        version, name = done.stdout.strip().splitlines()[0].split(", ", 1)
        number = tuple(int(part) for part in version.split("."))
    except (subprocess.TimeoutExpired, IndexError, ValueError, OSError):
        yield Finding("driver", "warning", "nvidia-smi is here and names no GPU",
                      "start nvidia-smi: it says why; reinstall the driver")  # fmt: skip
        return
    least = ".".join(map(str, DRIVER))
    text = f"{version}, {name}"
    if number >= DRIVER:
        yield Finding("driver", "good", f"{text} (CUDA 12 needs {least})")
    else:
        yield Finding("driver", "error", f"{text}; CUDA 12 needs {least} or newer",
                      f"install NVIDIA's driver {least} or newer, and start anew")  # fmt: skip


def _backend() -> Iterator[Finding]:
    """Ask Keras in a process of its own: a broken backend may end the process that loads it."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=quiet, capture_output=True, text=True, timeout=120
        )
        backend, gpus = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        slow = isinstance(error, subprocess.TimeoutExpired)
        reason = "did not load within 120 s" if slow else _last_line(done.stderr, done.returncode)
        remedy = "pip install --upgrade keras tensorflow, and see KERAS_BACKEND"
        yield Finding("backend", "error", f"Keras cannot be used: {reason}", remedy)
        return
    yield Finding("backend", "good", f"Keras runs on {backend}")
    yield _accelerator(list(gpus))


def _last_line(text: str, code: int) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {code}"


def _accelerator(gpus: list[str]) -> Finding:
    if gpus:
        return Finding("accelerator", "good", f"{len(gpus)} GPU: {', '.join(gpus)}")
    text = "no GPU found: training runs on the processor"
    if shutil.which("nvidia-smi"):
        remedy = f"pip install '{DISTRIBUTION}[gpu]' (Linux), and compare nvidia-smi's driver"
        return Finding("accelerator", "warning", f"{text}, though nvidia-smi is here", remedy)
    remedy = "none is needed for the embedded data; use one for runs on thousands of images"
    return Finding("accelerator", "warning", text, remedy)


def _amount(name: str, free: float, limits: tuple[float, float], remedy: str) -> Finding:
    least, comfortable = limits
    text = f"{free:.1f} GB free"
    if free >= comfortable:
        return Finding(name, "good", text)
    level: Level = "error" if free < least else "warning"
    return Finding(name, level, f"{text}, {comfortable:g} GB are comfortable", remedy)


def _memory() -> Finding:
    free = _free_memory()
    if free is None:
        return Finding("memory", "good", "this system does not say how much is free")
    return _amount("memory", free / GIGA, MEMORY, "close other programs, or run with --smoke")


def _free_memory() -> float | None:
    """Return the bytes that a new process may take, as the system and its container say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = float((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - float((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no limit
        pass
    return free


def _disk() -> Finding:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / GIGA
    return _amount("disk", free, DISK, f"free some space under {here}, or use --out elsewhere")


def _datasets(data: str | Path | None) -> Iterator[Finding]:
    from kit.inventory import overview
    from kit.manifest import load_manifest

    try:
        manifest = load_manifest()
    except KitError as error:
        yield Finding("data_manifest.yaml", "error", str(error), error.remedy or "correct it")
        return
    for row in overview(manifest, data).to_dict("records"):
        dataset = manifest.dataset(str(row["name"]))
        yield _dataset(dataset, row, data)
        for name, weights in dataset.weights.items():
            yield _weights(f"{dataset.name}: {name}", weights, _base(dataset, data))
    if not any(dataset.weights for dataset in manifest.datasets.values()):
        yield Finding("weights", "good", "the manifest names none: networks start from scratch")


def _base(dataset: Dataset, data: str | Path | None) -> Path:
    from kit.manifest import home

    return home(dataset.manifest) / "data" if data is None else Path(data)


def _dataset(dataset: Dataset, row: Mapping[Hashable, Any], data: str | Path | None) -> Finding:
    """Judge one dataset; `row` is its line of `kit.inventory.overview`."""
    if row["here"]:
        text = (
            f"{row['cases']} cases, {row['groups']} groups, {row['test']} test ({row['classes']})"
        )
        return Finding(dataset.name, "good", text)
    try:
        dataset.root(data)
    except MissingDataError as error:
        text = f"not here: {error.path}"
        return Finding(dataset.name, "warning", text, error.remedy or "")
    return Finding(
        dataset.name, "error", str(row["where"]), f"kit data verify {dataset.name} tells more"
    )


def _weights(name: str, weights: Weights, base: Path) -> Finding:
    path = base / weights.path
    if path.is_file():
        return Finding(name, "good", f"weights at {path}")
    source = f"from {weights.url} " if weights.url else ""
    return Finding(
        name, "warning", f"no weights at {path}", f"bring the file {source}to that place"
    )
