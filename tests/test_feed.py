"""Batches: which images when, the same in every process; read ahead, in order, without hanging."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kit import feed

ROOT = Path(__file__).parents[1]
CODES = np.array([0] * 7 + [1] * 3 + [2] * 13)


def epochs(n: int, batch: int, steps: int, *, balanced: bool = False) -> list[np.ndarray]:
    found = [
        feed.order(CODES, batch, steps, (5, 1), epoch, balanced=balanced) for epoch in range(n)
    ]
    assert all(len(one) == steps and all(len(rows) == batch for rows in one) for one in found)
    return [np.concatenate(one) for one in found]


def test_an_epoch_of_whole_batches_is_a_permutation() -> None:
    (found,) = epochs(1, 23, 1)
    assert sorted(found) == list(range(23))
    assert list(found) != list(range(23))


def test_two_epochs_differ_and_two_seeds_too() -> None:
    one, two = epochs(2, 23, 1)
    assert list(one) != list(two)
    (other,) = feed.order(CODES, 23, 1, (6, 1), 0)
    assert list(one) != list(other)


@pytest.mark.parametrize(("batch", "steps"), [(4, 5), (4, 3), (7, 9), (23, 1)])
def test_every_image_is_seen_as_often_as_any_other_to_one(batch: int, steps: int) -> None:
    for n in (1, 2, 5, 17):
        seen = np.bincount(np.concatenate(epochs(n, batch, steps)), minlength=len(CODES))
        assert seen.max() - seen.min() <= 1


@pytest.mark.parametrize(("batch", "steps"), [(6, 4), (5, 4), (23, 1)])
def test_balanced_classes_are_drawn_alike_and_their_images_too(batch: int, steps: int) -> None:
    found = epochs(11, batch, steps, balanced=True)
    for epoch in found:
        drawn = np.bincount(CODES[epoch], minlength=3)
        assert drawn.max() - drawn.min() <= 1
    seen = np.bincount(np.concatenate(found), minlength=len(CODES))
    for code in range(3):
        of_class = seen[code == CODES]
        assert of_class.max() - of_class.min() <= 1


def test_classes_that_are_missing_are_not_drawn() -> None:
    codes = np.array([0, 3, 3, 0])
    found = np.concatenate(feed.order(codes, 4, 2, (0,), 0, balanced=True))
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("balanced", [False, True])
def test_an_epoch_needs_none_before_it(balanced: bool) -> None:
    before = epochs(4, 5, 4, balanced=balanced)[3]
    alone = np.concatenate(feed.order(CODES, 5, 4, (5, 1), 3, balanced=balanced))
    assert list(before) == list(alone)


def test_another_process_draws_the_same() -> None:
    code = (
        "import numpy as np; from kit import feed; c = np.array([0] * 7 + [1] * 3 + [2] * 13);"
        "print(*[list(map(int, np.concatenate(feed.order(c, 5, 4, (5, 1), 3, balanced=b))))"
        " for b in (False, True)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    found = [epochs(4, 5, 4, balanced=balanced)[3].tolist() for balanced in (False, True)]
    assert done.stdout.strip() == " ".join(map(str, found))


def test_batches_are_read_ahead_and_come_in_order() -> None:
    read: list[int] = []

    def slow(rows: np.ndarray) -> int:
        time.sleep(0.01 * (rows[0] == 0))
        read.append(int(rows[0]))
        return int(rows[0])

    batches = feed.ahead(slow, (np.array([n]) for n in range(6)))
    assert next(batches) == 0
    end = time.monotonic() + 5
    while len(read) < 1 + feed.AHEAD and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.02)
    assert read == [0, 1, 2]  # and no more: memory holds no whole epoch
    assert list(batches) == [1, 2, 3, 4, 5]


def test_no_batches_are_no_batches() -> None:
    assert list(feed.ahead(lambda rows: rows, [])) == []


def test_an_error_of_the_reader_comes_at_its_batch() -> None:
    def read(rows: np.ndarray) -> int:
        if rows[0] == 2:
            raise OSError("the disk is gone")
        return int(rows[0])

    found: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        for one in feed.ahead(read, [np.array([n]) for n in range(9)]):
            found.append(one)
    assert found == [0, 1]


def test_a_loop_that_is_left_early_ends_the_reader() -> None:
    before, read = threading.active_count(), []
    batches = feed.ahead(lambda rows: read.append(rows), [np.array([n]) for n in range(1000)])
    next(batches)
    batches.close()
    assert threading.active_count() == before
    assert len(read) <= 2 + feed.AHEAD


class Counted:
    """Images on a disk: how often are they read?"""

    def __init__(self) -> None:
        self.images = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2, 1)
        self.shape, self.dtype, self.reads = self.images.shape, self.images.dtype, 0

    def __getitem__(self, index: object) -> np.ndarray:
        self.reads += 1
        return self.images[index]  # type: ignore[index]


def test_images_that_fit_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "free_memory", lambda: 5 * 4 / feed.SHARE)
    disk, rows = Counted(), np.array([7, 2, 2, 9, 0])
    pixels, places = feed.decoded(disk, rows)
    for _ in range(3):
        assert (pixels[places] == disk.images[rows]).all()
    assert disk.reads == 1


def test_images_that_do_not_fit_stay_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "free_memory", lambda: 5 * 4 / feed.SHARE - 1)
    disk, rows = Counted(), np.array([7, 2, 2, 9, 0])
    pixels, places = feed.decoded(disk, rows)
    assert pixels is disk
    assert disk.reads == 0
    assert (pixels[places] == disk.images[rows]).all()
