"""Networks that make vectors of patches: which may be shown a slide, and a slide through them.

What a bag's network is judged on must not have taught the encoder either. An encoder without labels
(random, or pretrained elsewhere) may embed every slide for every fold. A run's own networks are
encoders of one fold each: for fold f all slides are embedded by the network that has left fold f
out, those that the bag's network learns from and those that it is judged on. Its training slides
are then known to the encoder and look easier than new ones, which costs accuracy and flatters
nobody.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit import _vector_files
from kit._stream import Arrays, Read, Stream, Work
from kit.backend import load_backend
from kit.checks import first, positive_int
from kit.errors import GroupLeakError, MissingDataError, ModelError, TableError
from kit.files import (
    atomic,
    digest,
    fingerprint,
    read_json,
    read_table,
    sha256,
    table_key,
    write_json,
)
from kit.fits import stands
from kit.heatmaps import file_name
from kit.slides import Slide
from kit.streams import Member, takes_patches

FORMAT = 1
NO_LABELS = -2
"""The fold of an encoder that has learnt from no label of the data."""


def unlabelled(
    model: str, side: int, folder: Path, *, weights: Path | None = None, seed: int = 0
) -> Path:
    """Return the file of an encoder that has seen no label of the data, made if it is not there.

    Args:
        model: A network of the registry.
        side: Of the patches, pixels.
        folder: Where it is kept, with its note.
        weights: A file of pretrained weights, as for `kit.models.build_model`; None: random ones,
            whose vectors still tell colours and textures apart.
        seed: Of random weights.

    Raises:
        ModelError: The name is unknown, or the weights do not fit.
    """
    load_backend(1)
    import keras

    from kit.models import build_model

    path = Path(folder) / f"{model.replace(':', '_').replace('/', '_')}.keras"
    begun = None if weights is None else sha256(weights)
    key = fingerprint([FORMAT, model, positive_int("side", side), begun, seed])
    if stands(path, key):
        return path
    keras.utils.set_random_seed(seed)
    network = build_model(model, (side, side, 3), weights=weights)
    with atomic(path) as part:
        network.save(part)
    write_json(path.with_suffix(".json"), {
        "key": key, "sha256": sha256(path), "model": model, "fold": NO_LABELS, "seed": seed,
    })  # fmt: skip
    return path


def headless(member: Member) -> Member:
    """Return a network of the registry without its head: it gives a vector for each image.

    Raises:
        ModelError: It gives maps, not rows, or has no head that the kit knows.
    """
    from kit.models import embedding_model, head_layers

    head_layers(member.network)  # a stranger is refused
    network = embedding_model(member.network)
    return Member(network, member.fold, member.seed, member.model, member.key, member.stain)


def embed_slide(
    slide: Slide, plan: pd.DataFrame, members: Sequence[Member], *, paths: Sequence[Path],
    key: str = "", progress: bool = False,
) -> None:  # fmt: skip
    """Write the vectors of one slide's planned patches by each network, all in one reading.

    Vectors are of float16, patches in the plan's order; those that cannot be read have no row. What
    stands with its fingerprint is left; memory does not grow with the slide.

    Args:
        slide: Open slide.
        plan: Its plan; no row for a slide without tissue, whose files then have none.
        members: Networks that give a vector for each image (`headless`).
        paths: The file of each (`kit.embeddings.write`). Until they are whole, a folder beside the
            first keeps what is made.
        key: Fingerprint of the slide's content.
        progress: Show patches per second and the time left on standard error.

    Raises:
        TableError: The plan is of another slide, or a number is none that float16 holds.
        ModelError: A network takes other images, or gives no vector.
        SlideError: More than 5 % of the patches cannot be read.
        KitError: The disk is full, or the folder cannot be written.
    """
    plan = plan.reset_index(drop=True)
    wanted = {path: vectors_key(plan, one.key, key)
              for one, path in zip(members, paths, strict=True)}  # fmt: skip
    left = {path: one for one, path in zip(members, paths, strict=True)
            if table_key(path) != wanted[path]}  # fmt: skip
    if not left:
        return
    _check_members(list(left.values()))
    made_by = fingerprint(sorted(wanted[path] for path in left))
    folder = Path(paths[0]).with_suffix(f".{made_by}")
    stream = Stream(slide, plan, [one.seen for one in left.values()], folder)
    stream.run(_work(left), progress=progress)
    for path, one in left.items():
        vectors = _gathered(stream, one, folder)
        _vector_files.write(path, plan[stream.read], vectors, wanted[path])
        del vectors  # Windows removes no file that is mapped
    shutil.rmtree(folder, ignore_errors=True)


def vectors_key(plan: pd.DataFrame, member: str, key: str) -> str:
    """Return the fingerprint of a slide's vectors by a network of this fingerprint."""
    return fingerprint([FORMAT, key, digest(plan), member])


