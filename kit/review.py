"""The labels that a finished run doubts most: ranked, drawn, and written for a person to mark.

A label's quality is its self-confidence, the out-of-fold probability of the given class; 1 less it
is the disagreement here (Northcutt, Jiang and Chuang, Confident Learning, JAIR 70, 2021; Kuan and
Mueller, Model-agnostic label quality scoring, 2022). Nothing is decided: `kit.marks` reads what the
person wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit import figures, marks
from kit._plots import png
from kit.ensemble import PREFIX, Ensemble
from kit.errors import KitError, TableError
from kit.files import atomic, read_json, read_table
from kit.finished import need
from kit.hard_cases import most_wrong
from kit.slide_jobs import table_path
from kit.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = [
    "rank", "case_id", "group", "label", "suggested", "prob_label", "prob_suggested",
    "disagreement", "n_seeds", "spread", "path", "action", "new_label", "note",
]  # fmt: skip
FILLED = ["action", "new_label", "note"]
"""Columns that a person fills."""
DRAWN, ACROSS = 60, 4  # cases of a contact sheet, and in a row of it
SIDE = 2  # patches of a slide or study along each side of its picture
BLANK = 230


def doubts(out: Path) -> pd.DataFrame:
    """Return all training cases that a finished run predicted out of fold, most doubtful first.

    Args:
        out: The run's folder.

    Returns:
        Columns `COLUMNS`, see `ranked`.

    Raises:
        MissingDataError: The folder holds no finished run.
    """
    need(out, "cases.parquet", "oof.parquet", "ensemble.json")
    cases, oof = (read_table(out / f"{name}.parquet") for name in ("cases", "oof"))
    return ranked(oof, cases, Ensemble.from_dict(read_json(out / "ensemble.json")))


def ranked(oof: pd.DataFrame, cases: pd.DataFrame, ensemble: Ensemble) -> pd.DataFrame:
    """Return the cases by how much the out-of-fold probability contradicts the label as given.

    Args:
        oof: Out-of-fold predictions table.
        cases: The cases table, with the marks of the run's review if it has any.
        ensemble: How seeds and models are joined, fitted.

    Returns:
        `rank` from 1; `case_id, group, label`; `suggested`, the likeliest class; `prob_label` and
        `prob_suggested`; `disagreement`, 1 - `prob_label`, in [0, 1]; `n_seeds`; `spread`, standard
        deviation of `prob_label` over the networks, NaN of one; `path`; `action` and `new_label`
        of the run's review, else empty as `note`. Equal ones stand by case_id.
    """
    joined = ensemble.predict(oof)
    names = [str(name)[len(PREFIX) :] for name in joined if str(name).startswith(PREFIX)]
    order = most_wrong(joined, None, max(1, len(joined)))[["case_id", "prob_of_truth"]]
    table = order.merge(joined, on="case_id").merge(_networks(oof, names), on="case_id")
    each = table[[PREFIX + name for name in names]].to_numpy()
    owner = cases.set_index("case_id")
    table = table.rename(columns={"y_true": "label", "prob_of_truth": "prob_label"})
    table = table.assign(
        rank=np.arange(1, len(table) + 1), disagreement=1 - table["prob_label"],
        suggested=np.asarray(names, dtype=object)[each.argmax(axis=1)],
        prob_suggested=each.max(axis=1), path=table["case_id"].map(owner["path"]),
        action="", new_label="", note="",
    )  # fmt: skip
    if marks.ACTION in owner:
        table["action"] = table["case_id"].map(owner[marks.ACTION])
        new = table["case_id"].map(owner[marks.REVIEWED])
        table["new_label"] = new.where(table["action"] == marks.RELABEL, "")
    return table[COLUMNS]


def _networks(oof: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return how many seeds predicted each case, and how far apart they are on its label."""
    each = oof[[PREFIX + name for name in names]].to_numpy()
    own = each[np.arange(len(oof)), pd.Index(names).get_indexer(pd.Index(oof["y_true"]))]
    by = oof.assign(own=own).groupby("case_id")
    spread = by["own"].std(ddof=0).where(by.size() > 1)
    return pd.DataFrame({"n_seeds": by["seed"].nunique(), "spread": spread}).reset_index()


