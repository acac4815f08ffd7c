"""Processes that read files: the same facts as threads give, and an end in every case."""

import os
import signal
from dataclasses import replace

import pyarrow as pa
import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.images.inspect_image import inspect_image
from labelmill.tasks.ingest import readers
from labelmill.tasks.ingest.facts import FactsRequest, find_facts
from labelmill.tasks.ingest.readers import Readers


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
    with Readers(workers=2) as opened:
        opened.expect(request_of.root, 1000)
        opened.expect(request_of.root, 1000)  # again: they are there
        yield opened


def test_readers_few_files_or_a_bucket_are_read_by_threads_of_this_process(request_of):
    with Readers(workers=0) as opened:
        opened.expect("/images", 10)
        opened.expect("s3://bucket/images", 10**6)
        assert opened.processes == []
        assert pa.Table.from_batches(opened.find_facts(request_of)).num_rows == 604


def test_readers_processes_find_what_threads_find_in_the_same_order(two_processes, request_of):
    expected = pa.Table.from_batches(find_facts(request_of))
    assert len(two_processes.processes) == min(2, os.cpu_count())
    assert pa.Table.from_batches(two_processes.find_facts(request_of)).equals(expected)
    assert pa.Table.from_batches(two_processes.find_facts(request_of)).equals(expected)  # they go on after an answer
    assert expected["reason"].value_counts().to_pylist()[-1] == {"values": "missing", "counts": 1}


def test_readers_process_that_is_killed_fails_the_work_with_its_code(two_processes, request_of):
    next(two_processes.find_facts(request_of))
    for process in two_processes.processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkFailed, match="ended with code -9"):
        list(two_processes.find_facts(request_of))


def test_readers_work_that_ends_early_leaves_no_process(request_of, monkeypatch):
    monkeypatch.setattr(readers, "_FILES_WORTH_PROCESSES", 1)
    started = []

    def work():
        with Readers(workers=1) as opened:
            opened.expect(request_of.root, 1000)
            started.extend(opened.processes)
            next(opened.find_facts(request_of))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_find_facts_of_plain_and_other_files_together_are_those_of_each_one(request_of):
    found = pa.Table.from_batches(find_facts(request_of)).to_pylist()
    limits = {"max_pixels": request_of.max_pixels, "max_bytes": request_of.max_bytes}
    expected = [inspect_image(f"{request_of.root}/{uri}", **limits) for uri in request_of.uris]
    assert found == [one._asdict() for one in expected]


def test_find_facts_bounds_the_pixels_of_plain_files(request_of):
    found = pa.Table.from_batches(find_facts(replace(request_of, max_pixels=40 * 30 - 1)))
    assert found["reason"].to_pylist().count("too_many_pixels") == 600
