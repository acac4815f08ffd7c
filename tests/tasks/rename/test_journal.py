"""The journal is read whole or refused; listing and renaming leave alone what is not theirs."""

import json
import os

import pytest
from tests.tasks.rename.folders import files_of, journal_of, make

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.rename.journal import Journal
from labelmill.tasks.rename.list_names import list_names
from labelmill.tasks.rename.no_replace import _looking_first


def test_list_names_leaves_alone_what_is_no_plain_file(tmp_path):
    make(tmp_path, ["a", ".hidden", ".git/x", "sub/b", "one"])
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "link").symlink_to("sub")
    (tmp_path / "to_file").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    names = list_names(str(tmp_path))
    assert [path for path, _ in names.files] == ["a", "sub/b", "to_file"]
    assert names.skipped == {"hidden": 1, "hidden_folder": 1, "hard_link": 2, "link_to_folder": 1, "not_a_file": 1}


@pytest.mark.parametrize("text", ["", "{}\n", '{"from": 1}', "\xff"])
def test_journal_read_damaged_is_refused_by_name(tmp_path, text):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"journal: .*journal.jsonl: not a journal"):
        Journal.read(path)


def test_journal_note_after_a_torn_line_is_read(tmp_path):
    root = make(tmp_path / "files", ["a"])
    journal = journal_of(tmp_path, root, {"a": "b"})
    with journal.path.open("a") as stream:
        stream.write('{"sta')
    assert Journal.read(journal.path).state == "renaming"
    journal.note("renamed")
    assert Journal.read(journal.path).state == "renamed"
    assert json.loads(journal.path.read_text().splitlines()[1])["from"] == "a"
    journal.path.unlink()
    with pytest.raises(WorkFailed, match="the files are where they are"):
        journal.note("undone")


def test_no_replace_without_the_systems_call_looks_first(tmp_path):
    make(tmp_path, ["a", "b"])
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(FileExistsError):
        _looking_first(folder)(b"a", b"b")
    _looking_first(folder)(b"a", b"c")
    os.close(folder)
    assert files_of(tmp_path) == {"c": "a", "b": "b"}
