"""A relabel from its parameters to its version, without Prefect, on a real store and real images."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from labelmill.schemas.errors import BadInput, NotInStore, WorkFailed
from labelmill.schemas.versions import digest_json
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


def rows_of(store, version, table="imagenet.label_maps"):
    found = open_store(store).table(table)
    return found.read(version, [column.name for column in version.columns]).to_pylist()


def test_relabel_row_i_is_image_i_and_rejects_keep_their_reason(imagenet, ingest, relabel):
    source, store = imagenet
    (source / "n01443537" / "n01443537_3.JPEG").write_bytes(b"no picture")
    (source / "n01484850" / "n01484850_9.JPEG").write_bytes(b"")
    images = ingest(source, store, chunk_size=13)

    version = relabel(store)

    maps, rows = rows_of(store, version), rows_of(store, images, "imagenet.images")
    assert [m["image_id"] for m in maps] == [r["image_id"] for r in rows]
    assert [(m["split"], m["status"], m["reason"], m["detail"]) for m in maps] == [
        (r["split"], r["status"], r["reason"], r["detail"]) for r in rows
    ]
    assert sorted(m["reason"] for m in maps if m["status"] == "rejected") == ["empty", "not_an_image"]
    assert verify_version(open_store(store).table("imagenet.label_maps")).problems == ()


def test_relabel_label_is_in_the_teachers_ids_by_wnid(imagenet, relabel, tiny_teacher):
    """The dataset has two of the teacher's eight classes, in another order: its bare index is never the teacher's."""
    store = imagenet[1]
    version = relabel(store)
    maps = rows_of(store, version)
    images = rows_of(store, open_store(store).table("imagenet.images").version(), "imagenet.images")
    for map_row, image in zip(maps, images, strict=True):
        assert tiny_teacher.wnids[map_row["label"]] == image["wnid"] == image["image_id"].partition("/")[0]
        assert map_row["label"] != image["label"]
    assert version.metadata["label_match"] == {
        "how": "wnid", "matched": 2, "unmatched": 0, "ambiguous": 0, "reason": None,
    }  # fmt: skip
    with open_store(store).connect() as sql:
        names = sql.execute("SELECT DISTINCT image_id[:9], label_name FROM imagenet.label_maps ORDER BY 1").fetchall()
    assert names == [("n01443537", "n01443537"), ("n01484850", "n01484850")]


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        pytest.param(None, "the teacher's class list is not known", id="no list"),
        pytest.param(
            "cat\ndog\ncow\nhen\nfox\nant\nbee\nowl\n", "no name of the dataset's 2 classes", id="other names"
        ),
    ],
)
def test_relabel_classes_that_do_not_match_give_no_label_and_the_reason(imagenet, relabel, tmp_path, classes, reason):
    if classes:
        (tmp_path / "names.txt").write_text(classes)
    version = relabel(imagenet[1], classes=str(tmp_path / "names.txt") if classes else "none")
    assert {row["label"] for row in rows_of(imagenet[1], version)} == {None}
    assert version.metadata["label_match"]["how"] == "none"
    assert version.metadata["label_match"]["reason"].startswith(reason)


def test_relabel_label_outside_the_teachers_classes_alone_is_null(tmp_path, make_images, ingest, relabel, tiny_teacher):
    """One class matches, the other is none of the teacher's."""
    source = make_images(tmp_path / "train", {"n01443537": 2, "n02123045": 2})
    ingest(source, tmp_path / "store")
    version = relabel(tmp_path / "store")
    labels = {row["image_id"][:9]: row["label"] for row in rows_of(tmp_path / "store", version)}
    assert labels == {"n01443537": tiny_teacher.wnids.index("n01443537"), "n02123045": None}
    assert (version.metadata["label_match"]["matched"], version.metadata["label_match"]["unmatched"]) == (1, 1)


def test_relabel_lineage_names_what_made_the_labels(imagenet, relabel, parameters_for, tiny_teacher):
    store = imagenet[1]
    version = relabel(store)
    lineage = version.lineage
    parameters = parameters_for(store)
    assert lineage.flow == "relabel"
    assert lineage.code.startswith("0.")
    assert lineage.parameters == parameters.model_dump(mode="json")
    assert lineage.parameters_digest == digest_json(lineage.parameters)
    assert lineage.inputs == {"imagenet.images": 1}
    assert {"torch", "timm", "pillow"} <= lineage.software.keys()
    teacher = lineage.teacher
    prepared = prepare_run(parameters)
    assert teacher["digest"] == prepared.job.teacher.digest
    assert teacher["weights_digest"] == prepared.job.teacher.weights_digest
    assert teacher["preprocessing"]["interpolation"] == "bicubic"
    assert (teacher["input_size"], teacher["top_k"], teacher["precision"]) == ([64, 96], 3, "fp32")
    assert teacher["numerics"].keys() >= {"torch", "machine"}
    assert version.metadata["teacher"] == teacher
    assert version.metadata["calibration"]["images"] == 8
    assert version.metadata["calibration"]["temperature"] == version.metadata["temperature"]
    assert version.metadata["grid"] == [2, 3]
    assert [c["name"] for c in version.metadata["classes"]["classes"]] == list(tiny_teacher.wnids)
    assert str(store) not in version.metadata  # what a reader needs does not depend on where the store lies
    assert all(not part.path.startswith("/") for part in version.parts)


