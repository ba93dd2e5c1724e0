"""What happens to a run that is stopped from outside: real processes, signals and limits."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import project
import pytest

RUN = [sys.executable, "-m", "kit", "run", "tiny", "--out", "out"]


def start(folder: Path, *arguments: str, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUN, *arguments], cwd=folder, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **more,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    project.make(tmp_path)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    done = start(tmp_path, *project.quick(), "--workers", "1", preexec_fn=small_files)
    _, said = done.communicate(timeout=120)
    assert done.returncode == 2
    assert "the disk is full" in said
    assert "goes on where it stopped" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob(".part-*"))
    assert not (tmp_path / "out" / "pixels" / "pixels.parquet").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_says_how_to_go_on_and_does(workers: str, tmp_path: Path) -> None:
    project.make(tmp_path)
    settings = [*project.quick(epochs=400), "--workers", workers]
    run = start(tmp_path, *settings)
    log = tmp_path / "out" / "models" / "fold0_seed0.csv"
    end = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < end and run.poll() is None
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    end = time.monotonic() + 10
    while alive(run.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(run.pid), "workers must not outlive the run"
    assert not (tmp_path / "out" / "submission.csv").exists()
    again = start(tmp_path, *settings)
    again.communicate(timeout=300)
    assert again.returncode == 0
    assert (tmp_path / "out" / "submission.csv").is_file()


@pytest.mark.slow
def test_one_worker_and_two_give_the_same_tables(tmp_path: Path) -> None:
    found = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        project.make(folder)
        run = start(folder, *project.quick(epochs=3), "--workers", workers)
        run.communicate(timeout=300)
        assert run.returncode == 0
        found.append([(folder / "out" / f"{n}.parquet").read_bytes() for n in ("oof", "test")])
    assert found[0] == found[1]
