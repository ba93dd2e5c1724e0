"""Jobs in processes of their own: values, errors, crashes, interrupts, and no child left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calls import crash, fail, gone, slow

from kit import _memory, apart, jobs
from kit.errors import ImageError, JobError
from kit.jobs import Job

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and exit codes of POSIX")


def square(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


def die(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


def leave(code: int) -> None:
    os._exit(code)


def device(wait: float = 0.5) -> str | None:
    time.sleep(wait)  # so that both workers have one
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def started(*marks: Path) -> list[int]:
    """Wait for the slow jobs of these folders and return their processes' numbers."""
    end, files = time.monotonic() + 60, [mark / "started" for mark in marks]
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end, "the jobs did not start"
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_job_has_a_process_and_values_come_in_order(workers: int) -> None:
    work = [Job(f"job {x}", square, (x,)) for x in range(3)]
    found = list(apart.each(work, workers=workers))
    assert [outcome.name for outcome in found] == ["job 0", "job 1", "job 2"]
    assert [value[0] for value in jobs.values(found)] == [0, 1, 4]
    processes = {outcome.value[1] for outcome in found}
    assert len(processes) == 3 and os.getpid() not in processes


def test_an_error_of_input_is_an_outcome_and_the_others_go_on() -> None:
    found = list(apart.each([Job("a", fail, (5,)), Job("b", square, (3,))]))
    error = found[0].error
    assert isinstance(error, ImageError)
    assert (error.path, error.received) == ("5.png", 5)
    assert found[1].value[0] == 9


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_is_that_jobs_error_and_the_others_go_on(workers: int) -> None:
    work = [
        Job("killed", die, (signal.SIGKILL,)), Job("fine", square, (3,)),
        Job("crashed", die, (signal.SIGSEGV,)), Job("left", leave, (7,)),
    ]  # fmt: skip
    found = list(apart.each(work, workers=workers))
    errors = [str(outcome.error) for outcome in found]
    assert "the process of killed died. Received: killed by SIGKILL" in errors[0]
    assert found[1].value[0] == 9 and found[1].error is None
    assert "the process of crashed died. Received: killed by SIGSEGV" in errors[2]
    assert "the process of left died. Received: exit code 7" in errors[3]
    assert all("goes on where it was" in errors[n] for n in (0, 2, 3))
    assert isinstance(found[0].error, JobError)


def test_a_mistake_in_the_program_is_shown_with_its_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    (found,) = apart.each([Job("a", crash)])
    assert "exit code 1" in str(found.error)
    assert "ZeroDivisionError: a mistake in the program" in capfd.readouterr().err


def test_outcomes_that_are_left_early_end_the_processes(tmp_path: Path) -> None:
    work = [Job("quick", square, (2,)), Job("slow", slow, (tmp_path,))]
    found = apart.each(work, workers=2)
    assert next(found).value[0] == 4
    (pid,) = started(tmp_path)
    found.close()
    assert gone(pid)
    assert not (tmp_path / "ended").exists()


def test_gpus_are_dealt_one_to_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    found = jobs.values(apart.each([Job(str(n), device) for n in range(4)], workers=2))
    assert sorted(found) == ["4", "4", "7", "7"]
    assert found[0] != found[1]


@pytest.mark.parametrize(("visible", "workers"), [("4,7", 1), ("-1", 2), ("", 2)])
def test_gpus_that_cannot_be_dealt_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, visible: str, workers: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    work = [Job(str(n), device, (0.0,)) for n in range(2)]
    assert jobs.values(apart.each(work, workers=workers)) == [visible, visible]


def test_a_gpu_serves_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    work = [Job(str(n), beside, (tmp_path, n)) for n in range(3)]
    assert jobs.values(apart.each(work, workers=3)) == [("4", 1)] * 3


def test_more_gpus_than_jobs_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    work = [Job(str(n), device) for n in range(2)]
    assert sorted(jobs.values(apart.each(work, workers=8))) == ["4,5", "6,7"]


