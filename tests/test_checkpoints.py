"""States: the newest whole one of this training is taken, whatever happened to the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import checkpoints

ARRAYS = {"model0000": np.arange(6.0).reshape(2, 3), "optimizer0000": np.array(3)}


def save(folder: Path, epoch: int, key: str = "mine", name: str = "fold0_seed0") -> Path:
    arrays = {**ARRAYS, "model0000": ARRAYS["model0000"] + epoch}
    checkpoints.save(folder, name, epoch, arrays, {"key": key, "epoch": epoch, "best": None})
    return folder / f"{name}-{epoch:05d}.npz"


def load(folder: Path, key: str = "mine") -> tuple[dict[str, np.ndarray], Any] | None:
    return checkpoints.load(folder, "fold0_seed0", key)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = load(tmp_path)
    assert found is not None
    arrays, note = found
    assert note == {"key": "mine", "epoch": 1, "best": None}
    assert arrays.keys() == ARRAYS.keys()
    assert (arrays["model0000"] == ARRAYS["model0000"] + 1).all()
    assert arrays["optimizer0000"].shape == ()


def test_there_is_no_state_before_the_first(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "nowhere") is None


def test_two_generations_are_kept_and_nothing_else(tmp_path: Path) -> None:
    other = save(tmp_path, 1, name="fold0_seed01")
    for epoch in range(1, 12):
        save(tmp_path, epoch)
    assert names(tmp_path) == ["fold0_seed0-00010.npz", "fold0_seed0-00011.npz", other.name]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(ARRAYS["model0000"].tobytes()[16:24])  # in the middle of the weights
    content[at + 6] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncated, emptied, zeroed, flipped])
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 0)
    checkpoints.save(tmp_path, "fold0_seed0", 1, ARRAYS, {"key": "mine", "epoch": 1})
    newest = tmp_path / "fold0_seed0-00001.npz"
    damage(newest)
    found = load(tmp_path)
    assert found is not None and found[1]["epoch"] == 0
    (said,) = caplog.messages
    assert str(newest) in said and "damaged" in said and "the state before" in said
    assert not newest.exists()


def test_whatever_byte_is_wrong_no_wrong_weight_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "fold0_seed0-00001.npz"
    checkpoints.save(tmp_path, "fold0_seed0", 1, ARRAYS, {"key": "mine"})
    whole = path.read_bytes()
    logging.disable(logging.WARNING)
    try:
        for at in range(len(whole)):
            for bit in (0x01, 0x80):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
                found = load(tmp_path)
                if found is not None:  # a byte that says nothing, such as the time
                    assert found[0].keys() == ARRAYS.keys()
                    assert all((found[0][name] == ARRAYS[name]).all() for name in ARRAYS)
    finally:
        logging.disable(logging.NOTSET)


def test_two_damaged_states_start_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2):
        truncated(save(tmp_path, epoch))
    assert load(tmp_path) is None
    assert len(caplog.messages) == 2
    assert names(tmp_path) == []


def test_a_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2, "theirs")
    found = load(tmp_path)
    assert found is not None and found[1]["epoch"] == 1
    assert load(tmp_path, "nobody's") is None
    assert len(names(tmp_path)) == 2


def test_later_states_of_another_training_do_not_push_ours_out(tmp_path: Path) -> None:
    for epoch in (40, 41):
        save(tmp_path, epoch, "theirs")
    for epoch in (1, 2):
        save(tmp_path, epoch)
        found = load(tmp_path)
        assert found is not None and found[1]["epoch"] == epoch
    assert names(tmp_path) == ["fold0_seed0-00001.npz", "fold0_seed0-00002.npz"]


def test_a_finished_network_keeps_no_state(tmp_path: Path) -> None:
    other = save(tmp_path, 3, name="fold0_seed01")
    for epoch in (1, 2):
        save(tmp_path, epoch)
    checkpoints.remove(tmp_path, "fold0_seed0")
    assert names(tmp_path) == [other.name]
