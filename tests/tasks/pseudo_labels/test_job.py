"""Pseudo labels from parameters to a version, without Prefect, on a real store and real images."""

import dataclasses
from contextlib import closing

import pytest
import safetensors.torch
import timm

from labelmill.models.teacher import load_teacher
from labelmill.schemas.errors import BadInput, NotInStore, WorkFailed
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA, PseudoLabelMetadata
from labelmill.tasks.preflight import check_parameters
from labelmill.tasks.pseudo_labels.job import predict_shard, prepare_pseudolabel
from labelmill.tasks.pseudo_labels.teachers import refuse_other_classes
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


def rows_of(store, version):
    found = open_store(store).table(version.table)
    return found.read(version, [column.name for column in version.columns]).to_pylist()


def test_pseudolabel_row_i_is_image_i_and_rejects_keep_their_reason(imagenet, ingest, pseudolabel):
    source, store = imagenet
    (source / "n01443537" / "n01443537_3.JPEG").write_bytes(b"no picture")
    (source / "n01484850" / "n01484850_9.JPEG").write_bytes(b"")
    images = ingest(source, store, chunk_size=13)
    version = pseudolabel(store)
    found, rows = rows_of(store, version), rows_of(store, images)
    told = ("image_id", "split", "status", "reason", "detail")
    assert [[f[name] for name in told] for f in found] == [[r[name] for name in told] for r in rows]
    assert sorted(f["reason"] for f in found if f["status"] == "rejected") == ["empty", "not_an_image"]
    for row in found:
        assert (row["pseudo_class"] is None) == (row["probabilities"] is None) == (row["status"] == "rejected")
        assert row["label"] is not None
    assert verify_version(open_store(store).table(version.table)).problems == ()
    assert [(c.name, c.type) for c in version.columns] == [(f.name, str(f.type)) for f in PSEUDO_LABELS_SCHEMA]


def test_pseudolabel_names_classes_in_sql_and_matches_labels_by_wnid(imagenet, pseudolabel, tiny_teacher):
    """The dataset has two of the teacher's eight classes, in another order."""
    store = imagenet[1]
    version = pseudolabel(store, table="soft")
    assert (version.table, version.metadata["kind"]) == ("imagenet.soft", "pseudo_labels")
    with open_store(store).connect() as sql:
        rows = sql.execute(
            "SELECT image_id, label, label_name, pseudo_class, pseudo_name, confidence, class_ids, probabilities "
            "FROM imagenet.soft_v1 ORDER BY row"
        ).fetchall()
    assert len(rows) == 21
    for image_id, label, label_name, pseudo_class, pseudo_name, confidence, class_ids, probabilities in rows:
        assert tiny_teacher.wnids[label] == label_name == image_id.partition("/")[0]
        assert (tiny_teacher.wnids[pseudo_class], class_ids[0], probabilities[0]) == (
            pseudo_name, pseudo_class, confidence,
        )  # fmt: skip
    assert version.metadata["label_match"]["matched"] == 2


def test_pseudolabel_unknown_classes_have_no_names_and_no_label(imagenet, pseudolabel):
    version = pseudolabel(imagenet[1], classes="none")
    with open_store(imagenet[1]).connect() as sql:
        assert sql.execute("SELECT DISTINCT label, label_name, pseudo_name FROM imagenet.pseudo_labels").fetchall() == [
            (None, None, None)
        ]
    assert version.metadata["label_match"]["reason"] == "the teacher's class list is not known"


def test_pseudolabel_lineage_has_every_teachers_facts(imagenet, pseudolabel, parameters_for, teacher, other_weights):
    also = f"mobilenetv3_small_050={other_weights}"
    version = pseudolabel(imagenet[1], also=also, views="flip", input_size=None)
    lineage = version.lineage
    assert (lineage.flow, lineage.inputs) == ("pseudolabel", {"imagenet.images": 1})
    options = {"also": also, "views": "flip", "input_size": None}
    assert lineage.parameters == parameters_for(imagenet[1], **options).model_dump(mode="json")
    assert lineage.teacher["name"] == "test_efficientnet + mobilenetv3_small_050"
    first, second = lineage.teacher["teachers"]
    assert first["digest"] == teacher.digest != second["digest"]
    assert (first["input_size"], second["input_size"]) == ([160, 160], [224, 224])
    assert (lineage.teacher["views"], lineage.teacher["batch_size"], lineage.teacher["engine"]["device"]) == (
        "flip", 3, "cpu",
    )  # fmt: skip
    assert lineage.teacher["numerics"].keys() >= {"torch", "machine"}
    metadata = PseudoLabelMetadata.model_validate(version.metadata)
    assert list(metadata.teachers) == lineage.teacher["teachers"]
    assert (metadata.views, metadata.top_k, metadata.num_classes, len(metadata.classes)) == ("flip", 3, 8, 8)


