"""Images and a store in a bucket, from ingest to training: the same as in folders."""

import hashlib
import json
import threading

import pytest
import torch

from labelmill.schemas.errors import BadInput, StoreDamaged, WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestFolderParameters, IngestImagenetParameters
from labelmill.tasks.images import read_ingested
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.job import ingest_chunk, prepare_imagenet
from labelmill.tasks.ingest.sources import list_source
from labelmill.tasks.preflight import check_parameters
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.relabel import load
from labelmill.tasks.relabel.reinfer import reinfer_version
from labelmill.tasks.report.page import build_page
from labelmill.tasks.store import open_store
from labelmill.tasks.store.gc import collect_garbage
from labelmill.tasks.store.verify import verify_version

BROKEN = {
    "n01443537/cut.JPEG": lambda whole: whole[:300],
    "n01443537/empty.JPEG": lambda whole: b"",
    "n01443537/text.JPEG": lambda whole: b"no image",
    "n01484850/large.JPEG": lambda whole: whole + bytes(60_000),
    "n01484850/ä #%41+ .JPEG": lambda whole: whole,
    "stray.JPEG": lambda whole: whole,
}
MAX_BYTES = 50_000


@pytest.fixture
def source(tmp_path, make_images):
    source = make_images(tmp_path / "train", {"n01443537": 6, "n01484850": 7})
    whole = (source / "n01443537/n01443537_0.JPEG").read_bytes()
    for name, change in BROKEN.items():
        (source / name).write_bytes(change(whole))
    return source


@pytest.fixture
def places(source, bucket, tmp_path):
    """Each place's (source, store)."""
    return {
        "folder": (source, tmp_path / "store"),
        "bucket": (bucket.upload(source, "images/train"), f"{bucket.url}/store"),
    }


def rows_of(store):
    table = open_store(store).table("imagenet.images")
    names = [name for name in IMAGES_SCHEMA.names if name != "mtime_ns"]
    return table.read(table.version(), names).to_pylist()


def test_bucket_gives_the_rows_parts_and_labels_that_a_folder_gives(places, bucket, ingest, relabel):
    versions = {}
    for name, (source, store) in places.items():
        ingest(source, store, chunk_size=8, max_bytes=MAX_BYTES)
        versions[name] = relabel(store)
    rows = {name: rows_of(store) for name, (_, store) in places.items()}
    assert rows["bucket"] == rows["folder"]
    reasons = {row["image_id"]: row["reason"] for row in rows["bucket"] if row["reason"]}
    assert reasons == {
        "n01443537/cut.JPEG": "truncated", "n01443537/empty.JPEG": "empty", "n01443537/text.JPEG": "not_an_image",
        "n01484850/large.JPEG": "too_many_bytes", "stray.JPEG": "no_label",
    }  # fmt: skip
    assert versions["bucket"].parts == versions["folder"].parts  # names, rows, bytes and sha256
    assert versions["bucket"].metadata == versions["folder"].metadata
    assert versions["bucket"].lineage.parameters["store"] == places["bucket"][1]

    stores = {name: open_store(store) for name, (_, store) in places.items()}
    answers, pooled = {}, {}
    for name, store in stores.items():
        with store.connect() as sql:
            answers[name] = sql.execute(
                "SELECT c.image_id, class_id, cells, i.sha256 FROM imagenet.label_classes c JOIN imagenet.images i "
                "USING (image_id) ORDER BY ALL"
            ).fetchall()
        maps = LabelMaps(store, "imagenet.label_maps")
        done = maps.has_map(torch.arange(len(maps))).nonzero()[:, 0]
        pooled[name] = maps.pool(done, torch.tensor([[0.1, 0.2, 0.9, 0.8]]).expand(len(done), 4))
    assert answers["bucket"] == answers["folder"] != []
    assert torch.equal(pooled["bucket"], pooled["folder"])

    bucket_store = stores["bucket"]
    for table in ("imagenet.images", "imagenet.label_maps"):
        assert verify_version(bucket_store.table(table)).problems == ()
        before = bucket.keys("store")
        collect_garbage(bucket_store.table(table), grace_s=-60.0, resume_s=-60.0)
        assert bucket.keys("store") == before
    assert reinfer_version(bucket_store, "imagenet.label_maps", count=4, workers=1).problems == ()
    assert "no photo" not in build_page(bucket_store, "imagenet.label_maps", images=4)


