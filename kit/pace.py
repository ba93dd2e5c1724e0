"""How fast and how large: a network with a run's own settings, timed on random images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kit.backend import gpus, load_backend
from kit.recipes import Recipe, recipe_of
from kit.settings import Settings

BATCH = 16
"""Images of a timed batch at most: a step of a large network would take longer than it tells."""
REPEATS = 3


@dataclass(frozen=True)
class Pace:
    """What one network takes.

    Attributes:
        megabytes: Its file, MB of 1e6 bytes.
        learn: Seconds for an image in training.
        predict: Seconds for an image, all views of test-time augmentation together.
        memory: Most MB that this process has held.
        gpu: Whether a GPU was timed.
    """

    megabytes: float
    learn: float
    predict: float
    memory: float
    gpu: bool = False


def networks(settings: Settings) -> int:
    """Return how many networks a run's answer is made of, where there are test cases."""
    by_fold = 0 if settings.everything == "only" else settings.n_splits * settings.seeds
    return by_fold + (0 if settings.everything == "no" else settings.seeds)


def measure(settings: Settings, channels: int, n_classes: int, *, learn: bool = True) -> Pace:
    """Build the run's network, untrained, and time it.

    Args:
        settings: Its model, size, batch, augmentation and test-time views.
        channels: Of an image.
        n_classes: Of the answer.
        learn: Whether a training step is timed too; `learn` is NaN otherwise.
    """
    load_backend(settings.threads, settings.device)
    from kit.augment import views
    from kit.inference import predict_images
    from kit.models import build_model

    recipe, side = recipe_of(settings), settings.image_size
    students = [
        build_model(settings.model, (side, side, channels), n_classes)
        for _ in range(settings.students)
    ]
    size = min(BATCH, settings.batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (size, side, side, channels), np.uint8)
    several = [view.forward for view in views(settings.augment if settings.tta else "none")]
    predict = sum(
        _seconds(partial(predict_images, one, pixels, np.arange(size), several)) for one in students
    )
    taken = _learn(students, recipe, pixels, n_classes) if learn else float("nan")
    weights = sum(one.count_params() for one in students) * 4 / 1e6
    return Pace(weights, taken / size, predict / size, peak_megabytes(), bool(gpus()))


def _learn(students: Sequence[Any], recipe: Recipe, pixels: np.ndarray, n_classes: int) -> float:
    """Return the seconds of one step."""
    import keras

    from kit.trainer import compiled

    trainer = compiled(students, recipe, recipe.stages[0], steps=100)
    targets = np.eye(n_classes, dtype="float32")[np.arange(len(pixels)) % n_classes]
    weights = np.full(len(pixels), 1 / len(pixels), "float32")
    batch = {
        name: keras.ops.convert_to_tensor(value)
        for name, value in {"images": pixels, "targets": targets, "weights": weights}.items()
    }
    return _seconds(lambda: trainer.train_on_batch(batch, return_dict=True))


def _seconds(call: Callable[[], object]) -> float:
    """Return the median seconds of a call after a first one, which compiles."""
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.monotonic()
        call()
        taken.append(time.monotonic() - start)
    return float(np.median(taken))


def peak_megabytes() -> float:
    """Return the most memory that this process has held, MB of 1e6 bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
