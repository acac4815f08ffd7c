"""Shards and their keys: what decides a result is in the key, and nothing else is."""

from dataclasses import replace

import pyarrow as pa
import pytest

from labelmill.schemas.images import Reason
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.relabel.shards import _content, label_shard, plan_shards
from labelmill.tasks.store import open_store

COMMON = {"teacher": "d1", "settings": {"top_k": 5}, "temperature": 1.5}
LABELS = (3, 4)


@pytest.fixture
def keys(imagenet):
    """Return the keys of the shards of an images version, with some of what decides them replaced."""

    def find(version=None, *, split=None, shard_size=4, teacher_labels=LABELS, **common):
        images = open_store(imagenet[1]).table("imagenet.images")
        shards = plan_shards(
            images,
            images.version(version),
            split=split,
            shard_size=shard_size,
            common={**COMMON, **common},
            teacher_labels=teacher_labels,
        )
        return [shard.key for shard in shards]

    return find


def test_plan_shards_cover_every_row_once_and_never_cross_a_part(imagenet):
    images = open_store(imagenet[1]).table("imagenet.images")
    version = images.version()
    shards = list(plan_shards(images, version, split=None, shard_size=4, common=COMMON, teacher_labels=LABELS))
    assert [part.rows for part in version.parts] == [13, 8]
    assert [(s.number, version.parts.index(s.part), s.start, s.stop) for s in shards] == [
        (0, 0, 0, 4), (1, 0, 4, 8), (2, 0, 8, 12), (3, 0, 12, 13), (4, 1, 0, 4), (5, 1, 4, 8),
    ]  # fmt: skip
    assert len({s.key for s in shards}) == 6


def test_plan_shards_of_appended_images_keep_the_keys_of_older_shards(imagenet, make_images, ingest, keys):
    source, store = imagenet
    before = keys()
    make_images(source, {"n01484850": 5}, first=50)
    version = ingest(source, store, chunk_size=13)
    assert version.number == 2
    assert keys()[: len(before)] == before
    assert len(keys()) == len(before) + 2
    assert keys(1) == before


def test_plan_shards_of_a_changed_image_change_its_shard_alone(imagenet, make_images, ingest, keys):
    source, store = imagenet
    before = keys()
    file = source / "n01443537" / "n01443537_0.JPEG"  # the first row
    file.write_bytes((source / "n01484850" / "n01484850_1.JPEG").read_bytes())
    ingest(source, store, chunk_size=13)
    after = keys()
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, True, True, True, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"teacher": "d2"}, [True] * 6, id="teacher"),
        pytest.param({"settings": {"top_k": 4}}, [True] * 6, id="top_k"),
        pytest.param({"temperature": 1.6}, [True] * 6, id="temperature"),
        pytest.param({"teacher_labels": (3, 5)}, [False, False, True, True, True, True], id="label mapping"),
        pytest.param({"teacher_labels": (3, None)}, [False, False, True, True, True, True], id="label not matched"),
    ],
)
def test_plan_shards_key_depends_on(keys, change, expected):
    assert [a != b for a, b in zip(keys(), keys(**change), strict=True)] == expected


@pytest.mark.parametrize(
    ("option", "same"),
    [
        pytest.param({"workers": 1}, True, id="workers"),
        pytest.param({"image_root": "{source}"}, True, id="image_root"),
        pytest.param({"top_k": 4}, False, id="top_k"),
        pytest.param({"batch_size": 2}, False, id="batch_size"),
        pytest.param({"input_size": "64x64"}, False, id="input_size"),
        pytest.param({"max_pixels": 5_000_000}, False, id="max_pixels"),
        pytest.param({"classes": "none"}, False, id="class list"),
    ],
)
def test_prepare_run_shard_keys_depend_on(imagenet, parameters_for, option, same):
    option = {name: str(value).format(source=imagenet[0]) for name, value in option.items()}
    plain = prepare_run(parameters_for(imagenet[1]))
    other = prepare_run(parameters_for(imagenet[1], **option))
    assert ([s.key for s in plain.shards] == [s.key for s in other.shards]) is same


def test_plan_shards_of_one_split_have_its_rows_alone(imagenet, make_images, ingest, keys, parameters_for, tmp_path):
    train = keys()
    make_images(tmp_path / "val", {"n01443537": 5}, first=70)
    ingest(tmp_path / "val", imagenet[1], split="val")
    assert keys(split="train") == train
    assert keys() == train + keys(split="val")
    prepared = prepare_run(parameters_for(imagenet[1], split="val"))
    receipts = [label_shard(prepared.job, shard) for shard in prepared.shards]
    rows = prepared.job.label_maps.read_part(receipts[0].part, ["image_id", "split"]).to_pylist()
    assert prepared.images == len(rows) == 5
    assert {row["split"] for row in rows} == {"val"}


