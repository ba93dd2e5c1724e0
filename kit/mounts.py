"""Where mounted inputs lie: right below one folder, or sorted by kind as newer Kaggle images do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

KAGGLE = PurePosixPath("/kaggle/input")
LAYOUTS = ("", "competitions", "datasets/*", "models/*/*/*/*")
"""Below the mounted inputs, where a slug's folder may be; * is any owner, and so on."""


def below(path: str) -> str:
    """Return a path relative to the mounted inputs, whether or not it says /kaggle/input."""
    pure = PurePosixPath(path)
    return str(pure.relative_to(KAGGLE)) if pure.is_relative_to(KAGGLE) else path


def places(inputs: Path, path: str) -> Iterator[Path]:
    """Yield each place below `inputs` where `path`, a slug and what follows, may be."""
    for layout in LAYOUTS:
        yield from (
            folder / path for folder in (sorted(inputs.glob(layout)) if layout else [inputs])
        )


def find(inputs: Path, pattern: str) -> list[Path]:
    """Return what matches `pattern`, a slug (or *) and what follows, in either layout, sorted."""
    layouts = [f"{layout}/" if layout else "" for layout in LAYOUTS]
    return sorted(hit for layout in layouts for hit in inputs.glob(f"{layout}{pattern}"))


def looked_for(inputs: Path, path: str) -> str:
    """Return the places of `places` in words, those too of which no folder stands."""
    return ", ".join(str(inputs / layout / path) for layout in LAYOUTS)
