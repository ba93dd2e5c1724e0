"""The slides of a run through its networks: each slide is a job with a table of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import apart, jobs
from kit.backend import load_backend
from kit.checks import columns, first, unique_ids
from kit.encoders import embed_slide, headless, vectors_key, vectors_path
from kit.errors import ModelError, TableError
from kit.files import fingerprint, read_json, table_key
from kit.slides import open_slide
from kit.streams import Dense, Member, load, predict_slide, prediction_key

LOADED = 64  # networks that a process keeps
SHARES = 4  # parts of the slides for each worker at most: a process loads its networks for a part
LEAST = 5000  # patches of a part: they take as long as a process to begin


def predict_slides(
    cases: pd.DataFrame, plan: pd.DataFrame, networks: Sequence[Path], *, root: Path,
    classes: Sequence[str], folder: Path, policy: str = "none", mpp: float | None = None,
    dense: Dense | None = None, threads: int = 1, workers: int = 1,
) -> list[jobs.Outcome]:  # fmt: skip
    """Predict the planned patches of slides; one that fails is an outcome with its error.

    A slide whose table stands with its fingerprint is not opened; one that was cut off goes on
    where it was. The rest of a slide's predictions wait for nothing: heatmaps, slide scores and
    draws of hard negatives are made of these tables.

    Args:
        cases: `case_id, path, key` (fingerprint of the content), and `fold`: a slide with a fold is
            predicted by the networks that have not seen that fold, one without by all.
        plan: Patches table of all of them; a slide without patches has no job.
        networks: `.keras` files, each with its note (`.json`) beside it.
        root: Folder that the paths start from.
        classes: Class names, in the order of the networks' outputs.
        folder: Where each slide's table is kept.
        policy: Augmentation policy whose views are averaged over; "none" is the patch as it is.
        mpp: Resolution of level 0 of all slides, in place of what the files say.
        dense: What is made of networks that answer for each pixel: their map stands beside a
            slide's table (`kit.streams.slide_map`).
        threads: Threads of the networks in each process.
        workers: 1 is this process; more are processes of their own.

    Returns:
        For each case with patches, in their order, the path of its table (see
        `kit.streams.predict_slide`) or why there is none.

    Raises:
        TableError: A planned slide is no case, or no network is of a case's fold.
    """
    places = _planned(cases, plan)
    notes = {path: read_json(Path(path).with_suffix(".json")) for path in networks}
    work, standing = [], dict[str, Path]()
    for case in cases[cases.case_id.isin(list(places))].to_dict("records"):
        name = str(case["case_id"])
        mine = _of_fold(name, float(case.get("fold", np.nan)), notes)
        members = tuple((path, str(notes[path]["sha256"])) for path in mine)
        rows, path = places[name], table_path(folder, name)
        made_by = fingerprint([case["key"], policy, mpp])
        wanted = prediction_key(rows, [sha for _, sha in members], classes, made_by, dense)
        if table_key(path) == wanted:
            standing[name] = path
        work.append(jobs.Job(name, _predict, (
            root / str(case["path"]), mpp, rows, members, tuple(classes), policy, path, made_by,
            dense, threads,
        )))  # fmt: skip
    return _watched(work, standing, places, workers, "predicting slides")


def embed_slides(
    cases: pd.DataFrame, plan: pd.DataFrame, encoders: Sequence[Path], *, root: Path, folder: Path,
    mpp: float | None = None, threads: int = 1, workers: int = 1,
) -> list[jobs.Outcome]:  # fmt: skip
    """Make the vectors of slides' planned patches; a slide that fails is an outcome with its error.

    Every slide is shown to every encoder: which of them may serve which fold `kit.encoders.bags`
    says. What stands is left, and a slide that was cut off goes on where it was.

    Args:
        cases: `case_id, path, key` (fingerprint of the content).
        plan: Patches table of all of them; a slide without patches gets files without rows.
        encoders: `.keras` files of networks with their heads, each with its note (`.json`) beside
            it: one without labels (`kit.encoders.unlabelled`), or a run's own.
        root: Folder that the paths start from.
        folder: Where the vectors are kept: `<encoder>/<case_id>.parquet`.
        mpp: Resolution of level 0 of all slides, in place of what the files say.
        threads: Threads of the networks in each process.
        workers: 1 is this process; more are processes of their own.

    Returns:
        For each case, in their order, the paths of its files, or why there are none.

    Raises:
        TableError: A planned slide is no case.
    """
    places = _planned(cases, plan)
    shas = {path: str(read_json(Path(path).with_suffix(".json"))["sha256"]) for path in encoders}
    work, standing = [], dict[str, tuple[Path, ...]]()
    for case in cases.to_dict("records"):
        name = str(case["case_id"])
        rows = places.setdefault(name, plan.iloc[:0])
        paths = tuple(vectors_path(folder, path, name) for path in encoders)
        made_by = fingerprint([case["key"], mpp])
        wanted = [vectors_key(rows, sha, made_by) for sha in shas.values()]
        if [table_key(path) for path in paths] == wanted:
            standing[name] = paths
        work.append(jobs.Job(name, _embed, (
            root / str(case["path"]), mpp, rows, tuple(shas.items()), paths, made_by, threads
        )))  # fmt: skip
    return _watched(work, standing, places, workers, "embedding slides")


def _planned(cases: pd.DataFrame, plan: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each slide that has some; cases and plan must fit each other."""
    columns(cases, ["case_id", "path", "key"])
    unique_ids(cases.case_id)
    unknown = plan.case_id[~plan.case_id.isin(cases.case_id)]
    if len(unknown):
        raise TableError("planned slides are no cases", received=first(unknown.unique()))
    return {str(name): rows.reset_index(drop=True)
            for name, rows in plan.groupby("case_id", sort=False)}  # fmt: skip


