"""`kit ensemble`: finished runs joined, scored without flattery, submitted and predicted with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from project import code_of

from kit import joining
from kit.challenges import open_run
from kit.ensemble import Ensemble
from kit.files import sha256, write_json, write_table
from kit.manifest import load_manifest
from kit.settings import Settings
from kit.submission import Format

CLASSES = ("benign", "malignant")


def run_folder(
    path: Path, seed: int, *, noise: float = 1.0, cases: int = 200, shift: int = 0, mb: int = 1,
    dataset: str = "synthetic_patches", test: int = 20,
) -> Path:  # fmt: skip
    """A run's folder with its tables and one network that is none."""
    drawn, own = np.random.default_rng(7), np.random.default_rng(seed)
    truth = drawn.random(cases + test) < 0.4
    prob = 1 / (1 + np.exp(1 - 2 * truth - noise * own.normal(size=cases + test)))
    ids = [f"c{i:03}" for i in range(cases + test)]
    group = [f"p{i // 2}" for i in range(cases + test)]
    fold = (np.arange(cases + test) // 2 + shift) % 4
    table = pd.DataFrame({
        "case_id": ids, "group": group, "fold": fold, "seed": 0, "model": "resnet_small",
        "y_true": np.where(truth, *CLASSES[::-1]), "prob_benign": 1 - prob, "prob_malignant": prob,
    })  # fmt: skip
    path.mkdir(parents=True)
    write_table(table[:cases], path / "oof.parquet")
    write_table(table[cases:].assign(y_true=None), path / "test.parquet")
    write_table(table[["case_id", "group", "fold"]][:cases], path / "folds.parquet")
    network = path / "models" / "fold0_seed0.keras"
    network.parent.mkdir()
    network.write_bytes(bytes(mb * 1_000_000))
    write_json(network.with_suffix(".json"), {"model": "resnet_small"})
    entry = load_manifest().dataset(dataset).model_dump(mode="json")
    write_json(path / "settings.json", {
        "settings": Settings().model_dump(mode="json"), "style": asdict(Format()), "entry": entry,
    })  # fmt: skip
    chosen = Ensemble("mean").fit(table).to_dict()
    write_json(path / "ensemble.json", {
        **chosen, "threshold": 0.5, "networks": {"fold0_seed0": sha256(network)},
    })  # fmt: skip
    write_json(path / "metrics.json", {})
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [run_folder(tmp_path / name, seed, noise=noise)
            for name, seed, noise in (("a", 1, 1.0), ("b", 2, 1.5), ("c", 3, 2.0))]  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert code_of("ensemble", *arguments, "--json", "--resamples", 200) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("method", ["mean", "geometric", "rank", "zscore", "greedy",
                                    "bagged-greedy", "stacked"])  # fmt: skip
def test_runs_go_to_a_submission_by_every_method(runs, capsys, tmp_path, method) -> None:
    found = told(capsys, *runs, "--method", method, "--submission", tmp_path / "s.csv")
    rows = pd.read_csv(tmp_path / "s.csv")
    assert len(rows) == 20 and set(rows.label) <= set(CLASSES)
    assert found["auc"]["value"] > 0.8
    assert {row["model"] for row in found["models"]} == {"a", "b", "c"}
    assert found["n_groups"] == 100


def test_equal_weights_against_themselves_are_as_good(runs, capsys) -> None:
    found = told(capsys, *runs, "--method", "mean")
    assert found["advice"].startswith("equal weights are as good")
    assert found["against_equal"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1}
    assert found["equal"]["auc"] == found["auc"]


def test_a_choice_is_told_nested_beside_the_optimistic(runs, capsys) -> None:
    found = told(capsys, *runs, "--method", "greedy", "--objective", "mean_of_six")
    assert found["optimistic"]["mean_of_six"] >= found["mean_of_six"]["value"]
    assert found["judged_by"] == "mean_of_six"
    assert [row["n_models"] for row in found["gain"]] == [1, 2, 3]
    assert "nested" in found["decided_by"]


def test_the_person_reads_models_figures_and_advice(runs, capsys, tmp_path) -> None:
    assert code_of("ensemble", *runs, "--resamples", 200, "--out", tmp_path / "e.json") == 0
    text = capsys.readouterr().out
    for said in ("weight", "mean_of_six", "optimistic", "equal weights:", "e.json"):
        assert said in text


def test_an_official_score_may_be_the_objective(runs, capsys) -> None:
    found = told(capsys, *runs, "--method", "greedy", "--official", "khd2020")
    assert found["official"]["value"] == pytest.approx(found["mean_of_six"]["value"], abs=2e-3)


def test_a_budget_and_given_weights_are_kept(runs, capsys, tmp_path) -> None:
    found = told(capsys, *runs, "--method", "mean", "--max-mb", 2)
    assert [row["weight"] for row in found["models"]] == [0.5, 0.5, 0]
    found = told(capsys, *runs, "--method", "zscore", "--weights", ".66,.02,0")
    assert [round(row["weight"], 3) for row in found["models"]] == [0.971, 0.029, 0]


def test_the_frozen_ensemble_leaves_out_runs_without_weight(runs, capsys, tmp_path) -> None:
    told(capsys, *runs, "--method", "mean", "--max-models", 1, "--out", tmp_path / "x" / "e.json")
    frozen = json.loads((tmp_path / "x" / "e.json").read_text())
    assert frozen["runs"] == {"a": "../a"}
    assert 0 < frozen["threshold"] < 1


def test_near_copies_are_warned_of(runs, capsys, tmp_path) -> None:
    copy = run_folder(tmp_path / "d", 1, noise=1.0)
    found = told(capsys, *runs, copy)
    assert any("near copies vote twice: d of a" in line for line in found["warnings"])


def test_other_folds_are_warned_of(runs, capsys, tmp_path) -> None:
    moved = run_folder(tmp_path / "moved", 5, shift=1)
    found = told(capsys, *runs, moved)
    assert any("folds differ" in line and "moved" in line for line in found["warnings"])


def test_runs_of_the_same_name_are_told_apart(tmp_path, capsys) -> None:
    places = [run_folder(tmp_path / one / "run", seed) for one, seed in (("x", 1), ("y", 2))]
    assert list(joining.gather(places).runs) == ["run", "y/run"]
    third = run_folder(tmp_path / "z" / "y" / "run", 3)
    assert code_of("ensemble", *places, third) == 2
    assert "cannot be told apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"cases": 150, "test": 70}, "other cases"), ({"dataset": "synthetic_slides"}, "data set"),
     ({"test": 0, "cases": 200}, "other cases (test)")],
)  # fmt: skip
def test_runs_that_do_not_fit_are_refused(runs, capsys, tmp_path, changes, said) -> None:
    other = run_folder(tmp_path / "other", 9, **changes)
    assert code_of("ensemble", *runs, other) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--method", "best"), "ensemble is unknown"),
     (("--objective", "aux"), "objective is unknown"),
     (("--weights", "1,2", "--method", "weighted"), "one a run"),
     (("--weights", "1,x,2", "--method", "weighted"), "takes numbers"),
     (("--weights", "1,-2,1", "--method", "weighted"), "at least 0"),
     (("--max-mb", "0.1"), "no model fits"), (("--method", "weighted"), "needs weights"),
     (("--threshold", "best"), "threshold"), (("--official", "idc_patches"), "no scorer")],
)  # fmt: skip
def test_bad_options_are_one_clear_line(runs, capsys, arguments, said) -> None:
    assert code_of("ensemble", *runs, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def broken(path: Path, part: str, change) -> Path:
    write_table(change(pd.read_parquet(path / f"{part}.parquet")), path / f"{part}.parquet")
    return path


BROKEN = {
    "doubled predictions": lambda t: pd.concat([t, t[:3]]),
    "in [0, 1]": lambda t: t.assign(prob_malignant=1.5),
    "NaN": lambda t: t.assign(prob_malignant=np.nan),
    "other cases": lambda t: t[5:],
    "lacks cases": lambda t: pd.concat([t, t[:9].assign(seed=1)]),
}


@pytest.mark.parametrize("said", list(BROKEN))
def test_broken_tables_are_one_clear_line(runs, capsys, said) -> None:
    broken(runs[1], "oof", BROKEN[said])
    assert code_of("ensemble", *runs) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_ensemble_of_one_run_or_the_same_twice_is_refused(runs, capsys) -> None:
    assert code_of("ensemble", runs[0]) == 2
    assert "ensemble of one" in capsys.readouterr().err
    assert code_of("ensemble", runs[0], runs[0]) == 2
    assert "given twice" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(runs, capsys) -> None:
    (runs[2] / "metrics.json").unlink()
    assert code_of("ensemble", *runs) == 2
    assert "no finished run" in capsys.readouterr().err


def test_predicting_with_what_is_no_ensemble_is_refused(runs, capsys, tmp_path) -> None:
    path = runs[0] / "ensemble.json"
    assert code_of("predict", path, "--data", tmp_path, "--out", tmp_path / "p.csv") == 2
    assert "no ensemble of runs" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_go_on_to_later_data_with_the_answers_they_gave(tmp_path, capsys) -> None:
    assert code_of("data", "make", "synthetic_patches", "--data", tmp_path, "--scale", 0.5) == 0
    places = []
    for epochs in (1, 2):
        opened = open_run("synthetic_patches", data=tmp_path, out=tmp_path / f"run{epochs}",
                          smoke=True, settings={"epochs": epochs})  # fmt: skip
        opened.complete()
        places.append(opened.out)
    told(capsys, *places, "--out", tmp_path / "e.json", "--submission", tmp_path / "s.csv",
         "--max-seconds", 600)  # fmt: skip
    arguments = ("predict", tmp_path / "e.json", "--data", tmp_path, "--out", tmp_path / "p.csv")
    assert code_of(*arguments) == 0
    one, two = (pd.read_csv(tmp_path / name).set_index("case_id") for name in ("s.csv", "p.csv"))
    assert len(one) and (one.label == two.label[one.index]).all()
    assert one.prob_malignant.to_numpy() == pytest.approx(
        two.prob_malignant[one.index].to_numpy(), abs=1e-6
    )
