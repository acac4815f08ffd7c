"""Any names, any permutation, killed at any step: the files end as planned, or back where they were."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tasks.rename.folders import files_of, journal_of, make

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import RenameParameters
from labelmill.tasks.rename import carry_out as carrying
from labelmill.tasks.rename.carry_out import carry_out
from labelmill.tasks.rename.job import rename_files
from labelmill.tasks.rename.journal import Journal


class KilledHere(BaseException):
    """Stands for the end of the process: no handler of ours takes it."""


@contextmanager
def killed_after(calls, *, before):
    """End the work at a rename, before or after it took place."""
    opened = carrying.open_rename

    def open_rename(folder):
        rename, left = opened(folder), [calls]

        def count(source, target):
            left[0] -= 1
            if left[0] < 0 and before:
                raise KilledHere
            rename(source, target)
            if left[0] < 0:
                raise KilledHere

        return count

    carrying.open_rename = open_rename
    try:
        yield
    finally:
        carrying.open_rename = opened


NAMES = st.sampled_from(["a", "A", "b", "B", "1.jpg", "sub/a", "sub/b", "ß", "new\nline", "sub/c", "deep/er/x"])
MAPPINGS = st.lists(NAMES, unique=True, min_size=1, max_size=7).flatmap(
    lambda old: st.lists(NAMES, unique=True, min_size=len(old), max_size=len(old)).map(
        lambda new: {o: n for o, n in zip(old, new, strict=True)}
    )
)
CYCLE = {"a": "b", "b": "1.jpg", "1.jpg": "a", "A": "B", "B": "A"}


@settings(max_examples=60, deadline=None)
@given(mapping=MAPPINGS, kill=st.integers(0, 9), kill_undo=st.integers(0, 9), before=st.booleans())
@example(mapping=CYCLE, kill=1, kill_undo=1, before=False)
@example(mapping=CYCLE, kill=2, kill_undo=9, before=True)
def test_carry_out_killed_anywhere_resumes_to_the_plan_and_undoes_to_the_beginning(mapping, kill, kill_undo, before):
    with tempfile.TemporaryDirectory() as place:
        root = make(Path(place, "files"), mapping)
        journal = journal_of(Path(place), root, mapping)
        quiet = {"on_done": lambda files: None}
        for undo, at in ((False, kill), (True, kill_undo)):
            try:
                with killed_after(at, before=before):
                    carry_out(journal, str(root), undo=undo, fresh=not undo, **quiet)
            except KilledHere:
                report = carry_out(Journal.read(journal.path), str(root), undo=undo, **quiet)
                assert report.moved + report.before == len(mapping)
            wanted = {(old if undo else new): old for old, new in mapping.items()}
            assert files_of(root) == wanted


@pytest.fixture
def rename(tmp_path):
    """Rename below `tmp_path/files` by the job."""

    def run(**options):
        return rename_files(RenameParameters(**{"source": str(tmp_path / "files"), **options}))

    return run


def test_rename_files_natural_order_numbers_and_back(tmp_path, rename):
    root = make(tmp_path / "files", ["img10.jpg", "img2.jpg", "IMG1.jpg", "b/2.png", "b/10.png"])
    before = files_of(root)
    renamed = rename(template="{class}{index:03d}_{number}{ext}", first=1)
    assert files_of(root) == {
        "b/b001_1.png": "b/2.png", "b/b002_2.png": "b/10.png", "003_1.jpg": "IMG1.jpg", "004_2.jpg": "img2.jpg",
        "005_3.jpg": "img10.jpg",
    }  # fmt: skip
    rename_files(RenameParameters(undo=str(renamed.journal)))
    assert files_of(root) == before
    with pytest.raises(BadInput, match="was undone already"):
        rename_files(RenameParameters(undo=str(renamed.journal)))


def test_rename_files_into_new_folders_undo_removes_them_unless_others_use_them(tmp_path, rename):
    root = make(tmp_path / "files", ["a.jpg", "b.png"])
    renamed = rename(template="by/{ext}/{hash:.4}{ext}")
    assert all(path.startswith(("by/.jpg/", "by/.png/")) for path in files_of(root))
    (root / "by/.png/mine").write_text("mine")
    report = rename_files(RenameParameters(undo=str(renamed.journal))).report
    assert (report.moved, report.taken, report.vanished) == (2, [], [])
    assert files_of(root) == {"a.jpg": "a.jpg", "b.png": "b.png", "by/.png/mine": "mine"}
    assert not (root / "by/.jpg").exists()


def test_rename_files_dry_run_touches_nothing(tmp_path, rename):
    root = make(tmp_path / "files", ["a.jpg"])
    renamed = rename(dry_run=True)
    assert [(move.before, move.after) for move in renamed.moves] == [("a.jpg", "00000.jpg")]
    assert (files_of(root), os.listdir(tmp_path)) == ({"a.jpg": "a.jpg"}, ["files"])


@pytest.mark.parametrize("killed", [0, 1, 2, 3])
def test_rename_files_killed_in_a_chain_the_same_command_ends_it(tmp_path, rename, killed):
    root = make(tmp_path / "files", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    options = {"template": "{number}{ext}", "first": 2}
    with killed_after(killed, before=False), pytest.raises(KilledHere):
        rename(**options)
    with pytest.raises(BadInput, match="was begun here and not ended: run it again"):
        rename(template="{number:03d}{ext}")
    renamed = rename(**options)
    assert files_of(root) == {"2.jpg": "1.jpg", "3.jpg": "2.jpg", "4.jpg": "3.jpg", "5.jpg": "4.jpg"}
    assert (renamed.report.moved, renamed.report.before) == (3 - killed, killed + 1)
    assert rename(**options).moves == []


def test_rename_files_killed_then_undone_is_where_it_began(tmp_path, rename):
    root = make(tmp_path / "files", ["1.jpg", "2.jpg", "3.jpg"])
    with killed_after(1, before=True), pytest.raises(KilledHere):
        rename(template="{number}{ext}", first=2)
    journal = tmp_path / "files.rename-001.jsonl"
    with killed_after(0, before=True), pytest.raises(KilledHere):
        rename_files(RenameParameters(undo=str(journal)))
    with pytest.raises(BadInput, match="an undo was begun here"):
        rename(template="{number}{ext}", first=2)
    rename_files(RenameParameters(undo=str(journal)))
    assert files_of(root) == {name: name for name in ("1.jpg", "2.jpg", "3.jpg")}


def test_rename_files_names_that_appear_and_vanish_are_told_and_nothing_is_overwritten(tmp_path, rename, monkeypatch):
    root = make(tmp_path / "files", ["a.jpg", "b.jpg", "c.jpg"])
    created = Journal.create.__func__

    def create(cls, *arguments):
        (root / "b.jpg").unlink()
        make(root, ["00002.jpg", "new.jpg"])
        return created(cls, *arguments)

    monkeypatch.setattr(Journal, "create", classmethod(create))
    renamed = rename()
    assert files_of(root) == {
        "00000.jpg": "a.jpg", "c.jpg": "c.jpg", "00002.jpg": "00002.jpg", "new.jpg": "new.jpg",
    }  # fmt: skip
    assert (renamed.report.vanished, renamed.report.taken) == (["b.jpg"], ["00002.jpg"])
    assert renamed.appeared == ["00002.jpg", "new.jpg"]


def test_rename_files_a_name_taken_in_the_middle_of_a_cycle_sends_the_file_back(tmp_path):
    root = make(tmp_path / "files", ["a", "b"])
    journal = journal_of(tmp_path, root, {"a": "b", "b": "a"})
    opened = carrying.open_rename

    def open_rename(folder):
        rename, calls = opened(folder), []

        def intrude(source, target):
            rename(source, target)
            calls.append(target)
            if len(calls) == 2:  # a is on its detour, b has its name
                (root / "b").write_text("intruder")

        return intrude

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrying, "open_rename", open_rename)
        report = carry_out(journal, str(root), fresh=True, on_done=lambda files: None)
    assert report.taken == ["b"]
    assert len(report.stranded) == 1  # its own name is b's now
    assert files_of(root) == {"a": "b", "b": "intruder", report.stranded[0]: "a"}


@pytest.mark.parametrize("mapping", [{"a": "x", "b": "y"}, {"a": "b", "b": "a"}], ids=["free", "cycle"])
def test_carry_out_what_the_system_refuses_is_told_and_the_others_go_on(tmp_path, monkeypatch, mapping):
    root = make(tmp_path / "files", [*mapping, "other"])
    journal = journal_of(tmp_path, root, {**mapping, "other": "renamed"})
    opened = carrying.open_rename

    def open_rename(folder):
        rename = opened(folder)

        def refuse(source, target):
            if target == mapping["a"].encode():
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            rename(source, target)

        return refuse

    monkeypatch.setattr(carrying, "open_rename", open_rename)
    report = carry_out(journal, str(root), fresh=True, on_done=lambda files: None)
    assert (report.refused, files_of(root)["renamed"], len(files_of(root))) == (["a"], "other", 3)
    monkeypatch.undo()
    assert carry_out(journal, str(root), undo=True, on_done=lambda files: None).refused == []
    assert files_of(root) == {name: name for name in (*mapping, "other")}


def test_carry_out_full_disk_ends_the_run_which_goes_on_later(tmp_path, rename, monkeypatch):
    root = make(tmp_path / "files", ["a.jpg", "b.jpg"])
    opened = carrying.open_rename

    def open_rename(folder):
        rename, done = opened(folder), []

        def fill(source, target):
            if done:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done.append(rename(source, target))

        return fill

    monkeypatch.setattr(carrying, "open_rename", open_rename)
    with pytest.raises(OSError, match="No space left"):
        rename()
    monkeypatch.undo()
    assert rename().report.moved == 1
    assert files_of(root) == {"00000.jpg": "a.jpg", "00001.jpg": "b.jpg"}


def test_rename_files_names_that_are_no_text_are_renamed_and_come_back(tmp_path, rename):
    root = tmp_path / "files"
    root.mkdir()
    names = [b"caf\xe9.jpg", "\n\u2028 .jpg".encode(), "日本.jpg".encode(), b'"quote\\.jpg']
    for name in names:
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(name)
    renamed = rename()
    assert sorted(files_of_bytes(root)) == [b"%05d.jpg" % n for n in range(4)]
    rename_files(RenameParameters(undo=str(renamed.journal)))
    assert files_of_bytes(root) == {name: name for name in names}


def files_of_bytes(root):
    return {entry.name: Path(os.fsdecode(entry.path)).read_bytes() for entry in os.scandir(bytes(root))}


@pytest.mark.parametrize(
    ("names", "template", "words"),
    [
        (["a.jpg", "b.jpg"], "{ext}x", "'a.jpg' and 'b.jpg' would both become '.jpgx'"),
        (["hidden", ".hidden"], ".{stem}", "'hidden' would become '.hidden', which is there and stays"),
        (["a/b", "c"], "./{stem}2/x{class}", None),
        (["sub", "x/sub"], "./{folder}{stem}", None),
        (["c", "d"], "c/{stem}", "'c' would be a folder and a file"),
        (["sub/a", "b"], "./sub{class:.0}{stem:.0}", "would both become 'sub'"),
    ],
)
def test_rename_files_collisions_are_refused_before_anything_is_touched(tmp_path, rename, names, template, words):
    root = make(tmp_path / "files", names)
    before = files_of(root)
    if words is None:
        rename(template=template)
        assert files_of(root) != before
        return
    with pytest.raises(BadInput, match=words):
        rename(template=template)
    assert files_of(root) == before
    assert os.listdir(tmp_path) == ["files"]


def test_rename_files_full_disk_for_the_journal_renames_nothing(tmp_path, rename, monkeypatch):
    root = make(tmp_path / "files", ["a.jpg"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labelmill.tasks.store.files.sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        rename()
    assert (files_of(root), os.listdir(tmp_path)) == ({"a.jpg": "a.jpg"}, ["files"])


def test_rename_files_killed_for_real_goes_on(tmp_path, rename):
    root = make(tmp_path / "files", [f"{number}.jpg" for number in range(3000)])
    script = (
        "import sys, os, signal\n"
        "from labelmill.schemas.parameters import RenameParameters\n"
        "from labelmill.tasks.rename.job import rename_files\n"
        "kill = lambda files: files > 100 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "rename_files(RenameParameters(source=sys.argv[1], template='{number}{ext}', first=1), on_done=kill)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    renamed = rename(template="{number}{ext}", first=1)
    assert 0 < renamed.report.before < 3000
    assert files_of(root) == {f"{number + 1}.jpg": f"{number}.jpg" for number in range(3000)}
