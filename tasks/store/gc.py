"""Remove what no version, no live run and no recent writer needs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labelmill.tasks.store.files import TEMPORARY_PREFIX, lock_folder
from labelmill.tasks.store.table import Table

GRACE_S = 24 * 3600.0
"""A part younger than this may belong to a commit that is being written."""

RESUME_S = 30 * 24 * 3600.0
"""A killed run may be resumed for this long; after that its unlisted parts go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """Files that were removed (or would be), and their bytes."""

    files: tuple[Path, ...]
    bytes: int


def collect_garbage(
    table: Table, *, grace_s: float = GRACE_S, resume_s: float = RESUME_S, dry_run: bool = False
) -> Collected:
    """Remove the parts of a table that nothing refers to, receipts without a part, old run marks, unfinished files.

    Spared are parts that an undeleted version lists, that a receipt of a run names which was active within `resume_s`
    seconds and has not committed, and all files younger than `grace_s` seconds. No version is committed and no receipt
    claimed meanwhile. Raises StoreDamaged when a version cannot be read: then it is not known what it needs.
    """
    if not table.folder.is_dir():
        return Collected(files=(), bytes=0)
    with lock_folder(table.folder, alone=True):
        removed = _find_garbage(table, oldest=time.time() - grace_s, resume_s=resume_s)
        if not dry_run:
            for path in removed:
                path.unlink(missing_ok=True)
    return Collected(files=tuple(sorted(removed)), bytes=sum(removed.values()))


def _find_garbage(table: Table, *, oldest: float, resume_s: float) -> dict[Path, int]:
    """Return the files to remove, parts before their receipts, each with its size in bytes."""
    needed = {part.path for version in table.versions() for part in version.parts}
    receipts = table.receipts.all()
    live, old_marks = table.receipts.marks(resume_s=resume_s)
    needed |= {receipt.part.path for _, receipt in receipts if receipt.run in live}
    parts = {f"parts/{path.name}": path for path in (table.folder / "parts").glob("*.parquet")}
    removed = _sizes([path for name, path in parts.items() if name not in needed], oldest)
    left = {name for name, path in parts.items() if path not in removed}
    removed |= _sizes([path for path, receipt in receipts if receipt.part.path not in left], time.time())
    removed |= _sizes(old_marks, oldest)
    return removed | _sizes(table.folder.rglob(f"{TEMPORARY_PREFIX}*"), oldest)


def _sizes(paths: Iterable[Path], oldest: float) -> dict[Path, int]:
    """Return the size of each file that was last changed before `oldest`, in seconds since the epoch."""
    sizes = {}
    for path in paths:
        try:
            found = path.stat()
        except FileNotFoundError:  # its writer finished meanwhile
            continue
        if found.st_mtime < oldest:
            sizes[path] = found.st_size
    return sizes
