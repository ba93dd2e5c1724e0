"""Haematoxylin and eosin: how much of each a pixel holds, and slides made to look like another.

Density is optical density: base 10 in `stains` and what is made of it (Ruifrok), the natural
logarithm in the normalisers (Macenko).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kit._stain_maths import METHODS, Colours, Look, Stains, move, tissue
from kit.checks import choice, first, positive_int
from kit.errors import ImageError, SettingsError, TableError

# Optical density of haematoxylin and eosin in red, green and blue, each of length 1.
HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
ODD_FROM = 3.5  # robust standard deviations from the other slides' median
LEAST_SPREAD = 0.015  # optical density: slides that agree better than this are not told apart

STANDARD: dict[str, Look] = {
    "macenko": Stains(((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), (1.9705, 1.0308)),
    "reinhard": Colours((60.9, 31.9, -17.9), (10.9, 8.7, 5.6)),
}
"""Looks to aim at without a reference of one's own.

Macenko: the vectors and 99th percentiles of Veta's code (HERef, maxCRef), as torchstain has them.
Reinhard: the mean that HistomicsTK publishes of TCGA-A2-A3XS-DX1 in Ruderman's l, alpha, beta
(8.741, -.1244, .0445), which is the colour (188, 127, 179), in CIE Lab; the spreads cannot be
carried, and are the medians of 160 breast cancer patients (IDC, 10x).
"""


@dataclass(frozen=True)
class Normaliser:
    """Makes patches of H&E look as if they came from one laboratory.

    "macenko": optical densities are unmixed by the patch's own two stain vectors and mixed again
    by the target's, each stain scaled so that its 99th percentile is the target's; what neither
    stain explains is kept, so that a patch of the target's look stays as it is. "reinhard": L, a
    and b of CIE Lab get the target's mean and standard deviation.

    Looks are estimated on tissue: pixels of a mean optical density of .15 to 2.5 (blacker is what
    a scanner has not looked at) that are not pen ink. Glass, of less than half of .15, stays
    exactly as it is. A patch's own estimate is noisy, above all where it holds little of one stain;
    a slide's is better: `estimate` it once from a sample of the slide's patches and `apply` it to
    all.

    Attributes:
        target: The look aimed at; says the method.

    Source: Macenko et al. 2009, 10.1109/ISBI.2009.5193250 (percentiles 1 and 99, singular vectors
        of the densities as in the paper); Reinhard et al. 2001, 10.1109/38.946629, in CIE Lab.
    """

    target: Look

    @classmethod
    def standard(cls, method: str) -> Normaliser:
        """Return a normaliser to a fixed look (see `STANDARD`).

        Raises:
            SettingsError: The method is unknown.
        """
        return cls(STANDARD[choice("stain method", method, METHODS)])

    @classmethod
    def fit(cls, method: str, images: np.ndarray | Sequence[np.ndarray]) -> Normaliser:
        """Return a normaliser to the look of a reference image, or of a training set.

        The tissue of all images is taken together; each gives as many pixels at most, so that none
        counts more for being large. Nothing is drawn at random.

        Args:
            method: "macenko" or "reinhard".
            images: uint8 RGB, shape (n, height, width, 3), or a list of (height, width, 3).

        Raises:
            SettingsError: The method is unknown.
            ImageError: No such images, or too little tissue of two stains in them.
        """
        return cls(_look(choice("stain method", method, METHODS), images))

    @property
    def method(self) -> str:
        """The method's name, "macenko" or "reinhard"."""
        return next(name for name, kind in METHODS.items() if isinstance(self.target, kind))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalise patches, each by its own estimate.

        Args:
            images: uint8 RGB, shape (n, height, width, 3); not changed.

        Returns:
            The patches in the target's look, uint8 of the same shape; and bool (n,), True where a
            patch is left alone, exactly as it came, because it says too little of its stains:
            less than 5 % or 100 pixels of tissue, a single colour, or vectors that no two stains
            can have.

        Raises:
            ImageError: No such images.
        """
        moved = _array(images).copy()
        left_alone = np.zeros(len(images), dtype=bool)
        for number, image in enumerate(_checked(images)):
            source = METHODS[self.method].of([image])
            if source is None:
                left_alone[number] = True
            else:
                moved[number] = move(image, source, self.target)
        return moved, left_alone

    def estimate(self, images: np.ndarray | Sequence[np.ndarray]) -> Look:
        """Return the look of a slide, of a sample of its patches.

        Args:
            images: uint8 RGB, shape (n, height, width, 3), or a list of (height, width, 3).

        Raises:
            ImageError: No such images, or too little tissue of two stains in them.
        """
        return _look(self.method, images)

    def apply(self, images: np.ndarray, source: Look) -> np.ndarray:
        """Return patches of the look `source` in the target's, uint8 of the same shape.

        Args:
            images: uint8 RGB, shape (n, height, width, 3); not changed.
            source: From `estimate` of the same method.

        Raises:
            ImageError: No such images.
            SettingsError: The source is of another method.
        """
        moved = np.empty_like(_array(images))
        for number, image in enumerate(_checked(images)):
            moved[number] = move(image, source, self.target)
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Return the normaliser in JSON's own types; `from_dict` makes the same one of them."""
        lists = {name: np.array(value).tolist() for name, value in asdict(self.target).items()}
        return {"method": self.method, **lists}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normaliser:
        """Return the normaliser that `to_dict` wrote.

        Raises:
            SettingsError: The method is unknown, or its numbers are not those of a look.
        """
        method = choice("stain method", str(values.get("method")), METHODS)
        given = {name: value for name, value in values.items() if name != "method"}
        return cls(METHODS[method].read(given))