def test_relabel_moved_images_are_found_by_image_root(imagenet, relabel, tmp_path):
    source, store = imagenet
    first = relabel(store)
    source.rename(tmp_path / "moved")
    with pytest.raises(BadInput, match=r"images of split 'train': no such folder: .*image_root"):
        relabel(store, top_k=2)
    moved = relabel(store, top_k=2, image_root=str(tmp_path / "moved"))
    assert (moved.number, moved.metadata["top_k"]) == (2, 2)
    assert relabel(store, image_root=str(tmp_path / "moved")).parts == first.parts


def test_prepare_run_vanished_root_is_refused_before_the_teacher_loads(imagenet, parameters_for, tmp_path):
    imagenet[0].rename(tmp_path / "moved")
    with pytest.raises(BadInput, match="image_root"):
        prepare_run(parameters_for(imagenet[1], teacher="no_such_teacher"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({"dataset": "nothing"}, NotInStore, "nothing.images: no such table", id="dataset"),
        pytest.param({"images_version": 9}, NotInStore, "version 9 does not exist; versions: 1", id="version"),
        pytest.param({"split": "val"}, BadInput, "split: expected one of train, got 'val'", id="split"),
        pytest.param({"teacher": "resnet_none"}, BadInput, "resnet_none", id="teacher"),
        pytest.param({"weights": "/no/such.safetensors"}, BadInput, "no such file", id="weights"),
    ],
)
def test_prepare_run_of_what_is_not_there_is_refused(imagenet, parameters_for, options, error, said):
    with pytest.raises(error, match=said):
        prepare_run(parameters_for(imagenet[1], **options))


def test_prepare_run_image_root_of_two_splits_is_refused(imagenet, make_images, ingest, parameters_for, tmp_path):
    ingest(make_images(tmp_path / "val", {"n01443537": 2}, first=80), imagenet[1], split="val")
    with pytest.raises(BadInput, match="the splits train, val have a folder each"):
        prepare_run(parameters_for(imagenet[1], image_root=str(tmp_path)))


def test_relabel_all_images_missing_commits_nothing(imagenet, relabel):
    source, store = imagenet
    files = {path: path.read_bytes() for path in source.rglob("*.JPEG")}
    first = relabel(store)
    for path in files:
        path.unlink()
    with pytest.raises(WorkFailed, match=r"none of the 8 images drawn .*; missing: .*image_root"):
        relabel(store, top_k=2)
    with pytest.raises(WorkFailed, match=r"none of 21 images could be read .* nothing was committed.*image_root"):
        relabel(store, shard_size=5)  # the temperature is known, other shards are not
    assert open_store(store).table("imagenet.label_maps").numbers() == [first.number]
    for path, data in files.items():
        path.write_bytes(data)
    assert {row["status"] for row in rows_of(store, relabel(store, top_k=2))} == {"done"}


def test_relabel_again_with_nothing_new_makes_no_new_version(imagenet, relabel):
    first = relabel(imagenet[1])
    assert relabel(imagenet[1]) == first
    assert relabel(imagenet[1], workers=1) == first


def test_relabel_appended_images_cost_only_themselves(imagenet, make_images, ingest, relabel, parameters_for):
    source, store = imagenet
    first = relabel(store)
    make_images(source, {"n01484850": 5}, first=50)
    ingest(source, store)
    prepared = prepare_run(parameters_for(store))
    found = [prepared.job.label_maps.receipts.find(shard.key, run="test") for shard in prepared.shards]
    assert [receipt is not None for receipt in found] == [True] * len(first.parts) + [False]
    second = relabel(store)
    assert second.parts[: len(first.parts)] == first.parts
    assert (second.rows, second.lineage.inputs) == (26, {"imagenet.images": 2})


def test_relabel_missing_images_are_tried_again_and_broken_ones_are_not(imagenet, relabel):
    source, store = imagenet
    away = source / "n01443537" / "n01443537_2.JPEG"
    data = away.read_bytes()
    away.unlink()
    first = relabel(store)
    assert [r["reason"] for r in rows_of(store, first) if r["status"] != "done"] == ["missing"]
    again = relabel(store)
    assert again == first  # still missing: the same version
    away.write_bytes(data)
    second = relabel(store)
    assert second.number == 2
    assert {row["status"] for row in rows_of(store, second)} == {"done"}
    assert [a == b for a, b in zip(first.parts, second.parts, strict=True)].count(False) == 1


def test_relabel_two_at_once_both_end_with_the_same_parts(imagenet, relabel, tmp_path):
    store = imagenet[1]
    with ThreadPoolExecutor(2) as threads:
        versions = [future.result() for future in [threads.submit(relabel, store) for _ in range(2)]]
    assert versions[0].parts == versions[1].parts
    table = open_store(store).table("imagenet.label_maps")
    assert set(table.numbers()) == {version.number for version in versions}
    assert all(verify_version(table, number).problems == () for number in table.numbers())


def test_relabel_split_has_the_rows_of_the_split_alone(imagenet, make_images, ingest, relabel, tmp_path):
    store = imagenet[1]
    ingest(make_images(tmp_path / "val", {"n01443537": 3}, first=80), store, split="val")
    whole = relabel(store)
    assert whole.rows == 24
    val = relabel(store, split="val")
    assert [row["split"] for row in rows_of(store, val)] == ["val"] * 3


def test_relabel_top_k_above_the_class_count_keeps_all_classes(imagenet, relabel):
    version = relabel(imagenet[1], top_k=50)
    assert version.metadata["top_k"] == version.metadata["num_classes"] == 8
    assert len(rows_of(imagenet[1], version)[0]["index"]) == 2 * 3 * 8
