"""Shards: many equal images in one file, each as raw pixels or as a JPEG, with a checksum.

Layout: the images' bytes one after another, a note (JSON: what the caller says, shape, encoding
and where each image ends), the note's length (4 bytes, little endian), the sha256 of all before.
Reading is `seek` and `read` on a handle that is closed again. A kept memory map is faster while the
file is in memory (`benchmarks/patch_store.py`), but holds a handle for each of 800 shards, and a
shard cut under it kills the process, where a read is an error; training waits for neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ImageError
from kit.files import atomic

RAW = "raw"
LENGTH, SHA256, BLOCK = 4, 32, 1 << 20
COLOURS = {1: ("GRAY", "Gray"), 3: ("RGB", "444")}  # full colour: stain is colour
AGAIN = "delete it and run the same command again: it writes what is missing"


def encoding(quality: int | None) -> str:
    """Return how images are kept, in words: "raw", or "jpeg q90"."""
    return RAW if quality is None else f"jpeg q{quality}"


def write(
    path: Path, images: np.ndarray, about: Mapping[str, Any], *, quality: int | None = None
) -> dict[str, Any]:
    """Write a shard, whole or not at all, and return its note.

    Args:
        path: The file.
        images: uint8, shape (n, height, width, channels).
        about: What else to note, in JSON's own types.
        quality: Of the JPEGs, 1 to 100, chroma not subsampled; None keeps every pixel as it is.

    Raises:
        ImageError: The images are not 8-bit, or a JPEG cannot hold so many channels.
    """
    if images.dtype != np.uint8:
        raise ImageError("images are not 8-bit", expected="uint8", received=images.dtype)
    rows = images if quality is None else _jpegs(images, quality)
    ends = np.cumsum([memoryview(row).nbytes for row in rows], dtype=np.int64)
    own = {"shape": images.shape[1:], "encoding": encoding(quality), "ends": ends.tolist()}
    text = json.dumps({**about, **own}, sort_keys=True).encode()
    seal = hashlib.sha256()
    with atomic(path) as part, part.open("wb") as stream:
        for piece in (*rows, text, len(text).to_bytes(LENGTH, "little")):
            data = np.ascontiguousarray(piece).data if isinstance(piece, np.ndarray) else piece
            seal.update(data)
            stream.write(data)
        stream.write(seal.digest())
    return note(path)


def _jpegs(images: np.ndarray, quality: int) -> list[bytes]:
    import simplejpeg

    channels = images.shape[-1]
    if channels not in COLOURS:
        raise ImageError("a JPEG cannot hold these images", received=f"{channels} channels",
                         expected="1 or 3", remedy="keep them without a JPEG quality")  # fmt: skip
    colour, sampling = COLOURS[channels]
    return [
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, colour, sampling)
        for image in images
    ]


def note(path: Path) -> dict[str, Any]:
    """Return what a shard says of itself, and its `bytes` and `sha256` as written.

    Only the end of the file is read; its size must fit.

    Raises:
        ImageError: The file is missing, cut or no shard.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            stream.seek(max(0, size - LENGTH - SHA256))
            length = int.from_bytes(stream.read(LENGTH), "little")
            seal = stream.read(SHA256)
            start = size - LENGTH - SHA256 - length
            stream.seek(max(0, start))
            found: dict[str, Any] = json.loads(stream.read(length))
            if found["ends"][-1] != start:
                raise ValueError(
                    f"its images end at {found['ends'][-1]}, its note starts at {start}"
                )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ImageError(
            "not a whole shard", received=str(error), path=path, remedy=AGAIN
        ) from error
    return {**found, "bytes": size, "sha256": seal.hex()}


def checksum(path: Path) -> str:
    """Return the sha256 of what a shard holds: of all but the sha256 at its end."""
    seal, left = hashlib.sha256(), path.stat().st_size - SHA256
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(left, BLOCK))):
            seal.update(block)
            left -= len(block)
    return seal.hexdigest()


def read_into(
    path: Path, spans: Iterable[tuple[int, int]], images: Sequence[np.ndarray], *, raw: bool
) -> None:
    """Read images of a shard, each from its place in the file into its own array.

    Args:
        path: The shard.
        spans: First byte and number of bytes of each image.
        images: uint8, C-contiguous, shape (height, width, channels): they are filled.
        raw: The bytes are pixels; otherwise a JPEG.

    Raises:
        ImageError: The file is missing or cut, or a JPEG is damaged.
    """
    fill = _raw if raw else _jpeg
    try:
        with path.open("rb", buffering=0) as stream:
            for (start, size), image in zip(spans, images, strict=True):
                stream.seek(start)
                fill(stream, size, image)
    except (OSError, ValueError) as error:
        raise ImageError(
            "cannot read an image of a shard", received=str(error), path=path, remedy=AGAIN
        ) from error


def _raw(stream: FileIO, size: int, image: np.ndarray) -> None:
    got = stream.readinto(image.data)
    if got != size:
        raise ValueError(f"the file ends after {got} of {size} bytes")


def _jpeg(stream: FileIO, size: int, image: np.ndarray) -> None:
    import simplejpeg

    colour, _ = COLOURS[image.shape[-1]]
    found = simplejpeg.decode_jpeg(stream.read(size), colour, buffer=image)
    if found.shape != image.shape:
        raise ValueError(f"a JPEG of shape {found.shape}, not {image.shape}")
