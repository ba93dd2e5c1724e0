"""What must not leave: keys and tokens, private paths, patients' columns, outputs, bulk."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kit.errors import BundleError

SHOWN = 5
ARCHIVES = (".zip", ".whl", ".keras", ".npz", ".networks")
SECRET_FILES = re.compile(
    r"kaggle\.json|\.env(\..*)?|\.netrc|_netrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|credentials"
    r"(\.json)?|.*\.(pem|p12|pfx|key|keystore|kdbx)", re.IGNORECASE,
)  # fmt: skip
SECRETS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY",
    "a Kaggle token": r"\bKGAT_[0-9a-zA-Z]{16,}",
    "a Kaggle key": r"[\"']key[\"']\s*:\s*[\"'][0-9a-f]{32}[\"']",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_\w{22,})",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a Hugging Face token": r"\bhf_[0-9A-Za-z]{30,}",
    "an OpenAI key": r"\bsk-[0-9A-Za-z_-]{20,}",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+",
    "a password in an address": r"\w://[^\s/:@'\"{}<>]+:[^\s/:@'\"{}<>]+@",
    "a password": r"(?i)\b(?:\w+_)?(?:password|passwd|secret|api_?key|(?:access|auth|api)_?token)"
                  r"[\"']?\s*[:=]\s*[\"'][^\"'\s{}<>$]{8,}[\"']",
}  # fmt: skip
"""What it is: how it looks in a text."""
HOMES = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|Users)/[\w.-]+/|/root/\w)|\b[A-Za-z]:\\+Users\\+[\w.-]+"
)
ABSOLUTE = re.compile(r"(?<![\w.:/~\\>)}*-])/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
PUBLIC = tuple(
    f"/{top}/" for top in "kaggle data bin dev etc lib opt proc run sbin sys tmp usr var".split()
)
"""Places that are the same on every machine, or the platform's own."""
TABLES = (".csv", ".tsv", ".txt", ".parquet")
PATIENTS = re.compile(
    r"(?:patient|person|subject)(?:s?_?(?:id|name|no|number|key|code))?|(?:first|last|full|family|"
    r"given)_?name|surname|mrn|ssn|nhs_?(?:no|number)|hospital_?(?:id|no|number)|(?:date_?of_?)?"
    r"birth(?:_?(?:date|day))?|dob|address|post_?code|zip_?code|phone(?:_?number)?|e?_?mail|"
    r"환자.*|이름|주민.*|생년월일|전화.*|주소", re.IGNORECASE,
)  # fmt: skip
REMEDIES = {
    "secret": "take it out, and make a new one: what stood in a file may be known already",
    "path": "name files relative to the data folder, or take the line out",
    "patients": "leave the table out: a prediction needs no table of patients",
    "outputs": "clear the notebook's outputs: they may show data",
    "images": "leave it out: a bundle needs no image, and its header may name the patient",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """One thing that must not leave: what kind, where (`file`, `file:line`), and what it is."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file below a folder, by its path with `/`, sorted."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def refuse_surplus(folder: Path, most_mb: float) -> None:
    """Raise `BundleError` with the largest files if a folder has more than `most_mb` megabytes."""
    found = sizes(folder)
    if sum(found.values()) <= most_mb * 1e6:
        return
    raise BundleError(
        "the bundle is too large", expected=f"at most {most_mb:,.0f} MB", received=largest(found),
        remedy="a run of fewer or smaller networks (kit run --seeds, --set model=), "
        "or another limit, --max-mb",
    )  # fmt: skip


def largest(found: Mapping[str, int]) -> str:
    """Return in words how much files of these bytes are together, and the largest of them."""
    names = sorted(found, key=lambda name: -found[name])[:SHOWN]
    listed = ", ".join(f"{name} {found[name] / 1e6:,.1f} MB" for name in names)
    return f"{sum(found.values()) / 1e6:,.1f} MB; largest: {listed}"


def refuse_secrets(folder: Path) -> None:
    """Raise `BundleError` if a file of the folder holds what must not leave."""
    found = findings(folder)
    if not found:
        return
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    kinds = dict.fromkeys(one.kind for one in found)
    raise BundleError(
        "the bundle holds what must not leave",
        received="; ".join(map(str, found[:SHOWN])) + more,
        remedy="; ".join(REMEDIES[kind] for kind in kinds),
    )


def findings(folder: Path) -> list[Found]:
    """Return what must not leave, in files and in the archives among them.

    Secrets are named by their kind and place; their text is never repeated.
    """
    found: list[Found] = []
    for name in sizes(folder):
        found += _of_file(name, (Path(folder) / name).read_bytes())
    return found


def _of_file(name: str, data: bytes) -> Iterator[Found]:
    path = PurePosixPath(name.rsplit("!", 1)[-1])
    suffix = path.suffix.lower()
    if SECRET_FILES.fullmatch(path.name):
        yield Found("secret", name, "a file that keeps secrets, by its name")
    if suffix in (".dcm", ".svs", ".mrxs", ".ndpi", ".scn") or data[128:132] == b"DICM":
        yield Found("images", name, "an image of a patient")
    if suffix in ARCHIVES and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _of_file(f"{name}!{member}", archive.read(member))
        return
    if suffix in TABLES:
        yield from _of_table(name, suffix, data)
    text = _text(data)
    if text is None:
        return
    if suffix == ".ipynb":
        yield from _of_notebook(name, text)
    yield from _of_text(name, text)


def _text(data: bytes) -> str | None:
    """Return what a file says, or None if it is no text."""
    if b"\0" in data[:4096]:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _of_text(name: str, text: str) -> Iterator[Found]:
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{name}:{number}"
        for what, pattern in SECRETS.items():
            if re.search(pattern, line):
                yield Found("secret", where, what)
        private = HOMES.search(line) or next(filter(_is_here, ABSOLUTE.finditer(line)), None)
        if private:
            yield Found("path", where, f"a path of one machine, {private[0]}")


def _is_here(match: re.Match[str]) -> bool:
    """Return whether an absolute path is one of this machine and of no other."""
    return not match[0].startswith(PUBLIC) and Path(match[0]).exists()


def _of_table(name: str, suffix: str, data: bytes) -> Iterator[Found]:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        columns = list(pq.read_schema(io.BytesIO(data)).names)
    else:
        first = (_text(data) or "").lstrip("\ufeff").split("\n", 1)[0]
        columns = [part.strip(" \"'\r") for part in re.split(r"[,;\t|]", first)]
    private = [column for column in columns if PATIENTS.fullmatch(column.strip())]
    if private:
        yield Found("patients", name, f"a table with the column {', '.join(private)}")


def _of_notebook(name: str, text: str) -> Iterator[Found]:
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError):
        return
    if any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
        yield Found("outputs", name, "a notebook with outputs")
