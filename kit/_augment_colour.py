"""What happens to the values of an image: each function takes and gives float images (n, h, w, c).

Steps that are one formula are taken in one pass: stain and gamma on the logarithm, hue, contrast
and brightness as one matrix. Nothing is clipped in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from kit._augment_draws import Draws, each
from kit.policies import Policy

_RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_HED_FROM_RGB = np.linalg.inv(_RGB_FROM_HED).astype(np.float32)
_YIQ_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32
).T
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB).astype(np.float32)
_YCC_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
).T
_RGB_FROM_YCC = np.linalg.inv(_YCC_FROM_RGB).astype(np.float32)
_BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32) / 256  # variance 1
_LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
], np.float32)  # fmt: skip
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_FINEST = 1e-4  # coarseness that changes nothing


def tone(x: Any, steps: Policy, draws: Draws) -> Any:
    """Jitter the stains of a slide, and the exponent of the values.

    Both act on optical density: the stains' amounts are scaled and shifted (Tellez et al. 2019,
    10.1016/j.media.2019.101544, with the stain vectors of Ruifrok and Johnston 2001), and gamma
    scales the density.
    """
    stained = bool(steps.stain) and x.shape[-1] == 3
    if not (stained or steps.gamma):
        return x
    least = 1.0 if stained else 0.01  # black has a finite density; alone, gamma leaves it black
    white = float(np.log(255 + least))
    power = draws.zeros() + 1
    if steps.gamma:
        power = ops.exp(draws.amount(float(np.log1p(steps.gamma))))
    light = ops.log(x + least)
    if not stained:
        return ops.exp(light * each(power) + white * each(1 - power)) - least
    coin = each(draws.coin(), 3)
    factor = 1 + coin * draws.normal(steps.stain, (1, 3))
    offset = coin * draws.normal(steps.stain / 2, (1, 3))
    matrix = ops.matmul(ops.multiply(_HED_FROM_RGB, factor), _RGB_FROM_HED) * each(power, 3)
    # (light - white) @ matrix - offset of the density + white, its constants taken together
    moved = ops.matmul(offset, _RGB_FROM_HED) * each(power, 3)
    constant = white - moved - white * ops.sum(matrix, axis=1, keepdims=True)
    return ops.exp(_mixed(light, matrix) + constant[:, None]) - least


def light(x: Any, steps: Policy, draws: Draws) -> Any:
    """Turn the hue about the grey axis (in YIQ), scale the contrast about the mean, add light."""
    hue = bool(steps.hue) and x.shape[-1] == 3
    if not (hue or steps.contrast or steps.brightness):
        return x
    factor = 1 + draws.amount(steps.contrast) if steps.contrast else 1 + draws.zeros()
    added = 255 * draws.amount(steps.brightness) if steps.brightness else draws.zeros()
    matrix = _hue_matrix(draws.amount(steps.hue * np.pi / 180)) if hue else None
    offset = each(added)
    if steps.contrast:
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        mean = mean if matrix is None else _mixed(mean, matrix)
        offset = offset + mean * each(1 - factor)
    if matrix is None:
        return x * each(factor) + offset
    return _mixed(x, matrix * each(factor, 3)) + offset


def blur(x: Any, steps: Policy, draws: Draws) -> Any:
    """Mix each image with its binomial smoothing, so that the kernel has the variance drawn."""
    if not steps.blur:
        return x
    kernel = np.repeat((_BINOMIAL - _CENTRE)[:, :, None, None], x.shape[-1], axis=2)
    change = ops.depthwise_conv(
        _continued(x, 2, 2, 2), kernel, padding="valid", data_format="channels_last"
    )
    return x + each(draws.amount(min(steps.blur, 1.0), 0) ** 2) * change


def noise(x: Any, steps: Policy, draws: Draws) -> Any:
    """Add noise of a standard deviation that is drawn for each image.

    It is evenly distributed: a normal one costs more than twice as much to draw.
    """
    if not steps.noise:
        return x
    reach = each(3**0.5 * draws.amount(steps.noise, 0))
    return (x - reach) + 2 * reach * draws.uniform(shape=tuple(x.shape[1:]))


def jpeg(x: Any, steps: Policy, draws: Draws) -> Any:
    """Round the cosine coefficients of 8 x 8 blocks, as JPEG does with its standard tables.

    Colours are rounded as brightness and two colour differences, which are not made smaller.
    Source: ITU-T T.81, annexes A and K. An image without the step keeps its values to 0.01.
    """
    if not steps.jpeg:
        return x
    height, width, channels = x.shape[1:]
    colour = channels == 3
    blocks = _blocks(ops.matmul(x, _YCC_FROM_RGB) if colour else x)
    tables = np.stack([_LUMA, *[_CHROMA.ravel()] * 2] if colour else [_LUMA] * channels)
    coarse = ops.multiply(each(ops.maximum(draws.amount(steps.jpeg, 0), _FINEST), 5), tables)
    rounded = ops.round(ops.matmul(blocks, _COSINES.T) / coarse) * coarse
    found = _unblocked(ops.matmul(rounded, _COSINES))[:, :height, :width]
    return ops.matmul(found, _RGB_FROM_YCC) if colour else found


def cutout(x: Any, steps: Policy, draws: Draws) -> Any:
    """Give a rectangle the image's mean (DeVries and Taylor 2017, arXiv:1708.04552)."""
    if not steps.cutout:
        return x
    height, width, channels = x.shape[1:]
    sides = draws.uniform(0.25 * steps.cutout, steps.cutout, (2,)) * draws.coin()[:, None]
    rows, columns = rectangle(draws.uniform(shape=(2,)), sides, height, width)
    # One long row of values: TensorFlow spreads one number over a pixel's channels slowly.
    across = ops.repeat(columns, channels, axis=1)[:, None]
    fill = ops.tile(ops.mean(x, axis=(1, 2)), (1, width))[:, None]
    flat = ops.reshape(x, (-1, height, width * channels))
    return ops.reshape(flat + rows[:, :, None] * across * (fill - flat), (-1, *x.shape[1:]))


