"""A folder belongs to one living run: the second is refused, a dead one's is free."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import project
import pytest

from kit import locks
from kit.challenges import open_run
from kit.errors import SettingsError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
HOLDER = """
import sys, time
from pathlib import Path
from kit import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_while_the_first_lives_and_takes_over_when_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ("run", "tiny", "--out", "out", *project.quick(), "--workers", "0")
    first = holder(tmp_path / "out")
    try:
        assert project.code_of(*command) == 2
        said = capsys.readouterr().err
        assert "another run is at work in the folder" in said
        assert f"process {first.pid} on" in said and "choose another --out" in said
        assert not list((tmp_path / "out").rglob("*.keras"))
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert project.code_of(*command) == 0
    assert (tmp_path / "out" / "submission.csv").is_file()


def test_what_is_refused_leaves_the_living_run_s_settings_and_its_like_may_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    opened = open_run("tiny", out=tmp_path / "out", settings=project.QUICK)
    before = (opened.out / "settings.json").read_bytes()
    first = holder(opened.out)
    try:
        with pytest.raises(SettingsError, match="another run is at work"):
            open_run("tiny", out=opened.out, settings={**project.QUICK, "seed": 7})
        assert (opened.out / "settings.json").read_bytes() == before
        open_run("tiny", out=opened.out, settings=project.QUICK)
    finally:
        first.kill()
        first.communicate()


def test_a_folder_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locks.held(tmp_path / "new"):
            raise ZeroDivisionError
    with locks.held(tmp_path), locks.held(tmp_path / "new"), pytest.raises(SettingsError):
        with locks.held(tmp_path):
            raise AssertionError("it was held twice")


def test_where_there_are_no_locks_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def none(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING), locks.held(tmp_path):
        pass
    assert "has no locks (No locks available)" in caplog.text
