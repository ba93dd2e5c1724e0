"""Kaggle's rules: broken push folders each named, valid ones passed, and the real client agrees."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import project
import pytest

from kit import bundles
from kit.bundles import kaggle, lint
from kit.bundles.push import DATASET, FOLDER, KERNEL
from kit.errors import BundleError

HERE = Path(__file__).parent
Change = Callable[[Path], None]
needs_client = pytest.mark.skipif(
    importlib.util.find_spec("kaggle") is None,
    reason="no kaggle client here: pip install -e .[dev]",
)


def in_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def kernel(**values: Any) -> Change:
    return lambda folder: in_json(folder / KERNEL, lambda found: found.update(values))


def without(*keys: str) -> Change:
    return lambda folder: in_json(folder / KERNEL, lambda found: [found.pop(key) for key in keys])


def dataset(**values: Any) -> Change:
    return lambda folder: in_json(folder / FOLDER / DATASET, lambda found: found.update(values))


def bare_dataset(key: str) -> Change:
    return lambda folder: in_json(folder / FOLDER / DATASET, lambda found: found.pop(key))


def notebook(change: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda folder: in_json(folder / kaggle.CODE, change)


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content) and None


def moved(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / kaggle.CODE).rename(folder / "src" / kaggle.CODE)
    kernel(code_file=f"src/{kaggle.CODE}")(folder)


def sub(folder: Path) -> None:
    (folder / FOLDER / "models").mkdir()
    (folder / FOLDER / "models" / "a.txt").write_text("a")


def many(folder: Path) -> None:
    for number in range(100):
        (folder / FOLDER / f"{number}.txt").write_text("a")


def heavy(folder: Path) -> None:
    with (folder / FOLDER / "fold0.keras").open("wb") as stream:
        stream.truncate(2_000_000_001)


def damaged(folder: Path) -> None:
    with next((folder / FOLDER).glob("*.whl")).open("ab") as stream:
        stream.write(b"x")


def renamed_wheel(folder: Path) -> None:
    wheel = next((folder / FOLDER).glob("*.whl"))
    wheel.rename(wheel.with_name(wheel.name.replace("py3-none-any", "cp312-cp312-linux_x86_64")))


def no_wheel(folder: Path) -> None:
    next((folder / FOLDER).glob("*.whl")).unlink()


def output(found: dict[str, Any]) -> None:
    found["cells"][1]["outputs"] = [{"output_type": "stream", "text": "P001"}]


def names_input(found: dict[str, Any]) -> None:
    found["cells"][1]["source"] += ["\nX = '/kaggle/input/competitions/elsewhere/train'"]


@dataclass(frozen=True)
class Case:
    """A folder that is broken in one way: which rule says so, and whether the client does."""

    name: str
    change: Change
    rule: str
    client: bool = False


OWN = ["ann/kit-tiny-files", "ann/tiny-data"]
BROKEN = [
    Case("no metadata", lambda f: (f / KERNEL).unlink(), "kernel-metadata", True),
    Case("no JSON", text(KERNEL, "{"), "kernel-metadata", True),
    Case("a list", text(KERNEL, "[]"), "kernel-metadata", True),
    Case("a key misspelt", kernel(enable_internett=False), "unknown-key"),
    Case("the source's key in the singular", kernel(dataset_source=[]), "unknown-key"),
    Case("internet left out", without("enable_internet"), "internet-not-said"),
    Case("no title", without("title"), "not-said"),
    Case("an empty title", kernel(title=""), "not-said"),
    Case("no id", without("id"), "not-said", True),
    Case("no code file said", without("code_file"), "not-said", True),
    Case("no accelerator said", without("machine_shape"), "not-said"),
    Case("privacy left out", without("is_private"), "not-said"),
    Case("model sources left out", without("model_sources"), "not-said"),
    Case("a slug without owner", kernel(id="kit-tiny"), "id-form"),
    Case("no slug", kernel(id="ann/"), "id-form", True),
    Case("no owner", kernel(id="/kit-tiny"), "id-form", True),
    Case("a version in the id", kernel(id="ann/kit-tiny/3"), "id-form", True),
    Case("a slug of four", kernel(id="ann/tiny", title="tiny-"), "slug-short", True),
    Case("capitals in the slug", kernel(id="ann/Kit-Tiny"), "slug-letters"),
    Case("an underscore in the slug", kernel(id="ann/kit_tiny"), "slug-letters"),
    Case("an owner with a blank", kernel(id="ann lee/kit-tiny"), "owner"),
    Case("the placeholder", kernel(id="your-name/kit-tiny"), "owner-unknown"),
    Case("a title of four", kernel(title="tiny"), "title-short", True),
    Case("a title of another slug", kernel(title="something else"), "title-slug"),
    Case("a code file that is not there", kernel(code_file="other.ipynb"), "code-file", True),
    Case("code in a folder", moved, "code-alone"),
    Case("an unknown language", kernel(language="julia"), "language", True),
    Case("an unknown type", kernel(kernel_type="nb"), "kernel-type", True),
    Case("a notebook as script", kernel(kernel_type="script"), "code-type"),
    Case("true in quotes", kernel(enable_gpu="true"), "flag"),
    Case("a flag that is a number", kernel(enable_tpu=2), "flag", True),
    Case("internet on", kernel(enable_internet=True), "internet-on"),
    Case("public", kernel(is_private=False), "public"),
    Case("an unknown accelerator", kernel(machine_shape="T4"), "accelerator"),
    Case("P100", kernel(machine_shape="NvidiaTeslaP100"), "accelerator-unfit"),
    Case("RTX Pro 6000", kernel(machine_shape="NvidiaRtxPro6000"), "accelerator-unfit"),
    Case("a GPU that is not enabled", kernel(enable_gpu=False), "accelerator-flag"),
    Case("GPU and TPU", kernel(enable_tpu=True), "accelerator-flag"),
    Case("a competition that is no list", kernel(competition_sources="rsna"), "sources-list", True),
    Case("sources as one text", kernel(dataset_sources="ann/tiny-data"), "sources-list", True),
    Case("a source that is a number", kernel(kernel_sources=[5]), "sources-list", True),
    Case("a dataset without owner", kernel(dataset_sources=[*OWN, "more"]), "dataset-source", True),
    Case("a dataset's address", kernel(dataset_sources=[*OWN, "a.com/datasets/ann/x"]),
         "dataset-source", True),
    Case("a notebook without owner", kernel(kernel_sources=["first"]), "kernel-source", True),
    Case("a notebook's short slug", kernel(kernel_sources=["ann/abc"]), "kernel-source", True),
    Case("a competition's address", kernel(competition_sources=["kaggle.com/c/rsna"]),
         "competition-source"),
    Case("a model without version", kernel(model_sources=["a/b/keras/c"]), "model-source", True),
    Case("a model's version in words", kernel(model_sources=["a/b/keras/c/last"]), "model-source",
         True),
    Case("a source twice", kernel(dataset_sources=[*OWN, OWN[1]]), "source-twice"),
    Case("the wheel not attached", kernel(dataset_sources=OWN[1:]), "dataset-not-attached"),
    Case("the data not attached", kernel(dataset_sources=OWN[:1]), "data-not-attached"),
    Case("an input that no source brings", notebook(names_input), "input-not-attached"),
    Case("a notebook that is no JSON", text(kaggle.CODE, "x"), "notebook", True),
    Case("a notebook without cells", notebook(lambda n: n.pop("cells")), "notebook"),
    Case("code that Python cannot read", notebook(lambda n: n["cells"][1].update(source="a = (")),
         "notebook"),
    Case("no kernelspec", notebook(lambda n: n["metadata"].pop("kernelspec")), "kernelspec"),
    Case("a kernelspec without a name", notebook(lambda n: n["metadata"].update(kernelspec={})),
         "kernelspec"),
    Case("outputs", notebook(output), "outputs"),
    Case("a notebook of 2 MB", notebook(lambda n: n["cells"][0].update(source="x" * 2_000_000)),
         "code-size"),
    Case("a pinning that is none", kernel(docker_image_pinning_type="now"), "image-pinning", True),
    Case("keywords as one text", kernel(keywords="mri"), "keywords", True),
    Case("a number that is none", kernel(id_no="abc"), "id-number", True),
    Case("a module beside the notebook", text("helpers.py", "a = 1"), "beside-code"),
    Case("a kernel of R", notebook(lambda n: n["metadata"].update(
        kernelspec={"name": "ir", "display_name": "R", "language": "R"})), "kernel-language"),
    Case("a kernel named ir", notebook(lambda n: n["metadata"].update(
        kernelspec={"name": "ir", "display_name": "R"})), "kernel-language"),
    Case("a title of two lines", kernel(title="kit\ntiny"), "title-short"),
    Case("pip from the network", notebook(lambda n: n["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": ["!pip install -q timm"]})), "pip"),
    Case("curl in a shell's cell", notebook(lambda n: n["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": "%%bash\ncd x && curl -O https://a/b"})),
        "pip"),
    Case("a licence that Kaggle does not know", dataset(licenses=[{"name": "MITx"}]), "licence"),
    Case("no dataset metadata", lambda f: (f / FOLDER / DATASET).unlink(), "dataset-metadata",
         True),
    Case("the licence misspelt", dataset(license="CC0-1.0"), "dataset-unknown-key"),
    Case("a dataset without title", bare_dataset("title"), "dataset-not-said", True),
    Case("a dataset without licence", bare_dataset("licenses"), "dataset-not-said", True),
    Case("a dataset's id without owner", dataset(id="kit-tiny-files"), "dataset-id", True),
    Case("capitals in the dataset's id", dataset(id="ann/Kit-Files"), "dataset-id"),
    Case("a dataset's slug of five", dataset(id="ann/files"), "dataset-slug", True),
    Case("a dataset's slug of 51", dataset(id="ann/" + "a" * 51), "dataset-slug", True),
    Case("a dataset's title of five", dataset(title="files"), "dataset-title", True),
    Case("a dataset's title of 51", dataset(title="a" * 51), "dataset-title", True),
    Case("two licences", dataset(licenses=[{"name": "other"}] * 2), "licence", True),
    Case("no licence in the list", dataset(licenses=[]), "licence", True),
    Case("a licence without name", dataset(licenses=[{}]), "licence", True),
    Case("a short subtitle", dataset(subtitle="weights"), "subtitle", True),
    Case("a resource that is not there", dataset(resources=[{"path": "a.csv"}]), "resources", True),
    Case("a folder in the dataset", sub, "folders"),
    Case("no wheel", no_wheel, "wheel"),
    Case("a wheel of one machine", renamed_wheel, "wheel"),
    Case("no checksums", lambda f: (f / FOLDER / "SHA256SUMS").unlink(), "checksums"),
    Case("a damaged file", damaged, "checksums"),
    Case("a file without checksum", text(f"{FOLDER}/more.txt", "a"), "checksums"),
    Case("a hundred files", many, "file-count"),
    Case("two gigabytes", heavy, "dataset-size"),
]  # fmt: skip


def script(folder: Path) -> None:
    (folder / kaggle.CODE).unlink()
    (folder / "run.py").write_text("CHALLENGE = 'tiny'\n")
    kernel(code_file="run.py", kernel_type="script")(folder)


VALID: dict[str, Change] = {
    "as it is made": lambda folder: None,
    "without a GPU": kernel(machine_shape="", enable_gpu=False),
    "a T4 of more memory": kernel(machine_shape="NvidiaTeslaT4Highmem"),
    "an L4": kernel(machine_shape="NvidiaL4"),
    "four L4": kernel(machine_shape="NvidiaL4X1"),
    "an A100": kernel(machine_shape="NvidiaTeslaA100"),
    "an H100": kernel(machine_shape="NvidiaH100"),
    "a TPU": kernel(machine_shape="TpuV5E8", enable_gpu=False, enable_tpu=True),
    "a slug of five": kernel(id="ann/abcde", title="abcde"),
    "capitals in the title": kernel(title="Kit Tiny"),
    "digits": kernel(id="ann2/kit-tiny-2", title="kit tiny 2"),
    "an owner with an underscore": kernel(id="ann_lee/kit-tiny"),
    "a competition": kernel(competition_sources=["rsna-miccai-brain-tumor-radiogenomic"]),
    "a model": kernel(model_sources=["ann/resnet/keras/small/2"]),
    "a notebook's output": kernel(kernel_sources=["ann/first-notebook"]),
    "a dataset's version": kernel(dataset_sources=[OWN[0], "ann/tiny-data/4"]),
    "a licence of its own": dataset(licenses=[{"name": "CC-BY-NC-SA-4.0"}]),
    "a number": kernel(id_no=12345),
    "words about pip": notebook(lambda n: n["cells"].append(
        {"cell_type": "markdown", "metadata": {}, "source": ["!pip install is not needed"]})),
    "a cell without text": notebook(lambda n: n["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": None})),
    "pip from what is attached": notebook(lambda n: n["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": ["!pip install --no-index ./a.whl"]})),
    "keywords": kernel(keywords=["mri"]),
    "a pinned image": kernel(docker_image_pinning_type="original"),
    "a script": script,
    "a dataset's slug and title of six": lambda folder: (
        dataset(id="ann/weight", title="weight")(folder),
        kernel(dataset_sources=["ann/weight", OWN[1]])(folder),
    )[0],
    "a dataset's slug and title of fifty": lambda folder: (
        dataset(id="ann/" + "a" * 50, title="a" * 50)(folder),
        kernel(dataset_sources=["ann/" + "a" * 50, OWN[1]])(folder),
    )[0],
    "a subtitle": dataset(subtitle="networks of a finished run"),
    "a resource": dataset(resources=[{"path": "SHA256SUMS", "description": "checksums"}]),
}  # fmt: skip


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A valid push folder of a tiny data set, on which nothing was trained."""
    place = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        project.make(place, patients=2, each=1, tests=1)
        project.mounted(place)
        yield bundles.make("kaggle", "tiny", place / "out", train=True, owner="ann").folder


