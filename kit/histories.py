"""What happened at each epoch: one CSV a network, and the same for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.files import atomic

COLUMNS = ["epoch", "stage", "loss", "rate", "monitor", "value", "best", "batch", "seconds"]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the epochs so far to `path` (CSV) and `tensorboard/<network>/` beside it, whole."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.8g")
    _write_events(path.parent / "tensorboard" / path.stem / "events.out.tfevents.0.kit", table)


def read(path: Path) -> pd.DataFrame:
    """Return the epochs of one network so far; none where there is no file yet."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame(columns=COLUMNS)


def read_all(folder: Path) -> pd.DataFrame:
    """Return the epochs of every network in a folder, with `network`, its name."""
    parts = [read(path).assign(network=path.stem) for path in sorted(Path(folder).glob("*.csv"))]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _write_events(path: Path, table: pd.DataFrame) -> None:
    """Write loss, rate and monitored figure as TensorBoard's scalars; without it, nothing."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        return
    with atomic(path) as part, part.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for row in table.to_dict("records"):
            values = {"loss": row["loss"], "rate": row["rate"], str(row["monitor"]): row["value"]}
            for name, value in values.items():
                if pd.notna(value):
                    scalar = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                    event = Event(step=int(row["epoch"]), summary=scalar)
                    writer.write(event.SerializeToString())
        writer.flush()