def stains(rgb: np.ndarray) -> np.ndarray:
    """Return the optical density of haematoxylin and of eosin, float64 (n, 2), 0 is none.

    Args:
        rgb: uint8, shape (n, 3).

    Source: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
        Anal Quant Cytol Histol 23 (2001) 291-299; their vectors.
    """
    density = -np.log10((rgb.astype(np.float64) + 1) / 256)
    first, second = np.array(HAEMATOXYLIN), np.array(EOSIN)
    third = np.cross(first, second)
    vectors = np.stack([first, second, third / np.linalg.norm(third)])
    return np.asarray((density @ np.linalg.inv(vectors))[:, :2])


def odd_slides(medians: Mapping[str, np.ndarray]) -> list[str]:
    """Return the slides whose stain stands apart from the others'.

    A slide is odd if its median of a stain lies more than `ODD_FROM` robust standard deviations
    (1.4826 times the median absolute deviation, at least `LEAST_SPREAD`) from the median of all.

    Args:
        medians: For each slide its median optical density of each stain.
    """
    if len(medians) < 3:
        return []
    table = np.stack(list(medians.values()))
    away = np.abs(table - np.median(table, axis=0))
    spread = np.maximum(1.4826 * np.median(away, axis=0), LEAST_SPREAD)
    odd = (away / spread > ODD_FROM).any(axis=1)
    return [name for name, one in zip(medians, odd, strict=True) if one]


def median_stains(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Return the median optical density of haematoxylin and of eosin in tissue, float64 (2,).

    Args:
        images: uint8 RGB, shape (n, height, width, 3), or a list of (height, width, 3), of one
            slide or patient.

    Returns:
        As `stains` gives them; nan where there is no tissue.
    """
    levels, share = tissue(_checked(images))
    return np.median(stains(levels.T), axis=0) if share else np.full(2, np.nan)


def clusters(medians: Mapping[str, np.ndarray], k: int) -> dict[str, int]:
    """Return groups of slides or patients of alike stain: for each its group, 0 to k - 1.

    Ward's hierarchical clustering of the medians as they are, which knows no chance: no seed, and
    no order. Groups are numbered from the least haematoxylin to the most.

    Args:
        medians: For each name its median optical density of each stain (`median_stains`).
        k: Number of groups, at most that of the different medians.

    Raises:
        SettingsError: `k` is no such number.
        TableError: A median is not finite.

    Source: Ward 1963, 10.1080/01621459.1963.10500845.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    names = sorted(medians)
    table = np.array([medians[name] for name in names], dtype=np.float64)
    _check_medians(names, table, positive_int("k", k))
    if k == 1:
        return dict.fromkeys(medians, 0)
    found = fcluster(linkage(table, "ward"), k, "maxclust")
    darkness = {group: float(table[found == group, 0].mean()) for group in set(found.tolist())}
    rank = {group: place for place, group in enumerate(sorted(darkness, key=darkness.__getitem__))}
    group_of = dict(zip(names, found.tolist(), strict=True))
    return {name: rank[group_of[name]] for name in medians}


def _check_medians(names: Sequence[str], table: np.ndarray, k: int) -> None:
    bare = [name for name, row in zip(names, table, strict=True) if not np.isfinite(row).all()]
    if bare:
        raise TableError("medians of stain must be finite", received=first(bare),
                         remedy="leave out what has no tissue")  # fmt: skip
    different = len(np.unique(table, axis=0)) if len(table) else 0
    if k > different:
        raise SettingsError("more groups than different medians", expected=f"k <= {different}",
                            received=f"k={k}")  # fmt: skip


def _look(method: str, images: np.ndarray | Sequence[np.ndarray]) -> Look:
    checked = _checked(images)
    look = METHODS[method].of(checked)
    if look is None:
        raise ImageError(
            "the images say too little of their stains",
            expected="at least 5 % of tissue, of two stains", received=f"{len(checked)} images",
            remedy="choose images full of tissue, without ink; or Normaliser.standard",
        )  # fmt: skip
    return look


def _array(images: np.ndarray) -> np.ndarray:
    """Return `images` if they are a batch."""
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise ImageError("patches must be one array",
                         expected="uint8, shape (n, height, width, 3); one image is image[None]",
                         received=_said(images))  # fmt: skip
    return images


def _checked(images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the images one by one, contiguous, if each is uint8 RGB and there is one."""
    if isinstance(images, np.ndarray):
        _array(images)
    if not len(images):
        raise ImageError("there are no images", expected="one or more", received=_said(images))
    for image in images:
        right = isinstance(image, np.ndarray) and image.dtype == np.uint8
        if not (right and image.ndim == 3 and image.shape[2] == 3 and image.size):
            raise ImageError("images must be uint8 RGB", expected="uint8, (height, width, 3) each",
                             received=_said(image),
                             remedy="stains are measured on levels 0 to 255")  # fmt: skip
    return [np.ascontiguousarray(image) for image in images]


def _said(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
