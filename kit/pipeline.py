"""The stages of a run, one after another: tables on disk with the fingerprint of their inputs."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import (
    alike,
    histories,
    ledger,
    locks,
    marks,
    plans,
    scoring,
    slide_report,
    studies,
    submission,
)
from kit.ensemble import Ensemble
from kit.files import digest, read_json, write_json
from kit.mapped import Mapped
from kit.recipes import recipe_of
from kit.scoring import Scored
from kit.settings import settings_key

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

CHOSEN = "the held-out fold chose the epoch, so that these figures are a little optimistic"


class Run(Mapped):
    """One run of a challenge, from its cases to a submission and a report; see `Prepared`."""

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
        about, said = self.about_slides()
        cautions = [*alike.cautions(self.alike(), self.cases(), self.dataset.caution), *said,
                    *self.left_alone()]  # fmt: skip
        if recipe_of(values).chooses:
            cautions = [*cautions, CHOSEN]
        inputs = [digest(self.oof()), digest(self.folds()), cautions, settings_key(values),
                  *marks.key(self.cases()), *([about] if about else [])]  # fmt: skip

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
            write_json(path, found | about)

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
        there = plans.networks(self.models)
        mine = there[there.fold.isin(rows.fold) & there.seed.isin(rows.seed)]
        return dict(sorted(zip(mine.name, mine.sha256, strict=True)))

    def _final(self) -> pd.DataFrame:
        """Return the joined predictions that are handed in: of the cases that are asked for."""
        if not len(self.test()):
            return self.ensemble().predict(self.oof())
        joined = self.ensemble().predict(self.test())
        return submission.completed(joined, self.dataset.asked(self.root), self.dataset.classes)

    def report(self) -> Path:
        """Write `report.html` with the figures, and the figures on their own."""
        path, metrics = self.out / "report.html", self.metrics()
        inputs = [metrics, self.lesions(), digest(self._final()), digest(self.cases()),
                  self.failures()]  # fmt: skip
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
            drawn |= self.slide_figures(self._final())
        drawn |= overview.draw(
            self.cases(), self.folds(), histories.read_all(self.models), self.scored().table,
            metrics, classes=self.dataset.classes, positive=self.dataset.positive,
            final=self._final() if len(self.test()) else None,
        )  # fmt: skip
        write_report(
            self.out, title=self.challenge.name, settings=self.settings.model_dump(),
            metrics=metrics, figures=drawn, notes=[*scoring.beside(metrics), *self._found()],
            warnings=self._warnings(metrics), failures=self.failures(), synthetic=self.synthetic,
        )  # fmt: skip

    def _found(self) -> list[str]:
        """Return lines on what patches and heatmaps find inside slides."""
        return slide_report.beside(self.metrics(), self.lesions())

    def _warnings(self, metrics: dict[str, Any]) -> list[str]:
        return [
            *metrics["warnings"], *alike.of_tests(self.alike(), self.cases()),
            *studies.cautions(self.patches()),
        ]  # fmt: skip

    def complete(self) -> dict[str, Any]:
        """Run every stage and return what `kit run --json` prints.

        Raises:
            SettingsError: Another run is at work in the folder.
        """
        with locks.held(self.out):
            return self._completed()

    def _completed(self) -> dict[str, Any]:
        start = time.monotonic()
        metrics, path = self.metrics(), self.submission()
        about = self.lesions()
        self.report()
        if self.ledger is not None and not self.smoke and not self.synthetic:
            ledger.record(self.ledger, {
                "run": self.out.name, "fingerprint": ledger.mark(path),
                **ledger.local(metrics, self.challenge.official),
            })  # fmt: skip
        return {
            **metrics, "warnings": self._warnings(metrics), "synthetic": self.synthetic,
            "failures": [*self.failures(), *self.unfinished()],
            **({} if about is None else {"lesions": about}),
            "seconds": round(time.monotonic() - start, 2),
            "out": str(self.out), "submission": str(path),
        }  # fmt: skip
