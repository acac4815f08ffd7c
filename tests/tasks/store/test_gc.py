"""Garbage: what is removed, and above all what is spared."""

import threading
import time

import pyarrow as pa
import pytest

from labelmill.schemas.errors import StoreDamaged
from labelmill.tasks.store.files import lock_folder
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.verify import verify_version


def names(collected):
    return sorted(path.rpartition("/")[2] for path in collected.files)


@pytest.fixture
def stray(table):
    """Write a part that no version lists; with `run` also its receipt and the run's mark."""

    def stray(value, run=None):
        part = table.write_part(pa.table({"a": [value]}), key=f"{value:016d}")
        if run:
            table.receipts.write(Receipt(key=f"shard{value}", run=run, part=part, counts={}))
        return table.part_path(part)

    return stray


def test_collect_garbage_old_stray_files_go_and_versions_stay(table, stray, make_old, files_of, values):
    kept = files_of(table.folder)
    part, receipted = stray(1), stray(2, run="finished")
    table.receipts.close_run("finished")
    temporaries = [table.folder / place / ".writing-1-x" for place in ("parts", "versions", "receipts")]
    for path in temporaries:
        path.write_bytes(b"half")
    make_old(table.folder)
    collected = collect_garbage(table)
    expected = [part.name, receipted.name, "shard2.json", *(p.name for p in temporaries)]
    assert names(collected) == sorted(expected)
    assert collected.bytes > 12
    assert files_of(table.folder) == kept
    assert values(table) == [0, 1, 10, 11]
    assert collect_garbage(table).files == ()


def test_collect_garbage_young_files_are_spared(table, stray, files_of):
    stray(1)
    (table.folder / "parts" / ".writing-1-x").write_bytes(b"half")
    before = files_of(table.folder)
    assert collect_garbage(table).files == ()
    assert files_of(table.folder) == before


def test_collect_garbage_live_run_is_spared_until_it_is_too_old_to_resume(table, stray, make_old):
    part = stray(1, run="killed")
    make_old(table.folder)
    assert collect_garbage(table).files == ()
    assert part.exists()
    assert names(collect_garbage(table, resume_s=3600)) == sorted([part.name, "shard1.json", "killed"])


def test_collect_garbage_dry_run_removes_nothing_and_says_the_same(table, stray, make_old, files_of):
    stray(1, run="finished")
    table.receipts.close_run("finished")
    make_old(table.folder)
    before = files_of(table.folder)
    said = collect_garbage(table, dry_run=True)
    assert len(said.files) == 2
    assert files_of(table.folder) == before
    assert collect_garbage(table) == said


def test_collect_garbage_deleted_version_loses_only_what_others_do_not_list(table, make_old, values):
    own = table.part_path(table.version(2).parts[1])
    table.delete(2)
    make_old(table.folder)
    assert names(collect_garbage(table)) == [own.name]
    assert values(table) == [0, 1]
    assert verify_version(table).problems == ()
    assert table.numbers(deleted=True) == [2]  # the tombstone stays: its number is never used again


def test_collect_garbage_receipt_of_a_lost_part_goes(table, stray):
    stray(1, run="live").unlink()
    time.sleep(0.01)
    assert names(collect_garbage(table)) == ["shard1.json"]


def test_collect_garbage_claimed_receipt_is_spared(table, stray, make_old):
    part = stray(1, run="finished")
    table.receipts.close_run("finished")
    make_old(table.folder)
    assert table.receipts.find("shard1", run="new")
    assert collect_garbage(table).files == ()
    make_old(part)  # a run that takes longer than the grace is live still
    assert collect_garbage(table).files == ()


def test_collect_garbage_damaged_version_stops_it(table, stray, make_old, files_of):
    stray(1)
    make_old(table.folder)
    (table.folder / "versions" / "000001.json").write_bytes(b"{}")
    before = files_of(table.folder)
    with pytest.raises(StoreDamaged, match=r"000001\.json"):
        collect_garbage(table)
    assert files_of(table.folder) == before


def test_collect_garbage_foreign_files_are_left(table, make_old):
    notes = [table.folder / "notes.txt", table.folder / "parts" / "notes.txt"]
    for path in notes:
        path.write_text("mine")
    make_old(table.folder)
    collect_garbage(table)
    assert all(path.exists() for path in notes)


def test_collect_garbage_table_that_does_not_exist_is_empty(store):
    assert collect_garbage(store.table("imagenet.none")).files == ()
    assert list(store.root.iterdir()) == []


def test_collect_garbage_waits_for_a_commit_and_spares_its_parts(table, make_old, lineage):
    part = table.write_part(pa.table({"a": [1]}), key="k")
    make_old(table.folder)
    collector = threading.Thread(target=collect_garbage, args=[table])
    with lock_folder(table.folder, alone=False):  # a commit holds it so, from its look at the parts to its version
        collector.start()
        collector.join(0.2)
        assert collector.is_alive()
        table.append([part], schema=pa.schema({"a": pa.int64()}), metadata={}, lineage=lineage)
    collector.join()
    assert verify_version(table).problems == ()


@pytest.mark.parametrize("step", ["append", "find", "write_part"])
def test_collect_garbage_writers_wait_for_it(table, stray, step, lineage):
    stray(1, run="old")
    part = table.version().parts[0]
    schema = pa.schema({"a": pa.int64()})
    steps = {
        "append": lambda: table.append([part], schema=schema, metadata={}, lineage=lineage),
        "find": lambda: table.receipts.find("shard1", run="new"),
        "write_part": lambda: table.write_part(pa.table({"a": [1]}), key="k"),
    }
    writer = threading.Thread(target=steps[step])
    with lock_folder(table.folder, alone=True):
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
    writer.join(10)
    assert not writer.is_alive()