def test_ingest_again_reads_only_what_changed(places, bucket, ingest, relabel):
    source, store = places["bucket"]
    first = ingest(source, store)
    with bucket.logged() as requests:
        assert ingest(source, store) == first
    assert not [request for request in requests if request.startswith("GET") and ".JPEG" in request]
    whole = read_bytes(f"{source}/n01443537/n01443537_1.JPEG", max_bytes=10**6)
    bucket.s3().pipe_file(f"{source.removeprefix('s3://')}/n01443537/new.JPEG", whole)
    bucket.remove("images/train/n01484850/n01484850_3.JPEG")
    with bucket.logged() as requests:
        second = ingest(source, store)
    assert second.rows == first.rows
    read = [request.partition("?")[0] for request in requests if request.startswith("GET") and ".JPEG" in request]
    assert [path.rpartition("/")[2] for path in read] == ["new.JPEG"]


def test_relabel_images_may_be_elsewhere(places, source, bucket, ingest, relabel, tmp_path):
    ingest(source, tmp_path / "store", max_bytes=MAX_BYTES)
    first = relabel(tmp_path / "store")
    away = source.rename(tmp_path / "away")
    with pytest.raises(BadInput, match=r"no such folder: .*train"):
        relabel(tmp_path / "store")
    assert relabel(tmp_path / "store", image_root=places["bucket"][0]).parts == first.parts
    reinferred = reinfer_version(
        open_store(tmp_path / "store"), "imagenet.label_maps", count=2, workers=1, image_root=places["bucket"][0]
    )
    assert (reinferred.problems, reinferred.compared) == ((), 2)
    with pytest.raises(BadInput, match=f"no such folder: {bucket.url}/none"):
        relabel(tmp_path / "store", image_root=f"{bucket.url}/none")
    ingest(*places["bucket"])
    assert relabel(places["bucket"][1], image_root=str(away)).rows == first.rows


def test_relabel_object_that_vanished_is_a_row_with_its_reason(places, bucket, ingest, relabel):
    source, store = places["bucket"]
    ingest(source, store)
    bucket.remove("images/train/n01443537/n01443537_2.JPEG")
    bucket.s3().pipe_file(f"{bucket.name}/images/train/n01443537/n01443537_3.JPEG", b"other")
    version = relabel(store)
    table = open_store(store).table("imagenet.label_maps").read(version, ["image_id", "reason", "detail"])
    found = {row["image_id"]: (row["reason"], row["detail"]) for row in table.to_pylist()}
    assert found["n01443537/n01443537_2.JPEG"] == ("missing", "No such object")
    assert found["n01443537/n01443537_3.JPEG"][0] == "changed"


def test_ingest_object_that_vanished_while_listed_is_a_row_with_its_reason(places, bucket):
    source, store = places["bucket"]
    prepared = prepare_imagenet(IngestImagenetParameters(source=source, store=store, dataset="imagenet"))
    bucket.remove("images/train/n01443537/n01443537_2.JPEG")
    bucket.faults({"path": "n01443537_4.JPEG", "status": 403})
    receipt = ingest_chunk(prepared, prepared.chunks[0])
    rows = prepared.table.read_part(receipt.part, ["image_id", "reason"]).to_pylist()
    reasons = {row["image_id"]: row["reason"] for row in rows}
    assert (reasons["n01443537/n01443537_2.JPEG"], reasons["n01443537/n01443537_4.JPEG"]) == ("missing", "unreadable")
    assert receipt.retry  # the next run reads them again


def test_ingest_store_that_gives_no_answer_ends_with_the_object(places, bucket):
    source, store = places["bucket"]
    prepared = prepare_imagenet(IngestImagenetParameters(source=source, store=store, dataset="imagenet"))
    bucket.faults({"path": ".JPEG", "status": 503})
    with pytest.raises(WorkFailed, match=rf"^{source}/n0\S+\.JPEG: gave up"):
        ingest_chunk(prepared, prepared.chunks[0])
    assert prepared.table.numbers() == []


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250])
def test_read_bytes_of_an_object_is_bounded(bucket, monkeypatch, size):
    monkeypatch.setattr("labelmill.tasks.images.read_object.FIRST_READ_BYTES", 40)
    bucket.s3().pipe_file(f"{bucket.name}/x", bytes(size))
    with bucket.logged() as requests:
        if size <= 100:
            assert read_bytes(f"{bucket.url}/x", max_bytes=100) == bytes(size)
        else:
            with pytest.raises(RejectedImage, match="more than 100 bytes"):
                read_bytes(f"{bucket.url}/x", max_bytes=100)
    assert len(requests) == (1 if size < 40 else 2 if size > 100 else 3)


