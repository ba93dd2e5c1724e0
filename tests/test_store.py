"""The store: every readable image once, why not the others, and nothing done twice."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import store
from kit.errors import ImageError


def items(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": [f"c{i}" for i in range(n)], "value": range(n), "label": ["x", None] * (n // 2)}
    )


def read(rows: pd.DataFrame, *, bad: tuple[int, ...] = (), log: Path | None = None) -> np.ndarray:
    """Images of one value each, 2 wide and 3 high."""
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"{len(rows)}\n")
    for value in rows.value:
        if value in bad:
            raise ImageError("cannot be decoded", path=f"{value}.png")
    return np.stack([np.full((3, 2, 1), value, np.uint8) for value in rows.value])


def mixed(rows: pd.DataFrame) -> np.ndarray:
    return np.stack([np.zeros((2, 2, 1 + 2 * (value > 2)), np.uint8) for value in rows.value])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_stands_in_the_row_of_its_item(tmp_path: Path, workers: int) -> None:
    kept, failures = store.build(tmp_path, items(), read, "k", workers=workers)
    assert failures == []
    assert kept.pixels.shape == (6, 3, 2, 1)
    assert kept.pixels.dtype == np.uint8
    assert isinstance(kept.pixels, np.memmap)
    assert (kept.pixels[:, 0, 0, 0] == kept.items.value).all()
    pd.testing.assert_frame_equal(kept.items, items(), check_dtype=False)
    assert (np.load(kept.path) == kept.pixels).all()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_images_are_left_out_with_their_reasons(tmp_path: Path, workers: int) -> None:
    reader = partial(read, bad=(1, 4, 5))
    kept, failures = store.build(tmp_path, items(), reader, "k", workers=workers)
    assert list(kept.items.case_id) == ["c0", "c2", "c3"]
    assert list(kept.pixels[:, 2, 1, 0]) == [0, 2, 3]
    assert failures == [f"c{i}: cannot be decoded. File: {i}.png." for i in (1, 4, 5)]
    again, repeated = store.build(tmp_path, items(), reader, "k")
    assert repeated == failures
    assert list(again.items.case_id) == ["c0", "c2", "c3"]


def test_the_header_has_room_for_any_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 7)
    bad = tuple(range(3, 1200))
    kept, failures = store.build(tmp_path, items(1200), partial(read, bad=bad), "k")
    assert len(failures) == 1197
    assert kept.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert kept.path.stat().st_size == 128 + 3 * 6


def test_a_store_that_stands_is_not_read_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reader = partial(read, log=log)
    store.build(tmp_path / "s", items(), reader, "k")
    assert log.read_text() == "6\n"
    store.build(tmp_path / "s", items(), reader, "k")
    assert log.read_text() == "6\n"
    store.build(tmp_path / "s", items(), reader, "other size")
    store.build(tmp_path / "s", items(4), reader, "other size")
    assert log.read_text() == "6\n6\n4\n"


@pytest.mark.parametrize("name", ["pixels.npy", "pixels.parquet"])
def test_a_store_that_lacks_a_file_is_made_again(tmp_path: Path, name: str) -> None:
    kept, _ = store.build(tmp_path, items(), read, "k")
    (tmp_path / name).unlink()
    kept, _ = store.build(tmp_path, items(), read, "k")
    assert (kept.pixels[:, 0, 0, 0] == kept.items.value).all()


def test_an_interrupted_build_never_leaves_an_old_table_beside_new_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.build(tmp_path, items(), read, "old")
    real = store.write_table
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_table", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            store.build(tmp_path, items(4), read, "new")
    assert store.write_table is real
    assert len(np.load(tmp_path / "pixels.npy")) == 4
    kept, _ = store.build(tmp_path, items(), read, "old")
    assert kept.pixels.shape[0] == len(kept.items) == 6


@pytest.mark.parametrize("chunk", [2, 256], ids=["in two chunks", "in one chunk"])
def test_images_of_different_shapes_are_an_error_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    with pytest.raises(ImageError, match=r"different shapes.*\(2, 2, 1\).*\(2, 2, 3\).*mixed"):
        store.build(tmp_path, items(), mixed, "k")
    assert os.listdir(tmp_path) == []


def test_no_readable_image_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no image could be read\. Received: c0: cannot be deco"):
        store.build(tmp_path, items(), partial(read, bad=tuple(range(6))), "k")
    with pytest.raises(ImageError, match=r"no image could be read\. Received: no items"):
        store.build(tmp_path, items().iloc[:0], read, "k")
    assert os.listdir(tmp_path) == []


def test_a_mistake_in_the_reader_is_not_taken_for_an_unreadable_image(tmp_path: Path) -> None:
    def wrong(rows: pd.DataFrame) -> np.ndarray:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        store.build(tmp_path, items(), wrong, "k")


def test_chunks_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 1)
    sizes = []

    def watched(rows: pd.DataFrame) -> np.ndarray:
        (part,) = tmp_path.glob(".part-*")
        sizes.append(part.stat().st_size)
        return np.full((1, 256, 256, 1), 7, np.uint8)

    store.build(tmp_path, items(4), watched, "k")
    assert [round(size / 256**2) for size in sizes] == [0, 1, 2, 3]


def test_a_store_crosses_a_process_without_its_pixels(tmp_path: Path) -> None:
    kept, _ = store.build(tmp_path, items(), read, "k")
    assert len(kept.items) == len(kept.pixels) == 6
    sent = pickle.dumps(kept)
    assert len(sent) < 500
    assert (pickle.loads(sent).pixels == kept.pixels).all()
