"""What must not leave: keys and tokens, private paths, patients' columns, outputs, bulk."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kit.errors import BundleError

SHOWN = 5
ARCHIVES = (".zip", ".whl", ".keras", ".npz", ".networks")
SECRET_FILES = re.compile(
    r"kaggle\.json|\.env(\..*)?|\.netrc|_netrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|credentials"
    r"(\.json)?|.*\.(pem|p12|pfx|key|keystore|kdbx)", re.IGNORECASE,
)  # fmt: skip
NAME = (
    r"(?:\w+_)?(?:password|passwd|pwd|secret|token|"
    r"(?:api|access|secret|private|kaggle|account)_?key)"
)
"""How the names of secrets end."""
VALUE = r"[^\s\"'\\{}<>$()\[\],;]{8,}"
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
    "a bearer token": r"\bBearer\s+[\w.~+/-]{16,}=*",
    "a password": rf"(?i)\b{NAME}[\"']?\]?\s*[:=]\s*[\"'][^\"'\s{{}}<>$]{{8,}}[\"']",
    "a password set for programs": rf"(?i)(?:\bexport|\bsetenv|\bENV|\bset|%env|%set_env)\s+"
                                   rf"{NAME}[\s=]{VALUE}",
}  # fmt: skip
"""What it is: how it looks in a text."""
IMAGES = tuple(
    ".dcm .svs .mrxs .ndpi .scn .bif .vsi .czi .tif .tiff .jpg .jpeg .png .bmp .nii .nrrd "
    ".mha".split()
)
OPAQUE = tuple(".xlsx .xls .ods .docx .pdf .db .sqlite .sqlite3 .feather .rds .dta".split())
"""Images, and files that may hold a table of patients and are read by programs of their own."""
CODE = (".py", ".ipynb")
UNQUOTED = re.compile(rf"(?i)^\s*(?:-\s+)?{NAME}\s*[:=]\s*{VALUE}\s*(?:#.*)?$")
"""A password in a file of settings; in Python such a line names a variable."""
HOMES = re.compile(
    r"(?:(?<![\w.:/~-])|file:(?://[\w.-]*)?)(?:(?:/export)?/(?:home|Users)/[\w.-]+|/root/\w)"
    r"|/mnt/[a-z]/Users/[\w.-]+|\b[A-Za-z]:[\\/]+Users[\\/]+[\w.-]+"
)
ABSOLUTE = re.compile(r"(?<![\w.:/~\\>)}*-])/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
PUBLIC = tuple(
    f"/{top}/" for top in "kaggle data bin dev etc lib opt proc run sbin sys tmp usr var".split()
)
"""Places that are the same on every machine, or the platform's own."""
TABLES = (".csv", ".tsv", ".txt", ".dat", ".parquet")
LISTS = (".json", ".jsonl", ".ndjson", ".geojson")
PATIENTS = re.compile(
    r"(?:patient|person|subject|pt)s?_?(?:ids?|name|no|number|key|code|dob|birth_?date|birth_?day|"
    r"address)|"
    r"patients?|persons?|subjects?|(?:first|last|full|family|given)_?name|surname|mrn|ssn|"
    r"nhs_?(?:no|number)|(?:hospital|chart|(?:medical_?)?record|accession)_?(?:id|no|number)|"
    r"(?:date_?of_?)?birth|birth_?date|birth_?day|dob|address|post_?code|zip_?code|phone(?:_?number)?|"
    r"e?_?mail|환자.*|이름|성명|등록번호|차트번호|주민.*|생년월일|전화.*|주소", re.IGNORECASE,
)  # fmt: skip
"""Names of columns, with `_` for blanks, points and hyphens."""
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
        "the bundle is too large", expected=f"at most {most_mb:,g} MB", received=largest(found),
        remedy="leave out what need not travel, take a run of fewer or smaller networks "
        "(kit run --seeds, --set model=), or another limit, --max-mb",
    )  # fmt: skip


