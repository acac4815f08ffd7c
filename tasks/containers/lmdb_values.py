"""The values of an LMDB environment, read without locking or changing it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import lmdb

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.tasks.images.rejected_image import RejectedImage

_opened: dict[str, Any] = {}
"""By real path: LMDB forbids opening an environment twice."""

_by_name: dict[str, Any] = {}
"""The same, by the paths that were asked for."""

_lock = threading.Lock()


def _close_all() -> None:
    """Close what a forked process has from its parent: it must not be used, and would forbid opening it anew."""
    global _lock  # noqa: PLW0603 - a thread of the parent may hold the old one for ever
    _lock = threading.Lock()
    for environment in _opened.values():
        environment.close()
    _opened.clear()
    _by_name.clear()


os.register_at_fork(after_in_child=_close_all)


def _open(path: str) -> Any:  # noqa: ANN401 - lmdb has no types
    if path in _by_name:  # finding the real path takes longer than reading a value
        return _by_name[path]
    key = os.path.realpath(path)
    with _lock:
        if key not in _opened:
            environment = lmdb.open(
                path, subdir=os.path.isdir(path), readonly=True, lock=False, readahead=False, meminit=False,
                max_readers=1, create=False,
            )  # fmt: skip
            try:
                _refuse_truncated(path, environment)
            except BaseException:
                environment.close()
                raise
            _opened[key] = environment
        _by_name[path] = _opened[key]
        return _opened[key]


def _refuse_truncated(path: str, environment: Any) -> None:  # noqa: ANN401 - as above
    """Raise an error for a file that ends before its last page: touching that would kill this process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (size := os.path.getsize(_data_file(path))) < needed:
        raise lmdb.CorruptedError(f"truncated: {size} bytes of {needed}")


def list_lmdb(path: str) -> Iterator[tuple[bytes, int]]:
    """Yield each key with its value's length in bytes, in the order of the keys, without reading the values.

    Raises BadInput when there is no LMDB environment, or it is damaged.
    """
    with _explained(path), _open(path).begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            yield bytes(key), len(value)


def list_lmdb_in_blocks(path: str, size: int) -> Iterator[tuple[list[bytes], list[int]]]:
    """Yield what `list_lmdb` does as lists of keys and of lengths, `size` at a time: in two thirds of the time."""
    with _explained(path), _open(path).begin(buffers=True) as transaction:
        pairs = iter(transaction.cursor())
        while True:
            keys: list[bytes] = []
            lengths: list[int] = []
            for key, value in islice(pairs, size):
                keys.append(bytes(key))
                lengths.append(len(value))
            if not keys:
                return
            yield keys, lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class LmdbState:
    """What an LMDB environment was when it was looked at: two that are equal hold the same values.

    `transaction` is the number of its last write; `mtime_ns` since the epoch, of its file.
    """

    device: int
    inode: int
    bytes: int
    mtime_ns: int
    transaction: int


def find_lmdb_state(path: str) -> LmdbState:
    """Return an environment's state now; raise BadInput as `list_lmdb` does."""
    with _explained(path):
        transaction = _open(path).info()["last_txnid"]
        found = os.stat(_data_file(path))
    return LmdbState(
        device=found.st_dev, inode=found.st_ino, bytes=found.st_size, mtime_ns=found.st_mtime_ns,
        transaction=transaction,
    )  # fmt: skip


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise BadInput(f"{path}: not an LMDB environment that can be read: {error}") from error


def _data_file(path: str) -> str:
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path


def read_lmdb_value(path: str, key: bytes) -> bytes:
    """Return a key's value; raise RejectedImage: missing or unreadable."""
    try:
        with _open(path).begin() as transaction:
            value = transaction.get(key)
    except (lmdb.Error, OSError) as error:
        reason = Reason.UNREADABLE if os.path.exists(path) else Reason.MISSING
        raise RejectedImage(reason, f"LMDB: {error}") from error
    if value is None:
        raise RejectedImage(Reason.MISSING, "the LMDB environment has no such key")
    return bytes(value)
