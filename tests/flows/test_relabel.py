"""The relabel flow with an engine that wants several shards at once: receipts in order, failures by name."""

import re
from pathlib import Path

import pytest

from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


@pytest.fixture
def run(tmp_path, make_images, ingest, tiny_teacher, run_cli):
    """Relabel 40 images in ten shards; return the store, exit code, output and errors."""
    store = tmp_path / "store"
    ingest(make_images(tmp_path / "train", {"n01443537": 20, "n01484850": 20}), store)

    def to_end(**environment):
        options = {
            "store": store, "dataset": "imagenet", "teacher": tiny_teacher.name, "weights": tiny_teacher.weights,
            "classes": tiny_teacher.classes, "input-size": "64x96", "shard-size": 4, "batch-size": 2, "workers": 2,
            "calibration-images": 8,
        }  # fmt: skip
        written = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        program = (Path(__file__).with_name("relabel_on_threads.py"), "relabel")
        return store, *run_cli(*written, program=program, changes=environment)

    return to_end


@pytest.mark.prefect
def test_relabel_several_shards_at_once_keeps_the_order_of_rows(run):
    store, code, out, err = run()
    assert code == 0, err
    assert int(re.search(r"most shards at once: (\d+)", err)[1]) in (2, 3)
    assert err.count("40 of 40 images") == 1
    assert dict(re.findall(r"^ +(\S.*?)  +(.*)$", out, re.MULTILINE))["done"] == "40"
    opened = open_store(store)
    maps, images = opened.table("imagenet.label_maps"), opened.table("imagenet.images")
    assert verify_version(maps).problems == ()
    ids = [images.read(images.version(), ["image_id"])["image_id"].to_pylist(), []]
    version = maps.version()
    ids[1] = maps.read(version, ["image_id"])["image_id"].to_pylist()
    assert ids[1] == ids[0]
    assert [part.rows for part in version.parts] == [4] * 10


@pytest.mark.drill
@pytest.mark.prefect
def test_relabel_a_failing_shard_among_several_is_named_and_the_others_are_kept(run, receipts):
    store, code, out, err = run(LABELMILL_TEST_BREAK="3")
    assert (code, out) == (1, "")
    assert "labelmill: error: shard 3: no space left on device" in err
    assert "Traceback" not in err
    table = open_store(store).table("imagenet.label_maps")
    assert table.latest() is None
    assert 3 <= len(receipts(store)) <= 5
