"""How fast patches are read, beside what a user would pick instead.

Rates are patches a second of CPU time, taken in turn in one process; `--real DIR` is the folder
of real data (KIT_REAL_DATA), for the formats that cannot be written here.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from bench import Row, Timed, arguments, measure, tell

from kit import synthetic
from kit.codecs import decoder
from kit.slides import open_slide

SIDE, LARGE, BATCH = 256, 8192, 128
LEVELS = 4


def write_slide(path: Path, **how: Any) -> Path:
    """Write a tiled pyramid of drawn tissue without glass: every tile costs its decoding."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = synthetic.make("synthetic_slides", Path(folder), seed=0, scale=0.1)
        with open_slide(sorted(drawn.rglob("*.tif"))[0]) as slide:
            x, y = (max(0, (side - 1024) // 2) for side in slide.size)
            piece = slide.read_patch((x, y), (1024, 1024))
    side = how.pop("side", LARGE)
    image = np.tile(piece, (-(-side // 1024), -(-side // 1024), 1))[:side, :side]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(LEVELS):
            per_cm = 1e4 / (0.5 * 2**level)
            tiff.write(
                image, tile=(SIDE, SIDE), photometric="rgb", metadata=None,
                subfiletype=int(level > 0), resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER", **how,
            )  # fmt: skip
            image = np.ascontiguousarray(image[::2, ::2])
    return path


def grid(side: int, step: int) -> np.ndarray:
    """Return the corners of whole patches, row-major, shape (n, 2)."""
    places = np.arange(0, side - SIDE + 1, step)
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def by_kit(path: Path, xy: np.ndarray, threads: int = 1, **at: Any) -> Callable[[], None]:
    """Return the kit's reading, in batches as a network takes them."""

    def read() -> None:
        with open_slide(path, threads=threads) as slide:
            for start in range(0, len(xy), BATCH):
                slide.read_patches(xy[start : start + BATCH], SIDE, **at)

    return read


def by_openslide(path: Path, xy: np.ndarray, level: int = 0) -> Callable[[], None]:
    """Return the loop that everybody writes."""

    def read() -> None:
        with openslide.OpenSlide(path) as slide:
            for x, y in xy.tolist():
                np.asarray(slide.read_region((x, y), level, (SIDE, SIDE)).convert("RGB"))

    return read


def by_peers(path: Path, xy: np.ndarray) -> dict[str, Callable[[], None]]:
    """Return the readings of the peers that are installed."""
    found: dict[str, Callable[[], None]] = {}
    if vips := _imported("pyvips"):
        image = vips.Image.new_from_file(str(path), page=0)
        region = vips.Region.new(image)

        def by_vips() -> None:
            for x, y in xy.tolist():
                np.frombuffer(region.fetch(x, y, SIDE, SIDE), np.uint8).reshape(SIDE, SIDE, -1)

        found["pyvips"] = by_vips
    if module := _imported("tiffslide"):

        def by_tiffslide() -> None:
            with module.TiffSlide(path) as slide:
                for x, y in xy.tolist():
                    slide.read_region((x, y), 0, (SIDE, SIDE), as_array=True)

        found["tiffslide"] = by_tiffslide
    if cucim := _imported("cucim"):
        handle = cucim.CuImage(str(path))

        def by_cucim() -> None:
            for x, y in xy.tolist():
                np.asarray(handle.read_region((x, y), (SIDE, SIDE), 0))

        found["cuCIM"] = by_cucim
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:  # not here, or its C library is not
        return None


def by_decoding(path: Path, level: int = 0) -> tuple[Callable[[], None], int]:
    """Return the decoding of every tile of a level and nothing else: the limit; and how many."""
    tiff = tifffile.TiffFile(path)
    page = tiff.pages[level]
    decode, tiles = decoder(page), []
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        tiff.filehandle.seek(offset)
        tiles.append(tiff.filehandle.read(length))

    def read() -> None:
        for number, tile in enumerate(tiles):
            decode(tile, number, None)

    return read, len(tiles)


def rate(timed: Timed, n: int) -> float:
    """Return patches a CPU second."""
    return n / timed.cpu


def compare(what: str, path: Path, xy: np.ndarray, goal: str) -> list[Row]:
    """Return the kit beside OpenSlide's loop and every peer, on the same places."""
    work = {"kit": by_kit(path, xy), "openslide": by_openslide(path, xy), **by_peers(path, xy)}
    found = {name: rate(timed, len(xy)) for name, timed in measure(work).items()}
    return [
        Row(what, f"{found['kit']:,.0f} / s", f"{name} {other:,.0f} / s", found["kit"] / other,
            goal if name == "openslide" else "")
        for name, other in found.items() if name != "kit"
    ]  # fmt: skip


def against_limit(what: str, path: Path, xy: np.ndarray, goal: str, repeats: int = 5) -> Row:
    """Return the kit's aligned reading beside the decoding of the tiles alone."""
    limit, n = by_decoding(path)
    found = measure({"kit": by_kit(path, xy), "limit": limit}, repeats=repeats)
    mine, most = rate(found["kit"], len(xy)), rate(found["limit"], n)
    return Row(what, f"{mine:,.0f} / s", f"decoding alone {most:,.0f} / s", mine / most, goal)


def threads(path: Path, xy: np.ndarray) -> Row:
    """Return two threads beside one, in wall time."""
    found = measure({"one": by_kit(path, xy, 1), "two": by_kit(path, xy, 2)})
    one, two = (len(xy) / found[name].wall for name in ("one", "two"))
    return Row("aligned, two threads (wall time)", f"{two:,.0f} / s", f"one thread {one:,.0f} / s",
               two / one, ">= 1.6x")  # fmt: skip


def quarter(path: Path) -> Row:
    """Return reading at four times the mpp beside the stored level that is nearest."""
    xy = grid(LARGE, SIDE * 4)
    found = measure({"mpp": by_kit(path, xy, mpp=2.0), "level": by_kit(path, xy, level=2)})
    mine, stored = (rate(found[name], len(xy)) for name in ("mpp", "level"))
    return Row("quarter resolution, by mpp", f"{mine:,.0f} / s", f"stored level {stored:,.0f} / s",
               mine / stored, ">= .85x")  # fmt: skip


def memory(path: Path, n: int = 100_000) -> Row:
    """Return how much a process grows between 10,000 and `n` patches read."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        early, late = pool.apply(_resident, (path, n))
    grown = f"after 10,000: {early:,.0f} MB"
    return Row(f"memory after {n:,} random patches", f"{late:,.0f} MB", grown, late / early, "flat")


def _resident(path: Path, n: int) -> tuple[float, float]:
    random, early = np.random.default_rng(0), 0.0
    with open_slide(path, threads=1) as slide:
        for start in range(0, n, BATCH):
            slide.read_patches(random.integers(0, LARGE - SIDE, (BATCH, 2)), SIDE)
            if start <= 10_000:
                early = _rss()
    return early, _rss()


def _rss() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def real(folder: Path) -> list[Row]:
    """Return rows of real slides: JPEG 2000 of Aperio, and MIRAX through OpenSlide."""
    aperio = folder / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(aperio) as slide:
        wide, high = (side // SIDE * SIDE for side in slide.size)
    places = np.stack(np.meshgrid(np.arange(0, wide, SIDE), np.arange(0, high, SIDE)), axis=-1)
    xy = places.reshape(-1, 2)
    limit, n = by_decoding(aperio)
    found = measure({"kit": by_kit(aperio, xy), "limit": limit, "os": by_openslide(aperio, xy)},
                    repeats=3)  # fmt: skip
    mine, most, peer = (
        rate(found["kit"], len(xy)),
        rate(found["limit"], n),
        rate(found["os"], len(xy)),
    )
    rows = [
        Row("JPEG 2000 (real SVS)", f"{mine:,.0f} / s", f"decoding alone {most:,.0f} / s",
            mine / most, ">= .9x"),
        Row("JPEG 2000 (real SVS)", f"{mine:,.0f} / s", f"openslide {peer:,.0f} / s", mine / peer),
    ]  # fmt: skip
    mirax = folder / "slides" / "mirax" / "Mirax2-Fluorescence-2.mrxs"
    with open_slide(mirax) as slide:
        x, y, width, height = slide.bounds
    xy = np.random.default_rng(0).integers((x, y), (x + width - 1024, y + height - 1024), (200, 2))
    found = measure({"kit": by_kit(mirax, xy, level=2), "os": by_openslide(mirax, xy, level=2)})
    mine, peer = (rate(found[name], len(xy)) for name in ("kit", "os"))
    return [*rows, Row("MIRAX, level 2 (real)", f"{mine:,.0f} / s", f"openslide {peer:,.0f} / s",
                       mine / peer, "no slower")]  # fmt: skip


def main() -> None:
    """Write the slides, take the figures, print the table."""
    asked = arguments(__doc__ or "", real=os.environ.get("KIT_REAL_DATA", ""))
    with tempfile.TemporaryDirectory() as folder:
        path = write_slide(
            Path(folder) / "jpeg.tif", compression="jpeg", subsampling=(2, 2),
            compressionargs={"level": 85},
        )  # fmt: skip
        random = np.random.default_rng(0).integers(0, LARGE - SIDE, (1000, 2))
        aligned = grid(LARGE, SIDE)
        rows = compare("aligned grid", path, aligned, ">= 5x")
        rows.append(against_limit("aligned grid", path, aligned, ">= .85x"))
        rows += compare("random places", path, random, ">= 2x")
        rows += compare("50 % overlap", path, grid(LARGE // 2, SIDE // 2), ">= 10x")
        rows += [threads(path, aligned), quarter(path), memory(path)]
        if asked.real:
            rows += real(Path(asked.real))
    here = [name for name in ("pyvips", "tiffslide", "cucim", "tiatoolbox") if _imported(name)]
    notes = "Patches of 256 px a CPU second, medians of runs taken in turn. Peers installed: "
    tell("read_patches", "Reading patches", rows, notes=f"{notes}{', '.join(here) or 'none'}.",
         save=asked.save)  # fmt: skip


if __name__ == "__main__":
    main()
