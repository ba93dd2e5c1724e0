"""Each figure is a picture of its table: labelled, whole, and the same each time."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kit import figures, heatmaps, lesions, metrics
from kit._plots import png
from kit.errors import SettingsError, TableError
from kit.recipes import Recipe, rates
from kit.settings import choices
from kit.slides import Slide, open_slide

N = 120


def drawn_slide(seed: int = 0, colour: tuple[int, int, int] = (190, 110, 170)) -> Slide:
    """White glass with a stained rectangle: 2000 x 1500 level-0 pixels at 2 µm."""
    random = np.random.default_rng(seed)
    image = np.full((1500, 2000, 3), 244, np.uint8)
    noise = random.integers(-15, 15, (900, 1200, 1))
    image[300:1200, 400:1600] = np.clip(np.array(colour) + noise, 0, 255)
    return open_slide(image, mpp=2.0)


def cases() -> pd.DataFrame:
    rows = np.arange(N)
    label = np.where(rows % 3 == 0, "tumour", "normal").astype(object)
    split = np.where(rows % 24 >= 20, "test", "train")
    label[split == "test"] = None
    group = [f"p{row // 4:02d}" for row in rows]
    return pd.DataFrame(
        {"case_id": [f"c{row}" for row in rows], "label": label, "group": group, "split": split}
    )


def folds() -> pd.DataFrame:
    train = cases().query("split == 'train'")
    return train.assign(fold=train.group.str[1:].astype(int) % 3)


def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = folds()
    truth = (table.label == "tumour").to_numpy()
    noise = np.random.default_rng(0).normal(0, 0.2, len(truth))
    return truth, np.clip(0.35 + 0.3 * truth + noise, 0, 1), table.group.to_numpy()


def predictions() -> pd.DataFrame:
    _, prob, _ = scored()
    table = folds()
    return table.assign(y_true=table.label, prob_normal=1 - prob, prob_tumour=prob)


def epochs(networks: int = 3, monitor: str = "auc", stages: int = 2) -> pd.DataFrame:
    """Six epochs of each network; the third has the highest figure and the first the lowest."""
    rows = []
    for number, epoch in itertools.product(range(networks), range(1, 7)):
        value = (
            np.nan
            if monitor == "none"
            else 0.5 + 0.01 * number + [0, 2, 4, 3, 1, 1][epoch - 1] / 20
        )
        rows.append({
            "epoch": epoch, "stage": ["all", "second"][epoch > 4] if stages == 2 else "all",
            "loss": 1 / epoch, "rate": 0.01 / epoch, "monitor": monitor, "value": value,
            "best": value, "batch": 8, "seconds": 1.0, "network": f"fold{number}_seed0",
        })  # fmt: skip
    return pd.DataFrame(rows)


def intervals() -> pd.DataFrame:
    rows = [("accuracy", 0.8, 0.7, 0.9), ("ppv", np.nan, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def parts() -> pd.DataFrame:
    """Accuracy and PPV of all, of two scanners, and of one with few patients."""
    rows = [
        ("all", "accuracy", 0.8, 0.75, 0.85, 400, True), ("all", "ppv", 0.6, 0.5, 0.7, 400, True),
        ("A", "accuracy", 0.9, 0.85, 0.95, 200, True), ("A", "ppv", 0.7, 0.6, 0.8, 200, True),
        ("B", "accuracy", 0.7, 0.4, 0.9, 20, False), ("B", "ppv", np.nan, np.nan, np.nan, 20, True),
    ]  # fmt: skip
    names = ["part", "metric", "value", "low", "high", "n", "reliable"]
    return pd.DataFrame(rows, columns=names)


def differences() -> pd.DataFrame:
    rows = [
        ("accuracy", 0.02, 0.01, 0.03, 0.0004), ("f1", -0.01, -0.03, 0.01, 0.4),
        ("ppv", np.nan, np.nan, np.nan, np.nan),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "p"])


def predicted() -> pd.DataFrame:
    """The plan's patches, each with a probability of its own."""
    return plan().assign(case_id="array", prob_tumour=np.linspace(0.1, 0.9, len(plan())))


def gains() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n_models": [1, 2, 3],
            "model": ["small", "large", "small"],
            "score": [0.8, 0.85, 0.84],
            "low": [0.7, 0.8, 0.8],
            "high": [0.9, 0.9, 0.9],
            "equal": [0.83, 0.83, 0.83],
        }
    )


def points_on_two_slides() -> lesions.Froc:
    """Two lesions of which one is found, a false positive on either slide."""
    mask = np.zeros((60, 60), bool)
    mask[5:25, 5:25] = mask[40:55, 40:55] = True
    truth = {
        name: lesions.lesions_of(drawn, downsample=32.0, mpp=0.5)
        for name, drawn in (("tumour", mask), ("normal", np.zeros_like(mask)))
    }
    rows = [("tumour", 400, 400, 0.9), ("tumour", 60, 1900, 0.7), ("normal", 60, 60, 0.8)]
    return lesions.froc(pd.DataFrame(rows, columns=["case_id", "x", "y", "prob"]), truth)


def wrong() -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": [7, 31], "y_true": ["normal", "tumour"], "prob_tumour": [0.98, 0.03]}
    )


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (*shape, 16, 16, 3)).astype(np.uint8)


def disc() -> np.ndarray:
    y, x = np.mgrid[:15, :20]
    return (x - 10) ** 2 + (y - 7) ** 2 < 25


def plan() -> pd.DataFrame:
    rows = [(x, y) for x in (0, 250, 500) for y in (0, 250)]
    return pd.DataFrame(rows, columns=["x", "y"]).assign(
        label=["normal", "tumour"] * 3, footprint=250.0
    )


