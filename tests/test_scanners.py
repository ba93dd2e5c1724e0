"""`benchmarks/scanners.py`: its figures by hand and by the kit's own, and the whole way small."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from kit.metrics import evaluate
from kit.policies import policy

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scanners() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import scanners

        return scanners


def scored(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, a score that knows a little of it, and groups of three."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return positive, rng.normal(positive, 1.5), np.arange(n) // 3


def test_a_mean_over_seeds_is_the_mean_of_their_areas(scanners: ModuleType) -> None:
    positive = np.array([True, True, False, False])
    one, other = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0, 2.0])
    found = scanners.found(positive, [one, other])
    assert found.seeds == (1.0, 0.5)  # of the other, 3 beats both, 1 none
    assert found.area == 0.75
    both = scanners.mean_of([found, scanners.found(positive, [one, one])])
    assert both.area == 0.875 and both.seeds == (1.0, 0.75)
    assert len(both.influence) == 8 and both.influence.sum() == pytest.approx(0)


def test_of_one_network_the_interval_is_the_kits(scanners: ModuleType) -> None:
    positive, score, group = scored(3)
    prob = 1 / (1 + np.exp(-score))
    said = scanners.interval(scanners.found(positive, [prob]), positive, group)
    report = evaluate(np.where(positive, "b", "a"), prob, threshold=0.5, positive="b", groups=group)
    auc = report["auc"]
    assert said == f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"


def test_a_difference_is_paired(scanners: ModuleType) -> None:
    positive, score, group = scored(5)
    one = scanners.found(positive, [score])
    assert scanners.difference(one, one, positive, group) == "+0.000 [+0.000, +0.000]"
    better = scanners.found(positive, [score + positive])
    said = scanners.difference(better, one, positive, group)
    value, low, high = (float(word.strip("[],")) for word in said.split())
    assert value == pytest.approx(better.area - one.area, abs=6e-4)
    alone = scanners.interval(better, positive, group)
    ends = [float(word.strip("[],")) for word in alone.split()]
    assert high - low < ends[2] - ends[1]  # the same patients: what they share cancels


def test_the_augmentations_are_what_the_table_says(scanners: ModuleType) -> None:
    assert policy(scanners.PLAIN).active == ("symmetries",)
    assert policy(scanners.STAINED).active == ("symmetries", "stain")


def test_a_slides_score_is_the_mean_of_its_top_twentieth(scanners: ModuleType) -> None:
    assert scanners._top(pd.Series([0.1] * 38 + [0.9, 0.7])) == pytest.approx(0.8)
    assert scanners._top(pd.Series([0.2, 0.6])) == 0.6


@pytest.mark.parametrize("name", ["scanners", "scanners_real"])
def test_the_saved_tables_say_what_they_are(name: str) -> None:
    path = BENCHMARKS / "results" / f"{name}.json"
    saved = json.loads(path.read_text("utf-8"))
    table = pd.DataFrame(saved["lines"], columns=saved["columns"])
    assert list(table.method) == [
        "nothing", "stain augmentation", "Macenko", "Reinhard", "test-time views",
        "batch statistics", "all five together",
    ]  # fmt: skip
    assert ("illustration" in saved["notes"]) == (name == "scanners")
    assert ("Evidence" in saved["notes"]) == (name == "scanners_real")
    judged = [one for one in table if one.startswith(("phase", "cluster")) and "against" not in one]
    assert len(judged) >= 2
    for one in judged:
        ends = table[one].str.extract(r"^(\S+) \[(\S+), (\S+)\]$").astype(float)
        assert ends.notna().all(axis=None)
        assert (ends[1] <= ends[0]).all() and (ends[0] <= ends[2]).all()


@pytest.mark.slow
def test_the_whole_way_in_small(
    scanners: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", [
        "scanners.py", "--out", str(tmp_path), "--scale", "0.1", "--seeds", "1", "--epochs", "1",
        "--model", "conv_small",
    ])  # fmt: skip
    monkeypatch.setattr("bench.RESULTS", tmp_path / "results")
    scanners.main()
    first = capsys.readouterr().out
    assert "of 4 networks" in first and "all five together" in first
    scanners.main()
    again = capsys.readouterr().out
    assert "networks," not in again  # nothing is trained twice
    assert again.splitlines()[-9:] == first.splitlines()[-9:]
