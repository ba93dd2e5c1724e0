"""A bundle is whole or absent, holds no secret, and brings the kit with it."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import project
import pytest

from kit import bundles, finished
from kit.bundles import notebook, parts, scan
from kit.challenges import find
from kit.errors import BundleError, MissingDataError, SettingsError
from kit.files import read_json, sha256, write_json
from kit.manifest import load_manifest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a tiny data set and no run, as the working folder."""
    project.make(tmp_path, patients=2, each=1, tests=1)
    project.mounted(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".kit-bundle")]


# The folder


def test_the_default_folder_is_the_challenges(home: Path) -> None:
    made = bundles.make("kaggle", "tiny", train=True, owner="ann")
    assert made.folder == home / "submissions" / "tiny" / "kaggle"
    assert made.bytes == sum(p.stat().st_size for p in made.folder.rglob("*") if p.is_file())
    assert {"kernel-metadata.json", "notebook.ipynb"} < set(made.files)
    assert made.left == () and "kaggle kernels push" in made.steps[-1]


def test_an_empty_folder_is_filled_and_one_that_is_not_is_left_alone(home: Path) -> None:
    out = home / "out"
    out.mkdir()
    bundles.make("kaggle", "tiny", out, train=True, owner="ann")
    before = {name: sha256(out / name) for name in scan.sizes(out)}
    with pytest.raises(BundleError, match=r"not empty.*Remedy: choose another --out"):
        bundles.make("kaggle", "tiny", out, train=True, owner="ann")
    assert {name: sha256(out / name) for name in scan.sizes(out)} == before
    (home / "file").write_text("mine")
    with pytest.raises(BundleError, match="not empty"):
        bundles.make("kaggle", "tiny", home / "file", train=True, owner="ann")
    assert (home / "file").read_text() == "mine"


def test_a_bundle_that_fails_leaves_nothing(home: Path) -> None:
    with pytest.raises(BundleError, match="too large"):
        bundles.make("kaggle", "tiny", home / "out", train=True, owner="ann", max_mb=0.1)
    assert not (home / "out").exists() and left_behind(home) == []


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    for name, size in {"a": 500_000, "b": 3_000_000, "c": 1_000_000}.items():
        (tmp_path / name).write_bytes(bytes(size))
    scan.refuse_surplus(tmp_path, 4.5)
    with pytest.raises(BundleError, match=r"at most 4 MB.*4\.5 MB; largest: b 3\.0 MB, c 1\.0 MB"):
        scan.refuse_surplus(tmp_path, 4)


def test_wrong_platforms_and_challenges_are_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean kaggle"):
        bundles.make("kagle", "tiny")
    with pytest.raises(SettingsError, match="challenge is unknown"):
        bundles.make("kaggle", "tinny")


