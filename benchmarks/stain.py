"""Stain normalisation beside tiatoolbox's: `python benchmarks/stain.py [--save]`.

Without tiatoolbox (or what its `tools.stainnorm` imports) the kit is timed alone.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import importlib.util  # noqa: E402
import sys  # noqa: E402
import types  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from bench import Row, arguments, measure, tell  # noqa: E402

from kit import drawing  # noqa: E402
from kit.stain import Normaliser  # noqa: E402

METHODS = ("macenko", "reinhard")


def drawn(seed: int, side: int) -> np.ndarray:
    """Return a drawn patch full of tissue, with a laboratory's look of its own."""
    rng = np.random.default_rng(seed)
    maps = (side // drawing.COARSE,) * 2
    atypia = rng.uniform(0, 1, maps).astype(np.float32)
    none, all_of_it = np.zeros(maps, np.float32), np.ones(maps, np.float32)
    return drawing.tissue(rng, drawing.stain(rng), atypia, none, all_of_it)


def peer() -> Any:
    """Return tiatoolbox's module of stain normalisation; None where it is not installed.

    Its other tools need PyTorch and more, this one does not: their package is stepped over, and an
    empty module stands for PyTorch where that is not installed.
    """
    found = importlib.util.find_spec("tiatoolbox")
    if found is None or found.origin is None:
        return None
    tools = types.ModuleType("tiatoolbox.tools")
    tools.__path__ = [str(Path(found.origin).parent / "tools")]
    sys.modules["tiatoolbox.tools"] = tools
    if importlib.util.find_spec("torch") is None:
        torch: Any = types.ModuleType("torch")
        torch.Tensor = type("Tensor", (), {})  # SciPy asks for it where torch was imported
        sys.modules["torch"] = torch
    return importlib.import_module("tiatoolbox.tools.stainnorm")


def by_peer(module: Any, method: str, target: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """Return the images by tiatoolbox."""
    kinds = {"macenko": module.MacenkoNormalizer, "reinhard": module.ReinhardNormalizer}
    normaliser = kinds[method]()
    normaliser.fit(target.copy())
    return [normaliser.transform(image.copy()) for image in images]


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Stain normalisation", size=256, n=32, repeats=7)
    cv2.setNumThreads(1)
    images = np.stack([drawn(seed, asked.size) for seed in range(asked.n)])
    target, module = drawn(1000, asked.size), peer()
    work: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        normaliser = Normaliser.fit(method, target[None])
        source = normaliser.estimate(images[:1])
        work[method] = partial(normaliser, images)
        work[f"{method} of slide"] = partial(normaliser.apply, images, source)
        if module is not None:
            work[f"{method} peer"] = partial(by_peer, module, method, target, images)
    found = measure(work, repeats=asked.repeats)
    rows = []
    for method in METHODS:
        other = found.get(f"{method} peer")
        for name, goal in (
            (method, "3x" if method == "macenko" else ""),
            (f"{method} of slide", ""),
        ):
            mine = found[name].cpu
            rows.append(Row(
                name.replace(" of slide", ", the look estimated once a slide"),
                f"{1000 * mine / asked.n:.2f} ms / patch",
                f"{1000 * other.cpu / asked.n:.2f} ms / patch, tiatoolbox" if other else "",
                other.cpu / mine if other else None, goal,
            ))  # fmt: skip
    notes = (
        f"{asked.n} drawn patches of {asked.size} x {asked.size} px, one thread, CPU seconds, all "
        f"in one process in turn, median of {asked.repeats}. tiatoolbox estimates each patch's "
        "stains anew, and is timed with one fit a turn. The kit keeps what neither stain explains "
        "and takes percentiles over tissue alone, so that the pictures are alike, not the same."
    )
    tell("stain", "Stain normalisation", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
