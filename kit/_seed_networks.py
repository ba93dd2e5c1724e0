"""The networks of the seed challenges, as their teams described them."""

from __future__ import annotations

from typing import Any

from kit._network import LOGITS, POOL, TO_CLASSES, Network, dense_logits, pooled
from kit._own_networks import conv_norm


def _help_simple(x: Any) -> Any:
    from keras import layers

    def conv(x: Any, filters: int, strides: int = 1) -> Any:
        return layers.Conv2D(filters, 3, strides, padding="same", activation="elu")(x)

    x = layers.MaxPooling2D()(conv(x, 100, 2))
    x = layers.MaxPooling2D()(conv(x, 200, 2))
    return layers.Dropout(0.2)(conv(conv(x, 300), 300))


def _upsampled_logits(x: Any, classes: int) -> Any:
    """Return logits of every pixel from a map of one sixteenth the size."""
    from keras import layers

    x = layers.Conv2D(classes, 1, name=TO_CLASSES)(x)
    return layers.Conv2DTranspose(
        classes, 31, 16, padding="same", dtype="float32", name=LOGITS
    )(x)  # fmt: skip


def _pixel_logits(x: Any, classes: int) -> Any:
    from keras import layers

    return layers.Conv2D(classes, 1, dtype="float32", name=LOGITS)(x)


def _unet(x: Any) -> Any:
    """Return the U-Net's last map: 16 to 256 filters, ELU, dropout .1 to .2, skips."""
    from keras import layers

    def pair(x: Any, filters: int, dropout: float) -> Any:
        for last in (False, True):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="elu", kernel_initializer="he_normal"
            )(x)
            x = x if last else layers.Dropout(dropout)(x)
        return x

    steps = ((16, 0.1), (32, 0.1), (64, 0.2), (128, 0.2))
    skips = []
    for filters, dropout in steps:
        skips.append(pair(x, filters, dropout))
        x = layers.MaxPooling2D()(skips[-1])
    x = pair(x, 256, 0.2)
    for (filters, dropout), skip in zip(reversed(steps), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(filters, 2, 2, padding="same")(x)
        x = pair(layers.Concatenate()([x, skip]), filters, dropout)
    return x


def _inception_conv(x: Any, filters: int, kernel: Any, strides: int = 1) -> Any:
    """Return Inception's unit: convolution, normalisation without scale, ReLU."""
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(scale=False)(x))


def _branches(x: Any, plan: tuple[tuple[tuple[int, Any], ...], ...], pool: int) -> Any:
    """Return the branches of one mixed block side by side.

    Args:
        x: A map.
        plan: For each branch its (filters, kernel) in turn.
        pool: Filters after the pooling branch's average.
    """
    from keras import layers

    found = []
    for branch in plan:
        y = x
        for filters, kernel in branch:
            y = _inception_conv(y, filters, kernel)
        found.append(y)
    y = layers.AveragePooling2D(3, 1, padding="same")(x)
    return layers.Concatenate()([*found, _inception_conv(y, pool, 1)])


def _reduction(x: Any) -> Any:
    """Return mixed3: the map halved."""
    from keras import layers

    double = _inception_conv(_inception_conv(x, 32, 1), 48, 3)
    return layers.Concatenate()(
        [
            _inception_conv(x, 192, 3, 2),
            _inception_conv(double, 48, 3, 2),
            layers.MaxPooling2D(3, 2, padding="same")(x),
        ]
    )


def _half_inception(x: Any) -> Any:
    """Return Inception-v3 up to mixed7 with half the filters, and a decoder to the input's size.

    All padding is "same", so that a map is 1/16 of the input; the decoder doubles it four times,
    each time with a 3 x 3 convolution of 128, 64, 32 and 16 filters.
    Source of the encoder: Szegedy et al. 2016, 1512.00567, as in Keras.
    """
    from keras import layers

    for filters, strides in ((16, 2), (16, 1), (32, 1)):
        x = _inception_conv(x, filters, 3, strides)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _inception_conv(_inception_conv(x, 40, 1), 96, 3)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for pool in (16, 32, 32):
        plan = (((32, 1),), ((24, 1), (32, 5)), ((32, 1), (48, 3), (48, 3)))
        x = _branches(x, plan, pool)
    x = _reduction(x)
    for inner in (64, 80, 80, 96):
        wide, high = (1, 7), (7, 1)
        one = ((inner, 1), (inner, wide), (96, high))
        two = ((inner, 1), (inner, high), (inner, wide), (inner, high), (96, wide))
        x = _branches(x, (((96, 1),), one, two), 96)
    for filters in (128, 64, 32, 16):
        x = layers.ReLU()(conv_norm(layers.UpSampling2D()(x), filters))
    return x


def _rsna(x: Any) -> Any:
    from keras import layers

    x = layers.MaxPooling2D()(layers.Conv2D(64, 4, activation="relu")(x))
    x = layers.MaxPooling2D(1)(layers.Conv2D(32, 2, activation="relu")(x))
    return layers.Dropout(0.1)(x)


def _rsna_head(x: Any, classes: int) -> Any:
    from keras import layers

    x = layers.Flatten(name=POOL)(x)
    return dense_logits(layers.Dense(32, activation="relu")(x), classes)


def _vgg(x: Any) -> Any:
    """Return VGG16's thirteen convolutions with half the filters and batch normalisation.

    Source of the plan: Simonyan and Zisserman 2015, 1409.1556, configuration D.
    """
    from keras import layers

    for filters, convolutions in ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3)):
        for _ in range(convolutions):
            x = layers.ReLU()(conv_norm(x, filters))
        x = layers.MaxPooling2D()(x)
    return x


_HELP: dict[str, Any] = {"gives": "pixels", "least": 16, "multiple": 16}

SEED: dict[str, Network] = {
    "help_simple": Network(
        _help_simple, (256, 256, 3), 2, "HeLP 2019: four convolutions, upsampled 16 times",
        _upsampled_logits, scale="half", **_HELP,
    ),
    "help_unet": Network(
        _unet, (256, 256, 3), 2, "HeLP 2019: U-Net of 16 to 256 filters", _pixel_logits,
        scale="one", **_HELP,
    ),
    "help_inception": Network(
        _half_inception, (256, 256, 3), 2,
        "HeLP 2019: half Inception-v3 to mixed7, decoder of four steps", _pixel_logits,
        **_HELP,
    ),
    "rsna_cnn": Network(
        _rsna, (32, 32, 1), 2, "RSNA-MICCAI 2021: two convolutions on one MRI slice", _rsna_head,
        scale="one", least=7,
    ),
    "khd2019_vgg": Network(
        _vgg, (307, 390, 3), 4, "KHD 2019: VGG16 with half the filters, normalised, pooled",
        pooled(0.5), least=32,
    ),
}  # fmt: skip
