"""A slide's planned patches through several networks: predicted in one reading, cut off, gone on.

Networks compute in the precision that they were trained and saved in: one trained in mixed
precision predicts in it. None is turned into it for speed: on a processor with bfloat16 that takes
a third off the time of the network, float16 adds to it, and either moves probabilities (by up to
7e-4 where measured) away from the out-of-fold ones that thresholds and rules were fitted on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from kit import dense as pixels
from kit._stream import Arrays, Read, Seen, Stream
from kit.dense import Dense as Dense
from kit.errors import KitError, ModelError
from kit.files import digest, fingerprint, read_json, read_table, table_key, write_table
from kit.heatmaps import Heatmap, read_map, write_map
from kit.slides import Slide
from kit.stain import Normaliser

FORMAT = 2
PLACE = ("case_id", "x", "y", "footprint")
PROB, CELLS = "prob", "cells"  # names of a block's arrays


ROUNDED = 1e-3  # by which a probability of half precision may be above 1


@dataclass(frozen=True, eq=False)
class Member:
    """One network of those that predict a slide.

    Attributes:
        network: From uint8 images, (n, side, side, 3), to probabilities of the classes, (n, k), or
            of each pixel, (n, height, width, k), or to a vector, (n, d); a Keras model, or what has
            its `input_shape`, `output_shape` and `predict_on_batch`.
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

    @property
    def side(self) -> int:
        """The side of the images that it takes, pixels."""
        return int(self.network.input_shape[1])

    @property
    def seen(self) -> Seen:
        """How it sees a patch: the side, and the normaliser of stains."""
        return self.side, self.stain

    @property
    def squares(self) -> int:
        """Along a patch, of those that are kept of its pixels' answers; 0 if it gives none."""
        shape = self.network.output_shape
        return min(pixels.CELLS, *shape[1:3]) if len(shape) == 4 else 0


class View(Protocol):
    """A way to look at images, and back; as `kit.augment.View`."""

    def forward(self, images: Any) -> Any:
        """Return images, (n, height, width, 3), as they are shown to the networks."""

    def inverse(self, maps: Any) -> Any:
        """Return maps of shown images, (n, height, width, …), as the images lie."""


class AsItIs(NamedTuple):
    """The view of a patch as it is."""

    def forward(self, images: Any) -> Any:
        """Return the same."""
        return images

    def inverse(self, maps: Any) -> Any:
        """Return the same."""
        return maps


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
    views: Sequence[View] = (AsItIs(),), path: Path | None = None, key: str = "",
    dense: Dense | None = None, progress: bool = False,
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
        views: Ways to look at the images, whose predictions are averaged.
        path: Parquet file to keep the table in; one that stands with the same fingerprint is read.
            Until it is whole, a folder beside it keeps what is predicted.
        key: Fingerprint of the slide's content and of the views.
        dense: What is made of networks that answer for each pixel: with a `path` their map is
            written beside it, before the table (see `slide_map`). None: a patch has the mean over
            its centre, and there is no map.
        progress: Show patches per second and the time left on standard error.

    Returns:
        A row for each patch and network: `case_id, x, y, footprint, tissue, fold, seed, model`,
        `prob_<class>` (float32). Networks follow one another, patches are in the plan's order.

    Raises:
        TableError: The plan is of another slide.
        ModelError: A network takes other images or gives other classes.
        SettingsError: `dense` does not fit the classes.
        SlideError: More than 5 % of the patches cannot be read.
        KitError: The disk is full, or the folder cannot be written.
    """
    _check_members(members, classes)
    plan = plan.reset_index(drop=True)
    made_by = prediction_key(plan, [one.key for one in members], classes, key, dense)
    folder = None if path is None else Path(path).with_suffix(f".{made_by}")
    stream = Stream(slide, plan, [one.seen for one in members], folder)
    if path is not None and table_key(path) == made_by:
        with contextlib.suppress(KitError):  # damaged behind its key: made again
            return read_table(path)
    work = _Work(members, tuple(classes), views, dense)
    stream.run(work, progress=progress)
    table = _table(stream, members, classes)
    if path is None:
        return table
    _write_map(stream, work, path, folder, made_by)
    write_table(table, path, made_by)
    shutil.rmtree(str(folder), ignore_errors=True)
    return read_table(path)


def prediction_key(
    plan: pd.DataFrame, members: Sequence[str], classes: Sequence[str], key: str,
    dense: Dense | None = None,
) -> str:  # fmt: skip
    """Return the fingerprint of a slide's predictions by networks of these fingerprints."""
    how = None if dense is None else asdict(dense)
    return fingerprint([FORMAT, key, digest(plan), list(members), list(classes), how])


def map_path(table: Path) -> Path:
    """Return where the map of a slide's pixels is, if there is one, beside the slide's table."""
    return Path(table).with_suffix(".npz")


