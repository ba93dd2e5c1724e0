"""The slides of a run: what its networks see in each, and the score that each so gets."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit import aggregate, heatmaps, jobs, kinds, lesion_scores, mil, slide_features, slide_jobs
from kit.aggregate import Fitted
from kit.annotations import MaskImage, read_mask
from kit.encoders import SlideBags, bags, of_folds, of_new
from kit.errors import KitError
from kit.files import read_json, read_table, sha256, write_json
from kit.heatmaps import Heatmap
from kit.lesion_scores import Scores
from kit.manifest import Dataset
from kit.rules import Rule
from kit.settings import Settings
from kit.slides import open_slide
from kit.streams import Dense, slide_map

OUTLINED = 0.5  # least probability of what a heatmap outlines
LOOKED_AT = 0.9  # least rank of attention that is outlined
NETWORK = ["fold", "seed", "model"]


@dataclass(frozen=True)
class SlideStage:
    """How the slides of a data set are predicted and scored, by a run or by what it left.

    Attributes:
        dataset: The slides' entry of the manifest.
        root: Folder that paths are relative to.
        settings: How patches are chosen, seen and joined.
        folder: Where each slide's patch predictions are kept.
        workers: Processes.
    """

    dataset: Dataset
    root: Path
    settings: Settings
    folder: Path
    workers: int = 1

    @property
    def rule(self) -> Rule:
        """The rule that scores a slide.

        Raises:
            SettingsError: It scores one of two classes, and there are more.
        """
        return Rule.parse(self.settings.aggregate, len(self.dataset.classes))

    @property
    def _dense(self) -> Dense | None:
        """What is made of networks that answer for each pixel."""
        positive, values = self.dataset.positive, self.settings
        if positive is None:
            return None
        return Dense(positive, values.pixel_score, values.pixel_map)

    def predict(
        self, cases: pd.DataFrame, plan: pd.DataFrame, networks: Sequence[Path]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        """Return the table of each slide's patch predictions, and of those that failed, why.

        Args:
            cases: `case_id, path, key` and, where only the networks of a fold may see a slide,
                `fold`.
            plan: The patches table; slides without patches are in neither answer.
            networks: `.keras` files.
        """
        rows = kinds.to_predict(plan[plan["case_id"].isin(cases["case_id"])], self.settings)
        done = slide_jobs.predict_slides(
            cases, rows.reset_index(drop=True), networks, root=self.root,
            classes=self.dataset.classes, folder=self.folder, mpp=self.dataset.mpp,
            policy=self.settings.augment if self.settings.tta else "none", dense=self._dense,
            threads=self.settings.threads, workers=self.workers,
        )  # fmt: skip
        tables = {one.name: one.value for one in done if one.error is None}
        failed = {one.name: f"{one.name}: {one.error}" for one in done if one.error is not None}
        return tables, failed

    def bags(
        self, cases: pd.DataFrame, plan: pd.DataFrame, networks: Sequence[Path],
        folds: pd.DataFrame | None = None,
    ) -> SlideBags:  # fmt: skip
        """Return the vectors of slides' patches by the first network of each fold, made if missing.

        Args:
            cases: `case_id, path, key`.
            plan: The patches table.
            networks: The run's.
            folds: The run's folds table; None for slides of none of its folds.

        Raises:
            KitError: A slide cannot be read.
        """
        encoders, folder = of_folds(networks), self.folder / "vectors"
        rows = kinds.to_predict(plan[plan["case_id"].isin(cases["case_id"])], self.settings)
        jobs.values(slide_jobs.embed_slides(
            cases, rows.reset_index(drop=True), encoders, root=self.root, folder=folder,
            mpp=self.dataset.mpp, threads=self.settings.threads, workers=self.workers,
        ))  # fmt: skip
        return (
            of_new(cases, encoders, folder)
            if folds is None
            else bags(cases, encoders, folder, folds=folds)
        )

    def attention(self, networks: Path, bags: SlideBags, cases: pd.DataFrame, folder: Path) -> None:
        """Write the TIFF and GeoJSON of what networks of bags looked at in each slide.

        Args:
            networks: Folder of the networks.
            bags: The vectors.
            cases: `case_id, path, fold`; NaN is no fold: all networks.
            folder: Of the files.
        """
        for row in cases.to_dict("records"):
            seen = self.looked_at(networks, bags, row)
            with open_slide(self.root / str(row["path"]), mpp=self.dataset.mpp) as slide:
                heatmaps.write(seen, slide, folder, column="attention", threshold=LOOKED_AT)

    def looked_at(
        self, networks: Path, bags: SlideBags, case: Mapping[Hashable, Any]
    ) -> pd.DataFrame:
        """Return what networks of bags made of each patch of a slide (`mil.attention_table`)."""
        classes, positive = self.dataset.classes, self.dataset.positive
        return mil.attention_table(
            networks, bags, case["case_id"],
            fold=None if pd.isna(case["fold"]) else int(case["fold"]),
            towards=len(classes) - 1 if positive is None else classes.index(positive),
        )  # fmt: skip

    def features(self, tables: Mapping[str, Path], cases: pd.DataFrame) -> pd.DataFrame:
        """Return what the patches of each slide say together, a row for each network.

        Of two classes the features of `kit.slide_features`; of more, the mean of each class.
        """
        paths = cases.set_index("case_id")["path"]
        names = [f"prob_{name}" for name in self.dataset.classes]
        parts = []
        for case_id, path in tables.items():
            found = read_table(path)
            if self.dataset.positive is None:
                mean = found.groupby(["case_id", *NETWORK], sort=True)[names].mean()
                parts.append(mean.reset_index())
                continue
            mpp = {case_id: self._mpp(self.root / str(paths[case_id]))}
            parts.append(slide_features.table(
                found, self.dataset.positive, mpp=mpp, extra=self.rule.columns
            ))  # fmt: skip
        return pd.concat(parts, ignore_index=True) if parts else self._bare(names)

    def _bare(self, names: list[str]) -> pd.DataFrame:
        """Return the features of no slide."""
        if self.dataset.positive is None:
            return pd.DataFrame(columns=["case_id", *NETWORK, *names])
        none = pd.DataFrame(columns=["case_id", *NETWORK, "x", "y", "footprint", *names])
        return slide_features.table(none, self.dataset.positive, mpp={}, extra=self.rule.columns)

    def _mpp(self, path: Path) -> float | None:
        with open_slide(path, mpp=self.dataset.mpp) as slide:
            return slide.known_mpp

    def fit(
        self, features: pd.DataFrame, cases: pd.DataFrame
    ) -> tuple[pd.DataFrame, Fitted | None]:
        """Return the out-of-fold score of each training slide and network, and the fitted rule.

        Above two classes nothing is fitted.

        Args:
            features: Of the out-of-fold patches.
            cases: `case_id, group, fold, label, split`.
        """
        classes, positive = self.dataset.classes, self.dataset.positive
        if positive is None:
            return aggregate.to_cases(features, cases, classes, None), None
        fitted = aggregate.fit(self.rule, features, cases, classes, positive)
        return fitted.oof(), fitted

    def score(
        self, features: pd.DataFrame, cases: pd.DataFrame, fitted: Fitted | None
    ) -> pd.DataFrame:
        """Return the score of each new slide and network, by the rule as it was fitted.

        Args:
            features: Of the slides' patches.
            cases: `case_id, group`, at least one.
            fitted: The rule; None above two classes.
        """
        if fitted is None:
            return aggregate.to_cases(features, cases, self.dataset.classes, None)
        return fitted.predict(features, cases)

    def mask(self, case: Mapping[Hashable, Any]) -> MaskImage | None:
        """Return a slide's mask; None where it has none.

        Args:
            case: Its row: `path` and `mask`.
        """
        if not isinstance(case["mask"], str):
            return None
        with open_slide(self.root / str(case["path"]), mpp=self.dataset.mpp) as slide:
            return read_mask(
                self.root / case["mask"], slide, values=self.dataset.mask_values,
                frame=self.dataset.mask_frame,
            )  # fmt: skip

    def lesions(self, cases: pd.DataFrame, tables: Mapping[str, Path]) -> Scores:
        """Return how well the maps of slides find what the masks show.

        Args:
            cases: The slides: `case_id, path, label`, and `mask`, empty where there is none. Only
                slides with a mask, and negative ones, are looked at.
            tables: Patch predictions of each.
        """
        known = cases[cases["mask"].notna() | (cases["label"] != self.dataset.positive)]

        def pairs() -> Iterator[tuple[Heatmap, MaskImage | None]]:
            for row in known.to_dict("records"):
                with open_slide(self.root / str(row["path"]), mpp=self.dataset.mpp) as slide:
                    seen = _seen(tables[row["case_id"]])
                    heatmap = heatmaps.of_slide(seen, slide, self._column_of(seen))
                yield heatmap, self.mask(row)

        return lesion_scores.score(pairs(), threshold=OUTLINED)

    def _column_of(self, seen: pd.DataFrame | Heatmap) -> str | None:
        return f"prob_{self.dataset.positive}" if isinstance(seen, pd.DataFrame) else None

    def heatmaps(self, tables: Mapping[str, Path], cases: pd.DataFrame, folder: Path) -> None:
        """Write the TIFF and GeoJSON of each slide's positive class (see `kit.heatmaps.write`).

        Above two classes there is none.

        Raises:
            KitError: The disk is full, or the folder cannot be written.
        """
        if self.dataset.positive is None:
            return
        paths = cases.set_index("case_id")["path"]
        work = [
            jobs.Job(case_id, _heatmap, (
                self.root / str(paths[case_id]), self.dataset.mpp, table, folder,
                f"prob_{self.dataset.positive}",
            )) for case_id, table in tables.items()
        ]  # fmt: skip
        jobs.values(jobs.run(work, title="heatmaps"))


def _heatmap(path: Path, mpp: float | None, table: Path, folder: Path, column: str) -> None:
    seen = _seen(table)
    with open_slide(path, mpp=mpp) as slide:
        heatmaps.write(
            seen, slide, folder, threshold=OUTLINED,
            column=column if isinstance(seen, pd.DataFrame) else None,
        )  # fmt: skip


def _seen(table: Path) -> pd.DataFrame | Heatmap:
    """Return the map that networks of pixels left beside a slide's table, or else the table."""
    seen = slide_map(table)
    return read_table(table) if seen is None else seen


