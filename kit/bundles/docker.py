"""A competition's container: Dockerfile, train.sh and inference.sh, and all that they need."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from kit import carried, doctor
from kit.bundles import Options, parts
from kit.challenge import Challenge
from kit.errors import BundleError
from kit.files import write_text
from kit.platforms import MODEL

MOST_MB = 2000.0
BASES = {(3, 11): "3.11.13", (3, 12): "3.12.11", (3, 13): "3.13.7"}
"""Of the official Python images: the packages are pinned as this Python has them."""
PLACE = re.compile(
    r"/(?!data(?:/(?:train|test|output)(?:/.*)?)?$)(?!(?:bin|boot|dev|etc|lib\w*|opt|proc|root|run|sbin|sys|tmp|usr|var|work)(?:/|$))"
    r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*"
)
"""A folder that no shell splits, and that neither data, image nor system need."""
PACKED = "model"
NOTEBOOK_ONLY = ("ipykernel", "jupytext", "nbconvert", "papermill")
"""What no script of a container runs."""
DOCKERFILE = """\
# {challenge}: everything is installed here; the container has no network.
FROM python:{python}-slim-bookworm
ENV LC_ALL=C.UTF-8 PYTHONUTF8=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3 TQDM_DISABLE=1 \\
    KIT_PLATFORM=docker KIT_MODEL={place}
WORKDIR /work
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN sha256sum --check --quiet {sums} \\
    && pip install --no-cache-dir --no-index --no-deps kit_medical-*.whl
CMD ["./inference.sh"]
"""
TRAINS = "train {challenge}; killed, it goes on where it was"
INFERS = "predict {challenge}; refuses to begin without a whole, verified model"
OPENING = """\
#!/usr/bin/env bash
# {about}
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
export KIT_PLATFORM=docker KIT_MODEL="${{KIT_MODEL:-{place}}}" PYTHONUTF8=1
"""
TRAIN = """\
mkdir -p "${{KIT_ROOT:-}}$KIT_MODEL"
exec python -m kit run {challenge} --out "${{KIT_ROOT:-}}$KIT_MODEL/{challenge}" "$@"
"""
NO_TRAINING = """\
echo "nothing to train: the networks are in the image"
"""
INFERENCE = """\
output="${{KIT_ROOT:-}}/data/output/output.csv"
python -m kit self-check {model} --out "$output"
# 1 says that slides could not be read; they are named, have their score, and the file is whole.
python -m kit predict {model} --out "$output" --failed-score {failed:g} "$@" || [ $? -eq 1 ]
"""


def fill(folder: Path, challenge: Challenge, options: Options) -> None:
    """Write the folder that `docker build` takes.

    Raises:
        MissingDataError: No finished run is there, and `options.train` is not said.
        BundleError: This Python has no pinned base, or a package's version is not known.
    """
    name, place = challenge.name, options.place
    if not PLACE.fullmatch(place):
        raise BundleError(
            "the models' place must be an absolute folder of the container's own, without blanks",
            received=place, expected="such as /data/model or /data/volume",
            remedy="--place /data/volume",
        )  # fmt: skip
    parts.wheel(folder)
    model = f'"${{KIT_ROOT:-}}$KIT_MODEL/{name}"'
    if not options.train:
        run = options.run or parts.newest_run(challenge)
        (folder / PACKED).mkdir()
        parts.networks(run, folder / PACKED, name)
        model = f"{PACKED}/{carried.ENSEMBLE}" if run.is_file() else PACKED
    training = TRAIN if options.train else NO_TRAINING
    for script, about, text in (
        ("train.sh", TRAINS, training), ("inference.sh", INFERS, INFERENCE),
    ):  # fmt: skip
        _script(folder / script, (OPENING + text).format(
            about=about.format(challenge=name), challenge=name, place=place, model=model,
            failed=options.failed_score,
        ))  # fmt: skip
    write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in pinned()))
    write_text(folder / "Dockerfile", DOCKERFILE.format(
        challenge=name, python=_base(), place=place, sums=parts.SUMS
    ))  # fmt: skip
    parts.checksums(folder)


def steps(folder: Path) -> list[str]:
    """Return the commands that build and run the container."""
    image = (folder / "Dockerfile").read_text(encoding="utf-8")
    place, challenge = re.search(r"KIT_MODEL=(\S+)", image), re.search(r"# (\S+):", image)
    name = f"kit-{challenge[1] if challenge else 'image'}".lower()
    run = "docker run --rm --network none --gpus all"
    test, said = (
        "-v DATA/test:/data/test:ro",
        [f"docker build -t {name} {shlex.quote(str(folder))}"],
    )
    if not (folder / PACKED).is_dir():
        model = f"-v MODEL:{place[1] if place else MODEL}"
        said.append(f"{run} -v DATA/train:/data/train:ro {model} {name} ./train.sh")
        test = f"{test} {model}"
    return [*said, f"{run} {test} -v OUTPUT:/data/output {name} ./inference.sh"]


def _script(path: Path, text: str) -> None:
    write_text(path, text)
    path.chmod(0o755)


def _base() -> str:
    version = sys.version_info[:2]
    if version not in BASES:
        raise BundleError("no pinned base image for this Python", received=f"{version}",
                          expected="3.11 to 3.13")  # fmt: skip
    return BASES[version]


def pinned() -> list[str]:
    """Return every package that the kit needs, and those that they need, as installed here.

    TensorFlow's CUDA libraries are asked for too; those that are not installed here are taken
    within TensorFlow's own bounds.
    """
    found: dict[str, str] = {}
    waiting = [(Requirement(line), "") for line in doctor.declared()]
    waiting = [(one, extra) for one, extra in waiting if one.name not in NOTEBOOK_ONLY]
    while waiting:
        wanted, extra = waiting.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = wanted.name.lower().replace("_", "-")
        if name in found:
            continue
        version = _version(wanted.name, optional=bool(extra))
        if version is None:
            continue
        found[name] = version
        for line in metadata.requires(wanted.name) or []:
            waiting += [(Requirement(line), one) for one in ("", *wanted.extras)]
    lines = [f"{name}=={version}" for name, version in sorted(found.items())]
    cuda = "tensorflow[and-cuda]"
    return [line.replace("tensorflow==", f"{cuda}==") if line.startswith("tensorflow==") else line
            for line in lines]  # fmt: skip


def _version(name: str, *, optional: bool) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        if optional:
            return None
        raise BundleError(
            "a package's version is not known, because it is not installed", received=name,
            remedy=f"pip install {name}",
        ) from error  # fmt: skip
