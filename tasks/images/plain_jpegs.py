"""Walk the segments of many plain JPEGs at once: what `read_plain_jpeg` does for one, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_HEAD_BYTES = 1536
"""Frame and tables of a JPEG without EXIF and comments take 620 bytes."""

_SEGMENTS_MAX = 24
_PLAIN, _SOS, _DQT, _SOF = 1, 2, 3, 4
_TABLE_BYTES, _TABLES_MAX = 65, 4
_COMPONENTS = (1, 3)
_END = b"\xff\xd9"

_KINDS = np.zeros(256, np.uint8)
"""What a marker's second byte means; the same as in plain_jpeg.py, but for EXIF, which is left to it."""
_KINDS[[0xE0, 0xEE, 0xFE, 0xC4, 0xDD]] = _PLAIN
_KINDS[0xDA], _KINDS[0xDB], _KINDS[[0xC0, 0xC1, 0xC2]] = _SOS, _DQT, _SOF


class PlainJpegs(NamedTuple):
    """Of some files: `known` says which of them are plain JPEGs; widths and heights in pixels, components 1 or 3.

    Of those that are not known nothing is said: `read_plain_jpeg` may know them.
    """

    known: Array
    widths: Array
    heights: Array
    components: Array


def read_plain_jpegs(files: Sequence[bytes]) -> PlainJpegs:
    """Return the facts of those files that `read_plain_jpeg` would know, unless they hold EXIF or much else."""
    heads = [data[:_HEAD_BYTES] for data in files]
    lengths = np.fromiter(map(len, heads), np.int64, len(heads))
    ends = np.cumsum(lengths)
    # Four bytes behind the last: no place that is looked at lies outside.
    bytes_ = np.frombuffer(b"".join([*heads, bytes(4)]), np.uint8)
    at = ends - lengths + 2
    found = PlainJpegs(
        known=np.zeros(len(heads), bool), widths=np.zeros(len(heads), np.int64),
        heights=np.zeros(len(heads), np.int64), components=np.zeros(len(heads), np.uint8),
    )  # fmt: skip
    walking = np.flatnonzero([head.startswith(b"\xff\xd8\xff") for head in heads])
    for _ in range(_SEGMENTS_MAX):
        if not len(walking):
            break
        walking = _step(bytes_, walking, at, ends, found)
    for place in np.flatnonzero(found.known).tolist():
        data = files[place]
        if not data.endswith(_END) and data.rfind(_END, int(at[place] - ends[place] + lengths[place])) < 0:
            found.known[place] = False
    return found


def _step(bytes_: Array, walking: Array, at: Array, ends: Array, found: PlainJpegs) -> Array:
    """Look at one segment of each file that is still walked; return those to walk on. `at` moves behind it."""
    walking = walking[at[walking] + 4 <= ends[walking]]
    start = at[walking]
    length = (bytes_[start + 2].astype(np.int64) << 8) | bytes_[start + 3]
    kind = np.where(bytes_[start] == 0xFF, _KINDS[bytes_[start + 1]], 0)
    after = start + 2 + length
    kind[(length < 2) | (after > ends[walking])] = 0
    at[walking] = after
    goes_on = kind == _PLAIN
    if (tables := kind == _DQT).any():
        goes_on[tables] = _are_tables(bytes_, start[tables] + 4, length[tables] - 2)
    if (frames := kind == _SOF).any():
        goes_on[frames] = _take_frames(bytes_, walking[frames], start[frames] + 4, length[frames] - 2, found)
    scans = walking[kind == _SOS]
    found.known[scans] = found.components[scans] > 0
    left: Array = walking[goes_on]
    return left


def _are_tables(bytes_: Array, start: Array, length: Array) -> Array:
    """Tell which segments are quantisation tables of 8 bits."""
    count = length // _TABLE_BYTES
    fine: Array = (length == count * _TABLE_BYTES) & (count <= _TABLES_MAX)
    for number in range(_TABLES_MAX):
        there = fine & (count > number)
        fine[there] = bytes_[start[there] + number * _TABLE_BYTES] < _TABLES_MAX
    return fine


def _take_frames(bytes_: Array, files: Array, start: Array, length: Array, found: PlainJpegs) -> Array:
    """Take the sizes of the files' frames; tell which are the first one, of 8 bits, one or three components."""
    fine: Array = (length >= 6) & (found.components[files] == 0)
    files, start, length = files[fine], start[fine], length[fine]
    height = (bytes_[start + 1].astype(np.int64) << 8) | bytes_[start + 2]
    width = (bytes_[start + 3].astype(np.int64) << 8) | bytes_[start + 4]
    components = bytes_[start + 5]
    usual = (bytes_[start] == 8) & np.isin(components, _COMPONENTS) & (length == 6 + 3 * components.astype(np.int64))
    usual &= (width > 0) & (height > 0)
    found.widths[files], found.heights[files] = width, height
    found.components[files] = np.where(usual, components, 0)
    fine[fine] = usual
    return fine
