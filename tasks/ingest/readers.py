"""Processes that read files for an ingest: of small files most is Python's work, of which threads do one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from queue import SimpleQueue

import pyarrow as pa

from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.locations import is_object_url
from labelmill.tasks.ingest.facts import FILES_PER_STEP, FactsRequest, find_facts
from labelmill.tasks.threads import open_threads

_FILES_WORTH_PROCESSES = 8_000
"""A process takes half a second of a core to start, in which a thread reads about as many small files."""


class Readers:
    """What finds facts of files: processes where there are enough files to be worth their start, else threads.

    Zero `workers` are one for each core, in threads four. Give `find_facts` to whatever reads; `expect` may be called
    as soon as it is known how much that will be, so that the processes start meanwhile.
    """

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._readers: list[_Reader] = []
        self._idle = SimpleQueue[_Reader]()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()

    def expect(self, root: str, files: int) -> None:
        """Make ready for so many files below a folder or URL."""
        if self._readers or is_object_url(root) or files < _FILES_WORTH_PROCESSES:
            return
        cores = os.cpu_count() or 1
        for _ in range(min(self._workers or cores, cores)):
            reader = _Reader()
            self._readers.append(reader)
            self._idle.put(reader)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The processes."""
        return [reader.process for reader in self._readers]

    def find_facts(self, request: FactsRequest) -> Iterator[pa.RecordBatch]:
        """Yield the facts of the files, in steps of some files."""
        if not self._readers:
            yield from find_facts(request)
            return
        threads = max(1, self._workers // len(self._readers))
        uris, size = request.uris, FILES_PER_STEP * threads
        steps = (uris[at : at + size] for at in range(0, len(uris), size))
        with open_threads(len(self._readers), name="ingest") as asking:
            yield from asking.map(lambda step: self._ask(replace(request, uris=step, threads=threads)), steps)

    def _ask(self, request: FactsRequest) -> pa.RecordBatch:
        reader = self._idle.get()
        try:
            return reader.ask(request)
        finally:
            self._idle.put(reader)


class _Reader:
    """A process of reader_process.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labelmill.tasks.ingest.reader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        if not (self.process.stdin and self.process.stdout):  # which is what PIPE promises
            raise WorkFailed("source: a process that reads files has no pipes")
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self._stream: pa.RecordBatchStreamReader | None = None

    def ask(self, request: FactsRequest) -> pa.RecordBatch:
        """Return the facts of the files asked for; raise WorkFailed when the process has ended."""
        asked = {field.name: getattr(request, field.name) for field in fields(request)}
        try:
            self._requests.write(json.dumps(asked).encode() + b"\n")
            self._requests.flush()
            if self._stream is None:
                self._stream = pa.ipc.open_stream(self._answers)
            return self._stream.read_next_batch()
        except (OSError, StopIteration, pa.ArrowInvalid) as error:
            raise WorkFailed(
                f"source: a process that reads files ended with code {self.process.wait()} (-9: killed, for example "
                "because memory ran out); run again, or with fewer --workers"
            ) from error

    def close(self) -> None:
        """End the process; it holds nothing, and a read may hold it up."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):  # of a request that nobody read
            self._requests.close()
        self._answers.close()
