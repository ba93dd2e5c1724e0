"""Jobs: in order, errors as outcomes, and no worker left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import crash, fail, gone, slow, square

from kit import _memory, jobs
from kit.errors import ImageError, JobError, SettingsError
from kit.jobs import Job

ROOT = Path(__file__).parents[1]

posix = pytest.mark.skipif(os.name == "nt", reason="signals and exit codes of POSIX")


def interrupt(*_: Any) -> int:
    raise KeyboardInterrupt


def die(*_: Any) -> int:
    time.sleep(0.5)  # the other worker is at work by then
    os._exit(7)


def run(work: list[Job], workers: int) -> list[jobs.Outcome]:
    return jobs.run(work, title="test", workers=workers, progress=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_outcomes_come_in_the_order_of_the_jobs(workers: int) -> None:
    waits = [0.4, 0, 0.1, 0, 0]
    found = run([Job(f"job {x}", square, (x, w)) for x, w in enumerate(waits)], workers)
    assert [outcome.name for outcome in found] == [f"job {x}" for x in range(5)]
    assert jobs.values(found) == [0, 1, 4, 9, 16]
    assert found[0].seconds >= 0.4 > found[1].seconds >= 0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_input_is_an_outcome_and_the_others_go_on(workers: int) -> None:
    found = run([Job("a", square, (2,)), Job("b", fail, (5,)), Job("c", square, (3,))], workers)
    assert [outcome.value for outcome in found] == [4, None, 9]
    error = found[1].error
    assert isinstance(error, ImageError)
    assert (error.path, error.received) == ("5.png", 5)
    with pytest.raises(ImageError, match=r"cannot be read\. Received: 5\. File: 5\.png\."):
        jobs.values(found)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("call", "error"), [(crash, ZeroDivisionError), (interrupt, KeyboardInterrupt)]
)
def test_any_other_exception_stops_the_run(
    workers: int, call: Callable[..., Any], error: type[BaseException], tmp_path: Path
) -> None:
    start = time.monotonic()
    with pytest.raises(error):
        run([Job("bad", call), Job("slow", slow, (tmp_path, 20))], workers)
    assert time.monotonic() - start < 15
    assert not (tmp_path / "ended").exists()


@posix
def test_a_job_that_kills_its_worker_twice_is_set_aside_and_the_rest_finishes() -> None:
    work = [Job(f"fold {x}", die if x == 1 else square, (x,)) for x in range(8)]
    found = run(work, 2)
    assert [one.value for one in found] == [0, None, 4, 9, 16, 25, 36, 49]
    error = found[1].error
    assert isinstance(error, JobError)
    assert re.search(r"fold 1 killed its worker twice, and was set aside.*EXIT\(7\)", str(error))
    assert jobs.values(run([Job("a", square, (1,)), Job("b", square, (2,))], 2)) == [1, 4]


def written(folder: Path, number: int) -> int:
    """Write a file unless it stands, leave a trace of each try, and die at the first of some."""
    place = folder / f"{number}.txt"
    if not place.exists():
        (folder / f"{number}-{os.getpid()}.try").touch()
        if number in (3, 11) and len(list(folder.glob(f"{number}-*.try"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        place.write_text(str(number))
    return number * number


@posix
def test_a_lost_workers_jobs_are_done_by_another_and_none_twice(tmp_path: Path) -> None:
    found = run([Job(str(n), written, (tmp_path, n)) for n in range(30)], 2)
    assert jobs.values(found) == [n * n for n in range(30)]
    tries = [len(list(tmp_path.glob(f"{n}-*.try"))) for n in range(30)]
    assert tries == [2 if n in (3, 11) else 1 for n in range(30)]


def die_at_birth() -> None:
    os._exit(3)


class Deadly:
    """An argument that ends whoever unpickles it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return die_at_birth, ()


