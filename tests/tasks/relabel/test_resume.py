"""A run that is killed and started again ends with the bytes of a run that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from labelmill.tasks.store import open_store
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
