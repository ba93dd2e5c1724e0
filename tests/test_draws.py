"""Epochs drawn from a plan: shares, caps, repeats, weights, and the same rows anywhere."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from kit.draws import draw, spread
from kit.errors import SettingsError, TableError

LABELS = ("tumour", "normal", "unsure", None)


def table(**slides: tuple[int, int, int, int]) -> pd.DataFrame:
    """A plan with so many tumour, normal, unsure and unlabelled patches of each slide."""
    parts = []
    for name, counts in slides.items():
        label = [one for one, n in zip(LABELS, counts, strict=True) for _ in range(n)]
        n = len(label)
        parts.append(pd.DataFrame({
            "case_id": [name] * n, "x": np.arange(n) * 256, "y": 0,
            "label": pd.Series(label, dtype=object), "footprint": 256.0,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


PLAN = table(p1=(300, 700, 50, 0), p2=(3, 900, 9, 0), n1=(0, 800, 0, 0), n2=(0, 500, 0, 0))
CASES = pd.DataFrame({
    "case_id": ["p1", "p2", "n1", "n2"], "label": ["tumour", "tumour", "normal", "normal"],
    "group": ["g1", "g1", "g2", "g3"],
})  # fmt: skip


def kinds(drawn: pd.DataFrame) -> dict[str, int]:
    positive = drawn.case_id.str.startswith("p")
    return {
        "positive tumour": int((drawn.label == "tumour").sum()),
        "positive normal": int((positive & (drawn.label == "normal")).sum()),
        "negative": int((~positive).sum()),
    }


def test_help_2019s_ratio_is_one_to_one_to_two():
    drawn = draw(PLAN, seed=0, n=400, by="kind", cases=CASES)
    assert kinds(drawn) == {"positive tumour": 100, "positive normal": 100, "negative": 200}
    assert (drawn.repeat == 0).all()


def test_a_ratio_of_our_own_is_kept():
    drawn = draw(PLAN, seed=0, n=300, ratio={"tumour": 2, "normal": 1})
    assert drawn.label.value_counts().to_dict() == {"tumour": 200, "normal": 100}


def test_a_part_with_too_few_gives_what_it_has_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        drawn = draw(PLAN, seed=0, n=2000, by="kind", cases=CASES)
    assert kinds(drawn)["positive tumour"] == 303
    assert "positive tumour 303 of 500" in caplog.text


def test_with_replacement_each_row_comes_a_second_time_before_any_a_third(caplog):
    with caplog.at_level(logging.INFO):
        drawn = draw(PLAN, seed=0, n=2800, by="kind", cases=CASES, replace=True)
    tumour = drawn[drawn.label == "tumour"]
    assert len(tumour) == 700
    times = tumour.groupby(["case_id", "x"]).size()
    assert set(times) == {2, 3}
    assert sorted(tumour.repeat.unique()) == [0, 1, 2]
    assert (tumour.groupby(["case_id", "x"]).repeat.max() + 1 == times).all()
    assert "of the draw are repeats" in caplog.text


def test_slides_and_patients_give_equally_many():
    by_slide = draw(PLAN, seed=0, n=400, by="slide").case_id.value_counts()
    assert by_slide.to_dict() == {"p1": 100, "p2": 100, "n1": 100, "n2": 100}
    by_group = draw(PLAN, seed=0, n=300, by="group", cases=CASES)
    assert by_group.case_id.map(CASES.set_index("case_id").group).value_counts().to_dict() == {
        "g1": 100, "g2": 100, "g3": 100,
    }  # fmt: skip


def test_no_slide_gives_more_than_its_cap():
    drawn = draw(PLAN, seed=0, n=150, per_slide=60, by=None)
    assert len(drawn) == 150
    assert drawn.case_id.value_counts().max() <= 60


def test_hard_slides_give_what_they_have_and_the_log_says_how_many_fewer(caplog):
    with caplog.at_level(logging.INFO):
        drawn = draw(PLAN, seed=0, per_slide=200)
    found = drawn.groupby(["case_id", "label"]).size().to_dict()
    assert found == {
        ("p1", "tumour"): 100, ("p1", "normal"): 100, ("p2", "tumour"): 3, ("p2", "normal"): 100,
        ("n1", "normal"): 200, ("n2", "normal"): 200,
    }  # fmt: skip
    assert "1 of 4 slides have too few patches of a class: 97 fewer" in caplog.text


def test_unsure_and_unlabelled_patches_are_never_drawn():
    plan = table(a=(5, 5, 500, 500))
    assert set(draw(plan, seed=0, n=10, by=None).label) == {"tumour", "normal"}
    assert len(draw(plan, seed=0, n=1000, by=None)) == 10


def test_patches_without_a_label_are_negative_where_their_slide_is():
    plan = table(p1=(50, 50, 0, 0), n1=(0, 0, 0, 400))
    drawn = draw(plan, seed=0, n=40, by="kind", cases=CASES)
    assert kinds(drawn) == {"positive tumour": 10, "positive normal": 10, "negative": 20}
    assert set(drawn[drawn.case_id == "n1"].label) == {"normal"}


def test_hard_negatives_come_in_proportion_to_their_prediction():
    plan = table(n1=(0, 2000, 0, 0), p1=(500, 0, 0, 0))
    prob = np.where(plan.x < 1000 * 256, 0.8, 0.2)
    predictions = plan[["case_id", "x", "y"]].assign(prob_tumour=prob)
    for replace in (False, True):
        drawn = draw(plan, seed=0, n=800, predictions=predictions, replace=replace)
        negative = drawn[drawn.label == "normal"]
        assert len(negative) == 400
        hard = (negative.x < 1000 * 256).mean()
        assert 0.72 < hard < 0.88
    predictions.loc[:1999, "prob_tumour"] = np.where(np.arange(2000) < 500, 0.5, 0.0)
    drawn = draw(plan, seed=0, n=800, predictions=predictions)
    assert (drawn[drawn.label == "normal"].x < 500 * 256).all()


def test_a_negative_without_a_prediction_is_an_error():
    predictions = PLAN[["case_id", "x", "y"]].assign(prob_tumour=0.5).iloc[:-3]
    with pytest.raises(TableError, match=r"have no prediction.*3 without, first n2 at x=127232"):
        draw(PLAN, seed=0, n=100, predictions=predictions)


def test_epochs_and_seeds_differ_and_the_same_ones_agree():
    first = draw(PLAN, seed=0, n=100)
    assert first.equals(draw(PLAN, seed=0, n=100))
    for other in (draw(PLAN, seed=1, n=100), draw(PLAN, seed=0, epoch=1, n=100)):
        assert not first[["case_id", "x"]].equals(other[["case_id", "x"]])


def test_neither_the_order_of_rows_nor_other_slides_change_what_a_slide_gives():
    expected = draw(PLAN, seed=0, per_slide=20).query("case_id == 'p1'").x.tolist()
    shuffled = PLAN.sample(frac=1, random_state=0)
    assert sorted(draw(shuffled, seed=0, per_slide=20).query("case_id == 'p1'").x) == expected
    alone = PLAN[PLAN.case_id == "p1"]
    assert draw(alone, seed=0, per_slide=20).x.tolist() == expected
    without = alone[~alone.x.isin(draw(alone, seed=0, per_slide=20).x[:1])]
    again = set(draw(without, seed=0, per_slide=20).x)
    assert len(again & set(expected)) == 19


def test_every_patch_is_as_likely_as_any_other():
    counts = np.zeros(100)
    plan = table(a=(0, 100, 0, 0))
    for epoch in range(400):
        counts[draw(plan, seed=7, epoch=epoch, n=25).x // 256] += 1
    assert counts.sum() == 400 * 25
    assert 60 < counts.min() and counts.max() < 140  # 100 expected, standard deviation 8.7


def test_a_small_draw_is_this_on_any_machine():
    plan = table(a=(6, 6, 0, 0), b=(0, 8, 0, 0))
    drawn = draw(plan, seed=42, epoch=3, n=6)
    assert list(zip(drawn.case_id, drawn.x // 256, strict=True)) == [
        ("a", 0), ("a", 4), ("a", 5), ("a", 8), ("a", 11), ("b", 4),
    ]  # fmt: skip
    assert (spread(plan, per_slide=3, seed=5).x // 256).tolist() == [3, 8, 10, 4, 6, 7]


SCRIPT = """
import pandas as pd
from kit.draws import draw
plan = pd.DataFrame({"case_id": ["s%d" % (n % 5) for n in range(200)], "x": range(200), "y": 0,
                     "label": ["tumour", "normal"] * 100})
