"""Augmentation beside Keras' RandAugment: `python benchmarks/augment.py [--save]`."""

from __future__ import annotations

import os

THREADS = "1"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = THREADS
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
from bench import Row, arguments, measure, tell  # noqa: E402

from kit.augment import Augment  # noqa: E402
from kit.policies import POLICIES, STEPS, Policy  # noqa: E402

BATCH = 32
STRONG = POLICIES["patch_strong"]


class Timed(keras.Model):
    """A model that does nothing but augment, so that Keras compiles the layer as in training."""

    def __init__(self, layer: keras.layers.Layer, targets: np.ndarray | None = None) -> None:
        super().__init__()
        self.layer, self.targets = layer, targets

    def call(self, images: object) -> object:
        """Return one number an image, which needs all of its pixels."""
        inputs = images if self.targets is None else {"images": images, "targets": self.targets}
        found = self.layer(inputs, training=True)
        return keras.ops.mean(found if self.targets is None else found["images"], axis=(1, 2, 3))


def work(layer: keras.layers.Layer, images: np.ndarray, mix: bool = False) -> Callable[[], object]:
    """Return a call that augments one batch through Keras' compiled prediction."""
    targets = np.eye(len(images), dtype=np.float32) if mix else None
    model = Timed(layer, targets)
    model.compile()
    return partial(model.predict_on_batch, keras.ops.convert_to_tensor(images))


def one_step(step: str) -> Augment:
    """Return a layer with one step of the strong policy."""
    layer = Augment("none")
    strength = getattr(STRONG, step) or getattr(POLICIES["fundus"], step)
    layer.steps = replace(Policy(), **{step: strength, "chance": STRONG.chance})
    return layer


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Augmentation", size=224, repeats=5)
    shape = (BATCH, asked.size, asked.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    names = ["patch_strong", "patch", "fundus", "mri", "ultrasound"]
    calls = {
        "RandAugment": work(keras.layers.RandAugment((0, 255)), images),
        "nothing": work(Augment("none"), images),
        **{name: work(Augment(name), images) for name in names},
        "mixed": work(Augment("none", mix="both"), images, mix=True),
        **{step: work(one_step(step), images) for step in STEPS},
    }
    found = measure(calls, repeats=asked.repeats)
    peer, base = found["RandAugment"].cpu, found["nothing"].cpu
    rows = [
        Row(f"policy {name}", f"{BATCH / found[name].cpu:,.0f} images / s",
            f"{BATCH / peer:,.0f} images / s, Keras RandAugment", peer / found[name].cpu,
            "5x" if name == "patch_strong" else "")
        for name in names
    ]  # fmt: skip
    rows += [
        Row(f"step {step} alone", f"{(found[step].cpu - base) / BATCH * 1000:.2f} ms / image")
        for step in (*STEPS, "mixed")
    ]  # fmt: skip
    notes = (
        f"{asked.size} x {asked.size} px, three channels, batches of {BATCH}, {THREADS} thread, "
        f"{keras.backend.backend()} backend, compiled by Keras without XLA, all in one process in "
        "turn; CPU seconds. patch_strong is the whole policy: every step but flip, whose work is "
        "that of symmetries. RandAugment takes two steps for each image, with its defaults. A "
        "step alone is timed over a layer that does nothing: rotate, zoom, shift, crop, elastic, "
        "flip and symmetries share one interpolation, stain and gamma one pass, and hue, contrast "
        "and brightness another. mixed is MixUp or CutMix."
    )
    tell("augment", "Augmentation on a CPU", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
