"""Kaggle's rules for the dataset that travels with a notebook, and the kit's own for its files."""

from __future__ import annotations

from collections.abc import Iterator

from kit.bundles import parts, scan
from kit.bundles.kernel_rules import OWNER, SLUG
from kit.bundles.push import DATASET, FOLDER, Push, Rules, read, said, unread
from kit.errors import KitError

KEYS = (
    "id", "id_no", "title", "subtitle", "description", "licenses", "keywords", "resources",
)  # fmt: skip
LICENCES = frozenset(
    "CC0-1.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC-BY-NC-SA-4.0 GPL-2.0 ODbL-1.0 DbCL-1.0 reddit-api "
    "world-bank copyright-authors other unknown CC-BY-4.0 CC-BY-NC-4.0 PDDL CC-BY-3.0 "
    "CC-BY-3.0-IGO US-Government-Works CC-BY-NC-SA-3.0-IGO CDLA-Permissive-1.0 CDLA-Sharing-1.0 "
    "CC-BY-ND-4.0 CC-BY-NC-ND-4.0 ODC-BY-1.0 LGPL-3.0 AGPL-3.0 FDL-1.3 EU-ODP-Legal-Notice "
    "apache-2.0 GPL-3.0".split()
)
"""As Kaggle's documentation of dataset-metadata.json lists them."""
LENGTHS, SUBTITLE = range(6, 51), range(20, 81)
MOST_FILES, MOST_MB = 100, 2000.0
RULES = Rules()


def _parts(push: Push) -> list[str]:
    identity = push.dataset.get("id")
    return identity.split("/") if isinstance(identity, str) else []


@RULES("dataset-metadata", f"{FOLDER}/{DATASET} is a JSON object",
       "make the bundle again: kit bundle kaggle")  # fmt: skip
def _metadata(push: Push) -> Iterator[str]:
    path = push.attached / DATASET
    if read(path) is None:
        yield unread(path)


@RULES("dataset-unknown-key", "no key but Kaggle's: others pass in silence",
       "correct its spelling")  # fmt: skip
def _unknown(push: Push) -> Iterator[str]:
    yield from (said(key) for key in push.dataset if key not in KEYS)


@RULES("dataset-not-said", "id, title and licenses are said", "write it")
def _missing(push: Push) -> Iterator[str]:
    for key in ("id", "title", "licenses") if push.dataset else ():
        if push.dataset.get(key) in (None, ""):
            yield f"no {key}"


@RULES("dataset-id", 'id is "owner/slug", of lower case letters, digits and hyphens', "write it so")
def _id(push: Push) -> Iterator[str]:
    found, given = _parts(push), push.dataset.get("id")
    fits = len(found) == 2 and OWNER.fullmatch(found[0]) and SLUG.fullmatch(found[1])
    if given and not fits:
        yield said(given)


@RULES("dataset-slug", f"the slug has {LENGTHS[0]} to {LENGTHS[-1]} characters", "choose another")
def _slug(push: Push) -> Iterator[str]:
    found = _parts(push)
    if len(found) == 2 and len(found[1]) not in LENGTHS:
        yield f"{said(found[1])}, {len(found[1])} characters"


@RULES("dataset-title", f"the title has {LENGTHS[0]} to {LENGTHS[-1]} characters", "choose another")
def _title(push: Push) -> Iterator[str]:
    title = push.dataset.get("title")
    if title and (not isinstance(title, str) or len(title) not in LENGTHS):
        yield f"{said(title)}, {len(str(title))} characters"


@RULES("licence", "there is exactly one licence, by its name on Kaggle",
       'write "licenses": [{"name": "other"}]')  # fmt: skip
def _licence(push: Push) -> Iterator[str]:
    found = push.dataset.get("licenses")
    if found in (None, ""):
        return
    one = found[0] if isinstance(found, list) and len(found) == 1 else None
    if not isinstance(one, dict) or str(one.get("name")) not in LICENCES:
        yield said(found)


@RULES("subtitle", f"a subtitle has {SUBTITLE[0]} to {SUBTITLE[-1]} characters", "or leave it out")
def _subtitle(push: Push) -> Iterator[str]:
    found = push.dataset.get("subtitle")
    if found and (not isinstance(found, str) or len(found) not in SUBTITLE):
        yield said(found)


@RULES("resources", "each of the resources is a file of the dataset, once", "correct the list")
def _resources(push: Push) -> Iterator[str]:
    found = push.dataset.get("resources") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        yield said(found)
        return
    named = [str(one.get("path")) for one in found]
    for path in dict.fromkeys(named):
        if not (push.attached / path).is_file() or named.count(path) > 1:
            yield said(path)


@RULES("folders", "the dataset has no folders: the upload leaves them out",
       "lay the files side by side, or upload with --dir-mode zip")  # fmt: skip
def _folders(push: Push) -> Iterator[str]:
    if push.attached.is_dir():
        yield from sorted(path.name for path in push.attached.iterdir() if path.is_dir())


@RULES("wheel", "one pure-Python wheel of the kit travels", "make the bundle again")
def _wheel(push: Push) -> Iterator[str]:
    found = sorted(push.attached.glob("*.whl"))
    if len(found) != 1 or not found[0].name.endswith(f"-{parts.TAG}.whl"):
        yield ", ".join(path.name for path in found) or "no wheel"


@RULES("checksums", f"{parts.SUMS} names every file with its sha256", "make the bundle again")
def _sums(push: Push) -> Iterator[str]:
    if not (push.attached / parts.SUMS).is_file():
        yield "no such file"
        return
    try:
        named = parts.check_sums(push.attached)
    except KitError as error:
        yield str(error)
        return
    own = {parts.SUMS, DATASET, *named}
    yield from sorted(p.name for p in push.attached.iterdir() if p.is_file() and p.name not in own)


@RULES("file-count", f"the dataset has at most {MOST_FILES} files",
       "take out what no prediction needs")  # fmt: skip
def _count(push: Push) -> Iterator[str]:
    found = [path for path in push.attached.rglob("*") if path.is_file()]
    if len(found) > MOST_FILES:
        yield f"{len(found)} files"


@RULES("dataset-size", f"the dataset has at most {MOST_MB:,.0f} MB",
       "a run of fewer or smaller networks")  # fmt: skip
def _size(push: Push) -> Iterator[str]:
    found = scan.sizes(push.attached)
    if sum(found.values()) > MOST_MB * 1e6:
        yield scan.largest(found)
