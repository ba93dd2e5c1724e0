"""The store: every readable image once, why not the others, nothing done twice, nothing spoilt."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit import shards, store
from kit.errors import ImageError, JobError, KitError, SettingsError
from kit.files import read_table


def items(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": [f"c{i}" for i in range(n)], "value": range(n), "label": ["x", None] * (n // 2)}
    )


def read(
    rows: pd.DataFrame, *, bad: tuple[int, ...] = (), log: Path | None = None, seconds: float = 0
) -> np.ndarray:
    """Images of one value each, 2 wide and 3 high."""
    time.sleep(seconds)
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"{rows.case_id.iloc[0]} {len(rows)}\n")
    for value in rows.value:
        if value in bad:
            raise ImageError("cannot be decoded", path=f"{value}.png")
    return np.stack([np.full((3, 2, 1), value, np.uint8) for value in rows.value])


def noise(rows: pd.DataFrame) -> np.ndarray:
    """Colour images of 8 x 8 px, each its own."""
    return np.stack(
        [np.random.default_rng(v).integers(0, 256, (8, 8, 3), np.uint8) for v in rows.value]
    )


def smooth(rows: pd.DataFrame) -> np.ndarray:
    """Colour images of 32 x 24 px that a JPEG keeps well."""
    y, x = np.mgrid[:24, :32]
    return np.stack([np.stack([4 * x, 5 * y, x + y + v], -1) for v in rows.value]).astype(np.uint8)


def mixed(rows: pd.DataFrame) -> np.ndarray:
    return np.stack([np.zeros((2, 2, 1 + 2 * (value > 2)), np.uint8) for value in rows.value])


def die(rows: pd.DataFrame, *, at: str) -> np.ndarray:
    if at in set(rows.case_id):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(rows)


def shard_files(folder: Path) -> list[Path]:
    return sorted((folder / "shards").iterdir()) if (folder / "shards").is_dir() else []


def whole_shards(folder: Path) -> set[str]:
    """Names of the shards that are written to their end; a temporary file keeps the suffix."""
    return {path.name for path in shard_files(folder) if not path.name.startswith(".part-")}


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_stands_in_the_row_of_its_item(tmp_path: Path, workers: int) -> None:
    kept, failures = store.build(tmp_path, items(), read, "k", workers=workers)
    assert failures == []
    assert kept.pixels.shape == (6, 3, 2, 1)
    assert kept.pixels.dtype == kept.pixels[:].dtype == np.uint8
    assert (kept.pixels[:][:, 0, 0, 0] == kept.items.value).all()
    pd.testing.assert_frame_equal(kept.items, items(), check_dtype=False)
    assert len(kept.items) == len(kept.pixels) == 6
    assert len(shard_files(tmp_path)) == 3


@pytest.mark.parametrize("quality", [None, 90])
def test_one_worker_and_two_give_the_same_bytes(tmp_path: Path, quality: int | None) -> None:
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        store.build(folder, items(600), smooth, "k", workers=workers, quality=quality)
        found.append(contents(folder))
    assert len(found[0]) == 2 + 3
    assert found[0] == found[1]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_images_are_left_out_with_their_reasons(tmp_path: Path, workers: int) -> None:
    reader = partial(read, bad=(1, 4, 5))
    kept, failures = store.build(tmp_path, items(), reader, "k", workers=workers)
    assert list(kept.items.case_id) == ["c0", "c2", "c3"]
    assert list(kept.pixels[:][:, 2, 1, 0]) == [0, 2, 3]
    assert failures == [f"c{i}: cannot be decoded. File: {i}.png." for i in (1, 4, 5)]
    assert len(shard_files(tmp_path)) == 2
    again, repeated = store.build(tmp_path, items(), reader, "k")
    assert repeated == failures
    assert list(again.items.case_id) == ["c0", "c2", "c3"]


# ---------------------------------------------------------------- what an index may be


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    """A store of 40 images in shards of 7, of which the images 0, 8 and 21 to 27 are missing."""
    bad = {0, 8, *range(21, 28)}

    def holed(rows: pd.DataFrame) -> np.ndarray:
        if bad & set(rows.value):
            raise ImageError("missing")
        return noise(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK", 7)
        kept, _ = store.build(tmp_path_factory.mktemp("whole"), items(40), holed, "k")
    return kept


INDICES: list[Any] = [
    slice(None), slice(3, 20), slice(None, None, -2), slice(5, 5), np.array([], int),
    np.array([30, 2, 2, 17, 0, -1]), [4, 1], np.arange(31) % 3 == 0, np.zeros(31, bool), 5, -1,
    np.array([[1, 2], [9, 8]]), np.array([3], np.int32), pd.Index([6, 5]),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_gives_what_it_gives_of_an_array(whole: store.Store, index: Any) -> None:
    array = noise(whole.items)
    found = whole.pixels[index]
    assert found.dtype == np.uint8
    assert found.shape == array[index].shape
    assert (found == array[index]).all()


def test_random_indices_agree_with_the_array(whole: store.Store) -> None:
    array, rng = noise(whole.items), np.random.default_rng(0)
    for _ in range(50):
        rows = rng.integers(-len(array), len(array), rng.integers(1, 90))
        assert (whole.pixels[rows] == array[rows]).all()


@pytest.mark.parametrize("index", [31, np.array([2, 31]), -32, np.zeros(30, bool), 1.5, "c1"])
def test_an_index_that_names_no_image_is_an_error(whole: store.Store, index: Any) -> None:
    with pytest.raises(IndexError):
        whole.pixels[index]


def test_what_is_read_may_be_changed_and_the_store_stays(whole: store.Store) -> None:
    found = whole.pixels[:2]
    found[:] = 0
    assert (whole.pixels[:2] == noise(whole.items.iloc[:2])).all()


def same(kept: store.Store, seed: int) -> bool:
    array, rng = noise(kept.items), np.random.default_rng(seed)
    picks = [rng.integers(0, len(array), 16) for _ in range(30)]
    return all((kept.pixels[rows] == array[rows]).all() for rows in picks)


def test_threads_and_processes_share_a_store(whole: store.Store) -> None:
    assert same(whole, 0)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(partial(same, whole), range(8)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert all(pool.map(partial(same, whole), range(4)))


def test_reading_leaves_no_file_open(whole: store.Store) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    if before is None:
        pytest.skip("this system does not list open files")
    whole.pixels[:]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_crosses_a_process_without_its_pixels(whole: store.Store) -> None:
    assert len(whole.items) == len(whole.pixels) == 31
    sent = pickle.dumps(whole)
    assert len(sent) < 500
    assert (pickle.loads(sent).pixels[:] == whole.pixels[:]).all()


# ---------------------------------------------------------------- JPEG


def test_a_jpeg_is_small_and_near_and_its_quality_is_stated(tmp_path: Path) -> None:
    exact, _ = store.build(tmp_path / "raw", items(20), smooth, "k")
    small, _ = store.build(tmp_path / "jpeg", items(20), smooth, "k", quality=90)
    assert (exact.pixels.encoding, small.pixels.encoding) == ("raw", "jpeg q90")
    assert set(read_table(tmp_path / "jpeg" / "shards.parquet").encoding) == {"jpeg q90"}
    assert small.pixels.shape == exact.pixels.shape == (20, 24, 32, 3)
    assert np.abs(small.pixels[:].astype(int) - exact.pixels[:]).mean() < 2
    rows = [3, 19, 3, 0]
    assert (small.pixels[rows] == small.pixels[:][rows]).all()
    sizes = [sum(p.stat().st_size for p in shard_files(s.folder)) for s in (small, exact)]
    assert sizes[0] < sizes[1] / 2


def test_a_jpeg_store_agrees_with_the_codec(tmp_path: Path) -> None:
    import simplejpeg

    kept, _ = store.build(tmp_path, items(4), smooth, "k", quality=75)
    for image, found in zip(smooth(items(4)), kept.pixels[:], strict=True):
        data = simplejpeg.encode_jpeg(image, 75, "RGB", "444")
        assert (simplejpeg.decode_jpeg(data, "RGB") == found).all()


def test_a_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    kept, _ = store.build(tmp_path, items(), read, "k", quality=100)
    assert kept.pixels.shape == (6, 3, 2, 1)
    assert (kept.pixels[:][:, 0, 0, 0] == kept.items.value).all()


def test_another_quality_is_another_store(tmp_path: Path) -> None:
    store.build(tmp_path, items(4), smooth, "k", quality=90)
    names = shard_files(tmp_path)
    second, _ = store.build(tmp_path, items(4), smooth, "k")
    assert (second.pixels[:] == smooth(items(4))).all()
    assert len(shard_files(tmp_path)) == 1
    assert shard_files(tmp_path) != names


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_outside_its_range_is_an_error(tmp_path: Path, quality: int) -> None:
    with pytest.raises(SettingsError, match=rf"\[1, 100\]. Received: quality={quality}"):
        store.build(tmp_path, items(), read, "k", quality=quality)


def test_pixels_that_do_not_fit_the_format_are_an_error(tmp_path: Path) -> None:
    def two_channels(rows: pd.DataFrame) -> np.ndarray:
        return np.zeros((len(rows), 4, 4, 2), np.uint8)

    def wide(rows: pd.DataFrame) -> np.ndarray:
        return np.full((len(rows), 4, 4, 1), 300, np.uint16)

    with pytest.raises(ImageError, match=r"JPEG cannot hold.*1 or 3.*2 channels"):
        store.build(tmp_path, items(), two_channels, "k", quality=90)
    with pytest.raises(ImageError, match=r"8-bit.*uint8.*uint16"):
        store.build(tmp_path, items(), wide, "k")
    assert contents(tmp_path) == {}


# ---------------------------------------------------------------- nothing twice


def test_a_store_that_stands_is_not_read_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reader = partial(read, log=log)
    store.build(tmp_path / "s", items(), reader, "k")
    assert log.read_text() == "c0 6\n"
    store.build(tmp_path / "s", items(), reader, "k")
    assert log.read_text() == "c0 6\n"
    store.build(tmp_path / "s", items(), reader, "other size")
    store.build(tmp_path / "s", items(4), reader, "other size")
    assert log.read_text() == "c0 6\nc0 6\nc0 4\n"
    assert len(shard_files(tmp_path / "s")) == 1


@pytest.mark.usefixtures("small_chunks")
def test_items_added_at_the_end_or_changed_in_place_leave_the_other_shards(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "s"
    store.build(folder, items(4), partial(read, log=log), "k")
    log.write_text("")
    store.build(folder, items(6), partial(read, log=log), "k")
    assert log.read_text() == "c4 2\n"
    changed = items(6)
    changed.loc[2, "value"] = 77
    kept, _ = store.build(folder, changed, partial(read, log=log), "k")
    assert log.read_text() == "c4 2\nc2 2\n"
    assert kept.pixels[:][:, 0, 0, 0].tolist() == [0, 1, 77, 3, 4, 5]
    assert len(shard_files(folder)) == 3


@pytest.mark.usefixtures("small_chunks")
def test_the_same_rows_twice_are_one_shard_and_all_their_images(tmp_path: Path) -> None:
    kept, _ = store.build(tmp_path, pd.concat([items(2)] * 3), read, "k")
    assert kept.pixels[:][:, 0, 0, 0].tolist() == [0, 1] * 3
    assert len(shard_files(tmp_path)) == 1


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["shards.parquet", "pixels.parquet"])
def test_a_store_that_lacks_a_table_is_made_again_of_its_shards(tmp_path: Path, name: str) -> None:
    before = store.build(tmp_path / "s", items(), read, "k")[0]
    found = contents(before.folder)
    (tmp_path / "s" / name).unlink()
    kept, _ = store.build(tmp_path / "s", items(), partial(read, log=tmp_path / "log"), "k")
    assert not (tmp_path / "log").exists()
    assert contents(tmp_path / "s") == found
    assert (kept.pixels[:][:, 0, 0, 0] == kept.items.value).all()


def test_an_interrupted_build_never_leaves_an_old_table_beside_new_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.build(tmp_path, items(), read, "old")
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_table", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            store.build(tmp_path, items(4), read, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    with pytest.raises(KitError, match="no such table"):
        _ = store.Store(tmp_path).pixels
    kept, _ = store.build(tmp_path, items(), read, "old")
    assert len(kept.pixels) == len(kept.items) == 6


# ---------------------------------------------------------------- killed, and at the same time


def slow_build(folder: str, log: str, workers: int, seconds: float) -> None:
    """What the processes below do."""
    store.CHUNK = 4
    reader = partial(read, log=Path(log), seconds=seconds)
    store.build(Path(folder), items(40), reader, "k", workers=workers)


def start(*arguments: object) -> subprocess.Popen[str]:
    call = f"import test_store; test_store.slow_build(*{arguments!r})"
    return subprocess.Popen(
        [sys.executable, "-c", call], cwd=Path(__file__).parent, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, workers: int) -> None:
    folder, log = tmp_path / "s", tmp_path / "log"
    running = start(str(folder), str(log), workers, 0.3)
    end = time.monotonic() + 60
    while len(whole_shards(folder)) < 4:
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    done = whole_shards(folder)
    assert 4 <= len(done) < 10
    assert not (folder / "pixels.parquet").exists()
    for path in folder.rglob(".part-*"):
        os.utime(path, (0, 0))  # as if the kill were long ago
    log.write_text("")
    slow_build(str(folder), str(log), 1, 0)
    assert len(log.read_text().splitlines()) == 10 - len(done)
    store.Store(folder).verify()
    slow_build(str(tmp_path / "at once"), str(log), 1, 0)
    assert contents(folder) == contents(tmp_path / "at once")


def test_two_builds_at_once_in_two_processes_do_not_spoil_each_other(tmp_path: Path) -> None:
    folder, log = tmp_path / "s", tmp_path / "log"
    running = [start(str(folder), str(log), 1, 0.03) for _ in range(2)]
    for one in running:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    assert 10 <= len(log.read_text().splitlines()) <= 20
    slow_build(str(tmp_path / "alone"), str(log), 1, 0)
    assert contents(folder) == contents(tmp_path / "alone")
    store.Store(folder).verify()


def test_a_build_that_starts_leaves_the_file_that_another_is_writing(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    young, old = (tmp_path / "shards" / f".part-{name}.shard" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.build(tmp_path, items(), read, "k")
    assert young.exists(), "its writer may still be at work"
    assert not old.exists(), "its writer was killed"


def test_two_writers_of_one_shard_leave_it_whole(tmp_path: Path) -> None:
    images, path = noise(items(200)), tmp_path / "a.shard"
    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            threads.submit(shards.write, path, images, {})
        seen = [shards.note(path)["ends"][-1] for _ in range(200) if path.exists()]
    assert set(seen) <= {images.nbytes}
    assert shards.checksum(path) == shards.note(path)["sha256"]
    assert os.listdir(tmp_path) == ["a.shard"]


@pytest.mark.usefixtures("small_chunks")
def test_a_worker_that_dies_leaves_the_shards_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="killed its worker twice"):
        store.build(tmp_path / "s", items(12), partial(die, at="c10"), "k", workers=2)
    stands = whole_shards(tmp_path / "s")
    log = tmp_path / "log"
    kept, _ = store.build(tmp_path / "s", items(12), partial(read, log=log), "k")
    read_again = len(log.read_text().splitlines())
    assert read_again == 6 - len(stands)
    assert (kept.pixels[:][:, 0, 0, 0] == kept.items.value).all()


# ---------------------------------------------------------------- damage


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


@pytest.fixture
def three(tmp_path: Path, small_chunks: None) -> tuple[store.Store, Path]:
    """A store of three shards, and the second one's file."""
    kept, _ = store.build(tmp_path / "s", items(), read, "k")
    kept.verify()
    return kept, kept.folder / "shards" / str(kept.pixels.shards.shard[1])


