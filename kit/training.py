"""Cross-validate: each network is a job, recognised by what made it, resumed by its state."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import apart, inference, jobs, live
from kit.backend import load_backend
from kit.checks import choice, columns, positive_int
from kit.errors import ModelError, SettingsError, TrainingError
from kit.files import digest, fingerprint, read_json, table_key, write_json
from kit.fits import EVERYTHING, Fit
from kit.plans import FORMAT, codes, learnt, plan, stem, write_networks
from kit.policies import policy
from kit.recipes import Recipe, recipe_of
from kit.settings import choices, defaults, describe, difference
from kit.store import Store

__all__ = [
    "EVERYTHING", "Fit", "Recipe", "begun", "cross_validate", "plan", "recipe_of", "rehearse",
    "stem",
]  # fmt: skip

log = logging.getLogger(__name__)

REHEARSED = 8  # images of each side that a rehearsal predicts
Tables = tuple[pd.DataFrame, pd.DataFrame]
Done = tuple[Fit, Tables]


def cross_validate(
    folds: pd.DataFrame,
    data: Store,
    model: str,
    recipe: Recipe,
    out: Path,
    seeds: int = 1,
    *,
    classes: Sequence[str] | None = None,
    tta: bool = True,
    only: Sequence[int] | None = None,
    workers: int = 1,
    weights: Path | None = None,
    teacher: Path | None = None,
    everything: str = "no",
    later: int = 0,
    until: float = math.inf,
) -> Tables:
    """Train a network for each fold and seed, and predict what it has not seen.

    A network learns from the training items of the other folds and nothing else, so that a changed
    image trains again exactly the folds that see it. Unless the recipe chooses by the held-out
    fold (`Recipe.chooses`), nothing of that fold decides anything. Called again, it takes what
    stands, by fingerprint, and goes on with what was cut off, epoch by epoch; the tables are the
    same to the bit on the same machine.

    Args:
        folds: The folds table: `case_id, group, label, fold`. The labels that are learnt are the
            store's, which a review may have changed.
        data: The pixels; items with `train` are learnt from, items with `predict` are predicted.
        model: A name of `kit.models.REGISTRY`.
        recipe: How each network is trained.
        out: Folder of the networks, their histories and states.
        seeds: Networks of each fold.
        classes: Class names, in the order of the networks' outputs; None: the labels, sorted.
        tta: Average each prediction over the views of the recipe's policy.
        only: Fold numbers to train; all by default.
        workers: Networks trained at a time, each in a process of its own; 0: all in this process,
            one after another, for a debugger.
        weights: File of pretrained weights.
        teacher: Folder of a finished cross-validation with the same folds, to distil from: a
            network learns from those that did not see its fold either.
        everything: "add" or "only": networks on all training items too, for as many epochs as the
            folds kept (their median); they predict the test items, beside those of the folds or
            alone. Their fold is `EVERYTHING`.
        later: Images that are predicted elsewhere after the last network, for which it leaves time.
        until: `time.time()` at which the predictions must be there. Networks that are not
            finished by then are left out and said; if none is, they are taken as they are.

    Returns:
        The out-of-fold and the test predictions table, a row for each item and network:
        `case_id, group, fold, seed, model, y_true`, `prob_<class>`, and `x, y` for patches. Which
        networks are finished stands in `networks.parquet` (`kit.plans.networks`).

    Raises:
        SettingsError: The folder holds networks of another recipe (the difference is shown).
        GroupLeakError: A group stands in two folds.
        TableError: A fold is empty, or lacks a class to learn from.
        TrainingError: A loss is not finite, or the time was up before the first epoch.
        JobError: A process died; the other networks stand, and the next call goes on.
    """
    choice("everything", everything, choices("everything"))
    positive_int("workers", workers, least=0)
    if weights is not None and not Path(weights).is_file():
        raise ModelError("weights are not there", path=weights, expected="a file of weights")
    if classes is None:
        classes = sorted(columns(folds, ["label"]).label.dropna().unique())
    names = tuple(classes)
    _claim(Path(out), model, recipe, names)
    fits = plan(
        folds, data, model, recipe, out, seeds, classes=names, only=only, weights=weights,
        teacher=teacher,
    )  # fmt: skip
    views = recipe.augment if tta else "none"
    fits = [_timed(fit, folds, views, later, until) for fit in fits]
    found = _run(fits, folds, views, workers)
    if not found:
        found = _cut(fits, folds, views, workers)
    if everything != "no":
        found += _on_everything(fits, folds, views, workers)
    write_networks([fit for fit, _ in found], Path(out))
    return _joined(found, everything)


def _joined(found: Sequence[Done], everything: str) -> Tables:
    """Return the tables of all networks; those on everything alone predict tests, where asked."""
    of_folds = [tables for fit, tables in found if fit.fold != EVERYTHING]
    more = [tables[1] for fit, tables in found if fit.fold == EVERYTHING]
    tests = [] if everything == "only" and more else [tables[1] for tables in of_folds]
    return (
        pd.concat([tables[0] for tables in of_folds], ignore_index=True),
        pd.concat([*tests, *more], ignore_index=True),
    )


def begun(out: Path) -> bool:
    """Return whether a folder holds networks, or the state of one."""
    return any(any(out.glob(one)) for one in ("*.keras", "state/*.npz"))


def _claim(out: Path, model: str, recipe: Recipe, classes: Sequence[str]) -> None:
    """Write `recipe.json`, or refuse a folder whose networks are of another recipe."""
    mine = {"model": model, "classes": list(classes), **asdict(recipe)}
    path = out / "recipe.json"
    if path.is_file() and begun(out):
        known = {name: defaults().get(name) for name in mine}
        different = difference(mine, {**known, **read_json(path)})
        if not different:
            return
        raise SettingsError(
            "the folder holds networks of another recipe", received=describe(different),
            path=out, remedy="choose another folder, or delete this one",
        )  # fmt: skip
    write_json(path, mine)


def _timed(fit: Fit, folds: pd.DataFrame, views: str, later: int, until: float) -> Fit:
    """Return a fit that knows when it must end, and how much is to be predicted before."""
    images = sum(len(rows) for rows in _sides(fit, folds).values())
    return replace(fit, predictions=policy(views).views * (images + later), until=until)


def _run(
    fits: Sequence[Fit], folds: pd.DataFrame, views: str, workers: int, *, cut: bool = False
) -> list[Done]:
    """Train and predict; a network is left out that is not finished because the time was up."""
    work = [jobs.Job(fit.name, fit_and_predict, (fit, folds, views, cut)) for fit in fits]
    left = [fit for fit in fits if not fit.done()]
    apart_from_here = workers > 0 and not all(_predicted(fit, folds, views) for fit in fits)
    outcomes = apart.each(work, workers=workers) if apart_from_here else map(jobs.call, work)
    done: list[jobs.Outcome] = []
    with live.bar(left) as say, _closing(outcomes):
        for fit, outcome in zip(fits, outcomes, strict=True):
            done.append(outcome)
            if fit in left:
                say(fit, outcome)
    tables = jobs.values(done)
    return [(fit, one) for fit, one in zip(fits, tables, strict=True) if one is not None]


@contextlib.contextmanager
def _closing(outcomes: Any) -> Iterator[None]:
    try:
        yield
    finally:
        if hasattr(outcomes, "close"):
            outcomes.close()


def _cut(fits: Sequence[Fit], folds: pd.DataFrame, views: str, workers: int) -> list[Done]:
    """Return the networks that have an epoch, as they are, with their predictions; one at least."""
    found: list[Done] = []
    for fit in fits:
        if found and time.time() > fit.until:
            break
        if any((fit.path.parent / "state").glob(f"{fit.path.stem}-*.npz")):
            log.warning("%s is taken as it is: the time was up before any was finished", fit.name)
            found += _run([fit], folds, views, workers, cut=True)
    if found:
        return found
    raise TrainingError(
        "the time was up before the first epoch", expected="time for an epoch and the predictions",
        remedy="allow more --time-budget, or choose fewer steps or a smaller model",
    )  # fmt: skip


def _on_everything(
    fits: Sequence[Fit], folds: pd.DataFrame, views: str, workers: int
) -> list[Done]:
    """Return networks trained on all items as long as the folds kept, with their predictions."""
    done = [fit for fit in fits if fit.done()]
    if len(done) < len(fits):
        log.warning("no network is trained on everything: the time was up before the folds ended")
        return []
    kept = np.array([read_json(fit.path.with_suffix(".json"))["chosen"] for fit in done])
    epochs = tuple(int(n) for n in np.ceil(np.median(kept, axis=0)))
    model = fits[0]
    items = model.store.items
    rows = learnt(
        items.assign(fold=EVERYTHING), items.case_id.isin(folds.case_id), EVERYTHING, model.classes
    )
    recipe = replace(model.recipe, stop_after=0, keep="last", monitor="none", schedule=(
        "constant" if model.recipe.schedule == "plateau" else model.recipe.schedule))  # fmt: skip
    every = []
    for seed in sorted({fit.seed for fit in fits}):
        content = digest(items.iloc[rows][["case_id", "key", "label"]])
        key = fingerprint([FORMAT, model.model, asdict(recipe), model.classes, seed, epochs,
                           content, [fit.key for fit in fits]])  # fmt: skip
        none = np.zeros(0, np.int64)
        every.append(replace(
            model, rows=rows, codes=codes(items, rows, model.classes), held=none, teachers=(),
            held_codes=none, recipe=recipe, fold=EVERYTHING, seed=seed, key=key, epochs=epochs,
            path=model.path.with_name(f"{stem(EVERYTHING, seed)}.keras"),
        ))  # fmt: skip
    return _run(every, folds, views, workers)


def _predicted(fit: Fit, folds: pd.DataFrame, views: str) -> bool:
    if not fit.done():
        return False
    model_key = read_json(fit.path.with_suffix(".json"))["sha256"]
    return all(
        table_key(_part(fit, side)) == inference.predictions_key(fit.store, rows, model_key, views)
        for side, rows in _sides(fit, folds).items()
    )


def _part(fit: Fit, side: str) -> Path:
    return fit.path.with_name(f"{fit.path.stem}_{side}.parquet")


def _sides(fit: Fit, folds: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the rows of the fold's own cases and of the test cases, to be predicted."""
    items = fit.store.items
    own = set(folds.case_id[folds.fold == fit.fold])
    return {
        "oof": np.flatnonzero(items.predict & items.case_id.isin(own)),
        "test": np.flatnonzero(items.predict & (items.split == "test")),
    }


