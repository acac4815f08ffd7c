"""A store's files as objects of S3 or GCS."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.objects.client import (
    ObjectFacts,
    create_object,
    delete_object,
    find_object,
    get_object,
    in_parallel,
    list_level,
    list_objects,
    open_object,
    put_object,
    upload_file,
)
from labelmill.tasks.store import object_locks
from labelmill.tasks.store.place import FileFacts

PROBE = ".create-if-absent"
"""An object at a store's root that is created once; that it cannot be created again proves the back end."""

_proven: set[str] = set()


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """See Files. `store` is the URL of the store that the files at `root` belong to."""

    root: str
    store: str

    def below(self, path: str) -> ObjectFiles:
        """See Files."""
        return ObjectFiles(self.at(path), self.store)

    def at(self, path: str) -> str:
        """See Files."""
        return f"{self.root}/{path}" if path else self.root

    def folders(self, path: str = "") -> list[str]:
        """See Files."""
        return [name for name, is_folder in list_level(self.at(path)) if is_folder]

    def names(self, folder: str) -> list[str]:
        """See Files."""
        return [found.path.rpartition("/")[2] for found in self.files_in(folder)]

    def files_in(self, folder: str) -> list[FileFacts]:
        """See Files."""
        found = list_objects(self.root, prefix=f"{folder}/")
        return [_facts(facts, facts.path) for facts in found if "/" not in facts.path.removeprefix(f"{folder}/")]

    def info(self, path: str) -> FileFacts | None:
        """See Files."""
        found = find_object(self.at(path))
        return None if found is None else _facts(found, path)

    def lacking(self, paths: Iterable[str]) -> list[str]:
        """See Files: of many by a listing of their folders, which costs less than a question for each."""
        wanted = list(paths)
        if len(wanted) == 1:
            return wanted if self.info(wanted[0]) is None else []
        found = {facts.path for folder in {p.rpartition("/")[0] for p in wanted} for facts in self.files_in(folder)}
        return [path for path in wanted if path not in found]

    def read(self, path: str) -> bytes:
        """See Files."""
        return get_object(self.at(path))

    def read_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """See Files: several at once."""
        for path, data in zip(paths, in_parallel(self._read_if_there, paths), strict=True):
            if data is not None:
                yield path, data

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """See Files."""
        return open_object(self.at(path))

    def hash(self, path: str) -> str:
        """See Files."""
        return hashlib.sha256(self.read(path)).hexdigest()

    def create(self, path: str, data: bytes) -> None:
        """See Files."""
        prove_store(self.store)
        create_object(self.at(path), data)

    def replace(self, path: str, data: bytes) -> None:
        """See Files."""
        prove_store(self.store)
        put_object(self.at(path), data)

    def touch(self, path: str) -> None:
        """See Files."""
        self.replace(path, b"")

    def remove(self, path: str) -> None:
        """See Files."""
        delete_object(self.at(path))

    @contextmanager
    def draft(self, folder: str, suffix: str) -> Iterator[Path]:
        """See Files: in this machine's folder for temporary files."""
        with tempfile.TemporaryDirectory(prefix="labelmill-") as place:
            yield Path(place, f"draft{suffix}")

    def put(self, draft: Path, path: str) -> None:
        """See Files: the object is young from here on."""
        with self.claim([path]):
            upload_file(self.at(path), draft)

    @contextmanager
    def claim(self, paths: Sequence[str]) -> Iterator[None]:
        """See Files."""
        prove_store(self.store)
        with object_locks.hold_claim(self.root, paths):
            yield

    def refresh(self, path: str, *, size: int, sha256: str) -> bool:
        """See Files: by its size, since an object is written whole; its time stays."""
        found = self.info(path)
        return found is not None and found.size == size

    def sweep(self) -> AbstractContextManager[object_locks.ObjectSweep]:
        """See Files."""
        prove_store(self.store)
        return object_locks.hold_sweep(self.root)


def _facts(found: ObjectFacts, path: str) -> FileFacts:
    return FileFacts(path=path, size=found.size, changed=found.changed_ns / 1e9)


def prove_store(url: str) -> None:
    """Raise BadInput unless the back end refuses to create an object that is there; asked once in a process."""
    if url in _proven:
        return
    probe = f"{url}/{PROBE}"
    try:
        if _is_created(probe) and _is_created(probe):  # the first time, the object was not there yet
            delete_object(probe)
            raise BadInput(
                f"store {url}: its back end replaces an object that it was asked to create only if absent, so that "
                "one writer's version could overwrite another's; expected S3, GCS or one that honours If-None-Match"
            )
    except FileNotFoundError as error:
        raise BadInput(f"{url}: no such bucket") from error
    except WorkFailed as error:
        raise BadInput(f"store {url}: cannot prove that its back end never replaces a version: {error}") from error
    _proven.add(url)


def _is_created(url: str) -> bool:
    try:
        create_object(url, b"proves that this back end creates an object only if it is absent\n")
    except FileExistsError:
        return False
    return True