def listed(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the `top` most doubtful cases, and those marked before that stand among them.

    Cases marked keep do not come up again.
    """
    rows = table[table["action"] != marks.KEEP]
    return rows[rows["action"].eq("").cumsum() <= top].reset_index(drop=True)


def write(table: pd.DataFrame, top: int, path: Path) -> int:
    """Write the CSV for a person to fill: the listed cases, and all that are marked already.

    Rows of a file that stands there stay as they are wherever the person wrote into them, so that
    one file grows from run to run and may take the place of the one that the manifest names.

    Args:
        table: As `ranked` returns it.
        top: Unmarked cases at most.
        path: The CSV.

    Returns:
        How many rows the person had filled.

    Raises:
        KitError: What stands there is no review.
    """
    rows = table[table["case_id"].isin(listed(table, top)["case_id"]) | table["action"].ne("")]
    text, filled = rows.map(_text), _filled(path)
    text = text[~text["case_id"].isin(filled["case_id"])]
    both = pd.concat([filled, text], ignore_index=True).fillna("")
    both = both[[*COLUMNS, *(name for name in both if name not in COLUMNS)]]
    with atomic(path) as part:
        both.to_csv(part, index=False, lineterminator="\n")
    return len(filled)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return str(value)


def _filled(path: Path) -> pd.DataFrame:
    """Return the rows of a review that a person wrote into; none where there is no file."""
    if not path.exists():
        return pd.DataFrame({name: [] for name in COLUMNS}, dtype=object)
    try:
        found = marks.read(path)
    except KitError as error:
        raise TableError(
            "something else stands there and is not written over", path=path,
            expected=f"no file, or a review with {', '.join(FILLED[:2])}",
            received=error.received or "a folder", remedy="choose another --out",
        ) from error  # fmt: skip
    return found[(found[[name for name in FILLED if name in found]] != "").any(axis=1)]


def sheet(out: Path, rows: pd.DataFrame) -> Figure:
    """Draw the first listed cases with label, suggestion and the probability of each.

    A slide or study is shown by the patches that speak most for the suggested class.

    Args:
        out: The run's folder.
        rows: As `listed` returns them, at least one.
    """
    shown, store = rows.head(DRAWN), Store(out / "pixels")
    several = "x" in store.items
    patches = _patches(out, shown["case_id"]) if several else None
    images = np.stack([
        _picture(store, case, suggested, patches)
        for case, suggested in zip(shown["case_id"], shown["suggested"], strict=True)
    ])  # fmt: skip
    about = pd.DataFrame({
        "case_id": shown["case_id"],
        "label": shown["label"] + shown["prob_label"].map(" {:.2f}".format),
        "suggested": shown["suggested"] + shown["prob_suggested"].map(" {:.2f}".format),
    })  # fmt: skip
    if shown["action"].any():
        about["marked"] = (shown["action"] + " " + shown["new_label"]).str.strip()
    title = f"The {len(shown)} labels most in doubt, with out-of-fold probabilities"
    title += f" ({len(rows)} are listed)" if len(rows) > len(shown) else ""
    title += f"; of each case the {SIDE**2} images likest to what is suggested" if several else ""
    return figures.cases_sheet(images, about, title, across=ACROSS)


def _patches(out: Path, ids: pd.Series) -> pd.DataFrame:
    """Return the networks' out-of-fold predictions of the patches of some cases."""
    of_slides = [table_path(out / "slides", case) for case in ids]
    paths = [*sorted((out / "models").glob("*_oof.parquet")), *of_slides]
    parts = [read_table(path) for path in paths if path.is_file()]
    found = [part[part["case_id"].isin(ids)] for part in parts if {"x", "y"} <= set(part)]
    return pd.concat([pd.DataFrame({"case_id": [], "x": [], "y": []}), *found], ignore_index=True)


def _picture(
    store: Store, case: str, suggested: str, patches: pd.DataFrame | None
) -> np.ndarray:  # fmt: skip
    """Return a case's image, or the patches likest to the suggested class side by side."""
    items = store.items[store.items["case_id"] == case]  # of a slide: those learnt from
    items = items[items["predict"]] if items["predict"].any() else items
    if patches is None:
        return store.pixels[items.index[0]]
    mine = patches[patches["case_id"] == case]
    if PREFIX + suggested in mine and len(mine):
        likest = mine.groupby(["x", "y"])[PREFIX + suggested].mean()
        score = likest.reindex(pd.MultiIndex.from_frame(items[["x", "y"]])).to_numpy()
        items = items.iloc[np.argsort(-np.nan_to_num(score), kind="stable")]
    return _side_by_side(store.pixels[items.index[: SIDE**2].to_numpy()])


def _side_by_side(images: np.ndarray) -> np.ndarray:
    """Return up to `SIDE`² images as one, a margin round each."""
    margin = max(1, images.shape[1] // 32)
    edges = [(0, SIDE**2 - len(images)), (margin, margin), (margin, margin), (0, 0)]
    padded = np.pad(images, edges, constant_values=BLANK)
    grid = padded.reshape(SIDE, SIDE, *padded.shape[1:]).swapaxes(1, 2)
    return grid.reshape(SIDE * padded.shape[1], SIDE * padded.shape[2], -1)


def draw(out: Path, rows: pd.DataFrame, path: Path) -> bool:
    """Write the contact sheet as PNG; tell whether there was anything to draw."""
    if path.is_dir() or path.suffix.lower() != ".png":
        raise KitError("cannot be the contact sheet", expected="a file ending in .png", path=path,
                       remedy="choose another --sheet")  # fmt: skip
    if not len(rows):
        return False
    picture = png(sheet(out, rows))
    with atomic(path) as part:
        part.write_bytes(picture)
    return True
