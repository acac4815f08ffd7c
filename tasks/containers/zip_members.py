"""The members of a zip, found without reading them."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_plain_path
from labelmill.schemas.members import ByteRange, DeflatedRange, name_member
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, is_text

_LOCAL_HEADER = struct.Struct("<4s22x2H")
_ENCRYPTED = 0x1
_LINK_MODE = 0o120000
_FILE_TYPE = 0o170000


def list_zip(path: str) -> list[ListedFile]:
    """Return the members of a zip, sorted by name; uris begin with the zip's own name. Nothing is extracted.

    Raises BadInput for a file that is no zip, or a damaged one.
    """
    found = {member.path: member for member in iterate_zip(path)}
    return sorted(found.values(), key=lambda member: os.fsencode(member.path))


def iterate_zip(path: str) -> Iterator[ListedFile]:
    """Yield the members as `list_zip` has them, in the zip's order, also those with a name that comes again."""
    container = os.path.basename(path)
    with _explained(path), open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        mtime_ns = os.fstat(file.fileno()).st_mtime_ns
        for info in archive.infolist():
            if not info.is_dir():
                yield _make_entry(file, info, container, mtime_ns)


def find_checksums(path: str) -> dict[str, int]:
    """Return each member's CRC-32 by its name, of equal names the last one's."""
    with _explained(path), zipfile.ZipFile(path) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError, UnicodeError) as error:
        raise BadInput(f"{path}: not a zip that can be read: {error}") from error


def _make_entry(file: BinaryIO, info: zipfile.ZipInfo, container: str, mtime_ns: int) -> ListedFile:
    kind = _find_kind(info)
    offset = _find_data(file, info)
    place: ByteRange | DeflatedRange = ByteRange(offset=offset, length=info.file_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        place = DeflatedRange(offset=offset, compressed=info.compress_size, length=info.file_size)
    size = info.file_size if kind is FileKind.FILE else None
    uri = name_member(container, place)
    return ListedFile(path=info.filename, size=size, mtime_ns=mtime_ns, kind=kind, member_uri=uri)


def _find_kind(info: zipfile.ZipInfo) -> FileKind:
    if not is_plain_path(info.filename) or info.filename.startswith("/"):
        return FileKind.OUTSIDE
    if not is_text(info.filename):
        return FileKind.BAD_NAME
    if (info.external_attr >> 16) & _FILE_TYPE == _LINK_MODE:
        return FileKind.LINK_MEMBER
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return FileKind.UNREADABLE_MEMBER
    return FileKind.FILE


def _find_data(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: behind its own header, whose lengths the directory does not tell."""
    file.seek(info.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no member where the directory says that {info.filename!r} is")
    return int(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
