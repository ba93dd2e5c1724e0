"""A STAND-IN for NSML's own `nsml` package, which cannot be installed anywhere public.

A rehearsal copies this file to `nsml/__init__.py`. It keeps to NSML's contract and breaks where
NSML would: the training folder is not there until `paused` returns, figures must be JSON, and at
submit there is what was uploaded and what `save` wrote. The organisers' side (`feed_infer`) is here
too. It knows nothing of the kit. NSML_STAND_IN names a JSON file with what a session is given.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SESSION: dict[str, Any] = json.loads(Path(os.environ["NSML_STAND_IN"]).read_text(encoding="utf-8"))
DATASET_PATH, DATASET_NAME = SESSION["dataset"], SESSION["name"]
HAS_DATASET, IS_ON_NSML, GPU_NUM = True, True, 0
_bound: dict[str, Callable[..., Any]] = {}


class ContractError(Exception):
    """Something that NSML would not take, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. Remedy: {remedy}")


def _note(what: str, **more: Any) -> None:
    with Path(SESSION["log"]).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"what": what, **more}) + "\n")


def bind(
    save: Callable[..., Any] | None = None, load: Callable[..., Any] | None = None,
    infer: Callable[..., Any] | None = None, **_: Any,
) -> None:  # fmt: skip
    """Take the three functions that NSML calls."""
    given = {"save": save, "load": load, "infer": infer}
    missing = [name for name, one in given.items() if not callable(one)]
    if missing:
        raise ContractError(f"bind without {', '.join(missing)}", "bind save, load and infer")
    _bound.update({name: one for name, one in given.items() if one is not None})
    _note("bind")


def paused(scope: Any = None) -> None:
    """Return in training, when the data are there; at submit ask, and never return."""
    if not _bound:
        raise ContractError("paused before bind: NSML has nothing to call", "bind first")
    if not isinstance(scope, dict):
        raise ContractError("paused without a scope", "nsml.paused(scope=locals())")
    _note("paused")
    if SESSION["job"] == "train":
        os.symlink(SESSION["hidden"], DATASET_PATH)
        return
    load(SESSION["checkpoint"])
    feed_infer(SESSION["output"], _bound["infer"])
    sys.exit(0)


def save(checkpoint: str) -> None:
    """Have the model saved: in a folder, and, as older stubs have it, under the name of a file."""
    _need(str(checkpoint), "save")
    folder = Path(SESSION["checkpoints"]) / str(checkpoint)
    folder.mkdir(parents=True)
    _bound["save"](str(folder))
    _bound["save"](str(folder.with_suffix(".model")))
    _note("save", checkpoint=str(checkpoint))


def load(checkpoint: str, session: str | None = None) -> None:
    """Have a model loaded."""
    _need(str(checkpoint), "load")
    _bound["load"](str(Path(SESSION["checkpoints"]) / str(checkpoint)))
    _note("load", checkpoint=str(checkpoint))


def _need(checkpoint: str, what: str) -> None:
    if not _bound:
        raise ContractError(f"{what} before bind: NSML has nothing to call", "bind first")
    if not checkpoint or "/" in checkpoint:
        raise ContractError(f"{checkpoint!r} is no name of a checkpoint", "a word without /")


def report(summary: bool = False, scope: Any = None, step: Any = None, **values: Any) -> None:
    """Take figures: JSON's own types alone, no tensors and no NaN."""
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"report takes only JSON values: {error}",
            "give plain numbers, float(value), and leave out what is not finite",
        ) from error
    _note("report", step=step, values=json.loads(text))


def feed_infer(output_file: str, infer: Callable[..., Any]) -> None:
    """Do what the organisers' script does: hand over the test images, write `key value` lines.

    Then look at the order: images are handed over alone until two get different answers, and
    these two together, in an order that neither turning nor sorting leaves as it is.
    """
    start = time.monotonic()
    keys, images = [key for key, _ in SESSION["tests"]], _images()
    answer = _whole(infer(images), len(keys))
    seconds, alone = time.monotonic() - start, list[int]()
    while len(alone) < len(keys) and len(set(alone)) < min(2, len(set(answer))):
        alone += _whole(infer(_picked(images, [len(alone)])), 1)
    first, last = alone[0], alone[-1]
    mixed = _whole(infer(_picked(images, [0, len(alone) - 1, 0, 0])), 4)
    if answer[: len(alone)] != alone or mixed != [first, last, first, first]:
        raise ContractError(
            "infer does not keep the order of its images",
            "an answer for each image, where the image stood",
        )
    lines = [f"{key} {value}\n" for key, value in zip(keys, answer, strict=True)]
    Path(output_file).write_text("".join(lines), encoding="utf-8")
    _note("infer", seconds=seconds, images=len(keys), numbers=len(set(alone)))


def _images() -> Any:
    """Return paths (an array of text), or BGR arrays at their full size (a list)."""
    import numpy as np

    paths = [path for _, path in SESSION["tests"]]
    if not SESSION["arrays"]:
        return np.array(paths)
    import cv2

    size = tuple(SESSION["size"]) if SESSION["size"] else None
    found = [np.asarray(cv2.imread(path)) for path in paths]
    return [image if size is None else cv2.resize(image, size) for image in found]


def _picked(images: Any, numbers: Sequence[int]) -> Any:
    return [images[n] for n in numbers] if isinstance(images, list) else images[list(numbers)]


def _whole(answer: Any, length: int) -> list[int]:
    """Return the answer as whole numbers, one for each image."""
    found = list(answer)
    if len(found) != length:
        raise ContractError(
            f"infer gave {len(found)} answers for {length} images", "one answer for each image"
        )
    if any(int(value) != value for value in found):
        raise ContractError("infer must give whole numbers", "give the number of the class")
    return [int(value) for value in found]
