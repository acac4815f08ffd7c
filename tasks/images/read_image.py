"""Read one image file: its facts without a decode, its bytes, its pixels; or the reason why not."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from labelmill.schemas.errors import LabelmillError
from labelmill.schemas.images import Reason, Status
from labelmill.tasks.images.image_structure import Structure, examine, find_exif_orientation
from labelmill.tasks.images.pillow_warnings import no_warnings

# Pillow's plugins raise all of these on damaged files; found by fuzzing and by reading them.
_PILLOW_FAILURES = (
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

_GREY_16_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
_EXIF_MARK = b"Exif\0\0"
_EXIF_MARKS_MAX = 100  # one is usual; Pillow joins them in quadratic time, a minute for a file of 60 MB
_TIFF_DATA_TAGS = ((273, 279), (324, 325))  # offsets and byte counts, of strips and of tiles
_TIFF_ORIENTATION_TAG = 0x0112


class RejectedImage(LabelmillError):
    """An item that cannot be used as an image: `reason` for machines, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What one read of a file tells; width and height in pixels, as stored. Unknown facts are None."""

    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
    exif_orientation: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    status: Status
    reason: Reason | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """An opened picture, or why there is none; `fault` is what the file's structure speaks against it."""

    format: str | None = None
    size: tuple[int, int] | tuple[None, None] = (None, None)
    mode: str | None = None
    exif_orientation: int | None = None
    picture: ImageFile.ImageFile | None = None
    fault: Reason | None = None
    rejection: RejectedImage | None = None


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Return the content of a regular file; never waits on a pipe or device, never reads more than max_bytes + 1.

    Raises RejectedImage: broken_link, missing, unreadable, not_a_file or too_many_bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return _read_regular(descriptor, max_bytes=max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explain_os_error(path, error) from error


def _read_regular(descriptor: int, *, max_bytes: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise RejectedImage(Reason.NOT_A_FILE, f"expected a regular file, got mode {stat.filemode(found.st_mode)}")
    pieces: list[bytes] = []
    # One byte more than the size tells the end of the file from a file that is still growing.
    left = max_bytes + 1
    while left > 0 and found.st_size <= max_bytes:
        piece = os.read(descriptor, min(left, max(found.st_size + 1, 4096)))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    if left <= 0 or found.st_size > max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _explain_os_error(path: str | os.PathLike[str], error: OSError) -> RejectedImage:
    words = error.strerror or str(error)
    if error.errno == errno.ELOOP or (isinstance(error, FileNotFoundError) and os.path.islink(path)):
        return RejectedImage(Reason.BROKEN_LINK, f"a link that leads nowhere: {words}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RejectedImage(Reason.MISSING, words)
    # What opening a socket and a device without driver gives.
    if error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
        return RejectedImage(Reason.NOT_A_FILE, f"expected a regular file: {words}")
    return RejectedImage(Reason.UNREADABLE, words)


def inspect_image(path: str | os.PathLike[str], *, max_pixels: int, max_bytes: int) -> ImageFacts:
    """Return the facts of an image file after one read, without decoding it unless its structure is suspicious.

    A file that is no usable image gives status rejected, the reason, and what was known until then.
    """
    try:
        data = read_bytes(path, max_bytes=max_bytes)
    except RejectedImage as rejection:
        return ImageFacts(status=Status.REJECTED, reason=rejection.reason, detail=rejection.detail)
    header = _read_header(data, max_pixels=max_pixels)
    rejection_found = header.rejection
    if rejection_found is None and header.fault is not None:
        try:
            _decode(header)
        except RejectedImage as rejection:
            rejection_found = rejection
    return ImageFacts(
        width=header.size[0],
        height=header.size[1],
        format=header.format,
        mode=header.mode,
        exif_orientation=header.exif_orientation,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        status=Status.DONE if rejection_found is None else Status.REJECTED,
        reason=None if rejection_found is None else rejection_found.reason,
        detail=None if rejection_found is None else rejection_found.detail,
    )


def decode_rgb(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode an encoded image to 8-bit RGB, first picture only, EXIF orientation not applied.

    Raises RejectedImage for whatever cannot be decoded.
    """
    header = _read_header(data, max_pixels=max_pixels)
    if header.rejection is not None:
        raise header.rejection
    return _decode(header)


def _read_header(data: bytes, *, max_pixels: int) -> _Header:
    if not data:
        return _Header(rejection=RejectedImage(Reason.EMPTY, "the file has no bytes"))
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
        return _Header(format=kind, rejection=RejectedImage(Reason.TOO_MANY_PIXELS, str(error)))
    except _PILLOW_FAILURES as error:
        broken = RejectedImage(structure.fault or Reason.CORRUPT, f"{kind} header: {_say(error)}")
        return _Header(format=kind, rejection=animated if structure.frames > 1 else broken)
    rejection: RejectedImage | None = None
    if structure.frames > 1:
        rejection = animated
    elif picture.width * picture.height > max_pixels:
        rejection = _too_many_pixels(picture.size, max_pixels)
    elif picture.mode not in _RGB_MODES | _GREY_16_MODES:
        rejection = RejectedImage(Reason.UNSUPPORTED_FORMAT, f"{kind} with pixels of mode {picture.mode}")
    return _Header(
        format=kind,
        size=picture.size,
        mode=picture.mode,
        exif_orientation=orientation,
        picture=picture,
        fault=fault,
        rejection=rejection,
    )


def _refuse_unopened(structure: Structure, data: bytes, max_pixels: int) -> _Header | None:
    """Return the rejection of a picture that would cost much memory or time already when Pillow opens it."""
    kind, canvas = structure.format, structure.canvas
    if canvas is not None and canvas[0] * canvas[1] > max_pixels:
        return _Header(format=kind, size=canvas, rejection=_too_many_pixels(canvas, max_pixels))
    if kind == "jpeg" and (marks := data.count(_EXIF_MARK)) > _EXIF_MARKS_MAX:
        return _Header(format=kind, rejection=RejectedImage(Reason.CORRUPT, f"{marks} Exif segments, expected one"))
    return None


def _name_other(data: bytes) -> _Header:
    """Tell a picture of a format that is not accepted from something else."""
    unsupported = RejectedImage(Reason.UNSUPPORTED_FORMAT, "expected jpeg, png, webp, bmp, gif or tiff")
    try:
        with no_warnings():
            picture = Image.open(BytesIO(data))
    except Image.DecompressionBombError:
        return _Header(rejection=unsupported)
    except _PILLOW_FAILURES:
        if data[4:8] == b"ftyp":  # HEIC and its kin, which Pillow may not know
            return _Header(rejection=unsupported)
        return _Header(rejection=RejectedImage(Reason.NOT_AN_IMAGE, f"starts with {data[:12]!r}"))
    kind = (picture.format or "").lower() or None
    return _Header(format=kind, size=picture.size, mode=picture.mode, rejection=unsupported)


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


def _decode(header: _Header) -> Image.Image:
    if header.picture is None:
        raise ValueError("a header without rejection has a picture")
    try:
        with no_warnings():
            return _convert_rgb(header.picture)
    except _PILLOW_FAILURES as error:
        said = _say(error)
        reason = header.fault or (Reason.TRUNCATED if "truncated" in said else Reason.CORRUPT)
        raise RejectedImage(reason, f"{header.format} pixels: {said}") from error


def _convert_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode in _GREY_16_MODES:
        # Pillow's own conversion clips at 255 instead of scaling: nearly every pixel would be white.
        grey = np.asarray(picture) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
