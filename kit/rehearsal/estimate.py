"""What the real run would take, from the rate that a network with its settings has here."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from kit import apart, challenges, jobs, pace, platforms
from kit.challenge import Real
from kit.errors import KitError
from kit.manifest import Dataset
from kit.rehearsal.scene import Scene
from kit.settings import Settings, parse

SLICES = 8
"""Of a study, about: every third of the middle half."""


def make(scene: Scene) -> str:
    """Measure, note the estimate in the scene, and say it.

    Raises:
        KitError: The real run would break one of the platform's limits; of time only where a GPU
            was timed, for the platform may have one.
    """
    name = scene.challenge.name
    dataset, settings, _ = challenges.wanted(name, parse(list(scene.settings)))
    channels = 1 if dataset.kind == "dicom" else 3
    work = [jobs.Job("estimate", pace.measure, (settings, channels, len(dataset.classes)))]
    with contextlib.closing(apart.each(work)) as outcomes:
        (found,) = jobs.values(outcomes)
    scene.estimate = of(dataset, settings, found, challenges.real(name))
    return _said(scene)


def of(dataset: Dataset, settings: Settings, found: pace.Pace, real: Real | None) -> dict[str, Any]:
    """Return the estimate: seconds of training and predicting, MB of memory and of all networks.

    One network is trained at a time, and reading the images is left out. None where nobody says how
    many cases there are.
    """
    networks = pace.networks(settings)
    each = {"slides": settings.patches_per_slide, "dicom": SLICES}.get(dataset.kind, 1)
    asked = {"slides": settings.predict_per_slide or 5000, "dicom": SLICES}.get(dataset.kind, 1)
    train = real.train if real else sum((dataset.counts or {}).values()) or None
    tests = real.tests if real else None
    share = (settings.n_splits - 1) / settings.n_splits
    epochs = settings.epochs + settings.head_epochs + settings.second_epochs
    learnt = None if train is None else train * each * share * epochs
    if settings.steps is not None:
        learnt = settings.steps * settings.batch_size * epochs
    return {
        "networks": networks,
        "train_seconds": None if learnt is None else networks * learnt * found.learn,
        "predict_seconds": None if tests is None else networks * tests * asked * found.predict,
        "predict_seconds_each": networks * asked * found.predict,
        "limit_seconds": real.seconds if real else None,
        "megabytes": networks * found.megabytes,
        "memory_megabytes": found.memory,
        "gpu": found.gpu,
    }


def _said(scene: Scene) -> str:
    """Say the estimate, or raise where it breaks a limit."""
    found, name = scene.estimate, scene.platform
    here = platforms.detect({"KIT_PLATFORM": name}, Path("/"))
    here.refuse_large(found["megabytes"], scene.root)
    limit = found["limit_seconds"] or here.inference
    predict = found["predict_seconds"]
    each = found["predict_seconds_each"]
    told = f"{each * 1000:.0f} ms a case" if predict is None else span(predict)
    if limit is not None and predict is not None and predict > limit:
        if found["gpu"]:
            raise KitError(
                "predicting would take longer than is allowed", received=f"about {told}",
                expected=f"at most {span(limit)}",
                remedy="fewer or smaller networks, or --set tta=false",
            )  # fmt: skip
        told += f" (allowed are {span(limit)}: it needs a GPU, or smaller or fewer networks)"
    return (
        f"the real run at this machine's rate, {'a GPU' if found['gpu'] else 'no GPU'}: "
        f"{found['networks']} networks, training {span(found['train_seconds'])}, "
        f"predicting {told}, reading the images not counted; "
        f"{found['memory_megabytes']:,.0f} MB of memory, {found['megabytes']:,.1f} MB of networks"
    )


def span(seconds: float | None) -> str:
    """Return a span of time in words."""
    if seconds is None:
        return "for as long as there are cases to learn from"
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
