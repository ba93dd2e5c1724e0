"""Which patches of a slide are looked at: a frozen plan of slides, row by row of a grid."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from kit import checks, geometry, jobs
from kit.annotations import Frame, MaskImage, Values, read_mask
from kit.draws import UNSURE
from kit.errors import KitError, SettingsError, SlideError, TableError
from kit.files import fingerprint, read_table, table_key, write_table
from kit.slides import Slide, open_slide
from kit.tissue import Rule, TissueMask, sharpness, tissue_mask

log = logging.getLogger(__name__)

READ_BY = ("size", "mpp", "level")
COLUMNS = ("case_id", "x", "y", "tissue", "tumour", "label", *READ_BY, "footprint", "slide_key")
CLASSES = ("normal", "tumour")
FORMAT = 3  # of a slide's part in `plan_cases(folder=)`: raised when plans come to mean other rows
BATCH = 256  # patches whose focus is looked at together


@dataclass(frozen=True)
class PatchSampler:
    """A grid of patches over the tissue of slides; it never changes when it is used.

    Attributes:
        patch_size: Side of a patch in its own pixels, >= 1.
        mpp: Resolution of the patches, µm per pixel, or several, each of which is planned; None
            reads `level` as stored.
        level: Level of the patches where `mpp` is None.
        stride: Step of the grid in the patches' own pixels; None is `patch_size`, less overlaps.
        jitter: Each place of the grid moves by up to so many of the patches' own pixels in x and
            in y, within the bounds; `seed` and the case decide where to.
        tissue: Rule of `kit.tissue.tissue_mask`.
        min_tissue: Least share of tissue, [0, 1].
        min_tumour: Least share of tumour of a positive patch, (0, 1].
        max_normal: Most share of tumour of a negative patch, [0, min_tumour).
        partial: What becomes of patches between the two: "unsure" labels them so, "drop" leaves
            them out (HeLP's rule, with min_tumour=1, because a mask's edge is not exact).
        min_focus: Least `kit.tissue.sharpness`; 0 does not look. It reads every patch, and keeps
            those that hold nothing to be sharp.
        smaller: A slide whose mask has tumour, but fewer than `enough` positive patches, is
            planned at this patch size instead; its stride and jitter shrink alike.
        enough: See `smaller`.
        seed: Of the jitter.
    """

    patch_size: int = 64
    mpp: float | tuple[float, ...] | None = None
    level: int = 0
    stride: int | None = None
    jitter: int = 0
    tissue: Rule = "stain"
    min_tissue: float = 0.5
    min_tumour: float = 0.5
    max_normal: float = 0.0
    partial: Literal["unsure", "drop"] = "unsure"
    min_focus: float = 0.0
    smaller: int | None = None
    enough: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("patch_size", "stride", "smaller", "enough"):
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name))
        for name in ("level", "jitter", "seed"):
            checks.positive_int(name, getattr(self, name), least=0)
        checks.fraction("min_tissue", self.min_tissue)
        checks.choice("partial", self.partial, ("unsure", "drop"))
        checks.choice("tissue", self.tissue, get_args(Rule))
        for name, fits, wanted in (
            ("min_tumour", 0 < self.min_tumour <= 1, "in (0, 1]"),
            ("max_normal", 0 <= self.max_normal < self.min_tumour, "in [0, min_tumour)"),
            ("min_focus", 0 <= self.min_focus < np.inf, "0 or more"),
            ("smaller", self.smaller is None or self.smaller < self.patch_size,
             "below patch_size"),
        ):  # fmt: skip
            if not fits:
                raise SettingsError(
                    f"{name} must be {wanted}", received=f"{name}={getattr(self, name)}"
                )
        numbers = all(isinstance(mpp, int | float) and 0 < mpp < np.inf for mpp in self.scales)
        if not numbers or self.mpp == () or len(set(self.scales)) < len(self.scales):
            raise SettingsError(
                "mpp must be above 0", expected="one number, or a tuple of different ones",
                received=f"mpp={self.mpp}",
            )  # fmt: skip

    @property
    def scales(self) -> tuple[float, ...]:
        """The resolutions that are planned, µm per pixel; none where patches are read by level."""
        if self.mpp is None:
            return ()
        return self.mpp if isinstance(self.mpp, tuple) else (self.mpp,)

    def footprint(self, slide: Slide) -> tuple[float, float]:
        """Return (width, height) of a patch in the slide's level-0 pixels; of the first `mpp`."""
        if not self.scales:
            return slide.request(self.patch_size, mpp=None, level=self.level).size_level0
        return slide.request(self.patch_size, mpp=self.scales[0], level=None).size_level0

    def plan(
        self, slide: Slide | pd.DataFrame, tissue: TissueMask | None = None,
        mask: MaskImage | None = None, *, case_id: str | None = None,
        classes: Sequence[str] = CLASSES, root: str | PathLike[str] = ".",
    ) -> pd.DataFrame:  # fmt: skip
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
            up to `max_normal`, "unsure" between them, None without a mask; and what each row is
            read by: size (int64, side in its own pixels), mpp (float64, nan where it is read by
            level), level (int64, -1 where it is read by mpp), footprint (float64, side in level-0
            pixels). See `read_planned`. Last slide_key (int64), `Slide.identity`.

        Raises:
            SlideError: A patch is larger than the slide.
            MissingMppError: `mpp` is asked of a slide that has none.
        """
        if isinstance(slide, pd.DataFrame):
            return self.plan_cases(slide, root, classes, classes[1])
        name = case_id if case_id is not None else slide.path.stem if slide.path else "array"
        self.footprint(slide)  # a missing mpp is told before the slide is looked at
        tissue = tissue_mask(slide, rule=self.tissue) if tissue is None else tissue
        plans = []
        for mpp in self.scales or (None,):
            one = replace(self, mpp=mpp)
            plan = one._at_one_scale(slide, tissue, mask, name, classes)
            tumour = 0 if mask is None else int((plan["label"] == classes[1]).sum())
            if mask is not None and self.smaller and tumour < self.enough:
                if mask.share(_tumour_name(mask, classes)) > 0:
                    log.info("%s: %d tumour patches of %d pixels, planned again at %d", name,
                             tumour, self.patch_size, self.smaller)  # fmt: skip
                    plan = one._shrunk()._at_one_scale(slide, tissue, mask, name, classes)
            plans.append(plan)
        return pd.concat(plans, ignore_index=True) if len(plans) > 1 else plans[0]

    def _shrunk(self) -> PatchSampler:
        """Return the sampler of `smaller` patches, on a grid that shrinks with them."""
        size = self.smaller or self.patch_size
        stride = None if self.stride is None else max(1, self.stride * size // self.patch_size)
        jitter = self.jitter * size // self.patch_size
        return replace(self, patch_size=size, stride=stride, jitter=jitter, smaller=None)

    def _at_one_scale(
        self, slide: Slide, tissue: TissueMask, mask: MaskImage | None, name: str,
        classes: Sequence[str],
    ) -> pd.DataFrame:  # fmt: skip
        footprint = self.footprint(slide)
        xy = self._grid(slide, footprint, name)
        share = tissue.fraction(xy, footprint)
        keep = share >= self.min_tissue
        xy, share = xy[keep], share[keep]
        tumour, label = np.full(len(xy), np.nan), np.full(len(xy), None, dtype=object)
        if mask is not None:
            tumour = mask.fraction(xy, footprint, _tumour_name(mask, classes))
            label = self._labels(tumour, classes)
        plan = pd.DataFrame({
            "case_id": pd.Series(np.full(len(xy), name, dtype=object), dtype=object),
            "x": xy[:, 0], "y": xy[:, 1], "tissue": share, "tumour": tumour,
            "label": pd.Series(label, dtype=object),
            "size": np.full(len(xy), self.patch_size, np.int64),
            "mpp": np.full(len(xy), self.scales[0] if self.scales else np.nan, np.float64),
            "level": np.full(len(xy), -1 if self.scales else self.level, np.int64),
            "footprint": np.full(len(xy), footprint[0], np.float64),
            "slide_key": np.full(len(xy), slide.identity, np.int64),
        }, columns=list(COLUMNS))  # fmt: skip
        if self.partial == "drop":
            plan = plan[plan["label"] != UNSURE]
        if self.min_focus > 0:
            plan = plan[_focused(slide, plan, self.min_focus, name)]
        return plan.reset_index(drop=True)

    def _grid(self, slide: Slide, footprint: tuple[float, float], name: str) -> np.ndarray:
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
        grid = geometry.grid(slide.bounds, footprint, (footprint[0] * steps, footprint[1] * steps))
        if not self.jitter:
            return grid
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        reach = self.jitter * np.array(footprint) / self.patch_size
        moved = np.rint(grid + (2 * random.random(grid.shape) - 1) * reach).astype(np.int64)
        last = np.floor([x + width - footprint[0], y + height - footprint[1]]).astype(np.int64)
        return np.clip(moved, (x, y), last)

    def _labels(self, tumour: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        if len(classes) != 2:
            raise SettingsError(
                "patch labels need two classes, negative and positive",
                received=f"classes={list(classes)}",
            )
        label = np.full(len(tumour), UNSURE, dtype=object)
        label[tumour <= self.max_normal] = classes[0]
        label[tumour >= self.min_tumour] = classes[1]
        return label

    def plan_cases(
        self, cases: pd.DataFrame, root: str | PathLike[str], classes: Sequence[str] = CLASSES,
        positive: str = "tumour", workers: int = 1, *, mask_values: Values | None = None,
        mask_frame: Frame | None = None, mpp: float | None = None, folder: Path | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Return the patches of all slides of a cases table, in its order (see `outcomes`).

        Raises:
            KitError: The first slide that could not be planned.
        """
        order = _ordered(classes, positive)
        done = self.outcomes(
            cases, root, order, workers, mask_values=mask_values, mask_frame=mask_frame, mpp=mpp,
            folder=folder,
        )  # fmt: skip
        plans: list[pd.DataFrame] = jobs.values(done)
        if not plans:
            raise SlideError("no slides to plan", expected="at least one row of cases")
        return pd.concat(plans, ignore_index=True)

    def outcomes(
        self, cases: pd.DataFrame, root: str | PathLike[str], classes: Sequence[str] = CLASSES,
        workers: int = 1, *, mask_values: Values | None = None, mask_frame: Frame | None = None,
        mpp: float | None = None, folder: Path | None = None,
    ) -> list[jobs.Outcome]:  # fmt: skip
        """Plan the slides of a cases table; one that fails is an outcome with its error.

        Slides without tissue give no rows and are named in a warning. Masks of `test` rows are
        not opened.

        Args:
            cases: case_id, path and, if there are any, mask, split and `key`, a fingerprint of
                the slide's content.
            root: Folder that the paths start from.
            classes: (negative, positive) names of the labels.
            workers: Processes.
            mask_values: What the masks' values mean (see `kit.annotations.read_mask`).
            mask_frame: What they show: the whole "slide", or its "bounds"; None: as they fit.
            mpp: Resolution of level 0 of all slides, in place of what the files say.
            folder: Where each slide's plan is kept. One that stands, and was made of the same
                slide, mask and sampler, is read; its slide is not opened.

        Returns:
            For each case, in their order, its plan or why there is none.
        """
        checks.columns(cases, ["case_id", "path"])
        checks.unique_ids(cases["case_id"])
        work = []
        for row in cases.to_dict("records"):
            case_id, mask = str(row["case_id"]), _mask_path(row, Path(root))
            path, order = Path(root) / row["path"], tuple(classes)
            asked = (self, case_id, path, mask, order, mask_values, mask_frame, mpp)
            if folder is None:
                work.append(jobs.Job(case_id, plan_case, asked))
                continue
            content = [row.get("key") or _stamp(path), _stamp(mask)]
            key = fingerprint([
                FORMAT, asdict(self), case_id, *content, order, mask_values, mask_frame, mpp,
            ])  # fmt: skip
            part = Path(folder) / f"{fingerprint(case_id)}.parquet"
            work.append(jobs.Job(case_id, _resume, (part, key, asked)))
        done = jobs.run(work, title="planning slides", workers=workers)
        bare = [one.name for one in done if one.error is None and one.value.empty]
        if bare:
            log.warning("no patch with enough tissue in %d slides: %s", len(bare),
                        checks.first(bare))  # fmt: skip
        return done


