"""The members of a tar, and of the tars in it, found without reading them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.locations import is_plain_path
from labelmill.schemas.members import ByteRange, name_member
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, is_text, sort_by_bytes

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


def list_tar(path: str) -> list[ListedFile]:
    """Return the members of an uncompressed tar, sorted by name; those of a tar in it lie below its name.

    `train/n01440764.tar` with `a.JPEG` in it gives `train/n01440764/a.JPEG`. Uris begin with the tar's own name.
    Nothing is extracted. Of members with one name the last counts, as for tar itself. A tar in the tar
    that is damaged is a rejected entry of its own. Raises BadInput for a compressed, truncated or foreign file.
    """
    found = {member.path: member for member in iterate_tar(path)}
    return sort_by_bytes(list(found.values()))


def iterate_tar(path: str) -> Iterator[ListedFile]:
    """Yield the members as `list_tar` has them, in the tar's order, also those with a name that comes again."""
    try:
        with open(path, "rb") as file:
            _refuse_compressed(path, file.read(6)[:2])
            found = os.fstat(file.fileno())
            yield from _walk(file, 0, found.st_size, "", os.path.basename(path), found.st_mtime_ns)
    except (tarfile.TarError, OSError, UnicodeError) as error:
        raise BadInput(f"{path}: not a tar that can be read to its end: {error}") from error


def _refuse_compressed(path: str, start: bytes) -> None:
    if start in _COMPRESSED:
        raise BadInput(
            f"{path}: compressed by {_COMPRESSED[start]}, so that no member can be read on its own; decompress it first"
        )


class _Stretch(io.RawIOBase):
    """A stretch of a file, as a file of its own."""

    def __init__(self, file: io.BufferedReader, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def _walk(
    file: io.BufferedReader, start: int, length: int, prefix: str, container: str, mtime_ns: int
) -> Iterator[ListedFile]:
    with tarfile.open(fileobj=_Stretch(file, start, length), mode="r:", errorlevel=2) as tar:
        for member in tar:
            if member.isreg() and not member.issparse() and member.offset_data + member.size > length:
                raise tarfile.ReadError(f"truncated within {prefix}{member.name}")
            tar.members = []  # type: ignore[attr-defined]  # it would keep each member's header
            if member.isdir():
                continue
            inner = prefix + member.name.removesuffix(".tar")
            if member.isreg() and member.name.endswith(".tar") and is_plain_path(inner):
                try:
                    yield from _walk(file, start + member.offset_data, member.size, f"{inner}/", container, mtime_ns)
                except (tarfile.TarError, UnicodeError) as error:  # of its members those before the fault are there
                    fault = (Reason.CORRUPT, f"a tar in the tar that cannot be read to its end: {error}")
                    yield _make_entry(member, start, prefix, container, mtime_ns)._replace(rejected=fault)
            else:
                yield _make_entry(member, start, prefix, container, mtime_ns)
    _refuse_unfinished(file, start, length, tar.offset)


def _refuse_unfinished(file: io.BufferedReader, start: int, length: int, end: int) -> None:
    """Raise ReadError when no end mark is where a tar's members end: Python's reader stops silently at a bad header."""
    file.seek(start + end)
    mark = file.read(max(0, min(tarfile.BLOCKSIZE, length - end)))
    if len(mark) < tarfile.BLOCKSIZE or any(mark):
        raise tarfile.ReadError(f"neither a member nor the end mark at byte {start + end}: it is cut or damaged")


def _make_entry(member: tarfile.TarInfo, start: int, prefix: str, container: str, mtime_ns: int) -> ListedFile:
    name = prefix + member.name.removeprefix("./")
    if not is_plain_path(name) or name.startswith("/"):
        kind = FileKind.OUTSIDE
    elif not is_text(name):
        kind = FileKind.BAD_NAME
    elif member.issparse():
        kind = FileKind.UNREADABLE_MEMBER
    else:
        kind = FileKind.FILE if member.isreg() else FileKind.LINK_MEMBER
    place = ByteRange(offset=start + member.offset_data, length=member.size if member.isreg() else 0)
    size = member.size if kind is FileKind.FILE else None
    return ListedFile(path=name, size=size, mtime_ns=mtime_ns, kind=kind, member_uri=name_member(container, place))