def test_list_source_of_a_bucket_is_sorted_and_tells_keys_that_no_file_could_have(bucket):
    keys = ["b.jpg", "a/z.jpg", "a.jpg", "a/", "a//x.jpg", "a/../b.jpg", "./c.jpg", "é.jpg", "q?versionId=1"]
    for key in keys:
        bucket.s3().call_s3("put_object", Bucket=bucket.name, Key=f"in/{key}", Body=b"" if key == "a/" else b"1")
    found = {file.path: file.kind.value for file in list_source(f"{bucket.url}/in").files}
    assert list(found) == sorted([key for key in keys if key != "a/"], key=str.encode)
    bad = {path for path, kind in found.items() if kind == "bad_key"}
    assert bad == {"a//x.jpg", "a/../b.jpg", "./c.jpg", "q?versionId=1"}
    with pytest.raises(BadInput, match="holds no objects"):
        list_source(f"{bucket.url}/none")


def test_label_maps_parts_of_a_bucket_are_fetched_once(places, bucket, ingest, relabel, monkeypatch, tmp_path):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    source, store = places["bucket"]
    ingest(source, store)
    parts = relabel(store, shard_size=8).parts
    with bucket.logged() as requests:
        LabelMaps(open_store(store), "imagenet.label_maps").prepare()
    assert all(any(r.startswith("GET") and part.path in r for r in requests) for part in parts)
    with bucket.logged() as requests:
        LabelMaps(open_store(store), "imagenet.label_maps").prepare()
    assert not [r for r in requests if r.startswith("GET") and ".parquet" in r]
    open_store(store).table("imagenet.label_maps").files.remove(parts[0].path)
    with pytest.raises(StoreDamaged, match=r"s3://\S+\.parquet: cannot be read"):  # what is cached does not hide it
        LabelMaps(open_store(store), "imagenet.label_maps").prepare()


@pytest.mark.parametrize("imagenet", [True, False])
def test_check_parameters_of_a_bucket(places, bucket, imagenet):
    kind = IngestImagenetParameters if imagenet else IngestFolderParameters
    source, store = places["bucket"]
    check_parameters(kind(source=source, store=store, dataset="pets"))
    with pytest.raises(BadInput, match=f"^source: {bucket.url}/none holds no objects"):
        check_parameters(kind(source=f"{bucket.url}/none", store=store, dataset="pets"))
    with pytest.raises(BadInput, match="no such bucket"):
        check_parameters(kind(source=source, store="s3://no-such-bucket-here", dataset="pets"))
    bucket.faults({"method": "PUT", "ignore_condition": True})
    with pytest.raises(BadInput, match="its back end replaces an object"):
        check_parameters(kind(source=source, store=f"{bucket.url}/new", dataset="pets"))


def test_prepare_store_below_the_images_is_refused(places, ingest):
    source, _ = places["bucket"]
    with pytest.raises(BadInput, match="lies below the images"):
        ingest(source, f"{source}/store")


def test_prepare_split_folder_below_the_source_is_found(places, bucket, ingest):
    source, store = places["bucket"]
    version = ingest(source.removesuffix("/train"), store)
    assert version.metadata["roots"] == {"train": source}


def test_lineage_and_versions_hold_no_secret(places, bucket, ingest, relabel, caplog):
    source, store = places["bucket"]
    ingest(source, store)
    relabel(store)
    for name in bucket.s3().find(f"{bucket.name}/store"):
        assert b"not-to-be-seen" not in bucket.s3().cat_file(name)
    assert json.loads(open_store(store).table("imagenet.images").files.read("versions/000001.json"))["number"] == 1
    assert "not-to-be-seen" not in caplog.text


def test_load_each_waits_for_the_objects_of_a_batch_together(places, bucket, monkeypatch):
    """Two reads are held until both are asked for: one after the other would never end."""
    source, _ = places["bucket"]
    both = threading.Barrier(2, timeout=60)
    real = read_bytes

    def read(path, **limits):
        both.wait()
        return real(path, **limits)

    monkeypatch.setattr(read_ingested, "read_bytes", read)
    images = []
    for number in range(2):
        url = f"{source}/n01443537/n01443537_{number}.JPEG"
        data = real(url, max_bytes=10**6)
        images.append(load.ImageToLabel(path=url, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    loading = load.Loading(size=(32, 32), interpolation="bilinear", max_pixels=10**6)
    assert [pixels.shape for pixels in load.load_each(images, loading)] == [(32, 32, 3)] * 2
