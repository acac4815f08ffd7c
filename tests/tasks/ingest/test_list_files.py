"""Listing a folder's files."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.schemas.errors import BadInput
from labelmill.tasks.ingest.list_files import FileKind, as_text, is_text, list_files


def kinds(files):
    return {file.path: file.kind for file in files}


def test_list_files_tree_is_listed_in_order_of_bytes(write_tree):
    # By bytes 'B' < 'a' < 'é', and 'a.jpg' < 'a/x.jpg' since '.' < '/'.
    expected = ["B/x.jpg", "a.jpg", "a/.hidden", "a/b/c/y.jpg", "a/x.jpg", "a0.jpg", "é.jpg"]
    source = write_tree(*reversed(expected))
    (source / "no files in here").mkdir()
    assert [file.path for file in list_files(source)] == expected


def test_list_files_file_has_size_and_time(write_tree, jpeg):
    source = write_tree("a.jpg")
    os.utime(source / "a.jpg", ns=(1, 1_700_000_000_123_456_789))
    (file,) = list_files(str(source))
    assert (file.size, file.mtime_ns, file.kind) == (len(jpeg), 1_700_000_000_123_456_789, FileKind.FILE)


def test_list_files_links_to_files_and_folders_are_followed(write_tree, jpeg):
    source = write_tree("real/x.jpg")
    (source / "file_link.jpg").symlink_to(source / "real/x.jpg")
    (source / "folder_link").symlink_to(source / "real")
    files = list_files(source)
    assert [file.path for file in files] == ["file_link.jpg", "folder_link/x.jpg", "real/x.jpg"]
    assert {file.size for file in files} == {len(jpeg)}


@pytest.mark.parametrize("target", [".", "..", "../.."], ids=["itself", "parent", "source"])
def test_list_files_link_back_up_ends_with_one_entry(write_tree, target):
    source = write_tree("a/b/x.jpg")
    (source / "a/b/loop").symlink_to(target)
    assert kinds(list_files(source)) == {"a/b/loop": FileKind.LOOP, "a/b/x.jpg": FileKind.FILE}


def test_list_files_odd_entries_have_their_kind(write_tree):
    source = write_tree("x.jpg")
    os.mkfifo(source / "fifo.jpg")
    (source / "gone.jpg").symlink_to("nowhere")
    (source / "self.jpg").symlink_to("self.jpg")
    assert kinds(list_files(source)) == {
        "fifo.jpg": FileKind.NOT_A_FILE,
        "gone.jpg": FileKind.BROKEN_LINK,
        "self.jpg": FileKind.BROKEN_LINK,
        "x.jpg": FileKind.FILE,
    }


def test_list_files_unreadable_folder_is_one_entry(ordinary_user_folder, jpeg):
    (ordinary_user_folder / "x.jpg").write_bytes(jpeg)
    (ordinary_user_folder / "locked").mkdir(mode=0)
    assert kinds(list_files(ordinary_user_folder)) == {"locked": FileKind.UNREADABLE_FOLDER, "x.jpg": FileKind.FILE}


def test_list_files_name_that_is_not_utf8_is_listed(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    (file,) = list_files(tmp_path)
    assert (file.kind, file.size) == (FileKind.BAD_NAME, 0)
    assert as_text(file.path) == r"caf\xe9.jpg"


def make_empty(path):
    path.mkdir()


def make_folders_only(path):
    (path / "a/b").mkdir(parents=True)


def make_file(path):
    path.write_bytes(b"x")


def make_locked(path):
    path.mkdir(mode=0)


@pytest.mark.parametrize(
    "make",
    [lambda _: None, make_empty, make_folders_only, make_file, make_locked],
    ids=["missing", "empty", "folders-only", "file", "locked"],
)
def test_list_files_useless_source_raises_naming_source(ordinary_user_folder, make):
    source = ordinary_user_folder / "images"
    make(source)
    with pytest.raises(BadInput, match=r"^source: .*images.*expected a folder with images"):
        list_files(source)


@given(st.binary(min_size=1, max_size=20))
def test_as_text_any_file_name_becomes_valid_utf8(name):
    path = os.fsdecode(name)
    text = as_text(path)
    assert is_text(text)
    assert (text == path) == is_text(path)