def changed(pushed: Path, place: Path, change: Change) -> Path:
    folder = place / "push"
    shutil.copytree(pushed, folder)
    change(folder)
    return folder


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_folder_is_named_by_its_rule(case: Case, pushed: Path, tmp_path: Path) -> None:
    found = lint.lint(changed(pushed, tmp_path, case.change))
    names = {one.rule.name for one in found}
    assert case.rule in names, names
    (broken,) = [one for one in found if one.rule.name == case.rule][:1]
    assert broken.received and broken.rule.remedy and broken.rule.demands
    assert case.rule in str(broken) and broken.rule.remedy in str(broken)
    with pytest.raises(BundleError):
        lint.refuse(found)


@pytest.mark.parametrize("name", VALID)
def test_a_valid_folder_passes(name: str, pushed: Path, tmp_path: Path) -> None:
    assert lint.lint(changed(pushed, tmp_path, VALID[name])) == []


def test_every_rule_has_a_case_and_a_name_of_its_own() -> None:
    names = [rule.name for rule in lint.RULES]
    assert len(names) == len(set(names))
    assert {case.rule for case in BROKEN} == set(names)
    assert len({case.name for case in BROKEN}) == len(BROKEN) >= 60
    assert len(VALID) >= 20
    assert f"`kit.bundles.lint`, {len(names)} rules" in (HERE.parent / "README.md").read_text(
        "utf-8"
    )