def _work(members: Mapping[Path, Member]) -> Work:
    def work(batch: Read) -> Arrays:
        """Return each network's vectors by its fingerprint, float16 (n, d)."""
        n, found = len(batch.valid), {}
        for path, one in members.items():
            given = np.asarray(one.network.predict_on_batch(batch.images[one.seen]), np.float32)
            found[one.key] = _vector_files.as_float16(given[:n], path=path)
        return found

    return work


def _gathered(stream: Stream, member: Member, folder: Path) -> np.ndarray:
    """Return one network's vectors in the plan's order, from a file that the system may page."""
    shape = (int(stream.read.sum()), int(member.network.output_shape[-1]))
    if not shape[0]:
        return np.zeros(shape, np.float16)
    place = np.cumsum(stream.read) - 1
    found = np.lib.format.open_memmap(
        folder / f"{member.key[:16]}.npy", mode="w+", dtype=np.float16, shape=shape
    )
    for rows, arrays in stream.parts():
        found[place[rows]] = arrays[member.key]
    return found


def _check_members(members: Sequence[Member]) -> None:
    for one in members:
        shape = tuple(one.network.output_shape)
        if not takes_patches(one) or len(shape) != 2:
            raise ModelError(
                "network makes no vectors of patches", expected="(side, side, 3) in, (d,) out",
                received=f"{tuple(one.network.input_shape[1:])} in, {shape[1:]} out of {one.model}",
            )  # fmt: skip


def vectors_path(folder: Path, encoder: Path, case_id: str) -> Path:
    """Return where the vectors of a slide by an encoder are kept."""
    return Path(folder) / Path(encoder).stem / f"{file_name(case_id)}.parquet"


@dataclass(frozen=True, eq=False)
class SlideBags:
    """The vectors of slides, each fold's by the encoder that may be shown it; see `bags`.

    Attributes:
        of_fold: By fold, or `NO_LABELS` alone.
    """

    of_fold: Mapping[int, _vector_files.Bags]

    def __call__(self, case_id: str, fold: int = 0) -> np.ndarray:
        """Return a slide's vectors for a fold, float16 (n, d)."""
        return self._of(fold)(case_id)

    def places(self, case_id: str, fold: int = 0) -> pd.DataFrame:
        """Return where a slide's patches lie, `case_id, x, y, footprint`, in the vectors' order."""
        return self._of(fold).places(case_id)

    def _of(self, fold: int) -> _vector_files.Bags:
        found = self.of_fold.get(NO_LABELS, self.of_fold.get(fold))
        if found is None:
            raise GroupLeakError(
                "every encoder has learnt from the labels of this fold", received=f"fold {fold}",
                expected=f"one that left it out; there are those of {first(sorted(self.of_fold))}",
            )  # fmt: skip
        return found


