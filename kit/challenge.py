"""What a run is of: a data set, settings of its own, and how the platform takes and scores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.manifest import Dataset
from kit.official import Official
from kit.submission import Format


@dataclass(frozen=True)
class Challenge:
    """A dataset, the settings that differ from its kind's, what the platform takes and scores."""

    name: str
    dataset: Dataset
    settings: Mapping[str, Any]
    style: Format = field(default_factory=Format)
    official: Official | None = None


@dataclass(frozen=True)
class Real:
    """What awaits a run on the challenge's own data, as published: what estimates are made of.

    Attributes:
        size: (width, height) of an image, or of level 0 of a slide, pixels.
        train: Training cases.
        tests: Test cases.
        seconds: Most seconds for predicting all of them; None: the platform's limit.
    """

    size: tuple[int, int]
    train: int
    tests: int
    seconds: float | None = None
