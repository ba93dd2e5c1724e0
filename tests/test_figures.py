"""Each figure is a picture of its table: labelled, whole, and the same each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kit import figures
from kit._plots import png
from kit.errors import TableError
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


def epochs() -> pd.DataFrame:
    rows = [(e, 1 / e, 0.01 / e, f"fold{f}") for f in range(3) for e in range(1, 6)]
    return pd.DataFrame(rows, columns=["epoch", "loss", "rate", "network"])


def intervals() -> pd.DataFrame:
    rows = [("accuracy", 0.8, 0.7, 0.9), ("ppv", np.nan, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


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


FIGURES: dict[str, Callable[[], Figure]] = {
    "class_counts": lambda: figures.class_counts(cases()),
    "contact_sheet": lambda: figures.contact_sheet(pixels(11), [f"case {i}" for i in range(11)]),
    "tissue_overlay": lambda: figures.tissue_overlay(pixels(1)[0], disc(), title="slide"),
    "patches_on_thumbnail": lambda: figures.patches_on_thumbnail(drawn_slide(), plan()),
    "mosaic": lambda: figures.mosaic([drawn_slide(), drawn_slide(1)]),
    "patches_by_class": lambda: figures.patches_by_class(pixels(6), ["normal", "tumour", None] * 2),
    "stain_by_slide": lambda: figures.stain_by_slide([drawn_slide(n) for n in range(3)]),
    "augmentation_grid": lambda: figures.augmentation_grid(pixels(2, 4), np.ones((2, 4, 16, 16))),
    "fold_balance": lambda: figures.fold_balance(folds()),
    "history": lambda: figures.history(epochs()),
    "confusion_matrix": lambda: figures.confusion_matrix(np.array([[30, 10], [5, 15]]), ["a", "b"]),
    "roc": lambda: figures.roc(*scored()),
    "metrics_against_threshold": lambda: figures.metrics_against_threshold(*scored()[:2], 0.4),
    "forest": lambda: figures.forest(intervals()),
    "probability_by_class": lambda: figures.probability_by_class(predictions()),
    "agreement": lambda: figures.agreement(models()),
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
        if getattr(value, "__module__", "") in ("kit.figures", "kit._slide_figures")
        and not name.startswith("_")
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
            assert any(labels) if bar or name == "forest" else all(labels), (name, labels)


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
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cases_are_counted_with_their_groups() -> None:
    shown = said(figures.class_counts(cases()))
    assert "120 cases of 30 groups" in shown
    assert "(no label)" in shown and "test" in shown


def test_a_group_in_two_folds_is_called_a_leak() -> None:
    assert "No group stands in two folds" in said(figures.fold_balance(folds()))
    leaking = folds()
    leaking.loc[leaking.index[0], "fold"] = 1 - leaking["fold"].iloc[0]
    assert "LEAK: 1 group in more than one fold" in said(figures.fold_balance(leaking))


def test_confusion_shares_are_of_the_true_class() -> None:
    shown = texts(figures.confusion_matrix(np.array([[30, 10], [5, 15]]), ["a", "b"]))
    assert "30\n75 %" in shown and "5\n25 %" in shown
    assert "75 % of 60 cases right" in shown


def test_a_class_without_cases_leaves_its_row_at_zero() -> None:
    assert "0\n0 %" in texts(figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"]))


def test_roc_area_worked_by_hand() -> None:
    truth = np.array([False, False, True, True])
    assert "AUC 0.750" in said(figures.roc(truth, np.array([0.1, 0.4, 0.35, 0.8])))


def test_roc_with_one_class_is_refused() -> None:
    with pytest.raises(TableError, match=r"both classes.*4 of 4 positive"):
        figures.roc(np.ones(4, bool), np.linspace(0, 1, 4))


def test_roc_band_holds_the_curve() -> None:
    truth, prob, groups = scored()
    axis = figures.roc(truth, prob, groups).axes[0]
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() >= 0 and band[:, 1].max() <= 1
    middle = band[np.isclose(band[:, 0], 0.5), 1]
    curve = np.interp(0.5, *axis.lines[0].get_data())
    assert middle.min() <= curve <= middle.max() and middle.min() < middle.max()


def test_the_threshold_in_use_is_marked() -> None:
    figure = figures.metrics_against_threshold(*scored()[:2], 0.4)
    assert [0.4, 0.4] in [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert "0.400" in said(figure) and "PPV" in said(figure)


def test_sensitivity_falls_and_specificity_rises_with_the_threshold() -> None:
    axis = figures.metrics_against_threshold(*scored()[:2], 0.4).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines}
    assert (np.diff(lines["sensitivity"]) <= 0).all() and lines["sensitivity"][0] == 1
    assert (np.diff(lines["specificity"]) >= 0).all()


def test_an_undefined_metric_is_called_so() -> None:
    shown = texts(figures.forest(intervals()))
    assert "undefined" in shown and "0.800  (0.700 to 0.900)" in shown


def test_histograms_add_up_to_a_hundred_per_cent() -> None:
    axis = figures.submission_distribution(scored()[1], scored()[1][:20]).axes[0]
    assert sum(patch.get_height() for patch in axis.patches) == pytest.approx(200)


def test_only_the_positive_class_is_drawn_when_named() -> None:
    assert len(figures.probability_by_class(predictions(), positive="tumour").axes) == 1
    assert len(figures.probability_by_class(predictions()).axes) == 2


def test_the_two_models_that_agree_least_are_compared() -> None:
    table = pd.DataFrame({"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.4], "c": [0.9, 0.2, 0.1]})
    assert figures.agreement(table).axes[1].get_xlabel() in (
        "probability by a",
        "probability by b",
    )
    assert figures.agreement(table).axes[1].get_ylabel() == "probability by c"


def test_one_model_agrees_with_itself() -> None:
    assert "1.00" in texts(figures.agreement(models()[["m0"]]))


def test_masks_are_outlined_where_they_have_an_edge() -> None:
    masks = np.zeros((1, 2, 16, 16))
    masks[0, 1, 4:9, 4:9] = 1
    figure = figures.augmentation_grid(pixels(1, 2), masks)
    assert [len(axis.collections) for axis in figure.axes] == [0, 1]


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
