"""The handles that a slide reads through, one for each process: tiles, OpenSlide, or an image."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kit.codecs import NOT_BY_OPENSLIDE
from kit.errors import KitError, SlideError
from kit.tiled import TileReader, levels_of

log = logging.getLogger(__name__)

JPEG_SUFFIXES = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (".png", *JPEG_SUFFIXES, ".webp", ".bmp")
TIFF_VENDORS = ("aperio", "generic-tiff")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ENDS = {".png": b"IEND\xaeB`\x82"}  # what the last bytes hold of a file that is whole
PER_CM = {2: 2.54, 3: 1.0}  # TIFF's units of resolution in cm


class Reader(Protocol):
    """An open handle of one process, which threads may share."""

    name: str
    levels: list[tuple[int, int]]
    downsamples: list[float]
    properties: dict[str, str]

    def read(
        self, xy_level0: np.ndarray, level: int, patches: np.ndarray, valid: np.ndarray | None
    ) -> dict[int, SlideError]:
        """Fill patches, uint8 (n, h, w, 3), and where they were scanned, bool (n, h, w).

        The arrays come filled with the background's colour and False; places without pixels stay
        so. Returns the positions that could not be read, with the reason.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class OpenSlideReader:
    """Whatever OpenSlide reads."""

    name = "openslide"

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._handle = open_with_openslide(path)
        self.levels = [(int(w), int(h)) for w, h in self._handle.level_dimensions]
        self.downsamples = [float(d) for d in self._handle.level_downsamples]
        self.properties = dict(self._handle.properties)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def close(self) -> None:
        """Close the file and end the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._handle.close()

    def read(
        self, xy_level0: np.ndarray, level: int, patches: np.ndarray, valid: np.ndarray | None
    ) -> dict[int, SlideError]:
        """Fill patches; OpenSlide itself shifts by parts of a pixel above level 0."""
        places: list[tuple[int, int]] = [(x, y) for x, y in xy_level0.tolist()]

        def one(position: int, handle: Any) -> SlideError | None:
            return self._read(handle, places[position], level, patches, valid, position)

        shared, everyone = repeat(self._handle), range(len(places))
        found = (map if self._pool is None else self._pool.map)(one, everyone, shared)
        suspect = [position for position, error in enumerate(found) if error is not None]
        if not suspect:
            return {}
        # One failed read makes OpenSlide refuse all others of its handle. What failed is read again
        # by a handle that no other thread has; the old one closes when its last reader lets it go.
        failed: dict[int, SlideError] = {}
        handle = open_with_openslide(self._path)
        for position in suspect:
            error = one(position, handle)
            if error is not None:
                failed[position] = error
                handle = open_with_openslide(self._path)
        self._handle = handle
        return failed

    def _read(
        self, handle: Any, xy_level0: tuple[int, int], level: int, patches: np.ndarray,
        valid: np.ndarray | None, position: int,
    ) -> SlideError | None:  # fmt: skip
        import cv2
        import openslide

        height, width = patches.shape[1:3]
        try:
            rgba = np.asarray(handle.read_region(xy_level0, level, (width, height)))
        except openslide.OpenSlideError as error:
            return SlideError(
                f"level {level} cannot be read at x={xy_level0[0]}, y={xy_level0[1]}",
                received=str(error), path=self._path, remedy="get the file (a .mrxs: and its "
                "folder) again, or read another level",
            )  # fmt: skip
        alpha = rgba[..., 3]
        if alpha.min() == 255:
            cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB, dst=patches[position])
        else:
            put(rgba, patches[position])
        if valid is not None:
            valid[position] = alpha >= 128
        return None


def put(rgba: np.ndarray, onto: np.ndarray) -> None:
    """Lay RGBA over what stands in `onto`, uint8 (h, w, 3): transparent places keep that."""
    share = rgba[..., 3:].astype(np.float32) / 255
    onto[...] = np.rint(rgba[..., :3] * share + onto * (1 - share)).astype(np.uint8)


class ImageReader:
    """An ordinary image, or an array, as a slide of one level."""

    name = "image"

    def __init__(self, pixels: np.ndarray, properties: dict[str, str] | None = None) -> None:
        self._pixels = pixels
        self.levels = [(pixels.shape[1], pixels.shape[0])]
        self.downsamples = [1.0]
        self.properties = properties or {}

    def close(self) -> None:
        """Let the pixels go."""

    def read(
        self, xy_level0: np.ndarray, level: int, patches: np.ndarray, valid: np.ndarray | None
    ) -> dict[int, SlideError]:
        """Copy the patches."""
        height, width = patches.shape[1:3]
        for position, (x, y) in enumerate(xy_level0.tolist()):
            found = self._pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
            top, left = max(-y, 0), max(-x, 0)
            rows, columns = slice(top, top + len(found)), slice(left, left + found.shape[1])
            if found.shape[2] == 4:
                put(found, patches[position, rows, columns])
            else:
                patches[position, rows, columns] = found
            if valid is not None:
                seen = found[..., 3] >= 128 if found.shape[2] == 4 else True
                valid[position, rows, columns] = seen
        return {}


def open_reader(source: Path | np.ndarray, threads: int) -> Reader:
    """Open a file or an array by the fastest reader that knows it.

    Raises:
        SlideError: It is no slide or image, or is damaged.
    """
    if isinstance(source, np.ndarray):
        return ImageReader(as_pixels(source))
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(decode_image(source))
    import openslide

    vendor = openslide.OpenSlide.detect_format(source)
    if vendor in TIFF_VENDORS or (vendor is None and is_tiff(source)):
        return _open_tiff(source, vendor, threads)
    return OpenSlideReader(source, threads)


def open_with_openslide(path: Path) -> Any:
    """Open by OpenSlide, or say in one line why not."""
    import openslide

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError(
            "not a slide that OpenSlide reads", received="an unknown format", path=path,
            remedy="a .mrxs needs its folder beside it" if path.suffix == ".mrxs" else None,
        ) from error  # fmt: skip
    except openslide.OpenSlideError as error:
        raise SlideError("the slide cannot be opened", received=str(error), path=path) from error


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in TIFF_MAGIC


def _open_tiff(path: Path, vendor: str | None, threads: int) -> Reader:
    """Open a TIFF by its tiles, or say why not and open it otherwise."""
    tiff = _parsed(path)
    reader: Reader | None = None
    try:
        reader = _reader_of(tiff, path, vendor, threads)
        return reader
    except KitError:
        raise
    except Exception as error:  # tifffile raises whatever damaged tags lead to
        raise SlideError("the TIFF's structure is damaged", received=repr(error), path=path,
                         remedy="get the whole file again") from error  # fmt: skip
    finally:
        if not isinstance(reader, TileReader):
            tiff.close()


def _reader_of(tiff: Any, path: Path, vendor: str | None, threads: int) -> Reader:
    first = tiff.pages[0]
    if vendor == "generic-tiff" and int(first.compression) in NOT_BY_OPENSLIDE:
        vendor = None
    sizes, downsamples, properties = _known(path) if vendor else (None, [], {})
    found = levels_of(tiff, sizes)
    if isinstance(found, str):
        return _open_otherwise(tiff, found, path, vendor, threads)
    if vendor is None:
        downsamples, properties = _downsamples(found), _resolution(first)
    log.debug("%s is read by its tiles: %r", path, first.compression)
    return TileReader(path, tiff, found, downsamples, properties, threads)


def _known(path: Path) -> tuple[list[tuple[int, int]], list[float], dict[str, str]]:
    """Return the levels' sizes and downsamples and the properties, as OpenSlide has them."""
    with contextlib.closing(open_with_openslide(path)) as handle:
        sizes = [(int(w), int(h)) for w, h in handle.level_dimensions]
        return sizes, [float(d) for d in handle.level_downsamples], dict(handle.properties)


