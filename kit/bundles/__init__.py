"""What is handed to a platform: one folder, whole or absent, with no secret and no surplus."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.bundles import parts, scan
from kit.challenges import find
from kit.checks import choice
from kit.errors import BundleError, KitError
from kit.manifest import home, load_manifest
from kit.platforms import MODEL

PLATFORMS = ("kaggle", "nsml", "docker")
DRAWN = "the networks of {run} have learnt from drawn data: they say nothing about patients"


@dataclass(frozen=True)
class Options:
    """What a user may say of a bundle; a platform takes what concerns it.

    Attributes:
        run: A finished run, or the JSON of an ensemble, whose networks travel; None: the newest
            run of the challenge.
        train: No network travels: training is done there.
        owner: The user's name on Kaggle; None: KAGGLE_USERNAME.
        accelerator: Kaggle's name of it, or "none".
        max_mb: Most megabytes, 1e6 bytes; None: what the platform takes.
        place: Where a container keeps the networks that it trains.
        failed_score: Probability of the positive class that a container gives a slide that fails.
    """

    run: Path | None = None
    train: bool = False
    owner: str | None = None
    accelerator: str = "NvidiaTeslaT4"
    max_mb: float | None = None
    place: str = MODEL
    failed_score: float = 0.5


@dataclass(frozen=True)
class Bundle:
    """A bundle as it stands on disk.

    Attributes:
        folder: Where it is.
        files: Bytes of each file, by its path in the folder, with `/`.
        left: What is still to be done by hand or is doubtful, a line each.
        steps: The commands that hand it over, in order.
    """

    folder: Path
    files: dict[str, int]
    left: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Return how many bytes all files have."""
        return sum(self.files.values())


def make(platform: str, challenge: str, out: str | Path | None = None, **options: Any) -> Bundle:
    """Write a bundle: filled beside its place, scanned, and moved there when all is well.

    Args:
        platform: kaggle, nsml or docker.
        challenge: A challenge or dataset of the manifest.
        out: Folder to write, absent or empty; None: `submissions/<challenge>/<platform>`.
        options: See `Options`.

    Raises:
        BundleError: The folder is not empty; a secret, a private path or patients' columns stand
            in a file; there is more than the limit; or the platform's rules are broken.
        MissingDataError: No finished run stands there.
        SettingsError: The platform or challenge is unknown.
    """
    choice("platform", platform, PLATFORMS)
    manifest, chosen = load_manifest(), Options(**options)
    found = find(challenge, manifest)
    own = home(manifest.path) / "submissions" / challenge / platform
    place = own if out is None else Path(out)
    # It fills a folder (`fill`) of `MOST_MB` at most, and may say what is `left`, and the `steps`.
    filler: Any = importlib.import_module(f"{__name__}.{platform}")
    most = filler.MOST_MB if chosen.max_mb is None else chosen.max_mb
    with _filled(place) as folder:
        filler.fill(folder, found, chosen)
        scan.refuse_surplus(folder, most)
        scan.refuse_secrets(folder)
        left = tuple(filler.left(folder)) if hasattr(filler, "left") else ()
        if chosen.run and not found.dataset.synthetic and parts.drawn(Path(chosen.run)):
            left += (DRAWN.format(run=chosen.run),)
    steps = tuple(filler.steps(place)) if hasattr(filler, "steps") else ()
    return Bundle(place, scan.sizes(place), left, steps)


@contextlib.contextmanager
def _filled(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside `place` that becomes `place` if the block succeeds."""
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise BundleError(
            "the bundle's folder is not empty", path=place, expected="no folder, or an empty one",
            remedy="choose another --out, or delete it: a bundle is never mixed with older files",
        )  # fmt: skip
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".kit-bundle-", dir=place.parent))
    except OSError as error:
        raise KitError(
            "cannot be written", received=error.strerror, path=place,
            remedy="choose another place with --out",
        ) from error  # fmt: skip
    try:
        yield part
        part.chmod(0o755)
        if place.is_dir():
            place.rmdir()
        os.replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
