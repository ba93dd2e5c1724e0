"""A slide through a network, beside its parts and the loop that a user writes.

Patches a second of wall time, in turn in one process, one thread of reading and one of computing:
reading alone, the network alone, both by the kit, and `read_region` with `predict` for each patch.
`--patches N` is how many the long slide has whose time and peak memory are told, `--slides N` how
many such slides are read in a row.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pandas as pd
from bench import Row, arguments, tell
from read_patches import write_slide

from kit.backend import load_backend
from kit.models import build_model
from kit.sampler import PatchSampler
from kit.slides import Slide, open_slide
from kit.streams import Member, predict_slide
from kit.tissue import TissueMask

SIDE, BATCH, ONE_BY_ONE = 256, 64, 50
CLASSES = ("normal", "tumour")
NETWORKS = (("light", "seresnet_small", 48), ("heavy", "resnet50", 224))


def plan_of(slide: Slide) -> pd.DataFrame:
    """Return a plan of every place: all is tissue."""
    ones = np.ones((64, 64), bool)
    down = (slide.size[0] / 64, slide.size[1] / 64)
    return PatchSampler(SIDE).plan(slide, TissueMask(ones, down, slide.size), case_id="slide")


def rate(work: Callable[[], object], patches: int, repeats: int) -> tuple[float, float]:
    """Return the median patches a second and the spread, after one call that compiles."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(patches / (time.perf_counter() - start))
    return statistics.median(taken), (max(taken) - min(taken)) / statistics.median(taken)


def reading(path: Path, plan: pd.DataFrame) -> Callable[[], None]:
    """Return reading alone: by the kit, fitted to nothing."""

    def read() -> None:
        with open_slide(path, threads=1) as slide:
            for start in range(0, len(plan), BATCH):
                slide.read_patches(plan[["x", "y"]].iloc[start : start + BATCH], SIDE)

    return read


def computing(network: Any, side: int, n: int) -> Callable[[], None]:
    """Return the network alone, on images that are there."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)

    def compute() -> None:
        for _ in range(-(-n // BATCH)):
            network.predict_on_batch(images)

    return compute


def by_kit(path: Path, plan: pd.DataFrame, network: Any) -> Callable[[], None]:
    """Return both, by the kit."""
    member = Member(network, 0, 0, "network", "key")

    def both() -> None:
        with open_slide(path, threads=1) as slide:
            predict_slide(slide, plan, [member], classes=CLASSES)

    return both


def by_hand(path: Path, plan: pd.DataFrame, network: Any, side: int) -> Callable[[], None]:
    """Return the loop that a user writes."""

    def loop() -> None:
        with openslide.OpenSlide(path) as slide:
            for x, y in plan[["x", "y"]].head(ONE_BY_ONE).to_numpy().tolist():
                patch = slide.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB")
                network.predict(np.asarray(patch.resize((side, side)))[None], verbose=0)

    return loop


def main() -> None:
    """Print the rows and, if asked, keep them."""
    asked = arguments("A slide through a network", patches=40_000, slides=10, repeats=3)
    load_backend(threads=1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_slide(Path(folder) / "slide.tif", compression="jpeg",
                           compressionargs={"level": 85}, subsampling=(2, 2))  # fmt: skip
        with open_slide(path) as slide:
            plan = plan_of(slide)
        for weight, name, side in NETWORKS:
            network = build_model(name, (side, side, 3), 2)
            some = plan if weight == "light" else plan.head(128)
            parts = {
                "reading": reading(path, some), "network": computing(network, side, len(some)),
                "kit": by_kit(path, some, network),
            }  # fmt: skip
            repeats = asked.repeats if weight == "light" else 1
            found = {key: rate(work, len(some), repeats) for key, work in parts.items()}
            hand, _ = rate(by_hand(path, plan, network, side), ONE_BY_ONE, 1)
            slower = min(found["reading"][0], found["network"][0])
            kit, spread = found["kit"]
            rows += [
                Row(f"{weight} ({name}, {side} px): end to end", f"{kit:,.0f} / s",
                    f"{found['reading'][0]:,.0f} read, {found['network'][0]:,.0f} computed",
                    kit / slower, f">= .9 of the slower; spread {spread:.0%}"),
                Row(f"{weight}: against read_region and predict", f"{kit:,.0f} / s",
                    f"{hand:,.0f} / s", kit / hand, ">= 10x" if weight == "light" else ""),
            ]  # fmt: skip
        long = pd.concat([plan] * -(-asked.patches // len(plan)), ignore_index=True)
        rows += _long(path, long.head(asked.patches), asked.slides)
    tell("infer_slide", "Slide inference", rows, save=asked.save, notes=(
        f"Patches of {SIDE} px of a JPEG pyramid, one thread of reading, one of computing, wall "
        "time, medians. The loop by hand is timed on "
        f"{ONE_BY_ONE} patches."
    ))  # fmt: skip


def _long(path: Path, plan: pd.DataFrame, slides: int) -> list[Row]:
    name, side = NETWORKS[0][1:]
    work = by_kit(path, plan, build_model(name, (side, side, 3), 2))
    seconds, peaks = [], []
    for _ in range(slides):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
    return [
        Row(f"light: {len(plan):,} patches", f"{seconds[0]:.0f} s", f"{peaks[0]:.2f} GB peak",
            None, "<= 300 s, <= 2 GB"),
        Row(f"light: {slides} such slides in a row", f"{sum(seconds):.0f} s",
            f"{peaks[-1]:.2f} GB peak", peaks[-1] / peaks[0], "flat"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
