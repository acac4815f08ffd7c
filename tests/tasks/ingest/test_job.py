"""Ingests from parameters to versions: what is read, what becomes a part, what is kept."""

import os
import shutil

import numpy as np
import pytest
import scipy.io

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.ingest.devkit import GROUND_TRUTH_FILE, META_FILE
from labelmill.tasks.store import open_store

FISH, SHARK, DOG = "n01440764", "n01484850", "n02119789"


def ids(rows):
    return [row["image_id"] for row in rows]


def touch(path, data=None):
    """Give a file a time that it never had, and other content when there is any."""
    if data is not None:
        path.write_bytes(data)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))


def write_devkit(folder):
    """Write a devkit whose ids 1, 2, 3 are neither the indices of the sorted wnids nor those plus one."""
    folder.mkdir()
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = [(1, DOG, "kit fox", 0), (2, FISH, "tench", 0), (3, SHARK, "great white shark", 0)]
    scipy.io.savemat(folder / META_FILE, {"synsets": np.array(synsets, dtype=fields)})
    (folder / GROUND_TRUTH_FILE).write_text("1\n2\n3\n1\n")
    return str(folder)


def test_commit_ingest_first_ingest_has_a_row_for_every_file(write_tree, ingest, read_rows):
    source = write_tree("images/cat/a.jpg", "images/dog/b.jpg", "images/dog/c.jpg", **{"images/x.jpg": b""}) / "images"
    version = ingest(chunk_size=2)
    rows = read_rows(version)
    assert (version.table, version.number, version.operation, len(version.parts)) == ("pets.images", 1, "append", 2)
    assert [(r["image_id"], r["label"], r["reason"]) for r in rows] == [
        ("cat/a.jpg", 0, None),
        ("dog/b.jpg", 1, None),
        ("dog/c.jpg", 1, None),
        ("x.jpg", None, "empty"),
    ]
    assert version.metadata["roots"] == {"train": str(source)}
    assert [c["name"] for c in version.metadata["classes"]["classes"]] == ["cat", "dog"]
    assert version.lineage.flow == "ingest-folder"


def test_commit_ingest_nothing_new_makes_no_version_and_reads_nothing(write_tree, ingest, reads):
    write_tree("images/cat/a.jpg", **{"images/cat/b.jpg": b"no picture"})
    with open(os.fsencode(write_tree("images/x.jpg")) + b"/images/caf\xe9.jpg", "wb"):
        pass
    first = ingest()
    reads.clear()
    assert ingest() == first
    assert reads == []


def test_commit_ingest_added_images_append_a_part_and_keep_the_others(write_tree, ingest, reads, read_rows):
    write_tree("images/cat/b.jpg", "images/cat/d.jpg", "images/cat/f.jpg")
    first = ingest(chunk_size=2)
    reads.clear()
    source = write_tree("images/cat/a.jpg", "images/cat/e.jpg") / "images"
    second = ingest(chunk_size=2)
    assert second.parts[:2] == first.parts
    assert (len(second.parts), second.operation, second.parent) == (3, "append", 1)
    assert sorted(reads) == [str(source / "cat/a.jpg"), str(source / "cat/e.jpg")]
    assert ids(read_rows(second)) == [f"cat/{name}.jpg" for name in "bdfae"]


def test_commit_ingest_changed_and_removed_images_rewrite_their_part_alone(write_tree, ingest, reads, read_rows, jpeg):
    source = write_tree(*(f"images/{name}.jpg" for name in "abcdefghi")) / "images"
    first = ingest(chunk_size=3)
    touch(source / "e.jpg", b"")
    (source / "d.jpg").unlink()
    reads.clear()
    second = ingest(chunk_size=3)
    assert (second.parts[0], second.parts[2]) == (first.parts[0], first.parts[2])
    assert second.parts[1].rows == 2
    assert second.operation == "replace"
    assert reads == [str(source / "e.jpg")]
    rows = read_rows(second)
    assert ids(rows) == [f"{name}.jpg" for name in "abcefghi"]
    assert {row["image_id"]: row["reason"] for row in rows if row["reason"]} == {"e.jpg": "empty"}
    assert [row for row in read_rows(first) if row["image_id"] not in {"d.jpg", "e.jpg"}] == [
        row for row in rows if row["image_id"] != "e.jpg"
    ]


