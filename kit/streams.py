"""A slide's planned patches through several networks: read once, in the order of the tiles.

A thread reads and fits the next patches while the networks compute, in batches of one size, so that
nothing is compiled twice and memory does not grow with the slide. What is predicted is kept block
by block, so that a slide that was cut off goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kit import feed, images
from kit.checks import columns, first
from kit.errors import KitError, ModelError, SlideError, TableError
from kit.files import atomic, digest, fingerprint, read_json, read_table, table_key, write_table
from kit.inference import View, of_image
from kit.sampler import READ_BY
from kit.slides import Slide
from kit.stain import Normaliser

log = logging.getLogger(__name__)

FORMAT = 1
MOST = 256  # patches of a batch
PIXELS = 1 << 22  # of a batch at most: 64 patches of 256 px; networks need much more for each
BLOCK = 16  # batches that are kept together
UNREADABLE = 0.05  # share of a slide's patches from which on it has failed
ROUNDING = 1e-6  # of a footprint that was kept on disk
PLACE = ("case_id", "x", "y", "footprint")


@dataclass(frozen=True, eq=False)
class Member:
    """One network of those that predict a slide.

    Attributes:
        network: From uint8 images, (n, side, side, 3), to probabilities of the classes, (n, k), or
            of each pixel, (n, side, side, k); a Keras model, or what has its `input_shape`,
            `output_shape` and `predict_on_batch`.
        fold: That it has not seen.
        seed: Its number among those of the fold.
        model: Its name.
        key: Fingerprint of its weights.
        stain: How the stains of the images that it was trained on were normalised; None: not at
            all. Its patches are normalised alike.
    """

    network: Any
    fold: int
    seed: int
    model: str
    key: str
    stain: Normaliser | None = None


Seen = tuple[int, Normaliser | None]
"""The side of the images that a network takes, and how their stains are normalised."""


class Read(NamedTuple):
    """A batch: which of its patches were read, and the images as each kind of network sees them."""

    valid: np.ndarray
    images: dict[Seen, np.ndarray]


def load(path: Path) -> Member:
    """Return the network of a `.keras` file, with what the note (`.json`) beside it says.

    Raises:
        ModelError: The file is no network.
        KitError: It has no note.
    """
    from kit.models import load_network

    note = read_json(Path(path).with_suffix(".json"))
    stain = Normaliser.from_dict(note["stain"]) if note.get("stain") else None
    return Member(
        load_network(path), note["fold"], note["seed"], note["model"], note["sha256"], stain
    )


def predict_slide(
    slide: Slide, plan: pd.DataFrame, members: Sequence[Member], *, classes: Sequence[str],
    views: Sequence[View] = (np.asarray,), path: Path | None = None, key: str = "",
    progress: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Return the predictions of one slide's planned patches by each network, all in one reading.

    Networks of other input sides than the patches' are fed the patch made smaller or larger, as in
    training (`kit.images.fit`), and then normalised as in its training, patch by patch. Patches
    that cannot be read have no row.

    Args:
        slide: Open slide.
        plan: Its plan (`kit.sampler.PatchSampler.plan`).
        members: The networks.
        classes: Class names, in the order of the networks' outputs.
        views: Functions of a batch of images, whose predictions are averaged.
        path: Parquet file to keep the table in; one that stands with the same fingerprint is read.
            Until it is whole, a folder beside it keeps what is predicted.
        key: Fingerprint of the slide's content and of the views.
        progress: Show patches per second and the time left on standard error.

    Returns:
        A row for each patch and network: `case_id, x, y, footprint, tissue, fold, seed, model`,
        `prob_<class>` (float32). Networks follow one another, patches are in the plan's order.

    Raises:
        TableError: The plan is of another slide.
        ModelError: A network takes other images or gives other classes.
        SlideError: More than 5 % of the patches cannot be read.
    """
    _check_members(members, classes)
    _check_plan(slide, plan)
    plan = plan.reset_index(drop=True)
    made_by = prediction_key(plan, [one.key for one in members], classes, key)
    if path is not None and table_key(path) == made_by:
        with contextlib.suppress(KitError):  # damaged behind its key: made again
            return read_table(path)
    folder = None if path is None else Path(path).with_suffix(f".{made_by}")
    found = _Slide(slide, plan, members, len(classes), folder)
    with _bar(slide, len(plan), progress) as bar:
        found.resume(bar)
        found.compute(views, bar)
    if found.alone:
        log.info("%s: %s of the %s patches read now say too little of their stains, and are left "
                 "as they are", slide.path, f"{found.alone:,}", f"{found.read:,}")  # fmt: skip
    table = _table(plan, members, classes, found.prob)
    if path is None:
        return table
    write_table(table, path, made_by)
    shutil.rmtree(str(folder), ignore_errors=True)
    return read_table(path)


