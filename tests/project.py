"""A small project on disk for tests: a manifest and images whose class can be seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from kit.cli import main

ENTRY = """
datasets:
  tiny:
    kind: patches
    licence: none
    source: the tests
    roots: {local: tiny}
    table: labels.csv
    classes: [benign, malignant]
    positive: malignant
    group: {unit: patient, column: patient}
"""
QUICK = {
    "model": "conv_small", "image_size": 16, "epochs": 1, "batch_size": 8, "n_splits": 2,
    "resamples": 100, "tta": False,
}  # fmt: skip
"""Settings of a run that takes a second."""


def quick(**more: object) -> list[str]:
    """Return the `--set` arguments of a quick run."""
    pairs = {**QUICK, **more}
    return [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]


def image(seed: int, bright: bool) -> np.ndarray:
    """Return a 16 px RGB image, noisy, brighter where `bright`."""
    noise = np.random.default_rng(seed).normal(150 if bright else 90, 40, (16, 16, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def make(folder: Path, *, patients: int = 10, each: int = 3, tests: int = 2) -> Path:
    """Write `data_manifest.yaml` and `data/tiny` into a folder; return the data set's folder."""
    (folder / "data_manifest.yaml").write_text(ENTRY)
    root = folder / "data" / "tiny"
    rows = []
    for patient in range(patients + tests):
        for number in range(each):
            bright = patient % 2 == 1
            name = f"p{patient:02d}_{number}.png"
            write(root / name, image(100 * patient + number, bright))
            test = patient >= patients
            label = "" if test else ("malignant" if bright else "benign")
            rows.append((name, label, f"p{patient:02d}", "test" if test else "train"))
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "split"])
    table.to_csv(root / "labels.csv", index=False)
    return root


def mounted(place: Path) -> None:
    """Say in a project's manifest where its data set is mounted on Kaggle."""
    manifest = place / "data_manifest.yaml"
    roots = "roots: {local: tiny, kaggle: /kaggle/input/tiny-data/tiny}"
    manifest.write_text(manifest.read_text().replace("roots: {local: tiny}", roots))


def write(path: Path, pixels: np.ndarray) -> None:
    """Write RGB pixels as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])


def code_of(*arguments: object) -> int:
    """Return the exit code of the `kit` command with these arguments, run in this process."""
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


def printed(code: str, *arguments: object) -> str:
    """Return what code prints in a process of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
