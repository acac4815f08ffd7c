"""Labels of plain folder trees."""

import os

import pytest
from PIL import Image

from labelmill.schemas.classes import ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestFolderParameters
from labelmill.tasks.ingest.folder import label_by_folder, label_nothing
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, list_files


def test_label_by_folder_first_folder_is_class_in_sorted_order(write_tree):
    files = list_files(write_tree("dog/b.jpg", "cat/deeper/a.jpg", "cat/z.jpg", "Ant/x.jpg"))
    labels = label_by_folder(files)
    assert [c.name for c in labels.classes.classes] == ["Ant", "cat", "dog"]
    assert labels.keys == ["Ant", "cat", "cat", "dog"]


def test_label_by_folder_wnid_folder_is_known_as_wnid(write_tree):
    labels = label_by_folder(list_files(write_tree("n01440764/a.jpg")))
    assert labels.classes.classes == (ClassName(name="n01440764", wnid="n01440764"),)


def test_label_by_folder_files_in_source_and_hidden_folders_have_no_label(write_tree):
    labels = label_by_folder(list_files(write_tree("a.jpg", ".cache/b.jpg", "cat/c.jpg")))
    assert labels.keys == [None, None, "cat"]
    assert len(labels.classes) == 1
    assert not labels.required


def test_label_by_folder_name_that_is_not_utf8_is_escaped():
    file = ListedFile(path=os.fsdecode(b"caf\xe9/a.jpg"), size=1, mtime_ns=1, kind=FileKind.FILE)
    assert label_by_folder([file]).keys == [r"caf\xe9"]


def test_label_by_folder_unreadable_folder_keeps_its_class():
    locked = ListedFile(path="cat", size=None, mtime_ns=None, kind=FileKind.UNREADABLE_FOLDER)
    assert label_by_folder([locked]).keys == ["cat"]


def test_label_nothing_leaves_all_without_label(write_tree):
    labels = label_nothing(list_files(write_tree("cat/a.jpg", "dog/b.jpg")))
    assert (labels.keys, len(labels.classes), labels.required) == ([None, None], 0, False)


def test_prepare_folder_another_source_in_the_same_split_is_refused_not_swapped(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name / "one").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "one" / f"{name}.png")

    def ingest(name, **options):
        given = {"source": str(tmp_path / name), "store": str(tmp_path / "store"), "dataset": "pets", **options}
        run = prepare_folder(IngestFolderParameters(**given))
        return commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])

    ingest("cats")
    with pytest.raises(BadInput, match=r"split: 'train' of dataset pets holds 1 images of .*cats, none of which"):
        ingest("dogs")
    assert ingest("dogs", split="dogs").rows == 2
    (tmp_path / "cats").rename(tmp_path / "moved")
    assert ingest("moved").metadata["roots"]["train"] == str(tmp_path / "moved")


def test_label_by_folder_names_that_lead_out_of_an_archive_make_no_class():
    names = {"/abs.jpg": FileKind.OUTSIDE, "evil/../x.jpg": FileKind.OUTSIDE, "cat/a.jpg": FileKind.FILE}
    labels = label_by_folder([ListedFile(path=n, size=1, mtime_ns=1, kind=kind) for n, kind in names.items()])
    assert labels.keys == [None, None, "cat"]
    assert [c.name for c in labels.classes.classes] == ["cat"]
