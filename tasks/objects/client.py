"""Requests to an object store: each is bounded in time, retried by its library, and fails with one line."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from labelmill.schemas.errors import LabelmillError
from labelmill.tasks.objects.failure import Conflict, RangeBehindEnd, explain_failure
from labelmill.tasks.objects.filesystem import open_filesystem
from labelmill.tasks.threads import open_threads

CALL_TIMEOUT_S = 600.0
"""One request with all its retries; a server that answers a byte a minute ends here."""

PARALLEL_CALLS = 16

CONFLICT_TRIES = 6

BLOCK_BYTES = 2**20
"""Read at once from an open object: parts are a few MB, and a column's piece is often less."""

_WRITER = "writer"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """An object below a URL: `path` is relative to it, `changed_ns` since the epoch by the store's clock."""

    path: str
    size: int
    changed_ns: int


def _call(
    url: str, request: Callable[[Any, str], Coroutine[Any, Any, Any]], *, timeout_s: float = CALL_TIMEOUT_S
) -> Any:  # noqa: ANN401 - as the library's method
    """Run one of the library's coroutines, given the file system and its name of `url`."""
    from fsspec.asyn import sync

    scheme, _, path = url.partition("://")
    try:
        opened = open_filesystem(scheme)
        return sync(opened.loop, request, opened, path, timeout=timeout_s)
    except Exception as error:
        raise explain_failure(error, url) from error


def get_object(url: str, *, start: int = 0, end: int | None = None) -> bytes:
    """Return an object's content, or its bytes from `start` to `end`; raise FileNotFoundError when there is none."""
    limits = {} if end is None else {"start": start, "end": end}
    try:
        return bytes(_call(url, lambda opened, path: opened._cat_file(path, **limits)))
    except RangeBehindEnd:  # of an empty object
        return b""


def put_object(url: str, data: bytes) -> None:
    """Write an object whole, in the place of an old one if there is one."""
    _call(url, lambda opened, path: opened._pipe_file(path, data))


def upload_file(url: str, file: Path) -> None:
    """Write a file's content as an object, in the place of an old one if there is one."""
    _call(url, lambda opened, path: opened._put_file(str(file), path))


def create_object(url: str, data: bytes) -> None:
    """Write a new object; raise FileExistsError when there is one, even if it appeared meanwhile.

    A request whose answer was lost is sent again and then meets its own object, which it knows by a mark in the
    object's metadata.
    """
    mark = uuid.uuid4().hex
    marked = {"Metadata" if url.startswith("s3:") else "metadata": {_WRITER: mark}}
    for turn in range(CONFLICT_TRIES):
        try:
            _call(url, lambda opened, path: opened._pipe_file(path, data, mode="create", **marked))
        except FileExistsError:
            if _find_mark(url) != mark:
                raise
        except Conflict:  # S3 asks to try again when two such requests meet
            if turn == CONFLICT_TRIES - 1:
                raise
            time.sleep(0.1 * 2**turn)
            continue
        return


def _find_mark(url: str) -> str | None:
    async def find(opened: Any, path: str) -> object:  # noqa: ANN401 - as open_filesystem
        try:
            return await opened._getxattr(path, _WRITER)
        except KeyError:
            return None

    found = _call(url, find)
    return None if found is None else str(found)


def delete_object(url: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Remove an object; that it is gone already is fine."""
    try:
        _call(url, lambda opened, path: opened._rm_file(path), timeout_s=timeout_s)
    except FileNotFoundError:
        return


def find_object(url: str) -> ObjectFacts | None:
    """Return an object's facts, None when there is no such object."""
    try:
        found = _call(url, lambda opened, path: opened._info(path))
    except FileNotFoundError:
        return None
    return _facts(found, "") if found["type"] == "file" else None


def list_objects(url: str, *, prefix: str = "") -> list[ObjectFacts]:
    """Return all objects below a URL whose path begins with `prefix`, sorted; none when there are none.

    Objects that stand for folders (their keys end with a slash and they are empty) are left out.
    """
    found = _call(url, lambda opened, path: opened._find(path, detail=True, prefix=prefix))
    above = url.partition("://")[2] + "/"
    facts = (_facts(entry, name.removeprefix(above)) for name, entry in found.items() if name.startswith(above))
    return sorted((f for f in facts if f.path and not (f.path.endswith("/") and not f.size)), key=lambda f: f.path)


def list_level(url: str) -> list[tuple[str, bool]]:
    """Return the names directly below a URL, each with whether it is a folder; none when nothing is there."""
    try:
        found = _call(url, lambda opened, path: opened._ls(path, detail=True))
    except FileNotFoundError:
        return []
    above = url.partition("://")[2] + "/"
    return sorted(
        (entry["name"].removeprefix(above).rstrip("/"), entry["type"] == "directory")
        for entry in found
        if entry["name"].startswith(above) and entry["name"] != above
    )


def _facts(entry: dict[str, Any], path: str) -> ObjectFacts:
    changed = entry.get("LastModified") or entry["mtime"]
    return ObjectFacts(
        path=path, size=int(entry["size"]), changed_ns=(changed - _EPOCH) // timedelta(microseconds=1) * 1000
    )


@contextmanager
def open_object(url: str) -> Iterator[BinaryIO]:
    """Open an object for reading pieces of it, as Parquet is read."""
    scheme, _, path = url.partition("://")
    try:
        with open_filesystem(scheme).open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead") as stream:
            yield stream
    except (LabelmillError, pa.ArrowException):
        raise
    except Exception as error:
        raise explain_failure(error, url) from error


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `work` of each item, in order, several at once; what one raises ends it."""
    with open_threads(PARALLEL_CALLS, name="objects") as threads:
        return list(threads.map(work, items))
