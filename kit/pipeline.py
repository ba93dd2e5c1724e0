"""The stages of a run, one after another: tables on disk with the fingerprint of their inputs."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kit import aggregate, alike, histories, marks, plans, scoring, submission, training, weights
from kit.ensemble import Ensemble
from kit.files import digest, fingerprint, read_json, sha256, write_json
from kit.prepared import Prepared
from kit.recipes import recipe_of
from kit.scoring import Scored
from kit.settings import settings_key

log = logging.getLogger(__name__)

CHOSEN = "the held-out fold chose the epoch, so that these figures are a little optimistic"
ENDING, SHARE = 45.0, 0.25  # of a time budget, for figures, submission and report: the lesser
REHEARSED_FROM, REHEARSED_TIME = 8, 300.0  # epochs in all, and seconds of a time budget:
# a shorter training is as soon over as its rehearsal.


class Run(Prepared):
    """One run of a challenge, from its cases to a submission and a report; see `Prepared`."""

    def _check(self) -> None:
        super()._check()
        self._pretrained()

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
            everything=values.everything, until=self._end(), **self._pretrained(),
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

    def _end(self) -> float:
        """Return when the predictions must be there, for figures and submission to be in time."""
        left = self.until - self.begun
        return self.until - (min(ENDING, SHARE * left) if math.isfinite(left) else 0.0)

    def _pretrained(self) -> dict[str, Path | None]:
        """Return the files that the networks begin with or learn from."""
        named, teacher = self.settings.weights, self.settings.teacher
        return {
            "weights": None if named is None else weights.find(
                self.dataset, named, [self.dataset.manifest.parent, self.root, self.root.parent]
            ),
            "teacher": None if teacher is None else plans.check_teacher(Path(teacher)),
        }  # fmt: skip

    def _rehearse(self) -> None:
        """Before the first long training, take a tiny network the whole way to a submission."""
        values, folds = self.settings, self.folds()
        fits = training.plan(
            folds, self.pixels(), values.model, recipe_of(values), self.models, values.seeds,
            classes=self.dataset.classes, only=self.only, **self._pretrained(),
        )  # fmt: skip
        left = sum(fit.total for fit in fits if not fit.done())
        short = self._end() - time.time() < REHEARSED_TIME
        if left <= REHEARSED_FROM or short or training.begun(self.models):
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
