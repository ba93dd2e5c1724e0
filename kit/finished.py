"""Finished runs: applied to data that came later, and listed side by side."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit import aggregate, inference, jobs, kinds, ledger, mil, store, submission
from kit.backend import load_backend
from kit.checks import first
from kit.ensemble import Ensemble
from kit.errors import ImageError, KitError, MissingDataError
from kit.files import FileIndex, check_writable, fingerprint, read_json, sha256
from kit.manifest import Dataset
from kit.settings import Settings
from kit.slide_scores import SlideStage, networks_of, read_rule
from kit.stain import Normaliser
from kit.submission import Format

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """What later data need of a run: its dataset's entry, settings, networks and decisions."""

    out: Path
    dataset: Dataset
    settings: Settings
    style: Format
    ensemble: Ensemble
    threshold: float | None
    models: tuple[Path, ...]
    stain: Normaliser | None = None
    pooling: tuple[Path, ...] = ()


def need(out: Path, *names: str) -> Path:
    """Return a run's folder if these of its files are there.

    Raises:
        MissingDataError: One is not: the folder holds no run, or one that is not finished.
    """
    for name in names:
        if not (Path(out) / name).is_file():
            raise MissingDataError(
                f"no finished run: {name} is missing", path=out,
                remedy="finish it with the `kit run` command that made it",
            )  # fmt: skip
    return Path(out)


def load(out: Path) -> Finished:
    """Return a finished run.

    Raises:
        MissingDataError: The folder holds no run, or one that is not finished.
    """
    out = need(out, "settings.json", "ensemble.json", "metrics.json")
    said, chosen = read_json(out / "settings.json"), read_json(out / "ensemble.json")
    style = {**said["style"], "codes": tuple(tuple(pair) for pair in said["style"]["codes"])}
    place = out / "models" if (out / "models").is_dir() else out  # a bundle has no folders
    models = tuple(place / f"{name}.keras" for name in chosen["networks"])
    pooling, apart = networks_of(out / "rule.json"), out / "mil"
    bags = tuple((apart if apart.is_dir() else out) / f"{name}.keras" for name in pooling)
    for model, sha in zip(
        [*models, *bags], [*chosen["networks"].values(), *pooling.values()], strict=True
    ):
        if not model.is_file() or sha256(model) != sha:
            raise MissingDataError(
                "a network of the ensemble is missing or damaged", path=model,
                remedy="run the `kit run` command that made it again: it is trained anew",
            )  # fmt: skip
    entry = Dataset.model_validate({**said["entry"], "manifest": out / "settings.json"})
    return Finished(
        out, entry, Settings(**said["settings"]), Format(**style),
        Ensemble.from_dict(chosen), chosen["threshold"], models,
        Normaliser.from_dict(said["stain"]) if said.get("stain") else None, bags,
    )  # fmt: skip


