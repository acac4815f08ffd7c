"""Remove what no version, no live run and no recent writer needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from labelmill.tasks.store.files import TEMPORARY_PREFIX
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
    """Remove the parts of a table that nothing refers to, their receipts, and unfinished files.

    Spared are parts that an undeleted version lists, that a receipt of a run names which was active within `resume_s`
    seconds and has not committed, and all files younger than `grace_s` seconds. Raises StoreDamaged when a version
    cannot be read: then it is not known what it needs.
    """
    needed = {part.path for number in table.numbers() for part in table.version(number).parts}
    receipts = table.receipts.all()
    live = table.receipts.live_runs(resume_s=resume_s)
    needed |= {receipt.part.path for _, receipt in receipts if receipt.run in live}
    oldest = time.time() - grace_s
    removed = [
        path
        for path in (table.folder / "parts").glob("*.parquet")
        if f"parts/{path.name}" not in needed and _is_older(path, oldest)
    ]
    gone = {f"parts/{path.name}" for path in removed}
    removed += [path for path, receipt in receipts if receipt.part.path in gone]
    removed += [path for path in table.folder.rglob(f"{TEMPORARY_PREFIX}*") if _is_older(path, oldest)]
    size = sum(path.stat().st_size for path in removed)
    if not dry_run:
        for path in removed:
            path.unlink(missing_ok=True)
    return Collected(files=tuple(sorted(removed)), bytes=size)


def _is_older(path: Path, oldest: float) -> bool:
    try:
        return path.stat().st_mtime < oldest
    except FileNotFoundError:  # its writer finished meanwhile
        return False
