"""Our own networks: small, trained from scratch, for images of 8 to 512 pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kit._network import Network, pooled

SCALE_START = 0.1  # of a branch in a shallow network: Touvron et al. 2021, 2103.17239


def conv_norm(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    """Return a convolution without bias, normalised over the batch."""
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def extra_strides(height: int, width: int) -> int:
    """Return how many strided convolutions a stem has more than for 48 pixels.

    One from 96 pixels of the shorter side on, and one more with each doubling (192, 384, …), so
    that the maps of the first stage have 24 to 47 pixels, whatever the image has.
    """
    side = min(height, width)
    return max(0, int(math.log2(side / 48))) if side >= 96 else 0


def _conv_small(x: Any) -> Any:
    from keras import layers

    for filters in (16, 32, 64):
        x = layers.ReLU()(conv_norm(x, filters, strides=2))
    return x


def _block(x: Any, filters: int, strides: int) -> Any:
    from keras import layers

    short = x if strides == 1 and x.shape[-1] == filters else conv_norm(x, filters, 1, strides)
    x = layers.ReLU()(conv_norm(x, filters, strides=strides))
    return layers.ReLU()(layers.Add()([conv_norm(x, filters), short]))


def _resnet(widths: tuple[int, ...], blocks: int, stem: int) -> Callable[[Any], Any]:
    """Return the builder of a residual network (He et al. 2016, 1512.03385).

    Args:
        widths: Filters of each stage; from the second on a stage halves the map.
        blocks: Blocks of two 3 x 3 convolutions in each stage.
        stem: Stride of the first convolution.
    """

    def build(x: Any) -> Any:
        from keras import layers

        for _ in range(extra_strides(*x.shape[1:3])):
            x = layers.ReLU()(conv_norm(x, widths[0], strides=2))
        x = layers.ReLU()(conv_norm(x, widths[0], strides=stem))
        for stage, filters in enumerate(widths):
            for block in range(blocks):
                x = _block(x, filters, 2 if stage and not block else 1)
        return x

    return build


def _excited(x: Any, filters: int) -> Any:
    """Return the maps, each times a factor in (0, 1) that the means of all of them decide."""
    from keras import layers

    means = layers.GlobalAveragePooling2D(keepdims=True)(x)
    few = layers.Conv2D(max(8, filters // 8), 1, activation="silu")(means)
    return layers.Multiply()([x, layers.Conv2D(filters, 1, activation="sigmoid")(few)])


def _seresnet_block(x: Any, filters: int, strides: int) -> Any:
    from keras import layers

    def conv(x: Any, kernel: int, strides: int = 1) -> Any:
        return layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False,
                             kernel_initializer="he_normal")(x)  # fmt: skip

    def active(x: Any) -> Any:
        return layers.Activation("silu")(layers.BatchNormalization(momentum=0.9)(x))

    short, x = x, active(x)
    if strides > 1:
        short = conv(layers.AveragePooling2D(2, padding="same")(short), 1)
    elif short.shape[-1] != filters:
        short = conv(x, 1)
    x = conv(active(conv(x, 3, strides)), 3)
    return layers.Add()([short, _excited(x, filters)])


def _seresnet(widths: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return the builder of a residual network of one block a stage.

    Normalised before each convolution (He et al. 2016, 1603.05027), with squeeze and excitation
    (Hu et al. 2018, 1709.01507), SiLU, and shortcuts that shrink by averaging (1812.01187).
    """

    def build(x: Any) -> Any:
        from keras import layers

        for _ in range(extra_strides(*x.shape[1:3])):
            x = layers.ReLU()(conv_norm(x, widths[0], strides=2))
        x = layers.Conv2D(widths[0], 3, 2, padding="same", use_bias=False,
                          kernel_initializer="he_normal")(x)  # fmt: skip
        for stage, filters in enumerate(widths):
            x = _seresnet_block(x, filters, 2 if stage else 1)
        return layers.Activation("silu")(layers.BatchNormalization(momentum=0.9)(x))

    return build


