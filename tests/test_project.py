"""The files around the package agree with each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import kit

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What conda-forge calls a package, where that differs.
CONDA = {"matplotlib-base": "matplotlib", "openslide": "openslide-bin"}
# conda-forge numbers the OpenSlide library itself; openslide-bin adds a number for its own builds.
CONDA_BOUNDS = {"openslide-bin": "4.0.0"}


def stated(lines: list[str]) -> dict[str, str]:
    """Name -> specifier, with the marker where there is one."""
    found = {}
    for requirement in map(Requirement, lines):
        marker = f"; {requirement.marker}" if requirement.marker else ""
        found[requirement.name.lower().replace("_", "-")] = f"{requirement.specifier}{marker}"
    return found


def wanted() -> dict[str, str]:
    return stated([*PYPROJECT["dependencies"], *PYPROJECT["optional-dependencies"]["dev"]])


def environment_lines() -> list[str]:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines: list[str] = []
    for entry in content["dependencies"]:
        lines += entry["pip"] if isinstance(entry, dict) else [entry]
    return lines


def test_the_conda_environment_says_what_pyproject_says() -> None:
    conda = stated(environment_lines())
    assert (
        Requirement(f"x{conda.pop('python')}").specifier
        == Requirement(f"x{PYPROJECT['requires-python']}").specifier
    )
    conda.pop("pip")
    named = {CONDA.get(name, name): bound for name, bound in conda.items()}
    expected = wanted()
    for name, bound in CONDA_BOUNDS.items():
        assert expected[name].startswith(f">={bound}.")
        expected[name] = f">={bound}"
    assert named == expected


def test_every_line_of_the_conda_environment_gives_its_reason() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8").split("dependencies:")[1]
    packages = [line for line in text.splitlines() if line.strip() and "pip:" not in line]
    assert len(packages) == len(environment_lines())
    assert [line for line in packages if not re.search(r"  # \S.{3,}", line)] == []


def test_setup_is_a_short_list_of_the_same_bounds() -> None:
    source = (ROOT / "setup.py").read_text(encoding="utf-8")
    call = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
    said = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    assert set(said) == {"name", "version", "install_requires"}
    assert (said["name"], said["version"]) == (PYPROJECT["name"], kit.__version__)
    bounds = {name: bound.split(";")[0] for name, bound in wanted().items()}
    listed = stated(said["install_requires"])
    assert listed == {name: bounds[name] for name in listed}
    assert len(listed) >= 12


def test_setup_lists_all_that_the_statistics_and_the_training_import() -> None:
    """Third-party imports at the top of the modules that a run on NSML loads."""
    optional = {
        "dask",
        "distributed",
        "openslide",
        "tifffile",
        "imagecodecs",
        "simplejpeg",
        "pydicom",
    }  # clusters, slides, DICOM
    command = {"typer", "packaging", "jupytext", "papermill", "nbconvert", "nbformat"}
    names = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "sklearn": "scikit-learn"}
    listed = (ROOT / "setup.py").read_text(encoding="utf-8")
    missing = set()
    for file in (ROOT / "kit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            tops = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )  # fmt: skip
            for top in {name.split(".")[0] for name in tops} - {"kit", "", "__future__", "nsml"}:
                if top not in sys.stdlib_module_names | optional | command:
                    name = names.get(top, top)
                    if f'"{name}>=' not in listed:
                        missing.add(f"{file.name} imports {top}")
    assert missing == set()


def test_the_lowest_versions_are_those_of_pyproject(tmp_path: Path) -> None:
    target = tmp_path / "build" / "lowest.txt"
    tool, source = ROOT / "tools" / "lowest.py", ROOT / "pyproject.toml"
    subprocess.run([sys.executable, str(tool), str(source), str(target)], check=True)
    lines = target.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(PYPROJECT["dependencies"])
    assert "numpy==2.0.2" in lines
    assert all(len(list(Requirement(line).specifier)) == 1 and "==" in line for line in lines)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """What git would carry: tracked files, and new ones that it does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so what is tracked is not known")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def judge(tool: str, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run a tool of pre-commit on files."""
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_tracked_file_is_large(tracked: list[Path], tmp_path: Path) -> None:
    assert judge("large_files.py", tracked).stdout == ""
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(500_001))
    assert judge("large_files.py", [large]).returncode == 1


def test_no_entry_of_ours_is_in_a_user_s_ledger(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.name in ("ledger.csv", "ledger.head")] == []


def test_shell_scripts_end_their_lines_as_linux_reads_them(tracked: list[Path]) -> None:
    scripts = [p for p in tracked if p.suffix == ".sh" or p == ROOT / ".ci" / "run"]
    assert len(scripts) >= 3
    assert [p.name for p in scripts if b"\r" in p.read_bytes()] == []
    assert [p.name for p in scripts if not p.stat().st_mode & 0o100] == []


def test_notebooks_carry_no_outputs(tracked: list[Path], tmp_path: Path) -> None:
    notebooks = [path for path in tracked if path.suffix == ".ipynb"]
    assert judge("notebook_outputs.py", notebooks).stdout == ""
    full = tmp_path / "full.ipynb"
    full.write_text(json.dumps({"cells": [{"outputs": [{"text": "1"}]}]}), encoding="utf-8")
    assert judge("notebook_outputs.py", [full]).returncode == 1


def test_no_file_names_a_path_of_one_machine(tracked: list[Path]) -> None:
    private = re.compile(rb"/(?:work|home|Users|root)/\w+/")
    texts = [p for p in tracked if p.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".sh")]
    named = [str(p.relative_to(ROOT)) for p in texts if private.search(p.read_bytes())]
    assert named == []


def test_run_folders_are_ignored_and_the_ledger_is_not() -> None:
    names = {
        "submissions/khd2020/a1b2/oof.parquet": True,
        "submissions/khd2020/ledger.csv": False,
        "submissions/khd2020/README.md": False,
        "data/synthetic/slide.tif": True,
        "build/lowest.txt": True,
        ".venv-oldest/bin/python": True,
        "kit/cli/__init__.py": False,
    }
    command = ["git", "check-ignore", "--no-index", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    assert set(done.stdout.split()) == {name for name, ignored in names.items() if ignored}


@pytest.mark.parametrize("challenge", ["help2019", "khd2020", "khd2019", "rsna2021"])
def test_every_challenge_has_its_folder(challenge: str) -> None:
    assert (ROOT / "submissions" / challenge / "README.md").is_file()


def test_the_speed_tables_of_the_readme_are_those_of_the_results() -> None:
    code = "import table, sys; sys.stdout.reconfigure(encoding='utf-8', newline='')"
    code += "; print(table.updated(table.README.read_text('utf-8')), end='')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT / "benchmarks", capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == (ROOT / "README.md").read_text("utf-8"), "run benchmarks/table.py"
