"""The patch store beside what a user would pick instead: write, read in order and at random, size.

`python benchmarks/patch_store.py` draws H&E patches; with KIT_REAL_DATA they are cut out of a real
slide. All that is read was just written and lies in memory: decoding and calls are compared, and
not the disk. Patches are many copies of a few hundred, which no format here can make use of.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bench
import numpy as np
import pandas as pd

from kit import drawing, store
from kit.slides import open_slide

BATCH, BATCHES, QUALITY, SECONDS = 64, 12, 90, 2.0
Fetch = Callable[[np.ndarray], np.ndarray]


def patches(side: int, n: int) -> np.ndarray:
    """Return H&E patches, uint8 (n, side, side, 3)."""
    folder, rng = os.environ.get("KIT_REAL_DATA"), np.random.default_rng(0)
    if folder:
        with open_slide(Path(folder, "slides", "CMU-1-Small-Region.svs")) as slide:
            image = slide.read_patch((0, 0), 2048, level=0)
    else:
        ones = np.ones((128, 128), np.float32)
        image = drawing.tissue(rng, drawing.stain(rng), 0.4 * ones, 0 * ones, ones)
        image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    xs, ys = rng.integers(0, 2048 - side, (2, min(n, 512)))
    found = np.stack([image[y : y + side, x : x + side] for x, y in zip(xs, ys, strict=True)])
    return found[np.arange(n) % len(found)]


def take(pixels: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Read items of the store: the kit's reader here is memory itself."""
    return pixels[rows.at_row.to_numpy()]


def kit(folder: Path, pixels: np.ndarray, *, quality: int | None) -> None:
    """Write the kit's store, in one process."""
    items = pd.DataFrame({"case_id": "c", "at_row": np.arange(len(pixels))})
    store.build(folder, items, partial(take, pixels), "k", quality=quality)


def of_kit(folder: Path) -> Fetch:
    """Read the kit's store."""
    return store.Store(folder).pixels.__getitem__


def npy(folder: Path, pixels: np.ndarray) -> None:
    """Write one array."""
    np.save(folder / "a.npy", pixels)


def of_npy(folder: Path) -> Fetch:
    """Read it through a memory map."""
    array = np.load(folder / "a.npy", mmap_mode="r")
    return lambda rows: np.asarray(array[rows])


def npz(folder: Path, pixels: np.ndarray) -> None:
    """Write a compressed archive for each patch: a batch inflates no other."""
    for row, image in enumerate(pixels):
        np.savez_compressed(folder / f"{row}.npz", image)


def of_npz(folder: Path) -> Fetch:
    """Read them."""
    return lambda rows: np.stack([np.load(folder / f"{row}.npz")["arr_0"] for row in rows])


def png(folder: Path, pixels: np.ndarray) -> None:
    """Write a folder of PNG files with OpenCV."""
    import cv2

    for row, image in enumerate(pixels):
        cv2.imwrite(str(folder / f"{row}.png"), image[:, :, ::-1])


def of_png(folder: Path) -> Fetch:
    """Read them."""
    import cv2

    cv2.setNumThreads(1)
    return lambda rows: np.stack(
        [cv2.cvtColor(cv2.imread(str(folder / f"{row}.png")), cv2.COLOR_BGR2RGB) for row in rows]
    )


def encoded(folder: Path, pixels: np.ndarray, *, codec: str) -> None:
    """Write Parquet of encoded bytes, 64 rows a group."""
    import cv2
    import pyarrow as pa
    import pyarrow.parquet as pq
    import simplejpeg

    if codec == "jpeg":
        data = [simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444") for image in pixels]
    else:
        data = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in pixels]
    table = pa.table({"image": pa.array(data, pa.binary())})
    pq.write_table(table, folder / "a.parquet", compression="none", row_group_size=64,
                   use_dictionary=False, write_statistics=False)  # fmt: skip


