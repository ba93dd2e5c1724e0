"""Workers that are killed again and again: `benchmarks/scale.py` with 300 plans."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask's own


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))  # of Dask's workers
    for name in ("OMP_NUM_THREADS", "KIT_WORKER"):
        monkeypatch.setenv(name, "1")
    spec = importlib.util.spec_from_file_location("scale", folder / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scale", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("cluster", [True, False], ids=["cluster", "processes"])
def test_plans_whose_workers_are_killed_are_all_done_once_and_the_same(
    cluster: bool, scale: ModuleType, tmp_path: Path
) -> None:
    if cluster:
        pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    dead, wrong = scale.torture(tmp_path, 300, cluster=cluster, plans=60)
    assert wrong == []
    assert 2 <= dead <= 5
