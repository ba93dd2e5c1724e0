"""Kaggle's push folder: notebook, metadata, and the dataset that travels with them."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import zipfile
from pathlib import Path

from kit import mounts
from kit.bundles import Options, dataset_rules, lint, notebook, parts
from kit.bundles.push import DATASET, FOLDER, KERNEL, PLACEHOLDER
from kit.challenge import Challenge
from kit.errors import BundleError
from kit.files import read_json, write_json
from kit.manifest import Dataset

MOST_MB = dataset_rules.MOST_MB
CODE = "notebook.ipynb"
ADDRESS = re.compile(r"kaggle\.com/(competitions|c|datasets)/([\w/-]+)")
UNKNOWN = "owner-unknown"
"""The rule that alone does not stop a bundle: a name is quickly put in."""


def fill(folder: Path, challenge: Challenge, options: Options) -> None:
    """Write notebook, metadata and attached dataset.

    Raises:
        BundleError: A rule of `kit.bundles.lint` is broken.
        MissingDataError: No finished run is there, and `options.train` is not said.
    """
    owner = options.owner or os.environ.get("KAGGLE_USERNAME") or PLACEHOLDER
    slug = slug_of(challenge.name)
    attached = folder / FOLDER
    attached.mkdir()
    parts.wheel(attached)
    if not options.train:
        _networks(options.run or parts.newest_run(challenge), attached, challenge.name)
    parts.checksums(attached)
    files = f"{slug}-files"
    write_json(attached / DATASET, {
        "id": f"{owner}/{files}", "title": _title(files), "licenses": [{"name": "other"}],
    })  # fmt: skip
    (folder / CODE).write_bytes(notebook.of(challenge.name, trains=options.train))
    sources, competitions = _sources(challenge.dataset, owner)
    shape = "" if options.accelerator == "none" else options.accelerator
    write_json(folder / KERNEL, {
        "id": f"{owner}/{slug}", "title": _title(slug), "code_file": CODE,
        "language": "python", "kernel_type": "notebook", "is_private": True,
        "enable_gpu": bool(shape) and not shape.startswith("Tpu"),
        "enable_tpu": shape.startswith("Tpu"), "enable_internet": False, "machine_shape": shape,
        "dataset_sources": [f"{owner}/{files}", *sources], "competition_sources": competitions,
        "kernel_sources": [], "model_sources": [],
    })  # fmt: skip
    lint.refuse([one for one in lint.lint(folder) if one.rule.name != UNKNOWN])


def _networks(run: Path, attached: Path, challenge: str) -> None:
    """Copy a run's networks; several runs' go into one archive, for folders are not uploaded."""
    if not run.is_file():
        parts.networks(run, attached, challenge)
        return
    with tempfile.TemporaryDirectory(dir=attached.parent) as place:
        parts.networks(run, Path(place), challenge)
        with zipfile.ZipFile(attached / parts.SEVERAL, "w") as archive:
            for path in sorted(path for path in Path(place).rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(place).as_posix())


def slug_of(name: str) -> str:
    """Return the slug of a challenge's notebook: "kit-" and the name."""
    return "kit-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _title(slug: str) -> str:
    return slug.replace("-", " ")


def _sources(dataset: Dataset, owner: str) -> tuple[list[str], list[str]]:
    """Return the datasets and the competitions that hold the data, as the manifest names them."""
    if dataset.synthetic:
        return [], []  # they are drawn there
    if "kaggle" not in dataset.roots:
        raise BundleError(
            f"dataset {dataset.name} has no root for kaggle", path=dataset.manifest,
            expected="roots: {kaggle: SLUG/FOLDER}", remedy="name it in the manifest",
        )  # fmt: skip
    slug = mounts.below(dataset.roots["kaggle"]).split("/")[0]
    address = ADDRESS.search(dataset.source)
    kind, there = (address[1], address[2].strip("/")) if address else ("", "")
    if kind in ("competitions", "c") and there == slug:
        return [], [slug]
    named = there if kind == "datasets" and there.endswith(f"/{slug}") else f"{owner}/{slug}"
    return [named], []


def left(folder: Path) -> list[str]:
    """Return what is still to be done by hand."""
    return [str(one) for one in lint.lint(folder)]


def steps(folder: Path) -> list[str]:
    """Return the commands that hand the bundle over."""
    identity = read_json(folder / FOLDER / DATASET)["id"]
    return [
        f"kaggle datasets create -p {shlex.quote(str(folder / FOLDER))}",
        f"kaggle datasets status {identity}  # until it says ready",
        f"kaggle kernels push -p {shlex.quote(str(folder))}",
    ]
