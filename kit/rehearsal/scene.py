"""What the steps of a rehearsal share: the bare root, the drawn cases, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import submission, synthetic
from kit.challenge import Challenge
from kit.challenges import find, wanted
from kit.errors import KitError, SubmissionError
from kit.files import write_json
from kit.manifest import load_manifest
from kit.rehearsal import bare, stand_in
from kit.settings import parse

TINY: dict[str, Any] = {
    "n_splits": 2, "seeds": 1, "students": 1, "image_size": 32, "epochs": 1, "head_epochs": 0,
    "second_epochs": 0, "batch_size": 16, "model": "conv_small", "patches_per_slide": 40,
    "predict_per_slide": 60, "tta": False, "resamples": 100, "augment": "flips", "threads": 1,
    "steps": "none", "monitor": "none", "patch_size": 64, "min_tumour": 0.5, "level": 0,
    "mpp": "none", "smaller": "none", "min_focus": 0.0,
}  # fmt: skip
"""Settings of the networks that a rehearsal trains: every stage, in seconds."""
LAST_LINES = "see its last lines"
LATE = "other work may be slowing this machine: try again, or --seconds 600"


@dataclass
class Scene:
    """A rehearsal under way.

    Attributes:
        challenge: What is rehearsed.
        platform: Where.
        root: The bare root folder.
        settings: `KEY=VALUE` texts of the real run.
        end: When the time is up, by `time.monotonic`.
        cases: The drawn cases, once they are drawn.
        answers: `case_id, drawn, label` of the test cases.
        estimate: What the real run would take, once it is known.
        memory: Most MB that one process of the rehearsal held.
    """

    challenge: Challenge
    platform: str
    root: Path
    settings: Sequence[str]
    end: float
    cases: pd.DataFrame = field(default_factory=pd.DataFrame)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    estimate: dict[str, Any] = field(default_factory=dict)
    memory: float = 0.0

    @classmethod
    def of(
        cls, challenge: str, platform: str, root: Path, *, settings: Sequence[str], end: float
    ) -> Scene:
        """Return the scene of a rehearsal that begins."""
        wanted(challenge, parse(list(settings)))
        return cls(find(challenge, load_manifest()), platform, root, settings, end)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    @property
    def tiny(self) -> list[str]:
        """Return the `--set` arguments of a tiny run."""
        return [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]

    def draw(self) -> None:
        """Draw the cases."""
        self.cases = stand_in.draw(self.challenge.dataset, self.root / "drawn")

    def lay_out(self, place: Path, *, tests: bool | None = None) -> str:
        """Lay the cases out in a dataset's root, and say how many.

        Args:
            place: The root.
            tests: True: the test cases alone, without any label; False: the training cases alone;
                None: both, where the layout can tell them apart.
        """
        dataset, cases = self.challenge.dataset, self.cases
        if tests is None and not stand_in.marks_tests(dataset):
            tests = False
        if tests is not None:
            cases = cases[cases.split == ("test" if tests else "train")].reset_index(drop=True)
        answers = stand_in.place(dataset, cases, place, labels=not tests)
        write_json(place / synthetic.MARKER, {"stands_in_for": dataset.name})  # no line in a ledger
        if len(answers):
            self.answers = answers
        counts = cases.split.value_counts()
        return ", ".join(f"{counts[name]} {name}" for name in ("train", "test") if name in counts)

    def environment(self) -> Path:
        """Return where the programs of a Python without the kit are, made at the first call."""
        place = self.root / "python"
        if not place.is_dir():
            bare.environment(place)
        return place / "bin"

    def run(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str],
        read_only: Sequence[Path], what: str, remedy: str = LAST_LINES,
        programs: Path | None = None, code: Path | None = None,
    ) -> bare.Done:  # fmt: skip
        """Run a command in the bare root; see `kit.rehearsal.bare.run`.

        Raises:
            KitError: It failed or was too slow: `what` it is, its last words, and the remedy that
                it gives itself, or else the one that is given here.
        """
        done = bare.run(
            command, root=self.root, cwd=cwd, seconds=self.left(), env=env, programs=programs,
            code=code, read_only=read_only,
        )  # fmt: skip
        self.memory = max(self.memory, done.megabytes)
        if done.code is None:
            raise KitError(
                f"{what} was stopped when the rehearsal's time was up",
                received=f"after {done.seconds:.0f} s of its own", remedy=LATE,
            )  # fmt: skip
        if done.code:
            said, _, own = done.last().rpartition("Remedy: ")
            remedy = own if said else remedy
            if bare.wanted_network(done):
                remedy = f"nothing may be fetched: {self.platform} gives no network here"
            raise KitError(
                f"{what} failed with code {done.code}", received=said or own, remedy=remedy
            )
        return done

    def score(self, path: Path) -> str:
        """Read the platform's file back, and score it by the challenge's own scorer."""
        style, data = self.challenge.style, self.challenge.dataset
        submission.validate(path, style, list(self.answers.case_id), data.classes)
        rows = pd.read_csv(
            path, sep=style.separator, dtype=str, header=0 if style.header else None,
            names=None if style.header else [style.id_column, style.value_column],
        )  # fmt: skip
        answers = pd.DataFrame({
            style.id_column: self.answers.case_id + style.suffix, "truth": self.answers.label,
        })  # fmt: skip
        both = answers.merge(rows, on=style.id_column, validate="1:1")
        codes = {dict(style.codes).get(name, name): n for n, name in enumerate(data.classes)}
        truth = both.truth.map(list(data.classes).index).to_numpy()
        if style.value == "probability":
            prob = both[style.value_column].astype(float).to_numpy()
            given = (prob >= 0.5).astype(int)
        else:
            given = both[style.value_column].map(codes).to_numpy()
            name = f"prob_{data.positive}"
            prob = both[name].astype(float).to_numpy() if name in both else given.astype(float)
        return self.judged(truth, given, prob)

    def judged(self, truth: np.ndarray, given: np.ndarray, prob: np.ndarray) -> str:
        """Return the official score of codes, decided codes and positive probabilities, in words.

        Raises:
            SubmissionError: The score is no number.
        """
        positive = self.challenge.dataset.positive
        if positive is not None:  # of two, 1 is the positive class
            one = list(self.challenge.dataset.classes).index(positive)
            truth, given = (truth == one).astype(int), (given == one).astype(int)
        official = self.challenge.official
        name, value = "accuracy", float(np.mean(truth == given))
        if official is not None:
            name, value = official.name, official(truth, given, prob)
        if not np.isfinite(value):
            raise SubmissionError("the official score is no number", received=str(value))
        return f"{name} {value:.4f} on {len(truth)} drawn cases (it says nothing of patients)"


def because(error: KitError, remedy: str) -> KitError:
    """Return an error with the remedy of the step, which knows the reason, in place of its own."""
    return KitError(error.what, expected=error.expected, received=error.received, path=error.path,
                    remedy=remedy)  # fmt: skip
