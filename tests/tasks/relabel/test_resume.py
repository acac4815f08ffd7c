"""A run that is killed and started again ends with the bytes of a run that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_relabel_killed_at_random_moments_ends_with_the_same_bytes(tmp_path, make_images, ingest, parameters_for):
    source = make_images(tmp_path / "train", {"n01443537": 21, "n01484850": 20})
    runs = {}
    for name in ("unbroken", "killed"):
        ingest(source, tmp_path / name, chunk_size=17)
        runs[name] = parameters_for(tmp_path / name, shard_size=4, batch_size=3).model_dump(mode="json")

    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupted_runs.py")), json.dumps(runs)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3  # runs that were killed before their end
    tables = {name: open_store(tmp_path / name).table("imagenet.label_maps") for name in runs}
    versions = {name: table.version() for name, table in tables.items()}
    assert versions["killed"].parts == versions["unbroken"].parts  # names, rows, bytes and sha256
    assert versions["killed"].number == 1
    assert verify_version(tables["killed"]).problems == ()
    ids = [
        image_id
        for part in versions["killed"].parts
        for image_id in pq.read_table(tables["killed"].part_path(part))["image_id"].to_pylist()
    ]
    images = open_store(tmp_path / "killed").table("imagenet.images")
    assert ids == images.read(images.version(), ["image_id"])["image_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 41
