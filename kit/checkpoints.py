"""The whole state of a training after each epoch: two generations, each whole or absent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kit.files import atomic, jsonable

log = logging.getLogger(__name__)

KEPT = 2  # generations: one may be damaged
NOTE = "note"


def save(folder: Path, name: str, epoch: int, arrays: Mapping[str, np.ndarray], note: Any) -> None:
    """Write the state after `epoch` epochs and remove all but it and the one before.

    Args:
        folder: Of the states.
        name: Of the network.
        epoch: Finished epochs.
        arrays: Every variable by name. The file holds a CRC of each.
        note: Whatever else the state is, in JSON's types.
    """
    path = folder / f"{name}-{epoch:05d}.npz"
    with atomic(path) as part:
        text = np.array(json.dumps({"note": jsonable(note), "arrays": sorted(arrays)}))
        np.savez(part, **{NOTE: text}, **arrays)  # type: ignore[arg-type]
    known = _states(folder, name)
    kept = known[: known.index(path) + 1][-KEPT:]  # later ones are another training's
    for old in set(known) - set(kept):
        old.unlink(missing_ok=True)


def load(folder: Path, name: str, key: str) -> tuple[dict[str, np.ndarray], Any] | None:
    """Return the arrays and the note of the newest whole state whose note has this `key`.

    A damaged state is removed and said, and the one before it is taken.
    """
    for path in reversed(_states(folder, name)):
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
                arrays = {part: found[part] for part in found.files}
            held = json.loads(str(arrays.pop(NOTE)))
            if held["arrays"] != sorted(arrays):
                raise ValueError("arrays are missing")
            note, known = held["note"], held["note"]["key"]
        except Exception as error:  # whatever zip, numpy and JSON make of wrong bytes
            log.warning("%s is damaged (%s): training goes on from the state before", path, error)
            path.unlink(missing_ok=True)
            continue
        if known == key:
            return arrays, note
    return None


def remove(folder: Path, name: str) -> None:
    """Remove every state of a network: it is finished."""
    for path in _states(folder, name):
        path.unlink(missing_ok=True)


def _states(folder: Path, name: str) -> list[Path]:
    return sorted(Path(folder).glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].npz"))
