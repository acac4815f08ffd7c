"""Find what a plain JPEG says of itself without opening it, which Pillow takes ten times as long for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from labelmill.tasks.images.image_structure import find_exif_orientation

_MODES = {1: "L", 3: "RGB"}
_TABLE_BYTES = 65  # of a quantisation table of 8 bits, with its number
_SOF, _DQT, _SOS, _EXIF = frozenset({0xC0, 0xC1, 0xC2}), 0xDB, 0xDA, 0xE1
_PLAIN = frozenset({0xE0, 0xEE, 0xFE, 0xC4, 0xDD})
"""JFIF, Adobe, comment, Huffman tables, restarts: nothing in them matters here. All others are left to Pillow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainJpeg:
    """A whole JPEG of 8 bits, grey or in colour; `mode` as Pillow names it, sizes in pixels."""

    width: int
    height: int
    mode: str
    exif_orientation: int | None


def read_plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Return the facts of a JPEG whose segments up to the scan are all of the usual kinds; None for all others.

    It has one frame of one or three components, at most one EXIF block, and an end of image behind the scan.
    """
    frame: tuple[int, int, str] | None = None
    exif: bytes | None = None
    for marker, body, after in _iterate_segments(data):
        if marker == _SOS:
            return None if frame is None or data.rfind(b"\xff\xd9", after) < 0 else _describe(frame, exif)
        if marker in _SOF and frame is None:
            frame = _read_frame(data, body, after - body)
            plain = frame is not None
        elif marker == _EXIF and exif is None:
            exif = data[body:after]
            plain = exif.startswith(b"Exif\0\0")
        elif marker == _DQT:
            plain = (after - body) % _TABLE_BYTES == 0 and all(b <= 3 for b in data[body:after:_TABLE_BYTES])
        else:
            plain = marker in _PLAIN
        if not plain:
            return None
    return None


def _iterate_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker, and where its content begins and ends, as long as one follows the other."""
    at, end = 2, len(data) if data.startswith(b"\xff\xd8\xff") else 0
    while at + 4 <= end and data[at] == 0xFF:
        after = at + 2 + ((data[at + 2] << 8) | data[at + 3])
        if not at + 4 <= after <= end:
            return
        yield data[at + 1], at + 4, after
        at = after


def _read_frame(data: bytes, body: int, length: int) -> tuple[int, int, str] | None:
    """Return width, height and mode of a frame of 8 bits, None for any other."""
    if length < 6 or data[body] != 8:
        return None
    height, width = (data[body + 1] << 8) | data[body + 2], (data[body + 3] << 8) | data[body + 4]
    components = data[body + 5]
    mode = _MODES.get(components)
    return (width, height, mode) if mode and width and height and length == 6 + 3 * components else None


def _describe(frame: tuple[int, int, str], exif: bytes | None) -> PlainJpeg:
    width, height, mode = frame
    return PlainJpeg(
        width=width, height=height, mode=mode, exif_orientation=find_exif_orientation(exif) if exif else None
    )  # fmt: skip
