"""The stages of a run from its folds to its predictions: networks, and a row for each case."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from kit import aggregate, kinds, mil, plans, slide_scores, submission, training, weights
from kit.aggregate import Fitted
from kit.encoders import SlideBags
from kit.errors import SettingsError, TableError
from kit.files import digest, sha256, table_key
from kit.prepared import Prepared
from kit.recipes import recipe_of
from kit.slide_scores import SlideStage

log = logging.getLogger(__name__)

ENDING, SHARE = 45.0, 0.25  # of a time budget, for figures, submission and report: the lesser
REHEARSED_FROM, REHEARSED_TIME = 8, 300.0  # epochs in all, and seconds of a time budget:
# a shorter training is as soon over as its rehearsal.
REHEARSED_PATCHES = 4
POOLED_SEEDS = 3  # networks of bags for each fold, at least: single ones scatter


class Predicted(Prepared):
    """A run up to its predictions; see `Prepared`."""

    def _check(self) -> None:
        super()._check()
        values = self.settings
        if self.streamed and self.slides.rule.pooled and values.everything != "no":
            raise SettingsError(
                "an encoder that has learnt from all slides cannot serve the folds",
                expected="everything=no", received=f"aggregate={values.aggregate}, "
                f"everything={values.everything}",
            )  # fmt: skip
        self._pretrained()

    def oof(self) -> pd.DataFrame:
        """Return the out-of-fold predictions, a row for each training case and network."""
        return self._predictions[0]

    def test(self) -> pd.DataFrame:
        """Return the predictions of the test cases, a row for each case and network."""
        return self._predictions[1]

    @cached_property
    def _predictions(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        if self.streamed:
            oof, test, _ = self._slide_scores
        else:
            found, data = self._trained, self.dataset
            classes, positive, votes = data.classes, data.positive, self.settings.votes
            oof, test = (
                aggregate.to_cases(part, mine, classes, positive, votes=votes)
                for part, mine in zip(found, self._asked(found[0].fold), strict=True)
            )
        return (
            self.stages.table("oof", digest(oof), lambda: oof),
            self.stages.table("test", digest(test), lambda: test),
        )

    def patch_predictions(self) -> dict[str, Path]:
        """Return the table of each slide's patch predictions; a slide without patches has none."""
        return self._seen[0]

    def images_oof(self) -> pd.DataFrame:
        """Return what the networks say of each image of a training case, out of fold.

        A row for each image (of a study: each slice) and network; of slides see
        `patch_predictions`.
        """
        return self._trained[0]

    def slide_rule(self) -> Fitted | None:
        """Return the rule that scores slides, as it was fitted; None of other cases."""
        return self._slide_scores[2] if self.streamed else None

    @cached_property
    def _trained(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return what the networks, trained here, say of each stored item that is predicted."""
        values, tests = self.settings, (self.cases().split == "test").any()
        self._rehearse()
        return training.cross_validate(
            self.folds(), self.pixels(), values.model, recipe_of(values), self.models, values.seeds,
            classes=self.dataset.classes, tta=values.tta, only=self.only, workers=self.trainers,
            everything=values.everything if tests else "no", later=self._later(),
            until=self._end(), **self._pretrained(),
        )  # fmt: skip

    def _asked(self, numbers: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the training cases of these folds, with the fold, and the test cases."""
        cases, folds = self.cases(), self.folds()
        held = cases.drop(columns="group").merge(folds[["case_id", "group", "fold"]], on="case_id")
        return held[held.fold.isin(numbers)], cases[cases.split == "test"]

    @property
    def streamed(self) -> bool:
        """Whether cases are slides, predicted from their files patch by patch."""
        return self.dataset.kind in kinds.STREAMED

    @property
    def slides(self) -> SlideStage:
        """How slides are predicted and scored."""
        return SlideStage(
            self.dataset, self.root, self.settings, self.out / "slides", max(1, self.trainers)
        )

    def _later(self) -> int:
        """Return how many patches all networks together predict when the last is trained."""
        plan = self.patches()
        if plan is None or not self.streamed:
            return 0
        rows, cases = kinds.to_predict(plan, self.settings), self.cases()
        tests = int(rows.case_id.isin(cases.case_id[cases.split == "test"]).sum())
        folds = self.folds().fold.nunique()
        embedded = folds * len(rows) if self.slides.rule.pooled else 0
        return self.settings.seeds * (len(rows) + (folds - 1) * tests) + embedded

    @cached_property
    def _seen(self) -> tuple[dict[str, Path], dict[str, str]]:
        """Return the patch predictions of each slide, and of those that failed, why."""
        _, plan = self._trained, self.patches()
        if plan is None:
            return {}, {}
        networks = plans.networks(self.models)
        everything = networks.fold == training.EVERYTHING
        held, test = self._asked(networks.fold)
        asked = [(pd.concat([held, test], ignore_index=True), networks)]
        if everything.any() and self.settings.everything == "only":
            asked = [(held, networks[~everything]), (test, networks[everything])]
        tables: dict[str, Path] = {}
        failed: dict[str, str] = {}
        for cases, mine in asked:
            paths = [self.models / f"{name}.keras" for name in mine.name]
            found, lost = self.slides.predict(cases, plan, paths)
            tables, failed = tables | found, failed | lost
        self._leave_out(set(failed), list(failed.values()))
        return tables, failed

    @cached_property
    def _slide_scores(self) -> tuple[pd.DataFrame, pd.DataFrame, Fitted | None]:
        """Return the slides' scores, out of fold and of the test slides, and the fitted rule."""
        if self.slides.rule.pooled:
            return (*self._pooled[:2], None)
        tables, lost = self._seen
        held, test = self._asked(plans.networks(self.models).fold)
        held = held[~held.case_id.isin(lost)]
        features = self.stages.table(
            "features",
            [self.settings.aggregate, {k: table_key(p) for k, p in tables.items()}],
            lambda: self.slides.features(tables, self.cases()),
        )
        oof, fitted = self.slides.fit(features[features.case_id.isin(held.case_id)], held)
        path = self.out / "rule.json"
        self.stages.files(
            "rule", [self.settings.aggregate, digest(features), digest(held)], [path],
            lambda: slide_scores.write_rule(path, fitted),
        )  # fmt: skip
        mine = features[features.case_id.isin(test.case_id)]
        scores = self.slides.score(mine, test, fitted) if len(test) else oof.iloc[:0]
        return oof, scores, fitted

    @cached_property
    def _pooled(self) -> tuple[pd.DataFrame, pd.DataFrame, SlideBags]:
        """Return what networks of bags say of slides, and the vectors that they saw."""
        (_, lost), values, plan = self._seen, self.settings, self.patches()
        if plan is None:
            raise TableError("no slide has a patch", remedy="lower min_tissue")
        cases, folds = (table[~table.case_id.isin(lost)] for table in (self.cases(), self.folds()))
        tests, networks = cases[cases.split == "test"], plans.networks(self.models).name
        bags = self.slides.bags(
            cases, plan, [self.models / f"{name}.keras" for name in networks], folds
        )
        oof, test = mil.cross_validate(
            folds, bags, classes=self.dataset.classes, positive=self.dataset.positive,
            out=self.pooling, model=self.slides.rule.name, tests=tests if len(tests) else None,
            only=sorted(bags.of_fold), seeds=max(POOLED_SEEDS, values.seeds), seed=values.seed,
            threads=values.threads, device=values.device, workers=self.trainers,
        )  # fmt: skip
        path, made = self.out / "rule.json", mil.files(self.pooling, oof)
        self.stages.files(
            "rule", [self.settings.aggregate, [sha256(one) for one in made]], [path],
            lambda: slide_scores.write_rule(path, None, made),
        )  # fmt: skip
        return oof, test, bags

    @property
    def pooling(self) -> Path:
        """Folder of the networks of bags."""
        return self.out / "mil"

    def failures(self) -> list[str]:
        """Return what could not be read and was left out, a line each; slides when predicted."""
        return [*super().failures(), *(self._seen[1].values() if self.streamed else ())]

    def _end(self) -> float:
        """Return when the predictions must be there, for figures and submission to be in time."""
        left = self.until - self.begun
        return self.until - (min(ENDING, SHARE * left) if math.isfinite(left) else 0.0)

    def _pretrained(self) -> dict[str, Path | None]:
        """Return the files that the networks begin with or learn from."""
        teacher = self.settings.teacher
        return {
            "weights": self._begun_with(self.settings.weights),
            "teacher": None if teacher is None else plans.check_teacher(Path(teacher)),
        }  # fmt: skip

    def _begun_with(self, named: str | None) -> Path | None:
        """Return the file of weights: of the manifest, or a network of a finished run."""
        if named is None:
            return None
        if named not in self.dataset.weights and (Path(named) / "settings.json").is_file():
            return plans.begun_with(Path(named), self.dataset.name)
        places = [self.dataset.manifest.parent, self.root, self.root.parent]
        return weights.find(self.dataset, named, places)

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
        oof, test = training.rehearse(
            fits, folds, views, workers=self.trainers, then=self._one_slide()
        )
        rows = (test if len(test) else oof).drop_duplicates("case_id")
        data, style = self.dataset, self.challenge.style
        with tempfile.TemporaryDirectory(prefix="kit-rehearsal-") as folder:
            path = Path(folder) / "submission.csv"
            submission.write(path, submission.table(
                rows, style, data.classes, data.positive, 0.5 if data.positive else None
            ), style)  # fmt: skip
            submission.validate(path, style, list(rows.case_id), data.classes)

    def _one_slide(self) -> Callable[[Path], None] | None:
        """Return what takes a training slide through all that follows the networks."""
        plan = self.patches()
        if plan is None or not self.streamed:
            return None
        cases = self.cases()[self.cases().case_id.isin(plan.case_id)]
        masked = cases[cases["mask"].notna()] if "mask" in cases else cases.iloc[:0]
        case = (masked if len(masked) else cases).iloc[:1]
        rows = plan[plan.case_id.isin(case.case_id)].iloc[:REHEARSED_PATCHES]
        return partial(slide_scores.rehearse, self.slides, case, rows)

    def unfinished(self) -> list[str]:
        """Return the networks that the time budget left untrained, a line each."""
        self.oof()
        made = plans.networks(self.models)
        there = set(zip(made.fold, made.seed, strict=True))
        numbers = self.only if self.only is not None else sorted(self.folds().fold.unique())
        return [
            f"fold {fold}, seed {seed}: not finished, the time was up; the same command goes on"
            for seed in range(self.settings.seeds)
            for fold in numbers
            if (fold, seed) not in there
        ]
