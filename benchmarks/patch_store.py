"""How patches are best kept for training: the measurement by which `kit.store` was chosen.

Memory-mapped arrays and Parquet of encoded bytes, beside the kit's shards (raw, and JPEG of
quality 90) and what a user would pick instead: a folder of PNG files, `np.savez_compressed`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from bench import Row, arguments, tell

from kit import store, synthetic
from kit.slides import open_slide

BATCH, QUALITY, GROUP = 64, 90, 64
Write = Callable[[Path, np.ndarray], None]
Open = Callable[[Path], Callable[[np.ndarray], np.ndarray]]


def patches(n: int, side: int) -> np.ndarray:
    """Return drawn H&E-like patches, or real ones with KIT_REAL_DATA, uint8 (n, side, side, 3)."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        real = os.environ.get("KIT_REAL_DATA")
        if real:
            path = Path(real) / "slides" / "CMU-1-Small-Region.svs"
        else:
            drawn = synthetic.make("synthetic_slides", Path(folder), seed=0, scale=0.1)
            path = sorted(drawn.rglob("*.tif"))[0]
        with open_slide(path) as slide:
            wide, high = slide.size
            low = (wide // 5, high // 5)
            xy = random.integers(low, (wide * 3 // 5, high * 3 // 5), (n, 2))
            return slide.read_patches(xy, side)


def _items(images: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"case_id": [str(n) for n in range(len(images))], "n": range(len(images))})


def write_kit(folder: Path, images: np.ndarray, quality: int | None = None) -> None:
    """Write by `kit.store`."""
    items = _items(images)
    store.build(folder, items, lambda rows: images[rows.n.to_numpy()], "k", quality=quality)


def open_kit(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Open what `write_kit` wrote."""
    return store.Store(folder).pixels.__getitem__


def write_map(folder: Path, images: np.ndarray) -> None:
    """Write one array to be mapped into memory."""
    np.save(folder / "pixels.npy", images)


def open_map(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Map it."""
    return np.load(folder / "pixels.npy", mmap_mode="r").__getitem__  # type: ignore[no-any-return]


def write_parquet(folder: Path, images: np.ndarray) -> None:
    """Write JPEGs as bytes in row groups."""
    data = [simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444") for image in images]
    pq.write_table(pa.table({"data": data}), folder / "p.parquet", row_group_size=GROUP,
                   compression="none")  # fmt: skip


def open_parquet(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Read row groups as they are asked for."""
    file = pq.ParquetFile(folder / "p.parquet")

    def read(rows: np.ndarray) -> np.ndarray:
        groups: dict[int, pa.ChunkedArray] = {}
        found = []
        for row in rows.tolist():
            group = row // GROUP
            if group not in groups:
                groups[group] = file.read_row_group(group).column("data")
            found.append(simplejpeg.decode_jpeg(groups[group][row % GROUP].as_py(), "RGB"))
        return np.stack(found)

    return read


def write_png(folder: Path, images: np.ndarray) -> None:
    """Write a file for each patch."""
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def open_png(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Read files as they are asked for."""

    def one(row: int) -> np.ndarray:
        image = cv2.imread(str(folder / f"{row}.png"))
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    return lambda rows: np.stack([one(row) for row in rows.tolist()])


def write_npz(folder: Path, images: np.ndarray) -> None:
    """Write one compressed archive."""
    np.savez_compressed(folder / "p.npz", images=images)


def open_npz(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Open it: everything is read at the first use."""
    with np.load(folder / "p.npz") as archive:
        return archive["images"].__getitem__  # type: ignore[no-any-return]


KINDS: dict[str, tuple[Write, Open]] = {
    "kit shards, raw": (write_kit, open_kit),
    "kit shards, JPEG q90": (functools.partial(write_kit, quality=QUALITY), open_kit),
    "one memory map (.npy)": (write_map, open_map),
    "Parquet of JPEG q90": (write_parquet, open_parquet),
    "folder of PNG": (write_png, open_png),
    "npz, compressed": (write_npz, open_npz),
}


def _batches(n: int, shuffled: bool, seed: int = 0) -> list[np.ndarray]:
    order = np.random.default_rng(seed).permutation(n) if shuffled else np.arange(n)
    return np.array_split(order, max(1, n // BATCH))


def _read(kind: str, folder: Path, n: int, shuffled: bool, seed: int = 0) -> float:
    """Return the seconds in which every patch is read once, opening included."""
    start = time.perf_counter()
    read = KINDS[kind][1](folder)
    for rows in _batches(n, shuffled, seed):
        np.ascontiguousarray(read(rows))
    return time.perf_counter() - start


def one_kind(kind: str, images: np.ndarray) -> dict[str, float]:
    """Return rates (patches a second) and the size (bytes a patch) of one way to keep patches."""
    n = len(images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        KINDS[kind][0](folder, images)
        written = time.perf_counter() - start
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        alone = [_read(kind, folder, n, shuffled) for shuffled in (False, True)]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.starmap(_read, [(kind, folder, BATCH, False)] * 2)  # imports are not counted
            asked = [(kind, folder, n, True, seed) for seed in (1, 2)]
            two = max(pool.starmap(_read, asked, chunksize=1))
    return {"write": n / written, "in order": n / alone[0], "random": n / alone[1],
            "random, two processes": 2 * n / two, "size": size / n}  # fmt: skip


def main() -> None:
    """Take the figures of every kind and print them beside the first."""
    asked = arguments(__doc__ or "", n=2000)
    rows = []
    for side in (256, 64):
        images = patches(asked.n, side)
        found = {kind: one_kind(kind, images) for kind in KINDS}
        for kind, figures in found.items():
            rates = " / ".join(f"{figures[name]:,.0f}" for name in figures if name != "size")
            rows.append(
                Row(f"{side} px, {kind}", rates, f"{figures['size'] / 1e3:,.1f} kB a patch")
            )
    notes = (
        "Figures: patches a second written / read in order / in random batches of 64 / the same "
        "by two processes together; wall time, files in the system's cache."
    )
    tell("patch_store", "Keeping patches", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
