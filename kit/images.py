"""Ordinary images: read as RGB whatever the file holds, made square, written atomically."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from kit.checks import choice, positive_int
from kit.errors import ImageError
from kit.files import atomic

Fit = Literal["resize", "pad"]
WHITE = 255
DARK = 4096  # of 65536: below it, a 16-bit file holds 12 bits or fewer
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# What OpenCV cannot read is told by an ImageError in one line, not by OpenCV's log as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Inside a scan, FF is followed by 00 (a stuffed byte), D0-D7 (a restart) or FF (filling).
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Decoded(NamedTuple):
    """An image, RGB, and the shape (height, width, 3) that it has in its file."""

    image: np.ndarray
    stored: tuple[int, ...]


def read_image(path: str | Path) -> np.ndarray:
    """Read a PNG, JPEG, WebP, BMP or TIFF file as RGB.

    Grey is repeated in three channels, alpha is composited on white, 16-bit values are scaled
    by 255 / 65535. Pixels come as they are stored: an EXIF orientation is not applied, so that
    masks and coordinates made on the stored pixels fit. Of several TIFF pages the first is read.

    Args:
        path: The file; its name may hold any character.

    Returns:
        uint8, shape (height, width, 3), RGB in [0, 255].

    Raises:
        ImageError: The file is missing, cut off, damaged, no image, or neither 8 nor 16 bits.
    """
    path = Path(path)
    return _decoded(_whole(path), path)


def read_reduced(path: str | Path, least: int) -> Decoded:
    """Read an image as `read_image` does, a large JPEG at 1/2, 1/4 or 1/8 of its size.

    The inverse cosine transform of a JPEG gives the small image directly, each pixel the mean of
    those it stands for, so that neither the time nor the memory of the large one is spent.

    Args:
        path: The file.
        least: Neither side becomes shorter than this, pixels, >= 1.

    Raises:
        ImageError: As `read_image`; a large JPEG also where any part of it is damaged.
    """
    positive_int("least", least)
    path = Path(path)
    data = _whole(path)
    found = _reduced(data, least, path) if data.startswith(JPEG) else None
    if found is None:
        image = _decoded(data, path)
        found = Decoded(image, image.shape)
    return found


def _reduced(data: bytes, least: int, path: Path) -> Decoded | None:
    """Return a JPEG made smaller as it is decoded; None where it is too small for that."""
    from simplejpeg import decode_jpeg, decode_jpeg_header

    try:
        height, width, colours, _ = decode_jpeg_header(data)
        factor = max(k for k in (1, 2, 4, 8) if k == 1 or min(height, width) >= k * least)
        if factor == 1 or colours not in ("YCbCr", "RGB", "Gray"):
            return None
        sides = {"min_height": height // factor, "min_width": width // factor}
        return Decoded(decode_jpeg(data, "RGB", strict=True, **sides), (height, width, 3))
    except ValueError as error:
        raise _damaged(str(error), path) from error


def _whole(path: Path) -> bytes:
    """Return the bytes of an image, or raise where they are missing or visibly cut off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError("the image cannot be read", received=error.strerror, path=path) from error
    fault = _damage(data)
    if fault:
        raise _damaged(fault, path)
    return data


def _damaged(fault: str, path: Path) -> ImageError:
    return ImageError(
        "the image is cut off or damaged", received=fault, path=path,
        remedy="copy or download it again",
    )  # fmt: skip


def _decoded(data: bytes, path: Path) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError("the image cannot be decoded", received=error.err, path=path) from error
    if pixels is None:
        raise ImageError(
            "the image cannot be decoded", expected="PNG, JPEG, WebP, BMP or TIFF",
            received=f"{len(data)} bytes beginning with {data[:8]!r}", path=path,
        )  # fmt: skip
    return _rgb(pixels, path)


def fit(image: np.ndarray, size: int, how: Fit = "resize") -> np.ndarray:
    """Return `image` as a square of `size` pixels.

    An axis that shrinks is averaged over its area, one that grows is interpolated linearly.

    Args:
        image: uint8, shape (height, width) or (height, width, channels).
        size: Side of the result, pixels, >= 1.
        how: "resize" stretches the image to the square; "pad" first centres it on a white
            square of its longer side, so that a patch cut at the border of its slide keeps
            its scale among whole ones.

    Returns:
        uint8, shape (size, size, channels); grey has one channel.
    """
    positive_int("size", size)
    choice("how", how, ("resize", "pad"))
    if image.ndim == 2:
        image = image[:, :, None]
    if how == "pad":
        image = _square(image)
    height, width, channels = image.shape
    smaller = (min(width, size), min(height, size))
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image.reshape(size, size, channels)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image atomically, in the format that the suffix names.

    Args:
        path: The file, for instance `a.png`.
        image: uint8, shape (height, width) grey or (height, width, 3) RGB.

    Raises:
        ImageError: The array is no such image, or the suffix names no known format.
        KitError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise ImageError(
            "not an image that can be written", expected="uint8, (h, w) or (h, w, 3)",
            received=f"{image.dtype}, {image.shape}", path=path,
        )  # fmt: skip
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(path.suffix, stored)
    except cv2.error:
        done = False
    if not done:
        raise ImageError("unknown image format", received=f"suffix {path.suffix!r}", path=path)
    with atomic(path) as part:
        part.write_bytes(data.tobytes())


def _rgb(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return what OpenCV decoded (grey, BGR or BGRA; 8 or 16 bits) as uint8 RGB."""
    if pixels.dtype == np.uint16:
        if 0 < (most := int(pixels.max())) < DARK:
            raise ImageError(
                "a 16-bit image is almost black: it seems to hold fewer bits",
                expected="values that reach towards 65535", received=f"none above {most}",
                path=path, remedy="scale it to 0..65535, or write 8 bits",
            )  # fmt: skip
        pixels = np.rint(pixels.astype(np.float32) / 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(
            "values of unknown range", expected="8 or 16 bits a channel",
            received=str(pixels.dtype), path=path, remedy="scale it to 8 bits first",
        )  # fmt: skip
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if channels == 4:
        return _on_white(pixels)
    raise ImageError(
        "unknown channels", expected="1, 3 or 4", received=f"{channels} channels", path=path
    )


def _on_white(bgra: np.ndarray) -> np.ndarray:
    alpha = bgra[:, :, 3:].astype(np.float32) / 255
    colour = bgra[:, :, 2::-1].astype(np.float32)
    return np.rint(colour * alpha + WHITE * (1 - alpha)).astype(np.uint8)


def _square(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    side = max(height, width)
    if height == width:
        return image
    canvas = np.full((side, side, channels), WHITE, image.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = image
    return canvas


def _damage(data: bytes) -> str | None:
    """Say what is wrong with an image's bytes where OpenCV would decode grey in silence."""
    if not data:
        return "0 bytes"
    if data.startswith(PNG):
        return _png_damage(data)
    if data.startswith(JPEG):
        return None if _jpeg_ends(data) else "a JPEG without its end marker"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        whole = int.from_bytes(data[4:8], "little") + 8
        return f"{len(data)} of {whole} bytes" if len(data) < whole else None
    return None


def _png_damage(data: bytes) -> str | None:
    at = len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"a PNG with a wrong checksum at byte {at}"
        if kind == b"IEND":
            return None
        at = end
    return "a PNG without its end"


def _jpeg_ends(data: bytes) -> bool:
    """Walk the markers to the end of the image; an embedded thumbnail's end does not count."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            found = _SCAN_END.search(data, at)
            if found is None:
                return False
            at = found.start()
            if data[at + 1] == 0xD9:
                return True
    return False
