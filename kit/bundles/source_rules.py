"""Kaggle's rules for what a notebook is attached to, and for the notebook itself."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import yaml

from kit import mounts
from kit.bundles.kernel_rules import (
    MOST_CODE_MB,
    MOUNTED,
    OPTIONAL,
    PINNING,
    SLUG,
    SOURCES,
    slug_of,
)
from kit.bundles.push import Push, Rules, read, said
from kit.manifest import FILE

RULES = Rules()
FETCHES = re.compile(
    r"\b(?:pip[\d.]*|conda|mamba|apt|apt-get)\b.*\b(?:install|download)\b|\bgit\s+clone\b|\bwget\b|\bcurl\b"
)
"""Commands that want a network."""


@RULES("sources-list", f"{', '.join(SOURCES)} are lists of text", "write [] where there is none")
def _lists(push: Push) -> Iterator[str]:
    for key in SOURCES:
        found = push.kernel.get(key, [])
        if found is None or found == "":
            continue
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            yield f"{key}: {said(found)}"


@RULES("dataset-source", 'a dataset source is "owner/slug", at most with a version',
       "copy it from the dataset's address")  # fmt: skip
def _datasets(push: Push) -> Iterator[str]:
    for one in push.sources("dataset_sources"):
        parts = one.split("/")
        if len(parts) not in (2, 3) or not all(parts) or "\n" in one or " " in one:
            yield said(one)


@RULES("kernel-source", 'a kernel source is "owner/slug", its slug of 5 characters or more',
       "copy it from the notebook's address")  # fmt: skip
def _kernels(push: Push) -> Iterator[str]:
    for one in push.sources("kernel_sources"):
        parts = one.split("/")
        if len(parts) not in (2, 3) or not all(parts) or len(parts[1]) < 5:
            yield said(one)


@RULES("competition-source", "a competition source is the competition's slug alone",
       "copy the last part of its address")  # fmt: skip
def _competitions(push: Push) -> Iterator[str]:
    for one in push.sources("competition_sources"):
        if not SLUG.fullmatch(one):
            yield said(one)


@RULES("model-source", 'a model source is "owner/model/framework/variation/version"',
       "copy it from the model's page; the version is a number")  # fmt: skip
def _models(push: Push) -> Iterator[str]:
    for one in push.sources("model_sources"):
        parts = one.split("/")
        if len(parts) != 5 or not all(parts) or not parts[-1].isdigit():
            yield said(one)


@RULES("source-twice", "each source stands once", "take one of them out")
def _twice(push: Push) -> Iterator[str]:
    for key in SOURCES:
        found = push.sources(key)
        yield from (f"{key}: {said(one)}" for one in dict.fromkeys(found) if found.count(one) > 1)


@RULES("dataset-not-attached", "the dataset beside the notebook is one of its dataset_sources",
       "write its id there")  # fmt: skip
def _not_attached(push: Push) -> Iterator[str]:
    identity = push.dataset.get("id")
    named = ["/".join(one.split("/")[:2]) for one in push.sources("dataset_sources")]
    if push.kernel and isinstance(identity, str) and identity and identity not in named:
        yield said(identity)


def slugs(push: Push) -> set[str]:
    """Return the slugs of all sources, as they are mounted."""
    owned = [slug_of(one) for key in SOURCES for one in push.sources(key) if "/" in one]
    return {*owned, *push.sources("competition_sources")}


@RULES("input-not-attached", "each folder of /kaggle/input that the code names is a source",
       "add its dataset or competition to the sources, or correct the folder")  # fmt: skip
def _inputs(push: Push) -> Iterator[str]:
    if push.code is None:
        return
    text = push.code.read_text(encoding="utf-8", errors="replace")
    kinds = {"competitions", "datasets", "models"}
    named = dict.fromkeys(hit[1] for hit in MOUNTED.finditer(text) if hit[1] not in kinds)
    yield from (f"/kaggle/input/{slug}" for slug in named if slug not in slugs(push))


@RULES("data-not-attached", "the data of the notebook's CHALLENGE are a source",
       "add their dataset or competition, as the manifest's kaggle root names it")  # fmt: skip
def _data(push: Push) -> Iterator[str]:
    entry = _entry(push)
    if entry is None or entry.get("synthetic"):
        return
    slug = mounts.below(str(entry["roots"].get("kaggle", ""))).split("/")[0]
    if slug not in slugs(push):
        yield slug


def _entry(push: Push) -> dict[str, Any] | None:
    """Return the entry of the notebook's CHALLENGE in the manifest of the attached wheel."""
    text = "\n".join(_source(cell) for cell in push.cells)
    named = re.search(r'^CHALLENGE = "([^"]+)"', text, re.MULTILINE)
    wheels = sorted(push.attached.glob("*.whl"))
    if not named or not wheels or not zipfile.is_zipfile(wheels[0]):
        return None
    with zipfile.ZipFile(wheels[0]) as archive:
        if f"kit/{FILE}" not in archive.namelist():
            return None
        found = yaml.safe_load(archive.read(f"kit/{FILE}"))
    entry = found["datasets"].get(named[1])
    return entry if isinstance(entry, dict) else None


