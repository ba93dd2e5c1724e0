"""The stages before training: cases, patches, pixels and folds, each a table on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path

import pandas as pd

from kit import alike, jobs, kinds, locks, marks, store, studies, training
from kit.challenge import Challenge
from kit.checks import columns, first
from kit.errors import ImageError, SettingsError
from kit.files import (
    FileIndex,
    digest,
    fingerprint,
    read_json,
    read_table,
    remove_leftovers,
    write_json,
    write_text,
)
from kit.folds import assign_folds, check_no_leak, join_groups, subset, with_folds
from kit.models import check_model
from kit.recipes import recipe_of
from kit.settings import Settings, defaults, describe, difference, settings_key
from kit.stages import Stages
from kit.store import Store

log = logging.getLogger(__name__)

UNREADABLE = 0.05


SYNTHETIC = "SYNTHETIC: drawn data; figures and submission say nothing about patients.\n"


class Prepared:
    """A run up to its folds: each method returns its table, making what is missing before it.

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
        self.begun = time.time()
        self.until = math.inf if time_budget is None else self.begun + time_budget
        self._check()
        self._claim()
        self.stages = Stages(self.out)

    def _check(self) -> None:
        """Raise on what would fail later, before anything is read or written."""
        check_model(self.settings.model)
        recipe_of(self.settings)
        studies.check(self.dataset, self.settings)
        kinds.normaliser(self.dataset, self.settings)
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
        """Write `settings.json`, or refuse a folder whose settings are others.

        Where another run is at work, one of the same settings may be opened to look at.
        """
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
        normaliser = kinds.normaliser(self.dataset, self.settings)
        said = {
            "fingerprint": self.fingerprint, "synthetic": self.synthetic, "compared": mine,
            "settings": self.settings.model_dump(mode="json"),
            "style": asdict(self.challenge.style), "entry": self.dataset.model_dump(mode="json"),
            "stain": normaliser and normaliser.to_dict(),
        }  # fmt: skip
        try:
            with locks.held(self.out):
                remove_leftovers(self.out)
                write_json(path, said)
                if self.synthetic:
                    write_text(self.out / "SYNTHETIC.txt", SYNTHETIC)
        except SettingsError:
            if not path.is_file() or read_json(path) != json.loads(json.dumps(said)):
                raise

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
            table["key"] = kinds.content_key(self.dataset, self.root, table, index, self.settings)
        return self.stages.table("cases", digest(table), lambda: table)

    def patches(self) -> pd.DataFrame | None:
        """Return the patches table of slides and studies; None where a case is one image."""
        return self._planned[0]

    @cached_property
    def _planned(self) -> tuple[pd.DataFrame | None, pd.DataFrame]:
        """Return the patches table, and the cases that could not be opened, with the reason."""
        cases, kind = self.cases(), self.dataset.kind
        if kind not in kinds.PLANNED:
            return None, pd.DataFrame({"case_id": [], "reason": []}, dtype=object)

        @cache
        def plan() -> tuple[pd.DataFrame, pd.DataFrame]:
            return kinds.patches(
                cases, self.dataset, self.root, self.settings, folder=self.out / "plans",
                workers=self.workers,
            )  # fmt: skip

        given = digest(marks.unmarked(cases))
        data = self.dataset
        inputs = [given, self._mask_keys(cases), settings_key(self.settings, *kinds.plans(kind)),
                  data.mask_values, data.mask_frame, data.mpp]  # fmt: skip
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

    def left_alone(self) -> list[str]:
        """Return a line that says how many patches' stains were not normalised, if any were not."""
        items = self.pixels().items
        n = int(items.left_alone.sum()) if "left_alone" in items else 0
        said = store.LEFT_ALONE.format(n, len(items))
        return [f"stain={self.settings.stain}: {said}"] if n else []

    def failures(self) -> list[str]:
        """Return what could not be read and was left out, a line each."""
        return [*self._read[1], *self._unseen]

    @cached_property
    def _unseen(self) -> list[str]:
        """Return what is asked for and has no image, or has one and is not asked for."""
        cases, asked = self.cases(), self.dataset.asked(self.root)
        tests = cases.case_id[cases.split == "test"]
        if asked is None or not len(tests):
            return []
        lost = self.dataset.unseen(self.root, cases).values()
        more = tests[~tests.isin(asked)]
        return [
            *(f"{line}; every class gets the same probability" for line in lost),
            *(f"{case}: {self.dataset.sample} does not ask for it; left out" for case in more),
        ]

    @cached_property
    def _read(self) -> tuple[Store, list[str], set[str]]:
        """Return the store, what could not be read, and the cases that are lost by it."""
        cases, unopened = self.cases(), self._planned[1]
        items = kinds.items(
            cases, self.patches(), self.settings, streamed=self.dataset.kind in kinds.STREAMED,
            positive=self.dataset.positive,
        )  # fmt: skip
        normaliser = kinds.normaliser(self.dataset, self.settings)
        found, unread = store.build(
            self.out / "pixels", items,
            kinds.reader(self.dataset, self.root, self.settings, items),
            settings_key(self.settings, *kinds.reads(self.dataset.kind)), workers=self.workers,
            quality=self.settings.jpeg_quality, normaliser=normaliser,
        )  # fmt: skip
        failures = list(dict.fromkeys([*unopened.reason, *unread]))  # a study fails slice by slice
        gone = set(items.case_id) - set(found.items.case_id) | set(unopened.case_id)
        self._leave_out(gone, failures)
        return found, failures, gone

    def _leave_out(self, gone: set[str], failures: Sequence[str]) -> None:
        """Say which cases are left out, or raise where one may not be, or they are too many."""
        cases = self.cases()
        lost = cases[cases.case_id.isin(gone)]
        tests = tuple(f"{case}: " for case in lost.case_id[lost.split == "test"])
        if tests:
            told = [line for line in failures if line.startswith(tests)]
            raise ImageError(
                "test cases cannot be read, and none may be left out", received=first(told),
                path=self.root, remedy="mend or replace the file",
            )  # fmt: skip
        if len(lost) >= UNREADABLE * max(1, int((cases.split != "test").sum())):
            raise ImageError(
                "too many cases cannot be read", expected=f"less than {UNREADABLE:.0%}",
                received=f"{len(lost)} of {len(cases)}: {first(failures, 3)}", path=self.root,
            )  # fmt: skip
        for failure in failures:
            log.warning("left out: %s", failure)

    def folds(self) -> pd.DataFrame:
        """Return the folds table: `case_id, group, label, fold`, a row for each training case."""
        return self._folds

    @cached_property
    def _folds(self) -> pd.DataFrame:
        cases, lost = self.cases(), self._read[2]  # a slide without pixels may stay a case
        cases = cases[(cases.split != "test") & ~cases.case_id.isin(lost)].reset_index(drop=True)
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
