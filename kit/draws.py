"""Epochs drawn from a plan: which patches are learnt from, by ratio, balance, cap and weight."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from kit import checks
from kit.errors import SettingsError, TableError

log = logging.getLogger(__name__)

UNSURE = "unsure"
HELP = {"positive tumour": 1, "positive normal": 1, "negative": 2}
"""Kinds of patches (of positive slides: tumour and normal; of negative slides), and the ratio in
which the HeLP 2019 team drew them."""
By = Literal["class", "kind", "slide", "group"]
PLACE = ["case_id", "x", "y"]


def draw(
    plan: pd.DataFrame,
    *,
    seed: int,
    epoch: int = 0,
    n: int | None = None,
    per_slide: int | None = None,
    by: By | None = "class",
    ratio: Mapping[str, float] | None = None,
    positive: str = "tumour",
    cases: pd.DataFrame | None = None,
    replace: bool = False,
    predictions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Draw the patches of one epoch; "unsure" and unlabelled ones are never drawn.

    `per_slide` caps what a slide gives: its own classes share the cap, and one with too few gives
    what it has. What is drawn so of a slide depends on that slide, the seed and the epoch alone.
    `n` then takes so many of what the caps leave, in equal parts of what `by` tells apart, or in
    `ratio`; a part with too few gives what it has, and the log says what is short.

    Args:
        plan: Patches table: case_id, label, and x, y for `predictions`.
        seed: Of the draw; the same seed and epoch draw the same rows on any machine.
        epoch: Its number: another epoch is another draw.
        n: Rows in all; needed without `per_slide`, and with `replace`.
        per_slide: Most rows of a slide.
        by: "class" of the patch; "kind" (see `HELP`, whose 1:1:2 is the ratio if none is given);
            "slide"; "group", the patient; or None, all alike.
        ratio: Share of each class or kind, by name.
        positive: Name of the positive class, in the plan and in `cases`.
        cases: case_id and label for "kind", case_id and group for "group". For "kind", patches
            without a label are negative where their slide is.
        replace: Draw the rows of a part again where it has too few: each a second time before any
            comes a third time; with `predictions`, each by chance as if it were the first.
        predictions: case_id, x, y, prob_<positive> (mean over rows of one place): patches that are
            not positive are drawn with probability proportional to it, others alike.

    Returns:
        Rows of `plan` in their order, with a new index, and `repeat`: 0 where a row is drawn the
        first time in this epoch, 1 the second time.

    Raises:
        SettingsError: Neither `n` nor `per_slide`; `ratio` does not name the parts.
        TableError: A column, a case or a prediction is missing.
    """
    _check(n, per_slide, replace)
    checks.columns(plan, ["case_id", "label"])
    if by == "kind":
        plan = _with_slide_labels(plan, _of_case(plan, cases, "label"), positive)
    label = plan["label"]
    rows = np.flatnonzero((label.notna() & (label != UNSURE)).to_numpy(dtype=bool))
    part, names = _parts(plan.iloc[rows], by, cases, positive)
    rows, part = rows[part >= 0], part[part >= 0]
    shares = _shares(names, dict(HELP) if by == "kind" and ratio is None else ratio, by)
    chosen = plan.iloc[rows]
    slide, _ = pd.factorize(chosen["case_id"])
    weight = None if predictions is None else _weights(chosen, predictions, positive)
    within = np.where(shares[part] > 0, _order(chosen, weight, seed, epoch), np.inf)
    kept = np.flatnonzero(within < np.inf)
    if per_slide is not None:
        own = by in ("class", "kind")
        inner = part if own else np.zeros_like(part)
        kept = _capped(slide, inner, within, per_slide, shares if own else None)
    if n is None:
        return _epoch(plan, rows[kept])
    quotas = _split(n, shares, np.arange(len(names)))
    picked = [
        _take(kept[part[kept] == number], quota, within, weight, replace, [seed, epoch, number])
        for number, quota in enumerate(quotas)
    ]
    _say_short(n, picked, quotas, names)
    return _epoch(plan, rows[np.concatenate([np.empty(0, np.int64), *picked])])


def in_ratio(
    plan: pd.DataFrame, cases: pd.DataFrame, *, seed: int, positive: str = "tumour"
) -> pd.DataFrame:
    """Draw as many patches as there are in the ratio of `HELP`: the scarcest kind decides.

    A kind that has no patch at all is left out of the ratio, and the log says so.

    Args:
        plan: Patches table: case_id, label.
        cases: case_id, label.
        seed: Of the draw.
        positive: Name of the positive class, in both.

    Returns:
        See `draw`.
    """
    part, names = _parts(plan, "kind", cases, positive)
    held = dict(zip(names, np.bincount(part[part >= 0], minlength=len(names)), strict=True))
    absent = [name for name, count in held.items() if not count]
    if absent:
        log.warning("no patches of this kind, the ratio is of the others: %s", ", ".join(absent))
    ratio = {name: 0 if name in absent else share for name, share in HELP.items()}
    most = min((held[name] / share for name, share in ratio.items() if share), default=0.0)
    n = int(most * sum(ratio.values()))
    if not n:
        return plan.assign(repeat=0)
    return draw(plan, n=n, by="kind", ratio=ratio, cases=cases, seed=seed, positive=positive)


