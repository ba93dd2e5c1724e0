"""MixUp and CutMix: an image and its targets mixed with another of the batch, by one weight.

MixUp gives every pixel one weight, CutMix weights of 0 and 1; in both, the partner's share in the
targets is the mean weight: in CutMix the area that is truly covered, clipped at the edge.
Sources: Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kit._augment_colour import rectangle
from kit._augment_draws import Draws, each
from kit.errors import SettingsError

ALPHA = 0.2  # of MixUp's beta distribution; CutMix's is 1, an even one
CHANCE = 0.5  # that an image is mixed at all
QUANTILES = 256


def check_targets(inputs: Mapping[str, Any]) -> None:
    """Refuse what cannot be mixed: no targets, targets without a class axis, boxes."""
    if "targets" not in inputs:
        raise SettingsError(
            "mixing images mixes their targets", expected='{"images": …, "targets": …}',
            received=", ".join(inputs), remedy="give the targets, or mix=none",
        )  # fmt: skip
    if len(inputs["targets"].shape) < 2:
        raise SettingsError(
            "targets cannot be mixed without an axis for the classes",
            expected="shape (n, classes), (n, 1) or (n, height, width, classes)",
            received=f"shape {tuple(inputs['targets'].shape)}",
            remedy="keras.ops.one_hot(labels, classes), or labels[:, None] for two classes",
        )  # fmt: skip
    if "boxes" in inputs:
        raise SettingsError("boxes cannot be mixed", received="boxes", remedy="mix=none")


def mixed(inputs: Mapping[str, Any], mix: str, generator: Any) -> dict[str, Any]:
    """Return images, targets and masks, each mixed with the same partner by the same weight.

    Args:
        inputs: "images" and "targets", perhaps "masks"; targets become float32.
        mix: mixup, cutmix or both.
        generator: The source of the partner, the coins and the weights.
    """
    images = inputs["images"]
    n, (height, width) = ops.shape(images)[0], images.shape[1:3]
    draws = Draws(n, generator)
    weight = each(draws.coin(CHANCE)) * _weights(mix, draws, height, width)
    partner = _partners(n, generator)
    result = {**inputs}
    for name in ("images", "masks", "targets"):
        if name in inputs:
            x = ops.cast(inputs[name], "float32")
            share = weight if len(x.shape) == 4 else ops.mean(weight, axis=(1, 2, 3))[:, None]
            result[name] = x + share * (ops.take(x, partner, axis=0) - x)
    return result


def _partners(n: Any, generator: Any) -> Any:
    """Return another image's number for each image: the batch rolled by 1 to n - 1 places."""
    places = ops.arange(n, dtype="int32")
    one = keras.random.uniform((), 0, 1, dtype="float32", seed=generator)
    steps = ops.cast(one * ops.cast(n - 1, "float32"), "int32") + 1
    return (places + steps) % n


def _weights(mix: str, draws: Draws, height: int, width: int) -> Any:
    """Return the partner's weight, shape (n, height, width, 1)."""
    ones = ops.ones((1, height, width, 1), dtype="float32")
    if mix == "mixup":
        return _beta(draws) * ones
    sides = ops.sqrt(draws.uniform())[:, None] * ops.ones((1, 2))
    rows, columns = rectangle(draws.uniform(shape=(2,)), sides, height, width)
    cut = rows[:, :, None, None] * columns[:, None, :, None]
    if mix == "cutmix":
        return cut
    return ops.where(each(draws.coin(0.5)) > 0, cut, _beta(draws) * ones)


def _beta(draws: Draws) -> Any:
    """Return MixUp's weight, shape (n, 1, 1, 1), by a table of its quantiles.

    The backends' own beta draws have no XLA kernel in TensorFlow.
    """
    from scipy.special import betaincinv

    table = betaincinv(ALPHA, ALPHA, np.linspace(0, 1, QUANTILES + 1)).astype(np.float32)
    place = draws.uniform() * QUANTILES
    below = ops.minimum(ops.floor(place), QUANTILES - 1)
    low, high = (ops.take(table, ops.cast(below, "int32") + k, axis=0) for k in (0, 1))
    return each(low + (place - below) * (high - low))
