"""What a run draws on slides: heatmaps, attention, lesions found, and the figures of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import aggregate, heatmaps, mil, slide_report
from kit.files import digest, read_json, read_table, sha256, table_key, write_json
from kit.lesion_scores import Scores
from kit.predicted import Predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mapped(Predicted):
    """A run up to what it draws on its slides; of other cases nothing. See `Prepared`."""

    def about_slides(self) -> tuple[dict[str, Any], list[str]]:
        """Return what is said of slides beside the figures, and the cautions."""
        if not self._mapped():
            return {}, []
        positive, rule = str(self.dataset.positive), self.slide_rule()
        inside = slide_report.inside(
            self.patch_predictions(), self.patches(), self.folds(), positive
        )
        tied = aggregate.ties(self.oof(), positive) if rule is None else rule.ties
        name = self.settings.aggregate
        chosen = {"all": name} if rule is None else slide_report.chosen(rule)
        return slide_report.told(name, chosen, tied, inside), slide_report.cautions(tied)

    def _mapped(self) -> bool:
        """Return whether there is a class whose probability is drawn on slides."""
        return self.streamed and self.dataset.positive is not None

    def heatmaps(self) -> dict[str, tuple[Path, Path]]:
        """Write `heatmaps/<case_id>.tif` and `.geojson` of each slide; return their paths.

        Above two classes, and of cases that are no slides, there is none.

        Raises:
            KitError: The disk is full, or the folder cannot be written.
        """
        if not self._mapped():
            return {}
        tables, folder = self.patch_predictions(), self.out / "heatmaps"
        found = {name: heatmaps.paths(name, folder) for name in tables}
        wanted = [path for pair in found.values() for path in pair]

        def make() -> None:
            for old in {*folder.glob("*.tif"), *folder.glob("*.geojson")} - {*wanted}:
                old.unlink()  # of a slide that is no longer predicted
            self.slides.heatmaps(tables, self.cases(), folder)

        inputs = {name: table_key(path) for name, path in tables.items()}
        self.stages.files("heatmaps", inputs, wanted, make)
        return found

    def attention(self) -> dict[str, tuple[Path, Path]]:
        """Write `attention/<case_id>.tif` and `.geojson`: where networks of bags looked.

        There is none of slides without a patch, nor where a rule scores slides.

        Raises:
            KitError: The disk is full, or the folder cannot be written.
        """
        if not self.streamed or not self.slides.rule.pooled:
            return {}
        (oof, _, bags), tables = self._pooled, self.patch_predictions()
        cases, folder = self.cases(), self.out / "attention"
        cases = cases[cases.case_id.isin(list(tables))]
        cases = cases.merge(self.folds()[["case_id", "fold"]], on="case_id", how="left")
        found = {name: heatmaps.paths(name, folder) for name in cases.case_id}
        self.stages.files(
            "attention",
            [[sha256(one) for one in mil.files(self.pooling, oof)],
             {name: table_key(tables[name]) for name in found}],
            [path for pair in found.values() for path in pair],
            lambda: self.slides.attention(self.pooling, bags, cases, folder),
        )  # fmt: skip
        return found

    def lesions(self) -> dict[str, Any] | None:
        """Return how well heatmaps find what masks show, out of fold; also in `lesions.json`.

        Dice, IoU and FROC; None of cases without masks.
        """
        cases, path = self.cases(), self.out / "lesions.json"
        if not self.heatmaps() or "mask" not in cases or not cases["mask"].notna().any():
            return None
        inputs = [{name: table_key(table) for name, table in self.patch_predictions().items()},
                  self._mask_keys(cases), digest(cases[["case_id", "label", "split"]])]  # fmt: skip
        self.stages.files(
            "lesions", inputs, [path],
            lambda: write_json(path, slide_report.told_of_lesions(self._lesions)),
        )  # fmt: skip
        told: dict[str, Any] = read_json(path)
        return told

    @cached_property
    def _lesions(self) -> Scores:
        cases, shown = self.cases(), self.heatmaps()
        mine = cases[cases.case_id.isin(list(shown)) & (cases.split != "test")]
        return self.slides.lesions(mine, self.patch_predictions())

    def slide_figures(self, joined: pd.DataFrame) -> dict[str, Figure]:
        """Return the figures of the slide that is surest of the positive class, test or not.

        Args:
            joined: A row for each case that is predicted: `case_id`, `prob_<class>`.
        """
        case = self._surest(joined)
        return {} if case is None else self._most_suspicious(case) | self._looked_at(case)

    def _most_suspicious(self, case: Mapping[Hashable, Any]) -> dict[str, Figure]:
        from kit import figures, overview

        shown = self.heatmaps()
        if not shown:
            return {}
        name = case["case_id"]
        found = {"slide_heatmap": overview.slide_heatmap(
            self.root / case["path"], self.dataset.mpp, self.slides.mask({"mask": None, **case}),
            shown[name][0], read_table(self.patch_predictions()[name]),
        )}  # fmt: skip
        lesions = self.lesions()
        if lesions is not None and lesions["lesions"] and self._lesions.froc is not None:
            found["froc"] = figures.froc(self._lesions.froc)
        return found

    def _looked_at(self, case: Mapping[Hashable, Any]) -> dict[str, Figure]:
        from kit import overview

        shown = self.attention()
        if not shown:
            return {}
        folds, bags = self.folds(), self._pooled[2]
        own = folds.fold[folds.case_id == case["case_id"]]
        seen = self.slides.looked_at(
            self.pooling, bags, {**case, "fold": own.iloc[0] if len(own) else None}
        )
        return {
            "slide_attention": overview.slide_attention(
                self.root / case["path"], self.dataset.mpp,
                self.slides.mask({"mask": None, **case}), shown[case["case_id"]][0], seen,
            ),
            "embedding_map": overview.vectors_by_class(
                folds[folds.fold == min(bags.of_fold)], bags, seed=self.settings.seed
            ),
        }  # fmt: skip

    def _surest(self, joined: pd.DataFrame) -> dict[Hashable, Any] | None:
        """Return the case with patches that is surest of the positive class, or of the last."""
        last = self.dataset.positive or self.dataset.classes[-1]
        joined = joined[joined.case_id.isin(list(self.patch_predictions()))]
        if not len(joined):
            return None
        best = joined.sort_values(f"prob_{last}").case_id.iloc[-1]
        found: dict[Hashable, Any] = self.cases()[self.cases().case_id == best].to_dict("records")[
            0
        ]
        return found
