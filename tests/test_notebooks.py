"""The notebooks are what their sources say, run in order and alone, and show what they speak of.

Executing them is slow and belongs to `make check`; what can be read off the files is tested fast.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = PROJECT / "notebooks"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"notebooks_{name}", NOTEBOOKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, run = _load("build"), _load("run")
SOURCES = build.sources()
SEQUENCE = run.notebooks()
SEEDS = run.notebooks("10", "11", "12", "13")
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    found = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_sequence_runs_from_00_to_08() -> None:
    assert [path.name[:2] for path in SEQUENCE] == [f"{number:02d}" for number in range(9)]


@each_source
def test_the_notebook_is_its_source_byte_for_byte(source: Path) -> None:
    built = build.build(source)
    assert source.with_suffix(".ipynb").read_bytes() == built, "Remedy: make notebooks"
    assert build.build(source) == built


def test_a_changed_source_no_longer_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (SOURCES[0], SOURCES[0].with_suffix(".ipynb")):
        shutil.copy(path, tmp_path)
    copy = tmp_path / SOURCES[0].name
    monkeypatch.setattr(build, "sources", lambda: [copy])
    assert build.main(["--check"]) == 0
    copy.write_text(copy.read_text(encoding="utf-8").replace("# 00", "# 0O"), encoding="utf-8")
    assert build.main(["--check"]) == 1
    assert "Remedy: make notebooks" in capsys.readouterr().out
    assert build.main([]) == 0 and build.main(["--check"]) == 0


def test_an_id_is_of_place_and_content(tmp_path: Path) -> None:
    source = tmp_path / "00_a.py"
    source.write_text("# %%\na = 1\n\n# %%\na = 1\n\n# %%\nb = 2\n", encoding="utf-8")
    first = [cell["id"] for cell in json.loads(build.build(source))["cells"]]
    source.write_text("# %%\na = 1\n\n# %%\na = 1\n\n# %%\nb = 3\n", encoding="utf-8")
    second = [cell["id"] for cell in json.loads(build.build(source))["cells"]]
    assert len(set(first)) == 3
    assert first[:2] == second[:2] and first[2] != second[2]


@each_source
def test_there_are_no_outputs_and_a_kernelspec(source: Path) -> None:
    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(source, "code"))
    assert notebook["metadata"]["kernelspec"] == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }


@each_source
def test_one_parameters_cell_stands_first(source: Path) -> None:
    tagged = [c for c in cells(source) if "parameters" in c["metadata"].get("tags", [])]
    assert tagged == cells(source, "code")[:1]
    names = [node.targets[0].id for node in ast.parse(text(tagged[0])).body]  # type: ignore[attr-defined]
    assert names == ["CHALLENGE", "SMOKE", "SEED"]


@each_source
def test_cells_are_short_and_define_nothing(source: Path) -> None:
    for cell in cells(source, "code"):
        code = ast.parse(text(cell))
        assert len(text(cell).splitlines()) <= 12, text(cell)
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds[:2]) for node in ast.walk(code)), text(cell)


@each_source
def test_each_cell_ends_in_a_figure_or_a_table(source: Path) -> None:
    for cell in cells(source, "code")[1:]:
        assert isinstance(ast.parse(text(cell)).body[-1], ast.Expr), text(cell)


@each_source
def test_it_opens_with_its_question_and_closes_with_two_takeaways(source: Path) -> None:
    opening, closing = text(cells(source)[0]), text(cells(source)[-1])
    for word in (
        "**Question.**",
        "**Inputs.**",
        "**Outputs.**",
        "**Run time.** CPU, smoke:",
        "GPU",
    ):
        assert word in opening
    takeaways = closing.split("## Takeaways")[1]
    assert len(re.findall(r"^- ", takeaways, re.M)) == 2
    assert "Next: " in takeaways


def test_each_notebook_names_the_next() -> None:
    for this, following in itertools.pairwise(SEQUENCE):
        title = text(cells(following)[0]).splitlines()[0].removeprefix("# ")
        assert f"Next: **{title}**" in text(cells(this)[-1])


@each_source
def test_each_announced_figure_is_plotted_in_the_next_cell(source: Path) -> None:
    announced = 0
    for cell in cells(source):
        if cell["cell_type"] == "markdown":
            announced += len(run.FIGURE.findall(text(cell)))
        else:
            last = text(cell).splitlines()[-1]
            assert announced == last.startswith("figures."), text(cell)
            announced = 0
    assert not announced


def executed(path: Path, *parts: tuple[str, int]) -> Path:
    """Write a notebook as if executed: each part is a text and the images of the cell after it."""
    found: list[dict[str, Any]] = []
    for said, images in parts:
        picture = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}
        found.append({"cell_type": "markdown", "source": [said]})
        found.append({"cell_type": "code", "source": ["plot()"], "outputs": [picture] * images})
    path.write_text(json.dumps({"cells": found}))
    return path


def test_figures_that_stand_are_found(tmp_path: Path) -> None:
    path = executed(tmp_path / "a", ("**Figure: one.** Text.", 1), ("no figure", 0))
    assert run.missing_figures(path) == []


def test_a_figure_that_is_spoken_of_and_absent_is_named(tmp_path: Path) -> None:
    (wrong,) = run.missing_figures(executed(tmp_path / "a", ("**Figure: ROC curve.** Text", 0)))
    assert "ROC curve" in wrong and "shows 0" in wrong


def test_a_figure_that_nobody_speaks_of_is_named(tmp_path: Path) -> None:
    (wrong,) = run.missing_figures(executed(tmp_path / "a", ("text", 1)))
    assert "no figure" in wrong and "shows 1" in wrong


def test_the_kernel_is_this_python_and_leaves_the_environment_alone(tmp_path: Path) -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    before = dict(os.environ)
    with run.kernel(tmp_path / "log") as name:
        assert KernelSpecManager().get_kernel_spec(name).argv[0] == sys.executable
    assert dict(os.environ) == before


def test_a_failing_notebook_is_named_with_cell_and_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from papermill.exceptions import PapermillExecutionError

    def failing(source: Path, *_: Any) -> None:
        lines = [f"line {number}" for number in range(20)] + ["\x1b[31mKitError\x1b[0m: no data"]
        raise PapermillExecutionError(4, 3, "code", "KitError", "no data", lines)

    monkeypatch.setattr(run, "execute", failing)
    monkeypatch.setattr(run, "OUT", tmp_path)
    assert run.main() == 1
    said = capsys.readouterr().err
    assert "00_start_here.ipynb failed in cell [3]" in said
    assert "KitError: no data" in said and "line 3" not in said and "\x1b[31m" not in said


def test_a_notebook_without_its_figure_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "execute", lambda source, target, *_: executed(target, (FIG, 0)))
    assert run.main() == 1
    assert "00_start_here.ipynb lacks a figure" in capsys.readouterr().err


FIG = "**Figure: one.**"


def test_notebooks_of_challenges_keep_their_own_and_are_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {}

    def execute(source: Path, target: Path, parameters: dict[str, Any], _: Path) -> None:
        given[source.stem] = parameters
        shutil.copy(source, target)

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(run, "missing_figures", lambda _: [])
    monkeypatch.setattr(run, "OUT", tmp_path)
    assert run.main("13", "11") == 0
    assert list(given) == ["13_rsna2021_mri", "11_khd2020_patches"]
    assert all(one == {"SMOKE": True, "SEED": 0} for one in given.values())
    page = Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8")
    assert page.index("13 RSNA-MICCAI 2021 MRI") < page.index("11 KHD 2020 breast patches")
    assert run.main("99") == 2


def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "execute", interrupted)
    monkeypatch.setattr(run, "OUT", tmp_path)
    assert run.main() == 130
    assert "make run" in capsys.readouterr().err


def test_the_end_is_a_table_of_metrics_and_the_places(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {
        "accuracy": {"value": 0.81234, "low": 0.7, "high": 0.9},
        "ppv": {"value": None, "low": None, "high": None},
        "n": 17,
    }
    run.show(metrics, {"submission": Path("runs/a/submission.csv")})
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"accuracy +0\.812 +0\.700 to 0\.900", line) for line in lines)
    assert any(re.match(r"ppv +n/a", line) for line in lines)
    assert lines[-1].split() == ["submission", str(Path("runs/a/submission.csv"))]
    assert "SYNTHETIC" in "".join(lines) and not any(line.startswith("n ") for line in lines)


# What follows executes notebooks, in folders that hold the manifest and nothing else, as a user
# with an empty home; neither kernels nor their workers can leave this machine.

GUARD = textwrap.dedent("""
    import socket

    def local(host):
        return host in (None, "", "localhost", "::1") or str(host).startswith("127.")

    def guarded(real):
        def call(self, address, *rest):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not local(address[0]):
                raise OSError(f"refused: {address} is outside this machine")
            return real(self, address, *rest)
        return call

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        if not local(host):
            raise OSError(f"refused: {host} is outside this machine")
        return resolve(host, *rest, **named)

    socket.getaddrinfo = getaddrinfo
