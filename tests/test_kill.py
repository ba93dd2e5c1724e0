"""Runs killed in the midst of things: `benchmarks/kill.py` with three kills."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

AIMS = ("state write", "prediction", "epoch")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="process groups are frozen as Linux does it")
def test_a_run_killed_three_times_gives_the_table_of_a_run_never_killed(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "kill.py"
    spec = importlib.util.spec_from_file_location("kill", path)
    assert spec is not None and spec.loader is not None
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    counts, wrong = kill.torture(tmp_path, AIMS, seed=0)
    assert counts == dict.fromkeys(AIMS, 1)
    assert wrong == []
