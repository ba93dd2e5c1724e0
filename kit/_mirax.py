"""Small MIRAX slides, written for stand-ins and tests: an index, and one file of tiles.

The layout is what OpenSlide reads: https://openslide.org/formats/mirax/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

TILE = 256
VERSION, SLIDE_ID = "01.02", "0123456789abcdef0123456789abcdef"
LEVEL = """[LAYER_0_LEVEL_{level}_SECTION]
OVERLAP_X = 0.0
OVERLAP_Y = 0.0
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 0
DIGITIZER_WIDTH = {tile}
DIGITIZER_HEIGHT = {tile}
IMAGE_CONCAT_FACTOR = {joined}
"""
HEAD = """[GENERAL]
SLIDE_VERSION = {version}
SLIDE_ID = {id}
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {down}
OBJECTIVE_MAGNIFICATION = 20
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
HIER_COUNT = 1
NONHIER_COUNT = 0
INDEXFILE = Index.dat
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = {levels}
"""
FILES = """[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
"""


def write(
    path: Path, image: np.ndarray, scanned: np.ndarray, *, mpp: float, levels: int = 4,
    quality: int = 85,
) -> None:  # fmt: skip
    """Write `<name>.mrxs` and its folder beside it.

    The slide's bounds are those of the tiles that were scanned; the others are not there, as in
    slides of a scanner that leaves out what holds no tissue.

    Args:
        path: The .mrxs file.
        image: Level 0, uint8 RGB, a whole number of tiles of 256 high and wide.
        scanned: Which tiles there are, bool (height / 256, width / 256).
        mpp: µm per pixel of level 0.
        levels: Of the pyramid, each half the one below.
        quality: Of the JPEG tiles.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(b"")
    down, across = scanned.shape
    data, pages = bytearray(), []
    for level in range(levels):
        page = []
        for place, tile in _tiles(image, scanned, level):
            stored = cv2.imencode(".jpg", tile[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
            page.append((place, len(data), len(stored), 0))
            data += stored.tobytes()
        pages.append(page)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(pages))
    names = "".join(
        f"HIER_0_VAL_{n} = ZoomLevel_{n}\nHIER_0_VAL_{n}_SECTION = LAYER_0_LEVEL_{n}_SECTION\n"
        for n in range(levels)
    )
    head = HEAD.format(version=VERSION, id=SLIDE_ID, across=across, down=down, levels=levels)
    sections = "".join(
        LEVEL.format(level=n, mpp=mpp * 2**n, tile=TILE, joined=int(n > 0)) for n in range(levels)
    )
    said = head + names + FILES + sections
    (folder / "Slidedat.ini").write_text(said, encoding="utf-8-sig", newline="\r\n")


def _tiles(image: np.ndarray, scanned: np.ndarray, level: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each tile of a level with its place: the number of its first tile of level 0."""
    down, across = scanned.shape
    step = 2**level
    void = np.kron(~scanned, np.ones((TILE // step, TILE // step), bool))
    size = (across * TILE // step, down * TILE // step)
    small = image if level == 0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rows, columns = -(-down // step), -(-across // step)
    whole = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    whole[: size[1], : size[0]] = np.where(void[..., None], 0, small)
    for row in range(rows):
        for column in range(columns):
            here = scanned[row * step : (row + 1) * step, column * step : (column + 1) * step]
            if here.any():
                tile = whole[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                yield row * step * across + column * step, tile


def _index(pages: list[list[tuple[int, int, int, int]]]) -> bytes:
    """Return the index: of each level a list of its tiles' place, offset, length and file."""
    head = (VERSION + SLIDE_ID).encode()
    first = len(head) + 8  # behind the two roots
    at = first + 4 * len(pages)
    pointers, lists = [], b""
    for page in pages:
        here = at + len(lists)
        pointers.append(here)
        lists += struct.pack("<iiii", 0, here + 8, len(page), 0)
        lists += b"".join(struct.pack("<iiii", *tile) for tile in page)
    return head + struct.pack(f"<ii{len(pages)}i", first, 0, *pointers) + lists
