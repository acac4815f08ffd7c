"""Durable writes on a local file system: a reader sees a whole file or none, also after a power cut."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"
"""Unfinished files start with this; no reader looks at them and gc removes old ones."""


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def lock_folder(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold a folder's lock, shared with others or alone; a process that dies lets go of it. No file is left."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield an unused path in the folder of `path`, which is made; whatever is left there at the end is removed."""
    make_folder(path.parent)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex}{path.suffix}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_file(path: Path, data: bytes) -> None:
    """Write a new file durably; raise FileExistsError when `path` exists, even if it appeared meanwhile."""
    with temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        sync_file(temporary)
        os.link(temporary, path)  # unlike rename, never replaces
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file durably, in the place of an old one if there is one."""
    with temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        sync_file(temporary)
        temporary.replace(path)
    sync_folder(path.parent)


def hash_file(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
