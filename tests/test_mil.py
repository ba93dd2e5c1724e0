"""Bags of vectors: their layers, their training, and what it may not depend on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from kit import mil
from kit._bags import FoldBags, padded
from kit.attention import ExtremeScores, Standardise
from kit.errors import GroupLeakError, ModelError, SettingsError, TableError, TrainingError
from kit.files import digest, read_json
from kit.models import LOGITS, build_model, load_network

CLASSES = ("normal", "tumour")
MODELS = ("attention_mil", "chowder")


def numbers(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def drawn(
    n: int, patches: tuple[int, int], d: int, *, shift: float, share: float
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return a folds table of n slides, and bags of which the odd ones hold shifted instances.

    Every slide is a little off in a direction of its own, as stains are.
    """
    rng = np.random.default_rng(0)
    way = rng.normal(size=d)
    way *= shift / np.linalg.norm(way)
    bags = {}
    for number in range(n):
        bag = rng.normal(size=(int(rng.integers(*patches)), d)) + 0.2 * rng.normal(size=d)
        if number % 2:
            bag[: max(1, round(share * len(bag)))] += way
        bags[f"s{number:02d}"] = rng.permutation(bag).astype(np.float16)
    ids, label = list(bags), [CLASSES[number % 2] for number in range(n)]
    fold = np.arange(n) // 2 % 5
    return pd.DataFrame({"case_id": ids, "group": ids, "label": label, "fold": fold}), bags


