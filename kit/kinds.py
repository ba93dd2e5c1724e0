"""What differs between kinds of data: which images a case gives, and how they are read."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from kit import fundus, images, jobs, slides, studies
from kit.draws import draw, in_ratio, spread
from kit.errors import ImageError, SettingsError
from kit.files import FileIndex, fingerprint
from kit.manifest import Dataset
from kit.marks import ACTION, RELABEL, taught
from kit.sampler import READ_BY, PatchSampler, read_planned
from kit.settings import Settings
from kit.stain import Normaliser
from kit.store import Reader

PLANNED = ("slides", "dicom")
STREAMED = ("slides",)
STAINED = ("slides", "patches")
"""Kinds whose cases give many images each, those that are predicted from their files, and those
whose stains may be normalised."""
READS = ("image_size", "mixed_sizes", "fundus")
PLANS = (
    "patch_size", "mpp", "level", "stride", "tissue", "min_tissue", "min_tumour", "max_normal",
    "partial", "min_focus", "smaller",
)  # fmt: skip
"""Settings that decide the pixels of an item, and those that decide the plan that items are of."""
ITEM = ["case_id", "path", "label", "group", "split", "key"]


def reads(kind: str) -> tuple[str, ...]:
    """Return the settings that decide the pixels of an item."""
    return (*READS, *studies.READ) if kind == "dicom" else READS


def plans(kind: str) -> tuple[str, ...]:
    """Return the settings that decide the plan that items are of."""
    return studies.PLAN if kind == "dicom" else PLANS


def patches(
    cases: pd.DataFrame, dataset: Dataset, root: Path, settings: Settings, *, folder: Path,
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Return the patches table (crops of slides, slices of studies) and what cannot be opened.

    Args:
        cases: The cases table.
        dataset: Of a kind in `PLANNED`.
        root: Folder that paths are relative to.
        settings: How slides are cut.
        folder: Where each slide's plan is kept, so that planning resumes.
        workers: Processes.

    Returns:
        The patches table, and `case_id, reason` of the cases that failed.
    """
    done = _planned(cases, dataset, root, settings, folder, workers)
    failed = [(one.name, f"{one.name}: {one.error}") for one in done if one.error is not None]
    plans = [one.value for one in done if one.error is None]
    if not plans:
        raise ImageError("no case can be opened", received=failed[0][1], path=root)
    lost = pd.DataFrame(failed, columns=["case_id", "reason"], dtype=object)
    return pd.concat(plans, ignore_index=True), lost


def _planned(
    cases: pd.DataFrame, dataset: Dataset, root: Path, settings: Settings, folder: Path,
    workers: int,
) -> list[jobs.Outcome]:  # fmt: skip
    if dataset.kind == "dicom":
        work = [
            jobs.Job(str(case["case_id"]), studies.plan, (
                case["case_id"], root / case["path"], case["label"], settings.channels,
                dataset.all_series,
            )) for case in cases.to_dict("records")
        ]  # fmt: skip
        return jobs.run(work, title="planning dicom", workers=workers)
    sampler = PatchSampler(
        settings.patch_size, mpp=settings.mpp, level=settings.level, stride=settings.stride,
        tissue=settings.tissue, min_tissue=settings.min_tissue, min_tumour=settings.min_tumour,
        max_normal=settings.max_normal, partial=settings.partial, min_focus=settings.min_focus,
        smaller=settings.smaller,
    )  # fmt: skip
    order = sorted(dataset.classes, key=lambda name: name == dataset.positive)
    return sampler.outcomes(
        cases, root, order, workers, mask_values=dataset.mask_values,
        mask_frame=dataset.mask_frame, mpp=dataset.mpp, folder=folder,
    )  # fmt: skip


