"""Which patches of a slide are looked at: a frozen plan, then seeded draws from it."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from kit import checks, jobs
from kit.annotations import MaskImage, read_mask
from kit.errors import SettingsError, SlideError
from kit.slides import Slide, open_slide
from kit.tissue import TissueMask, tissue_mask

log = logging.getLogger(__name__)

COLUMNS = ("case_id", "x", "y", "tissue", "tumour", "label")
CLASSES = ("normal", "tumour")
UNSURE = "unsure"


@dataclass(frozen=True)
class PatchSampler:
    """A grid of patches over the tissue of slides; it never changes when it is used.

    Attributes:
        patch_size: Side of a patch in its own pixels, >= 1.
        mpp: Resolution of the patches, µm per pixel; None reads `level` as stored.
        level: Level of the patches where `mpp` is None.
        stride: Step of the grid in the patches' own pixels; None is `patch_size`.
        min_tissue: Least share of tissue, [0, 1].
        min_tumour: Least share of tumour of a positive patch, (0, 1]; one with less, but some,
            is "unsure".
    """

    patch_size: int = 64
    mpp: float | None = None
    level: int = 0
    stride: int | None = None
    min_tissue: float = 0.5
    min_tumour: float = 0.5

    def __post_init__(self) -> None:
        checks.positive_int("patch_size", self.patch_size)
        if self.stride is not None:
            checks.positive_int("stride", self.stride)
        checks.fraction("min_tissue", self.min_tissue)
        if not 0 < self.min_tumour <= 1:
            raise SettingsError(
                "min_tumour must be in (0, 1]", received=f"min_tumour={self.min_tumour}"
            )

    def footprint(self, slide: Slide) -> tuple[float, float]:
        """Return (width, height) of a patch in the slide's level-0 pixels, floats."""
        level = None if self.mpp is not None else self.level
        return slide.request(self.patch_size, mpp=self.mpp, level=level).size_level0

    def plan(
        self,
        slide: Slide | pd.DataFrame,
        tissue: TissueMask | None = None,
        mask: MaskImage | None = None,
        *,
        case_id: str | None = None,
        classes: Sequence[str] = CLASSES,
        root: str | PathLike[str] = ".",
    ) -> pd.DataFrame:
        """Return the patches of one slide, row by row of the grid; partial ones are dropped.

        The grid starts at the slide's corner, so that the same place is the same patch whatever
        the bounds are; only patches wholly inside the bounds are kept.

        Args:
            slide: Open slide; or a cases table, whose paths start from `root` (`plan_cases`).
            tissue: Its tissue; found here if not given.
            mask: Its tumour mask; its value named as the positive class counts, or "tumour".
            case_id: Id of the rows; the file's name without suffix if not given.
            classes: (negative, positive) names of the labels.
            root: Folder of a cases table.

        Returns:
            case_id; x, y (int64, level 0, top left); tissue and tumour (float64 in [0, 1], tumour
            nan without a mask); label: the positive class from `min_tumour` on, the negative one
            without any tumour, "unsure" between them, None without a mask.

        Raises:
            SlideError: A patch is larger than the slide.
            MissingMppError: `mpp` is asked of a slide that has none.
        """
        if isinstance(slide, pd.DataFrame):
            return self.plan_cases(slide, root, classes, classes[1])
        footprint = self.footprint(slide)
        xy = self._grid(slide, footprint)
        tissue = tissue_mask(slide) if tissue is None else tissue
        share = tissue.fraction(xy, footprint)
        keep = share >= self.min_tissue
        xy, share = xy[keep], share[keep]
        if mask is None:
            tumour, label = np.full(len(xy), np.nan), np.full(len(xy), None, dtype=object)
        else:
            tumour = mask.fraction(xy, footprint, _tumour_name(mask, classes))
            label = self._labels(tumour, classes)
        name = case_id if case_id is not None else slide.path.stem if slide.path else "array"
        rows = {
            "case_id": pd.Series(np.full(len(xy), name, dtype=object), dtype=object),
            "x": xy[:, 0], "y": xy[:, 1], "tissue": share, "tumour": tumour,
            "label": pd.Series(label, dtype=object),
        }  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _grid(self, slide: Slide, footprint: tuple[float, float]) -> np.ndarray:
        """Return the top left corners of the whole patches inside the bounds, row-major."""
        x, y, width, height = slide.bounds
        if footprint[0] > width or footprint[1] > height:
            raise SlideError(
                "the patch is larger than the slide", expected=f"at most {width} x {height}",
                received=f"patch_size={self.patch_size}, which is {footprint[0]:g} x "
                f"{footprint[1]:g} level-0 pixels", path=slide.path,
                remedy="a smaller patch_size, or a finer mpp or level",
            )  # fmt: skip
        steps = (self.stride or self.patch_size) / self.patch_size
        columns = _places(x, x + width, footprint[0], footprint[0] * steps)
        rows = _places(y, y + height, footprint[1], footprint[1] * steps)
        grid = np.meshgrid(columns, rows)
        return np.stack([axis.ravel() for axis in grid], axis=1)

    def _labels(self, tumour: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        negative, positive = classes
        label = np.full(len(tumour), UNSURE, dtype=object)
        label[tumour == 0] = negative
        label[tumour >= self.min_tumour] = positive
        return label

    def plan_cases(
        self,
        cases: pd.DataFrame,
        root: str | PathLike[str],
        classes: Sequence[str] = CLASSES,
        positive: str = "tumour",
        workers: int = 1,
        *,
        mask_values: Mapping[str, int] | None = None,
        mpp: float | None = None,
    ) -> pd.DataFrame:
        """Return the patches of all slides of a cases table, in its order; one job a slide.

        Slides without tissue give no rows and are named in a warning. Masks of `test` rows are
        not opened.

        Args:
            cases: case_id, path and, if there are any, mask and split.
            root: Folder that the paths start from.
            classes: The two class names.
            positive: Which of them is tumour.
            workers: Processes.
            mask_values: Integers of the masks by name (see `kit.annotations.read_mask`).
            mpp: Resolution of level 0 of all slides, in place of what the files say.

        Raises:
            KitError: The first slide that could not be planned.
        """
        checks.columns(cases, ["case_id", "path"])
        checks.unique_ids(cases["case_id"])
        root, order = Path(root), _ordered(classes, positive)
        work = [
            jobs.Job(str(row["case_id"]), plan_case, (
                self, str(row["case_id"]), root / row["path"], _mask_path(row, root), order,
                mask_values, mpp,
            ))
            for row in cases.to_dict("records")
        ]  # fmt: skip
        plans: list[pd.DataFrame] = jobs.values(jobs.run(work, title="slides", workers=workers))
        bare = [job.name for job, plan in zip(work, plans, strict=True) if plan.empty]
        if bare:
            log.warning("no patch with enough tissue in %d slides: %s", len(bare), ", ".join(bare))
        if not plans:
            raise SlideError("no slides to plan", expected="at least one row of cases")
        return pd.concat(plans, ignore_index=True)


def plan_case(
    sampler: PatchSampler,
    case_id: str,
    path: Path,
    mask: Path | None,
    classes: Sequence[str],
    mask_values: Mapping[str, int] | None = None,
    mpp: float | None = None,
) -> pd.DataFrame:
    """Open one slide, with its mask if it has one, and return its plan: a job of `plan_cases`."""
    with open_slide(path, mpp=mpp) as slide:
        drawn = None if mask is None else read_mask(mask, slide, values=mask_values)
        return sampler.plan(slide, mask=drawn, case_id=case_id, classes=classes)


def draw(plan: pd.DataFrame, *, per_slide: int, seed: int, balance: bool = True) -> pd.DataFrame:
    """Draw labelled patches to train on: at most `per_slide` of a slide, without replacement.

    "unsure" and unlabelled patches are never drawn. Where a slide has both classes and `balance`
    is set, each gets half; a class with fewer patches gives all that it has and the other keeps
    its half. What is drawn of a slide depends on that slide, `per_slide` and `seed` alone.

    Args:
        plan: Patches table.
        per_slide: Most patches of a slide, >= 1.
        seed: Of the draw.
        balance: Halves by class, or else uniform.

    Returns:
        Rows of `plan` in their order, with a new index.
    """
    checks.positive_int("per_slide", per_slide)
    labelled = plan["label"].notna() & (plan["label"] != UNSURE)
    chosen: list[np.ndarray] = []
    for case_id, rows in _by_slide(plan, labelled.to_numpy(dtype=bool)):
        random = _random(seed, case_id)
        groups = [rows]
        if balance:
            codes, names = pd.factorize(plan["label"].iloc[rows], sort=True)
            groups = sorted((rows[codes == n] for n in range(len(names))), key=len)
        for number, group in enumerate(groups):
            quota = (per_slide + len(groups) - 1 - number) // len(groups)
            chosen.append(_some(group, quota, random))
    return _rows(plan, chosen)


def spread(plan: pd.DataFrame, *, per_slide: int, seed: int) -> pd.DataFrame:
    """Choose the patches to predict: at most `per_slide` of a slide, uniform, labels unseen.

    Args:
        plan: Patches table.
        per_slide: Most patches of a slide, >= 1.
        seed: Of the choice.

    Returns:
        Rows of `plan` in their order, with a new index.
    """
    checks.positive_int("per_slide", per_slide)
    every = np.ones(len(plan), dtype=bool)
    return _rows(plan, [
        _some(rows, per_slide, _random(seed, case_id)) for case_id, rows in _by_slide(plan, every)
    ])  # fmt: skip


def _places(low: int, high: int, footprint: float, step: float) -> np.ndarray:
    """Return the grid's whole places whose patches lie in [low, high)."""
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor((high - footprint) / step + 1e-9))
    return np.rint(np.arange(first, last + 1) * step).astype(np.int64)


