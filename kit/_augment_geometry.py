"""Where each pixel of an augmented image comes from: one map and one interpolation for all steps.

Pixel centres have whole coordinates, x along the columns and y along the rows; the map goes from a
place in the result to its place in the source, `centre + matrix @ (p - centre) + shift + bend(p)`.
Beyond the source, its edge is continued. Reading by index instead of by a backend's own affine
kernel costs more without XLA, but bends in the same pass, and XLA can compile it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from kit._augment_draws import Draws, each
from kit.policies import Policy

KNOTS = 7  # control points of the displacement along a side: four spans of a cubic spline
_SMOOTHED = 0.48  # what the spline leaves of the control points' standard deviation, on average
_SETTLED = 4  # rounds of the search for a bent point; each divides the error by about ten
_AROUND = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [2, 1], [0, 2], [1, 2], [2, 2]]) / 2

_BILINEAR = np.array([[1, 0, 0, 0], [-1, 1, 0, 0], [-1, 0, 1, 0], [1, -1, -1, 1]], "float32")
# Rows: 1, u, v, uv of a place inside its four pixels; columns: the pixels' weights.


@dataclass(frozen=True)
class Map:
    """The geometry of one batch of n images of one size.

    Attributes:
        height: In pixels.
        width: In pixels.
        matrix: shape (n, 2, 2), acts on (x, y) about the centre.
        shift: shape (n, 2), pixels.
        knots: shape (n, 2, KNOTS, KNOTS), pixels: the displacement's control points; None if none.
        exact: Whether every pixel lands on a pixel, so that nothing is interpolated.
    """

    height: int
    width: int
    matrix: Any
    shift: Any
    knots: Any
    exact: bool

    def sources(self) -> tuple[Any, Any]:
        """Return x and y of every pixel's source, inside the image, shape (n, height, width)."""
        middle = (self.width - 1) / 2, (self.height - 1) / 2
        x = ops.reshape(ops.arange(self.width, dtype="float32") - middle[0], (1, 1, -1))
        y = ops.reshape(ops.arange(self.height, dtype="float32") - middle[1], (1, -1, 1))
        found = []
        for axis, side in enumerate((self.width, self.height)):
            along, across = (each(self.matrix[:, axis, k], 3) for k in (0, 1))
            place = along * x + (across * y + each(self.shift[:, axis], 3) + middle[axis])
            if self.knots is not None:
                rows, columns = (_splines(ops.arange(n), n) for n in (self.height, self.width))
                bend = ops.matmul(rows, self.knots[:, axis])
                place = place + ops.matmul(bend, ops.transpose(columns))
            found.append(ops.clip(place, 0, side - 1))
        return found[0], found[1]

    def images(self, x: Any, sources: tuple[Any, Any]) -> Any:
        """Return float images, shape (n, height, width, c), read between the pixels."""
        return self.nearest(x, sources) if self.exact else _between(x, *sources)

    def nearest(self, x: Any, sources: tuple[Any, Any]) -> Any:
        """Return masks or labels of any type, shape (n, height, width, c), the nearest pixel."""
        across, down = (ops.round(place) for place in sources)
        return ops.take(_rows(x), _place(down, across, self.height, self.width), axis=0)

    def boxes(self, boxes: Any) -> Any:
        """Return boxes about what was in them, clipped; zeros if nothing is left.

        Args:
            boxes: shape (n, k, 4): x0, y0, x1, y1 in pixels, where pixel i reaches from i to i + 1.
        """
        boxes = ops.cast(boxes, "float32")
        start, size = boxes[..., None, :2], boxes[..., None, 2:] - boxes[..., None, :2]
        around = ops.convert_to_tensor(_AROUND, "float32")
        points = self._to_result(start + size * around - 0.5) + 0.5
        sides = ops.convert_to_tensor([self.width, self.height], "float32")
        low = ops.clip(ops.min(points, axis=2), 0, sides)
        high = ops.clip(ops.max(points, axis=2), 0, sides)
        left = ops.all((high - low > 1e-3) & (size[:, :, 0] > 0), axis=-1, keepdims=True)
        return ops.where(left, ops.concatenate([low, high], axis=-1), 0.0)

    def _to_result(self, points: Any) -> Any:
        """Return where points of the source lie in the result, shape (n, k, m, 2)."""
        middle = ops.convert_to_tensor([(self.width - 1) / 2, (self.height - 1) / 2], "float32")
        (a, b), (c, d) = ([self.matrix[:, i, j] for j in (0, 1)] for i in (0, 1))
        back = ops.stack([ops.stack([d, -c], -1), ops.stack([-b, a], -1)], -2)  # transposed
        back = (back / each(a * d - b * c, 3))[:, None]
        there = points - middle - self.shift[:, None, None]
        found = ops.matmul(there, back) + middle
        if self.knots is not None:
            for _ in range(_SETTLED):
                found = ops.matmul(there - self._bend(found), back) + middle
        return found

    def _bend(self, points: Any) -> Any:
        across, down = _splines(points[..., 0], self.width), _splines(points[..., 1], self.height)
        return ops.einsum("nkmy,nayx,nkmx->nkma", down, self.knots, across)


