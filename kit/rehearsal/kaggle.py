"""Kaggle's contract: the push folder, and its notebook below a root like Kaggle's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import kit
from kit import bundles, mounts
from kit._submission_rows import is_number
from kit.bundles import lint
from kit.bundles.push import Push
from kit.errors import BundleError, SubmissionError
from kit.files import read_json, write_json
from kit.rehearsal import bare, estimate
from kit.rehearsal.scene import Scene

OWNER = "some-one"
FEW = 2
"""Rows of the stub that a hidden test set replaces."""
MOST_WHEEL, MOST_SECONDS = 1.0, 30.0  # MB, s
DIGITS = 1e-5
AGAIN = "from kit.bundles import there; there.answer({challenge!r})"


def steps(scene: Scene) -> Sequence[tuple[str, Callable[[], str]]]:
    """Return the steps of the contract, each a name and what is done."""
    stage = Notebook(scene)
    return [
        ("data", stage.lay_out), ("run", stage.train), ("bundle", stage.bundle),
        ("rules", stage.rules), ("inputs", stage.mount), ("notebook", stage.execute),
        ("score", stage.score), ("a hidden test", stage.fewer),
        ("estimate", lambda: estimate.make(scene)),
    ]  # fmt: skip


class Notebook:
    """The bare root with /kaggle/input and /kaggle/working."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.root = scene, scene.root
        self.push, self.run, self.data = (
            scene.root / "push",
            scene.root / "run",
            scene.root / "data",
        )
        self.inputs, self.working = (scene.root / "kaggle" / name for name in ("input", "working"))
        self.answer = self.working / "submission.csv"

    def lay_out(self) -> str:
        """Draw the cases, and lay the training cases out for a run here."""
        self.scene.draw()
        place = self.data / self.scene.challenge.dataset.roots["local"]
        return self.scene.lay_out(place, tests=False)

    def train(self) -> str:
        """Make the finished run whose networks travel."""
        done = self.scene.run(
            ["python", "-m", "kit", "run", self.scene.challenge.name, "--data", "data", "--out",
             "run", "--workers", "0", *self.scene.tiny],
            cwd=self.root, env={"KIT_PLATFORM": "local"}, read_only=[self.data], what="kit run",
            code=Path(kit.__file__).parents[1],
        )  # fmt: skip
        return f"a tiny run, here, {done.seconds:.0f} s"

    def bundle(self) -> str:
        """Write the push folder."""
        made = bundles.make(
            "kaggle", self.scene.challenge.name, self.push, run=self.run, owner=OWNER
        )
        return f"{len(made.files)} files, {made.bytes / 1e6:.2f} MB"

    def rules(self) -> str:
        """Hold the folder against every rule of Kaggle's, and the wheel against its size."""
        lint.refuse(lint.lint(self.push))
        size = next(self.push.rglob("*.whl")).stat().st_size / 1e6
        if size > MOST_WHEEL:
            raise BundleError("the wheel is too large", received=f"{size:.1f} MB",
                              expected=f"at most {MOST_WHEEL:.0f} MB")  # fmt: skip
        return f"all {len(lint.RULES)} rules kept; internet off; the wheel has {size:.2f} MB"

    def mount(self) -> str:
        """Lay data and bundle out as newer images mount them."""
        push = Push(self.push)
        name = str(push.dataset["id"])
        slug = name.split("/")[1]
        if name not in push.sources("dataset_sources"):
            raise _unattached(name)
        attached = self.inputs / "datasets" / OWNER / slug
        shutil.rmtree(attached, ignore_errors=True)
        shutil.copytree(push.attached, attached)
        (attached / "dataset-metadata.json").unlink()  # it is not uploaded
        self.working.mkdir(parents=True, exist_ok=True)
        return f"/kaggle/input: {attached.name} and {self._mount_data()}"

    def _mount_data(self) -> str:
        """Mount the drawn data, and the few rows that a hidden test set may begin as."""
        path = mounts.below(self.scene.challenge.dataset.roots["kaggle"])
        slug, *rest = path.split("/")
        push = Push(self.push)
        named = [source.split("/")[-1] for source in push.sources("dataset_sources")]
        competition = slug in push.sources("competition_sources")
        if not competition and slug not in named and not self.scene.challenge.dataset.synthetic:
            raise _unattached(slug)
        kind = "competitions" if competition else f"datasets/{OWNER}"
        place = self.inputs / kind / slug
        shutil.rmtree(place, ignore_errors=True)
        said = self.scene.lay_out(place.joinpath(*rest), tests=True)
        return f"{slug} with {said}"

    def execute(self) -> str:
        """Run the notebook, without network, where no kit is installed but the attached wheel."""
        spec = self.root / "jupyter" / "kernels" / "python3"
        programs = self.scene.environment()
        start = [str(programs / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        write_json(spec / "kernel.json", {
            "argv": start, "display_name": "Python 3", "language": "python",
        })  # fmt: skip
        notebook = self.push / Push(self.push).kernel["code_file"]
        done = self._there(
            ["python", "-m", "papermill", str(notebook), str(self.root / "executed.ipynb"),
             "--cwd", str(self.working), "--kernel", "python3", "--no-progress-bar"],
            "the notebook",
        )  # fmt: skip
        if not self.answer.is_file():
            raise SubmissionError("the notebook wrote no submission", path=self.answer,
                                  remedy="its last cell must hand the submission in")  # fmt: skip
        cells = read_json(self.root / "executed.ipynb")["cells"]
        return f"{len(cells)} cells, /kaggle/working/submission.csv after {done.seconds:.0f} s"

    def score(self) -> str:
        """Score the submission with the challenge's own scorer."""
        return self.scene.score(self.answer)

    def fewer(self) -> str:
        """Mount two test cases instead: their rows must be the same.

        They are those in the middle of the answers: as two they would be the highest and the
        lowest, so that ranks and what is scaled by the others are seen.
        """
        before, cases = self._rows(), self.scene.cases
        ids = self.scene.answers.case_id + self.scene.challenge.style.suffix
        ranked = sorted(
            zip(ids, self.scene.answers.drawn, strict=True),
            key=lambda pair: _order(before[pair[0]]),
        )
        first = (len(ranked) - FEW) // 2
        chosen = [case for _, case in ranked[first : first + FEW]]
        self.scene.cases = cases[cases.case_id.isin(chosen)].reset_index(drop=True)
        self._mount_data()
        self.scene.cases = cases
        self.answer.unlink()
        code = AGAIN.format(challenge=self.scene.challenge.name)
        self._there(["python", "-c", code], "the prediction of two rows")
        after = self._rows()
        known = set(after) <= set(before) and len(after) == FEW
        if not (known and all(_alike(after[name], before[name]) for name in after)):
            raise SubmissionError(
                "two rows get other answers than the same rows among more", path=self.answer,
                expected={name: before.get(name) for name in after}, received=after,
                remedy="nothing may be learnt from the test set or its size",
            )  # fmt: skip
        return f"{FEW} rows get the answers that they had among {len(before)}"

    def _rows(self) -> dict[str, list[str]]:
        """Return the values of each case in the submission."""
        style = self.scene.challenge.style
        lines = self.answer.read_text(encoding="utf-8").splitlines()[int(style.header) :]
        rows = [line.split(style.separator) for line in lines]
        return {name: values for name, *values in rows}

    def _there(self, command: Sequence[str], what: str) -> bare.Done:
        return self.scene.run(
            command, cwd=self.working, read_only=[self.inputs], what=what,
            env={"KAGGLE_KERNEL_RUN_TYPE": "Batch", "JUPYTER_PATH": str(self.root / "jupyter")},
            remedy="see the last lines, and executed.ipynb with --keep DIR",
            programs=self.scene.environment(),
        )  # fmt: skip


def _unattached(name: str) -> BundleError:
    return BundleError(
        "not attached to the notebook", received=name, expected="it is among the sources",
        remedy="make the bundle again, with the manifest's source and roots: {kaggle: ...} right",
    )  # fmt: skip


def _order(values: Sequence[str]) -> list[float]:
    """Return what sorts answers: their numbers, the last first; a label is none."""
    found = [float(value) if is_number(value) else 0.0 for value in values]
    return found[::-1]


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether values agree; numbers to the digits that a batch of another size moves."""

    def same(a: str, b: str) -> bool:
        try:
            return abs(float(a) - float(b)) < DIGITS
        except ValueError:
            return a == b

    return all(map(same, one, other))
