"""The random numbers of one batch, all from one generator: for each image its own."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Draws:
    """Numbers for a batch of n images.

    Args:
        n: Images in the batch; may be a scalar tensor.
        generator: The only source.
        chance: How likely a step is for an image.
    """

    def __init__(self, n: Any, generator: Any, chance: float = 1.0) -> None:
        self.n, self.generator, self.chance = n, generator, chance

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[Any, ...] = ()) -> Any:
        """Return evenly drawn numbers in [low, high), shape (n, *shape)."""
        full = (self.n, *shape)
        return keras.random.uniform(full, low, high, dtype="float32", seed=self.generator)

    def normal(self, deviation: float, shape: tuple[Any, ...]) -> Any:
        """Return numbers of mean 0, shape (n, *shape)."""
        full = (self.n, *shape)
        return keras.random.normal(full, 0, deviation, dtype="float32", seed=self.generator)

    def coin(self, chance: float | None = None) -> Any:
        """Return 1 for each image that takes a step, else 0, shape (n,)."""
        threshold = self.chance if chance is None else chance
        return ops.cast(self.uniform() < threshold, "float32")

    def zeros(self) -> Any:
        """Return 0 for each image, shape (n,)."""
        return ops.zeros((self.n,), dtype="float32")

    def amount(self, limit: float, low: float = -1.0) -> Any:
        """Return a step's amount in [low * limit, limit], 0 without the step, shape (n,)."""
        return self.coin() * self.uniform(low * limit, limit)


def each(values: Any, rank: int = 4) -> Any:
    """Return one number an image, shape (n,), so that it spreads over a tensor of that rank."""
    return ops.reshape(values, (-1, *[1] * (rank - 1)))
