"""Find what a plain JPEG says of itself without opening it, which Pillow takes ten times as long for."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from labelmill.tasks.images.image_structure import find_exif_orientation

_MODES = {1: "L", 3: "RGB"}
_TABLE_BYTES = 65  # of a quantisation table of 8 bits, with its number
_TABLES_MAX = 4
_SOF, _DQT, _SOS, _EXIF = frozenset({0xFFC0, 0xFFC1, 0xFFC2}), 0xFFDB, 0xFFDA, 0xFFE1
_PLAIN = frozenset({0xFFE0, 0xFFEE, 0xFFFE, 0xFFC4, 0xFFDD})
"""JFIF, Adobe, comment, Huffman tables, restarts: nothing in them matters here. All others are left to Pillow."""

_read_segment = Struct(">HH").unpack_from  # marker, length with its own two bytes
_read_frame = Struct(">BHHB").unpack_from  # bits, height, width, components


class PlainJpeg(NamedTuple):
    """A whole JPEG of 8 bits, grey or in colour; `mode` as Pillow names it, sizes in pixels."""

    width: int
    height: int
    mode: str
    exif_orientation: int | None


def read_plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Return the facts of a JPEG whose segments up to the scan are all of the usual kinds; None for all others.

    It has one frame of one or three components, at most one EXIF block, and an end of image behind the scan.
    """
    at, last = 2, len(data) - 4 if data.startswith(b"\xff\xd8\xff") else 0
    frame: tuple[int, int, str] | None = None
    exif: bytes | None = None
    while at <= last:
        marker, length = _read_segment(data, at)
        body, at = at + 4, at + 2 + length
        if not body <= at <= last + 4:
            return None
        if marker in _PLAIN:
            continue
        if marker == _SOS:
            whole = frame is not None and data.rfind(b"\xff\xd9", at) >= 0
            return PlainJpeg(*frame, find_exif_orientation(exif) if exif else None) if whole and frame else None
        if marker == _DQT:
            numbers = data[body:at:_TABLE_BYTES]
            plain = at - body == _TABLE_BYTES * len(numbers) and max(numbers, default=0) < _TABLES_MAX
        elif marker == _EXIF and exif is None:
            exif = data[body:at]
            plain = exif.startswith(b"Exif\0\0")
        else:
            frame = _find_frame(data, body, at) if marker in _SOF and frame is None else None
            plain = frame is not None
        if not plain:
            return None
    return None


def _find_frame(data: bytes, body: int, after: int) -> tuple[int, int, str] | None:
    """Return width, height and mode of a frame of 8 bits, None for any other."""
    if after - body < 6:
        return None
    bits, height, width, components = _read_frame(data, body)
    mode = _MODES.get(components)
    fits = bits == 8 and after - body == 6 + 3 * components
    return (width, height, mode) if mode and width and height and fits else None