@pytest.mark.parametrize("place", [0, 11, 12, 40, -37])
def test_a_flipped_byte_is_found_and_its_shard_is_written_again(
    three: tuple[store.Store, Path], tmp_path: Path, place: int
) -> None:
    kept, path = three
    whole = path.read_bytes()
    flip(path, place)
    with pytest.raises(ImageError, match=rf"1 of 3: {path.name}.*File: .*{path.name}.*delete it"):
        store.Store(kept.folder).verify()
    path.unlink()
    log = tmp_path / "log"
    again, _ = store.build(kept.folder, items(), partial(read, log=log), "k")
    assert log.read_text() == "c2 2\n"
    assert path.read_bytes() == whole
    again.verify()


@pytest.mark.parametrize("left", [0, 5, 20, -1])
def test_a_cut_shard_is_an_error_and_the_build_mends_it(
    three: tuple[store.Store, Path], tmp_path: Path, left: int
) -> None:
    kept, path = three
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    with pytest.raises(ImageError, match=rf"another size.*{len(whole)} bytes.*{path.name}.*delete"):
        _ = store.Store(kept.folder).pixels
    log = tmp_path / "log"
    again, _ = store.build(kept.folder, items(), partial(read, log=log), "k")
    assert log.read_text() == "c2 2\n"
    assert path.read_bytes() == whole
    assert (again.pixels[:][:, 0, 0, 0] == again.items.value).all()


