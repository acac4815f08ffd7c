"""Receipts of finished shards: what a rerun finds done, and what gc must spare."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict, ValidationError

from labelmill.schemas.versions import Part
from labelmill.tasks.store.place import FileFacts, Files

_RECEIPTS, _RUNS = "receipts", "runs"


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
    """The receipts and run marks of one table, in its `receipts/` and `runs/`."""

    def __init__(self, table_files: Files) -> None:
        self._files = table_files

    def find(self, key: str, *, run: str, with_retried: bool = False) -> Receipt | None:
        """Return the receipt of a shard whose part is still whole, now claimed by `run`; None when it must be done.

        `with_retried` takes what this very run has done as it is, also where a rerun would try again.
        """
        try:
            receipt = Receipt.model_validate_json(self._files.read(_file_of(key)))
        except (FileNotFoundError, ValidationError):
            return None
        if receipt.retry and not (with_retried and receipt.run == run):
            return None
        part = receipt.part
        with self._files.claim([part.path]):  # until the receipt is this run's, which gc then spares
            if not self._files.refresh(part.path, size=part.bytes, sha256=part.sha256):
                return None
            if receipt.run != run:
                receipt = receipt.model_copy(update={"run": run})
                self.write(receipt)
        return receipt

    def write(self, receipt: Receipt) -> None:
        """Record a finished shard; its part must be durable already."""
        self._files.replace(_file_of(receipt.key), receipt.model_dump_json().encode())
        self.open_run(receipt.run)

    def drop(self, key: str) -> None:
        """Remove a receipt and its part, which no version lists: a later one has taken its place."""
        try:
            receipt = Receipt.model_validate_json(self._files.read(_file_of(key)))
        except (FileNotFoundError, ValidationError):
            return
        self._files.remove(_file_of(key))
        self._files.remove(receipt.part.path)

    def open_run(self, run: str) -> None:
        """Mark a run as live now: gc spares what its receipts name."""
        self._files.touch(f"{_RUNS}/{run}")

    def close_run(self, run: str) -> None:
        """Take the mark away once a version lists the run's parts."""
        self._files.remove(f"{_RUNS}/{run}")

    def all(self) -> list[tuple[str, Receipt]]:
        """Return every readable receipt with the path of its file."""
        found = []
        paths = [f"{_RECEIPTS}/{name}" for name in sorted(self._files.names(_RECEIPTS))]
        for path, data in self._files.read_all([path for path in paths if path.endswith(".json")]):
            try:
                found.append((path, Receipt.model_validate_json(data)))
            except ValidationError:  # cut by a crash: not a receipt
                continue
        return found

    def marks(self, *, resume_s: float, now: float | None = None) -> tuple[set[str], list[FileFacts]]:
        """Return the runs marked within the last `resume_s` seconds, and the files of older marks.

        `now` is the time by the clock of the place that holds the table, this machine's by default.
        """
        oldest = (time.time() if now is None else now) - resume_s
        marks = self._files.files_in(_RUNS)
        live = {mark.path.rpartition("/")[2] for mark in marks if mark.changed >= oldest}
        return live, [mark for mark in marks if mark.changed < oldest]


def _file_of(key: str) -> str:
    return f"{_RECEIPTS}/{key}.json"