def plan_case(
    sampler: PatchSampler,
    case_id: str,
    path: Path,
    mask: Path | None,
    classes: Sequence[str],
    mask_values: Values | None = None,
    mask_frame: Frame | None = None,
    mpp: float | None = None,
) -> pd.DataFrame:
    """Open one slide, with its mask if it has one, and return its plan."""
    with open_slide(path, mpp=mpp) as slide:
        drawn = (
            None if mask is None else read_mask(mask, slide, values=mask_values, frame=mask_frame)
        )
        return sampler.plan(slide, mask=drawn, case_id=case_id, classes=classes)


def read_planned(slide: Slide, rows: pd.DataFrame) -> np.ndarray:
    """Return the patches of some rows of one slide's plan, each at its own resolution.

    Args:
        slide: The slide that they are of.
        rows: x, y, size, mpp, level; all of one size.

    Returns:
        uint8 RGB, shape (n, size, size, 3), in the order of the rows.

    Raises:
        TableError: There are no rows, rows of several slides, or of several sizes.
        SlideError: A place cannot be read.
    """
    checks.columns(rows, ["x", "y", *READ_BY])
    for name in ("size", "case_id"):
        found = rows[name].unique() if name in rows else [""]
        if len(found) != 1:
            raise TableError(
                f"rows to read must be of one {name}", expected=f"one {name}",
                received=checks.first(found) or "no rows",
                remedy=f"read them by {name}, as with rows.groupby({name!r})",
            )  # fmt: skip
    size, xy = int(rows["size"].iloc[0]), rows[["x", "y"]].to_numpy()
    patches = np.empty((len(rows), size, size, 3), np.uint8)
    mpps, levels = rows["mpp"].fillna(0).to_numpy(), rows["level"].to_numpy()
    for mpp, level in sorted(set(zip(mpps.tolist(), levels.tolist(), strict=True))):
        at = np.flatnonzero((mpps == mpp) & (levels == level))
        if mpp:
            patches[at] = slide.read_patches(xy[at], size, mpp=mpp)
        else:
            patches[at] = slide.read_patches(xy[at], size, level=level)
    return patches


