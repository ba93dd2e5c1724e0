"""Run a Kaggle bundle's notebook as Kaggle does: below a /kaggle-like root, with no kit installed.

Usage: python tools/on_kaggle.py [CHALLENGE [WORK]] [--train]

The Python that runs this says which versions (`make test-kaggle`: 3.12 with the image's). A run on
drawn data is bundled, inputs are laid out as Kaggle mounts them and made read-only, and the
notebook runs in an environment with every package of this one but the kit, without network: the
attached wheel brings it. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

OWNER = "some-one"
GUARD = """
import socket

def guarded(real):
    def call(self, address, *rest):
        local = str(address[0]).startswith("127.") or address[0] in ("localhost", "::1", "")
        if self.family in (socket.AF_INET, socket.AF_INET6) and not local:
            raise OSError(f"no network here: {address}")
        return real(self, address, *rest)
    return call

for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
"""


def environment(folder: Path) -> Path:
    """Make a virtual environment of this one's packages without the kit; return its Python."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.check_output([python, "-c", asked], text=True).strip())
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        ours = path.name.startswith(("kit_medical", "_editable_impl_kit", "__editable__"))
        if path.name != "kit" and not ours and not (own / path.name).exists():
            (own / path.name).symlink_to(path)
    (own / "sitecustomize.py").write_text(GUARD)
    return python


def mount(bundle: Path, inputs: Path, data: dict[str, Path], *, sorted_by_kind: bool) -> None:
    """Lay the bundle's dataset and the data out as Kaggle mounts them, read-only.

    Args:
        bundle: The push folder.
        inputs: `/kaggle/input`.
        data: Folder of each further dataset, by its slug.
        sorted_by_kind: Whether below `datasets/<owner>`, as newer images have them.
    """
    identity = json.loads((bundle / "dataset" / "dataset-metadata.json").read_text())["id"]
    base = inputs / "datasets" / OWNER if sorted_by_kind else inputs
    for slug, source in {identity.split("/")[1]: bundle / "dataset", **data}.items():
        shutil.copytree(source, base / slug)
        (base / slug / "dataset-metadata.json").unlink(missing_ok=True)  # it is not uploaded
    for path in sorted(inputs.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)


def release(inputs: Path) -> None:
    """Let mounted inputs be deleted again."""
    for path in [inputs, *inputs.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def execute(notebook: Path, root: Path, python: Path, *, smoke: bool, **environ: str) -> float:
    """Run a notebook with a Python below a root as Kaggle does; return its seconds.

    Args:
        notebook: The bundle's.
        root: Below it lie /kaggle/input and /kaggle/working.
        python: Of an environment without the kit.
        smoke: Whether its parameter SMOKE is set: small settings where it trains.
        environ: Further variables.

    Raises:
        RuntimeError: It failed; with the last lines of what it said.
    """
    working = root / "kaggle" / "working"
    working.mkdir(parents=True, exist_ok=True)
    kernels = root / "jupyter"
    spec = kernels / "kernels" / "python3"
    spec.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "Python 3",
                                                  "language": "python"}))  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept |= {"JUPYTER_PATH": str(kernels), "KIT_ROOT": str(root), "HOME": str(root),
             "KAGGLE_KERNEL_RUN_TYPE": "Batch", "PYTHONNOUSERSITE": "1", **environ}  # fmt: skip
    command = [str(python), "-m", "papermill", str(notebook), str(root / "executed.ipynb"),
               "--cwd", str(working), "--kernel", "python3", "--no-progress-bar",
               "-p", "SMOKE", str(smoke)]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-12:]))
    return time.monotonic() - begun


def main() -> int:
    """Make a run, bundle it, and run the bundle's notebook; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("challenge", nargs="?", default="synthetic_patches")
    parser.add_argument("work", nargs="?", help="folder to work in and keep")
    parser.add_argument("--train", action="store_true", help="train there, attach no networks")
    given = parser.parse_args()
    place = given.work or tempfile.mkdtemp(prefix="kit-on-kaggle-")
    print(json.dumps(rehearse(given.challenge, Path(place), trains=given.train)))
    if not given.work:
        release(Path(place) / "root" / "kaggle" / "input")
        shutil.rmtree(place)
    return 0


def rehearse(challenge: str, work: Path, *, trains: bool = False) -> dict[str, Any]:
    """Return what came of a bundle that was run as on Kaggle."""
    from kit import bundles
    from kit.challenges import open_run
    from kit.files import sha256

    work = work.resolve()
    run = open_run(challenge, smoke=True, out=work / "run")
    run.submission()
    made = bundles.make(
        "kaggle", challenge, work / "bundle", run=None if trains else run.out, train=trains,
        owner=OWNER,
    )  # fmt: skip
    inputs = work / "root" / "kaggle" / "input"
    roots = run.dataset.roots["kaggle"].removeprefix("/kaggle/input/").split("/")
    folder = work / "data" / roots[0]
    shutil.copytree(run.root, folder.joinpath(*roots[1:]))
    mount(made.folder, inputs, {roots[0]: folder}, sorted_by_kind=not trains)
    seconds = execute(
        made.folder / "notebook.ipynb", work / "root", environment(work / "venv"),
        smoke=trains, KIT_HOURS=".2",
    )  # fmt: skip
    submission = work / "root" / "kaggle" / "working" / "submission.csv"
    return {
        "challenge": challenge, "python": sys.version.split()[0], "trains": trains,
        "seconds": round(seconds, 1), "bundle_bytes": made.bytes,
        "lines": len(submission.read_text().splitlines()), "submission": sha256(submission)[:16],
        "metrics": _metrics(work),
    }  # fmt: skip


def _metrics(work: Path) -> dict[str, Any]:
    """Return the figures of the runs that were trained, here and there."""
    found = sorted(work.glob("run/metrics.json")) + sorted(
        (work / "root" / "kaggle" / "working").rglob("metrics.json")
    )
    keys = ("auc", "mean_of_six")
    return {
        path.parent.relative_to(work).as_posix(): {
            key: json.loads(path.read_text())[key] for key in keys
        }
        for path in found
    }


if __name__ == "__main__":
    sys.exit(main())
