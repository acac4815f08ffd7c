"""Receipts: a rerun finds what is done, and nothing that is not."""

import os
import threading
import time

import pyarrow as pa
import pytest

from labelmill.schemas.errors import StoreDamaged
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.receipts import Receipt


@pytest.fixture
def shard(table):
    """A finished shard of run `old`: its receipt and its part's file."""
    part = table.write_part(pa.table({"a": [50]}), key="shard")
    receipt = Receipt(key="shard", run="old", part=part, counts={"done": 1})
    table.receipts.write(receipt)
    return receipt, table.part_path(part)


def test_find_whole_part_is_found_and_claimed(table, shard, make_old):
    receipt, path = shard
    make_old(table.folder)
    found = table.receipts.find("shard", run="new")
    assert found == receipt.model_copy(update={"run": "new"})
    assert [r.run for _, r in table.receipts.all()] == ["new"]
    assert path.stat().st_mtime > time.time() - 3600


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "receipt cut", "unknown"])
def test_find_part_that_is_not_whole_must_be_done_again(table, shard, damage):
    _, path = shard
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "receipt cut":
        (table.folder / "receipts" / "shard.json").write_bytes(b'{"key": "sh')
    assert table.receipts.find("other" if damage == "unknown" else "shard", run="new") is None
    assert path.exists() == (damage != "missing")  # no empty file in the place of a lost part


def test_find_retry_receipt_must_be_done_again(table, shard):
    receipt, _ = shard
    table.receipts.write(receipt.model_copy(update={"retry": True}))
    assert table.receipts.find("shard", run="new") is None


def test_marks_open_run_is_live_until_closed(table, shard):
    assert table.receipts.marks(resume_s=60)[0] == {"old"}
    table.receipts.close_run("old")
    table.receipts.close_run("old")
    assert table.receipts.marks(resume_s=60) == (set(), [])


def test_find_claim_while_gc_runs_never_ends_in_a_damaged_version(store, lineage, make_old):
    """Each round a claim and a gc meet: the claimed part is either spared, or the claim (or the commit) says no."""
    table = store.table("imagenet.things")
    schema = pa.schema({"a": pa.int64()})
    for turn in range(60):
        part = table.write_part(pa.table({"a": [turn]}), key=f"{turn:016d}")
        table.receipts.write(Receipt(key=f"s{turn}", run="dead", part=part, counts={}))
        table.receipts.close_run("dead")
        make_old(table.part_path(part))
        barrier = threading.Barrier(2)

        def collect(barrier=barrier):
            barrier.wait()
            collect_garbage(table)

        collector = threading.Thread(target=collect)
        collector.start()
        barrier.wait()
        found = table.receipts.find(f"s{turn}", run="new")
        try:
            if found:
                table.replace([found.part], schema=schema, metadata={}, lineage=lineage)
        except StoreDamaged:
            raise AssertionError("a claimed part was removed") from None
        finally:
            collector.join()
        if found:
            assert table.read(table.version(), ["a"])["a"].to_pylist() == [turn]
        else:
            assert not os.path.exists(table.part_path(part))
