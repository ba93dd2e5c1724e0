"""NSML's hooks around a run: build, bind save, load and infer, stop at `paused`, then read data.

The order is NSML's: nothing may read data before `paused`, because at submit there is none.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from kit import pace, platforms
from kit.checks import choice
from kit.errors import KitError
from kit.manifest import Dataset
from kit.platforms import _nsml_run
from kit.settings import Settings, parse

log = logging.getLogger(__name__)

OUT = Path("submissions")
CHECKPOINT = "complete"


class Runnable(Protocol):
    """What a session needs of `kit.pipeline.Run`."""

    def complete(self) -> Mapping[str, Any]:
        """Make everything that the run makes."""


class Challenges(Protocol):
    """What a session needs of `kit.challenges`."""

    def wanted(
        self, name: str, settings: Mapping[str, Any]
    ) -> tuple[Dataset, Settings, int | None]:
        """Return the dataset, the settings of a run, and how many test cases await it."""

    def open_run(self, name: str, *, out: Path, settings: Mapping[str, Any]) -> Runnable:
        """Open a run."""


class Session(platforms.Platform):
    """NSML: figures and checkpoints go through its own package."""

    def report(self, step: int = 0, **values: float | None) -> None:
        """Report figures as plain JSON numbers; undefined ones are left out."""
        _nsml().report(summary=True, scope={}, step=step, **platforms.defined(values))

    def save(self, out: Path) -> Path:
        """Have NSML call the bound `save`, unless the model is too large."""
        kept = super().save(out)
        _nsml().save(CHECKPOINT)
        return kept

    def load(self, out: Path) -> Path:
        """Have NSML call the bound `load`, and return the run's folder, verified."""
        _nsml().load(CHECKPOINT)
        return super().load(out)


def session(
    challenge: str, challenges: Challenges, *, mode: str, pause: int, settings: Sequence[str] = ()
) -> None:
    """Do what NSML asks of `main.py`.

    Args:
        challenge: A challenge or dataset of the manifest.
        challenges: The module `kit.challenges`.
        mode: "train" trains; NSML sends "test" at submit.
        pause: 1 at submit: the run is loaded and asked from inside `paused`.
        settings: `KEY=VALUE` texts.

    Raises:
        KitError: There is no nsml package here, or the run would break one of NSML's limits.
    """
    choice("--mode", mode, ("train", "test"))
    nsml, out, chosen = _nsml(), OUT / challenge / "nsml", parse(list(settings))
    here = platforms.detect()
    if mode == "train":
        expect(*challenges.wanted(challenge, chosen), here)
    save, load, infer = _nsml_run.hooks(out, here)
    nsml.bind(save=save, load=load, infer=infer)
    if pause:
        nsml.paused(scope=locals())
    if mode == "train":
        found = challenges.open_run(challenge, out=out, settings=chosen).complete()
        here.report(**{name: found[name]["value"] for name in ("mean_of_six", "auc")})
        here.save(out)


def expect(
    dataset: Dataset, settings: Settings, tests: int | None, here: platforms.Platform
) -> None:
    """Build one network, and refuse before any training what would be too large or too slow.

    Raises:
        KitError: All networks together would be larger, or predicting would take longer, than NSML
            takes.
    """
    _nsml_run.refuse_kind(dataset)
    networks = pace.networks(settings)
    found = pace.measure(settings, 3, len(dataset.classes), learn=False)
    here.refuse_large(networks * found.megabytes, OUT)
    seconds = networks * (tests or 0) * found.predict
    log.info("expected: %d networks, %.1f MB in all, %.0f s of predicting",
             networks, networks * found.megabytes, seconds)  # fmt: skip
    if here.inference is not None and seconds > here.inference:
        raise KitError(
            f"predicting would take longer than {here.name} allows",
            expected=f"at most {here.inference:.0f} s", received=f"about {seconds:.0f} s",
            remedy="fewer or smaller networks, or --set tta=false",
        )  # fmt: skip


def _nsml() -> ModuleType:
    try:
        return importlib.import_module("nsml")
    except ModuleNotFoundError as error:
        raise KitError(
            "no nsml package here: main.py runs on NSML only",
            remedy="elsewhere use: kit run CHALLENGE --data DIR; to try main.py: "
            "kit rehearse CHALLENGE --platform nsml",
        ) from error
