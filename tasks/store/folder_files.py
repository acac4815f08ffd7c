"""A store's files in a folder of a local file system."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from labelmill.tasks.store.files import (
    TEMPORARY_PREFIX,
    create_file,
    hash_file,
    lock_folder,
    make_folder,
    replace_file,
    sync_file,
    sync_folder,
    temporary_beside,
)
from labelmill.tasks.store.place import FileFacts


@dataclass(frozen=True, slots=True)
class FolderSweep:
    """A folder whose lock is held alone: nobody else claims anything."""

    root: Path
    now: float
    claimed: frozenset[str] = frozenset()

    def leftovers(self) -> list[FileFacts]:
        """See Sweep."""
        found = self.root.rglob(f"{TEMPORARY_PREFIX}*")
        return _facts(self.root, (path.relative_to(self.root).as_posix() for path in found))

    def remove(self, paths: Sequence[str]) -> None:
        """See Sweep."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """See Files. Writers share a lock on the folder, which a sweep takes alone."""

    root: Path

    def below(self, path: str) -> FolderFiles:
        """See Files."""
        return FolderFiles(self.root / path)

    def at(self, path: str) -> Path:
        """See Files."""
        return self.root / path

    def folders(self, path: str = "") -> list[str]:
        """See Files."""
        return [name for name in self.names(path) if (self.root / path / name).is_dir()]

    def names(self, folder: str) -> list[str]:
        """See Files."""
        place = self.root / folder
        return os.listdir(place) if place.is_dir() else []

    def files_in(self, folder: str) -> list[FileFacts]:
        """See Files."""
        return _facts(self.root, (f"{folder}/{name}" for name in sorted(self.names(folder))))

    def info(self, path: str) -> FileFacts | None:
        """See Files."""
        return next(iter(_facts(self.root, [path])), None)

    def lacking(self, paths: Iterable[str]) -> list[str]:
        """See Files."""
        return [path for path in paths if not (self.root / path).is_file()]

    def read(self, path: str) -> bytes:
        """See Files."""
        return (self.root / path).read_bytes()

    def read_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """See Files."""
        for path in paths:
            try:
                yield path, self.read(path)
            except FileNotFoundError:
                continue

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """See Files."""
        stream: AbstractContextManager[BinaryIO] = pa.OSFile(str(self.root / path))  # read without Python's lock
        return stream

    def hash(self, path: str) -> str:
        """See Files."""
        return hash_file(self.root / path)

    def create(self, path: str, data: bytes) -> None:
        """See Files."""
        create_file(self.root / path, data)

    def replace(self, path: str, data: bytes) -> None:
        """See Files."""
        replace_file(self.root / path, data)

    def touch(self, path: str) -> None:
        """See Files."""
        make_folder((self.root / path).parent)
        (self.root / path).touch()

    def remove(self, path: str) -> None:
        """See Files."""
        (self.root / path).unlink(missing_ok=True)

    def draft(self, folder: str, suffix: str) -> AbstractContextManager[Path]:
        """See Files: a file in that very folder."""
        return temporary_beside(self.root / folder / f"draft{suffix}")

    def put(self, draft: Path, path: str) -> None:
        """See Files."""
        sync_file(draft)
        with self.claim([path]):
            draft.replace(self.root / path)  # an older file of this name has these very bytes, or was damaged
        sync_folder(draft.parent)

    @contextmanager
    def claim(self, paths: Sequence[str]) -> Iterator[None]:
        """See Files."""
        make_folder(self.root)
        with lock_folder(self.root, alone=False):
            yield

    def refresh(self, path: str, *, size: int, sha256: str) -> bool:
        """See Files: by its content."""
        try:
            os.utime(self.root / path)  # unlike touch, makes no empty file
            return self.hash(path) == sha256
        except FileNotFoundError:
            return False

    @contextmanager
    def sweep(self) -> Iterator[FolderSweep]:
        """See Files."""
        with lock_folder(self.root, alone=True):
            yield FolderSweep(self.root, time.time())


def _facts(root: Path, paths: Iterable[str]) -> list[FileFacts]:
    facts = []
    for path in paths:
        try:
            found = (root / path).stat()
        except FileNotFoundError:  # its writer finished meanwhile
            continue
        facts.append(FileFacts(path=path, size=found.st_size, changed=found.st_mtime))
    return facts
