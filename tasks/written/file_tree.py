"""Write files below a folder: each is whole or not there, none is replaced, no link is followed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labelmill.schemas.errors import BadInput, LabelmillError, WorkFailed
from labelmill.tasks.store.files import TEMPORARY_PREFIX

_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_BAD_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links say."""

_STAGING = re.compile(re.escape(TEMPORARY_PREFIX) + r"\d+-[0-9a-f]{12}")

_NEW_S = 60
"""A folder so young may be one whose writer is about to lock it."""

Pieces = Callable[[], Iterable[bytes | memoryview]]
"""Gives a file's content in pieces, as often as it is asked."""


class Occupied(LabelmillError):
    """Something else is at the path: a file with another content, a link, or a file in a folder's place."""


class BadFileName(LabelmillError):
    """A name that this file system does not take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenFile:
    """A file of the tree; `kept` says that it was there with the same content. `mtime_ns` since the epoch."""

    kept: bool
    bytes: int
    mtime_ns: int


class FileTree:
    """A folder that files are written to, from many threads.

    Unfinished files lie in a folder of its own, `.writing-…`, which a later run removes when its writer has died. Files
    are not synced one by one: after a power cut a rerun compares their content and says which are damaged.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.realpath(root)
        self._folders = {""}
        self._here = threading.local()
        with _explained(self.root):
            os.makedirs(self.root, exist_ok=True)
            _remove_abandoned(self.root)
            self._staging = os.path.join(self.root, f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}")
            os.mkdir(self._staging)
            self._lock = os.open(self._staging, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> FileTree:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        os.close(self._lock)

    def find(self, path: str) -> os.stat_result | None:
        """Return what is at a relative path, None when nothing is; raise Occupied when it is no file of the tree."""
        try:
            self._enter(path.rpartition("/")[0], make=False)
            found = os.lstat(f"{self.root}/{path}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _refuse(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise Occupied(f"{path}: something else than a file is there")
        return found

    def write(self, path: str, pieces: Pieces) -> WrittenFile:
        """Write a file by its relative path, or keep the one that is there with this very content.

        Raises Occupied, BadFileName, or WorkFailed when the file system takes no more; what `pieces` raises passes, and
        leaves no file.
        """
        if _STAGING.fullmatch(path.partition("/")[0]):
            raise BadFileName(f"{path!r}: a name of unfinished files")
        try:
            self._enter(path.rpartition("/")[0], make=True)
        except (OSError, ValueError) as error:
            raise _refuse(path, error) from error
        found = self.find(path)
        if found is None:
            try:
                made = self._write_new(path, pieces)
            except LabelmillError:  # of the pieces
                raise
            except (OSError, ValueError) as error:
                raise _refuse(path, error) from error
            if made is not None:
                return WrittenFile(kept=False, bytes=made.st_size, mtime_ns=made.st_mtime_ns)
            found = self.find(path)  # another process was first
        if found is None or not _holds(f"{self.root}/{path}", pieces()):
            raise Occupied(f"{path}: a file with another content is there")
        return WrittenFile(kept=True, bytes=found.st_size, mtime_ns=found.st_mtime_ns)

    def read_start(self, path: str, length: int) -> bytes:
        """Return the first bytes of a file that `find` found."""
        with open(f"{self.root}/{path}", "rb", buffering=0) as file:
            return file.read(length)

    def explain(self, error: Occupied | BadFileName) -> BadInput:
        """Return what to tell people where such an error ends the work."""
        return BadInput(
            f"out: {self.root}: {error}; nothing is replaced: choose another folder, or move that file away"
        )

    def _write_new(self, path: str, pieces: Pieces) -> os.stat_result | None:
        """Return the new file's facts, None when a file has appeared there."""
        temporary = self._temporary()
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces():
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view) :]
            made = os.fstat(handle)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(handle)
        try:
            _place(temporary, f"{self.root}/{path}")
        except BaseException as error:
            os.unlink(temporary)
            if isinstance(error, FileExistsError):
                return None
            raise
        return made

    def _temporary(self) -> str:
        if not hasattr(self._here, "name"):
            self._here.name = os.path.join(self._staging, uuid.uuid4().hex)
        return str(self._here.name)

    def _enter(self, folder: str, *, make: bool) -> None:
        """See that each part of a relative folder is a folder and no link, and with `make` make what is not there."""
        if folder in self._folders:
            return
        self._enter(folder.rpartition("/")[0], make=make)
        place = f"{self.root}/{folder}"
        if make:
            try:
                os.mkdir(place)
                self._folders.add(folder)
                return
            except FileExistsError:
                pass
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise Occupied(f"{folder}: a file or a link is in the place of a folder")
        self._folders.add(folder)


def _place(temporary: str, final: str) -> None:
    """Give a file its name without ever replacing another; raise FileExistsError."""
    try:
        os.link(temporary, final, follow_symlinks=False)  # unlike rename, never replaces
        os.unlink(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, "exists", final) from error
        os.rename(temporary, final)


def _holds(path: str, pieces: Iterable[bytes | memoryview]) -> bool:
    """Tell whether a file's content is these pieces."""
    with open(path, "rb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                data = file.read(min(len(view), 2**20))
                if not data or data != view[: len(data)]:
                    return False
                view = view[len(data) :]
        return not file.read(1)


def _remove_abandoned(root: str) -> None:
    """Remove the unfinished files of writers that have died: those whose folder nobody has locked."""
    for name in os.listdir(root):
        place = os.path.join(root, name)
        if not _STAGING.fullmatch(name) or os.path.islink(place) or not os.path.isdir(place):
            continue
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(handle).st_mtime < _NEW_S:
                continue
            shutil.rmtree(place, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)


def _refuse(path: str, error: OSError | ValueError) -> LabelmillError:
    if not isinstance(error, OSError) or error.errno in _BAD_NAMES:  # ValueError: a zero byte in the name
        return BadFileName(f"{path!r}: no name for a file here: {error}")
    if error.errno in _OCCUPIED:
        return Occupied(f"{path}: {error.strerror}")
    return _failed(path, error)


def _failed(path: str, error: OSError) -> WorkFailed:
    return WorkFailed(
        f"out: {path}: {error.strerror}; the files written so far are whole and kept: make room or give permission, "
        "and run the same command to go on"
    )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn an OSError within the block into a WorkFailed that names the folder."""
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from error