def test_pseudolabel_again_with_nothing_new_makes_no_new_version(imagenet, pseudolabel):
    first = pseudolabel(imagenet[1])
    assert pseudolabel(imagenet[1]) == first
    assert pseudolabel(imagenet[1], workers=1) == first


def test_pseudolabel_of_the_same_images_elsewhere_has_the_same_bytes(imagenet, ingest, pseudolabel, tmp_path):
    first = pseudolabel(imagenet[1])
    ingest(imagenet[0], tmp_path / "other", chunk_size=13)
    assert pseudolabel(tmp_path / "other", workers=1).parts == first.parts


class Killed(BaseException):
    """Ends the work as a signal would."""


def test_pseudolabel_interrupted_goes_on_at_the_shard_and_ends_with_the_same_bytes(
    imagenet, ingest, pseudolabel, parameters_for, tmp_path
):
    source, store = imagenet
    ingest(source, tmp_path / "unbroken", chunk_size=13)
    unbroken = pseudolabel(tmp_path / "unbroken", shard_size=4)

    def die(images, rejected):
        raise Killed

    run = prepare_pseudolabel(parameters_for(store, shard_size=4))
    with closing(run.predictor):
        for shard in run.shards[:2]:
            predict_shard(run, shard)
        with pytest.raises(Killed):
            predict_shard(run, run.shards[2], on_batch=die)
    assert run.table.latest() is None
    again = prepare_pseudolabel(parameters_for(store, shard_size=4))
    again.predictor.close()
    kept = [again.table.receipts.find(shard.key, run=again.run) is not None for shard in again.shards]
    assert kept == [True, True, False, False, False, False]
    assert pseudolabel(store, shard_size=4).parts == unbroken.parts


def test_pseudolabel_appended_images_cost_only_themselves(imagenet, make_images, ingest, pseudolabel, parameters_for):
    source, store = imagenet
    first = pseudolabel(store)
    make_images(source, {"n01484850": 5}, first=50)
    ingest(source, store)
    run = prepare_pseudolabel(parameters_for(store))
    run.predictor.close()
    found = [run.table.receipts.find(shard.key, run="test") for shard in run.shards]
    assert [receipt is not None for receipt in found] == [True] * len(first.parts) + [False]
    second = pseudolabel(store)
    assert second.parts[: len(first.parts)] == first.parts
    assert (second.rows, second.lineage.inputs) == (26, {"imagenet.images": 2})


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"views": "flip"}, id="views"),
        pytest.param({"top_k": 2}, id="top_k"),
        pytest.param({"batch_size": 4}, id="batch size"),
        pytest.param({"input_size": "96x64"}, id="input size"),
        pytest.param({"classes": "none"}, id="classes"),
        pytest.param({"also": "mobilenetv3_small_050=OTHER"}, id="also"),
    ],
)
def test_prepare_pseudolabel_what_decides_bytes_makes_other_shards(imagenet, parameters_for, other_weights, options):
    options = {
        name: value.replace("OTHER", other_weights) if name == "also" else value for name, value in options.items()
    }
    keys = []
    for given in ({}, options):
        run = prepare_pseudolabel(parameters_for(imagenet[1], **given))
        run.predictor.close()
        keys.append({shard.key for shard in run.shards})
    assert not keys[0] & keys[1]


def test_pseudolabel_missing_images_are_tried_again_and_broken_ones_are_not(imagenet, pseudolabel):
    source, store = imagenet
    away = source / "n01443537" / "n01443537_2.JPEG"
    data = away.read_bytes()
    away.unlink()
    first = pseudolabel(store)
    assert [r["reason"] for r in rows_of(store, first) if r["status"] != "done"] == ["missing"]
    assert pseudolabel(store) == first  # still missing: the same version
    away.write_bytes(data)
    second = pseudolabel(store)
    assert second.number == 2
    assert {row["status"] for row in rows_of(store, second)} == {"done"}
    assert [a == b for a, b in zip(first.parts, second.parts, strict=True)].count(False) == 1


def test_pseudolabel_all_images_missing_commits_nothing(imagenet, pseudolabel):
    source, store = imagenet
    for path in source.rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(WorkFailed, match=r"none of 21 images could be read .* nothing was committed.*image_root"):
        pseudolabel(store)
    assert open_store(store).table("imagenet.pseudo_labels").latest() is None


def test_pseudolabel_top_k_above_the_class_count_keeps_all_classes(imagenet, pseudolabel):
    version = pseudolabel(imagenet[1], top_k=50)
    assert version.metadata["top_k"] == version.metadata["num_classes"] == 8
    for row in rows_of(imagenet[1], version):
        assert sorted(row["class_ids"]) == list(range(8))
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-6)