def test_a_missing_shard_is_an_error_and_the_build_writes_it_again(
    three: tuple[store.Store, Path], tmp_path: Path
) -> None:
    kept, path = three
    path.unlink()
    with pytest.raises(ImageError, match=rf"missing.*{path.name}.*run the same command again"):
        _ = store.Store(kept.folder).pixels
    log = tmp_path / "log"
    store.build(kept.folder, items(), partial(read, log=log), "k")
    assert log.read_text() == "c2 2\n"
    store.Store(kept.folder).verify()


def test_a_shard_cut_while_the_store_is_open_is_an_error_and_no_pixel(
    three: tuple[store.Store, Path],
) -> None:
    kept, path = three
    path.write_bytes(path.read_bytes()[:9])
    assert kept.pixels[[0, 1, 4]].max() == 4
    with pytest.raises(ImageError, match=rf"the file ends after 3 of 6 bytes.*{path.name}"):
        kept.pixels[[0, 3]]


def test_a_damaged_jpeg_is_an_error_that_names_its_shard(tmp_path: Path) -> None:
    kept, _ = store.build(tmp_path, items(4), smooth, "k", quality=90)
    (path,) = shard_files(tmp_path)
    end = int(kept.pixels.shards.ends[0][1])
    data = bytearray(path.read_bytes())
    data[end - 200 : end] = bytes(200)
    path.write_bytes(data)
    assert kept.pixels[[0, 2, 3]].shape == (3, 24, 32, 3)
    with pytest.raises(ImageError, match=rf"cannot read an image.*{path.name}.*delete it"):
        kept.pixels[[1]]
    with pytest.raises(ImageError, match="1 of 1"):
        kept.verify()


