"""MRI: a study read beside plain pydicom, and hundreds of studies into the patch store.

`python benchmarks/mri.py --studies 600` draws the stand-in of RSNA-MICCAI 2021 (four series a
study), prepares all of it in two processes with all series as channels, and again after a kill. The
peak memory is the sum over all processes at once, looked at five times a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import bench
import numpy as np
import pydicom
from bench import Row

from kit import synthetic
from kit._drawn_mri import STUDIES, Stored, write_series
from kit.dicom import read_series

SERIES, SLICES, SIDE = 4, 200, 256
CODE = """
import sys
from kit.challenges import open_run
run = open_run("rsna2021", data=sys.argv[1], out=sys.argv[2], workers=2)
print(len(run.pixels().items), run.pixels().pixels.shape)
"""


def study(folder: Path) -> list[Path]:
    """Write a study of four series of noise; return their folders."""
    values = np.random.default_rng(0).integers(0, 1000, (SLICES, SIDE, SIDE))
    folders = [folder / f"series-{i}" for i in range(SERIES)]
    for number, one in enumerate(folders):
        write_series(one, values.astype(np.float32), f"2.25.{number + 1}", Stored())
    return folders


def plain(folders: list[Path]) -> list[np.ndarray]:
    """Read with pydicom alone: sorted by height, nothing rescaled, nothing checked."""
    found = []
    for folder in folders:
        files = [pydicom.dcmread(path) for path in folder.iterdir()]
        files.sort(key=lambda data: float(data.ImagePositionPatient[2]))
        found.append(np.stack([data.pixel_array for data in files]))
    return found


def one_study() -> Row:
    """Return the seconds of a study of 4 x 200 slices."""
    with tempfile.TemporaryDirectory() as folder:
        folders = study(Path(folder))
        taken = bench.measure({
            "kit": lambda: [read_series(one) for one in folders],
            "pydicom": lambda: plain(folders),
        }, repeats=3)  # fmt: skip
    kit, peer = taken["kit"], taken["pydicom"]
    return Row(f"a study of {SERIES} x {SLICES} slices of {SIDE} px, one core",
               f"{kit.wall:.2f} s", f"{peer.wall:.2f} s, pydicom alone", peer.cpu / kit.cpu,
               "<= 2 s")  # fmt: skip


def prepare(data: Path, out: Path, kill_after: float | None = None) -> tuple[float, float]:
    """Prepare the stand-in in a process of its own; return its seconds and peak memory, GB."""
    begun, peak, stop = time.perf_counter(), [0.0], threading.Event()
    done = subprocess.Popen([sys.executable, "-c", CODE, str(data), str(out)],
                            start_new_session=True)  # fmt: skip

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], _memory(done.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        done.wait(kill_after)
        if done.returncode:
            raise SystemExit(f"preparing failed: exit code {done.returncode}")
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)
        done.wait()
    stop.set()
    watcher.join()
    return time.perf_counter() - begun, peak[0]


def _memory(session: int) -> float:
    """Return what all processes of a session hold together, GB."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(place.name)) == session:
                status = (place / "status").read_text("ascii")
                total += int(status.split("RssAnon:")[1].split()[0])
        except (OSError, IndexError):  # it ended, or is a thread of the kernel
            continue
    return total / 1e6


def main() -> None:
    """Measure and tell."""
    asked = bench.arguments(__doc__ or "", studies=60)
    rows = [one_study()]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        start = time.perf_counter()
        synthetic.make("rsna2021", place / "rsna2021", scale=min(1.0, asked.studies / STUDIES))
        drawn = time.perf_counter() - start
        files = sum(1 for _ in place.rglob("*.dcm"))
        seconds, peak = prepare(place, place / "out")
        what = f"{asked.studies} studies x 4 series ({files:,} files)"
        rows += [
            Row(f"{what} drawn", f"{drawn:.0f} s"),
            Row(f"{what} into the store, two processes", f"{seconds:.0f} s"),
            Row("of these, largest memory of all processes", f"{peak:.2f} GB", goal="<= 2 GB"),
        ]
        again, _ = prepare(place, place / "out")
        rows.append(Row("the same again: nothing is read", f"{again:.1f} s"))
        prepare(place, place / "killed", kill_after=0.8 * seconds)
        rest, _ = prepare(place, place / "killed")
        rows.append(Row("killed after 80 % of that time, and again", f"{rest:.0f} s",
                        goal="less than the whole"))  # fmt: skip
    bench.tell("mri", "MRI studies", rows, save=asked.save)


if __name__ == "__main__":
    main()
