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
    """A dataset, the settings that differ from its kind's, what the platform takes and scores.

    `settings` are those of the recipe that was chosen, and `smoke` what a smoke run of it keeps or
    changes besides (such as its network). `forbids` are the settings that its rules do not allow,
    each with the rule.
    """

    name: str
    dataset: Dataset
    settings: Mapping[str, Any]
    style: Format = field(default_factory=Format)
    official: Official | None = None
    recipe: str = "kit"
    smoke: Mapping[str, Any] = field(default_factory=dict)
    forbids: Mapping[str, str] = field(default_factory=dict)


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