def fit_and_predict(fit: Fit, folds: pd.DataFrame, views: str, cut: bool) -> Tables | None:
    """Train a network where it does not stand and predict both sides: one job of a run."""
    if not (fit.done() or cut) and time.time() > fit.until:
        return None
    if not _predicted(fit, folds, views):
        load_backend(fit.recipe.threads, fit.recipe.device)
    if not fit.done():
        from kit.fitting import train

        if not train(fit, cut=cut):
            return None
    return _predictions(fit, folds, views)


def _predictions(fit: Fit, folds: pd.DataFrame, views: str, most: int | None = None) -> Tables:
    """Return a written network's predictions of both sides, of `most` images each."""
    sides = [
        inference.predict_rows(
            fit.store, rows[:most], fit.path, classes=fit.classes, path=_part(fit, side),
            policy=views,
        ).assign(fold=fit.fold, seed=fit.seed, model=fit.model)
        for side, rows in _sides(fit, folds).items()
    ]  # fmt: skip
    return sides[0], sides[1]


def rehearse(
    fits: Sequence[Fit], folds: pd.DataFrame, views: str, *, workers: int = 1,
    then: Callable[[Path], None] | None = None,
) -> Tables:  # fmt: skip
    """Take a tiny network all the way on a few images, and build the real one.

    What would fail after the last epoch (a file that cannot be written, a loss that does not fit
    the labels, a network that does not fit the images) fails within seconds.

    Args:
        fits: What will be trained.
        folds: The folds table.
        views: Augmentation policy of the predictions.
        workers: 0: in this process.
        then: What is done with the tiny network's file besides, where it is trained; picklable.

    Returns:
        As `cross_validate`, for up to `REHEARSED` images of each side.
    """
    with jobs.scratch("kit-rehearsal-", fits[0].path.parent) as folder:
        job = jobs.Job("the rehearsal", rehearsal, (fits[0], folds, views, Path(folder), then))
        if workers == 0:
            (found,) = jobs.values([jobs.call(job)])
        else:
            (found,) = jobs.values(apart.each([job]))
    tables: Tables = found
    return tables