def predict(
    out: Path, data: Path | None, path: Path, *, root: Path | None = None, workers: int = 1,
    heatmaps: Path | None = None, failed: float | None = None,
    unread: dict[str, str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Apply a finished run, or an ensemble of several, to later data and write a submission.

    No label is read.

    Args:
        out: Folder of the run, or the JSON file that `kit ensemble` wrote.
        data: Folder of the same layout, from which the manifest's relative roots start.
        path: The submission to write.
        root: The folder that paths are relative to itself, in place of data.
        workers: Processes that read.
        heatmaps: Folder for the heatmaps of slides; None: none are written. Of several runs each
            has a folder of its own in it.
        failed: Probability of the positive class of a slide that cannot be opened or read, which is
            named in a warning; None, and above two classes: an error. It is a number among what the
            run's rule gives: an area's or a classifier's may be far from those of a mean.
        unread: Is given these slides, and why.

    Slides that are cut off go on where they were: their predictions stand beside the submission
    until it is whole.

    Returns:
        One row a case: `case_id, group`, `prob_<class>`.

    Raises:
        ImageError: An image cannot be read: none may be left out.
        MissingDataError: A run is missing, not finished or damaged.
    """
    out = Path(out)
    single = not out.is_file()
    runs = load_all(out)
    _check_place(path, [run.out for run in runs.values()])
    if heatmaps is not None:
        check_writable(heatmaps)
    lead = next(iter(runs.values()))
    lost: dict[str, str] = {} if unread is None else unread
    # Processes, and machines even more, may have another working folder.
    tables, work = [], path.absolute().with_name(f".{path.name}.parts")
    for name, run in runs.items():
        where = (root or run.dataset.root(data)).absolute()
        place = work / fingerprint([str(run.out.resolve()), str(where.resolve())])
        maps = heatmaps and heatmaps.absolute() / name
        tables.append(_of_run(run, where, place, workers, maps, failed, lost).assign(run=name))
    ensemble, threshold = lead.ensemble, lead.threshold
    if not single:
        chosen = read_json(out)
        ensemble, threshold = Ensemble.from_dict(chosen).needed(), chosen["threshold"]
        tables = [_renamed(table, chosen["run_of_model"], ensemble.models) for table in tables]
    joined = ensemble.predict([table.drop(columns="run") for table in tables])
    joined = _of_sample(joined, lead.dataset, root or lead.dataset.root(data))
    classes, positive = lead.dataset.classes, lead.dataset.positive
    rows = submission.table(joined, lead.style, classes, positive, threshold)
    submission.write(path, rows, lead.style)
    submission.validate(path, lead.style, list(joined.case_id), classes)
    shutil.rmtree(work, ignore_errors=True)
    return joined


def _of_sample(joined: pd.DataFrame, dataset: Dataset, root: Path) -> pd.DataFrame:
    """Return a row for each case that the later data's sample submission asks for."""
    for line in dataset.unseen(root, joined.assign(split="test")).values():
        log.warning("every class gets the same probability: %s", line)
    return submission.completed(joined, dataset.asked(root), dataset.classes)


def load_all(path: Path) -> dict[str, Finished]:
    """Return the runs that an ensemble's JSON names, by name; of a run's folder that run, named "".

    Raises:
        MissingDataError: A run is missing, not finished or damaged, or the file names none.
    """
    if not path.is_file():
        return {"": load(path)}
    places = read_json(path).get("runs")
    if not places:
        raise MissingDataError("no ensemble of runs", path=path, expected="what kit ensemble wrote",
                               remedy="give that file, or a run's folder")  # fmt: skip
    return {name: load(path.resolve().parent / place) for name, place in places.items()}


def _check_place(path: Path, folders: list[Path]) -> None:
    inside = any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
    if path.is_dir() or inside:
        raise KitError(
            "cannot be the file of later predictions", path=path,
            expected="a file outside the run's own folder", remedy="choose another --out",
        )  # fmt: skip


def _renamed(table: pd.DataFrame, runs: dict[str, str], models: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of the ensemble's models, under the names that it knows them by."""
    run = str(table["run"].iloc[0])
    mine = [name for name in models if runs[name] == run]
    named = {name.removeprefix(f"{run}/"): name for name in mine}
    if list(named) == [run]:  # the run's only model goes by the run's name
        return table.assign(model=run)
    return table[table["model"].isin(named)].assign(model=table["model"].map(named))


def _of_run(
    run: Finished, root: Path, work: Path, workers: int, maps: Path | None,
    failed: float | None, lost: dict[str, str],
) -> pd.DataFrame:  # fmt: skip
    """Return the predictions of later data by all networks of one run, a row a case and network."""
    classes, positive = run.dataset.classes, run.dataset.positive
    cases = run.dataset.cases(labels=False, root=root)
    kept = run.dataset.kind in kinds.STREAMED  # what takes long is not made again
    with (
        contextlib.nullcontext(work)
        if kept
        else jobs.scratch("kit-predict-", work.parent.parent) as folder
    ):
        place = Path(folder)
        index = FileIndex(place / "inputs.parquet")
        cases["key"] = kinds.content_key(run.dataset, root, cases, index, run.settings)
        plan, unopened = None, pd.DataFrame({"case_id": [], "reason": []}, dtype=object)
        if run.dataset.kind in kinds.PLANNED:
            plan, unopened = kinds.patches(
                cases, run.dataset, root, run.settings, folder=place / "plans", workers=workers
            )
        if plan is not None and run.dataset.kind in kinds.STREAMED:
            stage = SlideStage(run.dataset, root, run.settings, place, workers)
            lost |= dict(zip(unopened.case_id, unopened.reason, strict=True))
            return _of_slides(run, stage, cases, plan, lost, maps, failed)
        load_backend(run.settings.threads)
        items = kinds.items(cases, plan, run.settings, positive=run.dataset.positive)
        pixels, failures = store.build(
            place, items, kinds.reader(run.dataset, root, run.settings, items), "later",
            workers=workers,
            quality=run.settings.jpeg_quality, normaliser=run.stain,
        )  # fmt: skip
        _need_all([*unopened.reason, *failures], root)
        parts = inference.predict_all(
            pixels, run.models, classes=classes, folder=place,
            policy=run.settings.augment if run.settings.tta else "none",
        )  # fmt: skip
        return aggregate.to_cases(parts, cases, classes, positive, votes=run.settings.votes)


def _of_slides(
    run: Finished, stage: SlideStage, cases: pd.DataFrame, plan: pd.DataFrame,
    lost: dict[str, str], maps: Path | None, failed: float | None,
) -> pd.DataFrame:  # fmt: skip
    """Return the score of each slide by each network; `failed` is that of one that cannot be read.

    All slides are read before the first that fails is told.
    """
    tables, unread = stage.predict(cases, plan, run.models)
    lost |= unread
    positive = run.dataset.positive
    if failed is None or positive is None:
        _need_all(list(lost.values()), stage.root)
    if maps is not None:
        stage.heatmaps(tables, cases, maps)
    read = cases[~cases.case_id.isin(lost)]
    if not len(read):
        _need_all(list(lost.values()), stage.root)
    if run.pooling:
        bags = stage.bags(read, plan, run.models)
        said = mil.predict(run.pooling, bags, list(read.case_id), run.dataset.classes)
        found = aggregate.to_cases(said, read, run.dataset.classes, positive)
    else:
        rule = read_rule(run.out / "rule.json")
        found = stage.score(stage.features(tables, read), read, rule)
    if failed is None or not lost:
        return found
    for reason in lost.values():
        log.warning("scored %g, because it cannot be read: %s", failed, reason)
    stated = (
        found[aggregate.NETWORK]
        .drop_duplicates()
        .merge(cases.loc[cases.case_id.isin(lost), ["case_id", "group"]], how="cross")
    )
    for name in run.dataset.classes:
        stated[f"prob_{name}"] = failed if name == positive else 1 - failed
    both = pd.concat([found, stated.assign(y_true=None)[list(found)]], ignore_index=True)
    return both.sort_values(["case_id", *aggregate.NETWORK], ignore_index=True)


def _need_all(failures: Sequence[str], root: Path) -> None:
    if failures:
        raise ImageError(
            "images cannot be read, and no case may be left out", path=root,
            received=f"{len(failures)}: {first(failures)}", remedy="mend or replace the file",
        )  # fmt: skip


def side_by_side(folder: Path) -> pd.DataFrame:
    """Return a row for each finished run below a folder: what differs, and how it did.

    Columns: run; each setting in which the runs differ; `mean_of_six` and `auc`, each a mapping of
    value, low and high; `leaderboard`, from the ledger, empty where unknown.
    """
    found = sorted(
        path.parent for path in Path(folder).rglob("metrics.json")
        if (path.parent / "oof.parquet").is_file()  # not the copy of a run in a bundle
    )  # fmt: skip
    if not found:
        raise MissingDataError("no finished runs", path=folder, remedy="kit run CHALLENGE")
    compared = [read_json(out / "settings.json")["compared"] for out in found]
    keys = [k for k in compared[0] if len({str(one.get(k)) for one in compared}) > 1]
    rows = []
    for out, values in zip(found, compared, strict=True):
        metrics = read_json(out / "metrics.json")
        known = ledger.read(out.parent / "ledger.csv")
        scores = known[known.run == out.name].leaderboard
        rows.append({
            "run": str(out.relative_to(folder)), **{key: values.get(key) for key in keys},
            "mean_of_six": metrics["mean_of_six"], "auc": metrics["auc"],
            "leaderboard": scores.iloc[-1] if len(scores) else "",
        })  # fmt: skip
    return pd.DataFrame(rows)