def prediction_key(
    plan: pd.DataFrame, members: Sequence[str], classes: Sequence[str], key: str
) -> str:
    """Return the fingerprint of a slide's predictions by networks of these fingerprints."""
    return fingerprint([FORMAT, key, digest(plan), list(members), list(classes)])


def _check_members(members: Sequence[Member], classes: Sequence[str]) -> None:
    if not members:
        raise ModelError("there is no network to predict with", expected="one or more")
    for one in members:
        shape, given = tuple(one.network.input_shape[1:]), one.network.output_shape[-1]
        square = len(shape) == 3 and shape[0] == shape[1] and shape[0] is not None
        if not square or shape[2] != 3 or given != len(classes):
            raise ModelError(
                "network does not fit the patches", expected=f"(side, side, 3) in, {len(classes)} "
                f"classes out: {', '.join(classes)}", received=f"{shape} in, {given} out of "
                f"{one.model}, fold {one.fold}, seed {one.seed}",
            )  # fmt: skip


def _check_plan(slide: Slide, plan: pd.DataFrame) -> None:
    """Raise where a plan cannot be of this slide: footprints or places are other ones."""
    columns(plan, ["case_id", "x", "y", "footprint", *READ_BY])
    if plan.case_id.nunique() > 1:
        raise TableError("the plan is of several slides", expected="one case_id",
                         received=first(plan.case_id.unique()))  # fmt: skip
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


def _batches(plan: pd.DataFrame, largest: int = 1) -> list[np.ndarray]:
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


