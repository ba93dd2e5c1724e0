"""The registry's networks on one CPU thread: `python benchmarks/models.py [--save]`."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench import arguments, keep

from kit.models import REGISTRY, build_model

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
NAMES = (
    "conv_small seresnet_small resnet_small resnet_wide resnet_deep convnext_small attention_mil "
    "chowder help_simple help_unet help_inception rsna_cnn khd2019_vgg "
    "mobilenet_v2 mobilenet_v3_small efficientnet_b0 efficientnet_pkg_b0 efficientnet_v2_b0 "
    "densenet121 resnet50 resnet50_v2 convnext_tiny vgg16 inception_v3 xception nasnet_mobile"
)
INSTANCES = 100  # of a bag whose number is free
COLUMNS = ("network", "parameters", "input", "classes", "file, MB", "ms, batch of 1",
           "ms an image, batch of 16")  # fmt: skip


def milliseconds(model: Any, batch: int, shape: tuple[int, ...], repeats: int) -> float:
    """Return the median CPU time of an image or bag, after one call that traces the network."""
    values = np.random.default_rng(0).integers(0, 256, (batch, *shape)).astype(np.float32)
    taken = []
    for _ in range(repeats + 1):
        start = time.process_time()
        model.predict_on_batch(values)
        taken.append(time.process_time() - start)
    return 1000 * statistics.median(taken[1:]) / batch


def line(name: str, repeats: int) -> list[str]:
    """Return one network's figures at its own input and classes."""
    import keras

    keras.utils.clear_session()
    model, entry = build_model(name), REGISTRY[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        model.save(path)
        size = path.stat().st_size / 1e6
    shape = tuple(INSTANCES if side is None else side for side in entry.input_shape)
    one, many = (milliseconds(model, batch, shape, repeats) for batch in (1, 16))
    written = " x ".join("any" if side is None else str(side) for side in entry.input_shape)
    return [name, f"{model.count_params():,}", written, str(entry.classes), f"{size:.1f}",
            f"{one:.1f}", f"{many:.1f}"]  # fmt: skip


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("The registry's networks", names="", repeats=3)
    names = asked.names.split(",") if asked.names else NAMES.split()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when Keras' backend is loaded
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    lines = [line(name, asked.repeats) for name in names]
    notes = (
        "Each at its own input and number of classes, with its scaling inside; CPU time of one "
        f"thread, medians of {asked.repeats} calls of predict_on_batch. A bag has "
        f"{INSTANCES} instances. HeLP's networks give probabilities of each pixel. All others: "
        "`kit.models.REGISTRY`; their parameters: "
        "`tests/network_parameters.csv`."
    )
    keep("models", "Networks", COLUMNS, lines, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