def test_a_refusal_names_demand_finding_and_remedy(pushed: Path, tmp_path: Path) -> None:
    folder = changed(pushed, tmp_path, without("enable_internet"))
    with pytest.raises(
        BundleError, match=r'internet-not-said.*left out it is on.*"enable_internet'
    ):
        lint.refuse(lint.lint(folder))


def ask(folders: list[Path]) -> dict[str, Any]:
    """Return what the real client sends for each folder, or why it refuses."""
    done = subprocess.run(
        [sys.executable, str(HERE / "kaggle_client.py"), *map(str, folders)],
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@needs_client
def test_the_real_client_agrees_on_all_that_it_checks(pushed: Path, tmp_path: Path) -> None:
    changes = {case.name: case.change for case in BROKEN if case.change is not heavy} | VALID
    folders = {}
    for number, (name, change) in enumerate(changes.items()):
        (tmp_path / str(number)).mkdir()
        folders[name] = changed(pushed, tmp_path / str(number), change)
    answers = ask(list(folders.values()))
    refused = {
        name: [part["refused"] for part in answers[str(folder)].values() if part["refused"]]
        for name, folder in folders.items()
    }
    assert {name for name in VALID if refused[name]} == set()
    of_client = {case.name for case in BROKEN if case.client}
    assert {name for name in refused if refused[name]} == of_client
    assert len(of_client) >= 30


@needs_client
def test_the_client_sends_what_the_bundle_says(pushed: Path) -> None:
    """Compare the recorder's log with the one that is kept, word for word."""
    (answer,) = ask([pushed]).values()
    (call, request), (made, files) = answer["kernel"]["sent"][0], answer["dataset"]["sent"][0]
    sent = json.loads(request.pop("text"))
    assert [cell["source"] for cell in sent["cells"]] == [
        "".join(cell["source"])
        for cell in json.loads((pushed / kaggle.CODE).read_text(encoding="utf-8"))["cells"]
    ]
    assert sent["metadata"]["kernelspec"]["name"] == "python3"
    assert answer["kernel"]["said"] == ""  # no word of a title that makes another slug
    log = {"kernel": [call, request], "dataset": [made, files]}
    kept = json.loads((HERE / "kaggle_push.json").read_text(encoding="utf-8"))
    uploaded = sorted(file["token"] for file in log["dataset"][1].pop("files"))
    assert uploaded == sorted(p.name for p in (pushed / FOLDER).iterdir() if p.name != DATASET)
    assert log == kept
