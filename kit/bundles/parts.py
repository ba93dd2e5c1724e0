"""What every bundle is made of: the kit as a wheel, a finished run's networks, checksums."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import kit
from kit import carried, doctor, finished
from kit.challenge import Challenge
from kit.errors import BundleError, MissingDataError
from kit.files import read_json, sha256, write_text
from kit.manifest import FILE, home, load_manifest

SUMS = "SHA256SUMS"
SEVERAL = "ensemble.networks"
"""An archive of several runs, by a name that Kaggle does not unpack."""
ENTRY = "[console_scripts]\nkit = kit.cli:main\n"
TAG = "py3-none-any"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources give the same bytes


def wheel(folder: Path) -> Path:
    """Write the kit as a pure-Python wheel with the manifest in use; nothing is downloaded.

    The same sources give the same bytes.
    """
    name = f"{doctor.DISTRIBUTION.replace('-', '_')}-{kit.__version__}"
    package, info = Path(kit.__file__).parent, f"{name}.dist-info"
    files = {f"kit/{path.relative_to(package).as_posix()}": path.read_bytes()
             for path in sorted(package.rglob("*"))
             if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    files[f"kit/{FILE}"] = load_manifest().path.read_bytes()
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()
    )
    files[f"{info}/entry_points.txt"] = ENTRY.encode()
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    target = folder / f"{name}-{TAG}.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return target


def _metadata() -> str:
    lines = [
        "Metadata-Version: 2.1", f"Name: {doctor.DISTRIBUTION}", f"Version: {kit.__version__}",
        "License: Apache-2.0", "Requires-Python: >=3.11,<3.14",
    ]  # fmt: skip
    return "\n".join([*lines, *(f"Requires-Dist: {line}" for line in doctor.declared())]) + "\n"


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def newest_run(challenge: Challenge) -> Path:
    """Return the folder of the challenge's newest finished run, made on its own data.

    Raises:
        MissingDataError: There is none; says how one is made.
    """
    place = home(load_manifest().path) / "submissions" / challenge.name
    made = [path.parent for path in place.glob("*/ensemble.json")
            if (path.parent / "settings.json").is_file()]  # fmt: skip
    own = [out for out in made if _is_of(challenge, out)]
    if not own:
        drawn = " but on drawn data" if made else ""
        raise MissingDataError(
            f"no weights: no finished run of the challenge{drawn}", path=place,
            remedy=f"kit run {challenge.name}; or name a run with --run; or --train, to train "
            "there",
        )  # fmt: skip
    return max(own, key=lambda out: ((out / "ensemble.json").stat().st_mtime, out.name))


def _is_of(challenge: Challenge, out: Path) -> bool:
    """Return whether a run is of the challenge's own data and not of drawn ones in their place."""
    said = read_json(out / "settings.json")
    own = said["compared"]["challenge"] == challenge.name
    return own and (challenge.dataset.synthetic or not said["synthetic"])


def drawn(run: Path) -> bool:
    """Return whether a run, or one of an ensemble's, has learnt from drawn data."""
    runs = finished.load_all(run).values()
    return any(read_json(one.out / "settings.json")["synthetic"] for one in runs)


def networks(out: Path, folder: Path, challenge: str) -> list[Path]:
    """Copy what a prediction needs of a finished run, or of an ensemble's runs; see `kit.carried`.

    Raises:
        BundleError: A run is of another challenge.
        MissingDataError: A run is not finished, or a network is missing or damaged.
    """
    for run in finished.load_all(out).values():
        made_for = read_json(run.out / "settings.json")["compared"]["challenge"]
        if made_for != challenge:
            raise BundleError(
                "the run is of another challenge", expected=challenge, received=made_for,
                path=run.out, remedy=f"bundle {made_for} instead, or name another --run",
            )  # fmt: skip
    return carried.carry(out, folder)


def check_sums(folder: Path) -> list[str]:
    """Return the files that SHA256SUMS names.

    Raises:
        BundleError: One of them is missing or another one, or a line is none of SHA256SUMS.
    """
    named = []
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        named.append(name)
        if not path.is_file() or sha256(path) != digest:
            raise BundleError(
                "a file did not arrive as it was sent", path=path, expected=f"sha256 {digest}",
                received="no file" if not path.is_file() else sha256(path),
                remedy="upload the dataset again, as a new version",
            )  # fmt: skip
    return named


def checksums(folder: Path) -> Path:
    """Write SHA256SUMS of all files in a folder, as `sha256sum -c` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))
    return folder / SUMS