def rehearse(stage: SlideStage, case: pd.DataFrame, plan: pd.DataFrame, network: Path) -> None:
    """Take one slide through all that follows the training: prediction, heatmap, features, mask.

    A slide that cannot be read stops nothing: the run itself leaves it out.

    Args:
        stage: The run's.
        case: Its row: `case_id, path, key`, and `mask`.
        plan: Some of its patches.
        network: A network of the rehearsal; what is made lies beside it.
    """
    tried = replace(stage, folder=network.parent / "slides", workers=1)
    tables, _ = tried.predict(case, plan, [network])
    if not tables:
        return
    tried.heatmaps(tables, case, network.parent / "heatmaps")
    tried.features(tables, case)
    tried.mask({"mask": None, **case.to_dict("records")[0]})


def write_rule(path: Path, fitted: Fitted | None, pooling: Sequence[Path] = ()) -> None:
    """Write what scores slides as JSON: a fitted rule, networks of bags with their sha256, or none.

    Args:
        path: The file.
        fitted: The rule.
        pooling: The networks of bags.
    """
    write_json(path, {"fitted": None if fitted is None else fitted.to_dict(),
                      "pooling": {one.stem: sha256(one) for one in pooling}})  # fmt: skip


def read_rule(path: Path) -> Fitted | None:
    """Return the rule that `write_rule` wrote.

    Raises:
        KitError: The file is missing or holds something else.
    """
    found = read_json(path)
    if "fitted" not in found:
        raise KitError("not a fitted rule", path=path, expected="what a finished run wrote")
    return None if found["fitted"] is None else Fitted.from_dict(found["fitted"])


def networks_of(path: Path) -> dict[str, str]:
    """Return the networks of bags that `write_rule` noted, with their sha256; none of no file."""
    return dict(read_json(path).get("pooling", {})) if path.is_file() else {}
