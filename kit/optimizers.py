"""Optimizers by name: Keras's own, SGD with Nesterov's momentum, and rectified Adam."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

MOMENTUM = 0.9


@keras.saving.register_keras_serializable("kit")
class RAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam whose step is rectified while its second moment is of few gradients.

    In the first steps (while the variance of the adaptive rate cannot be told) it is momentum
    alone, without division by the second moment.

    Source: Liu et al. 2020, 1908.03265.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable by its gradient."""
        dtype = variable.dtype
        rate, gradient = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        one, two = ops.cast(self.beta_1, dtype), ops.cast(self.beta_2, dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - one))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - two))
        decayed = ops.power(two, step)
        longest = 2 / (1 - two) - 1
        length = longest - 2 * step * decayed / (1 - decayed)
        safe = ops.maximum(length, 5.0)
        rectified = ops.sqrt(
            (safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe)
        )
        divided = ops.sqrt(square / (1 - decayed)) + self.epsilon
        move = mean / (1 - ops.power(one, step))
        move = ops.where(length > 4, move * rectified / divided, move)
        self.assign_sub(variable, rate * move)


def build_optimizer(
    name: str, rate: float, *, weight_decay: float = 0.0, clip: float = 0.0, ema: float = 0.0,
    accumulate: int = 1,
) -> Any:  # fmt: skip
    """Return a Keras optimizer whose rate is a variable, so that it can be set at every step.

    Args:
        name: adamw, adam, radam, sgd, nadam, rmsprop, lion, lamb or adamax.
        rate: Learning rate to begin with.
        weight_decay: Decoupled; times the rate, at every step.
        clip: Largest norm of all gradients together; 0 is any.
        ema: Momentum of the moving average of the weights in [0, 1); 0 is none.
        accumulate: Small batches whose gradients are averaged into one step.
    """
    kinds = {
        "adamw": keras.optimizers.AdamW, "adam": keras.optimizers.Adam, "radam": RAdam,
        "sgd": keras.optimizers.SGD, "nadam": keras.optimizers.Nadam,
        "rmsprop": keras.optimizers.RMSprop, "lion": keras.optimizers.Lion,
        "lamb": keras.optimizers.Lamb, "adamax": keras.optimizers.Adamax,
    }  # fmt: skip
    more: dict[str, Any] = {"momentum": MOMENTUM, "nesterov": True} if name == "sgd" else {}
    if weight_decay or name == "adamw":
        more["weight_decay"] = weight_decay
    if clip:
        more["global_clipnorm"] = clip
    if ema:  # averaged after every small batch, so that the average is as long as it was
        more |= {"use_ema": True, "ema_momentum": ema ** (1 / accumulate)}
    if accumulate > 1:
        more["gradient_accumulation_steps"] = accumulate
    return kinds[name](rate, **more)
