"""Receipts of finished shards: what a rerun finds done, and what gc must spare."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from labelmill.schemas.versions import Part
from labelmill.tasks.store.files import hash_file, replace_file


class Receipt(BaseModel):
    """A shard's part and counts. `key` is a digest of all that decides the part's bytes.

    `retry` says that some rows failed for a reason that lies in the machine: a rerun does the shard again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    run: str
    part: Part
    counts: dict[str, int]
    retry: bool = False


class Receipts:
    """The receipts and run marks of one table, in its folder's `receipts/` and `runs/`."""

    def __init__(self, table_folder: Path) -> None:
        self._table = table_folder
        self._receipts = table_folder / "receipts"
        self._runs = table_folder / "runs"

    def find(self, key: str, *, run: str) -> Receipt | None:
        """Return the receipt of a shard whose part is still whole, now claimed by `run`; None when it must be done."""
        path = self._receipts / f"{key}.json"
        try:
            receipt = Receipt.model_validate_json(path.read_bytes())
            part = self._table / receipt.part.path
            whole = not receipt.retry and hash_file(part) == receipt.part.sha256
        except (FileNotFoundError, ValidationError):
            return None
        if not whole:
            return None
        part.touch()  # young again: gc leaves it to this run's commit
        if receipt.run != run:
            receipt = receipt.model_copy(update={"run": run})
            self.write(receipt)
        return receipt

    def write(self, receipt: Receipt) -> None:
        """Record a finished shard; its part must be durable already."""
        replace_file(self._receipts / f"{receipt.key}.json", receipt.model_dump_json().encode())
        self.open_run(receipt.run)

    def open_run(self, run: str) -> None:
        """Mark a run as live now: gc spares what its receipts name."""
        self._runs.mkdir(parents=True, exist_ok=True)
        (self._runs / run).touch()

    def close_run(self, run: str) -> None:
        """Take the mark away once a version lists the run's parts."""
        (self._runs / run).unlink(missing_ok=True)

    def all(self) -> list[tuple[Path, Receipt]]:
        """Return every readable receipt with its file."""
        found = []
        for path in sorted(self._receipts.glob("*.json")):
            try:
                found.append((path, Receipt.model_validate_json(path.read_bytes())))
            except (FileNotFoundError, ValidationError):  # removed meanwhile, or cut by a crash: not a receipt
                continue
        return found

    def live_runs(self, *, resume_s: float) -> set[str]:
        """Return the runs that were marked within the last `resume_s` seconds."""
        if not self._runs.is_dir():
            return set()
        oldest = time.time() - resume_s
        with os.scandir(self._runs) as entries:
            return {e.name for e in entries if e.stat().st_mtime >= oldest}
