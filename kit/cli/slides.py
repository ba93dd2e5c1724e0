"""`kit patches`: plan slides, look at what stands on them, keep their patches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.cli.common import FAILED, OK, Cluster, Json, Workers, alone_or, app, say, show_table
from kit.errors import KitError

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def patches(
    slides: Annotated[
        list[Path], typer.Argument(help="Slides, or folders of slides.", metavar="SLIDE...")
    ],
    patch_size: Annotated[int, typer.Option(help="Side of a patch, its own pixels.")],
    out: Annotated[Path, typer.Option(help="Patches table to write.", metavar="P.parquet")],
    mask: Annotated[
        Path | None,
        typer.Option(help="Mask image of the slide, or a folder of SLIDE or SLIDE_mask files.",
                     metavar="M"),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="ASAP or HALO XML or QuPath GeoJSON, or a folder of them.", metavar="A"),
    ] = None,
    tumour_value: Annotated[
        str | None,
        typer.Option(help="What is tumour: a mask image's value [255], or annotations' groups, "
                     "such as Tumor,InSitu [the only one].", metavar="V"),
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of a patch.")] = None,
    level: Annotated[int | None, typer.Option(help="Or the slide's level [0].")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Step of the grid in patch pixels [patch size].")
    ] = None,
    min_tissue: Annotated[float, typer.Option(help="Least tissue fraction of a patch.")] = 0.5,
    slide_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of level 0, where the slide does not say it.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder to keep the patches' pixels in.", metavar="DIR")
    ] = None,
    jpeg_quality: Annotated[
        int | None, typer.Option(help="Keep JPEGs of this quality in the store [lossless].")
    ] = None,
    as_json: Json = False,
    workers: Workers = None,
    cluster: Cluster = None,
) -> int:  # fmt: skip
    """Say what stands on slides and plan their patches.

    P.parquet holds a row for each patch (level-0 pixels), P.slides.csv a row for each slide. A
    slide that fails among others is named, and the exit code is 1.
    """
    from kit import clusters, jobs, quality
    from kit.files import write_table, write_text
    from kit.sampler import PatchSampler

    alone_or(cluster, workers)
    _check(mask, annotations, store, jpeg_quality, mpp, level)
    sampler = PatchSampler(patch_size, mpp=mpp, level=level or 0, stride=stride,
                           min_tissue=min_tissue)  # fmt: skip
    values = _values(tumour_value, annotations is not None)
    paths = quality.slides_in(slides)
    drawn = quality.masks_of(paths, mask or annotations)
    places = {path.parent for path in paths}
    with clusters.on(cluster, sees=sorted(places), writes=[store or out.parent]) as engine:
        size = engine.size if engine else workers or jobs.cores()
        plan, found, failed = quality.survey(
            paths, sampler, masks=drawn, values=values, slide_mpp=slide_mpp, workers=size
        )
        write_table(plan, out)
        write_text(out.with_suffix(".slides.csv"), found.to_csv(index=False))
        if store is not None:
            failed += quality.keep(plan, paths, store, slide_mpp, size, jpeg_quality=jpeg_quality)
    if as_json:
        kept: dict[str, Any] = {"store": str(store)} if store else {}
        rows = json.loads(found.to_json(orient="records"))
        typer.echo(json.dumps({"out": str(out), **kept, "patches": len(plan), "slides": rows,
                               "failures": failed}))  # fmt: skip
    else:
        bare = [path.name for path, place in zip(paths, drawn, strict=True) if place is None]
        _tell(found, f"{len(plan):,} patches of {len(found)} slides: {out}", failed,
              bare if mask or annotations else [])  # fmt: skip
    return FAILED if failed else OK


def _check(
    mask: Path | None, annotations: Path | None, store: Path | None, jpeg_quality: int | None,
    mpp: float | None, level: int | None,
) -> None:  # fmt: skip
    """Raise on options that exclude or need each other."""
    if mask is not None and annotations is not None:
        raise KitError("--mask and --annotations exclude each other")
    if jpeg_quality is not None and store is None:
        raise KitError("--jpeg-quality says how a store is kept", remedy="give --store DIR")
    if mpp is not None and level is not None:
        raise KitError("--mpp and --level exclude each other", received=f"{mpp} and {level}")


def _tell(found: pd.DataFrame, said: str, failed: list[str], bare: list[str]) -> None:
    """Print the slides, what was written, and the slides without a mask or left out."""
    show_table(found)
    for name in bare:
        say(f"{name}: no mask of its name")
    typer.echo(said)
    for line in failed:
        say(f"left out: {line}")


def _values(text: str | None, groups: bool) -> dict[str, int | list[str]] | None:
    """Return what `--tumour-value` says is tumour: a number of a mask, or names of groups."""
    if text is None:
        return None
    if groups:
        return {"tumour": text.split(",")}
    if not text.isdigit():
        raise KitError("--tumour-value takes a whole number with --mask", received=repr(text))
    return {"tumour": int(text)}