def models() -> pd.DataFrame:
    _, prob, _ = scored()
    noise = np.random.default_rng(2).normal(0, 1, (3, len(prob)))
    columns = {f"m{i}": np.clip(prob + 0.1 * i * noise[i], 0, 1) for i in range(3)}
    return pd.DataFrame(columns)


def entered() -> pd.DataFrame:
    """Four submissions: the last lies outside its interval; the third has none."""
    return pd.DataFrame({
        "id": [f"help2019-{n}" for n in range(1, 5)], "metric": "auc",
        "local": [0.93, 0.91, 0.95, 0.97], "low": [0.85, 0.84, np.nan, 0.93],
        "high": [0.97, 0.96, np.nan, 0.99], "leaderboard": [0.90, 0.92, 0.93, 0.76],
    })  # fmt: skip


def looked_at() -> pd.DataFrame:
    return predicted().rename(columns={"prob_tumour": "attention"})


FIGURES: dict[str, Callable[[], Figure]] = {
    "class_counts": lambda: figures.class_counts(cases()),
    "contact_sheet": lambda: figures.contact_sheet(pixels(11), [f"case {i}" for i in range(11)]),
    "tissue_overlay": lambda: figures.tissue_overlay(pixels(1)[0], disc(), title="slide"),
    "patches_on_thumbnail": lambda: figures.patches_on_thumbnail(drawn_slide(), plan()),
    "slide_heatmap": lambda: figures.slide_heatmap(
        drawn_slide(),
        heatmaps.raster(predicted(), (2000, 1500), column="prob_tumour"),
        predicted(),
        column="prob_tumour",
    ),
    "slide_attention": lambda: figures.slide_attention(
        drawn_slide(),
        heatmaps.raster(looked_at(), (2000, 1500), column="attention"),
        looked_at(),
    ),
    "mosaic": lambda: figures.mosaic([drawn_slide(), drawn_slide(1)]),
    "patches_by_class": lambda: figures.patches_by_class(pixels(6), ["normal", "tumour", None] * 2),
    "stain_by_slide": lambda: figures.stain_by_slide([drawn_slide(n) for n in range(3)]),
    "augmentations": lambda: figures.augmentations(pixels(1)[0], "patch", np.eye(16)),
    "augmentation_grid": lambda: figures.augmentation_grid(pixels(2, 4), np.ones((2, 4, 16, 16))),
    "fold_balance": lambda: figures.fold_balance(folds()),
    "history": lambda: figures.history(epochs()),
    "schedule": lambda: figures.schedule(Recipe(epochs=4, head_epochs=1, second_epochs=2), 5),
    "confusion_matrix": lambda: figures.confusion_matrix(np.array([[30, 10], [5, 15]]), ["a", "b"]),
    "roc": lambda: figures.roc(*scored()),
    "precision_recall": lambda: figures.precision_recall(*scored()),
    "calibration": lambda: figures.calibration(*scored()),
    "comparison": lambda: figures.comparison(differences()),
    "gain_of_models": lambda: figures.gain_of_models(gains()),
    "cases_sheet": lambda: figures.cases_sheet(pixels(2), wrong(), "Most wrong"),
    "metrics_against_threshold": lambda: figures.metrics_against_threshold(*scored()[:2], 0.4),
    "forest": lambda: figures.forest(intervals()),
    "froc": lambda: figures.froc(points_on_two_slides()),
    "embedding_map": lambda: figures.embedding_map(
        np.random.default_rng(0).normal(size=(40, 8)), ["a", "b"] * 20, of="scanner"
    ),
    "probability_by_class": lambda: figures.probability_by_class(predictions()),
    "agreement": lambda: figures.agreement(models()),
    "ledger": lambda: figures.ledger(entered()),
    "submission_distribution": lambda: figures.submission_distribution(
        scored()[1], scored()[1][:20]
    ),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [found.get_text() for found in figure.findobj(lambda part: hasattr(part, "get_text"))]


def said(figure: Figure) -> str:
    return " | ".join(texts(figure))


def test_every_public_function_is_tested_here() -> None:
    public = {
        name
        for name, value in vars(figures).items()
        if getattr(value, "__module__", "").endswith("figures") and not name.startswith("_")
    }
    assert public == set(FIGURES)


@every_figure
def test_a_notebook_shows_the_same_png_for_the_same_table_each_time(name: str) -> None:
    first, second = FIGURES[name]()._repr_png_(), png(FIGURES[name]())  # type: ignore[attr-defined]
    assert first == second
    assert first.startswith(b"\x89PNG") and len(first) > 2000


@every_figure
def test_axes_with_a_scale_name_it(name: str) -> None:
    for axis in FIGURES[name]().axes:
        if axis.axison and not axis.get_title().startswith("Rank correlation"):
            labels = (axis.get_xlabel(), axis.get_ylabel())
            bar = axis.get_label() == "<colorbar>"
            rows = name in ("forest", "comparison")  # one row a metric, which it names
            rows |= name == "history"  # only the lowest panel names the epoch
            assert any(labels) if bar or rows else all(labels), (name, labels)


@every_figure
def test_nothing_is_cut_off_at_the_edge(name: str) -> None:
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    edge = figure.bbox.padded(1)
    for box in boxes:
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1, (edge, box)
        assert edge.y0 <= box.y0 and box.y1 <= edge.y1, (edge, box)


def test_neither_import_nor_drawing_touches_pyplot() -> None:
    code = (
        "import sys, numpy as np; from kit import figures;"
        "assert 'matplotlib' not in sys.modules, 'import loads matplotlib';"
        "figures.confusion_matrix(np.eye(2), ['a', 'b'])._repr_png_();"
        "assert 'matplotlib.pyplot' not in sys.modules, 'drawing loads pyplot'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cases_are_counted_with_their_groups() -> None:
    shown = said(figures.class_counts(cases()))
    assert "120 cases of 30 groups" in shown
    assert "(no label)" in shown and "test" in shown


def lines(axis: object, label: str) -> list[list[float]]:
    """The heights of each line of an axis with this label."""
    drawn = axis.lines  # type: ignore[attr-defined]
    return [list(line.get_ydata()) for line in drawn if line.get_label() == label]


def circles(figure: Figure) -> list[tuple[float, float]]:
    """Where a history's circles are."""
    found = [line for line in figure.axes[1].lines if line.get_fillstyle() == "none"]
    return [(x, y) for line in found for x, y in line.get_xydata().tolist()]


def test_a_history_has_a_line_for_each_network_in_each_panel() -> None:
    table = epochs(2)
    figure = figures.history(table.sample(frac=1, random_state=0))
    loss, value, rate = figure.axes
    for axis, column in ((loss, "loss"), (value, "value"), (rate, "rate")):
        for name, rows in table.groupby("network"):
            assert lines(axis, name) == [list(rows[column])]
    assert (value.get_ylabel(), rate.get_xlabel()) == ("AUC of the\nheld-out fold", "epoch")


@pytest.mark.parametrize("networks", [1, 2, 10])
def test_the_best_epoch_of_each_network_is_circled_and_said(networks: int) -> None:
    figure = figures.history(epochs(networks))
    best = [(3, pytest.approx(0.7 + 0.01 * n)) for n in range(networks)]
    assert circles(figure) == best
    values = "0.700" if networks == 1 else f"0.700 to {0.69 + 0.01 * networks:.3f}"
    noun = "1 network" if networks == 1 else f"{networks} networks"
    assert figure.get_suptitle() == f"Best AUC of {noun}: {values} (circled: epoch 3)"


def test_of_a_loss_the_lowest_is_best_and_of_equals_the_first() -> None:
    assert circles(figures.history(epochs(1, "loss"))) == [(1, 0.5)]
    assert "Lowest loss of 1 network: 0.500 (circled: epoch 1)" in said(
        figures.history(epochs(1, "loss"))
    )
    flat = epochs(1).assign(value=0.5)
    assert circles(figures.history(flat)) == [(1, 0.5)]


def test_a_network_that_nothing_watched_leaves_the_panels_their_height() -> None:
    table = epochs(3)
    last = table["network"] == table["network"].max()
    figure = figures.history(table.assign(value=table["value"].mask(last)))
    assert len(circles(figure)) == 2
    figure.draw_without_rendering()
    assert min(axis.get_position().height for axis in figure.axes) > 0.15


def test_the_stages_of_a_history_are_parted_and_named() -> None:
    figure = figures.history(epochs())
    assert [text.get_text() for text in figure.axes[0].texts] == ["all", "second"]
    for axis in figure.axes:
        assert [patch.get_x() for patch in axis.patches] == [4.5]
        assert any(list(line.get_xdata()) == [4.5, 4.5] for line in axis.lines)
    alone = figures.history(epochs(stages=1))
    assert not alone.axes[0].texts and not alone.axes[0].patches


def test_a_history_without_a_figure_shows_loss_and_rate() -> None:
    figure = figures.history(epochs(monitor="none"))
    assert [axis.get_ylabel().split()[0] for axis in figure.axes] == ["training", "learning"]
    shown = "Training loss of 3 networks: 1.000 in the first epoch, 0.167 in the last"
    assert figure.get_suptitle() == shown


def test_a_figure_that_one_network_lacks_is_drawn_of_the_others() -> None:
    table = epochs(3)
    table.loc[table.network == "fold1_seed0", ["value", "best"]] = np.nan
    assert [y for _, y in circles(figures.history(table))] == pytest.approx([0.7, 0.72])
    table.loc[table.epoch == 3, "value"] = np.nan
    assert {x for x, _ in circles(figures.history(table))} == {4}


@pytest.mark.parametrize("networks", [15, 60])
def test_many_networks_are_all_named(networks: int) -> None:
    figure = figures.history(epochs(networks))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert sorted(named) == sorted(epochs(networks).network.unique())
    box, edge = legend.get_window_extent(), figure.bbox.padded(1)
    assert edge.y0 <= box.y0 and box.y1 <= edge.y1
    assert figure.axes[0].get_window_extent().x1 <= box.x0


def test_no_history_is_refused() -> None:
    with pytest.raises(TableError, match="column value is missing"):
        figures.history(epochs().drop(columns="value"))
    with pytest.raises(TableError, match="no epochs to draw"):
        figures.history(epochs().head(0))


@pytest.mark.parametrize("name", choices("schedule"))
def test_a_schedule_is_drawn_as_the_rate_is_at_each_step(name: str) -> None:
    recipe = Recipe(epochs=4, head_epochs=1, second_epochs=2, schedule=name)
    (axis,) = figures.schedule(recipe, 5).axes
    drawn = [line for line in axis.lines if ":" in str(line.get_label())]
    assert np.concatenate([line.get_ydata() for line in drawn]).tolist() == rates(recipe, 5)
    assert np.concatenate([line.get_xdata() for line in drawn]).tolist() == list(range(1, 36))
    assert [line.get_label().split(":")[0] for line in drawn] == ["head", "all", "second"]
    assert [text.get_text() for text in axis.texts] == ["head", "all", "second"]


def test_a_schedule_says_its_stages_and_its_highest_rate() -> None:
    recipe = Recipe(epochs=4, second_epochs=1, augment="patch_strong", mix="both", warmup=0.5)
    shown = said(figures.schedule(recipe, 10))
    assert "rate 0.002 at most (step 21 of 50)" in shown
    assert "all: 4 epochs\naugment patch_strong, mix both" in shown
    assert "second: 1 epoch\naugment flips" in shown
    stalled = Recipe(epochs=4, schedule="plateau", patience=2)
    assert "times 0.5 whenever AUC stalls for 2 epochs" in said(figures.schedule(stalled, 10))
    with pytest.raises(SettingsError, match="per_epoch"):
        figures.schedule(recipe, 0)


def test_a_group_in_two_folds_is_called_a_leak() -> None:
    assert "No group stands in two folds" in said(figures.fold_balance(folds()))
    leaking = folds()
    leaking.loc[leaking.index[0], "fold"] = 1 - leaking["fold"].iloc[0]
    assert "LEAK: 1 group in more than one fold" in said(figures.fold_balance(leaking))


def test_the_fold_that_differs_most_is_named() -> None:
    table = pd.DataFrame({"fold": [0] * 4 + [1] * 4, "group": list("abcdefgh")})
    table["label"] = ["x", "x", "x", "y", "x", "y", "y", "y"]  # 75 % and 25 % of 50 %
    assert "worst share: x in fold 0, +25.0 points" in said(figures.fold_balance(table))
    assert "nothing to balance" in said(figures.fold_balance(table.assign(label="x")))


def test_further_columns_of_the_folds_have_a_panel_each() -> None:
    table = folds().assign(scanner=lambda t: np.where(t.index % 2, "A", "B"))
    figure = figures.fold_balance(table, by=["scanner"])
    assert "by scanner" in figure.axes[2].get_ylabel()
    bars = figure.axes[2].containers[0]
    counted = [(rows["scanner"] == "A").mean() * 100 for _, rows in table.groupby("fold")]
    assert [bar.get_height() for bar in bars] == pytest.approx(counted)
    with pytest.raises(TableError, match="column site is missing"):
        figures.fold_balance(table, by=["site"])
    with pytest.raises(TableError, match="no cases in the folds"):
        figures.fold_balance(table.head(0))


def test_confusion_shares_are_of_the_true_class() -> None:
    shown = texts(figures.confusion_matrix(np.array([[30, 10], [5, 15]]), ["a", "b"]))
    assert "30\n75 %" in shown and "5\n25 %" in shown
    assert "75 % of 60 cases right" in shown


def test_a_class_without_cases_has_no_shares() -> None:
    figure = figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"])
    assert [text for text in texts(figure) if "%" in text][:2] == ["3\n75 %", "1\n25 %"]
    assert np.isnan(figure.axes[0].images[0].get_array().filled(np.nan)[1]).all()


def test_a_confusion_matrix_of_nothing_says_so() -> None:
    assert "No cases" in said(figures.confusion_matrix(np.zeros((2, 2), int), ["a", "b"]))


@pytest.mark.parametrize("counts", [np.ones((2, 3)), np.array([[1, -1], [0, 2]]), np.ones(2)])
def test_what_is_no_confusion_matrix_is_refused(counts: np.ndarray) -> None:
    with pytest.raises(TableError, match=r"no confusion matrix.*Expected: shape \(2, 2\)"):
        figures.confusion_matrix(counts, ["a", "b"])


def test_roc_area_worked_by_hand() -> None:
    truth = np.array([False, False, True, True])
    assert "AUC 0.750" in said(figures.roc(truth, np.array([0.1, 0.4, 0.35, 0.8])))


CURVES = {"roc": figures.roc, "precision_recall": figures.precision_recall}
every_curve = pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
PROBABILITY_FIGURES = {
    **CURVES,
    "calibration": figures.calibration,
    "metrics_against_threshold": lambda truth, prob: figures.metrics_against_threshold(
        truth, prob, 0.5
    ),
}
every_probability_figure = pytest.mark.parametrize(
    "draw", PROBABILITY_FIGURES.values(), ids=PROBABILITY_FIGURES
)


@every_curve
def test_a_curve_with_one_class_is_refused(curve: Callable[..., Figure]) -> None:
    with pytest.raises(TableError, match=r"needs both classes.*4 of 4 positive"):
        curve(np.ones(4, bool), np.linspace(0, 1, 4))


@every_probability_figure
@pytest.mark.parametrize(
    ("truth", "prob", "message"),
    [
        ([True, False], [0.2, 1.4], r"y_prob must be in \[0, 1\].*1\.4"),
        ([True, False], [0.2, np.nan], "1 outside or NaN"),
        ([True, False, True], [0.2, 0.4], "lengths differ.*y_true has 3"),
        (["tumour", "normal"], [0.2, 0.4], "y_true must be bool, or 0 and 1"),
        ([True, False], [[0.2, 0.8], [0.4, 0.6]], "one class is drawn at a time"),
        ([], [], "no rows to draw"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    draw: Callable[..., Figure], truth: list[object], prob: list[object], message: str
) -> None:
    with pytest.raises(TableError, match=message):
        draw(np.array(truth), np.array(prob))


@every_curve
def test_groups_that_do_not_fit_are_refused(curve: Callable[..., Figure]) -> None:
    truth, prob = np.array([True, False]), np.array([0.2, 0.4])
    with pytest.raises(TableError, match="lengths differ"):
        curve(truth, prob, np.array(["a"]))
    with pytest.raises(TableError, match=r"groups are empty.*1 rows"):
        curve(truth, prob, np.array(["a", None], dtype=object))


@every_probability_figure
def test_the_order_of_the_rows_has_no_say(draw: Callable[..., Figure]) -> None:
    truth, prob, groups = scored()
    prob = np.round(prob, 1)  # ties
    order = np.random.default_rng(7).permutation(len(truth))
    assert png(draw(truth, prob)) == png(draw(truth[order], prob[order]))
    if draw is not PROBABILITY_FIGURES["metrics_against_threshold"]:
        again = draw(truth[order], prob[order], groups[order])
        assert png(draw(truth, prob, groups)) == png(again)


@every_curve
def test_the_band_holds_the_curve(curve: Callable[..., Figure]) -> None:
    truth, prob, groups = scored()
    axis = curve(truth, prob, groups).axes[0]
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() >= 0 and band[:, 1].max() <= 1
    middle = band[np.isclose(band[:, 0], 0.5), 1]
    height = np.interp(0.5, *axis.lines[0].get_data())
    assert middle.min() <= height <= middle.max() and middle.min() < middle.max()


def test_the_curves_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    truth, prob, _ = scored()
    prob = np.round(prob, 2)
    x, y = figures.roc(truth, prob).axes[0].lines[0].get_data()
    false, true, _ = roc_curve(truth, prob, drop_intermediate=False)
    assert x == pytest.approx(false) and y == pytest.approx(true)
    assert f"AUC {auc(false, true):.3f}" in said(figures.roc(truth, prob))
    figure = figures.precision_recall(truth, prob)
    recall, ppv = figure.axes[0].lines[0].get_data()
    assert np.trapezoid(ppv, recall) == pytest.approx(average_precision_score(truth, prob))
    assert f"precision {average_precision_score(truth, prob):.3f}" in said(figure)
    peer = precision_recall_curve(truth, prob)
    points = set(zip(recall.round(9), ppv.round(9), strict=True))
    assert points >= set(zip(peer[1][:-1].round(9), peer[0][:-1].round(9), strict=True))


def test_the_bands_are_those_of_a_loop_over_resampled_groups() -> None:
    from sklearn.metrics import roc_curve

    from kit.intervals import resampled_weights

    truth, prob, groups = scored()
    prob = np.round(prob, 2)
    names, code = np.unique(groups, return_inverse=True)
    grid, heights = np.linspace(0, 1, 101), []
    for weights in resampled_weights(np.ones(len(names)), resamples=200, seed=0):
        for weight in weights[:, code]:
            x, y, _ = roc_curve(truth, prob, sample_weight=weight, drop_intermediate=False)
            heights.append(np.interp(grid, x, y))
    low, high = np.quantile(heights, [0.025, 0.975], axis=0)
    band = figures.roc(truth, prob, groups).axes[0].collections[0].get_paths()[0].vertices
    for place in (10, 30, 50):
        found = band[np.isclose(band[:, 0], grid[place]), 1]
        assert (found.min(), found.max()) == pytest.approx((low[place], high[place]))


def test_the_band_says_what_was_resampled() -> None:
    truth, prob, groups = scored()
    assert "95 % band by groups" in said(figures.roc(truth, prob, groups))
    assert "95 % band by cases" in said(figures.roc(truth, prob))


def test_patients_of_many_images_widen_the_band() -> None:
    truth, prob, _ = scored()
    often = [np.repeat(values, 10) for values in (truth, prob, np.arange(len(truth)))]

    def width(*given: np.ndarray) -> float:
        band = figures.roc(*given).axes[0].collections[0].get_paths()[0].vertices
        return float(np.ptp(band[np.isclose(band[:, 0], 0.3), 1]))

    assert width(*often) > 2 * width(*often[:2])


def test_chance_of_the_precision_is_the_prevalence() -> None:
    truth, prob, _ = scored()
    axis = figures.precision_recall(truth, prob).axes[0]
    assert set(axis.lines[1].get_ydata()) == {truth.mean()}


def test_calibration_points_are_the_bins_means_and_shares() -> None:
    prob = np.repeat([0.1, 0.3, 0.8], 10)
    truth = np.concatenate([np.arange(10) < k for k in (1, 5, 10)])
    figure = figures.calibration(truth, prob)
    x, y = figure.axes[0].lines[1].get_data()
    assert x == pytest.approx([0.1, 0.3, 0.8]) and y == pytest.approx([0.1, 0.5, 1.0])
    assert "Said on average 40 %, came true 53 %" in said(figure)
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert sum(heights) == pytest.approx(100)


def test_calibration_bars_are_wilsons_of_what_the_groups_are_worth() -> None:
    from kit.intervals import wilson

    truth, prob = np.arange(200) % 4 == 0, np.full(200, 0.3)

    def bar(groups: np.ndarray | None) -> np.ndarray:
        axis = figures.calibration(truth, prob, groups).axes[0]
        return np.asarray(axis.collections[0].get_segments()[0][:, 1])

    assert bar(None) == pytest.approx(wilson(50, 200), abs=1e-3)
    alone = bar(np.where(truth, np.arange(200) % 40, 100 + np.arange(200) % 120))
    assert np.ptp(alone) > 1.4 * np.ptp(bar(None))  # patients of one class each
    certain = figures.calibration(np.ones(200, bool), prob, np.arange(200) // 50).axes[0]
    assert certain.collections[0].get_segments()[0][:, 1] == pytest.approx(wilson(4, 4))


def test_calibration_says_its_numbers_or_that_they_are_undefined() -> None:
    truth, prob, _ = scored()
    prob = np.clip(prob, 0.01, 0.99)
    slope = metrics.calibration_slope(truth, prob)
    error = metrics.expected_calibration_error(truth, prob, classes=[False, True])
    shown = said(figures.calibration(truth, prob))
    assert f"slope {slope:.2f}" in shown and f"ECE {error:.2f}" in shown
    hard = said(figures.calibration(truth, (prob > 0.5).astype(float)))
    assert "slope undefined" in hard and "rows in 2 bins" in hard


def test_bins_hold_about_as_many_rows_each_and_never_part_ties() -> None:
    from kit._score_figures import _equal_counts

    prob = np.random.default_rng(0).random(1003)
    assert np.ptp(np.bincount(_equal_counts(prob, 10))) <= 1
    tied = np.round(prob, 1)
    found = _equal_counts(tied, 10)
    assert all(len(set(found[tied == value])) == 1 for value in np.unique(tied))
    assert set(_equal_counts(prob[:12], 10)) == {0, 1}


def test_the_threshold_in_use_is_marked() -> None:
    figure = figures.metrics_against_threshold(*scored()[:2], 0.4)
    assert [0.4, 0.4] in [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert "0.400" in said(figure) and "PPV" in said(figure)


def test_the_best_threshold_on_these_rows_is_called_optimistic() -> None:
    from kit.thresholds import choose

    truth, prob, _ = scored()
    figure = figures.metrics_against_threshold(truth, prob, 0.4)
    best = choose(truth, prob, "mean_of_six")
    six = metrics.six_metrics(truth, prob >= best, positive=True)
    point = next(line for line in figure.axes[0].lines if line.get_marker() == "D")
    assert point.get_xydata().tolist() == [[best, pytest.approx(np.mean(list(six.values())))]]
    assert "(optimistic)" in said(figure)


def test_metrics_at_each_threshold_are_those_of_the_metrics() -> None:
    truth, prob, _ = scored()
    prob = np.round(prob, 1)
    lines = figures.metrics_against_threshold(truth, prob, 0.4).axes[0].lines
    for place in (0, 200, 403, 1000):
        six = metrics.six_metrics(truth, prob >= lines[0].get_xdata()[place], positive=True)
        found = [line.get_ydata()[place] for line in lines[:6]]
        assert found == pytest.approx(list(six.values()), nan_ok=True)


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"threshold must be in \[0, 1\]"):
        figures.metrics_against_threshold(*scored()[:2], 1.5)


def test_metrics_of_one_class_are_undefined_and_said_to_be() -> None:
    figure = figures.metrics_against_threshold(np.ones(9, bool), np.linspace(0.1, 0.9, 9), 0.5)
    assert "Mean of six undefined" in said(figure) and "optimistic" not in said(figure)


def test_sensitivity_falls_and_specificity_rises_with_the_threshold() -> None:
    axis = figures.metrics_against_threshold(*scored()[:2], 0.4).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines}
    assert (np.diff(lines["sensitivity"]) <= 0).all() and lines["sensitivity"][0] == 1
    assert (np.diff(lines["specificity"]) >= 0).all()


def test_an_undefined_metric_is_called_so() -> None:
    shown = texts(figures.forest(intervals()))
    assert "undefined" in shown and "0.800  (0.700 to 0.900)" in shown
    nothing = intervals().assign(value=np.nan, low=np.nan, high=np.nan)
    assert "All metrics are undefined" in said(figures.forest(nothing))


def drawn_intervals(axis: object) -> list[tuple[float, ...]]:
    """Low, value and high of each row, from above."""
    lines = axis.lines  # type: ignore[attr-defined]
    ends = [line.get_xdata() for line in lines]
    return [(bar[0], point[0], bar[1]) for bar, point in zip(ends[::2], ends[1::2], strict=True)]


def test_forest_draws_what_the_table_says() -> None:
    axis = figures.forest(intervals().head(1)).axes[0]
    assert drawn_intervals(axis) == [(0.7, 0.8, 0.9)]


def test_the_parts_of_a_forest_stand_below_each_other_with_their_sizes() -> None:
    figure = figures.forest(parts(), by="scanner")
    accuracy, ppv = figure.axes
    assert drawn_intervals(accuracy) == [(0.75, 0.8, 0.85), (0.85, 0.9, 0.95), (0.4, 0.7, 0.9)]
    names = [label.get_text() for label in accuracy.get_yticklabels()]
    assert names == ["all (n = 400)", "A (n = 200)", "B (n = 20)"]
    assert (accuracy.get_title(), ppv.get_title()) == ("accuracy", "PPV")
    assert [text.get_text() for text in ppv.texts] == ["undefined"]
    assert "Accuracy by scanner: from 0.700 (B) to 0.900 (A)" in said(figure)


def test_unreliable_intervals_are_hollow_and_dashed() -> None:
    figure = figures.forest(parts())
    bars, points = figure.axes[0].lines[::2], figure.axes[0].lines[1::2]
    assert [bar.get_linestyle() for bar in bars] == ["-", "-", "--"]
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, False, True]
    assert "too few groups (patients)" in said(figure)
    assert "too few" not in said(figures.forest(parts().assign(reliable=True)))


def test_a_metric_beyond_0_to_1_is_not_cut_off() -> None:
    table = pd.DataFrame({"metric": ["mcc"], "value": [-0.2], "low": [-0.4], "high": [0.1]})
    axis = figures.forest(table).axes[0]
    assert axis.get_xlim()[0] < -0.4 and axis.get_xlabel() == "value"


def test_a_forest_of_a_wrong_table_is_refused() -> None:
    with pytest.raises(TableError, match="column low is missing"):
        figures.forest(intervals().drop(columns="low"))
    with pytest.raises(TableError, match="no rows to draw"):
        figures.forest(intervals().head(0))
    with pytest.raises(TableError, match=r"doubled rows.*part and metric once.*A ppv"):
        figures.forest(pd.concat([parts(), parts().iloc[[3]]]))


def test_a_comparison_shows_the_differences_and_which_leave_out_zero() -> None:
    figure = figures.comparison(differences(), first="old", second="new")
    axis = figure.axes[0]
    assert list(axis.lines[-1].get_xdata()) == [0, 0]
    points = axis.lines[1:-1:2]
    assert [point.get_xdata()[0] for point in points[:2]] == [0.02, -0.01]
    assert [point.get_markerfacecolor() == "white" for point in points[:2]] == [False, True]
    shown = said(figure)
    assert "new less old: the interval leaves out 0 for 1 of 2 metrics" in shown
    assert "+0.020  (+0.010 to +0.030)  p < 0.001" in shown and "p = 0.400" in shown
    assert "undefined" in shown


def test_gains_are_drawn_in_the_order_of_models_added() -> None:
    figure = figures.gain_of_models(gains().iloc[[2, 0, 1]].set_axis([0, 0, 0]), metric="auc")
    axis = figure.axes[0]
    assert list(axis.lines[0].get_xdata()) == [0.8, 0.85, 0.84]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["1: + small", "2: + large", "3: + small"]
    assert "AUC is highest with 2 models: 0.850, with the first alone 0.800" in said(figure)
    assert "equal weights 0.830" in said(figure)


def test_gains_need_no_intervals_and_may_be_undefined() -> None:
    plain = gains()[["n_models", "model", "score"]]
    assert "equal weights" not in said(figures.gain_of_models(plain))
    assert "Score is undefined" in said(figures.gain_of_models(plain.assign(score=np.nan)))
    with pytest.raises(TableError, match="column model is missing"):
        figures.gain_of_models(plain.drop(columns="model"))


def test_a_sheet_says_of_each_case_its_id_truth_and_probability() -> None:
    figure = figures.cases_sheet(pixels(2), wrong(), "Most wrong")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["7\ntruth: normal\ntumour: 0.980", "31\ntruth: tumour\ntumour: 0.030"]
    assert figure.get_suptitle() == "Most wrong"


def test_long_ids_are_shown_whole() -> None:
    name = "patient_0001_slide_2_patch_000123_copy"
    figure = figures.cases_sheet(pixels(1), pd.DataFrame({"case_id": [name]}))
    assert figure.axes[0].get_title().replace("\n", "") == name


def test_a_sheet_of_other_cases_than_its_images_is_refused() -> None:
    with pytest.raises(TableError, match=r"lengths differ.*images has 3, table has 2"):
        figures.cases_sheet(pixels(3), wrong())
    with pytest.raises(TableError, match="no cases to draw"):
        figures.cases_sheet(pixels(0), wrong().head(0))


def test_histograms_add_up_to_a_hundred_per_cent() -> None:
    axis = figures.submission_distribution(scored()[1], scored()[1][:20]).axes[0]
    assert sum(patch.get_height() for patch in axis.patches) == pytest.approx(200)


def test_the_ledger_tells_what_lies_outside_its_interval_and_the_mean_gap() -> None:
    figure = figures.ledger(entered())
    axis = figure.axes[0]
    assert "leaderboard less local -0.062 on average" in figure.get_suptitle()  # -.25 / 4
    drawn = {h.get_label(): h[0].get_xdata() for h in axis.containers}
    assert {name: list(found) for name, found in drawn.items()} == {
        "leaderboard within the local interval": [0.93, 0.91],
        "leaderboard outside the local interval": [0.97],
        "no local interval": [0.95],
    }


def test_a_ledger_without_scores_cannot_be_drawn() -> None:
    with pytest.raises(TableError, match=r"no submission has both scores.*kit ledger score"):
        figures.ledger(entered()[:0])


def test_only_the_positive_class_is_drawn_when_named() -> None:
    assert len(figures.probability_by_class(predictions(), positive="tumour").axes) == 1
    assert len(figures.probability_by_class(predictions()).axes) == 2
    with pytest.raises(TableError, match="column prob_cyst is missing"):
        figures.probability_by_class(predictions(), positive="cyst")
    with pytest.raises(TableError, match="column prob_<class> is missing"):
        figures.probability_by_class(predictions()[["case_id", "y_true"]])


def test_the_two_models_that_agree_least_are_compared() -> None:
    table = pd.DataFrame({"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.4], "c": [0.9, 0.2, 0.1]})
    assert figures.agreement(table).axes[1].get_xlabel() in (
        "probability by a",
        "probability by b",
    )
    assert figures.agreement(table).axes[1].get_ylabel() == "probability by c"


def test_one_model_agrees_with_itself() -> None:
    figure = figures.agreement(models()[["m0"]])
    assert "1.00" in texts(figure) and "nothing to compare" in said(figure)


def test_near_copies_are_framed_and_named() -> None:
    table = models().assign(copy=lambda t: t["m0"] ** 2)
    figure = figures.agreement(table)
    assert "near copies (framed): m0 = copy" in said(figure)
    boxes = {(round(p.get_x() + 0.45), round(p.get_y() + 0.45)) for p in figure.axes[0].patches}
    assert boxes == {(0, 3), (3, 0)}
    assert "no near copies" in said(figures.agreement(models()))


def test_the_agreement_of_a_model_without_spread_is_undefined() -> None:
    table = models()[["m0"]].assign(flat=0.5)
    assert "m0 and flat agree least: undefined" in said(figures.agreement(table))


def test_a_model_that_lacks_a_case_is_not_compared() -> None:
    table = models()
    table.loc[3, "m1"] = np.nan
    with pytest.raises(TableError, match=r"probabilities must be in.*1 outside or NaN"):
        figures.agreement(table)
    with pytest.raises(TableError, match="no predictions to compare"):
        figures.agreement(table.head(0))


def test_many_cases_are_counted_in_cells() -> None:
    random = np.random.default_rng(0)
    figure = figures.agreement(pd.DataFrame(random.random((3000, 2)), columns=["a", "b"]))
    assert figure.axes[1].collections[0].get_array().sum() == 3000


def test_masks_are_outlined_where_they_have_an_edge() -> None:
    masks = np.zeros((1, 2, 16, 16))
    masks[0, 1, 4:9, 4:9] = 1
    figure = figures.augmentation_grid(pixels(1, 2), masks)
    assert [len(axis.collections) for axis in figure.axes] == [0, 1]


def test_channels_that_are_no_colours_stand_beside_each_other() -> None:
    images = np.full((1, 2, 3, 5), 10, np.uint8) * np.arange(1, 6, dtype=np.uint8)
    drawn = figures.contact_sheet(images).axes[0].images[0].get_array()
    assert drawn is not None and drawn.shape == (2 * 2, 3 * 3)  # five in rows of three
    assert drawn[::2, ::3].tolist() == [[10, 20, 30], [40, 50, 0]]


def test_grey_images_are_drawn_grey() -> None:
    image = figures.contact_sheet(pixels(2)[..., :1]).axes[0].images[0]
    assert image.get_cmap().name == "gray" and image.get_array().shape == (16, 16)


def test_patches_lie_where_the_plan_says() -> None:
    axis = figures.patches_on_thumbnail(drawn_slide(), plan()).axes[0]
    boxes = [path.get_extents().bounds for c in axis.collections for path in c.get_paths()]
    assert {tuple(box) for box in boxes} == {(x, y, 250, 250) for x, y in plan()[["x", "y"]].values}
    assert list(axis.images[0].get_extent()) == [0, 2000, 1500, 0]


def test_patches_of_two_sizes_are_drawn_at_theirs() -> None:
    both = pd.concat([plan().head(1), plan().tail(1).assign(footprint=125.0, label=None)])
    figure = figures.patches_on_thumbnail(drawn_slide(), both)
    boxes = [
        path.get_extents().bounds for c in figure.axes[0].collections for path in c.get_paths()
    ]
    assert sorted(box[2] for box in boxes) == [125, 250]
    assert "250, 125 level-0 pixels" in figure.get_suptitle()
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(legend) == ["(no label): 1", "normal: 1"]


def test_labels_of_any_name_have_a_colour_of_their_own() -> None:
    names = [*plan().label.unique(), "negative", "positive", "other"]
    many = pd.concat([plan().head(1).assign(label=name) for name in names])
    legend = figures.patches_on_thumbnail(drawn_slide(), many).axes[0].get_legend()
    colours = {patch.get_facecolor() for patch in legend.get_patches()}
    assert len(colours) == len(set(names)) >= 4


def test_an_empty_plan_is_drawn_as_the_slide_alone() -> None:
    figure = figures.patches_on_thumbnail(drawn_slide(), plan().head(0))
    assert "0 planned patches" in figure.get_suptitle()


def test_the_mosaic_says_how_much_tissue_each_slide_has() -> None:
    titles = [axis.get_title() for axis in figures.mosaic([drawn_slide()]).axes]
    assert titles == ["array\n36 % tissue"]


def test_patches_by_class_has_a_row_for_each_class_and_its_count() -> None:
    labels = ["tumour"] * 3 + ["normal"] * 2
    images = np.stack([np.full((8, 8, 3), 40 * n, np.uint8) for n in range(5)])
    figure = figures.patches_by_class(images, labels, columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["normal: 2", "", "tumour: 3", ""]
    shown = [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes]
    assert shown == [120, 160, 0, 40]
    with pytest.raises(TableError, match="lengths differ"):
        figures.patches_by_class(images, labels[:2])


def test_the_slide_of_another_scanner_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slides = [drawn_slide(n) for n in range(5)] + [drawn_slide(9, (120, 60, 150))]
    names = iter(["a", "b", "c", "d", "e", "odd one"])
    monkeypatch.setattr("kit._slide_figures._name", lambda slide: next(names))
    figure = figures.stain_by_slide(slides)
    assert figure.get_suptitle() == "Stain of 6 slides; odd: odd one"


def test_stains_of_pure_haematoxylin_are_that_and_no_eosin() -> None:
    from kit.stain import EOSIN, HAEMATOXYLIN, stains

    for position, vector in enumerate((HAEMATOXYLIN, EOSIN)):
        rgb = np.rint(256 * 10 ** (-0.5 * np.array(vector)) - 1).astype(np.uint8)
        found = stains(rgb[None])[0]
        assert found[position] == pytest.approx(0.5, abs=0.02)
        assert found[1 - position] == pytest.approx(0, abs=0.02)


def test_a_froc_says_its_score_and_needs_lesions() -> None:
    found = points_on_two_slides()
    figure = figures.froc(found)
    assert "FROC score 0.500: 2 lesions on 2 slides, 2 false positives" in said(figure)
    assert list(figure.axes[0].lines[2].get_ydata()) == [0.5] * 6
    empty = dataclasses.replace(found, n_lesions=0)
    with pytest.raises(TableError, match="no lesions to find"):
        figures.froc(empty)
