"""Receipts of finished shards: what a rerun finds done, and what gc must spare."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from labelmill.schemas.versions import Part
from labelmill.tasks.store.files import hash_file, lock_folder, make_folder, replace_file


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
            if receipt.retry:
                return None
            part = self._table / receipt.part.path
            with lock_folder(self._table, alone=False):
                os.utime(part)  # young again: gc leaves it to this run's commit. Unlike touch, makes no empty file
            if hash_file(part) != receipt.part.sha256:
                return None
        except (FileNotFoundError, ValidationError):
            return None
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
        make_folder(self._runs)
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

    def marks(self, *, resume_s: float) -> tuple[set[str], list[Path]]:
        """Return the runs marked within the last `resume_s` seconds, and the files of older marks."""
        live, old = set(), []
        oldest = time.time() - resume_s
        for path in self._runs.iterdir() if self._runs.is_dir() else ():
            try:
                marked = path.stat().st_mtime
            except FileNotFoundError:  # its run committed meanwhile
                continue
            if marked >= oldest:
                live.add(path.name)
            else:
                old.append(path)
        return live, old
