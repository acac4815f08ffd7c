"""Read a member of a tar or zip in pieces, however large it is."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from labelmill.schemas.images import Reason
from labelmill.schemas.members import ByteRange, DeflatedRange
from labelmill.tasks.images.read_bytes import open_regular
from labelmill.tasks.images.rejected_image import RejectedImage

_PIECE_BYTES = 2**20


def iterate_member(container: str, member: ByteRange | DeflatedRange, *, crc32: int | None = None) -> Iterator[bytes]:
    """Yield a member's content, never more bytes than it is said to have.

    Raises RejectedImage at the end, or before: truncated when the container ends early, corrupt when the content has
    another length than stated or, where one is given, another CRC-32.
    """
    length, found = 0, 0
    for piece in _inflate(container, member) if isinstance(member, DeflatedRange) else _read(container, member):
        length += len(piece)
        if length > member.length:
            raise RejectedImage(Reason.CORRUPT, f"expected {member.length} bytes when inflated, got more")
        if crc32 is not None:
            found = zlib.crc32(piece, found)
        yield piece
    if length < member.length:
        raise RejectedImage(Reason.CORRUPT, f"expected {member.length} bytes when inflated, got {length}")
    if crc32 is not None and found != crc32:
        raise RejectedImage(Reason.CORRUPT, f"expected the CRC-32 {crc32:08x}, got {found:08x}")


def _read(container: str, member: ByteRange) -> Iterator[bytes]:
    offset, left = member.offset, member.length
    with open_regular(container) as descriptor:
        while left:
            piece = os.pread(descriptor, min(left, _PIECE_BYTES), offset)
            if not piece:
                raise RejectedImage(Reason.TRUNCATED, f"the container ends {left} bytes before its member does")
            yield piece
            offset, left = offset + len(piece), left - len(piece)


def _inflate(container: str, member: DeflatedRange) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _read(container, ByteRange(offset=member.offset, length=member.compressed)):
            left = packed
            while left and not inflater.eof:
                yield inflater.decompress(left, _PIECE_BYTES)
                left = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise RejectedImage(Reason.CORRUPT, f"the container's compressed bytes are damaged: {error}") from error