def beside(folder: Path, number: int) -> tuple[str | None, int]:
    """Return the GPU that is seen, and how many jobs were at work at once."""
    mark = folder / f"{number}.running"
    mark.touch()
    time.sleep(0.3)
    seen = len(list(folder.glob("*.running")))
    mark.unlink()
    return os.environ.get("CUDA_VISIBLE_DEVICES"), seen


def test_a_process_that_is_killed_once_goes_on(tmp_path: Path) -> None:
    work = [Job("fine", square, (3,)), Job("hit", killed_at_first, (tmp_path,))]
    found = list(apart.each(work, workers=2))
    assert [outcome.error for outcome in found] == [None, None]
    assert found[1].value == "done"


def killed_at_first(folder: Path) -> str:
    if not (folder / "tried").exists():
        (folder / "tried").touch()
        die(signal.SIGKILL)
    return "done"


def test_the_memory_of_the_first_job_limits_how_many_run_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(_memory, "free", lambda: 1)
    work = [Job(str(n), beside, (tmp_path, n)) for n in range(6)]
    seen = [most for _, most in jobs.values(apart.each(work, workers=2))]
    assert seen[3:] == [1, 1, 1]


def holds(size: int) -> int:
    return len(b"x" * size)


def test_a_job_tells_the_memory_that_its_process_held() -> None:
    small, large = apart.each([Job("a", holds, (1,)), Job("b", holds, (300 << 20,))])
    assert 290 << 20 < large.memory - small.memory < 320 << 20


SCRIPT = """
import sys, pathlib
from kit import apart, jobs
from calls import slow
from test_apart import square
where = pathlib.Path(sys.argv[1])
(where / "runs").open("a").write("once ")
try:
    if len(sys.argv) > 2:
        work = [jobs.Job(n, slow, (where / n,)) for n in "ab"]
        list(apart.each(work, workers=int(sys.argv[2])))
    else:
        print(jobs.values(apart.each([jobs.Job("a", square, (7,))]))[0][0])
except KeyboardInterrupt:
    sys.exit(130)
"""


def script(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a script without `if __name__ == "__main__"`."""
    path = folder / "script.py"
    path.write_text(SCRIPT)
    for name in "ab":
        (folder / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen(
        [sys.executable, path, folder, *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_script_needs_no_guard_and_runs_once(tmp_path: Path) -> None:
    said, errors = script(tmp_path).communicate(timeout=60)
    assert (said, errors) == ("49\n", "")
    assert (tmp_path / "runs").read_text() == "once "


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_the_processes_at_once(workers: str, tmp_path: Path) -> None:
    parent = script(tmp_path, workers)
    marks = [tmp_path / name for name in "ab"[: int(workers)]]
    children = started(*marks)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode == 130, errors
    assert all(gone(pid) for pid in children)
    assert not list(tmp_path.glob("*/ended"))


def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    parent = script(tmp_path, "2")
    children = started(tmp_path / "a", tmp_path / "b")
    parent.kill()
    parent.communicate(timeout=20)
    assert all(gone(pid) for pid in children)
    assert not list(tmp_path.glob("*/ended"))


WITHOUT_PRCTL = """
import kit.apart
kit.apart._die_with_parent = lambda: None
kit.apart.serve()
"""


def test_the_closed_pipe_alone_ends_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems whose kernel does not end a child with its parent."""
    monkeypatch.setattr(apart, "CHILD", WITHOUT_PRCTL)
    room = apart._Room(1)
    import threading

    thread = threading.Thread(target=room.run, args=(Job("slow", slow, (tmp_path,)),))
    thread.start()
    (pid,) = started(tmp_path)
    (child,) = room.running
    assert child.stdin is not None
    child.stdin.close()
    thread.join(20)
    assert gone(pid)
    assert child.returncode == apart.CUT_OFF
