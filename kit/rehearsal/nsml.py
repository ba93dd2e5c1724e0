"""NSML's contract, against a stand-in for its package (`_nsml_stand_in`): NSML itself is closed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kit
from kit import bundles, platforms
from kit.challenges import real
from kit.errors import KitError
from kit.files import write_json, write_text
from kit.platforms._nsml_run import refuse_kind
from kit.rehearsal import bare, estimate
from kit.rehearsal.scene import LAST_LINES, Scene, because

STAND_IN = Path(__file__).with_name("_nsml_stand_in.py")
CONSTANTS = "from nsml import DATASET_NAME, DATASET_PATH, GPU_NUM, HAS_DATASET, IS_ON_NSML\n"
CHECKPOINT = "complete"
LONGER = ("--set", "epochs=30", "--set", "ema=0")
"""So that the networks, which learn from a handful of images, say different things of the tests."""
ORDER = ["bind", "paused", "report", "save"]


def steps(scene: Scene) -> Sequence[tuple[str, Callable[[], str]]]:
    """Return the steps of the contract, each a name and what is done."""
    stage = Sessions(scene)
    return [
        ("data", stage.lay_out), ("upload", stage.upload), ("train", stage.train),
        ("order", stage.order), ("figures", stage.figures), ("checkpoint", stage.checkpoint),
        ("submit", stage.submit), ("evaluation", stage.evaluate),
        ("an older stub", stage.older), ("estimate", lambda: estimate.make(scene)),
    ]  # fmt: skip


class Sessions:
    """The sessions of NSML: one that trains, and those that are made at submit."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.root = scene, scene.root
        self.uploaded, self.hidden = scene.root / "upload", scene.root / "hidden"
        self.tests, self.kept = scene.root / "tests", scene.root / "checkpoints"
        self.log, self.output = scene.root / "log.jsonl", scene.root / "predictions.txt"

    def lay_out(self) -> str:
        """Draw the cases; the training folder stays hidden, the tests are the organisers'."""
        refuse_kind(self.scene.challenge.dataset)
        self.scene.draw()
        place = self.scene.challenge.dataset.roots["nsml"]
        said = self.scene.lay_out(self.hidden / place, tests=False)
        self.scene.lay_out(self.tests, tests=True)
        return f"{said}, hidden until `paused` returns; {len(self.scene.answers)} test"

    def upload(self) -> str:
        """Take what `nsml run` uploads: what `.nsmlignore` does not keep back."""
        made = bundles.make("nsml", self.scene.challenge.name, self.uploaded)
        return f"{len(made.files)} files, {made.bytes / 1e6:.2f} MB without weights"

    def train(self) -> str:
        """Run main.py as a session does."""
        shutil.rmtree(self.kept, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        done = self._main("train", "train", CHECKPOINT, *self.scene.tiny, *LONGER)
        return f"main.py --mode train trained and saved, {done.seconds:.0f} s"

    def order(self) -> str:
        """Compare the order of the calls with NSML's."""
        found = self._calls()
        if found != ORDER:
            raise KitError(
                "the hooks were called in another order", expected=", ".join(ORDER),
                received=", ".join(found),
                remedy="main.py: parse, build, bind, paused, then data",
            )  # fmt: skip
        return ", ".join(found)

    def figures(self) -> str:
        """Look at what was reported; that it is JSON the stand-in has seen to."""
        values = next(line["values"] for line in self._log() if line["what"] == "report")
        if not values:
            raise KitError("no figure was reported", remedy="nsml.report(summary=True, ...)")
        return ", ".join(f"{name} {value:.3f}" for name, value in values.items())

    def checkpoint(self) -> str:
        """Look at what `save` wrote."""
        files = [path for path in self.kept.rglob("*") if path.is_file()]
        size = sum(p.stat().st_size for p in files if p.parent != self.kept) / 1e6
        if not any(path.suffix == ".keras" for path in files):
            raise KitError("save wrote no network", path=self.kept / CHECKPOINT,
                           remedy="save must write into the folder that it is given")  # fmt: skip
        if size > platforms.MOST_MB:
            raise KitError(
                "the model is too large for NSML", expected=f"at most {platforms.MOST_MB:.0f} MB",
                received=f"{size:.0f} MB", remedy="save networks and settings, and nothing else",
            )  # fmt: skip
        self.scene.run(
            ["python", "-m", "kit.rehearsal._nsml_threshold", str(self.kept), CHECKPOINT,
             str(self.tests)],
            cwd=self.root, env={}, read_only=[self.tests], what="predicting with what save wrote",
            remedy="save must write what a prediction needs", code=Path(kit.__file__).parents[1],
        )  # fmt: skip
        levelled = "; its threshold is put between the tests' answers, so that they differ"
        two = self.scene.challenge.dataset.positive is not None
        return f"{size:.2f} MB of {platforms.MOST_MB:.0f} MB{levelled if two else ''}"

    def submit(self) -> str:
        """Submit: a fresh process with the upload and the checkpoint, and nothing else."""
        self._main("submit", "test", CHECKPOINT, remedy="load must restore what save wrote")
        told = self._log()[-1]
        seconds = float(told["seconds"])
        given = "full-size BGR arrays" if self._arrays else "paths"
        if seconds > platforms.INFERENCE:
            raise KitError("infer took too long", received=f"{told['seconds']:.0f} s",
                           expected=f"at most {platforms.INFERENCE:.0f} s",
                           remedy="fewer or smaller networks")  # fmt: skip
        if told["numbers"] < 2:
            raise KitError(
                "the same answer for every image: whether infer keeps their order is not seen",
                received=f"{told['images']} {given}", expected="two answers that differ",
                remedy="look at infer; if it is right, the tiny networks learnt nothing: "
                "try again",
            )  # fmt: skip
        return f"{told['images']} {given} answered in order, {told['seconds']:.0f} s"

    def evaluate(self) -> str:
        """Run the evaluation in a process of its own: it prints one float."""
        truth = self.root / "truth.txt"
        answers = self.scene.answers
        lines = zip(answers.case_id, answers.label, strict=True)
        write_text(truth, "".join(f"{case} {label}\n" for case, label in lines))
        done = self.scene.run(
            ["python", "-m", "kit.rehearsal._nsml_evaluation", self.scene.challenge.name,
             str(self.output), str(truth)],
            cwd=self.root, env={}, read_only=[], what="the evaluation",
            remedy="infer must give the challenge's own numbers",
            code=Path(kit.__file__).parents[1],
        )  # fmt: skip
        try:
            value = float(done.out)
        except ValueError as error:
            raise KitError("the evaluation must print one float", received=done.out) from error
        return f"prints {value:g} (drawn data: it says nothing of patients)"

    def older(self) -> str:
        """Submit once more, with an older stub: a file's name, and no `nsml.constants`."""
        before = self.output.read_text(encoding="utf-8")
        self._main("older", "test", f"{CHECKPOINT}.model", older=True,
                   remedy="save and load must also take the name of a file")  # fmt: skip
        if self.output.read_text(encoding="utf-8") != before:
            raise KitError("an older stub gave other answers", path=self.output,
                           remedy="both ways must keep the same networks")  # fmt: skip
        return "a file's name instead of a folder, no nsml.constants: the same answers"

    @property
    def _arrays(self) -> bool:
        """Whether infer is given arrays, as photographs were in 2019, or paths, as in 2020."""
        return self.scene.challenge.dataset.kind == "images"

    def _main(
        self, session: str, mode: str, checkpoint: str, *arguments: str,
        remedy: str = LAST_LINES, older: bool = False,
    ) -> bare.Done:  # fmt: skip
        """Run main.py in a new folder that holds the upload alone."""
        place, dataset = self.root / session, self.root / f"dataset_{session}"
        site = self.root / f"site_{session}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.uploaded, place)
        dataset.unlink(missing_ok=True)
        write_text(site / "nsml" / "__init__.py", STAND_IN.read_text(encoding="utf-8"))
        if not older:
            write_text(site / "nsml" / "constants.py", CONSTANTS)
        awaited = real(self.scene.challenge.name)
        write_json(site / "session.json", {
            "job": "train" if mode == "train" else "submit", "name": self.scene.challenge.name,
            "dataset": str(dataset), "hidden": str(self.hidden), "log": str(self.log),
            "checkpoints": str(self.kept), "checkpoint": checkpoint, "output": str(self.output),
            "tests": self._tests(), "arrays": self._arrays,
            "size": awaited.size if awaited else None,
        })  # fmt: skip
        command = ["python", "main.py", "--mode", mode, "--iteration", checkpoint, "--pause", "1"]
        before = len(self._calls())
        try:
            return self.scene.run(
                [*command, *arguments], cwd=place, read_only=[self.hidden, self.tests],
                env={"NSML_STAND_IN": str(site / "session.json")}, what=f"main.py --mode {mode}",
                remedy=remedy, code=site, programs=self.scene.environment(),
            )  # fmt: skip
        except KitError as error:
            if "paused" in self._calls()[before:] or str(dataset) not in str(error.received):
                raise
            raise because(error, "nothing may be read before nsml.paused is called") from error

    def _tests(self) -> list[tuple[str, str]]:
        """Return key and path of each test image."""
        dataset = self.scene.challenge.dataset
        paths = dataset.cases(root=self.tests, labels=False).set_index("case_id").path
        return [(case, str(self.tests / paths[case])) for case in self.scene.answers.case_id]

    def _calls(self) -> list[str]:
        """Return the names of the calls, in order."""
        return [str(line["what"]) for line in self._log()] if self.log.is_file() else []

    def _log(self) -> list[dict[str, Any]]:
        """Return what the stand-in noted, in order."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
