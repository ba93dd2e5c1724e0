"""From the bytes of one TIFF tile to its pixels; bytes that are not whole are an error.

Some decoders return a damaged tile without a word, so each kind is decoded by one that does not,
or is looked at first: JPEG by libjpeg-turbo in strict mode; a JPEG 2000 codestream must end where
it says and hold no run of zeros; deflate carries a checksum; what has none must have its length.
A flipped bit that no decoder sees is for the sha256 of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffPage

JPEG, JPEG_2000 = 7, (33003, 33005, 34712)
APERIO_YCBCR = 33003
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
# Adobe's marker, the one way to tell a decoder what the three channels are: 0 RGB, 1 YCbCr.
ADOBE = {code: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + code for code in (b"\0", b"\1")}
# Standard JPEG 2000, zstd, WebP: OpenSlide, or some builds of it, knows the vendor, not the code.
NOT_BY_OPENSLIDE = (34712, 50000, 50001)
ZEROS = bytes(64)  # more than the empty packets of a blank tile, which are one zero byte each

Decode = Callable[[bytes, int, "np.ndarray | None"], np.ndarray]
"""From a tile's bytes and number to uint8 RGB (h, w, 3), in the buffer given if it can."""


class DamagedTileError(Exception):
    """The bytes of a tile are not what its file says."""


def unsupported(page: TiffPage) -> str | None:
    """Return why tiles of this page cannot be decoded here, or None if they can."""
    if page.bitspersample != 8 or str(page.dtype) != "uint8":
        return f"{page.dtype} of {page.bitspersample} bits a sample, not 8"
    channels = {WHITE_IS_0: 1, BLACK_IS_0: 1, PALETTE: 1, RGB: 3, YCBCR: 3}.get(page.photometric)
    if channels != page.samplesperpixel:
        return f"{page.samplesperpixel} samples a pixel of photometric {page.photometric!r}"
    if page.photometric == YCBCR and page.compression not in (JPEG, *JPEG_2000, 50001):
        return f"YCbCr in {page.compression!r}"
    if channels > 1 and page.planarconfig != 1:
        return "channels apart"
    if page.compression == JPEG or page.compression in JPEG_2000:
        return None
    try:
        page.decode(None, 0)  # an empty tile: builds the decoder
    except ValueError as error:
        return str(error)
    return None


def decoder(page: TiffPage) -> Decode:
    """Return the function that decodes the tiles of a page (see `unsupported`).

    It raises `DamagedTileError` where the bytes are not whole.
    """
    if page.compression == JPEG:
        return _jpeg(page)
    if page.compression in JPEG_2000:
        return _jpeg_2000(page)
    return _other(page)


def _jpeg(page: TiffPage) -> Decode:
    from simplejpeg import decode_jpeg

    tables = bytes(page.jpegtables or b"")
    code = b"\1" if page.photometric == YCBCR else b"\0"
    adobe = b"" if page.samplesperpixel == 1 else ADOBE[code]
    header = SOI + adobe + tables.removeprefix(SOI).removesuffix(EOI)

    def decode(data: bytes, number: int, buffer: np.ndarray | None) -> np.ndarray:
        if data[:2] != SOI:
            raise DamagedTileError("it is no JPEG")
        if b"Adobe" in data[:64]:  # the page's photometric says what it holds, as for OpenSlide
            data = data.replace(b"Adobe", b"adobe", 1)
        try:
            found = decode_jpeg(header + data[2:], "RGB", buffer=buffer, strict=True)
        except ValueError as error:
            raise DamagedTileError(str(error)) from error
        return np.asarray(found)

    return _checked(page, decode)


def _jpeg_2000(page: TiffPage) -> Decode:
    from imagecodecs import jpeg2k_decode

    convert = page.compression == APERIO_YCBCR

    def decode(data: bytes, number: int, buffer: np.ndarray | None) -> np.ndarray:
        if data[:2] == b"\xff\x4f" and not data.rstrip(b"\0").endswith(EOI):
            raise DamagedTileError("it ends before its end-of-codestream marker")
        if ZEROS in data[: len(data.rstrip(b"\0"))]:
            raise DamagedTileError(f"it holds a run of {len(ZEROS)} zero bytes")
        try:
            found = np.asarray(jpeg2k_decode(data, numthreads=1))
        except Exception as error:  # imagecodecs' own, of a class it does not publish for all
            raise DamagedTileError(str(error)) from error
        if found.ndim == 2:
            found = np.repeat(found[..., None], 3, axis=2)
        return ycbcr_to_rgb(found) if convert else found

    return _checked(page, decode)


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return RGB of full-range YCbCr (ITU-R BT.601), uint8 (h, w, 3), to the digit of OpenSlide.

    Aperio's code 33003 stores the channels so, and its codestreams do not say it. Factors have 16
    binary places; green's two products are rounded to as many before they are added.
    """
    chroma, half = np.arange(256) - 128, 1 << 15
    green_cb = np.rint(-0.34414 * 65536 * chroma).astype(np.int32)
    green_cr = np.rint(-0.71414 * 65536 * chroma).astype(np.int32)
    y, cb, cr = (pixels[..., channel].astype(np.int32) for channel in range(3))
    red = y + ((91881 * (cr - 128) + half) >> 16)
    green = y + ((green_cb[cb] + green_cr[cr] + half) >> 16)
    blue = y + ((116130 * (cb - 128) + half) >> 16)
    rgb: np.ndarray = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    return rgb


def _other(page: TiffPage) -> Decode:
    """Return tifffile's own decoder, which knows predictors and bit orders."""
    colours = None
    if page.photometric == PALETTE and page.colormap is not None:
        colours = (page.colormap >> 8).astype(np.uint8).T.copy()

    def decode(data: bytes, number: int, buffer: np.ndarray | None) -> np.ndarray:
        try:
            found: Any = page.decode(data, number)[0]
        except Exception as error:  # whatever its codec raises
            raise DamagedTileError(str(error)) from error
        tile = np.asarray(found)[0]
        if colours is not None:
            return np.asarray(colours[tile[..., 0]])
        if page.photometric == WHITE_IS_0:
            tile = 255 - tile
        return np.asarray(np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile)

    return decode


def _checked(page: TiffPage, decode: Decode) -> Decode:
    """Return the decoder, which refuses a tile of another size than the page's."""
    if not page.is_tiled:
        return decode
    expected = (page.tilelength, page.tilewidth, 3)

    def whole(data: bytes, number: int, buffer: np.ndarray | None) -> np.ndarray:
        found = decode(data, number, buffer)
        if found.shape != expected:
            raise DamagedTileError(f"it is {found.shape[1]} x {found.shape[0]} pixels")
        return found

    return whole
