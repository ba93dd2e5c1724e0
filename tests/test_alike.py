"""Pairs of cases that are alike: what is said of them, and which may move a fold."""

from __future__ import annotations

import pandas as pd

from kit import alike

CASES = pd.DataFrame(
    [("a", "p", "yes", "train"), ("b", "q", "no", "train"), ("c", "p", "yes", "train"),
     ("t", "r", None, "test"), ("u", "s", None, "test")],
    columns=["case_id", "group", "label", "split"],
)  # fmt: skip


def pairs(*ends: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(ends, columns=["a", "b"]).assign(how="turned 90", distance=0.01)


def test_pairs_of_training_cases_are_told_with_their_labels() -> None:
    said = alike.cautions(pairs(("a", "b"), ("a", "t")), CASES, "two slides only")
    assert said == [
        "two slides only",
        "1 pairs of cases of different groups are alike: their groups were joined: "
        "a and b (turned 90)",
        "1 pairs of cases are alike and their labels differ: a and b (turned 90)",
    ]


def test_pairs_of_one_patient_with_one_label_need_no_word() -> None:
    assert alike.cautions(pairs(("a", "c")), CASES, None) == []


def test_only_pairs_across_the_split_are_told_of_the_tests() -> None:
    found = pairs(("a", "b"), ("a", "t"), ("t", "u"))
    assert alike.of_tests(found, CASES) == [
        "1 test cases are alike to training cases: a and t (turned 90)"
    ]
    assert alike.of_tests(found[:1], CASES) == []
    train = CASES[CASES.split != "test"]
    assert alike.within(found, train)[["a", "b"]].to_numpy().tolist() == [["a", "b"]]
