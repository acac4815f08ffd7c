"""Datasets written out: what is in the files, what is left out, and what is never overwritten."""

import csv
import hashlib
import json
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.annotated_dataset import Dataset, make_jpeg

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import IngestFolderParameters
from labelmill.tasks.export import web_dataset
from labelmill.tasks.export.out_folder import hold_folder
from labelmill.tasks.store.files import temporary_beside

COUNTS = {"cat": 5, "dog/big": 3}


def write_tree(folder):
    """Write eight images of two classes, each with other bytes, and a file that is no image."""
    root = folder / "tree"
    for place, count in COUNTS.items():
        (root / place).mkdir(parents=True)
        for number in range(count):
            (root / place / f"{number}.jpg").write_bytes(make_jpeg((40, 30 + number)))
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture
def pets(dataset):
    """A dataset of eight images of two classes."""
    ingest_tree(dataset, write_tree(dataset.folder))
    return dataset


def ingest_tree(dataset, root, **options):
    return dataset.ingest(IngestFolderParameters, source=str(root), **options)


def files_below(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_export_csv_names_files_where_they_lie_with_their_classes(pets):
    run = pets.export("csv")
    rows = read_csv(pets.folder / "out" / "train.csv")
    assert [row["label"] for row in rows] == ["cat"] * 5 + ["dog"] * 3
    assert all(Path(row["path"]).is_file() for row in rows)
    assert run.exported.left_out == {"not_an_image": 1}
    assert not (pets.folder / "out" / "images").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("form", ["csv", "imagefolder", "webdataset", "coco"])
def test_export_of_members_writes_plain_files_of_the_same_bytes(dataset, kind, form):
    root = write_tree(dataset.folder)
    archive = dataset.folder / f"pets.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(root.rglob("*.jpg")):
                file.write(path, path.relative_to(root))
    else:
        with tarfile.open(archive, "w") as file:
            file.add(root, ".")
    ingest_tree(dataset, archive)
    dataset.export(form)
    originals = {digest for path, digest in files_below(root).items() if "broken" not in path}
    out = dataset.folder / "out"
    if form == "webdataset":
        with tarfile.open(out / "train-000000.tar") as shard:
            members = [shard.extractfile(m).read() for m in shard if m.name.endswith(".jpg")]
        assert {hashlib.sha256(data).hexdigest() for data in members} == originals
    else:
        written = {digest for path, digest in files_below(out).items() if path.endswith(".jpg")}
        assert written == originals
        assert not any(path.is_symlink() for path in out.rglob("*"))


def test_export_imagefolder_is_read_by_torchvision(pets):
    from torchvision.datasets import ImageFolder

    pets.export("imagefolder")
    found = ImageFolder(str(pets.folder / "out" / "train"))
    assert found.classes == ["cat", "dog"]
    assert [label for _, label in found.samples] == [0] * 5 + [1] * 3
    assert (pets.folder / "out/train/dog/big%2F0.jpg").is_symlink()


def test_export_webdataset_has_the_same_bytes_again_and_ends_what_was_begun(pets):
    pets.export("webdataset", shard_images=3)
    first = files_below(pets.folder / "out")
    assert [name for name in first if name.endswith("tar")] == [f"train-{n:06d}.tar" for n in range(3)]
    (pets.folder / "out" / "train-000001.tar").unlink()
    again = pets.export("webdataset", shard_images=3)
    assert files_below(pets.folder / "out") == first
    assert (again.exported.written, again.exported.kept) == (3, 5)
    pets.export("webdataset", "elsewhere", shard_images=3)
    assert files_below(pets.folder / "elsewhere") == first


def test_export_webdataset_samples_have_image_class_and_facts(pets):
    pets.export("webdataset")
    with tarfile.open(pets.folder / "out" / "train-000000.tar") as shard:
        names = shard.getnames()
        facts = json.load(shard.extractfile("000000005.json"))
        label = shard.extractfile("000000005.cls").read()
    assert names[:3] == ["000000000.jpg", "000000000.cls", "000000000.json"]
    assert (facts["image_id"], facts["class_names"], label) == ("dog/big/0.jpg", ["dog"], b"1")


def test_export_webdataset_stopped_in_a_shard_leaves_whole_ones_only(pets, monkeypatch):
    calls = []

    def fail_at_five():
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("stopped")

    monkeypatch.setattr(web_dataset, "check_stop", fail_at_five)
    with pytest.raises(RuntimeError):
        pets.export("webdataset", shard_images=3)
    left = sorted(path.name for path in (pets.folder / "out").iterdir())
    assert left == [".labelmill-export.json", "train-000000.tar"]
    pets.export("webdataset", shard_images=3)
    pets.export("webdataset", "elsewhere", shard_images=3)
    assert files_below(pets.folder / "out") == files_below(pets.folder / "elsewhere")


@pytest.mark.parametrize("form", ["csv", "coco", "webdataset", "imagefolder"])
def test_export_of_a_fraction_is_exact_seeded_and_part_of_a_larger_one(pets, form):
    def ids(out, **options):
        run = pets.export(form, out, **options)
        return set(run.selected)

    some, more = ids("a", fraction=0.3), ids("b", fraction=0.6)
    assert (len(some), len(more)) == (3, 5)
    assert some < more
    assert ids("c", fraction=0.3) == some
    assert ids("d", fraction=0.3, seed=1) != some
    assert files_below(pets.folder / "a") != {}
    assert {k: v for k, v in files_below(pets.folder / "a").items() if k[0] != "."} == {
        k: v for k, v in files_below(pets.folder / "c").items() if k[0] != "."
    }


def test_export_into_a_folder_with_other_files_is_refused(pets):
    (pets.folder / "out").mkdir()
    (pets.folder / "out" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"out: .*holds other files"):
        pets.export("csv")
    assert files_below(pets.folder / "out").keys() == {"mine.txt"}


def test_export_into_the_folder_of_another_export_is_refused(pets):
    pets.export("csv")
    with pytest.raises(BadInput, match="belongs to an export of other versions or parameters"):
        pets.export("csv", fraction=0.5)


@pytest.mark.parametrize("place", ["train.csv", "train/cat/0.jpg"])
def test_export_never_replaces_a_file_of_another_content(pets, place):
    form = "csv" if place.endswith("csv") else "imagefolder"
    pets.export(form)
    path = pets.folder / "out" / place
    path.unlink()
    path.write_text("mine")
    with pytest.raises(BadInput, match="nothing is written over it"):
        pets.export(form)
    assert path.read_text() == "mine"


def test_export_of_images_that_changed_or_vanished_counts_them(pets):
    (pets.folder / "tree" / "cat" / "0.jpg").write_bytes(make_jpeg((99, 99)))
    (pets.folder / "tree" / "cat" / "1.jpg").unlink()
    for form in ("imagefolder", "webdataset"):
        run = pets.export(form, form)
        assert run.exported.left_out == {"not_an_image": 1, "changed": 1, "missing": 1}
        assert run.exported.written == 6


def test_export_again_keeps_what_is_there(pets):
    pets.export("imagefolder", images="copy")
    again = pets.export("imagefolder", images="copy")
    assert (again.exported.written, again.exported.kept) == (0, 8)


def test_export_does_not_follow_a_link_out_of_its_folder(pets):
    (pets.folder / "elsewhere").mkdir()
    pets.export("imagefolder")
    for path in (pets.folder / "out" / "train" / "cat").iterdir():
        path.unlink()
    (pets.folder / "out" / "train" / "cat").rmdir()
    os.symlink(pets.folder / "elsewhere", pets.folder / "out" / "train" / "cat")
    with pytest.raises(BadInput, match="leads out of"):
        pets.export("imagefolder")
    assert list((pets.folder / "elsewhere").iterdir()) == []


def test_export_of_images_with_several_labels_or_none_is_counted(dataset):
    for name in "abc":
        (dataset.images / f"{name}.jpg").write_bytes(make_jpeg())
    dataset.ingest_table("path,label\na.jpg,x|y\nb.jpg,y\nc.jpg,\n", label_separator="|")
    run = dataset.export("imagefolder", "tree")
    assert run.exported.left_out == {"several_labels": 1, "no_label": 1}
    dataset.export("csv")
    assert [row["label"] for row in read_csv(dataset.folder / "out" / "train.csv")] == ["x|y", "y", ""]


REFUSED = {
    "no such split": ({"form": "csv", "split": "test"}, BadInput, "split: expected one of train, got 'test'"),
    "yolo without boxes": ({"form": "yolo"}, NotInStore, "coco.boxes: no such table"),
    "shards without images": ({"form": "webdataset", "images": "none"}, BadInput, "made of images"),
    "a fraction of nothing": ({"form": "csv", "fraction": 0.01}, BadInput, "is none"),
}


@pytest.mark.parametrize(("options", "error", "problem"), REFUSED.values(), ids=REFUSED)
def test_export_that_cannot_be_is_refused(pets, options, error, problem):
    with pytest.raises(error, match=problem):
        pets.export(**options)


def test_export_of_a_name_that_is_too_long_is_counted(dataset):
    deep = "/".join(["d" * 60] * 4)
    (dataset.images / deep).mkdir(parents=True)
    (dataset.images / deep / "a.jpg").write_bytes(make_jpeg())
    dataset.ingest_table(f"path,label\n{deep}/a.jpg,x\n")
    assert dataset.export("imagefolder").exported.left_out == {"bad_name": 1}


def test_export_coco_of_a_tree_loads_and_numbers_from_one(pets):
    from pycocotools.coco import COCO

    pets.export("coco")
    found = COCO(str(pets.folder / "out/annotations/instances_train.json"))
    assert sorted(found.imgs) == list(range(1, 9))
    assert [one["name"] for one in found.dataset["categories"]] == ["cat", "dog"]


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))  # fmt: skip
labels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(content=st.dictionaries(names, labels, min_size=1, max_size=5))
def test_csv_round_trip_gives_back_every_path_and_label(content):
    with tempfile.TemporaryDirectory() as name:
        dataset = Dataset(Path(name))
        table = Path(name, "in.csv")
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([["path", "label"], *content.items()])
        for path in content:
            (dataset.images / path).write_bytes(make_jpeg())
        dataset.ingest_table(table.read_bytes())
        dataset.export("csv")
        rows = read_csv(Path(name, "out", "train.csv"))
        assert {os.path.relpath(row["path"], dataset.images): row["label"] for row in rows} == content


