"""A store in a bucket: the same as in a folder, on a real S3 server."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.verify import verify_version

SCHEMA = pa.schema({"a": pa.int64()})

WRITER = """
import sys, pyarrow as pa
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store
uri, name, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
table = open_store(uri).table("imagenet.things")
lineage = Lineage(
    code="0", flow="same", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
)
sys.stdout.write("ready"); sys.stdout.flush(); sys.stdin.read(1)
for turn in range(turns):
    rows = pa.table({"a": pa.array([turn], pa.int64())})  # the same rows, parts and lineage as the other writer's
    table.append([table.write_part(rows, key=f"{turn:020d}")], schema=rows.schema, metadata={}, lineage=lineage)
"""


@pytest.fixture
def bucket_store(bucket):
    return open_store(f"{bucket.url}/deep/store", create=True)


@pytest.fixture
def bucket_table(bucket_store, add):
    """The same table as `table`, in a bucket."""
    table = bucket_store.table("imagenet.things")
    add(table, 0, 1)
    add(table, 10, 11)
    return table


def test_store_in_a_bucket_has_the_objects_that_a_folder_has_files(bucket, bucket_table, table, files_of, store):
    objects = bucket.keys("deep/store") - {".create-if-absent"}
    assert objects == files_of(store.root)
    for name in objects:
        assert bucket_table.files.read(name.removeprefix("imagenet/things/")) == (store.root / name).read_bytes()


def test_table_in_a_bucket_reads_what_was_written(bucket_store, bucket_table, values):
    assert (bucket_store.tables(), bucket_table.numbers()) == (["imagenet.things"], [1, 2])
    assert values(bucket_table) == [0, 1, 10, 11]
    assert values(bucket_table, 1) == [0, 1]
    assert [v.number for v in open_store(bucket_store.root).versions("imagenet.things")] == [1, 2]
    assert verify_version(bucket_table).problems == ()


@pytest.mark.parametrize("way", ["to a folder", "to the bucket"])
def test_store_copied_between_folder_and_bucket_goes_on(way, bucket, bucket_table, table, tmp_path, add, values):
    if way == "to a folder":
        bucket.download("deep/store", tmp_path / "copy")
        copy = open_store(tmp_path / "copy")
    else:
        copy = open_store(bucket.upload(table.folder.parent.parent, "copy"))
    moved = copy.table("imagenet.things")
    assert values(moved) == [0, 1, 10, 11]
    assert add(moved, 5).number == 3
    assert verify_version(moved).problems == ()
    with copy.connect() as sql:
        assert sql.execute("SELECT sum(a) FROM imagenet.things").fetchone() == (27,)


def test_delete_in_a_bucket_leaves_a_tombstone(bucket_store, bucket_table, add):
    bucket_table.delete(2)
    assert (bucket_table.numbers(), bucket_table.numbers(deleted=True)) == ([1], [2])
    with pytest.raises(NotInStore, match="was deleted"):
        bucket_table.delete(2)
    assert add(bucket_table, 1).number == 3
    for number in (1, 3):
        bucket_table.delete(number)
    assert (bucket_store.tables(), bucket_store.tables(unlisted=True)) == ([], ["imagenet.things"])


@pytest.mark.parametrize("where", ["prefix", "bucket"])
def test_open_store_where_nothing_is_is_refused(bucket, where):
    if where == "prefix":
        with pytest.raises(NotInStore, match=f"{bucket.url}/none: nothing is there"):
            open_store(f"{bucket.url}/none")
        assert bucket.keys("none") == set()
    else:
        with pytest.raises(BadInput, match=r"s3://no-such-bucket-here/x.*: no such bucket"):
            open_store("s3://no-such-bucket-here/x", create=True)


def test_open_store_made_empty_is_there(bucket):
    open_store(f"{bucket.url}/new/", create=True)
    assert open_store(f"{bucket.url}/new").tables() == []
    assert open_store(f"{bucket.url}/new").root == f"{bucket.url}/new"


def test_create_two_writers_of_equal_versions_lose_nothing(bucket_store, values):
    turns = 6
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, bucket_store.root, name, str(turns)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    assert [writer.stdout.read(5) for writer in writers] == [b"ready", b"ready"]
    for writer in writers:
        writer.stdin.write(b"x")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    table = bucket_store.table("imagenet.things")
    assert table.numbers() == list(range(1, 2 * turns + 1))
    assert sorted(values(table)) == sorted([*range(turns), *range(turns)])
    parents = [version.parent for version in table.versions()]
    assert parents == [None, *range(1, 2 * turns)]


def test_create_that_came_second_keeps_the_first(bucket_table, lineage, monkeypatch, values, add):
    part = bucket_table.write_part(pa.table({"a": [7]}), key="seven")
    real, told = bucket_table.latest, []

    def look():
        told.append(1)
        found = real()
        if len(told) == 1:  # another writer commits between our look and our version
            add(open_store(bucket_table.files.store).table("imagenet.things"), 6)
        return found

    monkeypatch.setattr(bucket_table, "latest", look)
    made = bucket_table.append([part], schema=SCHEMA, metadata={}, lineage=lineage)
    assert (made.number, len(told)) == (4, 2)
    assert values(bucket_table) == [0, 1, 10, 11, 6, 7]


@pytest.mark.drill
def test_create_answer_lost_makes_one_version(bucket, bucket_table, lineage, values):
    """The object was written, the answer was an error: the request sent again meets its own object."""
    part = bucket_table.write_part(pa.table({"a": [7]}), key="seven")
    bucket.faults({"method": "PUT", "path": "000003.json", "status": 500, "lost": True, "times": 1})
    assert bucket_table.append([part], schema=SCHEMA, metadata={}, lineage=lineage).number == 3
    assert (bucket_table.numbers(), values(bucket_table)) == ([1, 2, 3], [0, 1, 10, 11, 7])


def test_open_store_back_end_that_ignores_the_condition_is_refused(bucket):
    bucket.faults({"method": "PUT", "ignore_condition": True})
    with pytest.raises(BadInput, match=f"^store {bucket.url}/x: its back end replaces an object .* If-None-Match$"):
        open_store(f"{bucket.url}/x", create=True)
    assert bucket.keys("x") == set()


def test_write_part_to_a_copied_store_on_such_a_back_end_is_refused(bucket, table, lineage):
    copy = open_store(bucket.upload(table.folder.parent.parent, "copy")).table("imagenet.things")
    before = bucket.keys("copy")
    bucket.faults({"method": "PUT", "ignore_condition": True})
    with pytest.raises(BadInput, match="its back end replaces an object"):
        copy.write_part(pa.table({"a": [1]}), key="k")
    with pytest.raises(BadInput, match="its back end replaces an object"):
        copy.delete(1)
    assert bucket.keys("copy") == before


def test_open_store_is_proven_once_in_a_process(bucket, bucket_store, add):
    with bucket.logged() as requests:
        add(open_store(bucket_store.root, create=True).table("imagenet.more"), 1)
    assert not [request for request in requests if ".create-if-absent" in request]


@pytest.mark.parametrize("damage", ["missing", "cut", "unknown", "receipt cut"])
def test_find_part_that_is_not_there_whole_must_be_done_again(bucket, bucket_table, damage):
    part = bucket_table.write_part(pa.table({"a": [50]}), key="shard")
    bucket_table.receipts.write(Receipt(key="shard", run="old", part=part, counts={}))
    if damage == "missing":
        bucket_table.files.remove(part.path)
    elif damage == "cut":
        bucket_table.files.replace(part.path, bucket_table.files.read(part.path)[:-1])
    elif damage == "receipt cut":
        bucket_table.files.replace("receipts/shard.json", b'{"key": "sh')
    assert bucket_table.receipts.find("other" if damage == "unknown" else "shard", run="new") is None


def test_find_asks_for_a_part_without_reading_it(bucket, bucket_table):
    part = bucket_table.write_part(pa.table({"a": [50]}), key="shard")
    bucket_table.receipts.write(Receipt(key="shard", run="old", part=part, counts={"done": 1}))
    with bucket.logged() as requests:
        found = bucket_table.receipts.find("shard", run="new")
    assert (found.part, found.run) == (part, "new")
    assert [receipt.run for _, receipt in bucket_table.receipts.all()] == ["new"]
    of_part = [request.split()[0] for request in requests if part.path in request]
    assert of_part == ["HEAD"]


def test_verify_version_hashes_what_a_bucket_holds(bucket_table):
    path = bucket_table.version().parts[1].path
    data = bucket_table.files.read(path)
    bucket_table.files.replace(path, bytes([data[0] ^ 1]) + data[1:])
    assert verify_version(bucket_table).problems == (f"{path}: content differs from its sha256 (a changed byte)",)
    bucket_table.files.remove(path)
    assert verify_version(bucket_table).problems == (f"{path}: missing",)


def test_commit_part_that_is_gone_is_refused(bucket_table, lineage):
    part = bucket_table.write_part(pa.table({"a": [7]}), key="seven")
    bucket_table.files.remove(part.path)
    with pytest.raises(StoreDamaged, match="1 parts are gone"):
        bucket_table.append([part], schema=SCHEMA, metadata={}, lineage=lineage)
    assert bucket_table.numbers() == [1, 2]
    assert bucket_table.files.names("locks") == []


def test_version_altered_object_is_named(bucket_table):
    altered = json.loads(bucket_table.files.read("versions/000002.json")) | {"rows": 5}
    bucket_table.files.replace("versions/000002.json", json.dumps(altered).encode())
    with pytest.raises(StoreDamaged, match=r"s3://.*/versions/000002\.json: content does not match"):
        bucket_table.version()
