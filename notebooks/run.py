"""Execute notebooks 00 to 08 in order on the embedded data, and say what came of it: `make run`.

`python notebooks/run.py 10 11 12 13` executes those of the four challenges instead, on stand-ins
where the data are not here. Executed copies and one HTML page of them all go to build/notebooks/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
OUT = PROJECT / "build" / "notebooks"
PARAMETERS = {"CHALLENGE": "synthetic_slides", "SMOKE": True, "SEED": 0}
LAUNCH = """
import os, runpy, sys
os.dup2(os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
FIGURE = re.compile(r"\*\*Figure: [^*]+\*\*")


def notebooks(*numbers: str) -> list[Path]:
    """Return the notebooks of these numbers, or, without any, the sequence in order."""
    wanted = [f"{number}_*.ipynb" for number in numbers or ["0[0-9]"]]
    return [path for pattern in wanted for path in sorted(HERE.glob(pattern))]


def parameters(source: Path) -> dict[str, Any]:
    """Return what a notebook is run with; one of a challenge keeps its own."""
    own = {} if source.name.startswith("0") else {"CHALLENGE"}
    return {name: value for name, value in PARAMETERS.items() if name not in own}


@contextlib.contextmanager
def kernel(log: Path) -> Iterator[str]:
    """Yield the name of a kernel that runs this very Python, whatever kernels are installed.

    `log` takes what its libraries write to the error stream past Python.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="kit-kernel-") as folder:
        place = Path(folder, "kernels", "kit-notebooks")
        place.mkdir(parents=True)
        start = [sys.executable, "-c", LAUNCH, str(log), "-f", "{connection_file}"]
        start += ["--IPKernelApp.capture_fd_output=False"]
        quiet = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        spec = {"argv": start, "display_name": "kit", "language": "python", "env": quiet}
        (place / "kernel.json").write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = folder
        os.environ["JUPYTER_RUNTIME_DIR"] = os.path.join(folder, "runtime")
        os.environ["IPYTHONDIR"] = os.path.join(folder, "ipython")
        try:
            yield place.name
        finally:
            os.environ.clear()
            os.environ.update(before)


def execute(source: Path, target: Path, parameters: Mapping[str, Any], cwd: Path) -> None:
    """Run one notebook in `cwd` and keep it with its outputs; call it inside `kernel`."""
    import papermill

    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(source), str(target), parameters=dict(parameters), cwd=str(cwd),
        kernel_name="kit-notebooks", progress_bar=False,
    )  # fmt: skip


def missing_figures(notebook: Path) -> list[str]:
    """Return what the text of an executed notebook says of figures and its cells do not hold.

    Text announces a figure as **Figure: name**; the next code cell must show as many images as
    were announced since the one before it.
    """
    wrong, announced = [], []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            announced += FIGURE.findall(text)
            continue
        shown = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
        if shown != len(announced):
            said = ", ".join(announced) or "no figure"
            wrong.append(f"text announces {said}, the cell shows {shown}: {text.strip()[-80:]!r}")
        announced = []
    return wrong + [f"no cell follows {name}" for name in announced]


def run(executed: Sequence[tuple[Path, Path]]) -> str | None:
    """Execute notebooks from source to target; return what went wrong, if anything."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from tqdm import tqdm

    with kernel(OUT / "kernel.log"), tqdm(executed, unit="notebook", file=sys.stderr) as bar:
        for source, target in bar:
            bar.set_description(source.stem)
            try:
                execute(source, target, parameters(source), PROJECT)
            except PapermillExecutionError as error:
                last = ANSI.sub("", "\n".join(error.traceback)).strip().split("\n")[-5:]
                said = "\n".join(last)
                return f"{source.name} failed in cell [{error.exec_count}] of {target}:\n{said}"
            except DeadKernelError:
                return f"{source.name}: its kernel died; out of memory? See {OUT / 'kernel.log'}"
            wrong = missing_figures(target)
            if wrong:
                return f"{source.name} lacks a figure: {wrong[0]}"
    return None


def show(metrics: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    """Print the six metrics, their mean and the AUC with intervals, and where the files are."""
    print(f"\n{'metric':<14}{'value':>7}   95 % interval")
    for name, found in metrics.items():
        if isinstance(found, dict) and set(found) == {"value", "low", "high"}:
            value, low, high = ("  n/a" if v is None else f"{v:.3f}" for v in found.values())
            print(f"{name.replace('_', ' '):<14}{value:>7}   {low} to {high}")
    print("\nSYNTHETIC: drawn data, not patients. No figure here is a result.\n")
    for name, path in places.items():
        print(f"{name:<14}{path}")


def main(*numbers: str) -> int:
    """Execute the sequence, or the notebooks of these numbers; return the exit code."""
    executed = [(path, OUT / path.name) for path in notebooks(*numbers)]
    if len(executed) < len(numbers):
        print(f"no such notebook among {', '.join(numbers)}", file=sys.stderr)
        return 2
    try:
        wrong = run(executed)
        if wrong:
            print(wrong, file=sys.stderr)
            return 1
        targets = [target for _, target in executed]
        return _page(targets) if numbers else _finish(targets)
    except KeyboardInterrupt:
        print("\ninterrupted: `make run` goes on where it stopped", file=sys.stderr)
        return 130


def _page(executed: Sequence[Path]) -> int:
    from kit.report import notebooks_page

    print(notebooks_page(executed, OUT / "challenges.html"))
    return 0


def _finish(executed: Sequence[Path]) -> int:
    from kit.challenges import open_run
    from kit.report import BANNER, metric_table, notebooks_page

    opened = open_run(
        PARAMETERS["CHALLENGE"], smoke=PARAMETERS["SMOKE"], settings={"seed": PARAMETERS["SEED"]}
    )
    metrics = json.loads((opened.out / "metrics.json").read_text(encoding="utf-8"))
    page = notebooks_page(executed, OUT / "report.html", summary=BANNER + metric_table(metrics))
    show(metrics, {"submission": opened.out / "submission.csv", "HTML report": page})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", help="such as 10; without any, 00 to 08 in order")
    sys.exit(main(*parser.parse_args().numbers))
