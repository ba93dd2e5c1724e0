"""What a bundle's notebook does where it has arrived: predict with what is attached, or train."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kit import carried, finished, jobs, mounts, platforms, synthetic
from kit.bundles import parts
from kit.challenges import open_run
from kit.checks import first
from kit.errors import BundleError, MissingDataError
from kit.files import read_json
from kit.manifest import Dataset
from kit.platforms import Platform

log = logging.getLogger(__name__)

SUBMISSION, SETTINGS = "submission.csv", "settings.json"


def answer(challenge: str, *, smoke: bool = False, seed: int = 0) -> Path:
    """Write the challenge's submission for the data that are mounted here.

    Where the networks of a finished run are attached they predict, and nothing is trained, read of
    labels, or taken from the number of images. Elsewhere a run is trained or goes on, within the
    time that the platform's session has left.

    Args:
        challenge: A challenge or dataset of the manifest.
        smoke: Small settings, and drawn data where there are none; for a run that is trained here.
        seed: Of a run that is trained here.

    Returns:
        `submission.csv`, where the platform takes it.

    Raises:
        BundleError: Two bundles of the challenge are attached, or a file arrived damaged.
        MissingDataError: The data are not mounted; names every place that was looked at.
    """
    here = platforms.detect()
    attached = networks(challenge, here)
    if attached is None:
        return _trained(challenge, smoke=smoke, seed=seed)
    parts.check_sums(attached)
    target = here.answer or here.output / challenge / SUBMISSION
    log.info("predicting with the networks of %s", attached)
    with _unpacked(attached) as run:
        dataset = next(iter(finished.load_all(run).values())).dataset
        finished.predict(
            run, None, target, root=_root(dataset, here), workers=jobs.default_workers(1)
        )
    return target


@contextlib.contextmanager
def _unpacked(attached: Path) -> Iterator[Path]:
    """Yield the run's folder, or the JSON of an ensemble whose archive is unpacked for a while."""
    if not (attached / parts.SEVERAL).is_file():
        yield attached
        return
    with tempfile.TemporaryDirectory(prefix="kit-networks-") as place:
        with zipfile.ZipFile(attached / parts.SEVERAL) as archive:
            archive.extractall(place)
        yield Path(place) / carried.ENSEMBLE


def networks(challenge: str, here: Platform) -> Path | None:
    """Return the folder of a finished run of the challenge among the mounted inputs, if any."""
    if here.data is None:
        return None
    found = [path.parent for path in mounts.find(here.data, f"*/{parts.SUMS}")]
    of_it = [place for place in found if _is_of(challenge, place)]
    if len(of_it) > 1:
        raise BundleError(
            "two bundles of the challenge are attached", received=first(of_it), expected="one",
            remedy="remove one of them from the notebook's inputs",
        )  # fmt: skip
    return of_it[0] if of_it else None


def _is_of(challenge: str, place: Path) -> bool:
    said, several = place / SETTINGS, place / parts.SEVERAL
    if several.is_file():
        with zipfile.ZipFile(several) as archive:
            made = json.loads(archive.read(f"run1/{SETTINGS}"))
    elif said.is_file():
        made = read_json(said)
    else:
        return False
    return bool(made["compared"]["challenge"] == challenge)


def _root(dataset: Dataset, here: Platform) -> Path:
    """Return the folder of the mounted data; drawn data that are not mounted are drawn."""
    try:
        return here.root(dataset)
    except MissingDataError:
        if not dataset.synthetic:
            raise
        return synthetic.make(dataset.name, here.output / dataset.name)


def _trained(challenge: str, *, smoke: bool, seed: int) -> Path:
    run = open_run(challenge, smoke=smoke, settings={"seed": seed})
    found = run.complete()
    platforms.detect().report(**{name: found[name]["value"] for name in ("mean_of_six", "auc")})
    return hand_in(Path(found["submission"]))


def hand_in(submission: Path) -> Path:
    """Copy a submission to where the platform takes it; where none does, it stays; return it."""
    taken = platforms.detect().answer
    if taken is None:
        return submission
    taken.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(submission, taken))
