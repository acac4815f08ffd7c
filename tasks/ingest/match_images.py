"""Find the files of the images that an annotation file names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import is_plain_path, join_location
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.sources import Listing, list_source

_NAMES_TRIED = 1000
"""Enough names to see in which folder images lie; the first of them may be the missing ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedImages:
    """One entry for each distinct name, in the order of the paths; `unused` files are named by nothing."""

    listing: Listing
    unused: int
    missing: int


def list_images(images: str) -> Listing:
    """List the place that holds the images; raise BadInput that names the parameter when nothing is there."""
    try:
        return list_source(images)
    except BadInput as error:
        raise BadInput(str(error).replace("source:", "images:", 1)) from error


def match_images(names: Sequence[str], listing: Listing) -> MatchedImages:
    """Return the listing of the images that are named: each name is a path, below the same folder of what was listed.

    A name without a file stays, as one that is missing; a name that could lead elsewhere is a bad one.
    """
    by_path = {file.path: file for file in listing.files}
    prefix = _find_prefix(names, by_path)
    found = [_find(name, by_path.get(prefix + name)) for name in dict.fromkeys(names)]
    found.sort(key=lambda file: file.path.encode("utf-8", "surrogateescape"))
    missing = sum(file.kind is FileKind.MISSING for file in found)
    used = sum(prefix + file.path in by_path for file in found)
    root = listing.root
    if prefix and all(file.member_uri is None for file in listing.files):
        root = join_location(root, prefix.rstrip("/"))
    matched = Listing(root=root, files=found, repeated=listing.repeated)
    return MatchedImages(listing=matched, unused=len(by_path) - used, missing=missing)


def _find(name: str, file: ListedFile | None) -> ListedFile:
    if not is_plain_path(name) or "\0" in name:
        return ListedFile(path=name, size=None, mtime_ns=None, kind=FileKind.OUTSIDE)
    if file is None:
        return ListedFile(path=name, size=None, mtime_ns=None, kind=FileKind.MISSING)
    return file._replace(path=name)


def _find_prefix(names: Sequence[str], by_path: dict[str, ListedFile]) -> str:
    """Return the folder, with '/' at its end, below which most of the first names are files; "" when none is."""
    tried = [name for name in names[:_NAMES_TRIED] if is_plain_path(name)]
    if any(name in by_path for name in tried):
        return ""
    wanted = {name.rpartition("/")[2] for name in tried}
    paths: dict[str, list[str]] = {}
    for path in by_path:
        base = path.rpartition("/")[2]
        if base in wanted:
            paths.setdefault(base, []).append(path)
    votes = Counter(
        path[: -len(name)]
        for name in tried
        for path in paths.get(name.rpartition("/")[2], ())
        if path.endswith("/" + name)
    )
    return min(votes, key=lambda prefix: (-votes[prefix], prefix)) if votes else ""
