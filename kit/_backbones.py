"""Published families: keras.applications, the efficientnet package, and presets of KerasHub.

Each is built without its top; what scales its pixels is plain Keras layers inside the file, the
same with and without weights.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kit._network import Network, pooled
from kit.errors import ModelError

# ImageNet's statistics, RGB, of pixels in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE = (103.939, 116.779, 123.68)  # mean of BGR pixels in [0, 255]
HUB = "hub:"
"""Beginning of a name that stands for a KerasHub preset in a folder."""

# name: (its name in Keras, published size, smallest size, scaling). Tested against Keras itself.
_FAMILIES: dict[str, tuple[str, int, int, str]] = {
    "convnext_tiny": ("ConvNeXtTiny", 224, 32, "torch"),
    "keras_convnext_small": ("ConvNeXtSmall", 224, 32, "torch"),
    "convnext_base": ("ConvNeXtBase", 224, 32, "torch"),
    "convnext_large": ("ConvNeXtLarge", 224, 32, "torch"),
    "convnext_xlarge": ("ConvNeXtXLarge", 224, 32, "torch"),
    "densenet121": ("DenseNet121", 224, 32, "torch"),
    "densenet169": ("DenseNet169", 224, 32, "torch"),
    "densenet201": ("DenseNet201", 224, 32, "torch"),
    "efficientnet_b0": ("EfficientNetB0", 224, 32, "none"),
    "efficientnet_b1": ("EfficientNetB1", 240, 32, "none"),
    "efficientnet_b2": ("EfficientNetB2", 260, 32, "none"),
    "efficientnet_b3": ("EfficientNetB3", 300, 32, "none"),
    "efficientnet_b4": ("EfficientNetB4", 380, 32, "none"),
    "efficientnet_b5": ("EfficientNetB5", 456, 32, "none"),
    "efficientnet_b6": ("EfficientNetB6", 528, 32, "none"),
    "efficientnet_b7": ("EfficientNetB7", 600, 32, "none"),
    "efficientnet_v2_b0": ("EfficientNetV2B0", 224, 32, "torch"),
    "efficientnet_v2_b1": ("EfficientNetV2B1", 240, 32, "torch"),
    "efficientnet_v2_b2": ("EfficientNetV2B2", 260, 32, "torch"),
    "efficientnet_v2_b3": ("EfficientNetV2B3", 300, 32, "torch"),
    "efficientnet_v2_s": ("EfficientNetV2S", 384, 32, "128"),
    "efficientnet_v2_m": ("EfficientNetV2M", 480, 32, "128"),
    "efficientnet_v2_l": ("EfficientNetV2L", 480, 32, "128"),
    "inception_resnet_v2": ("InceptionResNetV2", 299, 75, "unit"),
    "inception_v3": ("InceptionV3", 299, 75, "unit"),
    "mobilenet": ("MobileNet", 224, 32, "unit"),
    "mobilenet_v2": ("MobileNetV2", 224, 32, "unit"),
    "mobilenet_v3_large": ("MobileNetV3Large", 224, 32, "unit"),
    "mobilenet_v3_small": ("MobileNetV3Small", 224, 32, "unit"),
    "nasnet_large": ("NASNetLarge", 331, 32, "unit"),
    "nasnet_mobile": ("NASNetMobile", 224, 32, "unit"),
    "resnet50": ("ResNet50", 224, 32, "caffe"),
    "resnet101": ("ResNet101", 224, 32, "caffe"),
    "resnet152": ("ResNet152", 224, 32, "caffe"),
    "resnet50_v2": ("ResNet50V2", 224, 32, "unit"),
    "resnet101_v2": ("ResNet101V2", 224, 32, "unit"),
    "resnet152_v2": ("ResNet152V2", 224, 32, "unit"),
    "vgg16": ("VGG16", 224, 32, "caffe"),
    "vgg19": ("VGG19", 224, 32, "caffe"),
    "xception": ("Xception", 299, 71, "unit"),
}
_PREPARED = ("ConvNeXt", "EfficientNetV2", "MobileNetV3")  # take `include_preprocessing`
_PACKAGE_SIZES = (224, 240, 260, 300, 380, 456, 528, 600)  # of B0 to B7


def scaled(x: Any, scale: str) -> Any:
    """Return pixels in [0, 255], any number of channels, scaled as a network wants them."""
    return SCALES[scale](x)


def _rescaled(factor: float, offset: float, name: str = "scaled") -> Callable[[Any], Any]:
    def layer(x: Any) -> Any:
        from keras import layers

        return layers.Rescaling(factor, offset=offset, name=name, dtype="float32")(x)

    return layer


def _normalised(x: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Return (x - mean) / std for each channel; their averages for other than three channels."""
    from keras import layers

    if x.shape[-1] != 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        return _rescaled(1 / std[0], -mean[0] / std[0])(x)
    variance = [value**2 for value in std]
    return layers.Normalization(
        mean=list(mean), variance=variance, name="scaled", dtype="float32"
    )(x)  # fmt: skip


def _torch(x: Any) -> Any:
    return _normalised(x, tuple(255 * m for m in MEAN), tuple(255 * s for s in STD))


def _caffe(x: Any) -> Any:
    """Return BGR minus the mean, as the families converted from Caffe were trained."""
    from keras import ops

    return _normalised(ops.flip(x, axis=-1) if x.shape[-1] == 3 else x, CAFFE, (1.0, 1.0, 1.0))


