"""How fast slides are planned, and epochs drawn, at the size of HeLP 2019.

Slides of 94,000 x 234,000 pixels with ten levels are written without content where a plan does not
look: every tile of a fine level is the same few bytes.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pandas as pd
from bench import Row, arguments, measure, tell

from kit import coverage
from kit.annotations import read_mask
from kit.draws import draw
from kit.sampler import PatchSampler
from kit.slides import open_slide
from kit.stubs import write_stub

SIZE, SIDE = (94_000, 234_000), 256
MASK = (5_316, 10_007)
SAMPLER = PatchSampler(SIDE)
POSITIVE = PatchSampler(SIDE, min_tumour=1.0, partial="drop")


def write_mask(path: Path) -> Path:
    """Write a mask at 1/16 of the slide's bounds, as HeLP's are."""
    drawn = np.zeros(MASK[::-1], np.uint8)
    cv2.ellipse(drawn, (2600, 5000), (1100, 1500), 20, 0, 360, 255, -1)
    cv2.imwrite(str(path), drawn)
    return path


def plan(path: Path, mask: Path | None = None) -> pd.DataFrame:
    """Return the plan of one slide, from its file."""
    with open_slide(path) as slide:
        if mask is None:
            return SAMPLER.plan(slide)
        drawn = read_mask(mask, _Cropped(slide), frame="bounds")  # type: ignore[arg-type]
        return POSITIVE.plan(slide, mask=drawn)


class _Cropped:
    """The slide with bounds that fit the mask: a TIFF has none of its own."""

    def __init__(self, slide: Any) -> None:
        self.size, self.path, self.bounds = slide.size, slide.path, (7756, 39069, 85052, 160111)


def plain_loop(path: Path) -> int:
    """Plan as a user would write it: Otsu on a thumbnail, then a loop over the grid."""
    with openslide.OpenSlide(path) as slide:
        rgb = np.asarray(slide.get_thumbnail((2048, 2048)).convert("RGB"))
        width, height = slide.dimensions
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    tissue, kept = grey <= level, []
    across, down = rgb.shape[1] / width, rgb.shape[0] / height
    for y in range(0, height - SIDE + 1, SIDE):
        for x in range(0, width - SIDE + 1, SIDE):
            box = tissue[int(y * down) : int((y + SIDE) * down) + 1,
                         int(x * across) : int((x + SIDE) * across) + 1]  # fmt: skip
            if box.mean() >= 0.5:
                kept.append((x, y))
    return len(kept)


def one_slide(what: str, work: Callable[[], object], goal: str, memory: str) -> list[Row]:
    """Return seconds of one slide in this process, and the growth of a fresh one."""
    seconds = measure({"kit": work}, repeats=5)["kit"].wall
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown = pool.apply(_growth, (work.func, work.args))  # type: ignore[attr-defined]
    return [
        Row(what, f"{seconds:.2f} s", goal=goal),
        Row(f"{what}: peak memory beyond the imports", f"{grown:,.0f} MB", goal=memory),
    ]


def _growth(call: Callable[..., object], args: tuple[Any, ...]) -> float:
    open_slide(np.zeros((8, 8, 3), np.uint8)).close()
    before = _peak()
    call(*args)
    return _peak() - before


def _peak() -> float:
    """Return the largest memory of this process so far, MB; a child's rusage is its parent's."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def many(folder: Path, path: Path, n: int) -> Row:
    """Return the time to plan `n` slides in two processes."""
    names = [f"s{number:03d}" for number in range(n)]
    for name in names:
        (folder / f"{name}.tif").symlink_to(path)
    cases = pd.DataFrame({"case_id": names, "path": [f"{name}.tif" for name in names]})
    start = time.perf_counter()
    rows = len(SAMPLER.plan_cases(cases, folder, workers=2))
    seconds = time.perf_counter() - start
    return Row(f"{n} slides, {rows / 1e6:.1f} million patches, two processes", f"{seconds:.0f} s",
               goal="<= 90 s (157 slides, 4 million)")  # fmt: skip


def epochs() -> list[Row]:
    """Return drawing an epoch of a million-row plan, and the fractions of a million patches."""
    random = np.random.default_rng(0)
    n = 1_000_000
    slide = np.sort(random.integers(0, 157, n))
    tumour = (slide % 3 > 0) & (random.random(n) < 0.2)
    table = pd.DataFrame({
        "case_id": pd.Series([f"s{number:03d}" for number in slide], dtype=object),
        "x": random.integers(0, 90_000, n), "y": random.integers(0, 230_000, n),
        "label": pd.Series(np.where(tumour, "tumour", "normal"), dtype=object),
        "footprint": 256.0,
    })  # fmt: skip
    cases = pd.DataFrame({"case_id": table.case_id.unique()})
    positive = cases.case_id.str[1:].astype(int) % 3 > 0
    cases["label"] = np.where(positive, "tumour", "normal")
    mask = random.random((2048, 816)) < 0.4
    area, xy = coverage.integral(mask), table[["x", "y"]].to_numpy()
    found = measure({
        "draw": lambda: draw(table, seed=0, n=20_000, by="kind", cases=cases),
        "fraction": lambda: coverage.area_fraction(area, xy, 256.0, downsample=(115.0, 114.0)),
    })  # fmt: skip
    return [
        Row(
            "an epoch of 20,000 drawn 1:1:2 out of a million",
            f"{found['draw'].wall:.2f} s",
            goal="<= 1 s",
        ),
        Row(
            "tissue fractions of a million patches",
            f"{found['fraction'].wall:.2f} s",
            goal="<= .2 s",
        ),
    ]


def main() -> None:
    """Write a slide and a mask, take the figures, print the table."""
    from functools import partial

    asked = arguments(__doc__ or "", slides=157)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, mask = write_stub(folder / "slide.tif", SIZE), write_mask(folder / "mask.png")
        rows = one_slide("one slide, 94,000 x 234,000", partial(plan, path), "<= .5 s", "<= 300 MB")
        rows += one_slide("the same with its mask", partial(plan, path, mask), "<= 1 s", "")
        found = measure({"kit": partial(plan, path), "loop": partial(plain_loop, path)}, repeats=3)
        kit, loop = (found[one].wall for one in ("kit", "loop"))
        rows.append(Row("one slide, beside Otsu and a loop over the grid", f"{kit:.2f} s",
                        f"plain loop {loop:.2f} s", loop / kit))  # fmt: skip
        rows.append(many(folder, path, asked.slides))
        rows += epochs()
    tell("plan_slides", "Planning slides", rows, save=asked.save)


if __name__ == "__main__":
    main()