def test_ingest_chunk_parts_that_only_lost_images_are_not_taken_for_one_another(write_tree, ingest, reads, read_rows):
    source = write_tree(*(f"images/{name}.jpg" for name in "abcdef")) / "images"
    ingest(chunk_size=2)
    for name in "ace":
        (source / f"{name}.jpg").unlink()
    reads.clear()
    assert ids(read_rows(ingest(chunk_size=2))) == ["b.jpg", "d.jpg", "f.jpg"]
    assert reads == []


def test_commit_ingest_part_without_images_left_is_dropped(write_tree, ingest, reads, read_rows):
    source = write_tree("images/a.jpg", "images/b.jpg", "images/c.jpg") / "images"
    first = ingest(chunk_size=1)
    (source / "b.jpg").unlink()
    reads.clear()
    second = ingest(chunk_size=1)
    assert second.parts == (first.parts[0], first.parts[2])
    assert ids(read_rows(second)) == ["a.jpg", "c.jpg"]
    assert reads == []


def test_ingest_chunk_interrupted_ingest_resumes_to_the_parts_of_an_unbroken_one(write_tree, ingest, reads):
    write_tree(*(f"images/cat/{number}.jpg" for number in range(10)))
    ingest(chunk_size=3, stop_after=2)
    assert len(reads) == 6
    assert open_store(write_tree() / "store").table("pets.images").latest() is None
    reads.clear()
    resumed = ingest(chunk_size=3)
    assert sorted(os.path.basename(path) for path in reads) == ["6.jpg", "7.jpg", "8.jpg", "9.jpg"]
    unbroken = ingest(chunk_size=3, store="other")
    assert resumed.parts == unbroken.parts
    assert len({part.sha256 for part in resumed.parts}) == 4


def test_ingest_chunk_part_lost_since_the_interruption_is_written_again(write_tree, ingest, read_rows):
    source = write_tree("images/a.jpg", "images/b.jpg")
    ingest(chunk_size=1, stop_after=1)
    (part,) = (source / "store/pets/images/parts").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    assert ids(read_rows(ingest(chunk_size=1))) == ["a.jpg", "b.jpg"]


def test_ingest_chunk_rehash_reads_again_every_time(write_tree, ingest, reads, read_rows, jpeg):
    path = write_tree("images/a.jpg", "images/b.jpg") / "images/a.jpg"
    first = ingest()
    before = path.stat().st_mtime_ns
    reads.clear()
    assert ingest(rehash=True) == first
    assert len(reads) == 2
    path.write_bytes(bytes(len(jpeg)))
    os.utime(path, ns=(before, before))
    assert ingest() == first
    second = ingest(rehash=True)
    assert [row["reason"] for row in read_rows(second)] == ["not_an_image", None]
    assert len(reads) == 4


def test_commit_ingest_same_unreadable_file_makes_no_version(ingest, reads, jpeg, ordinary_user_folder):
    source = ordinary_user_folder / "images"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(jpeg)
    (source / "b").chmod(0)
    places = {"source": source, "store": ordinary_user_folder / "store"}
    first = ingest(**places)
    reads.clear()
    assert ingest(**places) == first
    assert reads == [str(source / "b")]
    (source / "b").chmod(0o600)
    assert ingest(**places).number == 2