def test_without_a_run_there_are_no_weights_and_the_remedies_are_named(home: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no weights.*kit run tiny.*--run.*--train"):
        bundles.make("kaggle", "tiny", owner="ann")
    with pytest.raises(MissingDataError, match="no finished run"):
        bundles.make("kaggle", "tiny", run=home / "data", owner="ann")


# What stands in it


def test_the_wheel_is_small_the_same_each_time_and_has_the_manifest_in_use(home: Path) -> None:
    first, second = home / "a", home / "b"
    for folder in (first, second):
        folder.mkdir()
        parts.wheel(folder)
    (wheel,) = first.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.read_bytes() == (second / wheel.name).read_bytes()
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        manifest = archive.read("kit/data_manifest.yaml")
        record = archive.read(next(n for n in names if n.endswith("RECORD"))).decode()
    assert manifest == (home / "data_manifest.yaml").read_bytes()
    assert {line.split(",")[0] for line in record.splitlines()} == set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_pip_installs_the_wheel_without_network_and_the_kit_is_that_one(home: Path) -> None:
    wheel, target = parts.wheel(home), home / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
           "--disable-pip-version-check", "--target", str(target), str(wheel)]  # fmt: skip
    if subprocess.run([*pip[:3], "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this environment has no pip")
    subprocess.run(pip, check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\nimport kit.manifest as m\n"
        "from importlib.metadata import version\n"
        "print(m.load_manifest('site/kit/data_manifest.yaml').datasets.keys(), m.__file__)\n"
        "print(version('kit-medical'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=home
    )
    assert "tiny" in done.stdout and str(target) in done.stdout


def test_the_checksums_are_those_of_sha256sum_and_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.bin").write_bytes(b"")
    lines = parts.checksums(tmp_path).read_text().splitlines()
    assert lines[0] == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.bin")
    assert parts.check_sums(tmp_path) == ["a.bin", "b.bin"]
    (tmp_path / "a.bin").write_bytes(b"xyz")
    with pytest.raises(BundleError, match=r"did not arrive as it was sent.*upload .* again"):
        parts.check_sums(tmp_path)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(BundleError, match=r"Received: no file"):
        parts.check_sums(tmp_path)


def run_of(place: Path, dataset: str, *, synthetic: bool) -> Path:
    """Write a folder that looks like a finished run, with a network of four bytes."""
    place.mkdir(parents=True)
    (place / "models").mkdir()
    network = place / "models" / "fold0_seed0.keras"
    network.write_bytes(b"keras"[:4])
    compared = {"challenge": "tiny", "dataset": dataset}
    write_json(place / "settings.json", {"synthetic": synthetic, "compared": compared})
    write_json(place / "ensemble.json", {"networks": {network.stem: sha256(network)}})
    return place


def test_the_newest_run_on_the_challenges_own_data_is_taken(home: Path) -> None:
    runs = home / "submissions" / "tiny"
    for age, name in enumerate(["third", "first", "second"]):
        out = run_of(runs / name, "tiny", synthetic=False)
        os.utime(out / "ensemble.json", (1e9 - age, 1e9 - age))
    for name, dataset in (("drawn", "synthetic_patches"), ("stand-in", "tiny")):
        drawn = run_of(runs / name, dataset, synthetic=True)
        os.utime(drawn / "ensemble.json", (2e9, 2e9))
    challenge = find("tiny", load_manifest())
    assert parts.newest_run(challenge).name == "third"
    for name in ("first", "second", "third"):
        shutil.rmtree(runs / name)
    with pytest.raises(MissingDataError, match="no finished run of the challenge but on drawn"):
        parts.newest_run(challenge)


# What must not leave: none of these is a real key

SECRETS = {
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "a Kaggle key": '{"username": "ann", "key": "' + "0f" * 16 + '"}',
    "a Kaggle token": "KGAT_" + "0f" * 16,
    "an AWS key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-" + "a1" * 10,
    "a Hugging Face token": "hf_" + "aB" * 17,
    "an OpenAI key": "sk-" + "a1" * 20,
    "a Google key": "AIza" + "a1_" * 11 + "ab",
    "a Slack token": "xoxb-" + "12345-" * 3,
    "a JSON web token": "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + ".c_d",
    "a password in an address": "https://ann:" + "secret1@example.org/x",
    "a bearer token": "Authorization: Bearer " + "a1" * 12,
    "a password": "DB_PASSWORD = 'correct-horse'",
    "a password set for programs": "export KAGGLE_KEY=" + "0f" * 16,
}
UNDER_ANY_NAME = [
    ("run.py", 'os.environ["KAGGLE_KEY"] = "' + "0f" * 16 + '"'),
    ("run.sh", "export DB_PASSWORD=correct-horse"),
    ("Dockerfile", "ENV API_KEY correct-horse"),
    ("settings.yaml", "database:\n  password: correct-horse  # mine"),
    ("credentials.ini", "aws_secret_access_key = " + "wJalr/" * 6),
    ("secrets.toml", 'hf_token = "x"\napi_key = "correct-horse"'),
    (
        "a.ipynb",
        json.dumps({"cells": [{"source": ['os.environ["KAGGLE_KEY"] = "correct-horse"']}]}),
    ),
    ("b.ipynb", json.dumps({"cells": [{"source": ["%env KAGGLE_KEY=correct-horse"]}]})),
]
"""Secrets as people write them: quoted or not, in code, for a shell, in files of settings."""


def test_each_kind_of_secret_has_an_example() -> None:
    assert set(SECRETS) == set(scan.SECRETS)


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_with_its_line_and_not_repeated(what: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(f"a = 1\nb = 2  # {SECRETS[what]}\n")
    found = scan.findings(tmp_path)
    assert f"run.py:2: {what}" in map(str, found)
    with pytest.raises(BundleError, match="must not leave") as told:
        scan.refuse_secrets(tmp_path)
    assert SECRETS[what] not in str(told.value) and "make a new one" in str(told.value)


@pytest.mark.parametrize(("name", "text"), UNDER_ANY_NAME)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_secret_is_found_as_people_write_it(
    name: str, text: str, encoding: str, tmp_path: Path
) -> None:
    remark = "" if name.endswith("ipynb") else "# größer\n"
    (tmp_path / name).write_bytes(f"{remark}{text}\n".encode(encoding))
    found = scan.findings(tmp_path)
    assert found and {one.kind for one in found} == {"secret"}


@pytest.mark.parametrize(
    ("name", "line"),
    [("a.py", "password = ask_for_password"), ("a.py", "token: str = settings.api_token"),
     ("a.yaml", "password: ${DB_PASSWORD}"), ("a.yaml", "password: none"),
     ("a.md", "password: ask the team before the start"), ("a.sh", "export KAGGLE_KEY=$KEY"),
     ("a.json", '{"sort_key": "predicted_at", "monkey": "predicted_at"}')],
)  # fmt: skip
def test_a_name_without_a_secret_is_none(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(line)
    assert scan.findings(tmp_path) == []


@pytest.mark.parametrize("name", ["kaggle.json", ".env", "id_rsa", ".netrc", "server.pem"])
def test_a_file_that_keeps_secrets_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    assert [one.kind for one in scan.findings(tmp_path)] == ["secret"]


@pytest.mark.parametrize(
    "line",
    ["data = '/ho" + "me/ann/slides/a.svs'", r"C:\Us" + r"ers\ann\a.svs", "'/Us" + "ers/ann/x/y'",
     'C:\\\\Us' + 'ers\\\\ann', "file:///ho" + "me/ann/slides", "file://localhost/ho" + "me/ann/x"],
)  # fmt: skip
def test_a_home_folder_is_private(line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(line)
    assert [one.kind for one in scan.findings(tmp_path)] == ["path"]


def test_an_absolute_path_is_private_where_it_is_one_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PUBLIC", ("/kaggle/",))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "settings.json").write_text(json.dumps({"weights": str(tmp_path / "w.h5")}))
    assert [one.kind for one in scan.findings(tmp_path / "a")] == ["path"]


@pytest.mark.parametrize(
    "line",
    ["/kaggle/input/kit-data/idc", "see https://example.org/ho" + "me/ann", "train/image/{label}",
     "/data/output/output.csv", "#!/usr/bin/env python", "a/b and c/d", "/no-such/folder/here"],
)  # fmt: skip
def test_what_is_the_same_everywhere_is_no_private_path(line: str, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text(line)
    assert scan.findings(tmp_path) == []


@pytest.mark.parametrize(
    "column",
    ["patient_name", "PatientID", "birth_date", "MRN", "환자번호", "Patient Name", "Patient-ID",
     "PatientBirthDate", "ptid", "Medical Record No", "등록번호"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_patients_is_found(column: str, suffix: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"case_id": ["a"], column: ["x"], "label": ["0"]})
    path = tmp_path / f"cases{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    (found,) = scan.findings(tmp_path)
    assert (found.kind, found.where) == ("patients", path.name) and column in found.what


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "# of November\ncase_id,patient_id\na,1\n"), ("a.csv", "#patient_id,label\n1,0\n"),
     ("a.csv", "\n\npatient_id;label\n1;0\n"), ("a.json", '[{"case": {"patient_id": "1"}}]'),
     ("a.jsonl", '{"case_id": "a"}\n{"patient_id": "1"}\n')],
)  # fmt: skip
def test_a_list_of_patients_is_found(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    (found,) = scan.findings(tmp_path)
    assert found.kind == "patients" and "patient_id" in found.what


def packed(text: str, name: str) -> bytes:
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    return place.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [("a.tar.gz", packed("patient_id,label\n", "b.csv"), "patients"),
     ("a.csv.gz", gzip.compress(b"patient_id,label\n"), "patients"),
     ("a.gz", b"no gzip", "patients"), ("a.xlsx", b"PK", "patients"),
     ("a.csv", b"sep=;\npatient_ids;label\n", "patients"), ("a.nii.gz", b"", "images"),
     ("a.jpg", b"", "images"), ("a.yaml", b"root: C:/Us" + b"ers/kim/x", "path"),
     ("a.yaml", b"root: /mnt/c/Us" + b"ers/kim", "path"),
     ("a.yaml", b"root: /ho" + b"me/kim", "path")],
)  # fmt: skip
def test_what_is_packed_or_cannot_be_looked_into_is_found(
    name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert kind in {one.kind for one in scan.findings(tmp_path)}


def test_a_table_of_cases_is_none_of_patients(tmp_path: Path) -> None:
    (tmp_path / "sample_submission.csv").write_text("case_id,label\na,0\n")
    assert scan.findings(tmp_path) == []


def test_outputs_and_images_are_found_and_archives_are_looked_into(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": [], "outputs": [{"text": "P001"}]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "b").write_bytes(bytes(128) + b"DICM")
    with zipfile.ZipFile(tmp_path / "c.whl", "w") as archive:
        archive.writestr("kit/deep.py", SECRETS["an AWS key"])
    found = {(one.kind, one.where) for one in scan.findings(tmp_path)}
    assert found == {
        ("outputs", "a.ipynb"), ("images", "b"), ("secret", "c.whl!kit/deep.py:1")
    }  # fmt: skip


def test_a_secret_in_the_manifest_stops_the_bundle(home: Path) -> None:
    with (home / "data_manifest.yaml").open("a") as stream:
        stream.write(f"# {SECRETS['a Hugging Face token']}\n")
    with pytest.raises(BundleError, match=r"data_manifest\.yaml:\d+: a Hugging Face token"):
        bundles.make("kaggle", "tiny", home / "out", train=True, owner="ann")
    assert not (home / "out").exists() and left_behind(home) == []


# The notebook


def test_the_notebook_is_ours_where_the_project_has_none(home: Path) -> None:
    made = json.loads(notebook.of("tiny", trains=True))
    assert notebook.of("tiny", trains=True) == notebook.of("tiny", trains=False)
    sources = ["".join(cell["source"]) for cell in made["cells"]]
    assert 'CHALLENGE = "tiny"' in sources[1] and "SMOKE = False" in sources[1]
    assert "--no-index" in sources[2] and "--no-deps" in sources[2]
    assert made["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in made["cells"]]
    assert len(set(ids)) == len(ids)
    code = [s for s, c in zip(sources, made["cells"], strict=True) if c["cell_type"] == "code"]
    for source in code:
        compile(source, "cell", "exec")
        assert len(source.splitlines()) <= 12


def test_the_challenges_own_notebook_trains_with_the_wheel_first(home: Path) -> None:
    tags = {"tags": ["parameters"]}
    cells = [
        {"cell_type": "code", "metadata": tags,
         "source": ['CHALLENGE = "tiny"\n', "SMOKE = True\n", "SEED = 0"]},
        {"cell_type": "code", "metadata": {}, "source": ["run = open_run(CHALLENGE, smoke=SMOKE)"],
         "outputs": [{"text": "P001"}], "execution_count": 3},
    ]  # fmt: skip
    (home / "notebooks").mkdir()
    (home / "notebooks" / "10_tiny.ipynb").write_text(json.dumps({"cells": cells}))
    made = json.loads(notebook.of("tiny", trains=True))["cells"]
    sources = ["".join(cell["source"]) for cell in made]
    assert sources[0] == 'CHALLENGE = "tiny"\nSMOKE = False\nSEED = 0'
    assert "kit_medical-*.whl" in sources[1] and sources[2].startswith("run = open_run")
    assert sources[3].endswith("there.hand_in(run.submission())")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in made)
    predicts = "".join(
        "".join(c["source"]) for c in json.loads(notebook.of("tiny", trains=False))["cells"]
    )
    assert "there.answer(" in predicts and "open_run" not in predicts


# The command


def test_the_command_prints_files_and_steps_and_names_what_is_left(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    assert project.code_of("bundle", "kaggle", "tiny", "--train", "--out", home / "a") == 1
    said = capsys.readouterr()
    assert "kernel-metadata.json" in said.out and f"push -p {home / 'a'}" in said.out
    assert "owner-unknown" in said.err and "--owner NAME" in said.err
    assert project.code_of("bundle", "kaggle", "tiny", "--train", "--out", home / "a b") == 1
    assert f"push -p '{home / 'a b'}'" in capsys.readouterr().out
    monkeypatch.setenv("KAGGLE_USERNAME", "ann")
    assert (
        project.code_of("bundle", "kaggle", "tiny", "--train", "--out", home / "b", "--json") == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == str(home / "b") and found["left"] == []
    assert read_json(home / "b" / "kernel-metadata.json")["id"] == "ann/kit-tiny"
    assert project.code_of("bundle", "kaggle", "tiny", "--out", home / "b", "--train") == 2
    assert "not empty" in capsys.readouterr().err


def test_many_files_are_printed_by_folder() -> None:
    from kit.cli.bundles import _shown

    few, many = {"main.py": 3, "kit/a.py": 4}, {f"kit/{n}.py": n for n in range(40)}
    assert _shown(few) == few
    assert _shown({"main.py": 3, **many}) == {"main.py": 3, "kit/": 780}


def test_a_copy_in_a_bundle_is_no_run_of_its_own(home: Path) -> None:
    write_json(home / "submissions" / "tiny" / "kaggle" / "dataset" / "metrics.json", {})
    with pytest.raises(MissingDataError, match="no finished runs"):
        finished.side_by_side(home / "submissions")
    shutil.rmtree(home / "submissions")
