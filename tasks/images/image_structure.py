"""Tell from an encoded image's structure, without decoding it, what it is and whether it is whole."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from labelmill.schemas.images import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the layout of a file's bytes says.

    `fault` is the reason to give if a decode fails too, None for a whole file: files with odd structure often decode.
    `canvas` is (width, height) in pixels where Pillow allocates it already when it opens the file.
    """

    format: str
    fault: Reason | None = None
    frames: int = 1
    canvas: tuple[int, int] | None = None
    exif: bytes | None = None


_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def identify(data: bytes) -> str | None:
    """Return jpeg, png, webp, bmp, gif or tiff by the first bytes, else None."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    # Two letters are a weak sign: a text may start with BM.
    if data.startswith(b"BM") and len(data) >= 18 and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "bmp"
    return None


def examine(data: bytes) -> Structure | None:
    """Return the structure of an encoded image, or None when it is of no accepted format."""
    kind = identify(data)
    if kind is None:
        return None
    return _WALKS[kind](data)


def _walk_jpeg(data: bytes) -> Structure:
    """Find the first scan and an end of image after it; a thumbnail's end lies in a segment, which is skipped."""
    at, end = 2, len(data)
    while at + 4 <= end:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xD9):
            return Structure(format="jpeg", fault=Reason.CORRUPT)
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        after = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == 0xDA:
            whole = data.rfind(b"\xff\xd9", after) >= 0
            return Structure(format="jpeg", fault=None if whole else Reason.TRUNCATED)
        at = after
    return Structure(format="jpeg", fault=Reason.TRUNCATED)


def _walk_png(data: bytes) -> Structure:
    at, frames = 8, 1
    exif: bytes | None = None
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if not kind.isalpha():
            return Structure(format="png", fault=Reason.CORRUPT, frames=frames, exif=exif)
        if at + 12 + length > len(data):
            break
        if kind == b"IEND":
            return Structure(format="png", frames=frames, exif=exif)
        if kind == b"acTL" and length >= 4:
            frames = int.from_bytes(data[at + 8 : at + 12], "big")
        elif kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
    return Structure(format="png", fault=Reason.TRUNCATED, frames=frames, exif=exif)


def _skip_gif_blocks(data: bytes, at: int) -> int:
    """Return the place after a chain of sub-blocks, or one beyond the end of the data."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _walk_gif(data: bytes) -> Structure:
    frames = 0
    fault: Reason | None = Reason.TRUNCATED
    at = 13 + _gif_palette_bytes(data[10]) if len(data) > 10 else len(data)
    while at < len(data):
        if data[at] == 0x3B:
            fault = None
            break
        if data[at] == 0x21:
            at = _skip_gif_blocks(data, at + 2)
        elif data[at] == 0x2C and at + 10 < len(data):
            frames += 1
            at = _skip_gif_blocks(data, at + 11 + _gif_palette_bytes(data[at + 9]))
        else:
            fault = Reason.CORRUPT if data[at] != 0x2C else Reason.TRUNCATED
            break
    return Structure(format="gif", fault=fault, frames=frames)


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _walk_webp(data: bytes) -> Structure:
    declared = 8 + int.from_bytes(data[4:8], "little")
    frames, at = 0, 12
    while at + 8 <= len(data):
        frames += data[at : at + 4] == b"ANMF"
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
    fault = Reason.TRUNCATED if len(data) < declared else None
    return Structure(format="webp", fault=fault, frames=max(1, frames), canvas=_webp_canvas(data))


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _walk_bmp(data: bytes) -> Structure:
    declared, _, offset, header = struct.unpack_from("<IIII", data, 2)
    needed = max(declared, offset)
    if header >= 40 and len(data) >= 34:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        if compression in (0, 3, 6):  # stored rows, each padded to four bytes
            needed = max(needed, offset + (abs(width) * bits + 31) // 32 * 4 * abs(height))
    return Structure(format="bmp", fault=Reason.TRUNCATED if len(data) < needed else None)


def _walk_tiff(data: bytes) -> Structure:
    """Look only whether the first directory lies in the file; where the pixels lie, that directory says."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    place, count_bytes, entry_bytes = (data[8:16], 8, 20) if b"+" in data[:4] else (data[4:8], 2, 12)
    at = int.from_bytes(place, order) + count_bytes
    entries = int.from_bytes(data[at - count_bytes : at], order)
    whole = len(data) >= 16 and at + entries * entry_bytes <= len(data)
    return Structure(format="tiff", fault=None if whole else Reason.TRUNCATED)


_WALKS: dict[str, Callable[[bytes], Structure]] = {
    "jpeg": _walk_jpeg,
    "png": _walk_png,
    "gif": _walk_gif,
    "webp": _walk_webp,
    "bmp": _walk_bmp,
    "tiff": _walk_tiff,
}


def find_exif_orientation(exif: bytes | None) -> int | None:
    """Return the orientation 1…8 that an EXIF block (with or without its `Exif` prefix) states, else None.

    Pillow's own reader decodes a whole PNG first and warns about every odd tag.
    """
    body = (exif or b"").removeprefix(b"Exif\0\0")
    if not body.startswith((b"II*\0", b"MM\0*")) or len(body) < 8:
        return None
    order = "<" if body[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", body, 4)
    if at + 2 > len(body):
        return None
    (entries,) = struct.unpack_from(order + "H", body, at)
    for entry in range(at + 2, min(at + 2 + 12 * entries, len(body) - 11), 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", body, entry)
        if tag == 0x0112:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), body, entry + 8)
            return value if 1 <= value <= 8 else None
    return None
