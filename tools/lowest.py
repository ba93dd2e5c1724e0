"""Write each dependency of pyproject.toml at its lower bound, as constraints for pip."""

import sys
import tomllib
from pathlib import Path


def lowest(pyproject: Path) -> list[str]:
    """Return lines `name==version[; marker]`, one for each run-time dependency.

    The dev tools stay at their newest: they are not what a user's machine has.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [line.replace(">=", "==", 1) for line in project["dependencies"]]


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lowest(source)) + "\n", encoding="utf-8")
