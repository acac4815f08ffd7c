"""A run that is killed and started again ends with the bytes of a run that was not."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from labelmill.tasks import lineage
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.verify import verify_version


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.drill)])
def test_relabel_killed_at_random_moments_ends_with_the_same_bytes(
    tmp_path, make_images, ingest, parameters_for, place, request
):
    """In the bucket's case the unbroken run has a folder: a store's bytes are the same in both."""
    source = make_images(tmp_path / "train", {"n01443537": 21, "n01484850": 20})
    killed = tmp_path / "killed" if place == "folder" else f"{request.getfixturevalue('bucket').url}/killed"
    stores = {"unbroken": tmp_path / "unbroken", "killed": killed}
    runs = {}
    for name, store in stores.items():
        ingest(source, store, chunk_size=17)
        runs[name] = parameters_for(store, shard_size=4, batch_size=3).model_dump(mode="json")

    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupted_runs.py")), json.dumps(runs)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3  # runs that were killed before their end
    tables = {name: open_store(store).table("imagenet.label_maps") for name, store in stores.items()}
    versions = {name: table.version() for name, table in tables.items()}
    assert versions["killed"].parts == versions["unbroken"].parts  # names, rows, bytes and sha256
    assert versions["killed"].number == 1
    assert verify_version(tables["killed"]).problems == ()
    ids = [
        image_id
        for part in versions["killed"].parts
        for image_id in tables["killed"].read_part(part, ["image_id"])["image_id"].to_pylist()
    ]
    images = open_store(killed).table("imagenet.images")
    assert ids == images.read(images.version(), ["image_id"])["image_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 41


@pytest.fixture
def begun(imagenet, parameters_for, relabel, tmp_path):
    """A store with three of six shards labelled, and the parts of an unbroken run in a copy of it."""
    store = imagenet[1]
    shutil.copytree(store, tmp_path / "unbroken")
    parts = relabel(tmp_path / "unbroken", shard_size=4).parts
    run = prepare_run(parameters_for(store, shard_size=4))
    with closing(run.job.engine):
        receipts = [label_shard(run.job, shard) for shard in run.shards[:3]]
    return open_store(store), [receipt.part for receipt in receipts], parts


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_relabel_part_damaged_between_two_shards_is_made_again(begun, relabel, damage):
    store, made, unbroken = begun
    table = store.table("imagenet.label_maps")
    path = table.part_path(made[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-9])
    if damage == "gone":
        path.unlink()
    assert relabel(store.root, shard_size=4).parts == unbroken
    assert verify_version(table).problems == ()


def test_relabel_after_the_clock_was_set_back_ends_with_the_same_bytes(begun, imagenet, relabel, ingest):
    """All that was written before has times of a month ahead."""
    store, _, unbroken = begun
    ahead = time.time() + 30 * 86_400
    for path in store.root.rglob("*"):
        os.utime(path, (ahead, ahead))
    table = store.table("imagenet.label_maps")
    collect_garbage(table)
    found = [receipt.part for _, receipt in table.receipts.all()]
    assert len(found) == 3
    assert table.files.lacking(part.path for part in found) == []
    assert relabel(store.root, shard_size=4).parts == unbroken
    assert ingest(imagenet[0], store.root, chunk_size=13).number == 1  # nothing has changed
    collect_garbage(table)
    assert verify_version(table).problems == ()


def test_relabel_version_made_after_the_clock_was_set_back_is_the_latest(imagenet, relabel, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2001, 1, 1, tzinfo=tz)

    first = relabel(imagenet[1])
    monkeypatch.setattr(lineage, "datetime", Clock)
    second = relabel(imagenet[1], top_k=2)
    assert second.lineage.time < first.lineage.time
    table = open_store(imagenet[1]).table("imagenet.label_maps")
    assert (second.number, second.parent) == (2, 1)
    assert table.version() == second
