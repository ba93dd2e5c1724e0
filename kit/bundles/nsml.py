"""NSML's upload: main.py, setup.py, the kit and the manifest; no weights, for NSML trains."""

from __future__ import annotations

import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path

from kit.bundles import Options
from kit.challenge import Challenge
from kit.errors import BundleError
from kit.manifest import home, load_manifest
from kit.platforms._nsml_run import refuse_kind

MOST_MB = 5.0
ENTRY, NEEDED = "main.py", ("main.py", "setup.py", "data_manifest.yaml", "kit")
IGNORED = ".nsmlignore"


def fill(folder: Path, challenge: Challenge, options: Options) -> None:
    """Write what `nsml run` uploads.

    Raises:
        BundleError: The project's folder lacks a file that belongs to it.
        KitError: NSML's `infer` cannot be asked for this kind of data.
    """
    refuse_kind(challenge.dataset)
    if options.run is not None:
        raise BundleError(
            "no network travels to NSML: it is trained there", received=f"--run {options.run}",
            remedy='leave --run out; settings go to nsml run -a "--set KEY=VALUE"',
        )  # fmt: skip
    project = home(load_manifest().path)
    missing = [name for name in (*NEEDED, IGNORED) if not (project / name).exists()]
    if missing:
        raise BundleError("the project's folder is not whole", path=project,
                          received=f"without {', '.join(missing)}",
                          remedy="work in a clone of the project")  # fmt: skip
    for path in uploaded(project):
        target = folder / path.relative_to(project)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    main = folder / ENTRY
    text = main.read_text(encoding="utf-8")
    main.write_text(
        text.replace('default="khd2020"', f'default="{challenge.name}"'), encoding="utf-8"
    )
    shutil.copy(project / IGNORED, folder / IGNORED)


def uploaded(project: Path) -> list[Path]:
    """Return the files of a folder that `.nsmlignore` does not keep back, sorted."""
    lines = (project / IGNORED).read_text(encoding="utf-8").splitlines()
    rules = [line.strip().rstrip("/") for line in lines if line.strip() and line[0] != "#"]

    def kept(path: Path) -> bool:
        inside = path.relative_to(project)
        names = {*inside.parts, *(p.as_posix() for p in (inside, *inside.parents[:-1]))}
        return not any(fnmatch(name, rule) for name in names for rule in rules)

    found: list[Path] = []
    waiting = [project]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if kept(path):
                (waiting if path.is_dir() else found).append(path)
    return sorted(found)


def steps(folder: Path) -> list[str]:
    """Return the commands that hand the bundle over."""
    return [
        f"cd {shlex.quote(str(folder))}", "nsml run -d DATASET -e main.py -g 1",
        "nsml submit -t SESSION complete", "nsml submit SESSION complete",
    ]  # fmt: skip
