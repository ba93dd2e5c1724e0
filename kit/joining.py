"""Finished runs joined to one ensemble: chosen out of fold, told honestly, frozen in one file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import submission
from kit._members import Objective
from kit.checks import first
from kit.ensemble import PREFIX, Ensemble, nested, path_of_gain, scores_of_models
from kit.errors import SettingsError, TableError
from kit.files import read_json, read_table, write_json
from kit.finished import Finished, load
from kit.metrics import REGISTRY
from kit.official import Official
from kit.scoring import Scored, decided, difference, figures
from kit.thresholds import choose

TIMED = 64  # images by which a network's speed is measured
LEAST_SECONDS = 1e-9


@dataclass(frozen=True)
class Runs:
    """Several finished runs of the same cases.

    Args:
        runs: By the name that tells their models apart.
        oof: Out-of-fold predictions of all models.
        test: Predictions of the test cases.
        folds: `case_id` and `fold` of the first run.
        warnings: What a reader must know.
    """

    runs: dict[str, Finished]
    oof: pd.DataFrame
    test: pd.DataFrame
    folds: pd.DataFrame
    warnings: tuple[str, ...]

    @cached_property
    def names(self) -> dict[str, str]:
        """Return the run of each model."""
        pairs = self.oof[["model", "run"]].drop_duplicates()
        return dict(zip(pairs["model"], pairs["run"], strict=True))


def gather(places: Sequence[Path]) -> Runs:
    """Return finished runs side by side, each model named RUN or, of several, RUN/MODEL.

    Raises:
        MissingDataError: A folder holds no finished run.
        SettingsError: A run is named twice.
        TableError: Runs are of other data, classes or cases.
    """
    named = _named([Path(place) for place in places])
    runs = {name: load(path) for name, path in named.items()}
    parts = {name: {part: read_table(path / f"{part}.parquet") for part in ("oof", "test", "folds")}
             for name, path in named.items()}  # fmt: skip
    lead, *others = runs
    for name in others:
        _same(lead, name, runs, parts)
    for name, tables in parts.items():
        several = tables["oof"]["model"].nunique() > 1
        for part in ("oof", "test"):
            model = tables[part]["model"].astype(str)
            tables[part]["model"] = name + "/" + model if several else name
            tables[part]["run"] = name
    moved = [
        name for name in others if not _equal_folds(parts[lead]["folds"], parts[name]["folds"])
    ]
    warnings = (
        f"folds differ from those of {lead}: {first(moved)}; a network of theirs has learnt from "
        "cases that the nested figure holds out, which flatters a little: train with --fold-table",
    )  # fmt: skip
    oof, test = (
        pd.concat([parts[name][part] for name in runs], ignore_index=True)
        for part in ("oof", "test")
    )
    folds = parts[lead]["folds"][["case_id", "fold"]]
    return Runs(runs, oof, test, folds, warnings if moved else ())


def _named(places: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for place in places:
        name = place.resolve().name
        if place.resolve() in {other.resolve() for other in named.values()}:
            raise SettingsError("a run is given twice", received=str(place))
        if name in named:
            name = f"{place.resolve().parent.name}/{name}"
        if name in named:
            raise SettingsError("two runs cannot be told apart by their folders' names",
                                received=name, remedy="rename one folder")  # fmt: skip
        named[name] = place
    return named


def _same(lead: str, name: str, runs: Mapping[str, Finished], parts: Mapping[str, Any]) -> None:
    """Raise unless two runs are of the same data set, classes and cases."""
    mine, theirs = runs[lead], runs[name]
    for what in ("name", "classes", "positive"):
        one, other = getattr(mine.dataset, what), getattr(theirs.dataset, what)
        if one != other:
            said = "data set" if what == "name" else what
            raise TableError(f"runs differ in their {said}", expected=f"{one} ({lead})",
                             received=f"{other} ({name})")  # fmt: skip
    for part in ("oof", "test"):
        a, b = (set(parts[n][part]["case_id"].astype(str)) for n in (lead, name))
        if a != b:
            raise TableError(
                f"runs have other cases ({part})", expected=f"those of {lead}",
                received=f"{len(a - b)} that {name} lacks: {first(sorted(a - b))}; "
                f"{len(b - a)} more: {first(sorted(b - a))}",
                remedy="finish all folds of each run on the same data",
            )  # fmt: skip


def _equal_folds(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    both = one[["case_id", "fold"]].merge(other[["case_id", "fold"]], on="case_id")
    return bool((both["fold_x"] == both["fold_y"]).all())


def costs(runs: Runs, *, seconds: bool) -> dict[str, dict[str, float]]:
    """Return what each model costs: `mb` of its networks, and `seconds` for the test cases.

    Args:
        runs: As `gather` returns them.
        seconds: Whether networks are loaded and timed on random images here.
    """
    found = {}
    for model, name in runs.names.items():
        run = runs.runs[name]
        mine = [path for path in run.models if _model_of(path) == _bare(model, name)]
        paths = mine or list(run.models)
        found[model] = {"mb": sum(path.stat().st_size for path in paths) / 1e6}
        if seconds:
            cases = len(runs.test[runs.test["model"] == model]) or len(runs.folds) * len(paths)
            found[model]["seconds"] = sum(_seconds(path) for path in paths) * cases / len(paths)
    return found


def _model_of(network: Path) -> str:
    return str(read_json(network.with_suffix(".json"))["model"])


def _bare(model: str, run: str) -> str:
    return model.removeprefix(f"{run}/")


def _seconds(network: Path) -> float:
    """Return the seconds that a network takes for one image, on this machine."""
    from kit.backend import load_backend

    load_backend(os.cpu_count() or 1)
    import keras

    loaded = keras.saving.load_model(network, compile=False)
    images = np.random.default_rng(0).integers(0, 255, (TIMED, *loaded.input_shape[1:]), np.uint8)
    loaded.predict(images, verbose=0)
    start = time.perf_counter()
    loaded.predict(images, verbose=0)
    return max(LEAST_SECONDS, time.perf_counter() - start) / TIMED


def scorer(official: Official, runs: Runs) -> Objective:
    """Return a judge's scorer as an objective, decisions at the threshold best for the mean of six.

    Args:
        official: The scorer.
        runs: Whose classes, and positive one, it is of.
    """
    dataset = next(iter(runs.runs.values())).dataset
    place = None if dataset.positive is None else dataset.classes.index(dataset.positive)

    def score(codes: np.ndarray, probs: np.ndarray) -> float:
        if place is None:
            return official(codes, probs.argmax(axis=1), probs[:, -1])
        truth, prob = (codes == place).astype(int), probs[:, place]
        called = prob >= choose(truth, prob, "mean_of_six")
        return official(truth, called.astype(int), prob)

    return score


@dataclass(frozen=True)
class Chosen:
    """An ensemble, and what may be believed of it.

    Args:
        ensemble: Fitted to all out-of-fold predictions.
        threshold: Frozen threshold of the positive class; None above two classes.
        nested: Scored with each fold's rows joined and decided by what the others chose.
        equal: Equal weights of all models, decided likewise.
        optimistic: Fitted to, decided on and scored on the same rows.
        models: A row for each model: `model`, `weight`, its own `score`, `near_copy_of`, costs.
        gain: The objective as models are added: `n_models`, `model`, `score`.
        warnings: What a reader must know.
    """

    ensemble: Ensemble
    threshold: float | None
    nested: Scored
    equal: Scored
    optimistic: Scored
    models: pd.DataFrame
    gain: pd.DataFrame
    warnings: tuple[str, ...]


def choose_ensemble(runs: Runs, ensemble: Ensemble, method: float | str) -> Chosen:
    """Choose an ensemble of runs and score it without flattery.

    Args:
        runs: As `gather` returns them.
        ensemble: How models are joined, not fitted yet.
        method: How the threshold is chosen: see `kit.thresholds.choose`.

    Raises:
        SettingsError, TableError: As in `Ensemble.fit` and `kit.ensemble.nested`.
    """
    dataset = next(iter(runs.runs.values())).dataset
    classes, positive = dataset.classes, dataset.positive
    ensemble = replace(ensemble, positive=positive)
    fitted = ensemble.fit(runs.oof)
    joined = fitted.predict(runs.oof).merge(runs.folds, on="case_id")
    optimistic = decided(joined.assign(fold=0), classes=classes, positive=positive,
                         method=_on_all(joined, positive, method))  # fmt: skip
    return Chosen(
        fitted, optimistic.threshold, _nested(runs, ensemble, classes, positive, method),
        _nested(runs, Ensemble("mean", positive=positive), classes, positive, method), optimistic,
        _models(fitted, runs), path_of_gain(ensemble, runs.oof), runs.warnings,
    )  # fmt: skip


def _on_all(joined: pd.DataFrame, positive: str | None, method: float | str) -> float:
    if positive is None:
        return 0.5
    truth = (joined["y_true"] == positive).to_numpy()
    return choose(truth, joined[PREFIX + positive].to_numpy(), method)


def _nested(
    runs: Runs, ensemble: Ensemble, classes: Sequence[str], positive: str | None,
    method: float | str,
) -> Scored:  # fmt: skip
    """Return the cases of each fold, joined and decided by what all other folds chose."""
    parts = []
    for part in nested(ensemble, runs.oof, runs.folds):
        cut = _on_all(part.elsewhere, positive, method)
        held = decided(part.held.assign(fold=part.fold), classes=classes, positive=positive,
                       method=cut)  # fmt: skip
        parts.append(held.table)
    table = pd.concat(parts).sort_values("case_id", ignore_index=True)
    rule = "weights and thresholds nested by fold, each chosen on the other folds"
    return Scored(table, None, rule, tuple(classes), positive)


def _models(fitted: Ensemble, runs: Runs) -> pd.DataFrame:
    table = scores_of_models(fitted, runs.oof)
    table.insert(1, "weight", fitted.weights)
    known = fitted.costs or costs(runs, seconds=False)
    return table.join(pd.DataFrame([known[model] for model in table["model"]]))


def told(
    chosen: Chosen, *, objective: str, resamples: int, seed: int, official: Official | None = None
) -> dict[str, Any]:
    """Return the figures of a chosen ensemble: nested, beside equal weights and the optimistic.

    Args:
        chosen: As `choose_ensemble` returns it.
        objective: Figure that the advice is about; another than the reports' is judged by AUC or by
            the mean of six.
        resamples: Of the intervals.
        seed: Of the intervals.
        official: The judge's scorer.

    Returns:
        The keys of `kit score --json` for the nested ensemble, `equal` and `optimistic` with the
        same figures, `against_equal` with the differences nested less equal, `advice`, `models`
        and `gain`.
    """
    folds = chosen.nested.table["fold"].nunique()
    found, equal, best = (
        figures(scored, n_folds=n, resamples=resamples, seed=seed, method=0.5, official=official)
        for scored, n in ((chosen.nested, folds), (chosen.equal, folds), (chosen.optimistic, 1))
    )
    apart = difference(chosen.equal, chosen.nested, resamples=resamples, seed=seed)
    name = objective if objective in apart else _nearest_figure(objective)
    return {
        **found, "threshold": chosen.threshold, "method": chosen.ensemble.method,
        "equal": _short(equal), "optimistic": {
            **_values(best), "threshold": chosen.threshold,
            "why": "weights and threshold were chosen on these very rows",
        },
        "against_equal": apart, "judged_by": name, "advice": _advice(name, apart[name]),
        "models": chosen.models.to_dict(orient="records"),
        "gain": chosen.gain.to_dict(orient="records"),
        "warnings": [*found["warnings"], *_copies(chosen.models), *chosen.warnings],
    }  # fmt: skip


def _nearest_figure(objective: str) -> str:
    decides = objective in REGISTRY and REGISTRY[objective].takes == "y_pred"
    return "mean_of_six" if decides else "auc"


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in found.items() if isinstance(v, Mapping) and "low" in v}


def _values(found: Mapping[str, Any]) -> dict[str, float]:
    return {k: v["value"] for k, v in _short(found).items()}


def _advice(name: str, apart: Mapping[str, float]) -> str:
    said = f"{name} {apart['value']:+.4f} [{apart['low']:+.4f}, {apart['high']:+.4f}]"
    if apart["low"] > 0:
        return f"better than equal weights: {said}"
    if apart["high"] < 0:
        return f"worse than equal weights, take --method mean: {said}"
    return f"equal weights are as good: {said}"


def _copies(models: pd.DataFrame) -> list[str]:
    rows = models[models["near_copy_of"] != ""]
    pairs = [f"{a} of {b}" for a, b in zip(rows["model"], rows["near_copy_of"], strict=True)]
    return [f"near copies vote twice: {first(pairs)}"] if pairs else []


def freeze(chosen: Chosen, runs: Runs, path: Path) -> dict[str, Any]:
    """Write the ensemble as one small JSON, from which `kit predict` goes on; return it.

    Runs stand by their place relative to the file; those without weight are left out.
    """
    models = dict(zip(chosen.ensemble.models, chosen.ensemble.weights, strict=True))
    needed = sorted({runs.names[model] for model, weight in models.items() if weight > 0})
    lead = next(iter(runs.runs.values()))
    places = {
        name: os.path.relpath(Path(runs.runs[name].out).resolve(), path.resolve().parent)
        for name in needed
    }
    found = {
        **chosen.ensemble.to_dict(), "threshold": chosen.threshold, "style": asdict(lead.style),
        "runs": places, "run_of_model": runs.names,
    }  # fmt: skip
    write_json(path, found)
    return found


def submit(chosen: Chosen, runs: Runs, path: Path) -> pd.DataFrame:
    """Write and validate the submission of the test cases; return them joined.

    Raises:
        TableError: The runs have no test cases.
    """
    if not len(runs.test):
        raise TableError("the runs have no test cases to submit", remedy="leave --submission out")
    lead = next(iter(runs.runs.values()))
    joined = chosen.ensemble.predict(runs.test.drop(columns="run"))
    classes = lead.dataset.classes
    rows = submission.table(joined, lead.style, classes, lead.dataset.positive, chosen.threshold)
    submission.write(path, rows, lead.style)
    submission.validate(path, lead.style, list(joined["case_id"]), classes)
    return joined
