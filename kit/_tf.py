"""The few places where TensorFlow is named: one network on several devices.

Keras has no data-parallel training of its own on TensorFlow; the mirrored strategy is its way
(`keras.distribution` is JAX's).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def mirrored(devices: Sequence[str]) -> Iterator[None]:
    """Have variables made in the block stand on every device, the same on each.

    Args:
        devices: Names of Keras, such as "gpu:0".
    """
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        [f"/{name}" for name in devices],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),  # others mix up layers' sums
    )
    with strategy.scope():
        yield


def copies() -> int:
    """Return on how many devices the step under way is taken; 1 outside of such a step."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else int(replica.num_replicas_in_sync)


def share(values: Any) -> Any:
    """Return this device's rows of a batch that every device has whole."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    size = tf.shape(values)[0] // replica.num_replicas_in_sync
    start = replica.replica_id_in_sync_group * size
    return values[start : start + size]


def sum_first(optimizer: Any) -> None:
    """Have an optimizer sum gradients over the devices before it clips them, not after.

    Keras clips each device's own gradients and then sums them, which is not the step that one
    device takes.
    """
    import tensorflow as tf

    sum_over, apply = optimizer._all_reduce_sum_gradients, optimizer.apply

    def applied(gradients: Any, variables: Any = None) -> Any:
        if tf.distribute.get_replica_context() is not None:
            pairs = sum_over(zip(gradients, variables, strict=True))
            gradients = [gradient for gradient, _ in pairs]
        return apply(gradients, variables)

    optimizer.apply = applied
    optimizer._all_reduce_sum_gradients = list