print(draw(plan, seed=1, n=40).x.tolist())
"""


def test_another_process_draws_the_same():
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, "how much to draw is not said"),
        ({"per_slide": 5, "replace": True}, "how much to draw is not said"),
        ({"n": 0}, "n must be a whole number of at least 1. Received: n=0"),
        ({"per_slide": -1}, "per_slide must be a whole number"),
        ({"n": 5, "by": "colour"}, "colour"),
        ({"n": 5, "by": "group"}, "needs each slide's group"),
        ({"n": 5, "ratio": {"tumour": 1}}, "ratio must name a share"),
        ({"n": 5, "ratio": {"tumour": 1, "normal": -1}}, "ratio must name a share"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(asked, line):
    with pytest.raises(SettingsError, match=line) as told:
        draw(PLAN, seed=0, **asked)
    assert len(str(told.value).splitlines()) == 1


def test_a_case_that_is_not_in_the_cases_table_is_named():
    with pytest.raises(TableError, match=r"not in the cases table.*p1"):
        draw(PLAN, seed=0, n=5, by="kind", cases=CASES.iloc[1:])


def test_an_empty_plan_gives_an_empty_epoch():
    empty = PLAN.iloc[:0]
    assert draw(empty, seed=0, per_slide=5).empty
    assert draw(empty, seed=0, n=5).empty
    assert spread(empty, per_slide=5, seed=0).empty


def test_what_is_predicted_is_spread_over_each_slide_whatever_its_labels():
    found = spread(PLAN, per_slide=40, seed=0)
    assert found.case_id.value_counts().to_dict() == {"p1": 40, "p2": 40, "n1": 40, "n2": 40}
    relabelled = PLAN.assign(label=None)
    assert spread(relabelled, per_slide=40, seed=0)[["case_id", "x"]].equals(
        found[["case_id", "x"]]
    )
