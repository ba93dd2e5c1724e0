"""The stages of a run, one after another: tables on disk with the fingerprint of their inputs."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kit import (
    aggregate,
    alike,
    histories,
    jobs,
    kinds,
    marks,
    scoring,
    store,
    submission,
    training,
    weights,
)
from kit.challenge import Challenge
from kit.checks import columns, first
from kit.ensemble import Ensemble
from kit.errors import ImageError, SettingsError
from kit.files import (
    FileIndex,
    digest,
    fingerprint,
    read_json,
    read_table,
    remove_leftovers,
    sha256,
    write_json,
    write_text,
)
from kit.folds import assign_folds, check_no_leak, join_groups, subset, with_folds
from kit.models import check_model
from kit.policies import policy
from kit.recipes import recipe_of
from kit.scoring import Scored
from kit.settings import Settings, defaults, describe, difference, settings_key
from kit.stages import Stages
from kit.store import Store

log = logging.getLogger(__name__)

UNREADABLE = 0.05
CHOSEN = "the held-out fold chose the epoch, so that these figures are a little optimistic"
ENDING = 45.0  # seconds of a time budget that figures, submission and report may take
REHEARSED_FROM = 8  # epochs in all; a shorter training is as soon over as its rehearsal


class Run:
    """One run of a challenge: each method returns its table, making what is missing before it.

    Args:
        challenge: What is run.
        root: Folder that the dataset's paths are relative to.
        out: Folder of the run.
        settings: What it does.
        smoke: Whether the settings are those of a smoke run (no ledger line).
        ledger: The challenge's ledger; None keeps none.
        folds: Fold numbers to train; None: all.
        fold_table: A folds table to use in place of our own.
        workers: Processes; None: what cores and accelerators allow; 0: train in this process.
        time_budget: Seconds in which the submission must stand; None: no limit.

    Raises:
        SettingsError: The folder belongs to a run with other settings.
    """

    def __init__(
        self, challenge: Challenge, root: Path, out: Path, settings: Settings, *,
        smoke: bool = False, ledger: Path | None = None, folds: Sequence[int] | None = None,
        fold_table: Path | None = None, workers: int | None = None,
        time_budget: float | None = None,
    ) -> None:  # fmt: skip
        self.challenge, self.dataset = challenge, challenge.dataset
        self.root, self.out, self.settings = Path(root), Path(out), settings
        self.smoke, self.synthetic = smoke, challenge.dataset.synthetic
        self.ledger, self.only, self.fold_table = ledger, folds, fold_table
        self.trainers = jobs.default_workers(settings.threads) if workers is None else workers
        self.workers = max(1, workers or jobs.cores())
        self.until = math.inf if time_budget is None else time.time() + time_budget
        self._check()
        self._claim()
        self.stages = Stages(self.out)

    def _check(self) -> None:
        """Raise on what would fail later, before anything is read or written."""
        check_model(self.settings.model)
        recipe_of(self.settings)
        policy(self.settings.augment)
        policy(self.settings.second_augment)
        if self.dataset.could_take(self.root, self.out):
            raise SettingsError(
                "the run would be written among its data", received=f"--out {self.out}",
                path=self.root, remedy="choose another --out",
            )  # fmt: skip
        for fold in self.only or ():
            if self.fold_table is None and not 0 <= fold < self.settings.n_splits:
                raise SettingsError(
                    "no such fold", expected=f"0 to {self.settings.n_splits - 1}",
                    received=f"--folds {fold}",
                )  # fmt: skip

    def _claim(self) -> None:
        """Write `settings.json`, or refuse a folder whose settings are others."""
        mine = {
            "challenge": self.challenge.name, "dataset": self.dataset.name, "smoke": self.smoke,
            "fold_table": digest(self._given_folds()) if self.fold_table else None,
            **self.settings.model_dump(mode="json"),
        }  # fmt: skip
        path = self.out / "settings.json"
        if path.is_file():
            # A run made before a setting existed had what is now its default.
            theirs = {**defaults(), **read_json(path)["compared"]}
            different = difference(mine, theirs)
            if different and training.begun(self.models):
                raise SettingsError(
                    "the folder belongs to a run with other settings",
                    received=describe(different), path=self.out,
                    remedy="choose another --out, or leave it out to get a folder of its own",
                )  # fmt: skip
        remove_leftovers(self.out)
        write_json(path, {
            "fingerprint": self.fingerprint, "synthetic": self.synthetic, "compared": mine,
            "settings": self.settings.model_dump(mode="json"),
            "style": asdict(self.challenge.style), "entry": self.dataset.model_dump(mode="json"),
        })  # fmt: skip
        if self.synthetic:
            note = "SYNTHETIC: drawn data; figures and submission say nothing about patients.\n"
            write_text(self.out / "SYNTHETIC.txt", note)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the run's settings."""
        return fingerprint([self.challenge.name, self.dataset.name, settings_key(self.settings)])

    @property
    def models(self) -> Path:
        """Return the folder of networks and their predictions."""
        return self.out / "models"

    def cases(self) -> pd.DataFrame:
        """Return the cases table, with `key`, the fingerprint of each case's content."""
        return self._cases

    @cached_property
    def _cases(self) -> pd.DataFrame:
        table = self.dataset.cases(root=self.root)
        if self.settings.limit:
            table = subset(table, self.settings.limit, self.settings.n_splits, self.settings.seed)
        with self._inputs() as index:
            table["key"] = kinds.content_key(self.dataset, self.root, table, index)
        return self.stages.table("cases", digest(table), lambda: table)

    def patches(self) -> pd.DataFrame | None:
        """Return the patches table of slides and studies; None where a case is one image."""
        return self._planned[0]

    @cached_property
    def _planned(self) -> tuple[pd.DataFrame | None, pd.DataFrame]:
        """Return the patches table, and the cases that could not be opened, with the reason."""
        cases = self.cases()
        if self.dataset.kind not in kinds.PLANNED:
            return None, pd.DataFrame({"case_id": [], "reason": []}, dtype=object)

        @cache
        def plan() -> tuple[pd.DataFrame, pd.DataFrame]:
            return kinds.patches(
                cases, self.dataset, self.root, self.settings, folder=self.out / "plans",
                workers=self.workers,
            )  # fmt: skip

        given = digest(marks.unmarked(cases))
        inputs = [given, self._mask_keys(cases), settings_key(self.settings, *kinds.PLANS)]
        unopened = self.stages.table("unopened", inputs, lambda: plan()[1])
        return self.stages.table("patches", inputs, lambda: plan()[0]), unopened

    def _mask_keys(self, cases: pd.DataFrame) -> list[str]:
        if "mask" not in cases:
            return []
        with self._inputs() as index:
            masks = (self.root / mask for mask in cases["mask"] if isinstance(mask, str))
            return [index.sha256(mask) for mask in masks]

    @contextlib.contextmanager
    def _inputs(self) -> Iterator[FileIndex]:
        """Yield the sha256 of the inputs; what was read is kept also when reading is cut off."""
        index = FileIndex(self.out / "inputs.parquet")
        try:
            yield index
        finally:
            index.save()

    def pixels(self) -> Store:
        """Return the store of all images that are learnt from or predicted.

        Raises:
            ImageError: A test case cannot be read, or 5 % of the training cases or more.
        """
        return self._read[0]

    def failures(self) -> list[str]:
        """Return what could not be read and was left out, a line each."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Store, list[str]]:
        cases, unopened = self.cases(), self._planned[1]
        items = kinds.items(cases, self.patches(), self.settings)
        found, unread = store.build(
            self.out / "pixels", items,
            kinds.reader(self.dataset, self.root, self.settings, items),
            settings_key(self.settings, *kinds.READS), workers=self.workers,
            quality=self.settings.jpeg_quality,
        )  # fmt: skip
        failures = [*unopened.reason, *unread]
        gone = set(items.case_id) - set(found.items.case_id) | set(unopened.case_id)
        lost = cases[cases.case_id.isin(gone)]
        if (lost.split == "test").any():
            raise ImageError(
                "test cases cannot be read, and none may be left out", received=failures[0],
                path=self.root, remedy="mend or replace the file",
            )  # fmt: skip
        if len(lost) >= UNREADABLE * max(1, int((cases.split != "test").sum())):
            raise ImageError(
                "too many cases cannot be read", expected=f"less than {UNREADABLE:.0%}",
                received=f"{len(lost)} of {len(cases)}: {first(failures, 3)}", path=self.root,
            )  # fmt: skip
        for failure in failures:
            log.warning("left out: %s", failure)
        return found, failures

    def folds(self) -> pd.DataFrame:
        """Return the folds table: `case_id, group, label, fold`, a row for each training case."""
        return self._folds

    @cached_property
    def _folds(self) -> pd.DataFrame:
        cases, kept = self.cases(), self.pixels().items.case_id
        plan = self.patches()
        if plan is not None:  # a slide without tissue has no pixels and stays a case
            bare = set(cases.case_id) - set(plan.case_id) - set(self._planned[1].case_id)
            kept = pd.concat([kept, pd.Series(sorted(bare), dtype=object)])
        cases = cases[(cases.split != "test") & cases.case_id.isin(kept)].reset_index(drop=True)
        base, pairs = cases[["case_id", "group", "label"]], alike.within(self.alike(), cases)
        given = self._given_folds() if self.fold_table else None
        n_splits, seed = self.settings.n_splits, self.settings.seed
        inputs = [digest(base), digest(pairs), n_splits, seed, given is not None and digest(given)]

        def make() -> pd.DataFrame:
            if given is not None:
                asked = with_folds(base, given, path=str(self.fold_table))
                return check_no_leak(asked, pairs=pairs)
            joined = base.assign(group=join_groups(base, pairs))
            fold = assign_folds(joined, n_splits, label="label", group="group", seed=seed)
            return joined.assign(fold=fold.to_numpy())

        return check_no_leak(self.stages.table("folds", inputs, make), pairs=pairs)

    def alike(self) -> pd.DataFrame:
        """Return the pairs of cases that must stand together: copies, and crops that overlap."""
        return self._alike

    @cached_property
    def _alike(self) -> pd.DataFrame:
        cases, store = self.cases(), self.pixels()
        planned = self.dataset.kind in kinds.PLANNED
        pixels = store.items.drop(columns=["label", "train"])  # what a review may change
        inputs = [digest(marks.unmarked(cases)), digest(pixels)]
        return self.stages.table(
            "alike", inputs, lambda: alike.pairs_of(cases, store, planned=planned)
        )

    def _given_folds(self) -> pd.DataFrame:
        table = read_table(Path(str(self.fold_table)))
        return columns(table, ["case_id", "fold"], path=str(self.fold_table))[["case_id", "fold"]]

    def oof(self) -> pd.DataFrame:
        """Return the out-of-fold predictions, a row for each training case and network."""
        return self._predictions[0]

    def test(self) -> pd.DataFrame:
        """Return the predictions of the test cases, a row for each case and network."""
        return self._predictions[1]

    @cached_property
    def _predictions(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        values, folds, cases = self.settings, self.folds(), self.cases()
        self._rehearse()
        found = training.cross_validate(
            folds, self.pixels(), values.model, recipe_of(values), self.models, values.seeds,
            classes=self.dataset.classes, tta=values.tta, only=self.only, workers=self.trainers,
            everything=values.everything, until=self.until - ENDING, **self._pretrained(),
        )  # fmt: skip
        rule = values.aggregate if self.dataset.kind == "slides" else "mean"
        cases = cases[["case_id", "group", "label", "split"]]
        held = cases.drop(columns="group").merge(folds[["case_id", "group", "fold"]], on="case_id")
        held = held[held.fold.isin(found[0].fold)]  # of the folds that were asked for and trained
        asked = (held, cases[cases.split == "test"])
        oof, test = (
            aggregate.to_cases(part, mine, rule, self.dataset.classes, self.dataset.positive)
            for part, mine in zip(found, asked, strict=True)
        )
        return (
            self.stages.table("oof", digest(oof), lambda: oof),
            self.stages.table("test", digest(test), lambda: test),
        )

    def _pretrained(self) -> dict[str, Path | None]:
        """Return the files that the networks begin with or learn from."""
        named, teacher = self.settings.weights, self.settings.teacher
        return {
            "weights": None if named is None else weights.find(
                self.dataset, named, [self.dataset.manifest.parent, self.root, self.root.parent]
            ),
            "teacher": None if teacher is None else Path(teacher),
        }  # fmt: skip

    def _rehearse(self) -> None:
        """Before the first long training, take a tiny network the whole way to a submission."""
        values, folds = self.settings, self.folds()
        fits = training.plan(
            folds, self.pixels(), values.model, recipe_of(values), self.models, values.seeds,
            classes=self.dataset.classes, only=self.only, **self._pretrained(),
        )  # fmt: skip
        left = sum(fit.total for fit in fits if not fit.done())
        if left <= REHEARSED_FROM or training.begun(self.models):
            return
        log.info("rehearsal: a tiny network on a few images, all the way to a submission")
        views = values.augment if values.tta else "none"
        oof, test = training.rehearse(fits, folds, views, workers=self.trainers)
        rows = (test if len(test) else oof).drop_duplicates("case_id")
        data, style = self.dataset, self.challenge.style
        with tempfile.TemporaryDirectory(prefix="kit-rehearsal-") as folder:
            path = Path(folder) / "submission.csv"
            submission.write(path, submission.table(
                rows, style, data.classes, data.positive, 0.5 if data.positive else None
            ), style)  # fmt: skip
            submission.validate(path, style, list(rows.case_id), data.classes)

    def unfinished(self) -> list[str]:
        """Return the networks that the time budget left untrained, a line each."""
        there = set(zip(self.oof().fold, self.oof().seed, strict=True))
        numbers = self.only if self.only is not None else sorted(self.folds().fold.unique())
        return [
            f"fold {fold}, seed {seed}: not finished, the time was up; the same command goes on"
            for seed in range(self.settings.seeds)
            for fold in numbers
            if (fold, seed) not in there
        ]

    def ensemble(self) -> Ensemble:
        """Return the ensemble of all folds and seeds."""
        return Ensemble(self.settings.ensemble).fit(self.oof())

    def scored(self) -> Scored:
        """Return one row a case: joined probabilities and decisions, and the frozen threshold."""
        return scoring.score(
            self.oof(), self.folds(), self.ensemble(), classes=self.dataset.classes,
            positive=self.dataset.positive, method=self.settings.threshold,
        )  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        """Return the six metrics, their mean and AUC with intervals; also in `metrics.json`."""
        path, values = self.out / "metrics.json", self.settings
        cautions = alike.cautions(self.alike(), self.cases(), self.dataset.caution)
        if recipe_of(values).chooses:
            cautions = [*cautions, CHOSEN]
        inputs = [digest(self.oof()), digest(self.folds()), cautions, settings_key(values)]
        inputs += marks.key(self.cases())

        def make() -> None:
            found = scoring.figures(
                self.scored(), n_folds=self.folds().fold.nunique(), resamples=values.resamples,
                seed=values.seed, method=values.threshold, graded=self.dataset.graded,
                official=self.challenge.official, by="fold", cautions=cautions,
            )  # fmt: skip
            found |= scoring.reviewed(
                self.scored(), self.cases(), resamples=values.resamples, seed=values.seed,
                graded=self.dataset.graded,
            )  # fmt: skip
            write_json(path, found)

        self.stages.files("metrics", inputs, [path], make)
        found: dict[str, Any] = read_json(path)
        return found

    def submission(self) -> Path:
        """Write and validate `submission.csv`: the test cases, or the out-of-fold ones if none."""
        path, style, data = self.out / "submission.csv", self.challenge.style, self.dataset
        joined = self._final()
        threshold = self.metrics()["threshold"]
        inputs = [digest(joined), asdict(style), threshold, self._networks()]

        def make() -> None:
            rows = submission.table(joined, style, data.classes, data.positive, threshold)
            submission.write(path, rows, style)
            chosen = {
                **self.ensemble().to_dict(), "threshold": threshold, "networks": self._networks(),
            }  # fmt: skip
            write_json(self.out / "ensemble.json", chosen)

        self.stages.files("submission", inputs, [path, self.out / "ensemble.json"], make)
        submission.validate(path, style, list(joined.case_id), data.classes)
        return path

    def _networks(self) -> dict[str, str]:
        """Return the networks of the ensemble by name, with the sha256 of each."""
        rows = self.test() if len(self.test()) else self.oof()
        pairs = rows[["fold", "seed"]].drop_duplicates().sort_values(["fold", "seed"])
        names = [training.stem(fold, seed) for fold, seed in pairs.itertuples(index=False)]
        return {name: sha256(self.models / f"{name}.keras") for name in names}

    def _final(self) -> pd.DataFrame:
        return self.ensemble().predict(self.test() if len(self.test()) else self.oof())

    def report(self) -> Path:
        """Write `report.html` with the figures, and the figures on their own."""
        path, metrics = self.out / "report.html", self.metrics()
        inputs = [metrics, digest(self._final()), digest(self.cases()), self.failures()]
        self.stages.files("report", inputs, [path], lambda: self._report(metrics))
        return path

    def _report(self, metrics: dict[str, Any]) -> None:
        from kit import overview
        from kit.report import write_report

        store, values, plan = self.pixels(), self.settings, self.patches()
        drawn = {
            "contact_sheet": overview.images_by_class(store, self.dataset.classes, values.seed)
        }
        if self.dataset.kind == "slides" and plan is not None:
            drawn["patches_on_thumbnail"] = overview.patches_on_slide(
                self.cases(), plan, self.root, self.dataset.mpp
            )
        drawn |= overview.draw(
            self.cases(), self.folds(), histories.read_all(self.models), self.scored().table,
            metrics, classes=self.dataset.classes, positive=self.dataset.positive,
            final=self._final() if len(self.test()) else None,
        )  # fmt: skip
        write_report(
            self.out, title=self.challenge.name, settings=self.settings.model_dump(),
            metrics=metrics, figures=drawn, notes=scoring.beside(metrics),
            warnings=self._warnings(metrics), failures=self.failures(), synthetic=self.synthetic,
        )  # fmt: skip

    def _warnings(self, metrics: dict[str, Any]) -> list[str]:
        return [*metrics["warnings"], *alike.of_tests(self.alike(), self.cases())]

    def complete(self) -> dict[str, Any]:
        """Run every stage and return what `kit run --json` prints."""
        start = time.monotonic()
        metrics, path = self.metrics(), self.submission()
        self.report()
        if self.ledger is not None and not self.smoke and not self.synthetic:
            mean = metrics["mean_of_six"]
            submission.record(self.ledger, {
                "run": self.out.name, "fingerprint": fingerprint([self.fingerprint, metrics]),
                "mean_of_six": mean["value"], "low": mean["low"], "high": mean["high"],
                "auc": metrics["auc"]["value"],
            })  # fmt: skip
        return {
            **metrics, "warnings": self._warnings(metrics), "synthetic": self.synthetic,
            "failures": [*self.failures(), *self.unfinished()],
            "seconds": round(time.monotonic() - start, 2),
            "out": str(self.out), "submission": str(path),
        }  # fmt: skip