SCALES = MappingProxyType(
    {
        "none": lambda x: x,  # inside the network, or not pixels
        "unit": _rescaled(1 / 127.5, -1.0, "to_unit"),  # [-1, 1]
        "one": _rescaled(1 / 255, 0.0),  # [0, 1]
        "half": _rescaled(1 / 255, -0.5),  # [-0.5, 0.5]
        "128": _rescaled(1 / 128, -1.0),
        "torch": _torch,
        "caffe": _caffe,
    }
)


def _application(name: str, x: Any) -> Any:
    import keras

    options = {"include_preprocessing": False} if name.startswith(_PREPARED) else {}
    base = _bare(getattr(keras.applications, name), x, **options)
    if name.startswith("EfficientNetB"):
        base = _as_published(base, x.shape[-1])
    return base(x)


def _bare(build: Callable[..., Any], x: Any, **options: Any) -> Any:
    """Return a family without its top; the first convolution takes the channels of `x`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This model usually expects 1 or 3 input")
        return build(include_top=False, weights=None, input_shape=tuple(x.shape[1:]), **options)


def _as_published(base: Any, channels: int) -> Any:
    """Return EfficientNet with the layer that Keras adds only beside ImageNet's weights.

    Its normalisation divides by the square root of the deviation; the second division is a layer
    of its own. Statistics are ImageNet's from the start, so that scaling is the same either way.
    """
    import keras
    import numpy as np

    mean = MEAN if channels == 3 else (sum(MEAN) / 3,) * channels
    std = STD if channels == 3 else (sum(STD) / 3,) * channels

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        y = layer(*args, **kwargs)
        if not isinstance(layer, keras.layers.Normalization):
            return y
        layer.set_weights([np.array(mean), np.array(std), np.array(0)])
        layer.finalize_state()
        return keras.layers.Rescaling([value**-0.5 for value in std])(y)

    return keras.models.clone_model(base, call_function=call)


def _package(number: int, x: Any) -> Any:
    """Return B0 to B7 of the efficientnet package, its own classes exchanged for Keras' layers.

    The package's dropout and swish would have to be imported before a file of them is read, and
    its swish calls what Keras 3 no longer has.
    """
    import keras

    known = keras.utils.get_custom_objects()
    before = dict(known)
    import efficientnet.keras

    known.clear()  # else every "swish", of whatever network, would be the package's from now on
    known.update(before)

    def plain(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dropout):
            return keras.layers.Dropout.from_config(config)
        if getattr(getattr(layer, "activation", None), "__module__", "") == "efficientnet.model":
            config["activation"] = "silu"
        return type(layer).from_config(config)

    base = _bare(getattr(efficientnet.keras, f"EfficientNetB{number}"), x)
    return keras.models.clone_model(base, clone_function=plain)(x)


def hub(name: str) -> Network:
    """Return the entry of a KerasHub preset: `hub:FOLDER`; imports neither Keras nor KerasHub.

    Raises:
        ModelError: KerasHub is not installed, or the folder holds no preset.
    """
    folder = Path(name.removeprefix(HUB))
    if "keras_hub" not in sys.modules and importlib.util.find_spec("keras_hub") is None:
        raise ModelError(
            "presets need the package keras_hub", received=f"model={name}",
            remedy="pip install keras-hub (on Kaggle it is there), or model=seresnet_small, which "
            "trains from scratch",
        )  # fmt: skip
    if not (folder / "config.json").is_file():
        raise ModelError(
            "no KerasHub preset", expected="a folder with config.json", path=folder,
            remedy="attach the model on Kaggle as an input and name its folder below "
            "/kaggle/input, or download it with keras_hub's save_to_preset",
        )  # fmt: skip
    return Network(
        partial(_hub_features, folder), (224, 224, 3), 2, f"KerasHub preset in {folder}",
        pooled(0.2), scale="none",
    )  # fmt: skip


def _hub_features(folder: Path, x: Any) -> Any:
    """Return the map, (n, h, w, c), of a preset's backbone; tokens become a map of one row."""
    from keras import layers

    keras_hub = importlib.import_module("keras_hub")
    try:
        backbone = keras_hub.models.Backbone.from_preset(str(folder))
        converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    except Exception as error:  # whatever KerasHub meets in a folder
        raise ModelError(
            "the KerasHub preset cannot be read", expected="the preset of an image network",
            received=error, path=folder,
        ) from error  # fmt: skip
    if x.shape[-1] == 1:
        x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    if x.shape[-1] != 3:
        raise ModelError("presets take grey or RGB", received=f"{x.shape[-1]} channels")
    scale, offset = converter.scale, converter.offset
    x = layers.Rescaling(
        1.0 if scale is None else scale, 0.0 if offset is None else offset, name="scaled",
        dtype="float32",
    )(x)  # fmt: skip
    y = backbone(x)
    return y if len(y.shape) == 4 else layers.Reshape((1, -1, y.shape[-1]))(y)


FAMILIES: dict[str, Network] = {
    **{
        name: Network(
            partial(_application, function), (size, size, 3), 2,
            f"keras.applications.{function}", pooled(0.2), scale=scale, least=least,
            published=True,
        )
        for name, (function, size, least, scale) in _FAMILIES.items()
    },
    **{
        f"efficientnet_pkg_b{number}": Network(
            partial(_package, number), (size, size, 3), 2,
            f"EfficientNetB{number} of the efficientnet package", pooled(0.2), scale="torch",
            least=32, published=True,
        )
        for number, size in enumerate(_PACKAGE_SIZES)
    },
}  # fmt: skip
