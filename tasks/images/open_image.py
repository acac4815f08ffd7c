"""Open an encoded image without decoding it: format, size, and what speaks against it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from labelmill.schemas.images import Reason
from labelmill.tasks.images.image_structure import Structure, examine, find_exif_orientation
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.no_warnings import no_warnings

# Pillow's plugins raise all of these on damaged files; found by fuzzing and by reading them.
PILLOW_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# Opened by class and not by `Image.open`, which checks bombs against a global and takes an MPO for an animation.
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "gif": GifImageFile,
    "webp": WebPImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}

GREY_16_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
_EXIF_MARK = b"Exif\0\0"
_EXIF_MARKS_MAX = 100  # one is usual; Pillow joins them in quadratic time, a minute for a file of 60 MB
_TIFF_DATA_TAGS = ((273, 279), (324, 325))  # offsets and byte counts, of strips and of tiles
_TIFF_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """An opened picture, or why there is none; `fault` is what the file's structure speaks against it."""

    format: str | None = None
    size: tuple[int, int] | tuple[None, None] = (None, None)
    mode: str | None = None
    exif_orientation: int | None = None
    picture: ImageFile.ImageFile | None = None
    fault: Reason | None = None
    rejection: RejectedImage | None = None


def open_image(data: bytes, *, max_pixels: int) -> Header:
    """Return what an encoded image says of itself, and its rejection when it cannot be used; nothing is decoded."""
    if not data:
        return Header(rejection=RejectedImage(Reason.EMPTY, "the file has no bytes"))
    structure = examine(data)
    if structure is None:
        return _name_other(data)
    kind = structure.format
    if (dangerous := _refuse_unopened(structure, data, max_pixels)) is not None:
        return dangerous
    animated = RejectedImage(Reason.ANIMATED, f"{structure.frames} frames, expected one picture")
    try:
        with no_warnings():
            picture = _OPENERS[kind](BytesIO(data))
            fault = structure.fault or _tiff_fault(picture, len(data))
            orientation = _find_orientation(picture, structure.exif)
    except Image.DecompressionBombError as error:
        return Header(format=kind, rejection=RejectedImage(Reason.TOO_MANY_PIXELS, str(error)))
    except PILLOW_FAILURES as error:
        broken = RejectedImage(structure.fault or Reason.CORRUPT, f"{kind} header: {describe(error)}")
        return Header(format=kind, rejection=animated if structure.frames > 1 else broken)
    rejection: RejectedImage | None = None
    if structure.frames > 1:
        rejection = animated
    elif picture.width * picture.height > max_pixels:
        rejection = _too_many_pixels(picture.size, max_pixels)
    elif picture.mode not in _RGB_MODES | GREY_16_MODES:
        rejection = RejectedImage(Reason.UNSUPPORTED_FORMAT, f"{kind} with pixels of mode {picture.mode}")
    return Header(
        format=kind,
        size=picture.size,
        mode=picture.mode,
        exif_orientation=orientation,
        picture=picture,
        fault=fault,
        rejection=rejection,
    )


def _refuse_unopened(structure: Structure, data: bytes, max_pixels: int) -> Header | None:
    """Return the rejection of a picture that would cost much memory or time already when Pillow opens it."""
    kind, canvas = structure.format, structure.canvas
    if canvas is not None and canvas[0] * canvas[1] > max_pixels:
        return Header(format=kind, size=canvas, rejection=_too_many_pixels(canvas, max_pixels))
    if kind == "jpeg" and (marks := data.count(_EXIF_MARK)) > _EXIF_MARKS_MAX:
        return Header(format=kind, rejection=RejectedImage(Reason.CORRUPT, f"{marks} Exif segments, expected one"))
    return None


def _name_other(data: bytes) -> Header:
    """Tell a picture of a format that is not accepted from something else."""
    unsupported = RejectedImage(Reason.UNSUPPORTED_FORMAT, "expected jpeg, png, webp, bmp, gif or tiff")
    try:
        with no_warnings():
            picture = Image.open(BytesIO(data))
    except Image.DecompressionBombError:
        return Header(rejection=unsupported)
    except PILLOW_FAILURES:
        if data[4:8] == b"ftyp":  # HEIC and its kin, which Pillow may not know
            return Header(rejection=unsupported)
        return Header(rejection=RejectedImage(Reason.NOT_AN_IMAGE, f"starts with {data[:12]!r}"))
    kind = (picture.format or "").lower() or None
    return Header(format=kind, size=picture.size, mode=picture.mode, rejection=unsupported)


def _too_many_pixels(size: tuple[int, int], max_pixels: int) -> RejectedImage:
    return RejectedImage(Reason.TOO_MANY_PIXELS, f"{size[0]}x{size[1]} pixels, more than {max_pixels}")


def _tiff_fault(picture: ImageFile.ImageFile, size: int) -> Reason | None:
    """Return truncated when strips or tiles of a TIFF lie beyond the end of the file."""
    if isinstance(picture, TiffImageFile):
        for offsets, counts in _TIFF_DATA_TAGS:
            spans = zip(picture.tag_v2.get(offsets, ()), picture.tag_v2.get(counts, ()), strict=False)
            if any(offset + count > size for offset, count in spans):
                return Reason.TRUNCATED
    return None


def _find_orientation(picture: ImageFile.ImageFile, exif: bytes | None) -> int | None:
    if isinstance(picture, TiffImageFile):
        value = picture.tag_v2.get(_TIFF_ORIENTATION_TAG)
        return value if isinstance(value, int) and 1 <= value <= 8 else None
    found = exif or picture.info.get("exif")
    return find_exif_orientation(found if isinstance(found, bytes) else None)


def describe(error: BaseException) -> str:
    """Return an error in a line of at most 200 characters."""
    return f"{type(error).__name__}: {error}"[:200]
