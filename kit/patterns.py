"""Path patterns with named places, such as `train/{label}/{case_id}.png`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SAME = (("jpg", "jpeg"), ("tif", "tiff"))
"""Suffixes of one format."""


def fill(pattern: str, values: Mapping[str, Any]) -> str | None:
    """Return `pattern` with its places filled, or None if a value is not known."""
    names = re.findall(r"\{(\w+)\}", pattern)
    if not all(isinstance(values.get(name), str) for name in names):
        return None
    return pattern.format(**{name: values[name] for name in names})


def find(root: Path, pattern: str, known: Iterable[str] = ()) -> list[tuple[str, dict[str, str]]]:
    """Return the paths under `root` that fit, sorted, each with the values of its places.

    A place and `*` stand for any text without `/`; names that begin with a dot are passed over.
    Capitals of a file's suffix do not count, and .jpg is .jpeg, .tif is .tiff: cameras differ.

    Args:
        root: The folder that the pattern starts from.
        pattern: With `/` on every system; a place that comes twice is the same text twice.
        known: Texts that {label} is tried with before any other, so that {label}_{case_id} works
            for labels with `_`.
    """
    parts = [part for part in re.split(r"(\{\w+\}|\*)", pattern) if part]
    suffix = os.path.splitext(pattern)[1]
    loose = re.fullmatch(r"\.\w+", suffix) is not None and parts[-1].endswith(suffix)
    if loose:
        parts[-1] = parts[-1].removesuffix(suffix) + "."
    wild = "".join("*" if part[0] in "{*" else glob.escape(part) for part in parts)
    regex = re.compile(_regex(parts, known) + (_suffix(suffix) if loose else ""))
    wild += "*" if loose else ""
    hits = sorted(hit.replace(os.sep, "/") for hit in glob.glob(wild, root_dir=root))
    matches = [(hit, regex.fullmatch(hit)) for hit in hits]
    return [(hit, match.groupdict()) for hit, match in matches if match]


def _suffix(suffix: str) -> str:
    """Return what a suffix is matched by, without its point."""
    name = suffix[1:].lower()
    same = next((names for names in SAME if name in names), (name,))
    return f"(?i:{'|'.join(map(re.escape, same))})"


def _regex(parts: list[str], known: Iterable[str]) -> str:
    labels = "|".join(re.escape(label) for label in sorted(known, key=len, reverse=True))
    text, seen = "", set()
    for part in parts:
        name = part.strip("{}")
        if part == "*":
            text += "[^/]*"
        elif part[0] != "{":
            text += re.escape(part)
        elif name in seen:
            text += f"(?P={name})"
        else:
            any_text = f"{labels}|[^/]+?" if name == "label" and labels else "[^/]+"
            text += f"(?P<{name}>{any_text})"
            seen.add(name)
    return text