@posix
def test_workers_that_die_before_they_begin_are_an_error() -> None:
    with pytest.raises(JobError, match="workers die before they begin"):
        run([Job("a", square, (Deadly(),)), Job("b", square, (Deadly(),))], 2)


def at_once(folder: Path, number: int) -> int:
    mark = folder / f"{number}.running"
    mark.touch()
    time.sleep(0.2)
    seen = len(list(folder.glob("*.running")))
    mark.unlink()
    return seen


def test_the_memory_of_the_first_job_limits_how_many_run_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_memory, "free", lambda: 1)
    seen = jobs.values(run([Job(str(n), at_once, (tmp_path, n)) for n in range(7)], 2))
    assert seen[3:] == [1, 1, 1, 1]
    assert "memory has room for 1 workers, not 2" in caplog.text


def test_room_is_what_the_first_job_leaves() -> None:
    assert [_memory.room(peak, 8, 10_000) for peak in (1, 1250, 3000, 20_000, 0)] == [8, 8, 3, 1, 8]


def threads_and_names() -> tuple[int, dict[str, str | None]]:
    import cv2

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KIT_WORKER")
    return cv2.getNumThreads(), {name: os.environ.get(name) for name in names}


def test_libraries_have_one_thread_in_a_worker() -> None:
    found = jobs.values(run([Job(str(n), threads_and_names) for n in range(2)], 2))
    assert found == [(1, dict.fromkeys(found[0][1], "1"))] * 2
    assert not jobs.in_worker()


@posix
def test_outcomes_that_are_left_early_end_the_workers(tmp_path: Path) -> None:
    work = [Job("quick", square, (2,)), Job("slow", slow, (tmp_path,))]
    found = jobs.each(work, title="test", workers=2, progress=False)
    assert next(found).value == 4
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        time.sleep(0.05)
    found.close()
    assert gone(int((tmp_path / "started").read_text()))
    assert not (tmp_path / "ended").exists()


INTERRUPTED = """
import sys
from pathlib import Path
from kit import jobs
from calls import slow
if __name__ == "__main__":
    work = [jobs.Job(n, slow, (Path(sys.argv[1], n),)) for n in "ab"]
    try:
        jobs.run(work, title="test", workers=2, progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@posix
def test_ctrl_c_ends_the_workers_at_once(tmp_path: Path) -> None:
    script, marks = tmp_path / "script.py", [tmp_path / name / "started" for name in "ab"]
    script.write_text(INTERRUPTED)
    for mark in marks:
        mark.parent.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert time.monotonic() < end, "the workers did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert all(gone(int(mark.read_text())) for mark in marks)


def test_jobs_are_done_as_they_are_asked_for(tmp_path: Path) -> None:
    done: list[int] = []
    found = jobs.each(
        [Job(str(x), done.append, (x,)) for x in range(3)], title="test", progress=False
    )
    assert done == []
    next(found)
    assert done == [0]
    found.close()
    assert done == [0]


def test_no_jobs_give_no_outcomes() -> None:
    assert run([], 2) == []


def test_workers_below_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="workers=0"):
        run([], 0)


@pytest.mark.parametrize(("visible", "n"), [("", 0), ("-1", 0), ("0", 1), ("0,2", 2)])
def test_devices_are_those_that_the_environment_shows(
    monkeypatch: pytest.MonkeyPatch, visible: str, n: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(jobs.visible_devices()) == n
    assert jobs.default_workers(1) == (n or jobs.cores())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_that_the_process_may_use() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from kit import jobs; print(jobs.cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "1\n"
    assert 1 <= jobs.cores() <= (os.cpu_count() or 1)


def test_each_accelerator_has_one_job_and_cores_are_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    monkeypatch.setattr(jobs, "visible_devices", list)
    assert [jobs.default_workers(threads) for threads in (1, 3, 16)] == [8, 2, 1]
    monkeypatch.setattr(jobs, "visible_devices", lambda: ["0", "1"])
    assert jobs.default_workers(1) == 2
