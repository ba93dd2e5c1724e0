"""Turn each percent-format notebook (.py) into an .ipynb without outputs; the same bytes each time.

python notebooks/build.py            writes them
python notebooks/build.py --check    writes nothing and fails if one differs
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def sources(folder: Path = HERE) -> list[Path]:
    """Return the notebooks' sources in order."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def build(source: Path) -> bytes:
    """Return the .ipynb of one percent-format source: UTF-8, LF."""
    import jupytext

    cells = jupytext.read(source, fmt="py:percent").cells
    notebook = {
        "cells": [_cell(position, cell) for position, cell in enumerate(cells)],
        "metadata": {"kernelspec": KERNEL},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _cell(position: int, cell: Any) -> dict[str, Any]:
    content = hashlib.sha256(f"{position}:{cell.cell_type}:{cell.source}".encode()).hexdigest()
    tags = list(cell.metadata.get("tags", []))
    result = {
        "cell_type": cell.cell_type,
        "id": content[:12],
        "metadata": {"tags": tags} if tags else {},
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.cell_type == "code":
        result |= {"execution_count": None, "outputs": []}
    return result


def main(arguments: list[str] | None = None) -> int:
    """Build or check all notebooks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    check = parser.parse_args(arguments).check
    code = 0
    for source in sources():
        target, content = source.with_suffix(".ipynb"), build(source)
        if target.is_file() and target.read_bytes() == content:
            continue
        if check:
            print(f"{target.name} does not match {source.name}. Remedy: make notebooks")
            code = 1
        else:
            target.write_bytes(content)
            print(f"wrote {target.name}")
    return code


if __name__ == "__main__":
    sys.exit(main())