def of_encoded(folder: Path, *, codec: str) -> Fetch:
    """Read Parquet, each row group once a batch."""
    import cv2
    import pyarrow.parquet as pq
    import simplejpeg

    file = pq.ParquetFile(folder / "a.parquet", memory_map=True)

    def decode(data: bytes) -> np.ndarray:
        if codec == "jpeg":
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def fetch(rows: np.ndarray) -> np.ndarray:
        groups = {g: file.read_row_group(g, use_threads=False)["image"] for g in set(rows // 64)}
        return np.stack([decode(groups[row // 64][int(row % 64)].as_py()) for row in rows])

    return fetch


def hdf5(folder: Path, pixels: np.ndarray) -> None:
    """Write HDF5, a chunk for each patch, gzip 1."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("a", data=pixels, chunks=(1, *pixels.shape[1:]), compression="gzip",
                            compression_opts=1)  # fmt: skip


def of_hdf5(folder: Path) -> Fetch:
    """Read it row by row, which is ten times faster at random than a list of rows."""
    import h5py

    data = h5py.File(folder / "a.h5", "r")["a"]
    return lambda rows: np.stack([data[row] for row in rows])


WAYS: dict[str, tuple[Callable[[Path, np.ndarray], None], Callable[[Path], Fetch]]] = {
    "kit, raw": (partial(kit, quality=None), of_kit),
    f"kit, JPEG q{QUALITY}": (partial(kit, quality=QUALITY), of_kit),
    "one .npy, memory map": (npy, of_npy),
    f"Parquet of JPEG q{QUALITY}": (
        partial(encoded, codec="jpeg"), partial(of_encoded, codec="jpeg")),
    "Parquet of PNG": (partial(encoded, codec="png"), partial(of_encoded, codec="png")),
    "folder of PNG": (png, of_png),
    "HDF5, gzip": (hdf5, of_hdf5),
    "savez_compressed": (npz, of_npz),
}  # fmt: skip


def batches(n: int, seed: int = 0) -> list[np.ndarray]:
    """Return random batches of different rows."""
    rng = np.random.default_rng(seed)
    return [rng.choice(n, BATCH, replace=False) for _ in range(BATCHES)]


def read_all(fetch: Fetch, picks: list[np.ndarray]) -> None:
    """Read the batches."""
    for rows in picks:
        fetch(rows)


def in_process(way: str, folder: Path, n: int, seed: int, start: object, rates: object) -> None:
    """Read at random for `SECONDS` when all are ready, and tell the patches a second."""
    fetch, picks, done = WAYS[way][1](folder), batches(n, seed), 0
    read_all(fetch, picks)
    start.wait()  # type: ignore[attr-defined]
    begun = time.perf_counter()
    while (taken := time.perf_counter() - begun) < SECONDS:
        fetch(picks[done % BATCHES])
        done += 1
    rates.put(done * BATCH / taken)  # type: ignore[attr-defined]


def rate_of(way: str, folder: Path, n: int, processes: int) -> float:
    """Return patches a second that so many processes read together at random."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(processes), context.Queue()
    running = [
        context.Process(target=in_process, args=(way, folder, n, seed, start, rates))
        for seed in range(processes)
    ]
    for one in running:
        one.start()
    total = sum(rates.get() for _ in running)
    for one in running:
        one.join()
    return float(total)


def one_size(side: int, n: int, repeats: int, place: Path) -> list[bench.Row]:
    """Return the lines of one patch size."""
    pixels, size, written = patches(side, n), {}, {}
    for number, (way, (write, _)) in enumerate(WAYS.items()):
        folder = place / f"{side}-{number}"
        folder.mkdir()
        start = time.process_time()
        write(folder, pixels)
        written[way] = n / (time.process_time() - start)
        size[way] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / n
    folders = {way: place / f"{side}-{number}" for number, way in enumerate(WAYS)}
    fetches = {way: WAYS[way][1](folder) for way, folder in folders.items()}
    ordered = [np.arange(start, start + BATCH) for start in range(0, BATCH * BATCHES, BATCH)]
    random = batches(n)
    times = [
        bench.measure({w: partial(read_all, f, picks) for w, f in fetches.items()}, repeats=repeats)
        for picks in (random, ordered)
    ]
    pairs = {way: [rate_of(way, folders[way], n, k) for k in (1, 2)] for way in list(WAYS)[:4]}
    rows = []
    for way in WAYS:
        rates = [BATCH * BATCHES / time[way].cpu for time in times]
        two = f"; two processes {pairs[way][1] / pairs[way][0]:.2f}x" if way in pairs else ""
        rows.append((way, rates[0], f"{rates[0]:,.0f} / s at random{two}",
                     f"{rates[1]:,.0f} / s in order; {written[way]:,.0f} / s written; "
                     f"{size[way] / 1000:.1f} kB"))  # fmt: skip
    return lines(side, rows)


def lines(side: int, rows: list[tuple[str, float, str, str]]) -> list[bench.Row]:
    """Return the kit's two encodings, then each peer beside the encoding that is like it."""
    own = {way: rate for way, rate, *_ in rows[:2]}
    exact, lossy = own.values()
    found = [
        bench.Row(f"{side} px, {way}", first, rest, None, "2,000 / s at random")
        for way, _, first, rest in rows[:2]
    ]
    for way, rate, first, rest in rows[2:]:
        like = lossy if "JPEG" in way else exact
        found.append(bench.Row(f"{side} px, {way}", f"{like:,.0f} / s at random",
                               f"{first}; {rest}", like / rate))  # fmt: skip
    return found


def fidelity(side: int) -> str:
    """Return how far a JPEG is from its pixels."""
    import simplejpeg

    pixels = patches(side, 64)
    back = [
        simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(i, QUALITY, "RGB", "444")) for i in pixels
    ]
    error = np.stack(back).astype(float) - pixels
    decibel = 10 * np.log10(255**2 / (error**2).mean())
    return f"{np.abs(error).mean():.1f} grey levels, {decibel:.0f} dB"


def main() -> None:
    """Measure and tell."""
    chosen = bench.arguments(__doc__ or "", repeats=3, patches=4096)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in (256, 64):
            rows += one_size(side, chosen.patches, chosen.repeats, Path(folder))
    kind = "cut out of a real slide" if os.environ.get("KIT_REAL_DATA") else "drawn"
    notes = (
        f"Per CPU-second of one process, batches of {BATCH}; {chosen.patches} patches, {kind}. "
        f"Files lie in memory. JPEG q{QUALITY}, full chroma, is off by {fidelity(256)}. "
        "Two processes are beside one, by wall time, which other work on the machine spoils. "
        "Parquet has 64 rows a group, and reads each group once a batch; how often groups are "
        "shared depends on the number of patches. 200,000 raw patches of 256 px are 39 GB. "
        "A kept memory map is the fastest where it fits; the kit's shards hold no handle and turn "
        "a cut file into an error."
    )
    bench.tell("patch_store", "Patch store", rows, notes=notes, save=chosen.save)


if __name__ == "__main__":
    main()