def items(
    cases: pd.DataFrame, plan: pd.DataFrame | None, settings: Settings, *, streamed: bool = False,
    positive: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the images to keep: `case_id, path, label, group, split, key, train, predict`.

    What is predicted is chosen without a look at labels; what is learnt from is balanced. Labels
    are those to learn, as a person's review left them; a case that it drops stays to be predicted.

    Args:
        cases: The cases table.
        plan: The patches table; None where a case is one image.
        settings: How much of a case is learnt from and predicted.
        streamed: Whether cases are predicted from their files: only what is learnt from is kept.
        positive: The positive class, for `draw=kind`.

    Raises:
        SettingsError: `draw=kind`, and the cases are no slides of two classes.
    """
    if settings.draw == "kind" and (positive is None or plan is None or "tumour" not in plan):
        raise SettingsError(
            "patches are drawn by kind of slides of two classes", received="draw=kind",
            expected="slides with a positive class", remedy="--set draw=slide",
        )  # fmt: skip
    cases = taught(cases)
    if plan is None:
        free = [name for name in ("index", "part") if name in cases]
        return cases[[*ITEM, *free, "train"]].assign(predict=True)
    seed = settings.seed
    place = ["case_id", "x", "y", *(name for name in (*READ_BY, "footprint") if name in plan)]
    owner = cases.set_index("case_id")
    own = plan.label.notna()
    if ACTION in owner:  # slices of a study hold its label as it was given
        own &= plan.case_id.map(owner[ACTION]) != RELABEL
    label = plan.label.where(own, plan.case_id.map(owner.label))
    learnt = plan.assign(label=label)[plan.case_id.map(owner.split) == "train"]
    choose = draw if "tumour" in plan else spread  # a study's slices are all of one class
    learnt = choose(learnt, per_slide=settings.patches_per_slide, seed=seed)
    if settings.draw == "kind" and positive is not None:
        learnt = in_ratio(learnt, cases, positive=positive, seed=seed)
    table = learnt[[*place, "label"]].assign(train=True)
    if not streamed:
        predicted = to_predict(plan, settings)[place].assign(predict=True)
        table = table.merge(predicted, on=place, how="outer")
    # Patches of a dropped case keep their place, so that no other patch is read again.
    table["train"] = table.train.eq(True) & table.case_id.map(owner.train).eq(True)
    table["predict"] = table["predict"].eq(True) if "predict" in table else False
    for name in ("path", "group", "split"):
        table[name] = table.case_id.map(owner[name])
    table["label"] = table.label.where(table.train, None)
    keys = table.case_id.map(owner["key"])
    crops = zip(keys, *(table[name] for name in place[1:]), strict=True)
    table["key"] = [f"{key}@{','.join(map(str, crop))}" for key, *crop in crops]
    return table.sort_values(place, ignore_index=True)


def to_predict(plan: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the rows of a plan that are predicted, chosen without a look at labels."""
    if settings.predict_per_slide is None:
        return plan
    return spread(plan, per_slide=settings.predict_per_slide, seed=settings.seed)


def reader(dataset: Dataset, root: Path, settings: Settings, items: pd.DataFrame) -> Reader:
    """Return the picklable function that reads rows of the items to pixels.

    Without a rule for mixed sizes all images must have the size of the first that can be read,
    unless `fundus` cuts each to its eye.

    Raises:
        SettingsError: `fundus` is asked for slides or studies.
    """
    size, how, eye = settings.image_size, settings.mixed_sizes, settings.fundus
    if eye != "none" and dataset.kind in PLANNED:
        raise SettingsError("fundus is for photographs", expected="fundus=none",
                            received=f"fundus={eye} for {dataset.kind}")  # fmt: skip
    if dataset.kind == "slides":
        return partial(read_slides, root, size, dataset.mpp)
    if dataset.kind == "arrays":
        return partial(_read_arrays, root, size, how or "resize", eye)
    if dataset.kind == "dicom":
        return partial(
            studies.read, root, size, how or "resize", settings.channels, settings.scaling,
            dataset.all_series,
        )  # fmt: skip
    if eye != "none":
        return partial(_read_eyes, root, size, eye)
    return partial(_read_images, root, size, how, None if how else _first_shape(root, items, size))


def normaliser(dataset: Dataset, settings: Settings) -> Normaliser | None:
    """Return what brings every patch to one look before a network sees it; None: nothing does.

    The look is the standard one: nothing is fitted, so that no fold's patients have a say in it and
    all networks, and the patches of any later slide, have the same.

    Raises:
        SettingsError: The data are no patches or slides of pathology.
    """
    if settings.stain == "none":
        return None
    if dataset.kind not in STAINED:
        raise SettingsError(
            "only pathology has stains to normalise", expected=f"kind {' or '.join(STAINED)}",
            received=f"stain={settings.stain} for {dataset.name}, kind {dataset.kind}",
            remedy="--set stain=none",
        )  # fmt: skip
    return Normaliser.standard(settings.stain)


def _first_shape(root: Path, items: pd.DataFrame, size: int) -> tuple[int, ...] | None:
    for path in items.path:
        with contextlib.suppress(ImageError):  # those that cannot be read are named later
            return images.read_reduced(root / path, size).stored
    return None


def _read_eyes(root: Path, size: int, how: fundus.Fundus, rows: pd.DataFrame) -> np.ndarray:
    return np.stack([fundus.read_eye(root / path, size, how) for path in rows.path])


def _read_images(
    root: Path, size: int, how: images.Fit | None, shape: tuple[int, ...] | None, rows: pd.DataFrame
) -> np.ndarray:
    found = []
    for path in rows.path:
        image, stored = images.read_reduced(root / path, size)
        if how is None and stored != shape:
            raise SettingsError(
                "images have mixed sizes, and nothing says how they are fitted", path=root / path,
                expected=f"{shape} as the first image", received=stored,
                remedy="say `mixed_sizes: resize` or `mixed_sizes: pad` (keeps the scale) in the "
                "manifest, or --set it",
            )  # fmt: skip
        found.append(images.fit(image, size, how or "resize"))
    return np.stack(found)


def _read_arrays(
    root: Path, size: int, how: images.Fit, eye: fundus.Fundus, rows: pd.DataFrame
) -> np.ndarray:
    found = []
    for path, part, index in zip(rows.path, rows.part, rows["index"], strict=True):
        image = array_images(root / path, part)[index]
        cut = images.fit(image, size, how) if eye == "none" else fundus.normalise(image, size, eye)
        found.append(cut)
    return np.stack(found)


@lru_cache(maxsize=3)
def array_images(path: Path, part: str) -> np.ndarray:
    """Return the images of one part of an `.npz`, uint8, shape (n, height, width[, channels])."""
    with np.load(path, allow_pickle=False) as arrays:
        pixels: np.ndarray = arrays[f"{part}_images"]
    if pixels.dtype != np.uint8:
        raise ImageError("images are not 8-bit", expected="uint8", received=pixels.dtype, path=path)
    return pixels


def read_slides(root: Path, size: int, own_mpp: float | None, rows: pd.DataFrame) -> np.ndarray:
    """Return planned patches of several slides, each fitted to `size` (see `read_planned`).

    Args:
        root: Folder that the paths are relative to.
        size: Side of the images, pixels.
        own_mpp: Resolution of level 0 of all slides, in place of what the files say.
        rows: path, and the columns of a plan.
    """
    result = np.zeros((len(rows), size, size, 3), np.uint8)
    for path, of_slide in rows.reset_index(drop=True).groupby("path"):
        with slides.open_slide(root / str(path), mpp=own_mpp) as slide:
            for _, places in of_slide.groupby("size"):
                found = read_planned(slide, places)
                result[places.index] = np.stack([images.fit(one, size) for one in found])
    return result


def content_key(
    dataset: Dataset, root: Path, cases: pd.DataFrame, index: FileIndex, settings: Settings
) -> list[str]:
    """Return a fingerprint of each case's own pixels, by which later stages see a change.

    A file or folder counts whole, a MIRAX slide with its folder, an array by its own row; a series
    with the study's others where they are channels.
    """
    if dataset.kind == "arrays":
        rows = zip(cases.path, cases.part, cases["index"], strict=True)
        return [
            hashlib.sha256(array_images(root / path, part)[i].tobytes()).hexdigest()[:16]
            for path, part, i in rows
        ]
    keys = []
    for path in cases.path:
        place = root / path
        parts = [index.sha256(place)]
        if place.suffix == ".mrxs" and place.with_suffix("").is_dir():
            parts.append(index.sha256(place.with_suffix("")))
        parts += map(index.sha256, studies.beside(dataset, settings, place))
        keys.append(fingerprint(parts))
    return keys