def rectangle(centre: Any, sides: Any, height: int, width: int) -> tuple[Any, Any]:
    """Return 1 for each row of a rectangle, (n, height), and column, (n, width); else 0.

    Args:
        centre: (y, x) in fractions of the image, shape (n, 2).
        sides: (height, width) in fractions of the image, shape (n, 2); 0 is no rectangle.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    inside = []
    for axis, side in enumerate((height, width)):
        places = (np.arange(side, dtype=np.float32) + 0.5) / side
        away = ops.abs(ops.subtract(places, centre[:, axis : axis + 1]))
        inside.append(ops.cast(away < sides[:, axis : axis + 1] / 2, "float32"))
    return inside[0], inside[1]


def _hue_matrix(angle: Any) -> Any:
    """Return (n, 3, 3), which turns the colours of each pixel (a row) by an angle."""
    cos, sin, one = ops.cos(angle), ops.sin(angle), ops.ones_like(angle)
    zero = one * 0
    rows = [[one, zero, zero], [zero, cos, sin], [zero, -sin, cos]]
    turn = ops.stack([ops.stack(row, -1) for row in rows], -2)
    return ops.matmul(ops.matmul(_YIQ_FROM_RGB, turn), _RGB_FROM_YIQ)


def _mixed(x: Any, matrix: Any) -> Any:
    """Return each pixel (a row) times its image's matrix, (n, 3, 3)."""
    flat = ops.reshape(x, (-1, x.shape[1] * x.shape[2], 3))
    return ops.reshape(ops.matmul(flat, matrix), (-1, *x.shape[1:]))


def _continued(x: Any, before: int, rows: int, columns: int) -> Any:
    """Return images with so many rows and columns more; beyond the edge, the edge is repeated."""
    for axis, after in ((1, rows), (2, columns)):
        ends = [ops.take(x, [place], axis=axis) for place in (0, x.shape[axis] - 1)]
        parts = [*[ends[0]] * before, x, *[ends[1]] * after]
        x = ops.concatenate(parts, axis=axis) if len(parts) > 1 else x
    return x


def _blocks(x: Any) -> Any:
    """Return blocks of 8 x 8, shape (n, down, across, c, 64); the edge fills the last ones."""
    down, across = -(-x.shape[1] // 8), -(-x.shape[2] // 8)
    full = _continued(x, 0, down * 8 - x.shape[1], across * 8 - x.shape[2])
    split = ops.reshape(full, (-1, down, 8, across, 8, x.shape[-1]))
    return ops.reshape(
        ops.transpose(split, (0, 1, 3, 5, 2, 4)), (-1, down, across, x.shape[-1], 64)
    )


def _unblocked(blocks: Any) -> Any:
    down, across, channels = blocks.shape[1:4]
    split = ops.reshape(blocks, (-1, down, across, channels, 8, 8))
    return ops.reshape(
        ops.transpose(split, (0, 1, 4, 2, 5, 3)), (-1, down * 8, across * 8, channels)
    )


def _cosines() -> np.ndarray:
    """Return the orthonormal cosine transform of a block of 8 x 8, shape (64, 64)."""
    k = np.arange(8)
    one = np.cos(np.pi * (2 * k + 1) * k[:, None] / 16) / 2
    one[0] /= 2**0.5
    return np.kron(one, one).astype(np.float32)


_COSINES = _cosines()
_CENTRE = np.zeros((5, 5), np.float32)
_CENTRE[2, 2] = 1
