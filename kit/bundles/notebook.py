"""The notebook that travels: the same file runs here and on every platform."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from kit.manifest import home, load_manifest

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
OPENING = """\
# {challenge}: from the mounted data to a submission

**Question.** What do our networks say of the cases that lie here?

**Inputs.** The challenge's data; the attached wheel of the kit and, where they are attached too,
the networks of a finished run. **Outputs.** `submission.csv`.

**Run time.** CPU, smoke: 1 min. GPU, full data: minutes with attached networks; without them it
trains, and stops in time for the platform's limit."""
PARAMETERS = """\
CHALLENGE = "{challenge}"
SMOKE = False
SEED = 0"""
INSTALL = """\
# Where the kit is not installed, the attached wheel brings it; nothing is downloaded.
import glob, importlib, importlib.util, os, subprocess, sys

inputs = os.environ.get("KIT_ROOT", "/").rstrip("/") + "/kaggle/input"
layouts = [f"{inputs}/*/kit_medical-*.whl", f"{inputs}/datasets/*/*/kit_medical-*.whl"]
if importlib.util.find_spec("kit") is None:
    wheels = sorted(path for layout in layouts for path in glob.glob(layout))
    assert wheels, f"Attach the kit's dataset to this notebook. Looked for: {', '.join(layouts)}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, wheels[-1]], check=True)
    importlib.invalidate_caches()"""
PLATFORM = """\
import logging

import pandas as pd

from kit import platforms
from kit.bundles import there

logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("kit").setLevel(logging.INFO)
pd.Series(vars(platforms.detect()), name="this machine").astype(str).to_frame()"""
ANSWER_TEXT = """\
Every case that is mounted is predicted. Nothing is learnt from how many there are: a hidden test
set may take the place of a few rows."""
ANSWER = """\
path = there.answer(CHALLENGE, smoke=SMOKE, seed=SEED)
lines = path.read_text(encoding="utf-8").splitlines()
pd.Series({"file": str(path), "lines": len(lines), "first": lines[0], "last": lines[-1]})"""
HAND_IN = """\
from kit.bundles import there

there.hand_in(run.submission())"""
CLOSING = """\
## Takeaways
- The file was read back and checked when it was written: every case once, in the platform's format.
- The same notebook runs on a laptop, on Kaggle, on NSML and in a container.

Next: hand it in, and note the score with `kit ledger score`"""


def of(challenge: str, *, trains: bool) -> bytes:
    """Return the notebook (.ipynb, UTF-8) of a challenge: no outputs, a kernelspec, stable ids.

    Where training is done there, it is the challenge's own notebook, if the project has one; else
    the one above, which predicts with what is attached.
    """
    own = _own(challenge) if trains else None
    return _written(_ready(own) if own else _cells(challenge))


def _cells(challenge: str) -> list[dict[str, Any]]:
    return [
        _cell("markdown", OPENING.format(challenge=challenge)),
        _cell("code", PARAMETERS.format(challenge=challenge), ["parameters"]),
        _cell("code", INSTALL),
        _cell("code", PLATFORM),
        _cell("markdown", ANSWER_TEXT),
        _cell("code", ANSWER),
        _cell("markdown", CLOSING),
    ]


def _cell(kind: str, source: str, tags: list[str] | None = None) -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {"tags": tags} if tags else {}}


def _own(challenge: str) -> list[dict[str, Any]] | None:
    """Return the cells of the project's notebook whose parameters name the challenge."""
    folder = home(load_manifest().path) / "notebooks"
    for path in sorted(folder.glob("[1-9][0-9]_*.ipynb")):
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        opens = any("run = open_run(CHALLENGE" in _source(cell) for cell in cells)
        if tagged and opens and _values(_source(tagged[0])).get("CHALLENGE") == challenge:
            return cells
    return None


def _source(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _values(source: str) -> dict[str, Any]:
    """Return the constants that a cell sets."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip


def _ready(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a project's notebook with full settings, the wheel first and handing in last."""
    ready = []
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        source = _source(cell)
        if "parameters" in tags:
            source = re.sub(r"^SMOKE = True$", "SMOKE = False", source, flags=re.MULTILINE)
        ready.append(_cell(cell["cell_type"], source, tags))
        if "parameters" in tags:
            ready.append(_cell("code", INSTALL))
    return [*ready, _cell("code", HAND_IN)]


def _written(cells: list[dict[str, Any]]) -> bytes:
    for position, cell in enumerate(cells):
        text = f"{position}:{cell['cell_type']}:{cell['source']}"
        cell["id"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        cell["source"] = cell["source"].splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    notebook = {
        "cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