class _Slide:
    """One slide's predictions as they come: `prob`, float32 (networks, patches, classes)."""

    def __init__(
        self, slide: Slide, plan: pd.DataFrame, members: Sequence[Member], classes: int,
        folder: Path | None,
    ) -> None:  # fmt: skip
        self.slide, self.plan, self.members, self.folder = slide, plan, members, folder
        self.prob = np.full((len(members), len(plan), classes), np.nan, np.float32)
        batches = _batches(plan, max(map(_side, members)))
        longest = max((len(rows) for rows in batches), default=1)
        # Small slides have batches of some powers of two, so that few sizes are compiled.
        self.size = min(MOST, 1 << (longest - 1).bit_length())
        starts = range(0, len(batches), BLOCK)
        self.blocks = {n: batches[start : start + BLOCK] for n, start in enumerate(starts)}
        self.lost = self.read = self.alone = 0

    def resume(self, bar: Any) -> None:
        """Take the blocks that stand; `blocks` are then those that are left."""
        for number, block in list(self.blocks.items()):
            path = self._place(number)
            if path is None or not path.is_file():
                continue
            rows = np.concatenate(block)
            with contextlib.suppress(ValueError, EOFError, OSError):  # damaged: made again
                self._take(rows, np.load(path, allow_pickle=False))
                del self.blocks[number]
                bar.update(len(rows))

    def compute(self, views: Sequence[View], bar: Any) -> None:
        """Read and predict the blocks that are left, and keep each when it is whole."""
        batches = [rows for block in self.blocks.values() for rows in block]
        with contextlib.closing(feed.ahead(self._read, batches)) as found:
            for number, block in self.blocks.items():
                parts = []
                for rows in block:
                    parts.append(self._predicted(next(found), views))
                    bar.update(len(rows))
                prob = np.concatenate(parts, axis=1)
                path = self._place(number)
                if path is not None:
                    with atomic(path) as part:
                        np.save(part, prob)
                self._take(np.concatenate(block), prob)

    def _place(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"{number:05d}.npy"

    def _take(self, rows: np.ndarray, prob: np.ndarray) -> None:
        """Put a block's probabilities in their place; NaN is what could not be read."""
        self.prob[:, rows] = prob
        self.lost += int(np.isnan(prob[0, :, 0]).sum())
        if self.lost > UNREADABLE * len(self.plan):
            raise SlideError(
                "too many patches of the slide cannot be read", path=self.slide.path,
                expected=f"at most {UNREADABLE:.0%}", received=f"{self.lost} of {len(self.plan)} "
                "so far", remedy="get the file again",
            )  # fmt: skip

    def _read(self, rows: np.ndarray) -> Read:
        """Return a batch, all read in one way, fitted to each input side and filled up."""
        asked = self.plan.iloc[rows]
        size, at = _asked(asked)
        patches, skipped = self.slide.read_patches(
            asked[["x", "y"]].to_numpy(), size, on_error="skip", **at
        )
        valid = np.ones(len(rows), bool)
        valid[skipped] = False
        found, alone = {}, np.zeros(len(patches), bool)
        for side, stain in set(map(_seen, self.members)):
            batch = np.zeros((self.size, side, side, 3), np.uint8)
            fitted = patches if side == size else _fitted(patches, side)
            if stain is not None and len(fitted):
                fitted, left = stain(fitted)
                alone |= left
            batch[np.flatnonzero(valid)] = fitted
            found[side, stain] = batch
        self.read, self.alone = self.read + len(patches), self.alone + int(alone.sum())
        return Read(valid, found)

    def _predicted(self, batch: Read, views: Sequence[View]) -> np.ndarray:
        """Return (networks, patches, classes) of a batch, averaged over the views."""
        n, found = len(batch.valid), []
        for one in self.members:
            fitted = batch.images[_seen(one)]
            total = np.zeros((n, self.prob.shape[2]))
            for view in views:
                given = one.network.predict_on_batch(np.ascontiguousarray(view(fitted)))
                total += of_image(np.asarray(given)[:n])
            total /= total.sum(axis=1, keepdims=True)
            total[~batch.valid] = np.nan
            found.append(total.astype(np.float32))
        return np.stack(found)


def _side(member: Member) -> int:
    return int(member.network.input_shape[1])


def _seen(member: Member) -> Seen:
    return _side(member), member.stain


def _fitted(patches: np.ndarray, side: int) -> np.ndarray:
    if not len(patches):
        return np.zeros((0, side, side, 3), np.uint8)
    return np.stack([images.fit(patch, side) for patch in patches])


def _table(
    plan: pd.DataFrame, members: Sequence[Member], classes: Sequence[str], prob: np.ndarray
) -> pd.DataFrame:
    """Return the predictions table: one network after another, without what was not read."""
    parts = []
    for one, mine in zip(members, prob, strict=True):
        read = ~np.isnan(mine[:, 0])
        rows = plan.loc[read, [*PLACE, *(name for name in ("tissue",) if name in plan)]]
        rows = rows.assign(fold=one.fold, seed=one.seed, model=one.model)
        for position, name in enumerate(classes):
            rows[f"prob_{name}"] = mine[read, position]
        parts.append(rows)
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table


def _bar(slide: Slide, total: int, progress: bool) -> Any:
    from tqdm import tqdm

    name = slide.path.name if slide.path else "slide"
    return tqdm(total=total, desc=name, unit=" patches", unit_scale=True, leave=False,
                disable=None if progress else True)  # fmt: skip