def spread(plan: pd.DataFrame, *, per_slide: int, seed: int) -> pd.DataFrame:
    """Choose the patches to predict: at most `per_slide` of a slide, uniform, labels unseen.

    Args:
        plan: Patches table.
        per_slide: Most patches of a slide, >= 1.
        seed: Of the choice.

    Returns:
        Rows of `plan` in their order, with a new index.
    """
    checks.positive_int("per_slide", per_slide)
    slide, _ = pd.factorize(plan["case_id"])
    rank = _rank(slide, _keys(plan, seed, 0))
    return plan.iloc[np.flatnonzero(rank < per_slide)].reset_index(drop=True)


def _order(chosen: pd.DataFrame, weight: np.ndarray | None, seed: int, epoch: int) -> np.ndarray:
    """Return the keys by which rows are drawn, lowest first; by chance in parts of the weights."""
    key = _keys(chosen, seed, epoch)
    if weight is None:
        return key
    with np.errstate(divide="ignore"):  # a probability of 0 is last, and never drawn
        return np.asarray(-np.log1p(-key) / weight)


def _check(n: int | None, per_slide: int | None, replace: bool) -> None:
    for name, value in (("n", n), ("per_slide", per_slide)):
        if value is not None:
            checks.positive_int(name, value)
    if n is None and (per_slide is None or replace):
        raise SettingsError(
            "how much to draw is not said", expected="n, the rows in all"
            f"{'' if replace else ', or per_slide, or both'}",
            received=f"n=None, per_slide={per_slide}, replace={replace}",
        )  # fmt: skip


def _of_case(plan: pd.DataFrame, cases: pd.DataFrame | None, column: str) -> pd.Series:
    """Return what the cases table says of each row's case."""
    if cases is None:
        raise SettingsError(f"the draw needs each slide's {column}", expected="cases=, a table")
    checks.columns(cases, ["case_id", column])
    checks.unique_ids(cases["case_id"])
    absent = pd.Index(plan["case_id"].unique()).difference(cases["case_id"])
    if len(absent):
        raise TableError("cases of the plan are not in the cases table",
                         received=checks.first(absent))  # fmt: skip
    return plan["case_id"].map(cases.set_index("case_id")[column])


def _with_slide_labels(plan: pd.DataFrame, of_slide: pd.Series, positive: str) -> pd.DataFrame:
    """Return the plan with the slides' labels; a patch of a negative slide is negative."""
    negative = (plan["label"].isna() & of_slide.notna() & (of_slide != positive)).to_numpy(bool)
    label = plan["label"].astype(object).where(~negative, of_slide.astype(object))
    return plan.assign(label=label)


def _parts(
    rows: pd.DataFrame, by: By | None, cases: pd.DataFrame | None, positive: str
) -> tuple[np.ndarray, list[str]]:
    """Return the part that each row belongs to (-1: none), and the parts' names."""
    if by is None:
        return np.zeros(len(rows), np.int64), ["all"]
    if by == "kind":
        slide = (_of_case(rows, cases, "label") == positive).to_numpy(dtype=bool)
        patch = (rows["label"] == positive).to_numpy(dtype=bool)
        wrong = int((patch & ~slide).sum())
        if wrong:
            log.warning("%d tumour patches of negative slides are not drawn", wrong)
        return np.select([slide & patch, slide, ~patch], [0, 1, 2], -1), list(HELP)
    of_row = {"class": "label", "slide": "case_id", "group": "group"}
    if by not in of_row:
        checks.choice("by", str(by), [*of_row, "kind"])
    values = _of_case(rows, cases, "group") if by == "group" else rows[of_row[by]]
    codes, names = pd.factorize(values.astype(object), sort=True)
    return codes, [str(name) for name in names]


def _shares(names: list[str], ratio: Mapping[str, float] | None, by: By | None) -> np.ndarray:
    if ratio is None:
        return np.ones(len(names))
    known = names if names else list(ratio)
    values = [float(ratio.get(name, -1)) for name in known]
    if set(known) - set(ratio) or set(ratio) - set(known) or min(values) < 0 or not sum(values):
        raise SettingsError(
            f"ratio must name a share of at least 0 for each {by}",
            expected=", ".join(known), received=f"ratio={dict(ratio)}",
        )  # fmt: skip
    return np.array(values)


def _keys(rows: pd.DataFrame, seed: int, epoch: int) -> np.ndarray:
    """Return a number in [0, 1) for each row, of its slide, place, seed and epoch alone.

    It is a hash (splitmix64) and not a generator's stream, so that neither the order of the rows,
    nor other slides, nor the version of numpy changes it.
    """
    codes, slides = pd.factorize(rows["case_id"])
    crc = np.array([zlib.crc32(str(name).encode()) for name in slides], np.uint64)
    parts = [np.full(len(rows), seed), np.full(len(rows), epoch)]
    for name in ("x", "y", "footprint"):
        if name in rows:
            parts.append(np.rint(rows[name].to_numpy(np.float64) * 1000).astype(np.int64))
    found = crc[codes] if len(rows) else np.empty(0, np.uint64)
    for part in parts:
        found = _mixed(found ^ _mixed(part.astype(np.int64).view(np.uint64)))
    return np.asarray((found >> np.uint64(11)) / 2.0**53)


