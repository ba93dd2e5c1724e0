"""The challenge to copy, and README's walk from it to a challenge of one's own."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from project import code_of

import kit.challenges
from kit.challenges import find, open_run, real, template
from kit.errors import SettingsError
from kit.manifest import load_manifest
from kit.synthetic import make

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SOURCE = Path(kit.challenges.__file__).with_name("template.py")
NAME = "lymph2027"
FEW = {"epochs": 1, "resamples": 100}


def section() -> str:
    return README.split("## Add your own challenge")[1].split("\n## ")[0]


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", section(), re.S)
    return str(found)


def edited(source: str, changes: str) -> str:
    """The template as a reader of README leaves it: functions out, the named parts changed."""
    new = {node.targets[0].id: ast.unparse(node)  # type: ignore[attr-defined]
           for node in ast.parse(changes).body if isinstance(node, ast.Assign)}  # fmt: skip
    imports = [ast.unparse(n) for n in ast.parse(changes).body if isinstance(n, ast.ImportFrom)]
    tree, lines = ast.parse(source), []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            continue
        name = node.targets[0].id if isinstance(node, ast.Assign) else ""  # type: ignore[attr-defined]
        lines.append(new.pop(name, ast.unparse(node)))
    assert new == {}, "README changes what the template does not have"
    return "\n".join([lines[0], *imports, *lines[1:]]) + "\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose manifest and challenges have what README's walk writes into them."""
    entry = (PROJECT / "data_manifest.yaml").read_text(encoding="utf-8") + "\n" + block("yaml")
    (tmp_path / "data_manifest.yaml").write_text(entry, encoding="utf-8")
    folder = tmp_path / "challenges"
    folder.mkdir()
    assert f"cp kit/challenges/template.py kit/challenges/{NAME}.py" in section()
    shutil.copy(SOURCE, folder / f"{NAME}.py")
    text = edited(SOURCE.read_text(encoding="utf-8"), block("python"))
    (folder / f"{NAME}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(kit.challenges, "__path__", [*kit.challenges.__path__, str(folder)])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(f"kit.challenges.{NAME}", None)
    vars(kit.challenges).pop(NAME, None)


def test_the_walk_of_readme_ends_in_the_judges_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"kit run {NAME} --smoke" in section()
    drawn = make("synthetic_patches", project / "data" / NAME, scale=0.05)
    found = find(NAME, load_manifest())
    assert (found.dataset.name, found.official.name, found.forbids) == (NAME, "AUC", {})
    assert found.settings["augment"] == "patch_strong"
    assert real(NAME).size == (96, 96)
    code = code_of("run", NAME, "--smoke", "--workers", 0, "--json", "--set", "epochs=1",
                   "--set", "resamples=100")  # fmt: skip
    assert code == 0
    done = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert done["synthetic"] and done["official"]["name"] == "AUC"
    rows = Path(done["submission"]).read_text(encoding="utf-8").splitlines()
    asked = [line for line in (drawn / "labels.csv").read_text().splitlines() if "test" in line]
    assert rows[0] == "image,tumour" and len(rows) == len(asked) + 1 > 1
    assert all(0 <= float(row.split(",")[1]) <= 1 for row in rows[1:])


def test_without_data_the_walk_takes_drawn_patches(project: Path) -> None:
    run = open_run(NAME, smoke=True)
    assert run.synthetic and run.dataset.name == "synthetic_patches"
    assert open_run(NAME, smoke=True, recipe="plain").settings.augment == "none"


def test_the_template_is_short_and_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) < 150
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT / "data_manifest.yaml", tmp_path)
    make("synthetic_patches", tmp_path / "data" / "synthetic_patches", scale=0.05)
    run = open_run("template", smoke=True, settings=FEW, workers=0)
    rows = run.submission().read_text(encoding="utf-8").splitlines()
    assert rows[0] == "image,class" and len(rows) > 1
    assert {row.split(",")[1] for row in rows[1:]} <= {"0", "1"}
    with pytest.raises(SettingsError, match="pretrained weights and outside data are not allowed"):
        open_run("template", smoke=True, settings={"weights": "imagenet"})


def test_the_templates_score_is_the_mean_of_two_rates() -> None:
    import numpy as np

    true = np.array([1, 1, 1, 1, 0, 0])
    called = np.array([1, 1, 1, 0, 0, 1])
    assert template.balanced_accuracy(true, called) == (3 / 4 + 1 / 2) / 2
    assert np.isnan(template.balanced_accuracy(true[:4], called[:4]))