def small() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    folds, bags = drawn(12, (20, 40), 6, shift=6, share=0.2)
    return folds.assign(fold=np.arange(12) // 2 % 2), bags


def run(
    folds: pd.DataFrame, bags: dict[str, np.ndarray], out: Path, **settings: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen: dict[str, Any] = {
        "classes": CLASSES, "positive": "tumour", "seeds": 1, "epochs": 2, **settings,
    }  # fmt: skip
    return mil.cross_validate(folds, lambda case, fold: bags[case], out=out, **chosen)


def aucs(table: pd.DataFrame) -> list[float]:
    return [
        float(roc_auc_score(rows.y_true == "tumour", rows.prob_tumour))
        for _, rows in table.groupby("seed")
    ]


def logistic(folds: pd.DataFrame, bags: dict[str, np.ndarray]) -> float:
    """AUC of a logistic regression on the mean vectors, fold by fold: the peer."""
    mean = np.array([bags[case].mean(axis=0, dtype=float) for case in folds.case_id])
    truth, prob = (folds.label == "tumour").to_numpy(), np.zeros(len(folds))
    for fold in folds.fold.unique():
        held = (folds.fold == fold).to_numpy()
        scale = mean[~held].std(axis=0)
        peer = LogisticRegression(max_iter=1000).fit(mean[~held] / scale, truth[~held])
        prob[held] = peer.predict_proba(mean[held] / scale)[:, 1]
    return float(roc_auc_score(truth, prob))


def test_extreme_scores_are_those_of_a_sort() -> None:
    bags = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    layer = ExtremeScores(2, 3)
    pooled, scores = map(numbers, layer(bags, return_scores=True))
    (weights,) = layer.score.get_weights()
    assert scores == pytest.approx(bags @ weights, abs=1e-5)
    ordered = np.sort(bags @ weights, axis=1)
    wanted = np.concatenate([ordered[:, :-4:-1], ordered[:, :3]], axis=1)
    assert pooled == pytest.approx(wanted.reshape(2, -1), abs=1e-5)


def test_a_short_bag_has_its_last_score_again_and_an_empty_one_zeros() -> None:
    layer = ExtremeScores(1, 3)
    layer.build((None, None, 1))
    layer.score.set_weights([np.ones((1, 1))])
    bags = np.array([[5.0, -2, 9, 9], [0, 0, 0, 0]], np.float32)[..., None]
    mask = np.array([[True, True, False, False], [False] * 4])
    found = numbers(layer(bags, mask=mask))
    assert found.tolist() == [[5, -2, -2, -2, 5, 5], [0] * 6]


def test_standardised_padding_stays_zero() -> None:
    layer = Standardise(2)
    layer.fit(np.array([1.0, 10.0]), np.array([2.0, 0.0]))
    bags = np.array([[[3, 12], [1, 10], [0, 0]]], np.float32)
    assert numbers(layer(bags)).tolist() == [[[1, 2], [0, 0], [0, 0]]]
    again = Standardise.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    assert numbers(again(bags)).tolist() == [[[1, 2], [0, 0], [0, 0]]]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_neither_padding_nor_order_changes_a_network(name: str, classes: int) -> None:
    keras.utils.set_random_seed(0)
    network = build_model(name, (None, 8), classes)
    rng = np.random.default_rng(0)
    bags = rng.normal(size=(3, 7, 8)).astype(np.float32)
    found = numbers(network(bags, training=False))
    more = np.concatenate([bags, np.zeros((3, 5, 8), np.float32)], axis=1)
    assert numbers(network(more, training=False)) == pytest.approx(found, abs=1e-5)
    mixed = more[:, rng.permutation(12)]
    assert numbers(network(mixed, training=False)) == pytest.approx(found, abs=1e-5)
    assert numbers(network(1 + bags, training=False)) != pytest.approx(found, abs=1e-5)


def test_chowder_has_a_score_for_each_of_more_classes_than_two() -> None:
    assert [build_model("chowder", (None, 8), k).get_layer("pool").scores for k in (2, 3)] == [1, 3]


def test_a_bag_is_padded_to_a_power_of_two_with_zeros() -> None:
    assert [padded(np.ones((n, 2))).shape[1] for n in (1, 64, 65, 128, 500)] == [
        64, 64, 128, 128, 512,
    ]  # fmt: skip
    found = padded(np.ones((65, 2), np.float16))
    assert found.dtype == np.float32
    assert found.sum() == 130
    assert (found[0, 65:] == 0).all()


def test_what_is_drawn_of_a_bag_is_in_it_once_and_another_epoch_draws_anew() -> None:
    bag = np.arange(1, 41, dtype=np.float32)[:, None]
    bags = FoldBags(lambda case, fold: bag, 0, ["a"])
    first, again, later = (bags.drawn(["a"], 12, [10], [[0, n]])[0, :, 0] for n in (0, 0, 1))
    assert len(set(first[:10])) == 10
    assert set(first[:10]) <= set(bag[:, 0])
    assert (first[10:] == 0).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)


def test_every_slide_counts_alike_in_mean_and_spread() -> None:
    parts = {"a": np.full((1, 1), 2.0), "b": np.tile([[4.0], [8.0]], (50, 1))}
    mean, spread = FoldBags(lambda case, fold: parts[case], 0, ["a", "b"]).spread(["a", "b"])
    assert mean.tolist() == [4.0]  # of 2 and 6
    assert spread == pytest.approx([6**0.5])  # mean square (4 + 40) / 2 = 22, less 16


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Two folds of attention_mil, trained for 2 epochs: their folder and tables."""
    folds, bags = small()
    out = tmp_path_factory.mktemp("mil")
    tests = pd.DataFrame({"case_id": ["t0", "t1"], "group": ["u", "v"]})
    bags |= {"t0": bags["s00"] + np.float16(1), "t1": np.zeros((0, 6), np.float16)}
    return out, *run(folds, bags, out, tests=tests)


def test_tables_have_a_row_for_each_slide_and_network(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    _, oof, test = finished
    folds, _ = small()
    names = ["case_id", "group", "fold", "seed", "model", "y_true", "prob_normal", "prob_tumour"]
    assert list(oof.columns) == list(test.columns) == names
    known = folds.set_index("case_id")[["fold", "label"]]
    assert oof.case_id.tolist() == folds.case_id.tolist()
    assert (oof.fold == oof.case_id.map(known.fold)).all()
    assert (oof.y_true == oof.case_id.map(known.label)).all()
    assert oof[["prob_normal", "prob_tumour"]].to_numpy().sum(axis=1) == pytest.approx(1)
    assert test[["case_id", "fold"]].to_numpy().tolist() == [
        ["t0", 0], ["t0", 1], ["t1", 0], ["t1", 1],
    ]  # fmt: skip
    assert test.y_true.isna().all()
    assert test.prob_tumour[2:].tolist() == [0.0, 0.0]  # no patch: the stated score
    assert (test.prob_tumour[:2] > 0).all()


def test_a_saved_network_standardises_by_its_own_training_slides(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    out, oof, _ = finished
    folds, bags = small()
    network = load_network(out / "mil_fold0_seed0.keras")
    means = [bags[case].mean(axis=0, dtype=float) for case in folds.case_id[folds.fold == 1]]
    layer = network.get_layer("standardise")
    assert layer.get_weights()[0] == pytest.approx(np.mean(means, axis=0), abs=1e-5)
    case = folds.case_id[folds.fold == 0].iloc[0]
    found = mil.probabilities(network, bags[case])
    assert found[1] == pytest.approx(oof.prob_tumour[oof.case_id == case].iloc[0])
    note = read_json(out / "mil_fold0_seed0.json")
    assert (note["slides"], note["model"], len(note["losses"])) == (6, "attention_mil", 2)


def test_what_stands_is_taken_and_a_changed_slide_trains_only_who_sees_it(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folds, bags = small()
    first, _ = run(folds, bags, tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again, none = run(folds, bags, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    assert sorted(made) == sorted(
        f"mil_fold{n}_seed0.{kind}" for n in (0, 1) for kind in ("json", "keras", "parquet")
    )
    pd.testing.assert_frame_equal(first, again)
    assert len(none) == 0
    assert list(none.columns) == list(first.columns)
    changed = folds.case_id[folds.fold == 0].iloc[0]
    bags[changed] = bags[changed] * np.float16(2)
    run(folds, bags, tmp_path)
    moved = [p.name for p in tmp_path.glob("*.keras") if p.stat().st_mtime_ns != made[p.name]]
    assert moved == ["mil_fold1_seed0.keras"]
    pd.testing.assert_frame_equal(first, finished[1])  # further test slides changed nothing


ELSEWHERE = (
    "import sys, pathlib\n"
    "sys.path.insert(0, 'tests')\n"
    "from test_mil import run, small\n"
    "from kit.files import digest\n"
    "oof, _ = run(*small(), pathlib.Path(sys.argv[1]))\n"
    "print(digest(oof))\n"
)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table_in_another_process(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=root,
    )  # fmt: skip
    assert done.stdout.split()[-1] == digest(finished[1])
    other, _ = run(*small(), tmp_path / "other", seed=1)
    assert (abs(other.prob_tumour - finished[1].prob_tumour) > 1e-6).any()


def test_attention_is_a_weight_for_each_instance_whatever_their_order(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    network = load_network(finished[0] / "mil_fold0_seed0.keras")
    bag = small()[1]["s01"]
    found = mil.attention(network, bag)
    assert found.shape == (len(bag),)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert mil.attention(network, bag[::-1]) == pytest.approx(found[::-1], abs=1e-6)
    assert mil.probabilities(network, bag[::-1]) == pytest.approx(
        mil.probabilities(network, bag), abs=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("upside_down", [False, True])
def test_scores_of_chowder_are_turned_towards_the_class(upside_down: bool, classes: int) -> None:
    keras.utils.set_random_seed(1)
    network = build_model("chowder", (None, 6), classes)
    bag = np.random.default_rng(0).normal(size=(30, 6))
    if upside_down:  # classes change places: what spoke for the last one speaks for the first
        kernel, bias = network.get_layer(LOGITS).get_weights()
        network.get_layer(LOGITS).set_weights([kernel[:, ::-1], bias[::-1]])
    (weights,) = network.get_layer("pool").score.get_weights()
    last, other = mil.attention(network, bag), mil.attention(network, bag, towards=0)
    raw = bag @ weights[:, -1]
    assert abs(last) == pytest.approx(abs(raw), abs=1e-5)
    assert other == pytest.approx(np.sign(other[0]) * np.sign((bag @ weights[:, 0])[0])
                                  * (bag @ weights[:, 0]), abs=1e-5)  # fmt: skip
    if classes == 2:
        assert last == pytest.approx(-other)
    # Scores are linear, so this raises each instance's by as much, and the class must gain.
    way = np.sign(last[0] * raw[0]) * np.linalg.pinv(weights)[-1]
    logits = keras.Model(network.input, network.get_layer(LOGITS).output)
    low, high = (numbers(logits(padded(bag + step * way)))[0] for step in (-0.05, 0.05))
    gained = high - low
    assert gained[-1] > gained[:-1].mean()


def test_a_bag_that_a_network_does_not_take_is_refused(
    finished: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    network = load_network(finished[0] / "mil_fold0_seed0.keras")
    for bag in (np.zeros((0, 6)), np.zeros((3, 7)), np.full((3, 6), np.nan)):
        with pytest.raises(TableError, match=r"finite, shape \(n, 6\)"):
            mil.probabilities(network, bag)
        with pytest.raises(TableError, match=r"finite, shape \(n, 6\)"):
            mil.attention(network, bag)
    with pytest.raises(ModelError, match="no weights of instances"):
        image = keras.Input((None, 6))
        pool = keras.layers.GlobalAveragePooling1D(name="pool")(image)
        mil.attention(keras.Model(image, pool), np.ones((3, 6)))


def test_each_fold_has_its_encoder_and_learns_from_no_slide_without_patches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folds, bags = small()
    bags["s04"] = bags["s04"][:0]
    asked = set()

    def of_fold(case_id: str, fold: int) -> np.ndarray:
        asked.add((case_id, fold))
        return bags[case_id][:, : 4 + fold]  # even another width

    oof, _ = mil.cross_validate(
        folds, of_fold, classes=CLASSES, positive="tumour", out=tmp_path, seeds=1, epochs=1
    )
    assert asked == {(case, fold) for case in bags for fold in (0, 1)}
    widths = [load_network(tmp_path / f"mil_fold{n}_seed0.keras").input_shape[-1] for n in (0, 1)]
    assert widths == [4, 5]
    own = folds.set_index("case_id")["fold"]["s04"]
    slides = [read_json(tmp_path / f"mil_fold{n}_seed0.json")["slides"] for n in (own, 1 - own)]
    assert slides == [6, 5]
    assert oof.set_index("case_id")["prob_tumour"]["s04"] == 0
    assert "not learnt from: s04" in caplog.text


@pytest.mark.parametrize(
    ("bag", "told"),
    [
        (np.full((3, 6), np.nan, np.float32), "nan or infinite. Received: in case s03"),
        (np.zeros((3, 6), np.int64), "not a bag of vectors"),
        (np.zeros(6, np.float32), r"\(n, d\)"),
        (np.zeros((3, 7), np.float32), "Expected: 6 features. Received: 7 of s03"),
    ],
)
def test_a_bag_that_is_none_is_refused_before_anything_is_trained(
    bag: np.ndarray, told: str, tmp_path: Path
) -> None:
    folds, bags = small()
    with pytest.raises(TableError, match=told):
        run(folds, bags | {"s03": bag}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tables_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folds, bags = small()
    with pytest.raises(ModelError, match="takes no bags"):
        run(folds, bags, tmp_path, model="conv_small")
    with pytest.raises(SettingsError, match="positive=None"):
        run(folds, bags, tmp_path, positive=None)
    with pytest.raises(SettingsError, match="positive=tumour"):
        run(folds, bags, tmp_path, classes=("normal", "tumour", "more"))
    with pytest.raises(TableError, match="unknown labels"):
        run(folds, bags, tmp_path, classes=("normal", "cancer"), positive="cancer")
    with pytest.raises(GroupLeakError, match="stand"):
        run(folds.assign(group="one"), bags, tmp_path)
    known = folds[["case_id", "group"]]
    with pytest.raises(GroupLeakError, match="another case_id"):
        run(folds, bags, tmp_path, tests=known.head(1).assign(group="new"))
    with pytest.raises(GroupLeakError, match="another group"):
        run(folds, bags, tmp_path, tests=known.head(1).assign(case_id="new"))
    one = folds.assign(label=np.where(folds.fold == 0, "tumour", folds.label))
    one.loc[folds.fold == 1, "label"] = "normal"
    with pytest.raises(TableError, match="nothing to learn from of class tumour"):
        run(one, bags, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite.*lower learning_rate"):
        run(*small(), tmp_path, learning_rate=1e38, epochs=3)
    assert not list(tmp_path.glob("*.keras"))


@pytest.fixture(scope="module")
def sparse() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """48 slides of 150 to 300 instances, of which 4 % are shifted in the positive ones."""
    folds, bags = drawn(48, (150, 300), 16, shift=4, share=0.04)
    return folds.assign(fold=np.arange(48) // 2 % 2), bags


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("attention_mil", 0.9), ("chowder", 0.75)])
def test_few_instances_decide_where_their_mean_says_nothing(
    name: str, least: float, sparse: tuple[pd.DataFrame, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folds, bags = sparse
    oof, _ = run(folds, bags, tmp_path, model=name, seeds=2, epochs=None)
    found = aucs(oof)
    assert len(found) == 2
    assert min(found) >= least
    assert logistic(folds, bags) < least - 0.1
    network = load_network(tmp_path / "mil_fold0_seed0.keras")
    case = folds.case_id[(folds["fold"] == 0) & (folds.label == "tumour")].iloc[0]
    assert mil.attention(network, bags[case]).max() > 0


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(
    sparse: tuple[pd.DataFrame, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folds, bags = sparse
    mixed = folds.assign(label=np.random.default_rng(1).permutation(folds.label))
    oof, _ = run(mixed, bags, tmp_path, seeds=1, epochs=None)
    assert 0.3 < aucs(oof)[0] < 0.7  # 48 slides: a standard error of .08


class Held(dict[str, np.ndarray]):
    """Bags that may go to another process."""

    def __call__(self, case_id: str, fold: int) -> np.ndarray:
        return self[case_id]


@pytest.mark.slow
def test_folds_in_processes_of_their_own_give_the_same_to_the_bit(tmp_path: Path) -> None:
    folds, bags = small()
    chosen: dict[str, Any] = {"classes": CLASSES, "positive": "tumour", "seeds": 2, "epochs": 2}
    here = mil.cross_validate(folds, Held(bags), out=tmp_path / "here", **chosen)
    for where in ("apart", "apart"):  # the second time what stands is taken
        there = mil.cross_validate(folds, Held(bags), out=tmp_path / where, workers=2, **chosen)
        pd.testing.assert_frame_equal(here[0], there[0], check_exact=True)
    keys = [{path.name: read_json(path)["sha256"] for path in (tmp_path / name).glob("*.json")}
            for name in ("here", "apart")]  # fmt: skip
    assert keys[0].keys() == keys[1].keys() and len(keys[0]) == 4


@pytest.mark.slow
def test_a_fold_without_a_class_is_told_from_its_process(tmp_path: Path) -> None:
    folds, bags = small()
    alone = folds.assign(fold=(folds.label == "tumour").astype(int))
    with pytest.raises(TableError, match="nothing to learn from of class"):
        mil.cross_validate(
            alone, Held(bags), classes=CLASSES, positive="tumour", out=tmp_path, workers=2
        )
