"""A slide's planned patches, read once, through whatever makes arrays of them.

A thread reads and fits the next patches while the networks compute, in batches of one size, so that
nothing is compiled twice and memory does not grow with the slide. What is made is kept block by
block, so that a slide that was cut off goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kit import feed, images
from kit.checks import columns, first
from kit.errors import SlideError, TableError
from kit.files import atomic
from kit.sampler import READ_BY
from kit.slides import Slide
from kit.stain import Normaliser

log = logging.getLogger(__name__)

MOST = 256  # patches of a batch
PIXELS = 1 << 22  # of a batch at most: 64 patches of 256 px; networks need much more for each
BLOCK = 16  # batches that are kept together
UNREADABLE = 0.05  # share of a slide's patches from which on it has failed
ROUNDING = 1e-6  # of a footprint that was kept on disk
DAMAGED = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error)
VALID = "valid"  # name of the array that says which patches of a block were read


Seen = tuple[int, Normaliser | None]
"""The side of the images that a network takes, and how their stains are normalised."""


class Read(NamedTuple):
    """A batch: which of its patches were read, and the images as each kind of network sees them."""

    valid: np.ndarray
    images: dict[Seen, np.ndarray]


Arrays = dict[str, np.ndarray]
Work = Callable[[Read], Arrays]


class Stream:
    """The patches of one slide's plan on their way through something that makes arrays of them.

    Args:
        slide: Open slide.
        plan: Its plan.
        seen: Sides, in pixels, that each patch is made smaller or larger to, as in training, each
            with the normaliser of stains that it then goes through.
        folder: Where the blocks are kept; None: in memory.

    Attributes:
        read: bool, a row for each patch of the plan: whether it was read, once `run` is over.

    Raises:
        TableError: The plan is of another slide.
    """

    def __init__(
        self, slide: Slide, plan: pd.DataFrame, seen: Iterable[Seen], folder: Path | None
    ) -> None:
        _check_plan(slide, plan)
        self.slide, self.plan, self.seen = slide, plan, tuple(dict.fromkeys(seen))
        self.read = np.zeros(len(plan), bool)
        self._folder, self._made = folder, dict[int, Arrays]()
        batches = batches_of(plan, max(side for side, _ in self.seen))
        longest = max((len(rows) for rows in batches), default=1)
        # Small slides have batches of some powers of two, so that few sizes are compiled.
        self._size = min(MOST, 1 << (longest - 1).bit_length())
        starts = range(0, len(batches), BLOCK)
        self._blocks = {n: batches[start : start + BLOCK] for n, start in enumerate(starts)}
        self._lost = self._looked = self._alone = 0

    def run(self, work: Work, *, progress: bool = False) -> None:
        """Make the arrays of all patches but those whose block stands.

        Args:
            work: From a batch to arrays by name, each with a row for each of its patches. Its
                images are more: the batch is filled up to one size.
            progress: Show patches per second and the time left on standard error.

        Raises:
            SlideError: More than 5 % of the patches cannot be read.
        """
        with _bar(self.slide, len(self.plan), progress) as bar:
            left = {n: block for n, block in self._blocks.items() if not self._stands(n, bar)}
            batches = [rows for block in left.values() for rows in block]
            with contextlib.closing(feed.ahead(self._read, batches)) as found:
                for number, block in left.items():
                    parts = []
                    for rows in block:
                        batch = next(found)
                        parts.append({**work(batch), VALID: batch.valid})
                        bar.update(len(rows))
                    self._keep(
                        number, {name: np.concatenate([part[name] for part in parts])
                                 for name in parts[0]},
                    )  # fmt: skip
        if self._alone:
            log.info("%s: %s of the %s patches read now say too little of their stains, and are "
                     "left as they are", self.slide.path, f"{self._alone:,}", f"{self._looked:,}",
                     )  # fmt: skip

    def parts(self) -> Iterator[tuple[np.ndarray, Arrays]]:
        """Yield what was made, in the order of the tiles: rows of the plan, and their arrays.

        Patches that could not be read are left out.
        """
        for number, block in self._blocks.items():
            arrays = self._block(number)
            valid = arrays.pop(VALID)
            yield np.concatenate(block)[valid], {name: one[valid] for name, one in arrays.items()}

    def _stands(self, number: int, bar: Any) -> bool:
        """Return whether a block is there from an earlier run, whole, and count it."""
        path = self._place(number)
        if path is None or not path.is_file():
            return False
        with contextlib.suppress(*DAMAGED):  # then it is made again
            valid = self._block(number)[VALID]
            self._count(number, valid)
            bar.update(len(valid))
            return True
        return False

    def _place(self, number: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{number:05d}.npz"

    def _block(self, number: int) -> Arrays:
        """Return a block's arrays; all of them are read, so that damage is seen."""
        path = self._place(number)
        if path is None:
            return dict(self._made[number])
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def _keep(self, number: int, arrays: Arrays) -> None:
        path = self._place(number)
        if path is None:
            self._made[number] = arrays
        else:
            with atomic(path) as part:
                np.savez(part, **arrays)  # type: ignore[arg-type]
        self._count(number, arrays[VALID])

    def _count(self, number: int, valid: np.ndarray) -> None:
        """Note which patches of a block were read."""
        self.read[np.concatenate(self._blocks[number])] = valid
        self._lost += int((~valid).sum())
        if self._lost > UNREADABLE * len(self.plan):
            raise SlideError(
                "too many patches of the slide cannot be read", path=self.slide.path,
                expected=f"at most {UNREADABLE:.0%}", received=f"{self._lost} of {len(self.plan)} "
                "so far", remedy="get the file again",
            )  # fmt: skip

    def _read(self, rows: np.ndarray) -> Read:
        """Return a batch, all read in one way, fitted to each side and filled up."""
        asked = self.plan.iloc[rows]
        size, at = _asked(asked)
        patches, skipped = self.slide.read_patches(
            asked[["x", "y"]].to_numpy(), size, on_error="skip", **at
        )
        valid = np.ones(len(rows), bool)
        valid[skipped] = False
        found, alone = {}, np.zeros(len(patches), bool)
        for side, stain in self.seen:
            batch = np.zeros((self._size, side, side, 3), np.uint8)
            fitted = patches if side == size else _fitted(patches, side)
            if stain is not None and len(fitted):
                fitted, left = stain(fitted)
                alone |= left
            batch[np.flatnonzero(valid)] = fitted
            found[side, stain] = batch
        self._looked, self._alone = self._looked + len(patches), self._alone + int(alone.sum())
        return Read(valid, found)