def largest(found: Mapping[str, int]) -> str:
    """Return in words how much files of these bytes are together, and the largest of them."""
    names = sorted(found, key=lambda name: -found[name])[:SHOWN]
    listed = ", ".join(f"{name} {_size(found[name])}" for name in names)
    return f"{_size(sum(found.values()))}; largest: {listed}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


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
    if suffix in IMAGES or path.name.endswith(".nii.gz") or data[128:132] == b"DICM":
        yield Found("images", name, "an image, which may be of a patient")
    if suffix in OPAQUE:
        yield Found("patients", name, "tables that are not looked into here")
    if suffix == ".gz" or path.name.endswith((".tgz", ".tar")):
        yield from _of_tar_or_gz(name, path, data)
        return
    if suffix in ARCHIVES and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _of_file(f"{name}!{member}", archive.read(member))
        return
    text = _text(data)
    if suffix == ".parquet" or (suffix in TABLES and text is not None):
        yield from _of_table(name, _columns(suffix, data, text or ""))
    if text is None:
        return
    if suffix in LISTS:
        yield from _of_table(name, _keys(text))
    if suffix == ".ipynb":
        yield from _of_notebook(name, text)
    yield from _of_text(name, text, settings=suffix not in CODE)


def _of_tar_or_gz(name: str, path: PurePosixPath, data: bytes) -> Iterator[Found]:
    """Look into what is packed; what cannot be unpacked may hold anything."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    yield from _of_file(f"{name}!{member.name}", stream.read())
    except tarfile.TarError:
        try:
            yield from _of_file(f"{name}!{path.stem}", gzip.decompress(data))
        except (OSError, EOFError, zlib.error):
            yield Found("patients", name, "an archive that cannot be looked into")


def _text(data: bytes) -> str | None:
    """Return what a file says, in whatever encoding, or None if it is no text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    start = data[:4096]
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) / 2 and zeros.count(0) == start.count(0):
            return data.decode(encoding, errors="replace")
    if b"\0" in start:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _of_text(name: str, text: str, *, settings: bool) -> Iterator[Found]:
    """Find secrets and private paths, a line at a time.

    Args:
        name: Where the text stands.
        text: All of it.
        settings: Whether what follows a name without quotes is a value, as in files of settings.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{name}:{number}"
        bare = re.sub(r"\\([\"'])", r"\1", line)  # a notebook's code stands in JSON
        for what, pattern in SECRETS.items():
            if re.search(pattern, bare):
                yield Found("secret", where, what)
        if settings and UNQUOTED.search(line):
            yield Found("secret", where, "a password")
        private = HOMES.search(line) or next(filter(_is_here, ABSOLUTE.finditer(line)), None)
        if private:
            yield Found("path", where, f"a path of one machine, {private[0]}")


def _is_here(match: re.Match[str]) -> bool:
    """Return whether an absolute path is one of this machine and of no other."""
    return not match[0].startswith(PUBLIC) and Path(match[0]).exists()


def _columns(suffix: str, data: bytes, text: str) -> list[str]:
    """Return the names of a table's columns: its first line that is neither empty nor a remark."""
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(io.BytesIO(data)).names)
    lines = (
        line
        for line in text.lstrip("\ufeff").splitlines()
        if line.strip(" #,;\t") and not line.startswith("sep=")
    )
    found = next((line for line in lines if not line.startswith("#") or _private(_split(line))), "")
    return _split(found)


def _split(line: str) -> list[str]:
    return [part.strip(" \"'#") for part in re.split(r"[,;\t|]", line)]


def _keys(text: str) -> list[str]:
    """Return the keys of all objects in JSON, or in lines of it."""
    found: dict[str, None] = {}

    def note(pairs: list[tuple[str, object]]) -> None:
        found.update(dict.fromkeys(key for key, _ in pairs))

    for part in (text, *text.splitlines()):
        with contextlib.suppress(ValueError):
            json.loads(part, object_pairs_hook=note)
            if part is text:
                break
    return list(found)


def _private(names: Iterable[str]) -> list[str]:
    """Return the names that say who a patient is."""
    forms = {name: re.sub(r"[\s.-]+", "_", name.strip()) for name in names}
    return [name for name, form in forms.items() if PATIENTS.fullmatch(form)]


def _of_table(name: str, columns: Iterable[str]) -> Iterator[Found]:
    private = _private(columns)
    if private:
        yield Found("patients", name, f"a table with the column {', '.join(private)}")


def _of_notebook(name: str, text: str) -> Iterator[Found]:
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError):
        return
    if any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
        yield Found("outputs", name, "a notebook with outputs")