def slide_map(table: Path) -> Heatmap | None:
    """Return the map that was written with a slide's table, None if no network gave pixels.

    Raises:
        ImageError: It cannot be read, or belongs to other predictions than the table.
    """
    path = map_path(table)
    return read_map(path, table_key(table)) if path.is_file() else None


def _check_members(members: Sequence[Member], classes: Sequence[str]) -> None:
    if not members:
        raise ModelError("there is no network to predict with", expected="one or more")
    for one in members:
        given = one.network.output_shape[-1]
        if not takes_patches(one) or given != len(classes):
            raise ModelError(
                "network does not fit the patches", expected=f"(side, side, 3) in, {len(classes)} "
                f"classes out: {', '.join(classes)}",
                received=f"{tuple(one.network.input_shape[1:])} in, {given} out of "
                f"{one.model}, fold {one.fold}, seed {one.seed}",
            )  # fmt: skip


def takes_patches(member: Member) -> bool:
    """Return whether a network takes square RGB images of one size."""
    shape = tuple(member.network.input_shape[1:])
    return len(shape) == 3 and shape[0] == shape[1] and shape[0] is not None and shape[2] == 3


class _Work:
    """From a batch to each network's probabilities, and to the cells of those of pixels."""

    def __init__(
        self, members: Sequence[Member], classes: tuple[str, ...], views: Sequence[View],
        dense: Dense | None,
    ) -> None:  # fmt: skip
        self.members, self.views, self.dense = members, views, dense
        self.positive = None if dense is None else dense.place(classes)
        self.squares = min((one.squares for one in members if one.squares), default=0)

    @property
    def maps(self) -> bool:
        """Whether there are cells."""
        return self.dense is not None and self.squares > 0

    def __call__(self, batch: Read) -> Arrays:
        """Return `prob`, float32 (n, networks, classes), and `cells`, float32 (n, side, side)."""
        n, prob, cells = len(batch.valid), [], []
        for one in self.members:
            given = self._given(one, batch.images[one.seen])[:n]
            if given.ndim == 4 and self.dense is not None and self.positive is not None:
                cells.append(pixels.cells(given[..., self.positive], self.squares))
                given = pixels.scores(given, self.dense.score, self.positive)
            elif given.ndim == 4:
                given = pixels.patch_scores(given, "mean")
            real = given[batch.valid]
            if not (np.isfinite(real).all() and (real >= 0).all() and (real <= 1 + ROUNDED).all()):
                raise ModelError("network gives no probabilities", expected="numbers in [0, 1]",
                                 received=f"others of {one.model}, fold {one.fold}, "
                                 f"seed {one.seed}")  # fmt: skip
            given = given / given.sum(axis=1, keepdims=True)
            prob.append(given.astype(np.float32))
        found = {PROB: np.stack(prob, axis=1)}
        return found | ({CELLS: np.mean(cells, axis=0)} if self.maps else {})

    def _given(self, member: Member, shown: np.ndarray) -> np.ndarray:
        """Return a network's answers, the mean over the views: (n, k), or (n, h, w, k)."""
        total: Any = 0.0
        for view in self.views:
            images = np.ascontiguousarray(view.forward(shown))
            given = np.asarray(member.network.predict_on_batch(images))
            if given.ndim == 4:
                total = total + view.inverse(given) / np.float32(len(self.views))
            else:
                total = total + given.astype(np.float64) / len(self.views)
        return np.asarray(total)


def _table(stream: Stream, members: Sequence[Member], classes: Sequence[str]) -> pd.DataFrame:
    """Return the predictions table: one network after another, without what was not read."""
    prob = np.zeros((len(members), len(stream.plan), len(classes)), np.float32)
    for rows, arrays in stream.parts():
        prob[:, rows] = np.swapaxes(arrays[PROB], 0, 1)
    names = [*PLACE, *(name for name in ("tissue",) if name in stream.plan)]
    places = stream.plan.loc[stream.read, names]
    parts = []
    for one, mine in zip(members, prob[:, stream.read], strict=True):
        named = {f"prob_{name}": mine[:, position] for position, name in enumerate(classes)}
        parts.append(places.assign(fold=one.fold, seed=one.seed, model=one.model, **named))
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table


def _write_map(stream: Stream, work: _Work, path: Path, folder: Path | None, key: str) -> None:
    """Write the map beside where the table will be, or remove the one of an earlier table.

    It has the same fingerprint; temporary files lie in the folder of the blocks.
    """
    if work.dense is None or not work.maps or not stream.read.any():
        map_path(path).unlink(missing_ok=True)
        return

    def cells() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, arrays in stream.parts():
            yield rows, arrays[CELLS]

    found = pixels.stitched(
        cells(), stream.slide, stream.plan, work.dense, side=work.squares, folder=folder
    )
    write_map(found, map_path(path), key)
