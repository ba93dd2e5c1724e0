"""The contract of a laptop: a run in a fresh process, resumed, and applied to later data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import kit
from kit.errors import KitError
from kit.files import sha256
from kit.rehearsal import bare, estimate
from kit.rehearsal.scene import Scene


def steps(scene: Scene) -> Sequence[tuple[str, Callable[[], str]]]:
    """Return the steps of the contract, each a name and what is done."""
    stage = Laptop(scene)
    return [
        ("data", stage.lay_out), ("run", stage.train), ("resume", stage.resume),
        ("predict", stage.predict), ("score", stage.score),
        ("estimate", lambda: estimate.make(scene)),
    ]  # fmt: skip


class Laptop:
    """The bare root as a project's folder."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.root = scene, scene.root
        self.out, self.answer = scene.root / "run", scene.root / "later.csv"
        place = scene.challenge.dataset.roots["local"]
        self.data, self.later = scene.root / "data", scene.root / "later"
        self.inputs, self.tests = self.data / place, self.later / place

    def lay_out(self) -> str:
        """Draw the cases, and lay them out; the later data are the test cases without labels."""
        self.scene.draw()
        said = self.scene.lay_out(self.inputs)
        self.scene.lay_out(self.tests, tests=True)
        return said

    def train(self) -> str:
        """Run `kit run` to its submission."""
        done = self._run("run", self.scene.challenge.name, "--data", "data", "--out", "run",
                         "--workers", "0", *self.scene.tiny)  # fmt: skip
        return f"submission and report after {done.seconds:.0f} s"

    def resume(self) -> str:
        """Give the same command again: nothing is made anew."""
        before = sha256(self.out / "submission.csv"), _times(self.out / "models")
        done = self._run("run", self.scene.challenge.name, "--data", "data", "--out", "run",
                         "--workers", "0", *self.scene.tiny)  # fmt: skip
        if (sha256(self.out / "submission.csv"), _times(self.out / "models")) != before:
            raise KitError(
                "the same command trained again", path=self.out,
                remedy="the run's folder must lie where files keep their times",
            )  # fmt: skip
        return f"what stands was taken as it is, {done.seconds:.0f} s"

    def predict(self) -> str:
        """Apply the run to the later data, in a new process."""
        done = self._run("predict", "run", "--data", "later", "--out", self.answer.name)
        return f"{len(self.scene.answers)} cases, {done.seconds:.0f} s"

    def score(self) -> str:
        """Score the answer with the challenge's own scorer."""
        return self.scene.score(self.answer)

    def _run(self, *arguments: str) -> bare.Done:
        return self.scene.run(
            ["python", "-m", "kit", *arguments], cwd=self.root, env={"KIT_PLATFORM": "local"},
            read_only=[self.data, self.later], what=f"kit {arguments[0]}",
            code=Path(kit.__file__).parents[1],
        )  # fmt: skip


def _times(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(folder.glob("*.keras"))]