@pytest.mark.parametrize("data", [b"", b"x" * 10, b"x" * 500, bytes(500)])
def test_a_file_that_is_no_shard_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.shard"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"not a whole shard.*File: .*a\.shard"):
        shards.note(path)


# ---------------------------------------------------------------- what cannot be a store


@pytest.mark.parametrize("chunk", [2, 256], ids=["in two chunks", "in one chunk"])
def test_images_of_different_shapes_are_an_error_and_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    with pytest.raises(ImageError, match=r"different shapes.*\(2, 2, 1\).*\(2, 2, 3\).*mixed"):
        store.build(tmp_path, items(), mixed, "k")
    assert not list(tmp_path.glob("*.parquet"))


def test_no_readable_image_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no image could be read\. Received: c0: cannot be deco"):
        store.build(tmp_path, items(), partial(read, bad=tuple(range(6))), "k")
    with pytest.raises(ImageError, match=r"no image could be read\. Received: no items"):
        store.build(tmp_path, items().iloc[:0], read, "k")
    assert contents(tmp_path) == {}


def test_a_mistake_in_the_reader_is_not_taken_for_an_unreadable_image(tmp_path: Path) -> None:
    def wrong(rows: pd.DataFrame) -> np.ndarray:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        store.build(tmp_path, items(), wrong, "k")


def test_shards_are_written_as_they_come_by_whoever_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 1)
    seen = []

    def watched(rows: pd.DataFrame) -> np.ndarray:
        seen.append(len(shard_files(tmp_path)))
        return np.full((1, 256, 256, 1), 7, np.uint8)

    store.build(tmp_path, items(4), watched, "k")
    assert seen == [0, 1, 2, 3]
    values = store._write_shard(tmp_path / "shards" / "b.shard", read, items(2), None)
    assert len(pickle.dumps(values)) < 1000, "a worker sends a note, and no pixels"
