"""Files of pretrained weights: where they are, whether they are the right ones, what to do else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kit import mounts
from kit.checks import nearest
from kit.errors import ModelError
from kit.files import sha256 as sha256_of
from kit.manifest import Dataset, Weights

SCRATCH = "seresnet_small"
"""The network that the errors name for those who have no weights."""
FORMS = "a file .keras, .weights.h5, or .h5 of keras.applications without top"


def find(entry: Dataset | Mapping[str, Weights], name: str, roots: Path | Sequence[Path]) -> Path:
    """Return the file of weights that a manifest entry names, its sha256 checked.

    Args:
        entry: The entry, or its `weights`.
        name: One of them.
        roots: The folders that relative paths start from, such as the data folder and the
            platform's mounted inputs; below each also Kaggle's datasets/OWNER, models and
            competitions are looked through.

    Raises:
        ModelError: The name is unknown; no such file, and what to download and attach; or the
            file is another one.
    """
    known = entry.weights if isinstance(entry, Dataset) else entry
    if name not in known:
        raise ModelError(
            "weights are unknown", received=f"weights={name}",
            remedy=(nearest(name, known) if known else "name them under weights in the manifest")
            + ", or give the folder of a finished run on another data set",
        )  # fmt: skip
    wanted = known[name]
    folders = [roots] if isinstance(roots, Path) else list(roots)
    tried = list(dict.fromkeys(_places(wanted.path, folders)))
    for place in tried:
        if place.is_file():
            return verified(place, wanted.sha256)
    listed = ", ".join(map(str, tried))
    raise ModelError(
        f"weights {name} are not here", expected=f"one of {listed}",
        remedy=_advice(wanted, tried[0] if tried else Path(wanted.path)),
    )  # fmt: skip


def _places(path: str, roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from [root / path] if Path(path).is_absolute() else mounts.places(root, path)


def _advice(wanted: Weights, place: Path) -> str:
    source = f"download {wanted.url}" if wanted.url else "get the file (the manifest has no url)"
    mounted = f"/kaggle/input/{wanted.path.lstrip('/')}"
    return (
        f"{source} and save it as {place}; on Kaggle upload it as a dataset and add that as an "
        f"input ({mounted}); on NSML put it inside the folder that nsml run uploads, "
        f"or save it with nsml.save; without it model={SCRATCH} trains from scratch"
    )


def verified(path: Path, sha256: str | None) -> Path:
    """Return `path` if there is such a file and it has that sha256 (None: any).

    Raises:
        ModelError: It is missing or another file.
    """
    if not path.is_file():
        raise ModelError(
            "no such file of weights", expected=FORMS, path=path,
            remedy=f"correct the path, or model={SCRATCH} without weights, from scratch",
        )  # fmt: skip
    if sha256 is not None:
        found = sha256_of(path)
        if found != sha256.lower():
            raise ModelError(
                "weights are not the file that the manifest names", path=path,
                expected=f"sha256 {sha256}", received=f"{found}, {path.stat().st_size:,} bytes",
                remedy="download it again, or correct the manifest's sha256",
            )  # fmt: skip
    return path
