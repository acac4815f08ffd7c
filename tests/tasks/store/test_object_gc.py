"""Garbage in a bucket: gc and writers have no lock, and yet no version lists a part that is gone."""

import threading
import time

import pyarrow as pa
import pytest

from labelmill.schemas.errors import StoreDamaged, WorkFailed
from labelmill.tasks.store import object_locks, open_store
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.verify import verify_version

ALL_OLD = {"grace_s": -60.0}
"""An object's time cannot be set back: a grace that ends in a minute makes all of them old."""

SCHEMA = pa.schema({"a": pa.int64()})


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(object_locks, "WAIT_STEP_S", 0.02)


@pytest.fixture
def bucket_table(bucket, add):
    table = open_store(f"{bucket.url}/store", create=True).table("imagenet.things")
    add(table, 0, 1)
    add(table, 10, 11)
    return table


@pytest.fixture
def stray(bucket_table):
    """Write a part that no version lists; with `run` also its receipt and the run's mark."""

    def stray(value, run=None):
        part = bucket_table.write_part(pa.table({"a": [value]}), key=f"{value:016d}")
        if run:
            bucket_table.receipts.write(Receipt(key=f"shard{value}", run=run, part=part, counts={}))
        return part

    return stray


def test_collect_garbage_stray_parts_go_and_versions_stay(bucket, bucket_table, stray, values):
    before = bucket.keys("store")
    one, two = stray(1), stray(2, run="finished")
    bucket_table.receipts.close_run("finished")
    assert collect_garbage(bucket_table).files == ()  # young
    said = collect_garbage(bucket_table, **ALL_OLD, dry_run=True)
    assert {one.path, two.path} <= set(said.files) <= {one.path, two.path, "receipts/shard2.json"}
    assert said.bytes >= one.bytes + two.bytes
    collect_garbage(bucket_table, **ALL_OLD)
    assert bucket.keys("store") - {"imagenet/things/receipts/shard2.json"} == before
    assert values(bucket_table) == [0, 1, 10, 11]
    assert collect_garbage(open_store(f"{bucket.url}/store").table("imagenet.none")).files == ()


def test_collect_garbage_live_run_and_claimed_receipt_are_spared(bucket_table, stray):
    part = stray(1, run="killed")
    assert collect_garbage(bucket_table, **ALL_OLD).files == ()
    bucket_table.receipts.close_run("killed")
    assert bucket_table.receipts.find("shard1", run="new")
    assert collect_garbage(bucket_table, **ALL_OLD).files == ()
    assert set(collect_garbage(bucket_table, **ALL_OLD, resume_s=-60).files) >= {part.path, "runs/new"}


def test_collect_garbage_deleted_version_loses_only_what_others_do_not_list(bucket_table, values):
    own = bucket_table.version(2).parts[1].path
    bucket_table.delete(2)
    assert collect_garbage(bucket_table, **ALL_OLD).files == (own,)
    assert values(bucket_table) == [0, 1]
    assert verify_version(bucket_table).problems == ()


def test_collect_garbage_spares_what_a_writer_claims(bucket_table, stray, lineage):
    part = stray(1)
    with bucket_table.files.claim([part.path]):  # a commit, between its look at the parts and its version
        assert collect_garbage(bucket_table, **ALL_OLD).files == ()
    assert collect_garbage(bucket_table, **ALL_OLD).files == (part.path,)
    assert bucket_table.files.names("locks") == []


@pytest.mark.parametrize("step", ["append", "find", "write_part"])
def test_collect_garbage_at_work_keeps_writers_waiting_and_they_see_what_it_did(bucket_table, stray, step, lineage):
    part, ended = stray(1, run="old"), []
    steps = {
        "append": lambda: bucket_table.append([part], schema=SCHEMA, metadata={}, lineage=lineage),
        "find": lambda: bucket_table.receipts.find("shard1", run="new"),
        "write_part": lambda: stray(1),
    }

    def write():
        try:
            ended.append(steps[step]())
        except StoreDamaged as error:
            ended.append(error)

    writer = threading.Thread(target=write)
    with bucket_table.files.sweep() as sweep:  # judged already that the part is not needed
        writer.start()
        while not any(name.startswith("claim-") for name in bucket_table.files.names("locks")):
            time.sleep(0.01)
        sweep.remove([part.path])
        assert ended == []
    writer.join()
    if step == "append":
        assert isinstance(ended[0], StoreDamaged)
    elif step == "find":
        assert ended == [None]
    else:
        assert ended == [part]
    assert bucket_table.files.lacking([part.path]) == ([] if step == "write_part" else [part.path])
    assert verify_version(bucket_table).problems == ()
    assert bucket_table.files.names("locks") == []


