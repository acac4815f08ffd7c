"""Remove what no version, no live run and no recent writer needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labelmill.tasks.store.place import FileFacts, Sweep
from labelmill.tasks.store.table import Table

GRACE_S = 24 * 3600.0
"""A part younger than this may belong to a commit that is being written."""

RESUME_S = 30 * 24 * 3600.0
"""A killed run may be resumed for this long; after that its unlisted parts go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """Files that were removed (or would be), by their paths in the table's folder, and their bytes."""

    files: tuple[str, ...]
    bytes: int


def collect_garbage(
    table: Table, *, grace_s: float = GRACE_S, resume_s: float = RESUME_S, dry_run: bool = False
) -> Collected:
    """Remove the parts of a table that nothing refers to, receipts without a part, old run marks, unfinished files.

    Spared are parts that an undeleted version lists, that a receipt of a run names which was active within `resume_s`
    seconds and has not committed, and all files younger than `grace_s` seconds. No version is committed and no receipt
    claimed meanwhile. Raises StoreDamaged when a version cannot be read: then it is not known what it needs.
    """
    if not table.exists():
        return Collected(files=(), bytes=0)
    with table.files.sweep() as sweep:
        removed = _find_garbage(table, sweep, grace_s=grace_s, resume_s=resume_s)
        if not dry_run:
            sweep.remove(list(removed))
    return Collected(files=tuple(sorted(removed)), bytes=sum(removed.values()))


def _find_garbage(table: Table, sweep: Sweep, *, grace_s: float, resume_s: float) -> dict[str, int]:
    """Return the files to remove, parts before their receipts, each with its size in bytes."""
    oldest = sweep.now - grace_s
    needed = {part.path for version in table.versions() for part in version.parts} | sweep.claimed
    receipts = table.receipts.all()
    live, old_marks = table.receipts.marks(resume_s=resume_s, now=sweep.now)
    needed |= {receipt.part.path for _, receipt in receipts if receipt.run in live}
    parts = [part for part in table.files.files_in("parts") if part.path.endswith(".parquet")]
    removed = _sizes((part for part in parts if part.path not in needed), oldest)
    left = {part.path for part in parts if part.path not in removed}
    lost = {path for path, receipt in receipts if receipt.part.path not in left}
    removed |= _sizes((file for file in table.files.files_in("receipts") if file.path in lost), sweep.now)
    removed |= _sizes(old_marks, oldest)
    return removed | _sizes(sweep.leftovers(), oldest)


def _sizes(files: Iterable[FileFacts], oldest: float) -> dict[str, int]:
    """Return the size of each file that was last changed before `oldest`, in seconds since the epoch."""
    return {file.path: file.size for file in files if file.changed < oldest}
