"""One process, several, a cluster: the same commands give the same tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import project
import pytest

from kit import clusters, synthetic
from kit.files import digest
from kit.sampler import PatchSampler

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own
PLACES: list[tuple[str, ...]] = [
    ("--workers", "1"), ("--workers", "2"), ("--cluster", "local:2")
]  # fmt: skip
OWN = {"seconds", "out", "submission"}
"""Of what a run prints, that which is of one run alone."""


def test_plans_are_one_table(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    root = synthetic.make("synthetic_slides", tmp_path / "s", scale=0.05)
    cases = pd.read_csv(root / "labels.csv", dtype=str)[["case_id", "path"]]
    found = []
    for address, workers in ((None, 1), (None, 2), ("local:2", 1)):
        with clusters.on(address, sees=[root]):
            plan = PatchSampler(256).plan_cases(cases, root, workers=workers)
        found.append((digest(plan), len(plan)))
    assert found[0] == found[1] == found[2]
    assert found[0][1] > 20


@pytest.mark.parametrize(
    "command",
    [("data", "make", "synthetic_mri"), ("data", "verify", "idc_patches"),
     ("predict", "run", "--data", "d", "--out", "o"), ("doctor", "--estimate", "help2019"),
     ("patches", "s.tif", "--patch-size", "8", "--out", "p")],
)  # fmt: skip
def test_no_workers_are_refused(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.code_of(*command, "--workers", "0") == 2
    assert "greater than or equal to 1" in capsys.readouterr().err


def run_everywhere(
    folder: Path, capsys: pytest.CaptureFixture[str], *command: object
) -> list[dict[str, Any]]:
    """Return what a run prints in each place, with its tables' fingerprints."""
    found = []
    for number, place in enumerate(PLACES):
        out = folder / f"out{number}"
        assert project.code_of("run", *command, "--out", out, "--json", *place) == 0
        told = json.loads(capsys.readouterr().out)
        tables = {
            path.name: digest(pd.read_parquet(path))
            for path in (out / "oof.parquet", out / "test.parquet", out / "folds.parquet")
        }  # fmt: skip
        submission = Path(told["submission"]).read_bytes()
        found.append({**tables, "submission": submission,
                      **{name: told[name] for name in told if name not in OWN}})  # fmt: skip
    return found


@pytest.mark.slow
def test_a_run_prints_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    project.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    one, two, cluster = run_everywhere(tmp_path, capsys, "tiny", *project.quick())
    assert one == two == cluster


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_smoke_run_prints_the_same_everywhere(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    command = ("idc_patches", "--smoke", "--data", real_data)
    one, two, cluster = run_everywhere(tmp_path, capsys, *command)
    assert one == two == cluster
