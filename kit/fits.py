"""One network to train: what decides it, and how it is recognised when it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.errors import KitError
from kit.files import read_json, sha256
from kit.recipes import Recipe
from kit.store import Store

EVERYTHING = -1
"""The fold of a network that is trained on all training cases."""


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Fit:
    """One network to train: fold `fold` left out, with seed number `seed`.

    `rows` are learnt from, `held` are the left-out fold's labelled ones, by which the training is
    watched; `codes` and `held_codes` are their classes. `epochs` cuts stages short (an epoch number
    each); empty: as the recipe says. `until` is the time (`time.time`) at which the last of the
    `predictions` to be made after it must be there.
    """

    store: Store
    rows: np.ndarray
    codes: np.ndarray
    held: np.ndarray
    held_codes: np.ndarray
    classes: tuple[str, ...]
    model: str
    recipe: Recipe
    fold: int
    seed: int
    path: Path
    key: str
    weights: Path | None = None
    teachers: tuple[Path, ...] = ()
    epochs: tuple[int, ...] = ()
    predictions: int = 0
    until: float = float("inf")

    @property
    def name(self) -> str:
        """Return the name that progress and errors show."""
        fold = "all cases" if self.fold == EVERYTHING else f"fold {self.fold}"
        return f"{fold}, seed {self.seed}"

    @property
    def total(self) -> int:
        """Return the epochs that are trained at most."""
        return sum(self.epochs) if self.epochs else self.recipe.total

    def done(self) -> bool:
        """Return whether the network stands, whole, with this fingerprint."""
        return stands(self.path, self.key)


def stands(path: Path, key: str) -> bool:
    """Return whether a network's file stands, whole, and its note (`.json`) has this key."""
    try:
        note = read_json(path.with_suffix(".json"))
        return bool(note["key"] == key and sha256(path) == note["sha256"])
    except (KitError, OSError, KeyError, TypeError):  # missing or damaged: made again
        return False
