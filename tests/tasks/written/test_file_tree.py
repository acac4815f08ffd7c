"""Files that are whole or not there, never in the place of others, never outside."""

import os
import resource
import threading

import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.written import file_tree
from labelmill.tasks.written.file_tree import BadFileName, FileTree, Occupied

NAMES = [
    "a.jpg",
    "a b/ü\n.jpg",
    "deep/er/and/deeper/x",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "-rf",
]


def pieces(*data):
    return lambda: data


def test_write_makes_whole_files_of_any_name_and_leaves_nothing_else(tmp_path):
    with FileTree(tmp_path / "out") as tree:
        for number, name in enumerate(NAMES):
            written = tree.write(name, pieces(b"x" * number, b"", memoryview(b"end")))
            assert (written.kept, written.bytes) == (False, number + 3)
            assert written.mtime_ns == os.stat(tmp_path / "out" / name).st_mtime_ns
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == set(NAMES)


def test_write_same_content_is_kept_untouched(tmp_path):
    with FileTree(tmp_path) as tree:
        tree.write("a/b", pieces(b"content"))
        inode = os.stat(tmp_path / "a/b").st_ino
        assert tree.write("a/b", pieces(b"con", b"tent")).kept
    assert os.stat(tmp_path / "a/b").st_ino == inode


@pytest.mark.parametrize("other", [b"conten", b"content!", b"c0ntent", b""])
def test_write_other_content_is_never_replaced(tmp_path, other):
    (tmp_path / "a").write_bytes(other)
    with FileTree(tmp_path) as tree, pytest.raises(Occupied, match="a: a file with another content is there"):
        tree.write("a", pieces(b"content"))
    assert (tmp_path / "a").read_bytes() == other


def test_write_does_not_follow_links_or_leave_the_folder(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "outside")
    (tmp_path / "out/file").write_bytes(b"")
    (tmp_path / "out/dangling").symlink_to(tmp_path / "outside/new")
    (tmp_path / "out/folder").mkdir()
    os.mkfifo(tmp_path / "out/pipe")
    with FileTree(tmp_path / "out") as tree:
        for path in ("link/x", "link", "file/x", "dangling", "folder", "pipe", "link/a/b"):
            with pytest.raises(Occupied):
                tree.write(path, pieces(b"x"))
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 300, "a/" + "n" * 300, "zero\0byte", f".writing-1-{'0' * 12}/x"])
def test_write_impossible_name_is_refused(tmp_path, name):
    with FileTree(tmp_path) as tree, pytest.raises(BadFileName):
        tree.write(name, pieces(b"x"))


def test_write_that_fails_half_way_leaves_no_file(tmp_path):
    def broken():
        yield b"half"
        raise RuntimeError("source")

    with FileTree(tmp_path) as tree:
        with pytest.raises(RuntimeError, match="source"):
            tree.write("a/b", broken)
        assert tree.find("a/b") is None
        assert not tree.write("a/b", pieces(b"whole")).kept
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_write_that_the_system_refuses_says_so_and_keeps_the_rest(tmp_path):
    """The limit on a file's size stands for a full disk: the kernel refuses to write on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FileTree(tmp_path) as tree:
        tree.write("small", pieces(b"x"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            with pytest.raises(WorkFailed, match=r"^out: large: File too large; .* run the same command to go on"):
                tree.write("large", pieces(bytes(4000), bytes(4000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not tree.write("large", pieces(bytes(8000))).kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "small"]


def test_write_without_hard_links_still_never_replaces(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with FileTree(tmp_path) as tree:
        assert not tree.write("a", pieces(b"1")).kept
        assert tree.write("a", pieces(b"1")).kept
        with pytest.raises(Occupied):
            tree.write("a", pieces(b"2"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_write_from_many_threads_one_wins_and_the_others_keep(tmp_path):
    kept = []
    with FileTree(tmp_path) as tree:
        start = threading.Barrier(8)

        def write():
            start.wait()
            kept.extend(tree.write(f"{n % 7}/{n}", pieces(b"%d" % n)).kept for n in range(50))

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(kept) == 400
    assert kept.count(False) == 50


def test_file_tree_removes_what_a_dead_writer_left_and_nothing_else(tmp_path):
    dead, mine = tmp_path / f".writing-1-{'0' * 12}", tmp_path / ".writing-my-notes"
    for folder in (dead, mine):
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
        os.utime(folder, (1, 1))
    with FileTree(tmp_path) as first:
        os.utime(first._staging, (1, 1))
        with FileTree(tmp_path):
            first.write("a", pieces(b"still there"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-my-notes", "a"]
    assert file_tree._NEW_S > 0
