"""The contract of a competition's container, by the very scripts that the image gets.

There is no engine in it: the scripts run in a bare root folder, in processes without network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kit import bundles
from kit.bundles import parts
from kit.errors import BundleError, KitError, SubmissionError
from kit.rehearsal import bare, estimate
from kit.rehearsal.scene import LAST_LINES, Scene, because

SCRIPTS = ("train.sh", "inference.sh")
OWN = ("model", "output")
"""What a container writes below /data; all else there are inputs."""
DAMAGE = b"no slide any more"


def steps(scene: Scene) -> Sequence[tuple[str, Callable[[], str]]]:
    """Return the steps of the contract, each a name and what is done."""
    stage = Container(scene)
    slides = scene.challenge.dataset.kind == "slides"
    return [
        ("data", stage.lay_out), ("bundle", stage.bundle), ("scripts", stage.scripts),
        ("install", stage.install), ("train", stage.train), ("inference", stage.infer),
        ("score", stage.score), *([("a slide that fails", stage.fail)] if slides else []),
        ("a damaged model", stage.refuse), ("estimate", lambda: estimate.make(scene)),
    ]  # fmt: skip


class Container:
    """The bare root as a container sees it: /work with the bundle, and /data."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.root = scene, scene.root
        self.work, self.data = scene.root / "work", scene.root / "data"
        self.inputs = self.data / scene.challenge.dataset.roots.get("docker", ".")
        self.model = self.data / "model" / scene.challenge.name
        self.answer = self.data / "output" / "output.csv"

    def lay_out(self) -> str:
        """Draw the cases, and lay them out as the training container sees them."""
        self.scene.draw()
        for name in OWN:
            (self.data / name).mkdir(parents=True, exist_ok=True)
        return f"/data: {self.scene.lay_out(self.inputs)}"

    def bundle(self) -> str:
        """Write the bundle."""
        made = bundles.make("docker", self.scene.challenge.name, self.work, train=True)
        return f"{len(made.files)} files, {made.bytes / 1e6:.2f} MB"

    def scripts(self) -> str:
        """Read the scripts as Linux does, and the Dockerfile for what is not pinned."""
        for name in SCRIPTS:
            data, path = (self.work / name).read_bytes(), self.work / name
            _demand(b"\r" not in data, "line ends are CRLF", path, "save it with LF line ends")
            _demand(data.isascii() or _is_utf8(data), "not UTF-8", path, "save it as UTF-8")
            _demand(b"set -euo pipefail" in data, "a failed line would not stop the script", path,
                    "set -euo pipefail in its first lines")  # fmt: skip
            _demand(os.access(path, os.X_OK), "not executable", path, f"chmod +x {name}")
        image = (self.work / "Dockerfile").read_text(encoding="utf-8")
        base = next(line for line in image.splitlines() if line.startswith("FROM "))
        pinned = base.count(":") == 1 and not base.endswith(":latest")
        _demand(
            pinned, "the base image is not pinned", self.work / "Dockerfile", "name its version"
        )
        loose = [line for line in (self.work / "requirements.txt").read_text().splitlines()
                 if "==" not in line]  # fmt: skip
        _demand(not loose, f"not pinned: {', '.join(loose)}", self.work / "requirements.txt",
                "package==version in each line")  # fmt: skip
        return f"LF, UTF-8, executable, stop at the first error; {base[5:]}, packages pinned"

    def install(self) -> str:
        """Do what the Dockerfile's last RUN does: compare checksums, install the wheel."""
        parts.check_sums(self.work)
        wheel = next(self.work.glob("*.whl")).name
        self._run(["python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel],
                  "the kit's installation", "make the bundle again")  # fmt: skip
        place = self._run(["python", "-c", "import kit; print(kit.__file__)"], "import kit",
                          "make the bundle again").out.strip()  # fmt: skip
        inside = Path(place).is_relative_to(self.root)
        _demand(inside, "another kit than the bundle's is imported", Path(place), "see PYTHONPATH")
        return f"{wheel}, {_cut_off()}; no Docker engine takes part"

    def train(self) -> str:
        """Run train.sh with tiny networks."""
        done = self._run(["./train.sh", "--workers", "0", *self.scene.tiny], "train.sh")
        _demand((self.model / "ensemble.json").is_file(), "train.sh left no model", self.model,
                "it must write below KIT_MODEL")  # fmt: skip
        return f"networks in /data/model after {done.seconds:.0f} s; inputs were left alone"

    def infer(self) -> str:
        """Run inference.sh in a new process, without the training data."""
        for path in self._inputs():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.scene.lay_out(self.inputs, tests=True)
        done = self._inference()
        return f"{len(self.scene.answers)} cases in /data/output/output.csv, {done.seconds:.0f} s"

    def score(self) -> str:
        """Score the output with the challenge's own scorer."""
        return self.scene.score(self.answer)

    def fail(self) -> str:
        """Damage a slide: it is named, has the stated score, and the file is complete."""
        case = str(self.scene.answers.case_id.iloc[0])
        cases = self.scene.challenge.dataset.cases(labels=False, root=self.inputs)
        broken = self.inputs / cases.set_index("case_id").path[case]
        broken.write_bytes(DAMAGE)
        remedy = "inference.sh must hand --failed-score to kit predict"
        try:
            done = self._inference()
        except KitError as error:
            if broken.name not in str(error.received):  # it stopped for another reason
                raise
            raise because(error, remedy) from error
        self.scene.score(self.answer)  # raises where a case is missing
        stated = [line for line in self.answer.read_text(encoding="utf-8").splitlines()
                  if line.startswith(f"{case},")]  # fmt: skip
        if stated != [f"{case},0.5"] or broken.name not in done.err:
            raise SubmissionError(
                "a slide that cannot be read is not told", expected=f"{case},0.5 and its name",
                received=f"{', '.join(stated) or 'no line'}; said: {done.last()}",
                remedy=remedy,
            )  # fmt: skip
        return f"{broken.name} is named and has 0.5; the file is complete"

    def refuse(self) -> str:
        """Damage a network: inference refuses in one line and writes nothing."""
        self.answer.unlink(missing_ok=True)
        network = next(self.model.rglob("*.keras"))
        network.write_bytes(network.read_bytes()[:-1] + b"?")
        done = bare.run(["./inference.sh"], root=self.root, cwd=self.work, env={},
                        seconds=self.scene.left(), programs=self.scene.environment())  # fmt: skip
        refused = done.code == 2 and done.err.strip().count("\n") == 0
        if not refused or self.answer.exists():
            raise KitError(
                "a damaged model was not refused", path=network, expected="one line and code 2",
                received=f"code {done.code}: {done.last()}",
                remedy="inference.sh must begin with kit self-check",
            )  # fmt: skip
        return f"refused in one line after {done.seconds:.0f} s"

    def _inference(self) -> bare.Done:
        self.answer.unlink(missing_ok=True)
        done = self._run(["./inference.sh"], "inference.sh")
        _demand(self.answer.is_file(), "inference.sh wrote no output", self.answer,
                "it must write /data/output/output.csv")  # fmt: skip
        return done

    def _inputs(self) -> list[Path]:
        return [path for path in sorted(self.data.iterdir()) if path.name not in OWN]

    def _run(self, command: Sequence[str], what: str, remedy: str = LAST_LINES) -> bare.Done:
        return self.scene.run(
            command, cwd=self.work, env={}, read_only=self._inputs(), what=what, remedy=remedy,
            programs=self.scene.environment(),
        )  # fmt: skip


def _cut_off() -> str:
    if bare.isolation() == "namespaces":
        return "in processes of their own, an empty network, inputs mounted read-only"
    return "in fresh processes whose sockets refuse to connect, inputs compared before and after"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _demand(good: bool, what: str, path: Path, remedy: str) -> None:
    if not good:
        raise BundleError(what, path=path, remedy=remedy)
