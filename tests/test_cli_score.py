"""`kit score`: two files, joined by case, judged; bad input is one line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import project
import pytest

from kit import metrics
from kit.files import write_table


def code_of(*arguments: object) -> int:
    return project.code_of("score", *arguments)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    n = 240
    label = rng.integers(0, 2, n)
    truth = pd.DataFrame({
        "case_id": [f"{i:04}" for i in range(n)], "label": label,
        "patient": [f"p{i // 3}" for i in range(n)], "scanner": rng.choice(["A", "B"], n),
    })  # fmt: skip
    found = {"truth": tmp_path / "t.csv"}
    truth.to_csv(found["truth"], index=False)
    for name, effect in (("pred", 1.0), ("other", 2.5)):
        prob = 1 / (1 + np.exp(-rng.normal(size=n) - effect * (label - 0.5)))
        table = pd.DataFrame(
            {"case_id": truth.case_id, "prob": prob, "fold": np.arange(n) // 3 % 4}
        )
        found[name] = tmp_path / f"{name}.csv"
        table.sample(frac=1, random_state=1).to_csv(found[name], index=False)
    return found


def scored(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert code_of(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_figures_are_those_of_evaluate_in_any_order_of_rows(files, capsys) -> None:
    found = scored(capsys, "--truth", files["truth"], "--pred", files["pred"], "--group", "patient")
    truth, pred = pd.read_csv(files["truth"]), pd.read_csv(files["pred"])
    table = truth.merge(pred, on="case_id")
    report = metrics.evaluate(
        table.label, table.prob, threshold=0.5, groups=table.patient, classes=[0, 1]
    )
    for name in metrics.FIGURES:
        assert found[name] == pytest.approx(vars(report[name]), abs=1e-12)
    assert (found["n"], found["n_groups"], found["threshold"]) == (240, 80, 0.5)
    assert found["confusion"] == [list(row) for row in report.confusion]
    assert "optimistic" not in found and found["chance"]["p"] < 0.01


def test_a_chosen_threshold_is_nested_and_the_optimistic_figure_is_named(files, capsys) -> None:
    found = scored(
        capsys, "--truth", files["truth"], "--pred", files["pred"], "--threshold", "mean_of_six"
    )
    assert found["optimistic"]["mean_of_six"] > found["mean_of_six"]["value"]
    assert "nested" in found["decided_by"]


def test_parts_comparison_and_the_official_score_are_printed(files, capsys) -> None:
    arguments = ("--truth", files["truth"], "--pred", files["pred"], "--by", "scanner",
                 "--compare", files["other"], "--official", "khd2020")  # fmt: skip
    assert code_of(*arguments) == 0
    text = capsys.readouterr().out
    for said in (
        "mean_of_six",
        "true",
        "official:",
        "by scanner",
        "other.csv less",
        "against chance",
    ):
        assert said in text
    found = scored(capsys, *arguments)
    assert found["comparison"]["auc"]["value"] > 0 and found["comparison"]["auc"]["p"] < 0.05
    assert found["official"]["value"] == pytest.approx(found["mean_of_six"]["value"], abs=1e-3)
    parts = pd.DataFrame(found["subgroups"])
    sizes = parts.drop_duplicates("part").set_index("part").n
    assert sizes.sum() == 240 and set(sizes.index) == {"A", "B"}


def test_parquet_and_class_columns_are_read(files, capsys, tmp_path) -> None:
    pred = pd.read_csv(files["pred"], dtype={"case_id": str})
    both = pd.DataFrame({"case_id": pred.case_id, "prob_0": 1 - pred.prob, "prob_1": pred.prob})
    write_table(both, tmp_path / "p.parquet")
    one = scored(capsys, "--truth", files["truth"], "--pred", tmp_path / "p.parquet")
    two = scored(capsys, "--truth", files["truth"], "--pred", files["pred"])
    assert one["auc"] == two["auc"]


def test_three_classes_and_grades_are_judged(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    label, prob = rng.integers(0, 3, 90), rng.dirichlet([1, 1, 1], 90)
    ids = [f"c{i}" for i in range(90)]
    pd.DataFrame({"case_id": ids, "label": [f"g{k}" for k in label]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    pd.DataFrame({"case_id": ids, **{f"prob_g{k}": prob[:, k] for k in range(3)}}).to_csv(
        tmp_path / "p.csv", index=False
    )
    found = scored(capsys, "--truth", tmp_path / "t.csv", "--pred", tmp_path / "p.csv", "--graded")
    assert found["threshold"] is None and len(found["per_class"]) == 5
    assert "quadratic_kappa" in found["other"]


def test_hard_labels_are_judged_with_a_warning_of_ties(files, capsys, tmp_path) -> None:
    pred = pd.read_csv(files["pred"], dtype={"case_id": str})
    votes = pd.DataFrame({"case_id": pred.case_id, "y_pred": (pred.prob > 0.5).astype(int)})
    votes.to_csv(tmp_path / "v.csv", index=False)
    found = scored(capsys, "--truth", files["truth"], "--pred", tmp_path / "v.csv")
    assert any("ties" in line for line in found["warnings"])


def test_one_class_is_no_error_and_says_what_is_undefined(files, capsys, tmp_path) -> None:
    truth = pd.read_csv(files["truth"], dtype={"case_id": str})
    truth[truth.label == 1].to_csv(tmp_path / "t.csv", index=False)
    found = scored(capsys, "--truth", tmp_path / "t.csv", "--pred", files["pred"])
    assert found["specificity"]["value"] is None and found["auc"]["value"] is None
    assert found["reasons"]["specificity"] == "no row is 0"
    assert code_of("--truth", tmp_path / "t.csv", "--pred", files["pred"]) == 0


def test_few_patients_get_what_holds(files, capsys, tmp_path) -> None:
    truth = pd.read_csv(files["truth"], dtype={"case_id": str})
    truth.head(60).to_csv(tmp_path / "t.csv", index=False)
    arguments = ("--truth", tmp_path / "t.csv", "--pred", files["pred"], "--group", "patient")
    found = scored(capsys, *arguments)
    assert found["unreliable"] == list(metrics.FIGURES)
    wide = found["cautious"]["sensitivity"]
    assert wide["high"] - wide["low"] > found["sensitivity"]["high"] - found["sensitivity"]["low"]
    assert code_of(*arguments) == 0
    assert "what holds" in capsys.readouterr().out


def broken(files: dict[str, Path], name: str, **columns: Any) -> Path:
    table = pd.read_csv(files[name], dtype={"case_id": str})
    path = files[name].with_name("broken.csv")
    table.assign(**columns).to_csv(path, index=False)
    return path


BAD_PRED = {
    "in [0, 1]": {"prob": 1.5},
    "NaN": {"prob": np.nan},
    "doubled": {"case_id": "0001"},
    "have no prediction": {"case_id": [f"x{i}" for i in range(240)]},
    "empty ids": {"case_id": ""},
    "numbers": {"prob": "high"},
    "sum to 1": {"prob_0": 0.9},
    "for two classes": {"prob_2": 0.1},
}


@pytest.mark.parametrize("said", list(BAD_PRED))
def test_bad_predictions_are_one_clear_line(files, capsys, said) -> None:
    path = broken(files, "pred", **BAD_PRED[said])
    assert code_of("--truth", files["truth"], "--pred", path) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"label": [*range(2)] * 119 + [7, 7]}, "one probability a case is for two classes"),
     ({"case_id": "0001"}, "doubled"), ({"label": ""}, "empty")],
)  # fmt: skip
def test_bad_truth_is_one_clear_line(files, capsys, columns, said) -> None:
    import re

    path = broken(files, "truth", **columns)
    assert code_of("--truth", path, "--pred", files["pred"]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--group", "ward"), "column ward is missing"), (("--by", "site"), "column site is missing"),
     (("--positive", "yes"), "--positive 0|1, 0|0, 1"), (("--threshold", "best"), "threshold"),
     (("--threshold", "1.5"), "[0, 1]"), (("--official", "idc_patches"), "no scorer"),
     (("--official", "khd"), "unknown"), (("--compare", "none.csv"), "no such table")],
)  # fmt: skip
def test_bad_options_are_one_clear_line(files, capsys, arguments, said) -> None:
    assert code_of("--truth", files["truth"], "--pred", files["pred"], *arguments) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in said.split("|")) and error.count("\n") == 1


def test_a_threshold_is_not_chosen_on_the_rows_it_is_judged_on(files, capsys, tmp_path) -> None:
    pred = pd.read_csv(files["pred"], dtype={"case_id": str}).drop(columns="fold")
    pred.to_csv(tmp_path / "p.csv", index=False)
    assert code_of("--truth", files["truth"], "--pred", tmp_path / "p.csv",
                   "--threshold", "f1") == 2  # fmt: skip
    assert "flatters" in capsys.readouterr().err


def test_words_need_a_positive_class(files, capsys) -> None:
    path = broken(files, "truth", label=["benign", "malignant"] * 120)
    assert code_of("--truth", path, "--pred", files["pred"]) == 2
    assert "--positive malignant" in capsys.readouterr().err
    assert code_of("--truth", path, "--pred", files["pred"], "--positive", "benign") == 0