def _tumour_name(mask: MaskImage, classes: Sequence[str]) -> str:
    return classes[1] if classes[1] in mask.values else "tumour"


def _ordered(classes: Sequence[str], positive: str) -> tuple[str, str]:
    others = [name for name in classes if name != positive]
    if len(classes) != 2 or len(others) != 1:
        raise SettingsError(
            "patch labels need two classes, one of them positive",
            received=f"classes={list(classes)}, positive={positive}",
        )
    return others[0], positive


def _mask_path(row: Mapping[object, object], root: Path) -> Path | None:
    mask = row.get("mask")
    if not isinstance(mask, str) or row.get("split") == "test":
        return None
    return root / mask


def _by_slide(plan: pd.DataFrame, wanted: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the row numbers that are wanted of each slide."""
    codes, names = pd.factorize(plan["case_id"])
    numbers = np.flatnonzero(wanted)
    order = numbers[np.argsort(codes[numbers], kind="stable")]
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return [(str(name), order[ends[n] : ends[n + 1]]) for n, name in enumerate(names)]


def _random(seed: int, case_id: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(case_id.encode())])


def _some(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else random.choice(rows, most, replace=False)


def _rows(plan: pd.DataFrame, chosen: list[np.ndarray]) -> pd.DataFrame:
    numbers = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    return plan.iloc[numbers].reset_index(drop=True)
