"""A writer that is killed, and a disk that is full: what a reader sees, and what gc takes away."""

import os
import random
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from labelmill.tasks.store import open_store
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.verify import verify_version

NURSERY = """
import os, random, signal, sys, time
import pyarrow as pa
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt

root, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lineage = Lineage(code="0", flow="t", parameters={}, parameters_digest="", inputs={}, time="", host="")
schema = pa.schema({"a": pa.int64()})

def write(life, turns):
    table = open_store(root).table("imagenet.things")
    for turn in range(turns):
        parts = []
        for n in range(3):
            rows = pa.table({"a": [life * 10**7 + turn * 10 + n] * 100}, schema=schema)
            parts.append(table.write_part(rows, key=f"{life:08d}{n:08d}"))
            table.receipts.write(Receipt(key=f"{life}-{turn}-{n}", run=f"run{life}", part=parts[-1], counts={}))
        table.replace(parts, schema=schema, metadata={}, lineage=lineage)

def start(life, turns):
    child = os.fork()
    if not child:
        write(life, turns)
        os._exit(0)
    return child

began = time.monotonic()
os.waitpid(start(kills, 1), 0)
commit_s = time.monotonic() - began  # a disk may sync in a millisecond or in a tenth of a second

delays = random.Random(seed)
for life in range(kills):
    child = start(life, 1_000_000)
    time.sleep(delays.uniform(0.1, 3) * commit_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def check_latest(table):
    """Read the latest version as a reader would, while others write."""
    version = table.latest()
    if version is None:
        return 0
    assert len(version.parts) == 3
    column = table.read(version, ["a"])["a"].to_pylist()
    assert [column[n * 100] % 10 for n in range(3)] == [0, 1, 2]
    assert len(column) == version.rows == 300
    return version.number


def test_commit_killed_at_many_moments_reader_sees_whole_versions_and_gc_cleans(store, files_of, make_old):
    table = store.table("imagenet.things")
    nursery = subprocess.Popen([sys.executable, "-c", NURSERY, str(store.root), "10", "0"])
    seen = set()
    while nursery.poll() is None:
        seen.add(check_latest(table))
        time.sleep(0.002)
    assert nursery.returncode == 0
    assert len(seen) > 5
    assert table.numbers() == list(range(1, len(table.numbers()) + 1))
    for number in table.numbers():
        assert verify_version(table, number).problems == ()
    listed = {part.path for version in table.versions() for part in version.parts}
    assert files_of(table.folder / "parts") > {path.removeprefix("parts/") for path in listed}  # kills left something
    assert collect_garbage(table).files == ()  # young
    make_old(table.folder)
    collect_garbage(table, resume_s=3600.0)
    left = files_of(table.folder)
    assert {name for name in left if name.startswith("parts/")} == listed
    assert not [name for name in left if ".writing-" in name or name.startswith("runs/")]
    assert {r.part.path for _, r in table.receipts.all()} <= listed
    check_latest(table)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_append_full_disk_says_so_and_damages_no_version(small_disk, add):
    table = open_store(small_disk / "store", create=True).table("imagenet.things")
    noise = random.Random(0)

    def fill():
        while True:
            add(table, *(noise.getrandbits(60) for _ in range(500)))

    with pytest.raises(OSError, match="No space left on device"):
        fill()
    numbers = table.numbers()
    assert len(numbers) > 2
    assert all(verify_version(table, number).problems == () for number in numbers)
    assert not list(table.folder.rglob(".writing-*"))


def test_create_full_disk_at_the_version_file_commits_nothing(small_disk, lineage):
    table = open_store(small_disk / "store", create=True).table("imagenet.things")
    rows = pa.table({"a": [1]})
    part = table.write_part(rows, key="k")
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
    with pytest.raises(OSError, match="No space left on device"):
        table.append([part], schema=rows.schema, metadata={"long": "x" * 10_000}, lineage=lineage)
    assert table.numbers() == []
    (small_disk / "filler").unlink()
    assert table.append([part], schema=rows.schema, metadata={}, lineage=lineage).number == 1