""")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A kernel that can be started by `run.execute`, with an empty home and no network."""
    place = tmp_path_factory.mktemp("sealed")
    (place / "sitecustomize.py").write_text(GUARD)
    (place / "home").mkdir()
    path = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("HOME", str(place / "home"))
        with run.kernel(place / "kernel.log"):
            yield


def empty(folder: Path) -> Path:
    shutil.copy(PROJECT / "data_manifest.yaml", folder)
    return folder


def executed_well(source: Path, folder: Path) -> Path:
    target = folder / "executed" / source.name
    run.execute(source, target, run.parameters(source), folder)
    assert run.missing_figures(target) == []
    return target


@pytest.mark.slow
def test_the_seal_holds(tmp_path: Path, sealed: None) -> None:
    source = tmp_path / "leaving.py"
    source.write_text(
        "# %% tags=['parameters']\nSEED = 0\n\n# %%\nimport urllib.request\n\n"
        "urllib.request.urlopen('http://192.0.2.1/', timeout=5)\n"
    )
    notebook = tmp_path / "leaving.ipynb"
    notebook.write_bytes(build.build(source))
    with pytest.raises(Exception, match="outside this machine"):
        run.execute(notebook, tmp_path / "out.ipynb", {}, tmp_path)


@pytest.mark.slow
def test_all_run_in_order_from_an_empty_folder(tmp_path: Path, sealed: None) -> None:
    from kit.report import notebooks_page

    folder = empty(tmp_path)
    targets = [executed_well(source, folder) for source in SEQUENCE]
    page = notebooks_page(targets, folder / "report.html").read_text(encoding="utf-8")
    announced = sum(
        len(run.FIGURE.findall(text(cell))) for path in SEQUENCE for cell in cells(path)
    )
    assert page.count("data:image/png;base64,") == announced >= 15
    streams = [
        "".join(output["text"])
        for target in targets
        for cell in cells(target, "code")
        for output in cell["outputs"]
        if output["output_type"] == "stream"
    ]
    assert not any("Warning" in said for said in streams), streams


@pytest.mark.slow
@pytest.mark.parametrize("source", [*SEQUENCE[1:], *SEEDS], ids=lambda path: path.stem)
def test_each_runs_alone_from_an_empty_folder(source: Path, tmp_path: Path, sealed: None) -> None:
    executed_well(source, empty(tmp_path))


@pytest.mark.slow
def test_a_plot_call_taken_out_is_seen(tmp_path: Path, sealed: None) -> None:
    (source,) = (path for path in SOURCES if path.name.startswith("04_"))
    code = source.read_text(encoding="utf-8")
    assert "figures.fold_balance(folds)\n" in code
    bare = tmp_path / source.name
    bare.write_text(
        code.replace("figures.fold_balance(folds)\n", "folds.head()\n"), encoding="utf-8"
    )
    notebook = bare.with_suffix(".ipynb")
    notebook.write_bytes(build.build(bare))
    target = tmp_path / "executed.ipynb"
    run.execute(notebook, target, run.PARAMETERS, empty(tmp_path))
    (wrong,) = run.missing_figures(target)
    assert "the folds" in wrong and "shows 0" in wrong
