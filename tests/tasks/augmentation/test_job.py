"""Views become rows, files and boxes: the same ones however the work is cut, stopped or repeated."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tasks.augmentation.augmented import augment
from tests.tasks.augmentation.view_strategies import noise

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import AnchorsParameters
from labelmill.schemas.views import parse_steps
from labelmill.tasks.anchors.job import prepare_anchors
from labelmill.tasks.anchors.preflight import check_anchors
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.carry_shape import draw_shape
from labelmill.tasks.augmentation.recorded_views import RecordedViews
from labelmill.tasks.augmentation.sheet import build_sheet
from labelmill.tasks.store import open_store

SIZES = [(40, 30), (33, 50), (64, 20), (21, 21), (50, 40)]


@pytest.fixture
def pictured(dataset):
    """A dataset of five noisy images with boxes, polygons, RLE and a crowd, and one image that is none."""
    images, annotations = [], []
    for number, size in enumerate(SIZES, start=1):
        name = f"{number}.png"
        Image.fromarray(noise(size, number)).save(dataset.images / name)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        w, h = size[0] // 2, size[1] // 2
        annotations += [
            {"bbox": [2, 3, w, h], "segmentation": [[2, 3, 2 + w, 3, 2 + w, 3 + h, 2, 3 + h]], "iscrowd": 0},
            {
                "bbox": [0, 0, *size],
                "segmentation": {"size": size[::-1], "counts": [0, size[0] * size[1]]},
                "iscrowd": 1,
            },
            {"bbox": [1, 1, 0, 5], "iscrowd": 0},
        ]
        for extra in annotations[-3:]:
            extra |= {"id": len(annotations) * 10 + len(extra), "image_id": number, "category_id": 7, "area": 1.0}
    for place, annotation in enumerate(annotations):
        annotation["id"] = place + 1
    images.append({"id": 6, "file_name": "6.png", "width": 9, "height": 9})
    (dataset.images / "6.png").write_bytes(b"")
    dataset.ingest_coco(
        {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "thing"}]}, split="train"
    )
    return dataset


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_augment_files_are_what_the_records_replay_in_any_order(pictured, tmp_path):
    made = augment(pictured.store, policy="strong", epochs=2, into="more", out=str(tmp_path / "out"), format="png")
    records = [row for row in made.rows("more.views") if row["status"] == "done"]
    assert len(records) == 2 * len(SIZES)
    random.Random(0).shuffle(records)
    replayed = RecordedViews(open_store(pictured.store), "more.views")
    for record in records:
        source = pixels_of(pictured.images / record["image_id"])
        view = replayed.view(epoch=record["epoch"], image_id=record["image_id"], size=source.shape[1::-1])
        found = pixels_of(tmp_path / "out" / "train" / record["view_id"])
        assert np.array_equal(apply_to_pixels(source, view.steps), found)
        assert np.array_equal(apply_to_pixels(source, parse_steps(record["steps"])), found)
        assert np.float32(view.box[0]) == np.float32(record["x1"])


def test_augment_rows_carry_labels_files_and_rejects(pictured, tmp_path):
    made = augment(pictured.store, policy="weak-cifar", into="more", out=str(tmp_path / "out"), first_epoch=3)
    rows = {row["image_id"]: row for row in made.rows("more.images")}
    assert sorted(rows) == [*(f"{n}.png.e3.jpg" for n in range(1, 6)), "6.png.e3.jpg"]
    rejected = rows["6.png.e3.jpg"]
    assert (rejected["status"], rejected["reason"], rejected["sha256"]) == ("rejected", "empty", None)
    good = rows["1.png.e3.jpg"]
    data = (tmp_path / "out/train/1.png.e3.jpg").read_bytes()
    assert (good["sha256"], good["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (good["width"], good["height"], good["format"], good["mode"]) == (40, 30, "jpeg", "RGB")
    assert made.images.metadata["roots"] == {"train": str(tmp_path / "out/train")}
    assert made.images.lineage.inputs == {"coco.images": 1, "coco.boxes": 1}
    record = next(row for row in made.rows("more.views") if row["image_id"] == "6.png")
    assert (record["status"], record["reason"], record["steps"]) == ("rejected", "empty", None)
    assert made.views.metadata["policy"]["name"] == "weak-cifar"


def test_augment_cut_otherwise_stopped_and_repeated_gives_the_same(pictured, tmp_path):
    options = {"policy": "strong-cifar", "epochs": 2, "into": "more", "shard_size": 2}
    whole = augment(
        pictured.store, **options | {"into": "whole", "shard_size": 100}, out=str(tmp_path / "whole"), workers=1
    )
    augment(pictured.store, **options, out=str(tmp_path / "out"), shards=3)
    made = augment(pictured.store, **options, out=str(tmp_path / "out"))
    assert made.worked == 3
    files = [{p.name: p.read_bytes() for p in (tmp_path / name / "train").iterdir()} for name in ("whole", "out")]
    assert files[0] == files[1]
    drop = {"mtime_ns"}
    for table in ("views", "images", "boxes"):
        one, other = (
            sorted(sorted((k, str(v)) for k, v in row.items() if k not in drop) for row in made.rows(f"{name}.{table}"))
            for name in ("whole", "more")
        )
        assert one == other, table
    again = augment(pictured.store, **options, out=str(tmp_path / "out"))
    assert (again.worked, again.images.number, again.views.number, again.boxes[0].number) == (0, 1, 1, 1)
    assert whole.images.rows == again.images.rows


def test_augment_files_that_were_removed_are_made_again(pictured, tmp_path):
    options = {"policy": "weak-cifar", "into": "more", "out": str(tmp_path / "out"), "shard_size": 2}
    augment(pictured.store, **options)
    gone = tmp_path / "out/train/2.png.e0.jpg"
    before = gone.read_bytes()
    gone.unlink()
    assert augment(pictured.store, **options).worked == 1
    assert gone.read_bytes() == before


def test_augment_other_file_at_a_views_place_is_never_replaced(pictured, tmp_path):
    place = tmp_path / "out/train/1.png.e0.jpg"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"out: .*1.png.e0.jpg: a file with another content is there"):
        augment(pictured.store, into="more", out=str(tmp_path / "out"))
    assert place.read_bytes() == b"mine"


def test_augment_image_that_changed_is_a_row_and_is_tried_again(pictured, tmp_path):
    image = pictured.images / "3.png"
    data = image.read_bytes()
    image.write_bytes(data[:-1] + b"x")
    options = {"policy": "weak", "into": "more", "out": str(tmp_path / "out")}
    made = augment(pictured.store, **options)
    (row,) = [row for row in made.rows("more.images") if row["image_id"].startswith("3.")]
    assert (row["status"], row["reason"]) == ("rejected", "changed")
    image.write_bytes(data)
    made = augment(pictured.store, **options)
    (row,) = [row for row in made.rows("more.images") if row["image_id"].startswith("3.")]
    assert row["status"] == "done"


def test_augment_recording_alone_reads_no_image_and_draws_the_same(pictured, tmp_path):
    written = augment(pictured.store, policy="strong", into="more", out=str(tmp_path / "out"))
    for path in pictured.images.iterdir():
        path.unlink()
    recorded = augment(pictured.store, policy="strong")
    assert recorded.images is None
    keys = ("image_id", "epoch", "steps", "x1", "flipped", "policy_digest", "status", "reason")
    one, other = ([[row[key] for key in keys] for row in made.rows(name)] for made, name in (
        (written, "more.views"), (recorded, "coco.views")))  # fmt: skip
    assert one == other


def test_augment_boxes_and_masks_follow(pictured, tmp_path):
    made = augment(pictured.store, policy="weak-cifar", epochs=3, into="more", out=str(tmp_path / "out"))
    _, counts = made.boxes
    rows = made.rows("more.boxes")
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in made.rows("more.images")}
    assert counts.carried == len(rows) == 3 * 2 * len(SIZES)
    assert counts.left_out["no box of an image"] == len(SIZES)  # of no width
    assert [row["box_id"] for row in rows] == list(range(len(rows)))
    assert all(row["valid"] and row["class_id"] == 0 and row["category_id"] == 7 for row in rows)
    for row in rows:
        width, height = sizes[row["image_id"]]
        assert 0 <= row["x1"] < row["x2"] <= width
        assert 0 <= row["y1"] < row["y2"] <= height
        mask = draw_shape(row["segmentation"], (width, height))
        ys, xs = np.nonzero(mask)
        drawn = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(drawn, (row["x1"], row["y1"], row["x2"], row["y2"]))).max() <= 1
        assert row["area"] == mask.sum()
    assert {row["iscrowd"] for row in rows} == {True, False}


def test_augment_mosaic_takes_boxes_and_labels_of_four(pictured, tmp_path):
    policy = tmp_path / "four.yaml"
    policy.write_text("- {op: mosaic, size: [48, 64]}\n- flip\n")
    made = augment(pictured.store, policy=str(policy), into="more", out=str(tmp_path / "out"), format="png")
    assert made.run.policy.name == "four"
    for row in made.rows("more.images"):
        if row["status"] == "done":
            assert (row["width"], row["height"], row["label"]) == (64, 48, None)
    boxes = made.rows("more.boxes")
    assert len({row["image_id"] for row in boxes}) == len(SIZES)
    assert len(boxes) > 2 * len(SIZES)
    assert all(row["valid"] for row in boxes)
    record = next(row for row in made.rows("more.views") if row["image_id"] == "2.png")
    replayed = apply_to_pixels(
        pixels_of(pictured.images / "2.png"), parse_steps(record["steps"]),
        read_partner=lambda name: pixels_of(pictured.images / name),
    )  # fmt: skip
    assert np.array_equal(replayed, pixels_of(tmp_path / "out/train" / record["view_id"]))
    assert record["x1"] is None


def test_augment_exports_as_coco_and_yolo(pictured, tmp_path):
    augment(pictured.store, policy="weak-cifar", into="more", out=str(tmp_path / "out"))
    pictured.export("coco", out="coco", dataset="more")
    exported = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert (len(exported["images"]), len(exported["annotations"])) == (5, 10)
    pictured.export("yolo", out="yolo", dataset="more")
    assert len(list((tmp_path / "yolo/labels/train").iterdir())) == 5


def test_augment_boxes_are_clustered_by_split_as_any_others(pictured, tmp_path):
    augment(pictured.store, policy="weak-cifar", into="more", out=str(tmp_path / "out"))
    given = {"store": str(pictured.store), "dataset": "more", "k": 2}
    check_anchors(AnchorsParameters(**given, split="train"))
    assert len(prepare_anchors(AnchorsParameters(**given, split="train")).boxes) == 5  # the other 5 are crowds
    with pytest.raises(BadInput, match="split: expected one of train, got 'val'"):
        check_anchors(AnchorsParameters(**given, split="val"))


def test_augment_name_of_another_dataset_is_refused(pictured, tmp_path):
    images = [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}]
    pictured.ingest_coco({"images": images, "annotations": [], "categories": []}, dataset="other")
    with pytest.raises(BadInput, match="into: dataset other is there and was not made of coco by augment"):
        augment(pictured.store, into="other", out=str(tmp_path / "out"))
    with pytest.raises(BadInput, match=r"table: coco.image_entries is there and holds something else"):
        augment(pictured.store, table="image_entries")


def test_build_sheet_shows_views_with_their_parameters(pictured):
    made = augment(pictured.store, policy="strong", epochs=2, sheet_views=4)
    page = build_sheet(made.run, made.views)
    assert page.count('<article class="card">') == 4
    assert page.count("data:image/jpeg;base64,") == 8
    assert "<li>crop " in page
    assert "rand_augment (operations 2, magnitude 10" in page
    assert page == build_sheet(made.run, made.views)
    (pictured.images / "1.png").unlink()
    whole = augment(pictured.store, policy="strong", epochs=2, sheet_views=100)
    assert "missing: " in build_sheet(whole.run, whole.views)


def test_find_shard_receipt_of_other_images_or_seed_is_not_taken(pictured, tmp_path):
    options = {"policy": "weak", "into": "more", "out": str(tmp_path / "out")}
    augment(pictured.store, **options)
    assert augment(pictured.store, **options | {"epochs": 2}).worked == 1
    with pytest.raises(BadInput, match="another content"):
        augment(pictured.store, **options, seed=1)  # the folder holds views of the other seed
    assert Path(tmp_path / "out").exists()
