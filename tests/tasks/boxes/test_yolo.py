"""YOLO's boxes in and out."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.annotated_dataset import Dataset, make_jpeg

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestYoloParameters
from labelmill.tasks.boxes.read_small_files import list_below
from labelmill.tasks.boxes.yolo import parse_line
from labelmill.tasks.boxes.yolo_layout import find_yolo


def write_yolo(folder, labels, names=("cat", "dog"), *, split="train"):
    """Write images 40 x 30 with label files below a folder; a text of None means an image without label file."""
    root = folder / "yolo"
    for place in ("images", "labels"):
        (root / place / split).mkdir(parents=True, exist_ok=True)
    for stem, text in labels.items():
        (root / "images" / split / f"{stem}.jpg").write_bytes(make_jpeg())
        if text is not None:
            (root / "labels" / split / f"{stem}.txt").write_text(text)
    facts = {"path": str(root), split: f"images/{split}", "names": dict(enumerate(names))}
    (root / "data.yaml").write_text(yaml.safe_dump(facts))
    return root


def ingest(dataset, root, **options):
    return dataset.ingest(IngestYoloParameters, source=str(root), **options)


def test_ingest_yolo_box_is_in_pixels_of_its_image(dataset):
    root = write_yolo(dataset.folder, {"a": "1 0.5 0.5 0.25 0.2\n", "b": "", "c": None})
    written = ingest(dataset, root)
    (row,) = dataset.rows("boxes")
    assert [row[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([15, 12, 25, 18])
    assert (row["image_id"], row["class_id"], row["category_id"], row["valid"]) == ("a.jpg", 1, 1, True)
    assert [(row["image_id"], row["labels"]) for row in dataset.rows("images")] == [
        ("a.jpg", [1]),
        ("b.jpg", []),
        ("c.jpg", []),
    ]
    assert written.counts == {"boxes": 1, "valid": 1}


def test_ingest_yolo_polygon_has_its_box_and_its_points(dataset):
    ingest(dataset, write_yolo(dataset.folder, {"a": "0 0.25 0.1 0.75 0.1 0.5 0.6\n"}))
    (row,) = dataset.rows("boxes")
    assert [row[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([10, 3, 30, 18])
    assert row["segmentation"] == "[[10.0,3.0,30.0,3.0,20.0,18.0]]"


ODD_LINES = {
    "words": ("cat dog\n", ["malformed", "unknown_category"]),
    "too few": ("0 0.5 0.5\n", ["malformed"]),
    "no such class": ("7 0.5 0.5 0.1 0.1\n", ["unknown_category"]),
    "nan": ("0 nan 0.5 0.1 0.1\n", ["not_finite"]),
    "zero": ("0 0.5 0.5 0 0.1\n", ["zero_size"]),
    "negative": ("0 0.5 0.5 -0.1 0.1\n", ["negative_size"]),
    "pixels": ("0 15 12 10 6\n", ["outside"]),
    "over the edge": ("0 0.9 0.5 0.5 0.1\n", ["crosses_edge"]),
}


@pytest.mark.parametrize(("text", "flags"), ODD_LINES.values(), ids=ODD_LINES)
def test_ingest_yolo_odd_line_is_a_flagged_row(dataset, text, flags):
    ingest(dataset, write_yolo(dataset.folder, {"a": text}))
    (row,) = dataset.rows("boxes")
    assert row["flags"] == flags


def test_ingest_yolo_labels_without_an_image_and_of_a_broken_one_are_flagged(dataset):
    root = write_yolo(dataset.folder, {"a": "0 0.5 0.5 0.1 0.1\n", "b": "0 0.5 0.5 0.1 0.1\n"})
    (root / "images" / "train" / "a.jpg").unlink()
    (root / "images" / "train" / "b.jpg").write_bytes(b"no image")
    ingest(dataset, root)
    assert [row["flags"] for row in dataset.rows("boxes")] == [["no_image_size", "unknown_image"], ["no_image_size"]]
    assert [row["source_box"] for row in dataset.rows("boxes")] == [[0.5, 0.5, 0.1, 0.1]] * 2


def test_ingest_yolo_folder_without_yaml_numbers_its_classes(dataset):
    root = write_yolo(dataset.folder, {"a": "2 0.5 0.5 0.1 0.1\n"})
    (root / "data.yaml").unlink()
    written = ingest(dataset, root)
    names = [one["name"] for one in written.version.metadata["classes"]["classes"]]
    assert names == ["class 0", "class 1", "class 2"]


BAD_YAMLS = {
    "no yaml at all": ("{", "not a YAML file"),
    "a list": ("- a", "expected the keys"),
    "another split": ("names: [a]\nval: images/train", "names no folder of images as 'train': it has val"),
    "no folder": ("names: [a]\ntrain: images/gone", "no folder"),
    "no names": ("names: 3\ntrain: images/train", "expected a list of class names"),
    "an object of Python": ("names: !!python/object/apply:os.system [ls]", "not a YAML file"),
}


@pytest.mark.parametrize(("text", "problem"), BAD_YAMLS.values(), ids=BAD_YAMLS)
def test_find_yolo_of_a_bad_yaml_says_what_is_wrong(dataset, text, problem):
    root = write_yolo(dataset.folder, {"a": ""})
    (root / "data.yaml").write_text(text)
    with pytest.raises(BadInput, match=problem):
        find_yolo(str(root), "train", None)


def test_export_yolo_leaves_out_crowds_and_cuts_at_the_edge(dataset):
    (dataset.images / "a.jpg").write_bytes(make_jpeg())
    usual = {"image_id": 7, "category_id": 1, "area": 1, "segmentation": [], "iscrowd": 0}
    boxes = [
        {**usual, "id": 1, "bbox": [30, 0, 20, 15]},
        {**usual, "id": 2, "bbox": [0, 0, 20, 15], "iscrowd": 1},
        {**usual, "id": 3, "bbox": [0, 0, 0, 15]},
        {**usual, "id": 4, "bbox": [0, 0, 4, 15], "image_id": 8},
    ]
    images = [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}]
    dataset.ingest_coco({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    run = dataset.export("yolo")
    assert (dataset.folder / "out/labels/train/a.txt").read_text() == "0 0.875 0.25 0.25 0.5\n"
    assert run.exported.boxes_left_out == {"crowd": 1, "invalid_box": 1, "box_of_no_image": 1}
    assert yaml.safe_load((dataset.folder / "out/data.yaml").read_text())["names"] == ["cat"]


shares = st.floats(0.01, 0.99)
lines = st.lists(
    st.tuples(st.integers(0, 1), shares, shares, shares, shares).map(lambda t: " ".join(map(repr, t))), max_size=4
)


@settings(max_examples=15, deadline=None)
@given(labels=st.dictionaries(st.sampled_from(["a", "b", "ü c"]), lines, min_size=1))
def test_yolo_round_trip_gives_back_every_line(labels):
    with tempfile.TemporaryDirectory() as name:
        dataset = Dataset(Path(name))
        root = write_yolo(dataset.folder, {stem: "\n".join(of_file) for stem, of_file in labels.items()})
        ingest(dataset, root)
        dataset.export("yolo")
        for stem, of_file in labels.items():
            back = (dataset.folder / "out" / "labels" / "train" / f"{stem}.txt").read_text()
            inside = [line for line in of_file if is_inside(line)]
            assert [line for line in back.splitlines() if line in inside] == inside
        again = Dataset(make_folder(dataset.folder / "again"))
        ingest(again, dataset.folder / "out")
        kept = [row["source_box"] for row in dataset.rows("boxes") if row["valid"]]
        assert [row["source_box"] for row in again.rows("boxes")] == kept


def make_folder(path):
    path.mkdir()
    return path


def is_inside(line):
    cx, cy, w, h = parse_line(line).box
    return w / 2 < cx < 1 - w / 2 and h / 2 < cy < 1 - h / 2


@pytest.mark.sample_data
def test_yolo_of_real_boxes_comes_back(dataset, sample_data):
    import pyarrow.parquet as pq

    names = [f"class {number}" for number in range(80)]
    root = write_yolo(dataset.folder, {}, names)
    rows = pq.read_table(sample_data / "coco" / "coco128_train2017.parquet").slice(0, 12).to_pylist()
    texts = {}
    for row in rows:
        stem = f"{row['image_id']:012d}"
        (root / "images" / "train" / f"{stem}.jpg").write_bytes(row["image"])
        lines = [f"{int(c)} " + " ".join(f"{v:.6f}" for v in box) for c, *box in row["yolo_boxes"]]
        texts[stem] = "".join(line + "\n" for line in lines)
        (root / "labels" / "train" / f"{stem}.txt").write_text(texts[stem])
    written = ingest(dataset, root)
    assert written.counts["boxes"] == sum(text.count("\n") for text in texts.values())
    assert written.counts["valid"] == written.counts["boxes"]
    dataset.export("yolo")
    for stem, text in texts.items():
        back = (dataset.folder / "out" / "labels" / "train" / f"{stem}.txt").read_text()
        assert [parse_line(line).box for line in back.splitlines()] == [
            parse_line(line).box for line in text.splitlines()
        ]


def test_list_below_links_that_lead_back_up_are_not_followed_without_end(tmp_path):
    (tmp_path / "labels" / "deep").mkdir(parents=True)
    (tmp_path / "labels" / "deep" / "a.txt").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.TXT").write_text("")
    for number in range(3):
        (tmp_path / "labels" / "deep" / f"up{number}").symlink_to("..")
    (tmp_path / "labels" / "linked").symlink_to("../elsewhere")
    assert list_below(tmp_path / "labels", ".txt") == ["deep/a.txt", "linked/b.TXT"]


def test_ingest_yolo_label_file_of_two_images_belongs_to_neither(dataset):
    root = write_yolo(dataset.folder, {"a": "0 0.5 0.5 0.2 0.2\n", "b": "1 0.5 0.5 0.2 0.2\n"})
    (root / "images/train/a.png").write_bytes(make_jpeg())
    ingest(dataset, root)
    assert [(row["image_id"], row["flags"]) for row in dataset.rows("boxes")] == [
        (None, ["no_image_size", "ambiguous_image"]),
        ("b.jpg", []),
    ]
    labels = {row["image_id"]: row["labels"] for row in dataset.rows("images")}
    assert labels == {"a.jpg": [], "a.png": [], "b.jpg": [1]}


def test_ingest_yolo_classes_txt_beside_the_labels_is_no_label_file(dataset):
    root = write_yolo(dataset.folder, {"a": "0 0.5 0.5 0.2 0.2\n"})
    (root / "labels/train/classes.txt").write_text("cat\ndog\n")
    assert ingest(dataset, root).counts == {"boxes": 1, "valid": 1}


@pytest.mark.parametrize(
    ("text", "category"),
    [("0.0", 0), ("1.000000e+01", 10), ("1.5", None), ("-1", -1), ("nan", None), ("1e400", None), ("٣", None)],
)
def test_parse_line_class_is_a_whole_number_however_it_is_written(text, category):
    assert parse_line(f"{text} 0.5 0.5 0.1 0.1").category == category


def test_export_yolo_data_yaml_is_found_from_anywhere(dataset):
    ingest(dataset, write_yolo(dataset.folder, {"a": "0 0.5 0.5 0.2 0.2\n"}))
    dataset.export("yolo")
    assert "path" not in yaml.safe_load((dataset.folder / "out/data.yaml").read_text())
    layout = find_yolo(str(dataset.folder / "out"), "train", None)
    assert layout.images == dataset.folder / "out/images/train"