def test_commit_ingest_two_splits_share_the_first_ones_class_list(write_tree, ingest, read_rows):
    write_tree(f"train/{FISH}/a.JPEG", f"train/{DOG}/b.JPEG", f"val/{DOG}/a.JPEG", f"more/{SHARK}/a.JPEG")
    first = ingest("train", imagenet=True)
    second = ingest("val", imagenet=True, split="val")
    assert second.parts[:1] == first.parts
    assert [(r["split"], r["image_id"], r["label"], r["wnid"]) for r in read_rows(second)] == [
        ("train", f"{FISH}/a.JPEG", 0, FISH),
        ("train", f"{DOG}/b.JPEG", 1, DOG),
        ("val", f"{DOG}/a.JPEG", 1, DOG),
    ]
    assert second.metadata["classes"] == first.metadata["classes"]
    assert set(second.metadata["roots"]) == {"train", "val"}
    with pytest.raises(BadInput, match=rf"1 of 1 classes are not among the 2 of dataset pets: {SHARK}"):
        ingest("more", imagenet=True, split="more")


def test_commit_ingest_flat_validation_folder_is_labelled_by_wnid_not_by_id(write_tree, ingest, read_rows):
    folder = write_tree(*(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)))
    rows = read_rows(ingest("val", imagenet=True, split="val", devkit=write_devkit(folder / "devkit")))
    assert [row["wnid"] for row in rows] == [DOG, FISH, SHARK, DOG, None]
    assert [row["label"] for row in rows] == [2, 0, 1, 2, None]
    assert [row["reason"] for row in rows] == [None, None, None, None, "no_label"]


def test_prepare_imagenet_split_below_the_source_is_its_root(write_tree, ingest, read_rows):
    folder = write_tree(f"data/train/{FISH}/a.JPEG", f"data/val/{FISH}/a.JPEG")
    version = ingest("data", imagenet=True)
    assert ids(read_rows(version)) == [f"{FISH}/a.JPEG"]
    assert version.metadata["roots"] == {"train": str(folder / "data/train")}


def test_prepare_folder_same_ids_in_another_split_are_refused_naming_id_prefix(write_tree, ingest, read_rows):
    write_tree("images/cat/a.jpg", "val/cat/a.jpg")
    ingest()
    with pytest.raises(BadInput, match=r"^id_prefix: 1 image ids are already in split train .*cat/a.jpg"):
        ingest("val", split="val")
    assert ids(read_rows(ingest("val", split="val", id_prefix="val/"))) == ["cat/a.jpg", "val/cat/a.jpg"]


def test_commit_ingest_moved_root_makes_a_version_without_reading(write_tree, ingest, reads):
    folder = write_tree("images/cat/a.jpg", "images/cat/b.jpg")
    first = ingest()
    shutil.move(folder / "images", folder / "elsewhere")
    reads.clear()
    second = ingest("elsewhere")
    assert (second.number, second.parts, reads) == (2, first.parts, [])
    assert second.metadata["roots"] == {"train": str(folder / "elsewhere")}


def empty_folder(folder):
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("lose", [shutil.rmtree, empty_folder])
def test_ingest_chunk_source_that_disappears_fails_and_commits_nothing(write_tree, prepare_ingest, ingest, lose):
    folder = write_tree("images/a.jpg", "images/b.jpg")
    first = ingest()
    write_tree("images/c.jpg")
    with pytest.raises(WorkFailed, match="disappeared while it was read"):
        prepare_ingest(before_chunks=lambda: lose(folder / "images"))
    assert open_store(folder / "store").versions("pets.images") == [first]


@pytest.mark.parametrize("store", ["images/store", "images", "link/store"])
def test_prepare_folder_store_among_the_images_is_refused(write_tree, ingest, store):
    folder = write_tree("images/a.jpg")
    (folder / "link").symlink_to("images")
    with pytest.raises(BadInput, match=r"^store: .*lies below the images in "):
        ingest(store=store)
    assert ingest(store="imagestore").rows == 1


def test_prepare_folder_wrong_source_leaves_no_store(write_tree, ingest):
    folder = write_tree("images/notes.txt")
    with pytest.raises(BadInput, match=r"^devkit: "):
        ingest(imagenet=True)
    with pytest.raises(BadInput, match=r"^source: "):
        ingest("nowhere")
    assert not (folder / "store").exists()
