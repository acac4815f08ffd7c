"""COCO files in and out: what comes back is what went in, whatever was in it."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tasks.annotated_dataset import Dataset, make_jpeg

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.parameters import IngestCocoParameters
from labelmill.tasks.boxes import stream_json
from labelmill.tasks.boxes.coco import prepare_coco

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person", "supercategory": "person"}]


def coco(annotations, images=({"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},), **others):
    return {"images": list(images), "annotations": list(annotations), "categories": CATEGORIES, **others}


def box(**changes):
    usual = {
        "id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0,
        "segmentation": [[1, 2, 4.5, 2, 4.5, 6]],
    }  # fmt: skip
    return {**usual, **changes}


def test_ingest_coco_of_one_box_has_pixels_class_and_category(dataset):
    (dataset.images / "a.jpg").write_bytes(make_jpeg())
    dataset.ingest_coco(coco([box()]))
    (row,) = dataset.rows("boxes")
    assert [row[name] for name in ("x1", "y1", "x2", "y2")] == [1, 2, 4.5, 6]
    assert (row["class_id"], row["category_id"], row["image_id"]) == (0, 1, "a.jpg")
    assert (row["valid"], row["flags"], row["segmentation"]) == (True, [], "[[1, 2, 4.5, 2, 4.5, 6]]")
    (image,) = dataset.rows("images")
    assert (image["status"], image["label"], image["labels"]) == ("done", None, [0])


FLAGGED = {
    "zero_size": {"bbox": [1, 2, 0, 4]},
    "negative_size": {"bbox": [5, 5, -1, 4]},
    "outside": {"bbox": [40, 2, 3, 4]},
    "crosses_edge": {"bbox": [35, 2, 30, 4]},
    "not_finite": {"bbox": [math.nan, 2, 3, 4]},
    "malformed": {"bbox": [1, 2, 3]},
    "unknown_image": {"image_id": 8},
    "unknown_category": {"category_id": 2},
}


@pytest.mark.parametrize(("flag", "changes"), FLAGGED.items(), ids=FLAGGED)
@pytest.mark.parametrize("beside", [[], [box(id=2, extra="slow", image_id="x")]], ids=["usual", "unusual"])
def test_ingest_coco_odd_box_is_flagged_and_kept(dataset, flag, changes, beside):
    written = dataset.ingest_coco(coco([box(**changes), *beside]))
    row = dataset.rows("boxes")[0]
    assert row["flags"] == [flag]
    assert row["valid"] is (flag == "crosses_edge")
    assert written.counts["boxes"] == 1 + len(beside)
    assert written.counts[flag] >= 1


def test_ingest_coco_repeated_ids_flag_the_later_box(dataset):
    dataset.ingest_coco(coco([box(), box(), box(id=2)]))
    assert [row["flags"] for row in dataset.rows("boxes")] == [[], ["repeated_id"], []]
    assert all(row["valid"] for row in dataset.rows("boxes"))


def test_ingest_coco_id_of_two_files_attributes_no_box(dataset):
    images = [{"id": 7, "file_name": name, "width": 40, "height": 30} for name in ("a.jpg", "b.jpg")]
    written = dataset.ingest_coco(coco([box()], images))
    (row,) = dataset.rows("boxes")
    assert (row["image_id"], row["flags"], row["valid"]) == (None, ["ambiguous_image"], False)
    assert written.counts["ambiguous_image"] == 1


def test_ingest_coco_file_listed_twice_is_one_image_with_both_ids_boxes(dataset):
    images = [{"id": number, "file_name": "a.jpg", "width": 40, "height": 30} for number in (7, 9)]
    dataset.ingest_coco(coco([box(), box(id=2, image_id=9, category_id=90)], images))
    (image,) = dataset.rows("images")
    assert image["labels"] == [0, 1]
    assert [row["image_id"] for row in dataset.rows("boxes")] == ["a.jpg", "a.jpg"]
    assert [row["source_id"] for row in dataset.rows("image_entries")] == [7, 9]


def test_ingest_coco_keeps_images_without_boxes_and_without_files(dataset):
    (dataset.images / "b.jpg").write_bytes(make_jpeg())
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in ((7, "a"), (900, "b"), (3, "c"))]
    dataset.ingest_coco(coco([box()], images))
    rows = {row["image_id"]: (row["status"], row["reason"], row["labels"]) for row in dataset.rows("images")}
    assert rows == {
        "a.jpg": ("rejected", "missing", [0]),
        "b.jpg": ("done", None, []),
        "c.jpg": ("rejected", "missing", []),
    }


BAD_NAMES = ["../a.jpg", "/etc/passwd", "", "a//b.jpg", None, 5, "\ud800.jpg"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_ingest_coco_name_that_leads_elsewhere_is_a_rejected_row_and_comes_back(dataset, name):
    content = coco([box()], [{"id": 7, "file_name": name}])
    dataset.ingest_coco(content)
    (row,) = dataset.rows("images")
    assert (row["status"], row["reason"]) == ("rejected", "bad_name")
    dataset.export("coco")
    assert read_back(dataset.folder) == content


def test_ingest_coco_names_with_newlines_and_beyond_ascii_are_found(dataset):
    name = "zwei\nZeilen, 图.jpg"
    (dataset.images / name).write_bytes(make_jpeg())
    dataset.ingest_coco(coco([box()], [{"id": 7, "file_name": name}]))
    (row,) = dataset.rows("images")
    assert (row["image_id"], row["status"]) == (name, "done")


def test_ingest_coco_images_below_a_folder_are_found_by_their_names(dataset):
    (dataset.images / "train2017").mkdir()
    (dataset.images / "train2017" / "a.jpg").write_bytes(make_jpeg())
    dataset.ingest_coco(coco([box()]))
    (row,) = dataset.rows("images")
    assert (row["image_id"], row["status"]) == ("a.jpg", "done")


@pytest.mark.parametrize("at", [0, 1, 5, 60, 150, -40, -1])
def test_ingest_coco_file_that_is_cut_is_refused_with_the_place(dataset, at):
    text = json.dumps(coco([box(), box(id=2)]))[:at]
    with pytest.raises(BadInput, match=r"annotations: .*byte \d+.*(cut|expected)"):
        dataset.ingest_coco(text)
    assert not (dataset.store / "coco").exists()


REFUSED = {
    "[]": "expected '{', got '\\['",
    "{}": "no categories and no images",
    '{"images": {}}': "expected '\\['",
    '{"images": [], "annotations": [], "categories": []}': "lists no images",
    '{"images": [{"id": 1},], "categories": []}': "expected an item behind the comma",
    '{"images": []} x': "nothing behind the object",
    '{"images": [{"id": 1} {"id": 2}]}': "expected ','",
    "\xff": "expected '{'",
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.items())
def test_ingest_coco_file_of_another_form_is_refused(dataset, text, problem):
    with pytest.raises(BadInput, match=problem):
        dataset.ingest_coco(text)


def test_ingest_coco_byte_order_mark_and_spaces_are_no_problem(dataset):
    dataset.ingest_coco("\ufeff \n" + json.dumps(coco([box()]), indent=3) + "\n\n")
    assert len(dataset.rows("boxes")) == 1


def test_write_boxes_file_that_changes_meanwhile_commits_nothing(dataset):
    from labelmill.tasks.boxes.job import write_boxes
    from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk
    from labelmill.tasks.store import open_store

    path = dataset.write_coco(coco([box()]))
    parameters = IngestCocoParameters(
        store=str(dataset.store), dataset="coco", annotations=str(path), images=str(dataset.images)
    )
    prepared = prepare_coco(parameters)
    images = commit_ingest(prepared.images, [ingest_chunk(prepared.images, c) for c in prepared.images.chunks])
    for content in (coco([box(area=15)]), '{"images": ['):
        dataset.write_coco(content)
        with pytest.raises(WorkFailed, match="changed while it was read"):
            write_boxes(prepared, images)
    assert not open_store(dataset.store).table("coco.boxes").numbers()


def test_ingest_coco_again_makes_no_version_and_another_split_keeps_the_first(dataset):
    first = dataset.ingest_coco(coco([box(), box(id=2)]), boxes_per_part=1)
    assert dataset.ingest_coco(coco([box(), box(id=2)]), boxes_per_part=1).version == first.version
    images = [{"id": 8, "file_name": "b.jpg", "width": 40, "height": 30}]
    second = dataset.ingest_coco(coco([box(image_id=8)], images), split="val")
    assert second.version.parts[:2] == first.version.parts
    assert [(row["split"], row["box_id"]) for row in dataset.rows("boxes")] == [("train", 0), ("train", 1), ("val", 0)]
    third = dataset.ingest_coco(coco([box()]), boxes_per_part=1)
    assert [(row["split"], row["box_id"]) for row in dataset.rows("boxes")] == [("val", 0), ("train", 0)]
    assert third.version.metadata["splits"].keys() == {"train", "val"}


def test_write_boxes_that_stopped_goes_on_where_it_was(dataset, monkeypatch):
    from labelmill.tasks.store import Table

    content = coco([box(id=number) for number in range(7)])
    written = []
    write_part = Table.write_part

    def count(table, rows, **options):
        if table.name == "coco.boxes":
            if len(written) == 2:
                raise RuntimeError("stopped")
            written.append(len(rows))
        return write_part(table, rows, **options)

    monkeypatch.setattr(Table, "write_part", count)
    with pytest.raises(RuntimeError):
        dataset.ingest_coco(content, boxes_per_part=2)
    written.append("again")
    version = dataset.ingest_coco(content, boxes_per_part=2).version
    assert written == [2, 2, "again", 2, 1]
    monkeypatch.undo()
    whole = Dataset(dataset.images)
    assert [part.sha256 for part in whole.ingest_coco(content, boxes_per_part=2).version.parts] == [
        part.sha256 for part in version.parts
    ]


def test_ingest_coco_tables_are_verified_and_read_by_sql(dataset):
    from labelmill.tasks.store import open_store
    from labelmill.tasks.store.verify import verify_version

    dataset.ingest_coco(coco([box(), box(id=2, bbox=[1, 1, 0, 0])]))
    store = open_store(dataset.store)
    for name in ("coco.images", "coco.boxes", "coco.image_entries"):
        assert verify_version(store.table(name), 1).problems == ()
    with store.connect() as sql:
        query = "SELECT box_id, flags FROM coco.boxes JOIN coco.image_entries USING (image_id, split) WHERE NOT valid"
        assert sql.execute(query).fetchall() == [(1, ["zero_size"])]


def test_ingest_coco_without_annotations_makes_an_empty_table_of_boxes(dataset):
    written = dataset.ingest_coco(coco([]))
    assert (written.version.rows, dataset.rows("boxes")) == (0, [])


# Items of any kind, those of COCO's form among them.
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_infinity=False) | st.text(max_size=5)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
numbers = st.floats(-1e4, 1e4) | st.integers(-1000, 1000)
keys = st.sampled_from(
    [
        "id",
        "image_id",
        "category_id",
        "bbox",
        "area",
        "iscrowd",
        "segmentation",
        "score",
        "file_name",
        "width",
        "height",
    ]
)
likely = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5), "image_id": st.integers(5, 9), "category_id": st.sampled_from([1, 90, 3]),
        "bbox": st.lists(numbers, min_size=4, max_size=4), "area": numbers, "iscrowd": st.integers(0, 1),
        "segmentation": st.lists(st.lists(numbers, max_size=6), max_size=2)
        | st.fixed_dictionaries({"size": st.lists(st.integers(0, 9)), "counts": st.text(max_size=9)}),
    }
)  # fmt: skip
annotations = st.lists(likely | st.dictionaries(keys, values, max_size=5) | values, max_size=5)
entries = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(5, 9) | scalars, "file_name": st.sampled_from(["a.jpg", "b/c.jpg"]) | scalars},
        optional={"width": scalars, "height": scalars, "license": values},
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def read_back(folder, out="out"):
    return json.loads((folder / out / "annotations" / "instances_train.json").read_text())


def same(one, other):
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(annotations=annotations, entries=entries, window=st.sampled_from([64, 400, 2**20]), info=values)
def test_coco_round_trip_gives_back_every_value(annotations, entries, window, info):
    content = coco(annotations, entries, info=info)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_json, "WINDOW_BYTES", window)
        dataset = Dataset(Path(name))
        (dataset.images / "a.jpg").write_bytes(make_jpeg())
        dataset.ingest_coco(content)
        assert len(dataset.rows("boxes")) == len(annotations)
        dataset.export("coco")
        assert same(read_back(dataset.folder), content)


@pytest.mark.sample_data
@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_round_trip_of_real_annotations_scores_one(dataset, sample_data, split, capsys):
    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    original = sample_data / "coco" / f"mini_instances_{split}2017.json"
    dataset.ingest_coco(original.read_text(), boxes_per_part=100)
    dataset.export("coco")
    back = dataset.folder / "out" / "annotations" / "instances_train.json"
    assert json.loads(back.read_text()) == json.loads(original.read_text())
    truth, ours = COCO(str(original)), COCO(str(back))
    results = [{**annotation, "score": 1.0} for annotation in ours.dataset["annotations"] if not annotation["iscrowd"]]
    for kind in ("bbox", "segm"):
        scores = COCOeval(truth, truth.loadRes([dict(result) for result in results]), kind)
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
        assert np.isclose(scores.stats[0], 1.0), kind
