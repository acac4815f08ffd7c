"""Read a regular file, and nothing that only looks like one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from labelmill.schemas.images import Reason
from labelmill.schemas.locations import is_object_url
from labelmill.schemas.members import split_member
from labelmill.tasks.images.read_object import read_object
from labelmill.tasks.images.rejected_image import RejectedImage

_READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Return the content of a regular file; never waits on a pipe or device, never reads more than max_bytes + 1.

    A URL of an object store is read from there, a member of a container (`schemas.members`) out of it. Raises
    RejectedImage: broken_link, missing, unreadable, not_a_file, truncated, corrupt or too_many_bytes; WorkFailed when
    an object store gives no answer.
    """
    place = os.fspath(path)
    if "//" in place:  # in the names of members and in URLs, seldom in other paths
        if found := split_member(place):
            from labelmill.tasks.containers.read_member import read_member

            return read_member(*found, max_bytes=max_bytes)
        if is_object_url(place):
            return read_object(place, max_bytes=max_bytes)
    try:
        descriptor, size = _open_regular(place)
        try:
            return _read_whole(descriptor, size, max_bytes=max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explain_os_error(path, error) from error


def read_each(paths: Sequence[str], *, max_bytes: int) -> list[bytes | RejectedImage]:
    """Return what `read_bytes` returns of each path, or why it raised; of small files in half the time."""
    found: list[bytes | RejectedImage] = []
    for path in paths:
        try:
            found.append(_read_small(path, max_bytes) or read_bytes(path, max_bytes=max_bytes))
        except RejectedImage as rejected:
            found.append(rejected)
    return found


def _read_small(path: str, max_bytes: int) -> bytes | None:
    """Return the content of a regular file that one call reads; None for all that is not as simple."""
    if "//" in path:
        return None
    try:
        descriptor = os.open(path, _READ_ONLY)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
            return None
        data = os.read(descriptor, found.st_size + 1)
        return data if len(data) == found.st_size else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a regular file for reading and close it; raise RejectedImage for what goes wrong until then."""
    try:
        descriptor, _ = _open_regular(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explain_os_error(path, error) from error


def _open_regular(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the descriptor of a regular file, and its size in bytes."""
    descriptor = os.open(path, _READ_ONLY)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise RejectedImage(Reason.NOT_A_FILE, f"expected a regular file, got mode {stat.filemode(found.st_mode)}")
    return descriptor, found.st_size


def _read_whole(descriptor: int, size: int, *, max_bytes: int) -> bytes:
    # One byte more than the size tells the end of the file from a file that is still growing.
    piece = os.read(descriptor, size + 1) if size <= max_bytes else b""
    if len(piece) == size <= max_bytes:
        return piece
    pieces = [piece]
    left = max_bytes + 1 - len(piece)
    while piece and left > 0:
        piece = os.read(descriptor, min(left, max(size + 1, 4096)))
        pieces.append(piece)
        left -= len(piece)
    if left <= 0 or size > max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes")
    return b"".join(pieces)


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
