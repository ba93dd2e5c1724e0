"""Attention pooling of bags: many instances of one slide to one row, and each one's weight."""

from __future__ import annotations

from typing import Any

import keras
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
