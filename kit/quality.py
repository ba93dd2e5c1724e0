"""What stands on each slide before anything is learnt from it: one row a slide, and its patches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import jobs, kinds, polygons, store
from kit.annotations import Values, read_mask
from kit.checks import first
from kit.errors import MaskError, MissingMppError, SlideError
from kit.sampler import PatchSampler, read_planned
from kit.slides import Slide, open_slide
from kit.tissue import BLURRED, sharpness, tissue_mask

SUFFIXES = (
    ".svs", ".tif", ".tiff", ".mrxs", ".ndpi", ".vms", ".vmu", ".scn", ".bif", ".svslide", ".czi",
    ".dcm", ".png", ".jpg", ".jpeg", ".webp", ".bmp",
)  # fmt: skip
MASK_SUFFIXES = (".png", ".tif", ".tiff", *polygons.SUFFIXES)
LOOKED_AT = 64  # patches of a slide whose focus is looked at


def slides_in(places: Sequence[Path]) -> list[Path]:
    """Return the slides named, and those in the folders named; files called `*_mask` are not.

    Raises:
        SlideError: A folder holds no slide, or two slides have the same name without suffix.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            found.append(place)
            continue
        inside = [p for p in sorted(place.iterdir()) if p.suffix.lower() in SUFFIXES]
        inside = [p for p in inside if p.is_file() and not p.stem.lower().endswith("_mask")]
        if not inside:
            raise SlideError(
                "the folder holds no slide", expected=f"one of {first(SUFFIXES, 20)}", path=place
            )
        found += inside
    names = pd.Series([path.stem for path in found])
    if names.duplicated().any():
        raise SlideError(
            "two slides have the same name", expected="one case_id for each slide",
            received=first(names[names.duplicated()]),
        )  # fmt: skip
    return found


def masks_of(slides: Sequence[Path], place: Path | None) -> list[Path | None]:
    """Return the mask or annotation of each slide: the file named, or those of a folder.

    In a folder it is called like the slide, or like the slide and `_mask`; none is None.

    Raises:
        MaskError: One file is named for several slides.
    """
    if place is None or place.is_dir():
        return [None if place is None else _mask_in(place, slide) for slide in slides]
    if len(slides) > 1:
        raise MaskError(
            "one mask for several slides", expected="a folder of masks named like their slides",
            received=f"{len(slides)} slides", path=place,
        )  # fmt: skip
    return [place]


def _mask_in(folder: Path, slide: Path) -> Path | None:
    names = [f"{stem}{end}" for stem in (slide.stem, f"{slide.stem}_mask") for end in MASK_SUFFIXES]
    found = [folder / name for name in names if (folder / name).is_file()]
    return next((path for path in found if path != slide), None)


def survey(
    paths: Sequence[Path],
    sampler: PatchSampler,
    *,
    masks: Sequence[Path | None] | None = None,
    values: Values | None = None,
    slide_mpp: float | None = None,
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Plan slides and say what stands on them; one job a slide.

    Args:
        paths: The slides; each file's name without suffix is its `case_id`.
        sampler: How they are cut.
        masks: Mask image or annotation file of each slide, or None.
        values: What the masks' values mean (see `kit.annotations.read_mask`); others mean nothing.
        slide_mpp: Resolution of level 0 of all slides, in place of what the files say.
        workers: Processes.

    Returns:
        The patches table; a row for each slide: `slide, width, height, levels, mpp,
        tissue_percent, pen_percent, blurred_percent` (of the patches, 64 at most looked at),
        `patches, tumour_patches, reader, seconds`; and a line for each slide that failed.

    Raises:
        KitError: The slide, where none could be planned: the first one's own error.
    """
    of_slide = masks if masks is not None else [None] * len(paths)
    work = [
        jobs.Job(path.name, _survey, (path, sampler, mask, values, slide_mpp))
        for path, mask in zip(paths, of_slide, strict=True)
    ]
    done = jobs.run(work, title="slides", workers=workers)
    errors = [one.error for one in done if one.error is not None]
    if len(errors) == len(done):
        raise errors[0] if errors else SlideError("no slide was named")
    good = [one.value for one in done if one.error is None]
    plan = pd.concat([plan for plan, _ in good], ignore_index=True)
    failed = [f"{one.name}: {one.error}" for one in done if one.error is not None]
    table = pd.DataFrame([row for _, row in good])
    return plan, table.astype({"tumour_patches": "Int64"}), failed


def _survey(
    path: Path, sampler: PatchSampler, mask: Path | None, values: Values | None,
    slide_mpp: float | None,
) -> tuple[pd.DataFrame, dict[str, Any]]:  # fmt: skip
    start = time.perf_counter()
    with open_slide(path, mpp=slide_mpp) as slide:
        tissue = tissue_mask(slide)
        drawn = None if mask is None else read_mask(mask, slide, values=values, others=True)
        plan = sampler.plan(slide, tissue, drawn)
        row = {
            "slide": path.name, "width": slide.size[0], "height": slide.size[1],
            "levels": len(slide.levels), "mpp": _mpp(slide),
            "tissue_percent": round(100 * tissue.share, 2),
            "pen_percent": round(100 * tissue.pen, 2),
            "blurred_percent": _blurred(slide, plan),
            "patches": len(plan),
            "tumour_patches": None if drawn is None else int((plan.label == "tumour").sum()),
            "reader": slide.reader,
        }  # fmt: skip
    return plan, {**row, "seconds": round(time.perf_counter() - start, 2)}


def _mpp(slide: Slide) -> float | None:
    try:
        return slide.mpp
    except MissingMppError:
        return None


def _blurred(slide: Slide, plan: pd.DataFrame) -> float | None:
    """Return the share of blurred patches in percent, of some spread evenly over the plan."""
    if plan.empty:
        return None
    looked = plan.iloc[np.unique(np.linspace(0, len(plan) - 1, LOOKED_AT).astype(int))]
    score = sharpness(read_planned(slide, looked))
    known = ~np.isnan(score)
    return round(100 * float((score[known] < BLURRED).mean()), 2) if known.any() else None


def keep(
    plan: pd.DataFrame, paths: Sequence[Path], folder: Path, slide_mpp: float | None, workers: int,
    *, jpeg_quality: int | None = None,
) -> list[str]:  # fmt: skip
    """Keep the planned patches' pixels as a `kit.store.Store`; return what could not be read.

    Args:
        plan: Patches table of the slides.
        paths: The slides.
        folder: Where the store stands; what stands there already is not read again.
        slide_mpp: As for `survey`.
        workers: Processes.
        jpeg_quality: Keep JPEGs of this quality; None is lossless.
    """
    places = {path.stem: path.absolute() for path in paths}
    stamps = {name: path.stat() for name, path in places.items()}
    items = plan.assign(
        path=plan.case_id.map({name: str(path) for name, path in places.items()}),
        key=plan.case_id.map(
            {name: f"{one.st_size}@{one.st_mtime_ns}" for name, one in stamps.items()}
        ),
    )
    size = int(plan["size"].max()) if len(plan) else 1
    read = partial(kinds.read_slides, Path(), size, slide_mpp)
    return store.build(folder, items, read, slide_mpp, workers=workers, quality=jpeg_quality)[1]
