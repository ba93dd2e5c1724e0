"""The figures of a run's report, drawn from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import figures
from kit.annotations import MaskImage
from kit.encoders import SlideBags
from kit.heatmaps import read_tiff
from kit.slides import open_slide
from kit.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8
PATCHES = 2000  # of which vectors are drawn


def draw(
    cases: pd.DataFrame, folds: pd.DataFrame, history: pd.DataFrame, scored: pd.DataFrame,
    metrics: Mapping[str, Any], *, classes: Sequence[str], positive: str | None,
    final: pd.DataFrame | None,
) -> dict[str, Figure]:  # fmt: skip
    """Return the figures by name.

    Args:
        cases: The cases table.
        folds: The folds table.
        history: Loss and rate of each network's epochs.
        scored: One row a case: out-of-fold `prob_<class>`, `y_true`, nested `y_pred`.
        metrics: What `kit run --json` prints.
        classes: All classes.
        positive: The positive class of two; None above two.
        final: The joined predictions of the test cases, if there are any.
    """
    drawn = {
        "class_counts": figures.class_counts(cases),
        "fold_balance": figures.fold_balance(folds),
    }
    if len(history):
        drawn["history"] = figures.history(history)
    names = metrics["confusion_classes"]
    drawn["confusion_matrix"] = figures.confusion_matrix(np.asarray(metrics["confusion"]), names)
    drawn["forest"] = figures.forest(figure_table(metrics))
    drawn["probability_by_class"] = figures.probability_by_class(scored, positive=positive)
    if positive is not None:
        truth, prob = (scored.y_true == positive).to_numpy(), scored[f"prob_{positive}"].to_numpy()
        if 0 < truth.sum() < len(truth):
            groups = scored.group.to_numpy()
            drawn["roc"] = figures.roc(truth, prob, groups)
            drawn["precision_recall"] = figures.precision_recall(truth, prob, groups)
            drawn["calibration"] = figures.calibration(truth, prob, groups)
            drawn["metrics_against_threshold"] = figures.metrics_against_threshold(
                truth, prob, metrics["threshold"]
            )
        if final is not None:
            drawn["submission_distribution"] = figures.submission_distribution(
                prob, final[f"prob_{positive}"].to_numpy()
            )
    return drawn


def images_by_class(store: Store, classes: Sequence[str], seed: int) -> Figure:
    """Return some training images of each class, as the network is given them."""
    items, random = store.items, np.random.default_rng(seed)
    chosen: list[int] = []
    for name in classes:
        rows = np.flatnonzero(items.train & (items.label == name))
        chosen += sorted(random.choice(rows, min(SHOWN, len(rows)), replace=False).tolist())
    titles = list(items.label.iloc[chosen])
    return figures.contact_sheet(store.pixels[chosen], titles, columns=SHOWN)


def patches_on_slide(
    cases: pd.DataFrame, plan: pd.DataFrame, root: Path, own_mpp: float | None
) -> Figure:
    """Return the plan on the training slide with the most tumour, or the most patches."""
    train = plan[plan.case_id.isin(cases.case_id[cases.split != "test"])]
    by_case = train.groupby("case_id").tumour
    best = (by_case.sum() if train.tumour.notna().any() else by_case.size()).idxmax()
    path = root / str(cases.path[cases.case_id == best].iloc[0])
    with open_slide(path, mpp=own_mpp) as slide:
        return figures.patches_on_thumbnail(slide, train[train.case_id == best])


def slide_heatmap(
    path: Path, own_mpp: float | None, mask: MaskImage | None, tiff: Path, seen: pd.DataFrame
) -> Figure:
    """Return a slide with its tissue, its mask where there is one, and its heatmap.

    Args:
        path: The slide.
        own_mpp: Its resolution, in place of what the file says.
        mask: Its mask.
        tiff: Its heatmap.
        seen: Its patch predictions.
    """
    heatmap = read_tiff(tiff)
    with open_slide(path, mpp=own_mpp) as slide:
        return figures.slide_heatmap(slide, heatmap, seen, column=f"prob_{heatmap.name}", mask=mask)


def slide_attention(
    path: Path, own_mpp: float | None, mask: MaskImage | None, tiff: Path, seen: pd.DataFrame
) -> Figure:
    """Return a slide with where networks of bags looked; `seen` is `kit.mil.attention_table`."""
    with open_slide(path, mpp=own_mpp) as slide:
        return figures.slide_attention(slide, read_tiff(tiff), seen, mask=mask)


def vectors_by_class(folds: pd.DataFrame, bags: SlideBags, seed: int) -> Figure:
    """Return the vectors of patches of one fold's slides, by a network that has not seen them.

    Args:
        folds: The slides, `case_id, label, fold`, of one fold.
        bags: The vectors.
        seed: Of the choice of patches.
    """
    random, parts, names = np.random.default_rng(seed), [], list[str]()
    for case_id, label, fold in folds[["case_id", "label", "fold"]].to_numpy().tolist():
        bag = bags(case_id, fold)
        chosen = random.permutation(len(bag))[: max(1, PATCHES // len(folds))]
        parts.append(bag[np.sort(chosen)])
        names += [label] * len(chosen)
    return figures.embedding_map(np.concatenate(parts), names, of="class of the slide")


def figure_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of a run's metrics: of all cases, then of each part where there are some.

    Columns: `part`, `n`, `metric`, `value`, `low`, `high`, `reliable`; undefined is NaN.
    """
    doubtful = metrics.get("unreliable", [])
    rows = [
        {"part": "all", "n": metrics["n"], "metric": name, **found,
         "reliable": name not in doubtful}
        for name, found in metrics.items()
        if isinstance(found, Mapping) and set(found) == {"value", "low", "high"}
    ]  # fmt: skip
    parts = [
        {**row, "part": f"fold {row['part']}"} for row in metrics.get("subgroups", [])
    ]  # fmt: skip
    columns = ["part", "n", "metric", "value", "low", "high", "reliable"]
    table = pd.DataFrame([*rows, *parts], columns=columns)
    return table.astype({"value": float, "low": float, "high": float})