def bags(
    cases: pd.DataFrame, encoders: Sequence[Path], folder: Path, *,
    folds: pd.DataFrame | None = None,
) -> SlideBags:  # fmt: skip
    """Return the vectors that `kit.slide_jobs.embed_slides` made, for `kit.mil.cross_validate`.

    Args:
        cases: `case_id`: the slides that a bag's network learns from or predicts.
        encoders: One without labels (`unlabelled`), or a run's networks, one of each fold.
        folder: Where the vectors are.
        folds: The folds table of the bags' networks. The networks of a run must be of the same: the
            run's own lies beside their folder, `folds.parquet`.

    Raises:
        GroupLeakError: An encoder has learnt from all cases, or its folds are other ones.
        MissingDataError: A slide has no vectors, or a run's folds are not known.
        TableError: A file cannot be read, or several encoders are of one fold.
    """
    notes = {path: read_json(Path(path).with_suffix(".json")) for path in encoders}
    numbers = [int(note["fold"]) for note in notes.values()]
    if not numbers or len(set(numbers)) < len(numbers) or (NO_LABELS in numbers[1:]):
        raise TableError("encoders must be one without labels, or one of each fold",
                         received=f"those of folds {first(numbers) or 'none'}")  # fmt: skip
    for path, fold in zip(notes, numbers, strict=True):
        if fold != NO_LABELS:
            _check_fold(Path(path), fold, folds)
    return of_new(cases, encoders, folder)


def of_new(cases: pd.DataFrame, encoders: Sequence[Path], folder: Path) -> SlideBags:
    """Return the vectors of slides of no fold, for `kit.mil.predict`.

    Args:
        cases: `case_id`.
        encoders: Those whose vectors the bags' networks learnt from, one of each fold.
        folder: Where the vectors are.

    Raises:
        MissingDataError: A slide has no vectors.
        TableError: A file cannot be read.
    """
    numbers = [int(read_json(path.with_suffix(".json"))["fold"]) for path in encoders]
    return SlideBags({
        fold: _vectors(cases, path, folder) for path, fold in zip(encoders, numbers, strict=True)
    })  # fmt: skip


def of_folds(networks: Sequence[Path]) -> list[Path]:
    """Return the networks of a run that serve as encoders: the first seed's of each fold."""
    notes = {path: read_json(Path(path).with_suffix(".json")) for path in networks}
    lowest: dict[int, Path] = {}
    for path in sorted(networks, key=lambda path: int(notes[path]["seed"])):
        lowest.setdefault(int(notes[path]["fold"]), path)
    return [lowest[fold] for fold in sorted(lowest) if fold >= 0]


def _vectors(cases: pd.DataFrame, encoder: Path, folder: Path) -> _vector_files.Bags:
    """Return the vectors of slides by one encoder."""
    places = {case: vectors_path(folder, encoder, case) for case in map(str, cases.case_id)}
    missing = [case for case, place in places.items() if not place.is_file()]
    if missing:
        raise MissingDataError("slides have no vectors", received=first(missing),
                               path=Path(folder) / Path(encoder).stem,
                               remedy="embed them, or leave them out")  # fmt: skip
    return _vector_files.of_paths(places)


def _check_fold(encoder: Path, fold: int, folds: pd.DataFrame | None) -> None:
    """Raise where it is not sure that an encoder has left a fold's slides out."""
    if fold < 0:
        raise GroupLeakError(
            "the encoder has learnt from all labels", path=encoder,
            expected="the network of a fold, or one that saw no labels (kit.encoders.unlabelled)",
        )  # fmt: skip
    own = encoder.parent.parent / "folds.parquet"
    if folds is None or not own.is_file():
        raise MissingDataError("it is not known which slides the encoder has seen", path=own,
                               expected="the folds table of its run, and folds=…")  # fmt: skip
    theirs = read_table(own)
    held = folds.case_id[folds.fold == fold]
    seen = sorted(held[held.isin(theirs.case_id[theirs.fold != fold])])
    if seen:
        raise GroupLeakError(
            "the encoder has learnt from slides that are to judge it", path=encoder,
            expected="networks of the same folds", received=f"fold {fold}: {first(seen)}",
            remedy="give both the same fold table",
        )  # fmt: skip
