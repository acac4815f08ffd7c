"""Reinfer: maps of the recorded teacher pass; what is not as recorded, or not there, is told."""

import shutil

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA
from labelmill.tasks.relabel.reinfer import reinfer_version
from labelmill.tasks.store import open_store

TABLE = "imagenet.label_maps"
IMAGES = 21
SIZE = "96x160"  # 3 x 5 cells


@pytest.fixture
def commit_again(imagenet):
    """Commit a version once more with another metadata, or with rows changed by `rows` (a list of dicts)."""

    def run(version, *, rows=None, **metadata):
        table = open_store(imagenet[1]).table(TABLE)
        parts = version.parts
        if rows:
            changed = rows(table.read(version, LABEL_MAPS_SCHEMA.names).to_pylist())
            parts = [table.write_part(pa.Table.from_pylist(changed, LABEL_MAPS_SCHEMA), key="changed")]
        return table.replace(
            parts, schema=LABEL_MAPS_SCHEMA, metadata={**version.metadata, **metadata}, lineage=version.lineage
        )

    return run


@pytest.fixture
def other_weights(tiny_teacher, tmp_path):
    """The tiny teacher's weights, its classifier's rows in another order and its stem disturbed."""
    state = safetensors.torch.load_file(tiny_teacher.weights)
    torch.manual_seed(1)
    state = {key: value.roll(1, 0) if key.startswith("classifier") else value for key, value in state.items()}
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "other.safetensors")
    return str(tmp_path / "other.safetensors")


def reinfer(imagenet, number=None, *, count=IMAGES, **options):
    return reinfer_version(open_store(imagenet[1]), TABLE, number, count=count, workers=2, **options)


def figure(result, measure):
    return next(f.sample for f in result.figures if f.measure == measure)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 21), (4, 7), (64, 13), (64, 21)])
def test_reinfer_version_intact_maps_of_any_batch_size_pass(imagenet, relabel, batch_size, count):
    relabel(imagenet[1], batch_size=batch_size, input_size=SIZE)
    result = reinfer(imagenet, count=count)
    assert (result.problems, result.diagnosis, result.left_out) == ((), None, {})
    assert (result.done, result.drawn, result.compared) == (IMAGES, count, count)
    assert result.same_bytes >= count - 1
    assert figure(result, "cells with the same top class") == "100.0 %"


def test_reinfer_version_fast_maps_pass_with_and_without_bfloat16(imagenet, relabel, monkeypatch):
    relabel(imagenet[1], precision="fast", input_size=SIZE)
    here = reinfer(imagenet)
    monkeypatch.setattr("labelmill.models.fast_forward.why_no_bf16", lambda: "not in this test")
    elsewhere = reinfer(imagenet)
    assert here.problems == elsewhere.problems == ()
    assert elsewhere.precision == "fp32"
    if here.precision == "bf16":
        assert elsewhere.notes == ("precision bf16, here fp32",)


def test_reinfer_version_with_other_weights_names_both_digests(imagenet, relabel, other_weights):
    version = relabel(imagenet[1], input_size=SIZE)
    result = reinfer(imagenet, weights=other_weights)
    recorded = version.metadata["teacher"]["weights_digest"][:12]
    assert result.problems[0].startswith(f"another teacher: recorded weights digest {recorded}…, these weights (other.")
    assert result.problems[1].startswith("cells with the same top class: ")
    assert result.diagnosis is None


def test_reinfer_version_images_gone_and_changed_are_counted_by_reason(imagenet, relabel):
    source, store = imagenet
    relabel(store)
    files = sorted(source.rglob("*.JPEG"))
    for path in files[:3]:
        path.unlink()
    files[3].write_bytes(files[4].read_bytes())
    result = reinfer(imagenet)
    assert result.left_out == {"missing": 3, "changed": 1}
    assert (result.drawn, result.compared, result.problems) == (IMAGES, IMAGES - 4, ())


def test_reinfer_version_all_images_gone_is_a_problem_until_image_root_says_where(imagenet, relabel, tmp_path):
    relabel(imagenet[1])
    imagenet[0].rename(tmp_path / "moved")
    result = reinfer(imagenet)
    assert (result.compared, result.left_out, len(result.problems)) == (0, {"missing": IMAGES}, 1)
    assert "--image-root" in result.problems[0]
    assert reinfer(imagenet, image_root=tmp_path / "moved").problems == ()


def test_reinfer_version_recorded_image_root_is_used(imagenet, relabel, tmp_path):
    imagenet[0].rename(tmp_path / "moved")
    relabel(imagenet[1], image_root=str(tmp_path / "moved"))
    assert reinfer(imagenet).compared == IMAGES


def test_reinfer_version_image_root_of_two_splits_is_refused(imagenet, make_images, ingest, relabel, tmp_path):
    ingest(make_images(tmp_path / "val", {"n01443537": 2}, first=80), imagenet[1], split="val")
    relabel(imagenet[1])
    with pytest.raises(BadInput, match="image_root: the splits train, val have a folder each"):
        reinfer(imagenet, count=99, image_root=tmp_path)
    assert reinfer(imagenet, count=99).compared == IMAGES + 2