def rehearsal(
    fit: Fit, folds: pd.DataFrame, views: str, folder: Path, then: Callable[[Path], None] | None
) -> Tables:
    """Return what `rehearse` does: the job's own part."""
    load_backend(fit.recipe.threads, fit.recipe.device)
    from kit.fitting import train
    from kit.models import build_model

    build_model(fit.model, tuple(fit.store.pixels.shape[1:]), len(fit.classes), weights=fit.weights)
    each = [np.flatnonzero(fit.codes == code)[:2] for code in range(len(fit.classes))]
    some = np.concatenate(each)
    tiny = replace(
        fit, rows=fit.rows[some], codes=fit.codes[some], held=fit.held[:REHEARSED],
        held_codes=fit.held_codes[:REHEARSED], model="conv_small", weights=None, epochs=(),
        recipe=replace(
            fit.recipe, epochs=1, steps=1, batch_size=len(some),
            head_epochs=min(1, fit.recipe.head_epochs),
            second_epochs=min(1, fit.recipe.second_epochs),
        ),
        path=folder / "tiny.keras", until=time.time() + 3600,
    )  # fmt: skip
    train(tiny)
    if then is not None:
        then(tiny.path)
    oof, test = _predictions(tiny, folds, views, REHEARSED)
    if not len(oof) and not len(test):  # slides are predicted from their files, not from here
        held = inference.predict_rows(
            tiny.store, tiny.held, tiny.path, classes=tiny.classes, path=_part(tiny, "held"),
            policy=views,
        )  # fmt: skip
        oof = held.assign(fold=tiny.fold, seed=tiny.seed, model=tiny.model)
    return oof, test