def _open_otherwise(tiff: Any, why: str, path: Path, vendor: str | None, threads: int) -> Reader:
    if vendor is not None:
        log.info("%s is read by OpenSlide, not by its tiles: %s", path, why)
        return OpenSlideReader(path, threads)
    return ImageReader(_whole_page(tiff, why, path), _resolution(tiff.pages[0]))


def _parsed(path: Path) -> Any:
    """Open a TIFF's structure; what is wrong with it is one error."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # tifffile raises whatever a broken structure leads to
        raise SlideError("the TIFF cannot be read", received=str(error), path=path) from error
    if not len(tiff.pages):
        tiff.close()
        raise SlideError("the TIFF holds no image", path=path, remedy="get the whole file again")
    return tiff


def _downsamples(pages: list[Any]) -> list[float]:
    """Return the mean ratio of both sides to level 0, as OpenSlide has it."""
    first = pages[0]
    return [
        (first.imagewidth / page.imagewidth + first.imagelength / page.imagelength) / 2
        for page in pages
    ]


def _resolution(page: Any) -> dict[str, str]:
    """Return µm per pixel by OpenSlide's names, from a page's resolution and its unit."""
    tags = page.tags
    unit = PER_CM.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2)
    found = {}
    for axis in "XY":
        tag = tags.get(f"{axis}Resolution")
        if unit is not None and tag is not None and 0 not in tag.value:
            per_unit = tag.value[0] / tag.value[1]
            found[f"openslide.mpp-{axis.lower()}"] = repr(1e4 * unit / per_unit)
    return found


def _whole_page(tiff: Any, why: str, path: Path) -> np.ndarray:
    """Return the first page of a flat TIFF whose tiles cannot be taken one by one: RGBA, apart."""
    page = tiff.pages[0]
    log.info("%s is read whole: %s", path, why)
    pixels = np.asarray(page.asarray())
    if page.planarconfig == 2 and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    try:
        return as_pixels(pixels)
    except SlideError as error:
        raise SlideError(
            f"the TIFF is no slide: {why}", expected="8 bits a sample: grey, palette, RGB or RGBA",
            received=error.received, path=path,
        ) from error  # fmt: skip


def as_pixels(array: np.ndarray) -> np.ndarray:
    """Return an image as uint8 (h, w, 3 or 4)."""
    pixels = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    known = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not known or not pixels.size:
        raise SlideError(
            "the array is no image", expected="uint8 (h, w), (h, w, 3) or (h, w, 4)",
            received=f"{array.dtype} {array.shape}",
        )  # fmt: skip
    return pixels


def decode_image(path: Path) -> np.ndarray:
    """Return an image file, uint8 RGB (h, w, 3), or RGBA where it has an alpha channel.

    Raises:
        SlideError: It cannot be decoded whole.
    """
    data = path.read_bytes()
    try:
        image = _jpeg(data) if path.suffix.lower() in JPEG_SUFFIXES else _by_opencv(data, path)
    except Exception as error:  # simplejpeg raises ValueError, OpenCV its own
        raise SlideError("the image cannot be decoded", received=str(error), path=path) from error
    if image is None:
        raise SlideError(
            "not a slide or image that can be read", received=f"{len(data)} bytes", path=path
        )
    return image


def _jpeg(data: bytes) -> np.ndarray | None:
    from simplejpeg import decode_jpeg

    return np.asarray(decode_jpeg(data, "RGB", strict=True)) if data[:2] == b"\xff\xd8" else None


def _by_opencv(data: bytes, path: Path) -> np.ndarray | None:
    """Decode by OpenCV, which returns parts of files that were cut off: they are refused."""
    import cv2

    end = ENDS.get(path.suffix.lower(), b"")
    if not data or end not in data[-64:]:
        return None
    raw = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    if image is not None and image.ndim == 3 and image.shape[2] == 4 and image.dtype == "u1":
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if image is not None else None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