@pytest.mark.parametrize("count", [0, -1])
def test_reinfer_version_no_images_asked_for_is_refused_by_name(imagenet, relabel, count):
    relabel(imagenet[1])
    with pytest.raises(BadInput, match=f"reinfer: expected 1 image or more, got {count}"):
        reinfer(imagenet, count=count)


def test_reinfer_version_more_than_the_table_has_takes_all(imagenet, relabel):
    relabel(imagenet[1])
    result = reinfer(imagenet, count=1000)
    assert (result.done, result.drawn, result.compared, result.problems) == (IMAGES, IMAGES, IMAGES, ())


def test_reinfer_version_rejected_rows_are_never_drawn(imagenet, ingest, relabel):
    (imagenet[0] / "n01443537" / "n01443537_3.JPEG").write_bytes(b"no picture")
    ingest(imagenet[0], imagenet[1])
    relabel(imagenet[1])
    result = reinfer(imagenet)
    assert (result.done, result.compared, result.left_out, result.problems) == (IMAGES - 1, IMAGES - 1, {}, ())


def test_reinfer_version_without_done_rows_is_a_problem(imagenet, relabel, commit_again):
    def reject(rows):
        kept = ("image_id", "split")
        return [{**dict.fromkeys(row), **{k: row[k] for k in kept}, "status": "rejected"} for row in rows]

    commit_again(relabel(imagenet[1]), rows=reject)
    result = reinfer(imagenet)
    assert result.problems == ("no image has a map: there is nothing to relabel",)
    assert (result.done, result.drawn, result.figures) == (0, 0, ())


def test_reinfer_version_imported_maps_need_weights_and_compare_classes_only(
    imagenet, relabel, commit_again, tiny_teacher
):
    version = relabel(imagenet[1], input_size=SIZE)

    def strip(rows):  # as an importer leaves them: another constant in each cell, nothing known outside the top-k
        return [
            {**r, "rest": [], "absent": [0] * len(r["absent"]), "top": [v + 7 * n for n, v in enumerate(r["top"])]}
            for r in rows
        ]

    commit_again(
        version, rows=strip, teacher={"name": tiny_teacher.name, "imported": "files"}, logits="as_imported",
        outside_known=False, absent_share=0.0, temperature=1.0,
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"reinfer needs a recorded teacher.*test_efficientnet.*--weights"):
        reinfer(imagenet)
    result = reinfer(imagenet, weights=tiny_teacher.weights)
    assert result.problems == ()
    assert [f.measure for f in result.figures] == ["cells with the same top class", "same pooled class"]


def test_reinfer_version_recorded_weights_that_are_gone_ask_for_weights(imagenet, relabel, tiny_teacher, tmp_path):
    away = shutil.copy(tiny_teacher.weights, tmp_path / "away.safetensors")
    relabel(imagenet[1], weights=str(away))
    (tmp_path / "away.safetensors").unlink()
    with pytest.raises(BadInput, match=r"imagenet.label_maps v1: weights .*no such file.*--weights"):
        reinfer(imagenet)
    assert reinfer(imagenet, weights=tiny_teacher.weights).problems == ()


def test_reinfer_version_class_list_file_is_not_needed(imagenet, relabel, tiny_teacher, tmp_path):
    names = shutil.copy(tiny_teacher.classes, tmp_path / "names.txt")
    relabel(imagenet[1], classes=str(names))
    (tmp_path / "names.txt").unlink()
    assert reinfer(imagenet).problems == ()


def test_reinfer_version_grid_in_the_wrong_order_is_a_problem(imagenet, relabel, commit_again):
    commit_again(relabel(imagenet[1], input_size=SIZE), grid=[5, 3])
    result = reinfer(imagenet)
    assert result.problems == ("grid: recorded 5x3 cells, the teacher gives 3x5; rows and columns look exchanged",)


def test_reinfer_version_other_class_count_is_another_teacher(imagenet, relabel, commit_again):
    commit_again(relabel(imagenet[1]), num_classes=9)
    assert reinfer(imagenet).problems == ("another teacher: recorded 9 classes, these weights have 8",)


def test_reinfer_version_map_of_another_shape_is_damage(imagenet, relabel, commit_again):
    commit_again(relabel(imagenet[1]), rows=lambda rows: [{**row, "index": row["index"][:-1]} for row in rows])
    with pytest.raises(StoreDamaged, match="expected a map of 6 cells of 3 classes, got 6 cells and 17 classes"):
        reinfer(imagenet)


def test_reinfer_version_images_version_that_was_deleted_is_named(imagenet, relabel, ingest, make_images):
    relabel(imagenet[1])
    make_images(imagenet[0], {"n01484850": 1}, first=50)
    ingest(imagenet[0], imagenet[1])
    open_store(imagenet[1]).table("imagenet.images").delete(1)
    with pytest.raises(NotInStore, match=r"imagenet.label_maps v1 was made from imagenet.images v1: .*deleted"):
        reinfer(imagenet)


def test_reinfer_version_of_another_kind_of_table_is_refused(imagenet):
    with pytest.raises(BadInput, match="expected a table of label maps"):
        reinfer_version(open_store(imagenet[1]), "imagenet.images", count=1, workers=1)