@pytest.mark.parametrize("shard_size", [1, 4, 13, 100])
def test_label_shard_every_image_is_labelled_none_twice_in_order(imagenet, parameters_for, shard_size):
    """Catches a shard whose last batch is dropped, and one that spans a batch's edge."""
    prepared = prepare_run(parameters_for(imagenet[1], shard_size=shard_size, batch_size=3))
    told = []
    receipts = [label_shard(prepared.job, s, on_batch=lambda *counts: told.append(counts)) for s in prepared.shards]
    rows = [row for r in receipts for row in prepared.job.label_maps.read_part(r.part).to_pylist()]
    wanted = prepared.job.images.read(prepared.images_version, ["image_id"])["image_id"].to_pylist()
    assert [row["image_id"] for row in rows] == wanted
    assert all(row["status"] == "done" and len(row["index"]) == 2 * 3 * 3 for row in rows)
    assert len({(*row["top"], *row["drops"]) for row in rows}) == len(wanted)  # each has its own map
    assert sum(images for images, _ in told) == len(wanted)


def test_label_shard_counts_and_carries_over_what_ingest_rejected(tmp_path, make_images, ingest, parameters_for):
    source = make_images(tmp_path / "train", {"n01443537": 4})
    (source / "n01443537" / "n01443537_1.JPEG").write_bytes(b"")
    (source / "n01443537" / "n01443537_2.JPEG").write_bytes(b"no picture")
    ingest(source, tmp_path / "store")
    prepared = prepare_run(parameters_for(tmp_path / "store"))
    told = []
    receipt = label_shard(prepared.job, prepared.shards[0], on_batch=lambda *counts: told.append(counts))
    rows = prepared.job.label_maps.read_part(receipt.part).to_pylist()
    assert [row["reason"] for row in rows] == [None, "empty", "not_an_image", None]
    assert [row["status"] for row in rows] == ["done", "rejected", "rejected", "done"]
    assert rows[2]["detail"] == "starts with b'no picture'"
    assert all(rows[1][name] is None for name in ("pooled_class", "pooled_prob", "classes", "index", "top", "rest"))
    assert rows[1]["label"] == rows[0]["label"] is not None
    assert (receipt.counts, receipt.retry) == ({"done": 2, "rejected": 2}, False)
    assert (sum(i for i, _ in told), sum(r for _, r in told)) == (4, 2)


@pytest.mark.parametrize(
    ("spoil", "reason", "retry"),
    [
        pytest.param(lambda path: path.unlink(), Reason.MISSING, True, id="missing"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("gone")), Reason.BROKEN_LINK, True, id="link"),
        pytest.param(lambda path: path.write_bytes(b"other"), Reason.CHANGED, True, id="changed"),
    ],
)
def test_label_shard_rejects_that_lie_in_the_machine_ask_for_a_retry(imagenet, parameters_for, spoil, reason, retry):
    prepared = prepare_run(parameters_for(imagenet[1]))
    spoil(imagenet[0] / "n01443537" / "n01443537_0.JPEG")
    receipt = label_shard(prepared.job, prepared.shards[0])
    rows = prepared.job.label_maps.read_part(receipt.part, ["reason"])["reason"].to_pylist()
    assert rows == [reason] + [None] * 7
    assert receipt.retry is retry
    assert (prepared.job.label_maps.receipts.find(receipt.key, run=prepared.job.run) is None) is retry


def test_label_shard_rejects_that_lie_in_the_image_are_final(imagenet, parameters_for):
    prepared = prepare_run(parameters_for(imagenet[1]))
    settings = replace(prepared.job.settings, max_pixels=10)
    job = replace(prepared.job, engine=CpuEngine(prepared.job.teacher, settings, workers=2))
    receipt = label_shard(job, prepared.shards[0])
    assert (receipt.counts, receipt.retry) == ({"done": 0, "rejected": 8}, False)


def test_plan_shards_of_rows_without_digests_depend_on_place_length_and_time():
    rows = pa.table({
        "image_id": ["a"], "split": ["train"], "sha256": pa.array([None], pa.string()), "status": ["done"],
        "reason": pa.array([None], pa.string()), "detail": pa.array([None], pa.string()),
        "label": pa.array([None], pa.int32()), "uri": ["x//lmdb:00"], "bytes": [7], "mtime_ns": [1],
    })  # fmt: skip
    other = {"uri": ["y//lmdb:00"], "bytes": [8], "mtime_ns": [2]}
    changed = [rows.set_column(rows.schema.names.index(name), name, [value]) for name, value in other.items()]
    contents = [str(_content(table, ())) for table in (rows, *changed)]
    assert len(set(contents)) == 4
    with_digests = [table.set_column(2, "sha256", pa.array(["d" * 64])) for table in (rows, *changed)]
    assert len({str(_content(table, ())) for table in with_digests}) == 1
