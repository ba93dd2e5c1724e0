"""Name the notebooks that carry outputs among those given, and fail if there is one."""

import json
import sys
from pathlib import Path


def has_outputs(notebook: Path) -> bool:
    """Return whether a cell of the notebook carries an output or an execution count."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


if __name__ == "__main__":
    full = [name for name in sys.argv[1:] if has_outputs(Path(name))]
    for name in full:
        print(f"{name} carries outputs. Remedy: make notebooks")
    sys.exit(bool(full))