def table_path(folder: Path, case_id: str) -> Path:
    """Return where a slide's table is kept."""
    return folder / f"{fingerprint(case_id)}.parquet"


def _of_fold(case_id: str, fold: float, notes: Mapping[Path, Mapping[str, Any]]) -> list[Path]:
    """Return the networks that may predict a case; a fold of NaN is none."""
    found = [path for path, note in notes.items() if np.isnan(fold) or note["fold"] == fold]
    if not found:
        there = sorted({str(note["fold"]) for note in notes.values()})
        raise TableError(
            "no network has left a case out", received=f"{case_id}, fold {fold:g}",
            expected=f"networks of its fold; there are those of {first(there) or 'none'}",
        )  # fmt: skip
    return found


def _watched(
    work: Sequence[jobs.Job], standing: Mapping[str, Any], places: Mapping[str, pd.DataFrame],
    workers: int, title: str,
) -> list[jobs.Outcome]:  # fmt: skip
    """Run the jobs that do not stand, under a bar that counts patches: rate and time left.

    Returns:
        The outcomes of all, in their order; of a job that stands its value in `standing`.
    """
    from tqdm import tqdm

    left = [job for job in work if job.name not in standing]
    patches = {job.name: len(places[job.name]) for job in left}
    done = {name: jobs.Outcome(name, value, None, 0.0) for name, value in standing.items()}
    outcomes = map(jobs.call, left) if workers == 1 else _apart(left, patches, workers)
    with (
        tqdm(total=sum(patches.values()), desc=title, unit=" patches", unit_scale=True,
             disable=None, leave=False) as bar,
    ):  # fmt: skip
        for outcome in outcomes:
            bar.update(patches[outcome.name])
            done[outcome.name] = outcome
    return [done[job.name] for job in work]


def _apart(
    work: Sequence[jobs.Job], patches: Mapping[str, int], workers: int
) -> Iterator[jobs.Outcome]:
    """Yield the outcomes, in order, of slides that fresh processes predict, some slides each.

    A process loads its networks once. Of one that dies, each slide has its error.
    """
    if not work:
        return
    total = sum(patches[job.name] for job in work)
    count = min(SHARES * workers, max(1, total // LEAST), len(work))
    ends = np.cumsum([patches[job.name] for job in work])
    place = np.minimum((ends - 1) * count // max(1, total), count - 1)
    parts = [
        tuple(job for job, mine in zip(work, place, strict=True) if mine == number)
        for number in np.unique(place)
    ]
    named = [jobs.Job(f"{part[0].name} to {part[-1].name}", _in_turn, (part,)) for part in parts]
    with contextlib.closing(apart.each(named, workers=workers)) as found:
        for part, outcome in zip(parts, found, strict=True):
            if outcome.error is None:
                yield from outcome.value
            else:
                yield from (jobs.Outcome(job.name, None, outcome.error, 0.0) for job in part)


def _in_turn(part: Sequence[jobs.Job]) -> list[jobs.Outcome]:
    return [jobs.call(job) for job in part]


def _predict(
    slide_path: Path, mpp: float | None, plan: pd.DataFrame, members: Sequence[tuple[Path, str]],
    classes: Sequence[str], policy: str, path: Path, key: str, dense: Dense | None, threads: int,
) -> Path:  # fmt: skip
    """Predict one slide and return the path of its table."""
    load_backend(threads)
    from kit.augment import views

    with open_slide(slide_path, mpp=mpp) as slide:
        predict_slide(
            slide, plan, [_loaded(*member) for member in members], classes=classes,
            views=views(policy),
            path=path, key=key, dense=dense, progress=True,
        )  # fmt: skip
    return path


def _embed(
    slide_path: Path, mpp: float | None, plan: pd.DataFrame, encoders: Sequence[tuple[Path, str]],
    paths: Sequence[Path], key: str, threads: int,
) -> tuple[Path, ...]:  # fmt: skip
    """Make the vectors of one slide and return the paths of its files."""
    load_backend(threads)
    with open_slide(slide_path, mpp=mpp) as slide:
        members = [_headless(*encoder) for encoder in encoders]
        embed_slide(slide, plan, members, paths=paths, key=key, progress=True)
    return tuple(paths)


@lru_cache(maxsize=LOADED)
def _headless(path: Path, sha: str) -> Member:
    """Return a network without its head, made once in each process."""
    return headless(_loaded(path, sha))


@lru_cache(maxsize=LOADED)
def _loaded(path: Path, sha: str) -> Member:
    """Return a network, loaded once in each process."""
    found = load(path)
    if found.key != sha:
        raise ModelError("the network changed while it was used", path=path)
    return found