def _mixed(value: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each value: overflow is meant (Steele, Lea and Flood, 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def _weights(rows: pd.DataFrame, predictions: pd.DataFrame, positive: str) -> np.ndarray:
    """Return 1 for positive rows, and for the others the predicted positive probability."""
    prob = f"prob_{positive}"
    checks.columns(rows, PLACE)
    checks.columns(predictions, [*PLACE, prob])
    found = predictions.groupby(PLACE, as_index=False, sort=False)[prob].mean()
    other = (rows["label"] != positive).to_numpy(dtype=bool)
    asked = rows.loc[other, PLACE]
    value = asked.merge(found, on=PLACE, how="left")[prob].to_numpy(dtype=np.float64)
    missing = np.isnan(value)
    if missing.any():
        case_id, x, y = asked.iloc[int(missing.argmax())]
        raise TableError(
            "patches to draw have no prediction", expected=f"{prob} for all but {positive} ones",
            received=f"{int(missing.sum())} without, first {case_id} at x={x}, y={y}",
            remedy="predict the whole plan, or draw from the rows that are predicted",
        )  # fmt: skip
    weight = np.ones(len(rows))
    weight[other] = checks.probabilities(value, name=prob)
    return weight


def _rank(group: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return each row's rank by key in its group, from 0; equal keys by position."""
    order = np.lexsort((key, group))
    starts = np.searchsorted(group[order], group[order])
    rank = np.empty(len(key), np.int64)
    rank[order] = np.arange(len(key)) - starts
    return rank


def _capped(
    slide: np.ndarray, part: np.ndarray, key: np.ndarray, most: int, shares: np.ndarray | None
) -> np.ndarray:
    """Return the rows that stay if a slide gives `most`, its parts in their shares."""
    shares = np.ones(1) if shares is None else shares
    cell = slide * len(shares) + part
    slides = int(slide.max(initial=-1)) + 1
    counts = np.bincount(cell, minlength=slides * len(shares)).reshape(slides, len(shares))
    quota = np.array([
        _split(most, np.where(held > 0, shares, 0), held) for held in counts
    ], dtype=np.int64).reshape(counts.shape)  # fmt: skip
    short = ((quota - counts).clip(min=0)).sum(axis=1)
    if short.any():
        log.info("%d of %d slides have too few patches of a class: %d fewer in all",
                 int((short > 0).sum()), len(short), int(short.sum()))  # fmt: skip
    return np.flatnonzero((_rank(cell, key) < quota.reshape(-1)[cell]) & (key < np.inf))


def _split(total: int, shares: np.ndarray, order: np.ndarray) -> list[int]:
    """Return whole parts of `total` in their shares; odd ones to the first by `order`."""
    if not shares.sum():
        return [0] * len(shares)
    exact = total * shares / shares.sum()
    whole = np.floor(exact + 1e-9).astype(np.int64)
    first = np.lexsort((order, -np.round(exact - whole, 9)))
    whole[first[: total - int(whole.sum())]] += 1
    return [int(value) for value in whole]


def _take(
    rows: np.ndarray, quota: int, key: np.ndarray, weight: np.ndarray | None, replace: bool,
    seed: list[int],
) -> np.ndarray:  # fmt: skip
    """Return `quota` of the rows of one part, or all it has."""
    if not len(rows) or not quota:
        return np.asarray(rows[:0])
    if replace and weight is not None:
        up_to = np.cumsum(weight[rows])
        at = np.random.default_rng(seed).random(quota) * up_to[-1]
        return np.asarray(rows[np.minimum(np.searchsorted(up_to, at, side="right"), len(rows) - 1)])
    ordered = rows[np.argsort(key[rows], kind="stable")]
    return np.asarray(ordered[np.arange(quota if replace else min(quota, len(rows))) % len(rows)])


def _say_short(n: int, picked: list[np.ndarray], quotas: list[int], names: list[str]) -> None:
    short = [
        f"{name} {len(rows):,} of {quota:,}"
        for name, rows, quota in zip(names, picked, quotas, strict=True) if len(rows) < quota
    ]  # fmt: skip
    if short:
        log.warning("the draw has fewer than the %d rows asked for: %s", n, checks.first(short))


def _epoch(plan: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return the rows in the plan's order, each with the times it was drawn before."""
    rows = np.sort(rows)
    repeat = np.arange(len(rows)) - np.searchsorted(rows, rows)
    if repeat.any():
        log.info("%d of %d rows of the draw are repeats", int((repeat > 0).sum()), len(rows))
    return plan.iloc[rows].reset_index(drop=True).assign(repeat=repeat.astype(np.int64))
