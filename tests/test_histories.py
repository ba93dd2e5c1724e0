"""Histories: a CSV that is whole after every epoch, and the same for TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from kit import histories


def row(epoch: int, **more: Any) -> dict[str, Any]:
    usual = {
        "epoch": epoch, "stage": "all", "loss": 1 / epoch, "rate": 0.002 / epoch, "monitor": "auc",
        "value": 0.5 + epoch / 100, "best": 0.5 + epoch / 100, "batch": 8, "seconds": 1.25,
    }  # fmt: skip
    return {**usual, **more}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, value) of each tag, by TensorBoard's reader."""
    (path,) = folder.glob("*tfevents*")
    found: dict[str, list[tuple[int, float]]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            number = value.simple_value or value.tensor.float_val[0]
            found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [row(1), row(2, stage="second", batch=4, loss=1 / 3)]
    histories.write(tmp_path / "fold0_seed0.csv", rows)
    found = histories.read(tmp_path / "fold0_seed0.csv")
    assert list(found) == histories.COLUMNS
    pd.testing.assert_frame_equal(found, pd.DataFrame(rows)[histories.COLUMNS], rtol=1e-7)
    lines = (tmp_path / "fold0_seed0.csv").read_text().splitlines()
    assert lines[0] == "epoch,stage,loss,rate,monitor,value,best,batch,seconds"
    assert lines[1] == "1,all,1,0.002,auc,0.51,0.51,8,1.25"


def test_nothing_watched_is_empty_and_stays_the_word_none(tmp_path: Path) -> None:
    histories.write(tmp_path / "a.csv", [row(1, monitor="none", value=None, best=None)])
    found = histories.read(tmp_path / "a.csv")
    assert found.monitor[0] == "none"
    assert found.value.isna().all() and found.best.isna().all()
    assert events(tmp_path / "tensorboard" / "a").keys() == {"loss", "rate"}


def test_tensorboard_reads_each_epoch(tmp_path: Path) -> None:
    histories.write(tmp_path / "fold1_seed0.csv", [row(1), row(2), row(3)])
    found = events(tmp_path / "tensorboard" / "fold1_seed0")
    assert found.keys() == {"loss", "rate", "auc"}
    assert [step for step, _ in found["auc"]] == [1, 2, 3]
    assert [value for _, value in found["auc"]] == pytest.approx([0.51, 0.52, 0.53])
    assert [value for _, value in found["loss"]] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_longer_history_replaces_the_shorter(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        histories.write(tmp_path / "a.csv", [row(epoch) for epoch in range(1, n + 1)])
    assert list(histories.read(tmp_path / "a.csv").epoch) == [1, 2, 3]
    assert len(events(tmp_path / "tensorboard" / "a")["loss"]) == 3
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == ["a.csv", "events.out.tfevents.0.kit"]


def test_without_tensorboard_the_table_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto.event_pb2", None)
    histories.write(tmp_path / "a.csv", [row(1)])
    assert len(histories.read(tmp_path / "a.csv")) == 1
    assert not (tmp_path / "tensorboard").exists()


def test_what_is_not_there_or_empty_has_no_epochs(tmp_path: Path) -> None:
    assert len(histories.read(tmp_path / "nowhere.csv")) == 0
    (tmp_path / "empty.csv").write_text("")
    assert len(histories.read(tmp_path / "empty.csv")) == 0
    histories.write(tmp_path / "begun.csv", [])
    assert len(histories.read(tmp_path / "begun.csv")) == 0
    assert len(histories.read_all(tmp_path)) == 0


def test_all_networks_of_a_folder_stand_in_one_table(tmp_path: Path) -> None:
    histories.write(tmp_path / "fold0_seed0.csv", [row(1), row(2)])
    histories.write(tmp_path / "fold1_seed0.csv", [row(1, value=None, best=None)])
    histories.write(tmp_path / "fold2_seed0.csv", [])
    found = histories.read_all(tmp_path)
    assert list(found.network) == ["fold0_seed0", "fold0_seed0", "fold1_seed0"]
    assert list(found.epoch) == [1, 2, 1]