@pytest.mark.parametrize("claimed", ["find", "write_part"])
def test_collect_garbage_meeting_a_writer_never_ends_in_a_damaged_version(bucket_table, lineage, claimed):
    """Each round they begin at once: what the writer got is spared, or the writer is told that it must do it again."""
    for turn in range(5):
        rows = pa.table({"a": [turn]})
        part = bucket_table.write_part(rows, key=f"{turn:016d}")
        bucket_table.receipts.write(Receipt(key=f"s{turn}", run="dead", part=part, counts={}))
        bucket_table.receipts.close_run("dead")
        barrier = threading.Barrier(2)

        def collect(barrier=barrier, grace={"find": -60.0, "write_part": 0.5}[claimed]):
            barrier.wait()
            collect_garbage(bucket_table, grace_s=grace)

        collector = threading.Thread(target=collect)
        collector.start()
        barrier.wait()
        if claimed == "find":
            found = bucket_table.receipts.find(f"s{turn}", run="new")
            got = found.part if found else None
        else:
            got = bucket_table.write_part(rows, key=f"{turn:016d}")
            bucket_table.receipts.write(Receipt(key=f"s{turn}", run="new", part=got, counts={}))
        try:
            if got:
                bucket_table.replace([got], schema=SCHEMA, metadata={}, lineage=lineage)
        finally:
            collector.join()
        if got:
            assert bucket_table.read(bucket_table.version(), ["a"])["a"].to_pylist() == [turn]
        bucket_table.receipts.close_run("new")


def test_collect_garbage_of_a_killed_writer_is_not_spared_for_ever(bucket_table, stray, monkeypatch):
    part = stray(1)
    bucket_table.files.replace("locks/claim-dead.json", f'["{part.path}"]'.encode())
    assert collect_garbage(bucket_table, **ALL_OLD).files == ()
    monkeypatch.setattr(object_locks, "CLAIM_LEASE_S", 0.0)
    collected = collect_garbage(bucket_table, **ALL_OLD)
    assert {part.path, "locks/claim-dead.json"} <= set(collected.files)
    assert bucket_table.files.names("locks") == []


def test_write_part_after_a_killed_gc_waits_for_its_lease_only(bucket_table, stray, monkeypatch):
    bucket_table.files.touch("locks/gc-dead")
    monkeypatch.setattr(object_locks, "WAIT_MAX_S", 0.0)
    with pytest.raises(WorkFailed, match="a gc has been at work"):
        stray(1)
    assert bucket_table.files.names("locks") == ["gc-dead"]
    monkeypatch.setattr(object_locks, "GC_LEASE_S", 0.0)
    assert stray(1).rows == 1


@pytest.mark.parametrize("where", ["GC_WORK_S", "renewal"])
def test_collect_garbage_that_was_stopped_too_long_removes_nothing(bucket_table, stray, monkeypatch, where):
    part = stray(1)
    monkeypatch.setattr(object_locks, "GC_WORK_S", -1.0)
    if where == "renewal":
        monkeypatch.setattr(object_locks, "GC_RENEW_S", -1.0)
    with pytest.raises(WorkFailed, match="gc was stopped for more than"):
        collect_garbage(bucket_table, **ALL_OLD)
    assert bucket_table.files.lacking([part.path]) == []
    assert bucket_table.files.names("locks") == []


def test_collect_garbage_shows_itself_again_while_it_removes(bucket, bucket_table, stray, monkeypatch):
    for value in range(3):
        stray(value)
    monkeypatch.setattr(object_locks, "GC_RENEW_S", -1.0)
    monkeypatch.setattr(object_locks, "REMOVED_AT_ONCE", 1)
    with bucket.logged() as requests:
        assert len(collect_garbage(bucket_table, **ALL_OLD).files) == 3
    shown = [request for request in requests if request.startswith("PUT") and "/locks/gc-" in request]
    assert len(shown) == 1 + 3


def test_claim_that_cannot_be_taken_away_does_not_undo_the_work(bucket, bucket_table, add, caplog):
    bucket.faults({"method": "DELETE", "path": "/locks/claim-", "status": 503})
    assert add(bucket_table, 5).number == 3
    assert "is left behind" in caplog.text