def _convnext_block(x: Any, filters: int) -> Any:
    import keras
    from keras import layers

    short = x
    x = layers.DepthwiseConv2D(7, padding="same")(x)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Dense(4 * filters, activation="gelu")(x)
    x = layers.Dense(filters)(x)
    # A factor for each channel that starts small, written as a layer that Keras has.
    x = layers.EinsumDense(
        "nhwc,c->nhwc", short.shape[1:],
        kernel_initializer=keras.initializers.Constant(SCALE_START),
    )(x)  # fmt: skip
    return layers.Add()([x, short])


def _convnext(widths: tuple[int, ...], blocks: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return the builder of a small ConvNeXt (Liu et al. 2022, 2201.03545).

    Its stem has stride 2, and twice that for each extra stride; stages are as in the paper.
    """

    def build(x: Any) -> Any:
        from keras import layers

        stride = 2 ** (1 + extra_strides(*x.shape[1:3]))
        x = layers.Conv2D(widths[0], max(3, stride), stride, padding="same")(x)
        x = layers.LayerNormalization(epsilon=1e-6)(x)
        for stage, (filters, n_blocks) in enumerate(zip(widths, blocks, strict=True)):
            if stage:
                x = layers.LayerNormalization(epsilon=1e-6)(x)
                x = layers.Conv2D(filters, 2, 2, padding="same")(x)
            for _ in range(n_blocks):
                x = _convnext_block(x, filters)
        return layers.LayerNormalization(epsilon=1e-6)(x)

    return build


def _bag(x: Any) -> Any:
    """Return the instances of a bag after one dense layer; rows of zeros are padding."""
    from keras import layers

    return layers.Dense(256, activation="relu")(layers.Masking(0.0)(x))


def _attention_head(x: Any, classes: int) -> Any:
    from keras import layers

    from kit._network import POOL, dense_logits
    from kit.attention import AttentionPool

    x = AttentionPool(128, name=POOL)(x)
    return dense_logits(layers.Dropout(0.25)(x), classes)


def _padded(x: Any) -> Any:
    """Return a bag whose rows of zeros are known as padding."""
    from keras import layers

    return layers.Masking(0.0)(x)


def _chowder_head(x: Any, classes: int) -> Any:
    """Return logits by the extremes of one score, or with more classes than two of one for each."""
    from keras import layers

    from kit._network import POOL, dense_logits
    from kit.attention import ExtremeScores

    x = ExtremeScores(1 if classes == 2 else classes, name=POOL)(x)
    for units in (200, 100):
        x = layers.Dense(units, activation="sigmoid")(x)
    return dense_logits(x, classes)


OWN: dict[str, Network] = {
    "conv_small": Network(
        _conv_small, (32, 32, 3), 2, "three strided convolutions: smoke", pooled()
    ),
    "resnet_small": Network(
        _resnet((32, 64, 128), 1, 2), (48, 48, 3), 2, "residual, trained from scratch", pooled(0.2)
    ),
    "resnet_wide": Network(
        _resnet((48, 96, 192), 1, 2), (48, 48, 3), 2, "resnet_small with half as many filters more",
        pooled(0.2),
    ),
    "resnet_deep": Network(
        _resnet((32, 64, 128), 2, 2), (48, 48, 3), 2, "resnet_small with two blocks a stage",
        pooled(0.2),
    ),
    "seresnet_small": Network(
        _seresnet((32, 64, 128)), (48, 48, 3), 2,
        "the default: residual, squeeze and excitation, trained from scratch", pooled(0.2),
    ),
    "convnext_small": Network(
        _convnext((48, 96, 192), (2, 2, 2)), (48, 48, 3), 2,
        "our small ConvNeXt, trained from scratch (Keras' own of that name: keras_convnext_small)",
        pooled(0.2),
    ),
    "attention_mil": Network(
        _bag, (None, 512), 2, "gated attention over a bag of features (Ilse 2018)",
        _attention_head, scale="none", takes="bags",
    ),
    "chowder": Network(
        _padded, (None, 512), 2, "a bag's highest and lowest scores (Courtiol 2018)",
        _chowder_head, scale="none", takes="bags",
    ),
}  # fmt: skip
