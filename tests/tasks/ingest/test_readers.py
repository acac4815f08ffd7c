"""Processes that read files: the same facts as threads give, and an end in every case."""

import os
import signal

import pyarrow as pa
import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.ingest import readers
from labelmill.tasks.ingest.facts import FactsRequest, find_facts
from labelmill.tasks.ingest.readers import open_readers


@pytest.fixture
def request_of(write_tree, jpeg):
    """A request for small files, some of them broken or gone, with names that need care in JSON."""
    broken = {"b/empty.jpg": b"", "b/text.png": b"no picture", "b/cut.jpg": jpeg[:300]}
    source = write_tree(*(f"a/{number:03d} é\n.jpg" for number in range(600)), **broken)
    uris = [*sorted(str(path.relative_to(source)) for path in source.rglob("*.*")), "gone.jpg"]
    return FactsRequest(root=str(source), uris=uris, max_pixels=10**6, max_bytes=10**6)


@pytest.fixture
def two_processes(monkeypatch, request_of):
    monkeypatch.setattr(readers, "_FILES_WORTH_PROCESSES", 1)
    with open_readers(request_of.root, files=1000, workers=2) as read:
        yield read


def test_open_readers_few_files_or_a_bucket_are_read_by_threads_of_this_process():
    for root, files in (("/images", 10), ("s3://bucket/images", 10**6)):
        with open_readers(root, files=files, workers=0) as read:
            assert read is find_facts


def test_open_readers_processes_find_what_threads_find_in_the_same_order(two_processes, request_of):
    expected = pa.Table.from_batches(find_facts(request_of))
    assert pa.Table.from_batches(two_processes(request_of)).equals(expected)
    assert pa.Table.from_batches(two_processes(request_of)).equals(expected)  # they go on after an answer
    assert expected["reason"].value_counts().to_pylist()[-1] == {"values": "missing", "counts": 1}
    assert expected.num_rows == 604


def test_open_readers_process_that_is_killed_fails_the_work_with_its_code(two_processes, request_of):
    batches = two_processes(request_of)
    next(batches)
    for process in two_processes.__self__.processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkFailed, match="ended with code -9"):
        list(two_processes(request_of))


def test_open_readers_work_that_ends_early_leaves_no_process(request_of, monkeypatch):
    monkeypatch.setattr(readers, "_FILES_WORTH_PROCESSES", 1)
    started = []

    def work():
        with open_readers(request_of.root, files=1000, workers=1) as read:
            started.extend(read.__self__.processes)
            next(read(request_of))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)
