"""How a network is trained: a frozen recipe, its stages, and the rate at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kit.checks import choice
from kit.errors import SettingsError
from kit.policies import policy
from kit.settings import Settings, checked, choices

SMALLEST = 0.01  # of the highest rate: where cosine and one-cycle end
REDUCED = 0.5  # what a plateau multiplies the rate by


@dataclass(frozen=True)
class Stage:
    """A part of the training: so many epochs at one highest rate, with one augmentation."""

    name: str
    epochs: int
    learning_rate: float
    augment: str
    mix: str
    label_smoothing: float


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; `kit.settings.Settings` says what each field means.

    Raises:
        SettingsError: A word is unknown, a number out of range, or early stopping has no figure
            to watch.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    ema: float = 0.99
    augment: str = "none"
    threads: int = 1
    seed: int = 0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    decay: float = 0.975
    decay_steps: int | None = None
    patience: int = 3
    min_rate: float = 0.0
    loss: str = "cross_entropy"
    mix: str = "none"
    balance: str = "none"
    clip: float = 0.0
    precision: str = "float32"
    device: str = "auto"
    monitor: str = "auc"
    keep: str = "last"
    stop_after: int = 0
    steps: int | None = None
    head_epochs: int = 0
    second_epochs: int = 0
    second_rate: float = 0.1
    second_augment: str = "flips"
    second_smoothing: float = 0.0
    students: int = 1
    temperature: float = 2.0
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in Recipe.__dataclass_fields__:
            if choices(name):
                choice(name, getattr(self, name), choices(name))
        found = checked({name: getattr(self, name) for name in Recipe.__dataclass_fields__})
        for name in Recipe.__dataclass_fields__:  # a text that is a number has become one
            object.__setattr__(self, name, getattr(found, name))
        for name in ("augment", "second_augment"):
            policy(getattr(self, name), name)
        if self.chooses and self.monitor == "none":
            raise SettingsError(
                "early stopping, keep=best and schedule=plateau need a figure to watch",
                received="monitor=none", remedy="--set monitor=auc",
            )  # fmt: skip

    @property
    def chooses(self) -> bool:
        """Return whether the held-out fold decides anything about the network."""
        return bool(self.stop_after) or self.keep == "best" or self.schedule == "plateau"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages in their order: the head alone, all layers, then mild augmentation."""
        main = Stage("all", self.epochs, self.learning_rate, self.augment, self.mix,
                     self.label_smoothing)  # fmt: skip
        head = replace(main, name="head", epochs=self.head_epochs)
        second = Stage(
            "second", self.second_epochs, self.learning_rate * self.second_rate,
            self.second_augment, "none", self.second_smoothing,
        )  # fmt: skip
        return tuple(stage for stage in (head, main, second) if stage.epochs)

    @property
    def total(self) -> int:
        """Return the epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> tuple[int, int]:
        """Return the number of the stage of an epoch (from 0), and the stage's first epoch."""
        start = 0
        for number, stage in enumerate(self.stages):
            if epoch < start + stage.epochs:
                return number, start
            start += stage.epochs
        raise IndexError(f"the recipe has {self.total} epochs. Received: {epoch}")


def recipe_of(settings: Settings) -> Recipe:
    """Return the recipe that a run's settings give."""
    return Recipe(**{name: getattr(settings, name) for name in Recipe.__dataclass_fields__})


def rate(recipe: Recipe, stage: Stage, step: int, per_epoch: int, *, reductions: int = 0) -> float:
    """Return the learning rate of one step of a stage.

    Args:
        recipe: Its `schedule`, `warmup`, `decay`, `decay_steps` and `min_rate`.
        stage: Its epochs and highest rate.
        step: Of the stage, from 0.
        per_epoch: Steps of an epoch.
        reductions: How often a plateau has lowered the rate.

    Returns:
        `constant`; `cosine`: up a straight line for the share `warmup`, then down half a cosine
        to 1 %; `one_cycle`: up half a cosine for 30 %, then down one (Smith 2018, 1803.09820);
        `staircase`: times `decay` after every `decay_steps`, or every epoch; `plateau`: halved at
        every reduction, not below `min_rate`.
    """
    high, total = stage.learning_rate, stage.epochs * per_epoch
    if recipe.schedule == "constant":
        return high
    if recipe.schedule == "staircase":
        return float(high * recipe.decay ** (step // (recipe.decay_steps or per_epoch)))
    if recipe.schedule == "plateau":
        return max(min(high, recipe.min_rate), float(high * REDUCED**reductions))
    cycle = recipe.schedule == "one_cycle"
    warm = round((0.3 if cycle else recipe.warmup) * total)
    if step < warm:
        low, at = high / 20, step / warm
        return low + (high - low) * (0.5 - 0.5 * math.cos(math.pi * at) if cycle else at)
    left = 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, total - warm))
    return high * (SMALLEST + (1 - SMALLEST) * left)


def rates(recipe: Recipe, per_epoch: int) -> list[float]:
    """Return the rate at every step of the whole recipe, as long as no plateau lowers it."""
    return [
        rate(recipe, stage, step, per_epoch)
        for stage in recipe.stages
        for step in range(stage.epochs * per_epoch)
    ]