def batches_of(plan: pd.DataFrame, largest: int = 1) -> list[np.ndarray]:
    """Return the rows of each batch: neighbours together, so that a tile is decoded once.

    Patches, and what networks are fed, of up to `largest` pixels a side, are `PIXELS` at most.
    """
    found: list[np.ndarray] = []
    for _, rows in plan.groupby(list(READ_BY), dropna=False):
        most = max(1, min(MOST, PIXELS // max(_asked(rows)[0], largest) ** 2))
        square = math.isqrt(most) * rows.footprint.to_numpy()
        x, y = rows.x.to_numpy(), rows.y.to_numpy()
        order = rows.index.to_numpy()[np.lexsort((x, y, x // square, y // square))]
        found += [order[start : start + most] for start in range(0, len(order), most)]
    return found


def _check_plan(slide: Slide, plan: pd.DataFrame) -> None:
    """Raise where a plan cannot be of this slide: footprints or places are other ones."""
    columns(plan, ["case_id", "x", "y", "footprint", *READ_BY])
    if plan.case_id.nunique() > 1:
        raise TableError("the plan is of several slides", expected="one case_id",
                         received=first(plan.case_id.unique()))  # fmt: skip
    if "slide_key" in plan and (plan.slide_key != slide.identity).any():
        raise TableError(
            "the plan was made from another slide", path=slide.path,
            expected=f"slide_key {slide.identity}",
            received=first(map(str, plan.slide_key.unique())), remedy="plan this slide",
        )  # fmt: skip
    x, y, width, height = slide.bounds
    for _, rows in plan.groupby(list(READ_BY), dropna=False):
        size, at = _asked(rows)
        side = slide.request(size, **at).size_level0[0]
        same = np.allclose(rows.footprint, side, rtol=ROUNDING)
        low, high = rows[["x", "y"]].min().to_numpy(), rows[["x", "y"]].max().to_numpy()
        inside = (low >= (x, y)).all() and (high + side <= (x + width + 1, y + height + 1)).all()
        if not (same and inside):
            raise TableError(
                "the plan was made from another slide", path=slide.path,
                expected=f"patches of {side:g} level-0 pixels in x {x} to {x + width}, y {y} to "
                f"{y + height}", received=f"patches of {rows.footprint.iloc[0]:g} from "
                f"{tuple(map(int, low))} to {tuple(map(int, high))}", remedy="plan this slide",
            )  # fmt: skip


def _asked(rows: pd.DataFrame) -> tuple[int, dict[str, Any]]:
    """Return the size, and mpp or level, by which rows of one way of reading are read."""
    size, mpp, level = (rows[name].iloc[0] for name in READ_BY)
    return int(size), {"level": int(level)} if pd.isna(mpp) else {"mpp": float(mpp)}


def _fitted(patches: np.ndarray, side: int) -> np.ndarray:
    if not len(patches):
        return np.zeros((0, side, side, 3), np.uint8)
    return np.stack([images.fit(patch, side) for patch in patches])


def _bar(slide: Slide, total: int, progress: bool) -> Any:
    from tqdm import tqdm

    name = slide.path.name if slide.path else "slide"
    return tqdm(total=total, desc=name, unit=" patches", unit_scale=True, leave=False,
                disable=None if progress else True)  # fmt: skip