@settings(max_examples=25, deadline=None)
@given(content=st.dictionaries(names, labels, min_size=1, max_size=5))
def test_imagefolder_names_never_fall_together(content):
    with tempfile.TemporaryDirectory() as name:
        dataset = Dataset(Path(name))
        table = Path(name, "in.csv")
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([["path", "label"], *content.items()])
        for path in content:
            (dataset.images / path).write_bytes(make_jpeg())
        dataset.ingest_table(table.read_bytes())
        run = dataset.export("imagefolder")
        assert run.exported.left_out == {}
        written = [path for path in (dataset.folder / "out" / "train").rglob("*") if path.is_symlink()]
        assert len(written) == len(content)
        assert all(len(path.relative_to(dataset.folder / "out" / "train").parts) == 2 for path in written)


def test_export_coco_of_an_older_boxes_version_says_what_its_own_source_said(dataset):
    (dataset.images / "a.jpg").write_bytes(make_jpeg())
    said = [
        {
            "images": [{"id": number, "file_name": "a.jpg", "width": 40, "height": 30, "license": number}],
            "annotations": [{"id": 1, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        for number in (7, 8)
    ]
    for content in said:
        dataset.ingest_coco(content)
    for number, content in enumerate(said, start=1):
        dataset.export("coco", f"out{number}", boxes_version=number)
        assert json.loads((dataset.folder / f"out{number}/annotations/instances_train.json").read_text()) == content


@pytest.mark.parametrize("form", ["csv", "imagefolder", "webdataset"])
def test_export_again_removes_the_unfinished_files_of_a_killed_one(pets, form):
    out = pets.folder / "out"
    pets.export(form, images="copy")
    whole = files_below(out)
    with temporary_beside(out / "one.jpg") as temporary:
        name = temporary.name  # a killed process leaves it
    for place in {path.parent for path in out.rglob("*")}:
        (place / name).write_bytes(b"half a picture")
    pets.export(form, images="copy")
    assert files_below(out) == whole


def test_export_into_a_folder_that_another_export_holds_is_refused(pets):
    first = pets.export("csv")
    with hold_folder(first.out), pytest.raises(BadInput, match="another export is at work"):
        pets.export("csv")
