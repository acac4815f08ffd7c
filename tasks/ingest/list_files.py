"""List a folder's files with their sizes and times, in an order that no file system decides."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason


class FileKind(StrEnum):
    """What an entry of a folder turned out to be; only a `file` can hold an image.

    A regular file whose path is not valid UTF-8 is a `bad_name`: no id or uri could name it. An object whose key could
    not be the path of a file is a `bad_key`.
    """

    FILE = "file"
    BAD_NAME = "bad_name"
    BAD_KEY = "bad_key"
    OUTSIDE = "outside"
    LINK_MEMBER = "link_member"
    UNREADABLE_MEMBER = "unreadable_member"
    BROKEN_LINK = "broken_link"
    MISSING = "missing"
    NOT_A_FILE = "not_a_file"
    LOOP = "loop"
    UNREADABLE = "unreadable"
    UNREADABLE_FOLDER = "unreadable_folder"


KIND_REASONS = {
    FileKind.BAD_NAME: (Reason.BAD_NAME, "the path is not valid UTF-8; rename the file or its folder"),
    FileKind.BAD_KEY: (Reason.BAD_NAME, "a key with an empty part, '.' or '..' between slashes, or with ?versionId="),
    FileKind.OUTSIDE: (Reason.BAD_NAME, "an absolute name, or one with '.', '..' or empty parts"),
    FileKind.LINK_MEMBER: (Reason.NOT_A_FILE, "expected a regular file in the archive, got a link or a device"),
    FileKind.UNREADABLE_MEMBER: (
        Reason.UNSUPPORTED_FORMAT,
        "encrypted, sparse or compressed in a way that is not read",
    ),
    FileKind.BROKEN_LINK: (Reason.BROKEN_LINK, "a link that leads nowhere"),
    FileKind.MISSING: (Reason.MISSING, "listed, but not there"),
    FileKind.NOT_A_FILE: (Reason.NOT_A_FILE, "expected a regular file, got a pipe, a socket or a device"),
    FileKind.LOOP: (Reason.NOT_A_FILE, "a link back to a folder above it"),
    FileKind.UNREADABLE: (Reason.UNREADABLE, "the file cannot be read"),
    FileKind.UNREADABLE_FOLDER: (Reason.UNREADABLE, "the folder cannot be read; nothing in it is listed"),
}
"""Why an entry that is no file to read is rejected, for machines and for people."""


class ListedFile(NamedTuple):
    """An entry below the source: `path` is relative, '/' between folders, undecodable bytes as surrogates.

    `size` in bytes and `mtime_ns` since the epoch are those of the link's target, None where there is none. Of a
    member of a container `path` is its name in it, `member_uri` says where it lies (`schemas.members`), and
    `mtime_ns` is the container's. `rejected` says why it cannot be used where that was found before it was listed.
    """

    path: str
    size: int | None
    mtime_ns: int | None
    kind: FileKind
    member_uri: str | None = None
    rejected: tuple[Reason, str] | None = None

    @property
    def uri(self) -> str:
        """Return where the entry lies, relative to the root of what was listed."""
        return self.member_uri or self.path

    @property
    def is_plain(self) -> bool:
        """Tell whether nothing that was listed speaks against reading the entry."""
        return self.kind is FileKind.FILE and self.rejected is None

    @property
    def rejection(self) -> tuple[Reason, str] | None:
        """Return the reason, with a sentence, why the entry is not read at all."""
        return self.rejected or KIND_REASONS.get(self.kind)


_PATH = attrgetter("path")


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to read; `above` are the (device, inode) of itself and of the folders that lead to it."""

    full: str
    prefix: str
    above: tuple[tuple[int, int], ...]


def list_files(root: str | os.PathLike[str]) -> list[ListedFile]:
    """Return everything below `root` that is not a folder, sorted by the bytes of the path.

    Links to folders are followed, save those that lead back up (kind `loop`); a folder that cannot be read gives one
    entry (`unreadable_folder`). Raises BadInput when `root` is no folder, cannot be read or holds no files.
    """
    root = os.fspath(root)
    try:
        top = os.stat(root)
        os.scandir(root).close()
    except OSError as error:
        raise BadInput(f"source: {root}: {error.strerror}; expected a folder with images") from error
    files: list[ListedFile] = []
    waiting = [_Folder(root, "", ((top.st_dev, top.st_ino),))]
    while waiting:
        for found in _read_folder(waiting.pop()):
            if isinstance(found, _Folder):
                waiting.append(found)
            else:
                files.append(found)
    if not files:
        raise BadInput(f"source: {root} holds no files; expected a folder with images")
    return sort_by_bytes(files)


def sort_by_bytes(files: list[ListedFile]) -> list[ListedFile]:
    """Sort files by the bytes of their paths, in place; return them."""
    # Valid texts have the order of their UTF-8 as they are.
    files.sort(key=_PATH if all(is_text(file.path) for file in files) else lambda file: os.fsencode(file.path))
    return files


def _read_folder(folder: _Folder) -> Iterator[ListedFile | _Folder]:
    prefix, plain = folder.prefix, is_text(folder.prefix)
    try:
        with os.scandir(folder.full) as entries:
            for entry in entries:
                try:
                    found = entry.stat()
                except OSError as error:
                    yield ListedFile(prefix + entry.name, None, None, _explain(entry, error))
                    continue
                if stat.S_ISREG(found.st_mode):
                    name = entry.name
                    kind = FileKind.FILE if plain and is_text(name) else FileKind.BAD_NAME
                    yield ListedFile(prefix + name, found.st_size, found.st_mtime_ns, kind)
                else:
                    yield _look_at_other(entry, found, folder)
    except OSError:
        yield ListedFile(prefix.rstrip("/") or ".", None, None, FileKind.UNREADABLE_FOLDER)


def _look_at_other(entry: os.DirEntry[str], found: os.stat_result, folder: _Folder) -> ListedFile | _Folder:
    path = folder.prefix + entry.name
    if not stat.S_ISDIR(found.st_mode):
        return ListedFile(path, None, None, FileKind.NOT_A_FILE)
    identity = (found.st_dev, found.st_ino)
    if identity in folder.above:
        return ListedFile(path, None, None, FileKind.LOOP)
    return _Folder(entry.path, path + "/", (*folder.above, identity))


def _explain(entry: os.DirEntry[str], error: OSError) -> FileKind:
    if error.errno == errno.ELOOP or (isinstance(error, FileNotFoundError) and entry.is_symlink()):
        return FileKind.BROKEN_LINK
    return FileKind.MISSING if isinstance(error, FileNotFoundError) else FileKind.UNREADABLE


def is_text(path: str) -> bool:
    """Tell whether a path is valid UTF-8, which ids and uris must be."""
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(path: str) -> str:
    r"""Return a path as valid UTF-8: the bytes that are not become escapes such as `\xff`."""
    return path if path.isascii() or is_text(path) else os.fsencode(path).decode("utf-8", "backslashreplace")
