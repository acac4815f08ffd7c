"""Decode an encoded image to RGB pixels."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from labelmill.schemas.images import Reason
from labelmill.tasks.images.image_structure import examine
from labelmill.tasks.images.open_image import GREY_16_MODES, PILLOW_FAILURES, Header, describe, open_image
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.no_warnings import no_warnings

Pixels = npt.NDArray[np.uint8]


def decode_rgb(data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an encoded image to 8-bit RGB, first picture only, EXIF orientation not applied.

    With `at_least`, (height, width) in pixels, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where it stays that
    large. Raises RejectedImage for whatever cannot be decoded.
    """
    return decode_header(_open_accepted(data, max_pixels), at_least=at_least)


def decode_array(data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None) -> Pixels:
    """Decode as `decode_rgb` does, to (H, W, 3) uint8; whole JPEGs and WebPs by what is faster and gives the same."""
    if (pixels := _decode_plain_webp(data, max_pixels)) is not None:
        return pixels
    header = _open_accepted(data, max_pixels)
    plain = header.mode == "RGB" and header.fault is None
    if plain and header.format == "jpeg" and at_least is None and simplejpeg_decodes_alike():
        try:
            return _decode_by_simplejpeg(data)
        except ValueError:
            pass  # damaged, if only a little: Pillow names the reason, or reads it after all
    return np.array(decode_header(header, at_least=at_least))  # a copy: torch wants it writable


def decode_ingested(data: bytes, *, format: str | None, mode: str | None, max_pixels: int) -> Pixels:
    """Decode an image whose facts are known to (H, W, 3) uint8: plain JPEGs without Pillow's look at the header."""
    if format == "jpeg" and mode == "RGB" and simplejpeg_decodes_alike():
        try:
            return _decode_by_simplejpeg(data)
        except ValueError:
            pass  # as in decode_array
    return decode_array(data, max_pixels=max_pixels)


def _open_accepted(data: bytes, max_pixels: int) -> Header:
    header = open_image(data, max_pixels=max_pixels)
    if header.rejection is not None:
        raise header.rejection
    return header


def decode_header(header: Header, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode the picture of an opened image; raise RejectedImage when it cannot be decoded."""
    if header.picture is None:
        raise ValueError("a header without rejection has a picture")
    try:
        with no_warnings():
            if at_least is not None and isinstance(header.picture, JpegImageFile):
                header.picture.draft(None, (at_least[1], at_least[0]))
            return _convert_rgb(header.picture)
    except PILLOW_FAILURES as error:
        said = describe(error)
        reason = header.fault or (Reason.TRUNCATED if "truncated" in said else Reason.CORRUPT)
        raise RejectedImage(reason, f"{header.format} pixels: {said}") from error


def _convert_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode in GREY_16_MODES:
        # Pillow's own conversion clips at 255 instead of scaling: nearly every pixel would be white.
        grey = np.asarray(picture) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _decode_by_simplejpeg(data: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    return pixels


def _decode_plain_webp(data: bytes, max_pixels: int) -> Pixels | None:
    """Decode a whole lossy WebP without alpha and without extensions, such as LSUN's; None for anything else."""
    if data[8:16] != b"WEBPVP8 ":
        return None
    structure = examine(data)
    if structure is None or structure.fault is not None or structure.frames > 1 or structure.canvas is None:
        return None
    width, height = structure.canvas
    if not 0 < width * height <= max_pixels or not opencv_decodes_alike():
        return None
    pixels = _decode_by_opencv(data)
    return pixels if pixels is not None and pixels.shape == (height, width, 3) else None


def _decode_by_opencv(data: bytes) -> Pixels | None:
    import cv2  # a tenth of a second, for WebP alone

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if pixels is None else cast("Pixels", pixels)


@cache
def opencv_decodes_alike() -> bool:
    """Return whether OpenCV decodes WebPs to Pillow's bytes here: both bring a libwebp of their own."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8))
    encoded = BytesIO()
    noise.save(encoded, "webp", quality=80)
    pixels = _decode_by_opencv(encoded.getvalue())
    return pixels is not None and np.array_equal(pixels, np.asarray(Image.open(encoded).convert("RGB")))


@cache
def simplejpeg_decodes_alike() -> bool:
    """Return whether simplejpeg decodes JPEGs to Pillow's bytes here: both bring a libjpeg of their own.

    Tried on noise of an odd size with subsampled and with whole colours, where a difference would show at once.
    """
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8))
    for subsampling in ("4:2:0", "4:4:4"):
        encoded = BytesIO()
        noise.save(encoded, "jpeg", quality=80, subsampling=subsampling)
        data = encoded.getvalue()
        if not np.array_equal(_decode_by_simplejpeg(data), np.asarray(Image.open(BytesIO(data)))):
            return False
    return True