def _focused(slide: Slide, plan: pd.DataFrame, least: float, name: str) -> np.ndarray:
    """Return which patches are sharp enough, or hold nothing that could be; reads all of them."""
    score = np.empty(len(plan))
    for start in range(0, len(plan), BATCH):
        rows = plan.iloc[start : start + BATCH]
        score[start : start + BATCH] = sharpness(read_planned(slide, rows))
    blurred = score < least
    if blurred.any():
        log.info("%s: %d of %d patches are blurred and left out", name, blurred.sum(), len(plan))
    return ~blurred


def _tumour_name(mask: MaskImage, classes: Sequence[str]) -> str:
    return classes[1] if len(classes) > 1 and classes[1] in mask.values else "tumour"


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


def _stamp(path: Path | None) -> object:
    """Return what tells a file from a later one of its name; one that is missing fails later."""
    if path is None or not path.is_file():
        return None
    return path.stat().st_size, path.stat().st_mtime_ns


def _resume(part: Path, key: str, asked: tuple[object, ...]) -> pd.DataFrame:
    """Return a slide's plan: read where it stands with its fingerprint, made and kept where not."""
    if table_key(part) == key:
        with contextlib.suppress(KitError):  # damaged behind its key: made again
            return _as_planned(read_table(part))
    write_table(plan_case(*asked), part, key)  # type: ignore[arg-type]
    return _as_planned(read_table(part))


def _as_planned(table: pd.DataFrame) -> pd.DataFrame:
    """Return a plan that was read from disk with the types of a new one."""
    for name in ("case_id", "label"):
        text = table[name].astype(object)
        table[name] = text.where(text.notna(), None)
    return table
