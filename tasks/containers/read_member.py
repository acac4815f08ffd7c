"""Read one image out of a container."""

from __future__ import annotations

import os
import zlib

import numpy as np

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.locations import is_object_url
from labelmill.schemas.members import ByteRange, DeflatedRange, LmdbValue, Member, ParquetCell, PixelPlanes
from labelmill.tasks.containers.lmdb_values import read_lmdb_value
from labelmill.tasks.containers.parquet_cells import read_parquet_cell
from labelmill.tasks.images.read_bytes import open_regular
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.objects.client import get_object

_BMP_HEADER_BYTES = 54


def read_member(container: str, member: Member, *, max_bytes: int) -> bytes:
    """Return the encoded image that a member is; pixel planes come as a BMP, which holds the same pixels.

    Raises RejectedImage as `read_bytes` does: truncated when the container ends before the member does, corrupt when it
    is not what its address says.
    """
    if isinstance(member, ByteRange):
        return _read_range(container, member.offset, member.length, max_bytes=max_bytes)
    if isinstance(member, DeflatedRange):
        return _inflate(container, member, max_bytes=max_bytes)
    if isinstance(member, PixelPlanes):
        planes = _read_range(container, member.offset, 3 * member.height * member.width, max_bytes=max_bytes)
        return _make_bmp(planes, member.height, member.width)
    if is_object_url(container):
        raise BadInput(f"{container}: only members of tar and zip files can be read out of a bucket")
    if isinstance(member, LmdbValue):
        return _bounded(read_lmdb_value(container, member.key), max_bytes)
    assert isinstance(member, ParquetCell)  # noqa: S101 - the last kind there is
    return _bounded(read_parquet_cell(container, member.row, member.column), max_bytes)


def _bounded(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    return data


def _read_range(container: str, offset: int, length: int, *, max_bytes: int) -> bytes:
    if length > max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    if not length:
        return b""
    read = _range_of_object if is_object_url(container) else _range
    data = read(container, offset, length)
    if len(data) < length:
        raise RejectedImage(Reason.TRUNCATED, f"the container ends {length - len(data)} bytes before its member does")
    return data


def _range(container: str, offset: int, length: int) -> bytes:
    pieces: list[bytes] = []
    with open_regular(container) as descriptor:
        while length > 0 and (piece := os.pread(descriptor, length, offset)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _range_of_object(url: str, offset: int, length: int) -> bytes:
    try:
        return get_object(url, start=offset, end=offset + length)
    except FileNotFoundError as error:
        raise RejectedImage(Reason.MISSING, error.strerror or str(error)) from error
    except PermissionError as error:
        raise RejectedImage(Reason.UNREADABLE, error.strerror or str(error)) from error


def _inflate(container: str, member: DeflatedRange, *, max_bytes: int) -> bytes:
    if member.length > max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    packed = _read_range(container, member.offset, member.compressed, max_bytes=max_bytes)
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.length + 1)
    except zlib.error as error:
        raise RejectedImage(Reason.CORRUPT, f"the container's compressed bytes are damaged: {error}") from error
    if len(data) != member.length:
        raise RejectedImage(Reason.CORRUPT, f"expected {member.length} bytes when inflated, got {len(data)} or more")
    return data


def count_bmp_bytes(height: int, width: int) -> int:
    """Return the length of the BMP that `read_member` makes of pixel planes."""
    return _BMP_HEADER_BYTES + height * _row_bytes(width)


def _row_bytes(width: int) -> int:
    return -(-3 * width // 4) * 4


def _make_bmp(planes: bytes, height: int, width: int) -> bytes:
    """Return a BMP of 24 bits: rows from below, blue, green, red, each row padded to four bytes."""
    pixels = np.frombuffer(planes, np.uint8).reshape(3, height, width)
    rows = np.zeros((height, _row_bytes(width)), np.uint8)
    rows[:, : 3 * width] = pixels[::-1, ::-1].transpose(1, 2, 0).reshape(height, 3 * width)
    size = _BMP_HEADER_BYTES + rows.size
    header = b"BM" + np.array([size, 0, _BMP_HEADER_BYTES, 40, width, height], "<u4").tobytes()
    header += np.array([1, 24], "<u2").tobytes() + np.array([0, rows.size, 0, 0, 0, 0], "<u4").tobytes()
    return header + rows.tobytes()
