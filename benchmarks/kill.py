"""A run killed twenty times gives the table of a run never killed: `python benchmarks/kill.py`.

Each kill waits a random time, then for the phase that it is aimed at; the whole process group is
frozen (SIGSTOP) and looked at, so that the count says where a kill really landed, and killed
(SIGKILL): all of it, or the command alone, whose children must then end by themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

PHASES = ("epoch", "state write", "prediction", "network write", "data write")
AIMS = (
    "data write", "state write", "epoch", "prediction", "network write", "state write", "epoch",
    "prediction", "epoch", "state write", "prediction", "data write", "epoch", "state write",
    "prediction", "network write", "epoch", "state write", "prediction", "epoch",
)  # fmt: skip
"""What twenty kills are aimed at, in turn."""
TABLES = ("oof.parquet", "test.parquet", "submission.csv")
PATIENCE = 120.0  # seconds in which a phase must come, or the run be over
SETTINGS = {
    "model": "resnet_small", "image_size": 48, "n_splits": 2, "epochs": 3, "second_epochs": 1,
    "batch_size": 32, "augment": "patch", "keep": "best", "schedule": "plateau", "patience": 1,
    "optimizer": "radam", "resamples": 100,
}  # fmt: skip
MANIFEST = """
datasets:
  drawn:
    kind: patches
    licence: none
    source: the benchmark
    roots: {local: drawn}
    table: labels.csv
    classes: [dark, bright]
    positive: bright
    group: {unit: patient, column: patient}
"""


def draw(folder: Path, *, train: int = 192, tests: int = 384) -> None:
    """Write a manifest and noisy images, half of them a little brighter, into a folder."""
    root = folder / "data" / "drawn"
    root.mkdir(parents=True)
    (folder / "data_manifest.yaml").write_text(MANIFEST)
    rng, rows = np.random.default_rng(0), []
    for number in range(train + tests):
        bright, test = bool(number % 2), number >= train
        noise = rng.normal(140 if bright else 115, 40, (48, 48, 3))
        cv2.imwrite(str(root / f"{number}.png"), np.clip(noise, 0, 255).astype(np.uint8))
        label = "" if test else ("bright" if bright else "dark")
        rows.append((f"{number}.png", label, f"p{number}", "test" if test else "train"))
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "split"])
    table.to_csv(root / "labels.csv", index=False)


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """Start `kit run` in a process group of its own."""
    pairs = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "kit", "run", "drawn", "--out", out, "--workers", "1"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*command, *pairs], cwd=folder, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip


def parts(out: Path) -> set[Path]:
    """Return the temporary files below a folder."""
    return set(out.rglob(".part-*"))


def phase(out: Path, old: set[Path]) -> str:
    """Return what a run is at: by the files that it writes, but for `old` temporary files."""
    fresh = parts(out) - old
    models = out / "models"
    if any(path.parent.name == "state" for path in fresh):
        return "state write"
    if any(path.suffix == ".keras" for path in fresh):
        return "network write"
    if any(path.is_relative_to(out / "pixels") for path in fresh):
        return "data write"
    for note in models.glob("fold*.json"):
        sides = [models / f"{note.stem}_{side}.parquet" for side in ("oof", "test")]
        if not all(side.is_file() for side in sides):
            return "prediction"
    unfinished = [log for log in models.glob("fold*.csv") if not log.with_suffix(".json").is_file()]
    return "epoch" if unfinished else "other"


def strike(run: subprocess.Popen[bytes], out: Path, aim: str, wait: float, alone: bool) -> str:
    """Kill a run in a phase; return the phase, or "" if the run ended before it came."""
    old, end = parts(out), time.monotonic() + PATIENCE
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(wait)
    while run.poll() is None and time.monotonic() < end:
        if phase(out, old) == aim:
            os.killpg(run.pid, signal.SIGSTOP)
            found = phase(out, old)
            if found == aim:
                _kill(run, alone)
                return found
            os.killpg(run.pid, signal.SIGCONT)
        time.sleep(0.0005)
    return ""


def _kill(run: subprocess.Popen[bytes], alone: bool) -> None:
    if alone:
        run.kill()
        os.killpg(run.pid, signal.SIGCONT)  # what is left may go on, and must end
    else:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def orphans(run: subprocess.Popen[bytes], patience: float = 3.0) -> bool:
    """Return whether a process of the run's group outlives it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


def torture(folder: Path, aims: Sequence[str], seed: int) -> tuple[Counter[str], list[str]]:
    """Kill runs as aimed and finish them; return the counts of phases and what went wrong."""
    draw(folder)
    whole = start(folder, "whole")
    if whole.wait():
        raise SystemExit((folder / "log.txt").read_text()[-3000:])
    wanted = {name: (folder / "whole" / name).read_bytes() for name in TABLES}
    rng, counts, wrong = random.Random(seed), Counter[str](), []
    out, left = folder / "killed", list(aims)
    while True:
        run = start(folder, "killed")
        if left:
            found = strike(run, out, left[0], rng.uniform(0, 8), alone=len(left) % 2 == 0)
            if found:
                counts[found] += 1
                left.pop(0)
                if orphans(run):
                    wrong.append(f"a process outlived the kill in {found}")
                continue
        if run.wait():
            raise SystemExit((folder / "log.txt").read_text()[-3000:])
        wrong += [f"{name} differs" for name in TABLES if (out / name).read_bytes() != wanted[name]]
        wrong += [f"half file {path.name}" for path in parts(out)]
        if not left:
            return counts, wrong
        shutil.rmtree(out)


def main() -> None:
    """Kill, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=len(AIMS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    aims = [AIMS[number % len(AIMS)] for number in range(asked.kills)]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kit-kill-") as folder:
        counts, wrong = torture(Path(folder), aims, asked.seed)
    for name in PHASES:
        print(f"{name:14} {counts[name]:3} kills")
    print(f"{'in all':14} {sum(counts.values()):3} kills, {time.monotonic() - begun:.0f} s")
    print("; ".join(wrong) if wrong else "the same tables to the bit, no orphan, no half file")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
