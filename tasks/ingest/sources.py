"""Where images come from: a folder, an archive, or a place in a bucket."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_object_url, is_plain_path
from labelmill.tasks.containers.tar_members import iterate_tar
from labelmill.tasks.containers.zip_members import iterate_zip
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, list_files, sort_by_bytes
from labelmill.tasks.objects.client import list_level, list_objects


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a source holds, in the order of the rows; `root` is the folder or URL that the uris are relative to.

    `repeated` members of an archive are left out: a later one has their name.
    """

    root: str
    files: Sequence[ListedFile]
    repeated: int = 0


def list_source(source: str) -> Listing:
    """Return everything below a folder or a URL, or in a tar or zip, sorted by the bytes of the path; see `list_files`.

    Raises BadInput when nothing is there.
    """
    if is_object_url(source):
        return Listing(root=source, files=_list_bucket(source))
    if os.path.isfile(source):
        return _list_archive(source)
    return Listing(root=source, files=list_files(source))


def is_archive(path: str) -> bool:
    """Tell whether a file is a zip or a tar, if only a compressed one; raise OSError when it cannot be read."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def _list_archive(path: str) -> Listing:
    found: dict[str, ListedFile] = {}
    members = 0
    try:
        for member in iterate_zip(path) if zipfile.is_zipfile(path) else iterate_tar(path):
            found[member.path] = member
            members += 1
    except BadInput as error:
        raise BadInput(f"source: {error}") from error
    if not found:
        raise BadInput(f"source: {path} holds no files; expected an archive with images")
    files = sort_by_bytes(list(found.values()))
    return Listing(root=os.path.dirname(path), files=files, repeated=members - len(found))


def _list_bucket(url: str) -> list[ListedFile]:
    files = [
        ListedFile(path=found.path, size=found.size, mtime_ns=found.changed_ns, kind=_kind(found.path))
        for found in list_objects(url)
    ]
    if not files:
        raise BadInput(f"source: {url} holds no objects; expected a place with images")
    return sort_by_bytes(files)


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
