"""Layers of bags: many instances of one slide to one row, by attention or by extreme scores."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

FAR = -1e9  # a score whose softmax is 0


@keras.saving.register_keras_serializable("kit")
class AttentionPool(layers.Layer):  # type: ignore[misc]
    """Gated attention pooling: a bag's weighted mean, with weights learnt from the instances.

    Called with (n, instances, features), any number of instances, and optionally `mask`, bool,
    (n, instances): False is padding, which gets weight 0. Returns (n, features); with
    `return_weights=True` also the weights, (n, instances), in [0, 1], each row summing to 1
    (to 0 for a bag of nothing but padding).

    Args:
        units: Width of the hidden layer of the attention.

    Source: Ilse, Tomczak and Welling 2018, 1802.04712, equation 9.
    """

    def __init__(self, units: int = 128, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True
        self.value = layers.Dense(units, activation="tanh", name="value")
        self.gate = layers.Dense(units, activation="sigmoid", name="gate")
        self.score = layers.Dense(1, use_bias=False, name="score")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for bags of that shape."""
        self.value.build(input_shape)
        self.gate.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))
        super().build(input_shape)

    def call(self, bags: Any, mask: Any = None, return_weights: bool = False) -> Any:
        """Return the pooled bags, and on request the weights."""
        scores = self.score(self.value(bags) * self.gate(bags))
        scores = ops.cast(ops.squeeze(scores, -1), "float32")
        if mask is not None:
            mask = ops.cast(mask, "float32")
            scores = scores * mask + FAR * (1 - mask)
        weights = ops.softmax(scores, axis=-1)
        if mask is not None:
            weights = weights * mask
        pooled = ops.sum(ops.cast(ops.expand_dims(weights, -1), bags.dtype) * bags, axis=1)
        return (pooled, weights) if return_weights else pooled

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: what is pooled has no padding."""

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made again from."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kit")
class ExtremeScores(layers.Layer):  # type: ignore[misc]
    """Each bag's highest and lowest scores, the scores being learnt from the instances.

    Called with (n, instances, features), any number of instances, and optionally `mask`, bool,
    (n, instances): False is padding, which has no score. Returns (n, 2 x extremes x scores): of
    each score the highest ones, highest first, then the lowest ones, lowest first. A bag of fewer
    instances has its last one again; a bag of nothing but padding has zeros. With
    `return_scores=True` also every instance's scores, (n, instances, scores).

    Args:
        scores: Scores of an instance.
        extremes: Highest and lowest scores that are kept, of each kind.

    Source: Courtiol, Tramel, Sanselme and Wainrib 2018, 1802.02212, whose R is `extremes`.
    """

    def __init__(self, scores: int = 1, extremes: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scores, self.extremes = scores, extremes
        self.supports_masking = True
        self.score = layers.Dense(scores, use_bias=False, name="score")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for bags of that shape."""
        self.score.build(input_shape)
        super().build(input_shape)

    def call(self, bags: Any, mask: Any = None, return_scores: bool = False) -> Any:
        """Return the extreme scores of the bags, and on request all scores."""
        scores = ops.cast(self.score(bags), "float32")
        real = ops.ones_like(scores[..., :1]) if mask is None else ops.cast(mask, "float32")
        real = ops.reshape(real, (*ops.shape(scores)[:2], 1))
        count = ops.sum(real, axis=1, keepdims=True)
        last = ops.cast(ops.maximum(count - 1, 0), "int32")
        rank = ops.reshape(ops.arange(self.extremes, dtype="int32"), (1, -1, 1))
        rank = ops.minimum(rank, last) + ops.zeros((1, 1, self.scores), "int32")
        kept = [
            sign * ops.take_along_axis(_descending(sign * scores, real), rank, axis=1)
            for sign in (1, -1)
        ]
        found = ops.concatenate(kept, axis=1) * ops.cast(count > 0, "float32")
        pooled = ops.reshape(found, (-1, 2 * self.extremes * self.scores))
        return (pooled, scores) if return_scores else pooled

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: what is pooled has no padding."""

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made again from."""
        return {**super().get_config(), "scores": self.scores, "extremes": self.extremes}


def _descending(scores: Any, real: Any) -> Any:
    """Return the scores of each bag from high to low, those of its padding last."""
    return -ops.sort(-scores * real - FAR * (1 - real), axis=1)


@keras.saving.register_keras_serializable("kit")
class Standardise(layers.Layer):  # type: ignore[misc]
    """Features less their mean, over their spread; rows of zeros are padding and stay zeros.

    Called with (n, instances, features). Mean and spread are weights that do not train, so that
    they are saved with the network.

    Args:
        features: Numbers of an instance.
    """

    def __init__(self, features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.mean = self.add_weight(
            shape=(features,), initializer="zeros", trainable=False, name="mean"
        )
        self.spread = self.add_weight(
            shape=(features,), initializer="ones", trainable=False, name="spread"
        )
        self.built = True

    def fit(self, mean: np.ndarray, spread: np.ndarray) -> None:
        """Take mean and spread, (features,) each; a feature without spread keeps its scale."""
        self.mean.assign(np.asarray(mean, np.float32))
        self.spread.assign(np.where(np.asarray(spread) > 0, spread, 1).astype(np.float32))

    def call(self, bags: Any) -> Any:
        """Return the bags in units of the spread."""
        real = ops.any(ops.not_equal(bags, 0), axis=-1, keepdims=True)
        return (bags - self.mean) / self.spread * ops.cast(real, bags.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made again from."""
        return {**super().get_config(), "features": self.features}
