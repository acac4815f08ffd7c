"""Where images come from: a folder, or a place in a bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_object_url, is_plain_path
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, list_files
from labelmill.tasks.objects.client import list_level, list_objects


def list_source(root: str) -> list[ListedFile]:
    """Return everything below a folder or a URL, sorted by the bytes of the path; see `list_files`.

    Raises BadInput when nothing is there.
    """
    return _list_bucket(root) if is_object_url(root) else list_files(root)


def _list_bucket(url: str) -> list[ListedFile]:
    files = [
        ListedFile(path=found.path, size=found.size, mtime_ns=found.changed_ns, kind=_kind(found.path))
        for found in list_objects(url)
    ]
    if not files:
        raise BadInput(f"source: {url} holds no objects; expected a place with images")
    files.sort(key=lambda file: file.path.encode())
    return files


def _kind(path: str) -> FileKind:
    # s3fs takes what follows ?versionId= for no part of the key, and would read another object.
    return FileKind.FILE if is_plain_path(path) and "?versionId=" not in path else FileKind.BAD_KEY


def look_into(root: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield the names directly in a folder or below a URL, each with a question whether it is a folder.

    Yields nothing when it cannot be read: listing it says what is wrong.
    """
    if is_object_url(root):
        for name, is_folder in list_level(root):
            yield name, partial(bool, is_folder)
        return
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir
    except OSError:
        return


def is_there(root: str) -> bool:
    """Tell whether a folder exists, or anything lies below a URL."""
    return holds_files(root) if is_object_url(root) else os.path.isdir(root)


def holds_files(root: str) -> bool:
    """Tell whether anything is there: a folder may be gone or, as a mount point left behind, be empty."""
    return next(look_into(root), None) is not None