def draw_map(steps: Policy, draws: Draws, height: int, width: int) -> Map | None:
    """Return the geometry that a policy draws for a batch; None if it has none."""
    free = steps.rotate or steps.zoom or steps.shift or steps.crop or steps.elastic
    if not (free or steps.flip or steps.vertical or steps.symmetries):
        return None
    sides = ops.convert_to_tensor([width, height], "float32")
    mirror = _mirrors(steps, draws, height == width)
    angle = draws.amount(steps.rotate * np.pi / 180) if steps.rotate else draws.zeros()
    scale = 1 + draws.amount(steps.zoom) if steps.zoom else 1 + draws.zeros()
    shift = ops.zeros_like(mirror[:, 0])
    if steps.shift:
        shift = draws.coin()[:, None] * draws.uniform(-steps.shift, steps.shift, (2,))
    if steps.crop:
        lost = draws.amount(steps.crop, 0)
        room = (sides - 1) / sides  # from the first pixel's centre to the last one's
        shift = shift + lost[:, None] * room * draws.uniform(-0.5, 0.5, (2,))
        scale = scale * (1 - lost)
    cos, sin = ops.cos(angle) * scale, ops.sin(angle) * scale
    turn = ops.stack([ops.stack([cos, -sin], -1), ops.stack([sin, cos], -1)], -2)
    knots = None
    if steps.elastic:
        knots = draws.normal(steps.elastic / _SMOOTHED, (2, KNOTS, KNOTS)) * sides[:, None, None]
        knots = knots * each(draws.coin())
    shift = ops.matmul(mirror, (shift * sides)[..., None])[..., 0]
    return Map(height, width, ops.matmul(mirror, turn), shift, knots, not free)


def _mirrors(steps: Policy, draws: Draws, square: bool) -> Any:
    """Return symmetries of the square about its centre, each its own inverse or a quarter turn."""
    sides = (steps.flip or steps.symmetries, steps.vertical or steps.symmetries)
    flips = [draws.coin(0.5) if on else draws.zeros() for on in sides]
    swap = draws.coin(0.5) if steps.symmetries and square else draws.zeros()
    x, y = 1 - 2 * flips[0], 1 - 2 * flips[1]
    rows = [ops.stack([x * (1 - swap), x * swap], -1), ops.stack([y * swap, y * (1 - swap)], -1)]
    return ops.stack(rows, -2)


def _splines(places: Any, side: int) -> Any:
    """Return each control point's weight at some places, shape (*places.shape, KNOTS).

    Uniform cubic B-splines (Rueckert et al. 1999, 10.1109/42.796284): weights sum to 1.
    """
    span = max(side - 1, 1) / (KNOTS - 3)
    along = ops.clip(ops.cast(places, "float32") / span, 0, KNOTS - 3)
    away = ops.abs(along[..., None] + 1 - ops.arange(KNOTS, dtype="float32"))
    near = 2 / 3 - away**2 + away**3 / 2
    return ops.where(away < 1, near, ops.maximum(2 - away, 0) ** 3 / 6)


def _between(x: Any, across: Any, down: Any) -> Any:
    """Return bilinear reads: one read of four neighbours side by side, then their weighted sum."""
    height, width, channels = x.shape[1:]
    left = ops.minimum(ops.floor(across), max(width - 2, 0))
    top = ops.minimum(ops.floor(down), max(height - 2, 0))
    u, v = across - left, down - top
    terms = ops.reshape(ops.stack([ops.ones_like(u), u, v, u * v]), (4, -1))
    rows = _rows(x)
    four = [ops.roll(rows, -away, axis=0) for away in (1, width, width + 1)]
    place = ops.reshape(_place(top, left, height, width), (-1,))
    read = ops.take(ops.concatenate([rows, *four], axis=1), place, axis=0)
    # Sums by matrices: TensorFlow spreads one number over the channels of a pixel slowly.
    weights = ops.matmul(ops.transpose(terms), np.repeat(_BILINEAR, channels, axis=1))
    together = np.tile(np.eye(channels, dtype="float32"), (4, 1))
    return ops.reshape(ops.matmul(read * weights, together), (-1, height, width, channels))


def _rows(x: Any) -> Any:
    """Return all pixels of all images one below the other."""
    return ops.reshape(x, (-1, x.shape[-1]))


def _place(down: Any, across: Any, height: int, width: int) -> Any:
    """Return the row number of each pixel among those of all images, shape (n, height, width)."""
    inside = ops.cast(down * width + across, "int32")
    return inside + each(ops.arange(ops.shape(inside)[0], dtype="int32"), 3) * (height * width)
