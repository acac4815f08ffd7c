"""Where a store or images lie: a folder of this machine, or a URL of an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labelmill.schemas.errors import BadInput

OBJECT_SCHEMES = ("s3", "gs")
"""Object stores that promise to create an object only if it is absent."""

_LOCAL_SCHEME = "file://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


def is_object_url(location: object) -> bool:
    """Tell whether a location is a URL of an object store that is supported."""
    return isinstance(location, str) and location.partition("://")[0] in OBJECT_SCHEMES and "://" in location


def check_location(location: str) -> str:
    """Return an absolute path of a folder, which need not exist, or an object store's URL without a slash at its end.

    Raises BadInput for a URL of another kind and for one with credentials in it, which is never repeated: locations
    are written into lineage, logs and messages.
    """
    match = _URL.fullmatch(location)
    if match is None or location.startswith(_LOCAL_SCHEME):
        return str(Path(location.removeprefix(_LOCAL_SCHEME)).expanduser().absolute())
    scheme, rest = match[1], match[2].rstrip("/")
    if scheme not in OBJECT_SCHEMES:
        raise BadInput(
            f"{scheme}:// is not supported: expected a folder, s3://bucket/prefix or gs://bucket/prefix; a store "
            "needs a back end that never replaces a version"
        )
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or "?" in rest or "#" in rest or ":" in bucket:
        raise BadInput(
            f"{scheme}:// URL: expected {scheme}://bucket/prefix without user, password, port, ? or #; credentials "
            "come from the environment, a profile or the machine's role"
        )
    if not _BUCKET.fullmatch(bucket):
        raise BadInput(f"{scheme}:// URL: expected {scheme}://bucket/prefix, got no bucket's name before the prefix")
    if prefix and not is_plain_path(prefix):
        raise BadInput(f"{location}: expected a prefix without empty parts, '.' and '..'")
    return f"{scheme}://{rest}"


def is_plain_path(path: str) -> bool:
    """Tell whether a relative path has no empty part, no `.` and no `..`, so that it is the same on every back end."""
    return not {"", ".", ".."}.intersection(path.split("/"))


def join_location(root: str | Path, path: str) -> str:
    """Return where `path`, relative with '/' between folders, lies below a folder or URL."""
    return f"{root}/{path}" if is_object_url(root) else os.path.join(root, path)
