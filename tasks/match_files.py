"""Find the images of a table by the paths of their files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


def match_files(
    files: Sequence[str | os.PathLike[str]], rows_by_id: Mapping[str, int], *, id_prefix: str = ""
) -> list[int]:
    """Return the row of the image with the longest id that each file's path ends with, −1 where there is none.

    Ids count without their `id_prefix`; those that lack it do not count.
    """
    depths = {image_id.count("/", len(id_prefix)) + 1 for image_id in rows_by_id if image_id.startswith(id_prefix)}
    deepest_first = sorted(depths, reverse=True)
    return [_match(_absolute(os.fspath(file)), rows_by_id, id_prefix, deepest_first) for file in files]


def _match(path: str, rows_by_id: Mapping[str, int], id_prefix: str, depths: Sequence[int]) -> int:
    names = path.split("/")
    for depth in depths:
        row = rows_by_id.get(id_prefix + "/".join(names[-depth:])) if depth < len(names) else None
        if row is not None:
            return row
    return -1


def _absolute(path: str) -> str:
    """Return an absolute path; one that is so already is not touched: there may be a million."""
    return path if path.startswith("/") and "/." not in path else os.path.abspath(path)