@RULES("notebook", "the notebook is JSON with cells, and its code can be read by Python",
       "make the bundle again, or repair it")  # fmt: skip
def _notebook(push: Push) -> Iterator[str]:
    if push.code is None or push.kernel.get("kernel_type") != "notebook":
        return
    if not push.cells:
        yield "no cells" if read(push.code) is not None else "no JSON object"
    for number, cell in enumerate(push.cells):
        source = _source(cell)
        if cell.get("cell_type") == "code" and not re.search(r"^\s*[%!?]", source, re.MULTILINE):
            try:
                compile(source, "cell", "exec")
            except (SyntaxError, ValueError) as error:
                yield f"cell {number}: {error}"


@RULES("kernelspec", "metadata.kernelspec names the kernel: without it Kaggle finds none",
       'write "kernelspec": {"display_name": "Python 3", "language": "python", '
       '"name": "python3"}')  # fmt: skip
def _kernelspec(push: Push) -> Iterator[str]:
    if not push.notebook:
        return
    metadata = push.notebook.get("metadata")
    found = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    if not isinstance(found, dict) or not found.get("name"):
        yield "no kernelspec" if not found else said(found)


@RULES("kernel-language", "the kernelspec's language is that of the metadata",
       "name the kernel of that language")  # fmt: skip
def _kernel_language(push: Push) -> Iterator[str]:
    metadata = push.notebook.get("metadata")
    found = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    given = found.get("language") if isinstance(found, dict) else None
    if isinstance(found, dict) and str(found.get("name")).lower() in ("ir", "r"):
        given = "R"
    asked = push.kernel.get("language")
    if isinstance(given, str) and isinstance(asked, str) and asked[:1] != given[:1].lower():
        yield f"{said(given)}, language is {said(asked)}"


@RULES("pip", "no cell installs from the network: there is none",
       "attach a wheel, and install it with --no-index")  # fmt: skip
def _pip(push: Push) -> Iterator[str]:
    for number, cell in enumerate(push.cells):
        source = _source(cell)
        shell = source.startswith(("%%bash", "%%sh"))
        for line in source.splitlines() if cell.get("cell_type") == "code" else ():
            asks = FETCHES.search(line) and (shell or line.lstrip().startswith(("!", "%")))
            if asks and "--no-index" not in line:
                yield f"cell {number}: {line.strip()}"


def _source(cell: dict[str, Any]) -> str:
    """Return a cell's text, "" where it is none."""
    found = cell.get("source", "")
    lines = found if isinstance(found, list) else [found]
    return "".join(line for line in lines if isinstance(line, str))


@RULES("outputs", "the notebook carries no outputs: they may show data", "clear them")
def _outputs(push: Push) -> Iterator[str]:
    full = [n for n, cell in enumerate(push.cells) if cell.get("outputs")]
    if full:
        yield f"cells {', '.join(map(str, full))}"


@RULES("code-size", f"code_file has at most {MOST_CODE_MB:g} MB",
       "move what it carries into the attached dataset")  # fmt: skip
def _code_size(push: Push) -> Iterator[str]:
    if push.code is not None and push.code.stat().st_size > MOST_CODE_MB * 1e6:
        yield f"{push.code.stat().st_size / 1e6:.1f} MB"


@RULES("image-pinning", f"docker_image_pinning_type is one of {', '.join(PINNING)}",
       "write one of them, or leave it out")  # fmt: skip
def _pinning(push: Push) -> Iterator[str]:
    found = push.kernel.get(OPTIONAL[-1])
    if found is not None and found not in PINNING:
        yield said(found)


@RULES("keywords", "keywords is a list of text", "write [] where there is none")
def _keywords(push: Push) -> Iterator[str]:
    found = push.kernel.get("keywords", [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        yield json.dumps(found)
