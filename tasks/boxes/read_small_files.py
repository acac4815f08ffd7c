"""Read the annotation files that lie beside images, one for each image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage

FILE_BYTES_MAX = 16 * 2**20
"""No annotation of one image is longer."""

_THREADS = 8


def list_below(folder: Path, suffix: str) -> list[str]:
    """Return the paths below a folder of its files with a suffix, with '/' between folders, sorted.

    Links to folders are followed, save those that lead back up: two of them would be followed without end.
    """
    found: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        prefix, above = waiting.pop()
        with suppress(OSError), os.scandir(os.path.join(folder, prefix)) as entries:  # images without labels are told
            here = os.stat(os.path.join(folder, prefix))
            if (identity := (here.st_dev, here.st_ino)) in above:
                continue
            for entry in entries:
                if entry.is_dir():
                    waiting.append((f"{prefix}{entry.name}/", above | {identity}))
                elif entry.name.lower().endswith(suffix):
                    found.append(prefix + entry.name)
    return sorted(found, key=os.fsencode)


def read_all(
    folder: Path, paths: list[str], *, on_file: Callable[[int], None] = lambda n: None
) -> tuple[dict[str, bytes | None], str]:
    """Return each file's content, None for one that cannot be read, and the sha256 of all names and contents."""

    def read(path: str) -> bytes | None:
        try:
            return read_bytes(folder / path, max_bytes=FILE_BYTES_MAX)
        except RejectedImage:
            return None

    contents: dict[str, bytes | None] = {}
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="annotations") as pool:
        for path, data in zip(paths, pool.map(read, paths), strict=True):
            contents[path] = data
            digest.update(b"%d %b %d " % (len(os.fsencode(path)), os.fsencode(path), -1 if data is None else len(data)))
            digest.update(data or b"")
            on_file(1)
    return contents, digest.hexdigest()
