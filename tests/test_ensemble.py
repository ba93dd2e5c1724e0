"""Ensembles: joined by id, complete, and the same in any order of rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from kit import _members
from kit.ensemble import Ensemble, nested, path_of_gain, scores_of_models
from kit.errors import KitError, SettingsError, TableError
from kit.metrics import auc, six_metrics

COLUMNS = ["case_id", "group", "fold", "seed", "model", "y_true", "prob_no", "prob_yes"]


def predictions(model: str = "a", n: int = 10, seeds: int = 1, test: bool = False) -> pd.DataFrame:
    """An out-of-fold table of two folds, or a test table on which both folds' networks vote."""
    rng = np.random.default_rng(len(model) + ord(model[0]))
    rows = []
    for i in range(n):
        for fold in (0, 1) if test else (i % 2,):
            for seed in range(seeds):
                yes = rng.random()
                truth = None if test else "yes"
                rows.append((f"c{i}", f"p{i // 2}", fold, seed, model, truth, 1 - yes, yes))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_mean_of_two_models_is_worked_by_hand() -> None:
    rows = [
        ("c2", "p", 1, 0, "a", "no", 0.5, 0.5),
        ("c1", "p", 0, 0, "a", "yes", 0.8, 0.2),
        ("c1", "p", 0, 0, "b", "yes", 0.4, 0.6),
        ("c2", "p", 1, 0, "b", "no", 0.9, 0.1),
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    found = Ensemble("mean").fit(table).predict(table)
    assert list(found.columns) == ["case_id", "group", "y_true", "prob_no", "prob_yes"]
    assert found["case_id"].tolist() == ["c1", "c2"]
    assert found["y_true"].tolist() == ["yes", "no"]
    assert found["prob_yes"].tolist() == pytest.approx([0.4, 0.3])
    assert found["prob_no"].tolist() == pytest.approx([0.6, 0.7])


def test_folds_and_seeds_of_a_test_case_are_averaged() -> None:
    test = predictions(seeds=3, test=True)
    found = Ensemble().fit(predictions(seeds=3)).predict(test).set_index("case_id")
    assert len(test) == 60 and len(found) == 10
    for case, rows in test.groupby("case_id"):
        assert found.loc[case, "prob_yes"] == pytest.approx(rows["prob_yes"].mean())
    assert found["y_true"].isna().all()


def test_a_model_with_more_seeds_has_no_more_votes() -> None:
    many, one = predictions("a", seeds=3), predictions("b")
    found = Ensemble().fit([many, one]).predict([many, one]).set_index("case_id")
    expected = (
        many.groupby("case_id")["prob_yes"].mean() + one.set_index("case_id")["prob_yes"]
    ) / 2
    assert found["prob_yes"].to_dict() == pytest.approx(expected.to_dict())


def test_order_of_rows_and_tables_changes_no_digit() -> None:
    a, b = predictions("a", seeds=3), predictions("b", seeds=3)
    fitted = Ensemble().fit([a, b])
    one = fitted.predict([a, b])
    columns = [*COLUMNS[:-2], "prob_yes", "prob_no"]
    two = fitted.predict(
        [b.sample(frac=1, random_state=0)[columns], a.sample(frac=1, random_state=1)]
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_truth_is_left_out_where_it_is_not_given() -> None:
    table = predictions().drop(columns="y_true")
    assert "y_true" not in Ensemble().fit(table).predict(table).columns


def test_an_ensemble_comes_back_from_json() -> None:
    fitted = Ensemble().fit([predictions("b"), predictions("a")])
    assert (fitted.models, fitted.classes) == (("a", "b"), ("no", "yes"))
    assert Ensemble.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    with pytest.raises(KitError, match="not an ensemble"):
        Ensemble.from_dict({"method": "mean"})


def test_fit_leaves_the_ensemble_as_it_was() -> None:
    ensemble = Ensemble()
    ensemble.fit(predictions())
    assert ensemble == Ensemble()
    with pytest.raises(SettingsError, match="not fitted"):
        ensemble.predict(predictions())


def test_a_model_that_lacks_cases_is_named_with_the_first_five() -> None:
    a, b = predictions("a"), predictions("b")
    with pytest.raises(TableError, match=r"model b lacks cases.*6 cases.*c0, c1, c2, c3, c4 and 1"):
        Ensemble().fit([a, b]).predict([a, b[6:]])


def test_a_test_case_without_one_of_its_folds_is_named() -> None:
    test = predictions(test=True)
    with pytest.raises(TableError, match=r"2 rows a case.*c4"):
        Ensemble().fit(predictions()).predict(test.drop(index=9))


def test_doubled_rows_are_named() -> None:
    table = predictions()
    with pytest.raises(TableError, match=r"10 doubled: c0 \(a, fold 0, seed 0\).*and 5 more"):
        Ensemble().fit([table, table])


def test_other_classes_or_models_than_fitted_are_refused() -> None:
    fitted = Ensemble().fit(predictions("a"))
    with pytest.raises(TableError, match=r"models differ.*Received: b"):
        fitted.predict(predictions("b"))
    with pytest.raises(TableError, match="classes differ"):
        fitted.predict(predictions("a").rename(columns={"prob_yes": "prob_maybe"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prob_yes": 0.9, "prob_no": 0.9}, "sum to 1"),
        ({"prob_yes": float("nan")}, "NaN"),
        ({"group": "other"}, "two groups or two truths.*c3"),
        ({"y_true": "no"}, "two groups or two truths.*c3"),
        ({"case_id": None}, "case_id has empty cells"),
    ],
)
def test_bad_rows_are_refused(change: dict[str, object], words: str) -> None:
    table = predictions(seeds=2).astype({"case_id": object})
    for column, value in change.items():
        table.loc[7, column] = value  # a row of c3
    with pytest.raises(TableError, match=words):
        Ensemble().fit(table).predict(table)


def test_tables_that_are_none_are_refused() -> None:
    with pytest.raises(TableError, match="no predictions"):
        Ensemble().fit([])
    with pytest.raises(TableError, match="no probabilities"):
        Ensemble().fit(predictions().drop(columns=["prob_no", "prob_yes"]))
    with pytest.raises(TableError, match="group is missing"):
        Ensemble().fit(predictions().drop(columns="group"))
    with pytest.raises(SettingsError, match="mean"):
        Ensemble("man")


def models_of(probs: np.ndarray, truth: np.ndarray, folds: int = 4) -> pd.DataFrame:
    """A predictions table of some models of two classes, `no` and `yes`."""
    ids = [f"c{i:04}" for i in range(len(truth))]
    parts = [
        pd.DataFrame({
            "case_id": ids, "group": ids, "fold": np.arange(len(ids)) % folds, "seed": 0,
            "model": f"m{j}", "y_true": np.where(truth, "yes", "no"),
            "prob_no": 1 - prob, "prob_yes": prob,
        })
        for j, prob in enumerate(probs.T)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def noisy(seed: int = 0, cases: int = 300, levels=(0.5, 1.0, 3.0)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(cases) < 0.4
    score = truth[:, None] * 2.0 - 1 + rng.normal(size=(cases, len(levels))) * np.asarray(levels)
    return 1 / (1 + np.exp(-score)), truth


EVERY = ["mean", "weighted", "geometric", "rank", "zscore", "greedy", "bagged_greedy", "stacked"]


def of(method: str, **more) -> Ensemble:
    given = {"m0": 3, "m1": 1, "m2": 0} if method == "weighted" else None
    return Ensemble(method, **{"given": given, **more})


@pytest.mark.parametrize("method", EVERY)
def test_every_method_gives_probabilities_that_rank_well(method) -> None:
    probs, truth = noisy()
    table = models_of(probs, truth)
    joined = of(method).fit(table).predict(table)
    assert joined[["prob_no", "prob_yes"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert joined["prob_yes"].between(0, 1).all()
    assert auc(truth, joined["prob_yes"], positive=True) > 0.85


@pytest.mark.parametrize("method", EVERY)
def test_a_case_is_scored_the_same_alone_and_in_company(method) -> None:
    probs, truth = noisy()
    table = models_of(probs, truth)
    fitted = of(method).fit(table)
    whole = fitted.predict(table).set_index("case_id")
    alone = fitted.predict(table[table.case_id == "c0007"]).set_index("case_id")
    assert alone.prob_yes["c0007"] == pytest.approx(whole.prob_yes["c0007"], abs=1e-12)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_comes_back_from_json_and_from_any_order(method) -> None:
    probs, truth = noisy()
    table = models_of(probs, truth)
    fitted = of(method, positive="yes").fit(table.sample(frac=1, random_state=0))
    again = Ensemble.from_dict(json.loads(json.dumps(fitted.to_dict())))
    one, two = fitted.predict(table), again.predict(table.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(one, two)
    assert len(json.dumps(fitted.to_dict())) < 20_000


@pytest.mark.parametrize("method", EVERY)
def test_models_without_weight_are_not_needed(method) -> None:
    probs, truth = noisy()
    table = models_of(probs, truth)
    fitted = of(method).fit(table)
    lean = fitted.needed()
    kept = table[table.model.isin(lean.models)]
    expected = fitted.predict(table).prob_yes
    assert lean.predict(kept).prob_yes.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-12)


@pytest.mark.parametrize("method", ["rank", "zscore", "stacked", "greedy"])
def test_the_positive_class_may_be_the_first(method) -> None:
    probs, truth = noisy()
    table = models_of(probs, truth)
    last = Ensemble(method, positive="yes", objective="f1").fit(table).predict(table)
    swapped = table.assign(y_true=table.y_true.map({"yes": "no", "no": "yes"}),
                           prob_no=table.prob_yes, prob_yes=table.prob_no)  # fmt: skip
    first = Ensemble(method, positive="no", objective="f1").fit(swapped).predict(swapped)
    assert first.prob_no.to_numpy() == pytest.approx(last.prob_yes.to_numpy(), abs=1e-6)


def test_weights_worked_by_hand() -> None:
    table = models_of(np.array([[0.2, 0.6], [0.4, 0.9]]), np.array([False, True]))
    joined = Ensemble("weighted", given={"m0": 3, "m1": 1}).fit(table).predict(table)
    assert joined.prob_yes.tolist() == pytest.approx([0.3, 0.525])
    geometric = Ensemble("geometric").fit(table).predict(table)
    up, down = np.sqrt(0.2 * 0.6), np.sqrt(0.8 * 0.4)
    assert geometric.prob_yes[0] == pytest.approx(up / (up + down))


def test_z_scores_are_help_2019s() -> None:
    from scipy.stats import norm

    probs, truth = noisy()
    given = {"m0": 0.66, "m1": 0.02, "m2": 0.0}
    joined = (
        Ensemble("zscore", given=given)
        .fit(models_of(probs, truth))
        .predict(models_of(probs, truth))
    )
    z = (probs - probs.mean(axis=0)) / probs.std(axis=0)
    score = 0.66 * z[:, 0] + 0.02 * z[:, 1]
    assert spearmanr(score, joined.prob_yes).statistic == pytest.approx(1)
    assert joined.prob_yes.to_numpy() == pytest.approx(norm.cdf(score / 0.68))


def test_ranks_are_those_among_the_frozen_scores_and_ties_stand_in_the_middle() -> None:
    reference = models_of(np.linspace(0, 1, 201)[:, None], np.arange(201) > 100)
    fitted = Ensemble("rank").fit(reference)
    asked = models_of(np.array([[0.1], [0.733], [1.0], [0.0]]), np.array([0, 1, 1, 0]) > 0)
    assert fitted.predict(asked).prob_yes.tolist() == pytest.approx([0.1, 0.733, 1, 0])
    flat = models_of(np.repeat([[0.2], [0.8]], 50, axis=0), np.arange(100) > 49)
    assert Ensemble("rank").fit(flat).predict(flat).prob_yes.iloc[0] == pytest.approx(
        0.25, abs=0.02
    )


def test_greedy_leaves_out_noise_and_names_what_it_took() -> None:
    probs, truth = noisy(levels=(0.8, 0.8, 50.0))
    fitted = Ensemble("greedy").fit(models_of(probs, truth))
    assert fitted.weights[2] == 0 and sum(fitted.weights) == pytest.approx(1)


def test_greedy_is_no_worse_than_the_best_model_on_its_own_rows() -> None:
    probs, truth = noisy(cases=80)
    for name in ("auc", "mean_of_six", "f1", "log_loss", "average_precision", "mcc"):
        score = _members.objective(name)
        both = np.stack([1 - probs, probs], axis=2)
        codes = truth.astype(int)
        chosen = _members.greedy(codes, both, score, _members.Budget([{}] * 3))
        alone = max(score(codes, both[:, j]) for j in range(3))
        assert score(codes, both[:, chosen].mean(axis=1)) >= alone - 1e-12, name


def test_the_fast_objectives_are_the_metrics() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(5, 200))
        truth, prob = rng.random(n) < 0.4, rng.random(n).round(int(rng.integers(1, 4)))
        if truth.all() or not truth.any():
            continue
        both = np.stack([1 - prob, prob], axis=1)
        assert _members.objective("auc")(truth.astype(int), both) == pytest.approx(
            auc(truth, prob, positive=True), abs=1e-12
        )
        cuts = np.append(np.unique(prob), 2)[:-1]
        six = [six_metrics(truth, prob >= cut, positive=True)["f1"] for cut in cuts]
        assert _members.objective("f1")(truth.astype(int), both) == pytest.approx(max(six))


@pytest.mark.parametrize("method", ["mean", "greedy", "bagged_greedy", "stacked"])
def test_a_budget_holds(method) -> None:
    probs, truth = noisy(levels=(0.5, 0.6, 0.7, 0.8))
    costs = {f"m{j}": {"mb": 100.0, "seconds": 10.0 * (j + 1)} for j in range(4)}
    table = models_of(probs, truth)
    for limit in ({"limits": {"mb": 250.0}}, {"max_models": 2}, {"limits": {"seconds": 30.0}}):
        fitted = Ensemble(method, costs=costs, **limit).fit(table)
        used = [name for name, w in zip(fitted.models, fitted.weights, strict=True) if w > 0]
        assert 1 <= len(used) <= 2
        assert sum(costs[name]["seconds"] for name in used) <= 30 or "seconds" not in str(limit)


def test_nested_weights_never_see_the_fold_they_join() -> None:
    probs, truth = noisy(cases=120)
    table = models_of(probs, truth)
    folds = table[["case_id", "fold"]].drop_duplicates()
    parts = nested(Ensemble("stacked"), table, folds)
    changed = table.assign(y_true=table.y_true.where(table.fold != 1, "yes"))
    again = nested(Ensemble("stacked"), changed, folds)
    assert parts[1].ensemble == again[1].ensemble != parts[0].ensemble
    assert sorted(pd.concat([p.held for p in parts]).case_id) == sorted(folds.case_id)
    for part in parts:
        assert not set(part.held.case_id) & set(part.elsewhere.case_id)


@pytest.mark.slow
def test_the_nested_score_is_free_of_the_choice() -> None:
    flattered, honest = [], []
    for seed in range(40):
        probs, truth = noisy(seed, cases=100, levels=(2.0,) * 15)
        table = models_of(probs, truth)
        folds = table[["case_id", "fold"]].drop_duplicates()
        seen = Ensemble("greedy").fit(table).predict(table)
        held = pd.concat([p.held for p in nested(Ensemble("greedy"), table, folds)])
        fresh, labels = noisy(1000 + seed, cases=4000, levels=(2.0,) * 15)
        new = Ensemble("greedy").fit(table).predict(models_of(fresh, labels))
        right = auc(new.y_true, new.prob_yes, positive="yes")
        flattered.append(auc(seen.y_true, seen.prob_yes, positive="yes") - right)
        honest.append(auc(held.y_true, held.prob_yes, positive="yes") - right)
    assert np.mean(flattered) > 0.01
    assert abs(np.mean(honest)) < 0.012


def test_near_copies_are_named_and_the_gain_is_told_model_by_model() -> None:
    probs, truth = noisy()
    table = models_of(np.column_stack([probs, probs[:, 0] * 0.999]), truth)
    found = scores_of_models(Ensemble("mean"), table)
    assert found.near_copy_of.tolist() == ["", "", "", "m0"]
    gain = path_of_gain(Ensemble("greedy"), table)
    assert gain.n_models.tolist() == [1, 2, 3, 4] and sorted(gain.model) == ["m0", "m1", "m2", "m3"]
    assert gain.score[0] == pytest.approx(found.score.max())


def test_three_classes_are_joined_by_what_can() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    parts = []
    for j in range(3):
        prob = rng.dirichlet([1, 1, 1], 150) + np.eye(3)[truth] * (0.2 + 0.3 * j)
        prob /= prob.sum(axis=1, keepdims=True)
        parts.append(pd.DataFrame({
            "case_id": [f"c{i}" for i in range(150)], "group": "g", "fold": 0, "seed": 0,
            "model": f"m{j}", "y_true": [f"k{t}" for t in truth],
            **{f"prob_k{k}": prob[:, k] for k in range(3)},
        }))  # fmt: skip
    for method, name in (("greedy", "mean_of_six"), ("bagged_greedy", "auc"), ("geometric", "auc"),
                         ("greedy", "log_loss")):  # fmt: skip
        joined = Ensemble(method, objective=name).fit(parts).predict(parts)
        given = joined[[f"prob_k{k}" for k in range(3)]].to_numpy().argmax(axis=1)
        known = joined.y_true.str[1:].astype(int)
        assert (given == known).mean() > 0.5
    with pytest.raises(TableError, match="joins two classes"):
        Ensemble("rank").fit(parts)


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [(Ensemble("weighted"), "needs weights"), (Ensemble("greedy", objective="aucc"), "auc"),
     (Ensemble("weighted", given={"m0": 1}), "not those"),
     (Ensemble("weighted", given={"m0": 1, "m1": -1, "m2": 1}), "at least 0"),
     (Ensemble("weighted", given={"m0": 0, "m1": 0, "m2": 0}), "above it"),
     (Ensemble("greedy", limits={"mb": 10}), "needs the cost"),
     (Ensemble("greedy", max_models=0), "no model fits")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(ensemble, said) -> None:
    probs, truth = noisy(cases=40)
    with pytest.raises(SettingsError, match=said):
        ensemble.fit(models_of(probs, truth))


def test_an_ensemble_of_one_is_refused_where_there_is_a_choice() -> None:
    probs, truth = noisy(cases=40, levels=(1.0,))
    with pytest.raises(SettingsError, match="ensemble of one"):
        Ensemble("bagged-greedy").fit(models_of(probs, truth))


def test_a_truth_or_a_positive_class_that_is_no_class_is_refused() -> None:
    probs, truth = noisy(cases=40)
    table = models_of(probs, truth)
    with pytest.raises(TableError, match="unknown labels"):
        Ensemble("greedy").fit(table.assign(y_true="maybe"))
    with pytest.raises(SettingsError, match="positive is unknown"):
        Ensemble("rank", positive="maybe").fit(table)