def test_pseudolabel_tables_and_splits_stand_side_by_side(imagenet, make_images, ingest, pseudolabel, tmp_path):
    store = imagenet[1]
    ingest(make_images(tmp_path / "val", {"n01443537": 3}, first=80), store, split="val")
    assert pseudolabel(store).rows == 24
    val = pseudolabel(store, split="val", table="of_val")
    assert [row["split"] for row in rows_of(store, val)] == ["val"] * 3
    assert {"imagenet.pseudo_labels", "imagenet.of_val"} <= set(open_store(store).tables())


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({"dataset": "nothing"}, NotInStore, "nothing.images: no such table", id="dataset"),
        pytest.param({"images_version": 9}, NotInStore, "version 9 does not exist; versions: 1", id="version"),
        pytest.param({"split": "val"}, BadInput, "split: expected one of train, got 'val'", id="split"),
        pytest.param({"weights": "/no/such.pth"}, BadInput, "weights: no such file", id="weights"),
        pytest.param({"also": "resnet18=/no/such.pth"}, BadInput, "also: resnet18: no such file", id="weights of also"),
        pytest.param({"classes": "/no/such.txt"}, BadInput, "classes: no such file", id="classes"),
        pytest.param({"table": "soft_v2"}, BadInput, "table name 'imagenet.soft_v2'", id="name of a view"),
    ],
)
def test_check_parameters_of_what_is_not_there_is_refused(imagenet, parameters_for, options, error, said):
    with pytest.raises(error, match=said):
        check_parameters(parameters_for(imagenet[1], **options))


def test_check_parameters_table_of_another_kind_is_refused(imagenet, parameters_for, pseudolabel):
    store = open_store(imagenet[1])
    soft = pseudolabel(imagenet[1], table="soft")
    mine = store.table("imagenet.mine")
    part = mine.write_part(store.table(soft.table).read_part(soft.parts[0]), key="0" * 16)
    mine.replace([part], schema=PSEUDO_LABELS_SCHEMA, metadata={"kind": "manifest"}, lineage=soft.lineage)
    with pytest.raises(BadInput, match=r"table: imagenet.mine is there and holds something else"):
        check_parameters(parameters_for(imagenet[1], table="mine"))
    check_parameters(parameters_for(imagenet[1], table="soft"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"teacher": "resnet_none"}, "resnet_none", id="teacher"),
        pytest.param({"also": "resnet_none=WEIGHTS"}, "also: resnet_none: ", id="name of also"),
        pytest.param({"device": "cuda:7"}, "device: ", id="device"),
    ],
)
def test_prepare_pseudolabel_of_what_does_not_fit_is_refused(imagenet, parameters_for, tiny_teacher, options, said):
    given = {name: str(value).replace("WEIGHTS", tiny_teacher.weights) for name, value in options.items()}
    with pytest.raises(BadInput, match=said):
        prepare_pseudolabel(parameters_for(imagenet[1], **given))


def test_prepare_pseudolabel_vanished_root_is_refused_before_teachers_load(imagenet, parameters_for, tmp_path):
    imagenet[0].rename(tmp_path / "moved")
    with pytest.raises(BadInput, match=r"images of split 'train': no such folder: .*image_root"):
        prepare_pseudolabel(parameters_for(imagenet[1], teacher="no_such_teacher"))


def test_prepare_pseudolabel_input_size_that_a_teacher_does_not_take_is_refused(imagenet, parameters_for, tmp_path):
    """Its first layer takes patches of 4x4."""
    model = timm.create_model("test_convnext", num_classes=8)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "convnext.safetensors")
    also = f"test_convnext={tmp_path / 'convnext.safetensors'}"
    with pytest.raises(BadInput, match="input size 2x2: teacher 'test_convnext' does not take it"):
        prepare_pseudolabel(parameters_for(imagenet[1], also=also, input_size=2))


def test_refuse_other_classes_names_also_and_both_lists(teacher, other_teacher, tiny_teacher, tmp_path):
    refuse_other_classes([teacher, other_teacher])
    (tmp_path / "sorted.txt").write_text("".join(f"{wnid}\n" for wnid in sorted(tiny_teacher.wnids)))
    sorted_ = load_teacher(tiny_teacher.name, weights=tiny_teacher.weights, classes=str(tmp_path / "sorted.txt"))
    with pytest.raises(BadInput, match=r"also: test_efficientnet: expected the classes .*classes.txt.*sorted.txt"):
        refuse_other_classes([teacher, sorted_])
    unknown = dataclasses.replace(other_teacher, classes=None)
    with pytest.raises(BadInput, match=r"also: mobilenetv3_small_050: .*not known"):
        refuse_other_classes([teacher, unknown])
    with pytest.raises(BadInput, match=r"also: mobilenetv3_small_050: expected the 8 classes of .*, got 9"):
        refuse_other_classes([teacher, dataclasses.replace(other_teacher, num_classes=9)])
