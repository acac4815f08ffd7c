"""Pascal VOC's annotations."""

import json

import pytest
from tests.tasks.annotated_dataset import make_jpeg

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestVocParameters
from labelmill.tasks.boxes.voc_file import BadXml, parse_voc

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def annotation(*objects, file_name="a.jpg"):
    return (
        f"<annotation><folder>VOC2012</folder><filename>{file_name}</filename>"
        f"<size><width>40</width><height>30</height><depth>3</depth></size>{''.join(objects)}</annotation>"
    )


def thing(name="cat", box=(1, 1, 10, 20), difficult=0):
    return OBJECT.format(name=name, box=box, difficult=difficult)


@pytest.fixture
def write_voc(dataset):
    """Write annotations and images below a folder; return it."""

    def write(annotations, images=("a",), sets=()):
        root = dataset.folder / "VOC2012"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for stem, text in annotations.items():
            (root / "Annotations" / f"{stem}.xml").write_text(text)
        for stem in images:
            (root / "JPEGImages" / f"{stem}.jpg").write_bytes(make_jpeg())
        for name, lines in dict(sets).items():
            (root / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
        return root

    return write


def ingest(dataset, root, **options):
    return dataset.ingest(IngestVocParameters, source=str(root), **options)


def test_ingest_voc_pixels_are_counted_from_zero_and_difficult_is_kept(dataset, write_voc):
    root = write_voc({"a": annotation(thing(), thing("dog", (11, 1, 40, 30), 1))})
    ingest(dataset, root)
    cat, dog = dataset.rows("boxes")
    assert [cat[name] for name in ("x1", "y1", "x2", "y2")] == [0, 0, 10, 20]
    assert [dog[name] for name in ("x1", "y1", "x2", "y2")] == [10, 0, 40, 30]
    assert (cat["difficult"], dog["difficult"], dog["flags"]) == (False, True, [])
    assert (cat["class_id"], dog["class_id"]) == (0, 1)
    assert cat["source_box"] == [1, 1, 10, 20]
    assert json.loads(cat["extra"]) == {"pose": "Left", "truncated": "1"}
    (entry,) = dataset.rows("image_entries")
    assert json.loads(entry["extra"])["folder"] == "VOC2012"


def test_ingest_voc_image_set_chooses_images_and_lists_missing_ones(dataset, write_voc):
    root = write_voc({"a": annotation(thing()), "b": annotation(thing())}, ("a", "b"), {"train": "a\nc 1\n"})
    ingest(dataset, root, image_set="train")
    rows = [(row["image_id"], row["status"], row["labels"]) for row in dataset.rows("images")]
    assert rows == [("a.jpg", "done", [0]), ("c.jpg", "rejected", [])]


ODD = {
    "no numbers": (thing(box=("a", 1, 2, 3)), ["malformed"]),
    "turned around": (thing(box=(10, 1, 2, 3)), ["negative_size"]),
    "outside": (thing(box=(41, 1, 50, 3)), ["outside"]),
    "nan": (thing(box=("nan", 1, 50, 3)), ["not_finite"]),
    "no name": (thing(name=""), ["unknown_category"]),
    "no content": ("<object/>", ["malformed", "unknown_category"]),
}


@pytest.mark.parametrize(("text", "flags"), ODD.values(), ids=ODD)
def test_ingest_voc_odd_object_is_a_flagged_row(dataset, write_voc, text, flags):
    ingest(dataset, write_voc({"a": annotation(text)}))
    (row,) = dataset.rows("boxes")
    assert row["flags"] == flags


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation><filename>&b;</filename></annotation>'
BAD = {
    "entities": (BOMB, "document type"),
    "an outside file": ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
    "cut": (annotation(thing())[:-20], "no element|unclosed|mismatched"),
    "empty": ("", "no element"),
    "another root": ("<html><body/></html>", "expected <annotation>, got <html>"),
    "deep": ("<annotation>" + "<a>" * 40 + "</a>" * 40 + "</annotation>", "nested too deeply"),
    "another code": ('<?xml version="1.0" encoding="klingon"?><annotation><a/></annotation>', "encoding"),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD)
def test_parse_voc_of_a_bad_file_says_why(text, problem):
    with pytest.raises(BadXml, match=problem):
        parse_voc(text.encode())


def test_ingest_voc_annotation_that_cannot_be_read_leaves_its_image(dataset, write_voc):
    ingest(dataset, write_voc({"a": BOMB, "b": annotation(thing(), file_name="b.jpg")}, ("a", "b")))
    assert [(row["image_id"], row["status"]) for row in dataset.rows("images")] == [
        ("a.jpg", "done"),
        ("b.jpg", "done"),
    ]
    assert [row["image_id"] for row in dataset.rows("boxes")] == ["b.jpg"]


def test_ingest_voc_folder_of_another_form_is_refused(dataset):
    with pytest.raises(BadInput, match="expected VOC's folder with Annotations/ and JPEGImages/"):
        ingest(dataset, dataset.images)


@pytest.mark.parametrize("image_set", [None, "train"])
def test_ingest_voc_of_two_files_with_one_stem_boxes_belong_to_the_named_one(dataset, write_voc, image_set):
    root = write_voc({"a": annotation(thing(), file_name="a.jpg")}, ("a",), {"train": "a\n"})
    (root / "JPEGImages/a.png").write_bytes(make_jpeg())
    ingest(dataset, root, image_set=image_set)
    assert [row["image_id"] for row in dataset.rows("boxes")] == ["a.jpg"]
    listed = {row["image_id"]: row["labels"] for row in dataset.rows("images")}
    assert listed == ({"a.jpg": [0]} if image_set else {"a.jpg": [0], "a.png": []})
