"""Extraction: what is written is what is in the archive; what could do harm is counted."""

import hashlib
import os
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.tar_files import add

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import ExtractParameters
from labelmill.tasks.archives.job import check_digests, extract_members, prepare_extract
from labelmill.tasks.written.file_tree import FileTree


def extract(source, out, **options):
    run = prepare_extract(ExtractParameters(source=str(source), out=str(out), workers=2, **options))
    with FileTree(out) as tree:
        done = extract_members(run, tree, run.members, on_batch=lambda batch: None)
    return done.written, done.kept, {str(k): n for k, n in (run.refused + done.refused).items()}


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {
    "a/b.jpg": b"1" * 700,
    "ü\n.txt": b"2",
    "empty": b"",
    "large": os.urandom(3_000_000),
    "zeros": bytes(3_000_000),
}


def write_tar(path, files, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


MAKERS = {
    "tar": write_tar,
    "zip": write_zip,
    "stored zip": lambda path, files: write_zip(path, files, zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_extract_members_are_the_archives_and_a_rerun_writes_nothing(tmp_path, kind):
    source = MAKERS[kind](tmp_path / "x", FILES)
    assert extract(source, tmp_path / "out") == (5, 0, {})
    assert files_in(tmp_path / "out") == FILES
    (tmp_path / "out/large").unlink()
    assert extract(source, tmp_path / "out") == (1, 4, {})
    assert files_in(tmp_path / "out") == FILES


@given(st.dictionaries(st.text("ab./é \n", min_size=1, max_size=8), st.binary(max_size=40), max_size=8))
@settings(max_examples=60, deadline=None)
def test_extract_members_of_any_names_stay_below_the_folder_and_all_are_counted(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("any")
    source = write_tar(root / "x.tar", {"safe": b"1", **files})
    written, kept, refused = extract(source, root / "in" / "out")
    assert written + kept + sum(refused.values()) == len({"safe": b"1", **files})
    assert {path.name for path in root.iterdir()} == {"x.tar", "in"}
    assert {path.name for path in (root / "in").iterdir()} == {"out"}
    found = files_in(root / "in" / "out")
    assert len(found) == written
    assert set(found.values()) <= {b"1", *files.values()}
    assert found["safe"] == b"1"


def test_extract_members_that_could_do_harm_are_refused_by_reason(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        add(tar, "../out.txt", b"1")
        add(tar, "/absolute.txt", b"2")
        add(tar, "link", type=tarfile.SYMTYPE, linkname="/etc")
        add(tar, "link/passwd", b"through the link")
        add(tar, "hard", type=tarfile.LNKTYPE, linkname="/etc/passwd")
        add(tar, "pipe", type=tarfile.FIFOTYPE)
        add(tar, "file", b"a file")
        add(tar, "file/below", b"in the place of a folder")
        add(tar, "twice", b"old")
        add(tar, "twice", b"new")
        add(tar, "too large", b"x" * 101)
        add(tar, "n" * 300, b"x")
    written, kept, refused = extract(tmp_path / "bad.tar", tmp_path / "out", max_bytes=100)
    assert (written, kept) == (2, 0)
    assert refused == {
        "bad_name": 3, "not_a_file": 3, "occupied": 2, "duplicate_name": 1, "too_many_bytes": 1,
    }  # fmt: skip
    assert files_in(tmp_path / "out") == {"file": b"a file", "twice": b"new"}


def test_extract_members_do_not_touch_what_is_there(tmp_path):
    source = write_tar(
        tmp_path / "x.tar", {"mine": b"theirs", "folder": b"1", "file/x": b"2", "out/x": b"3", "new": b"4"}
    )
    (tmp_path / "out/folder").mkdir(parents=True)
    (tmp_path / "out/mine").write_bytes(b"mine")
    (tmp_path / "out/file").write_bytes(b"")
    (tmp_path / "out/out").symlink_to(tmp_path)
    assert extract(source, tmp_path / "out") == (1, 0, {"occupied": 4})
    assert files_in(tmp_path / "out") == {"mine": b"mine", "file": b"", "new": b"4"}
    assert not (tmp_path / "x").exists()


def test_extract_members_damaged_are_counted_and_leave_no_file(tmp_path):
    source = write_zip(tmp_path / "x.zip", {"good": b"1" * 50, "bad": b"2" * 500}, zipfile.ZIP_STORED)
    source.write_bytes(source.read_bytes().replace(b"2222", b"2322", 1))
    assert extract(source, tmp_path / "out") == (1, 0, {"corrupt": 1})
    assert set(files_in(tmp_path / "out")) == {"good"}


def test_extract_members_of_a_bomb_stop_at_the_stated_size(tmp_path):
    source = write_zip(tmp_path / "bomb.zip", {"bomb": bytes(10_000_000)})
    size = (10_000_000).to_bytes(4, "little")
    source.write_bytes(source.read_bytes().replace(size, (100).to_bytes(4, "little")))
    assert extract(source, tmp_path / "out") == (0, 0, {"corrupt": 1})
    assert files_in(tmp_path / "out") == {}


@pytest.mark.parametrize("maker", [write_tar, write_zip])
def test_prepare_extract_of_more_than_allowed_or_than_the_disk_has_is_refused(tmp_path, maker, monkeypatch):
    source = maker(tmp_path / "x", {"a": bytes(6000), "b": bytes(6000)})
    with pytest.raises(BadInput, match=r"holds 12\.0 kB, more than --max-total-bytes 11999"):
        extract(source, tmp_path / "out", max_total_bytes=11999)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=7000))
    with pytest.raises(BadInput, match=r"needs 12\.0 kB, .* has 7\.0 kB; nothing was extracted"):
        extract(source, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_bytes(bytes(6000))  # of an earlier run
    assert extract(source, tmp_path / "out") == (1, 1, {})


def test_check_digests_wrong_is_refused_right_passes(tmp_path):
    source = write_tar(tmp_path / "x.tar", {"a": b"1"})
    data = source.read_bytes()
    right = {"sha256": hashlib.sha256(data).hexdigest().upper(), "md5": hashlib.md5(data).hexdigest()}
    read = []
    check_digests(ExtractParameters(source=str(source), out="/o", **right), on_bytes=read.append)
    assert sum(read) == len(data)
    for name, digest in right.items():
        wrong = {**right, name: "0" * len(digest)}
        with pytest.raises(BadInput, match=rf"^{name}: expected 0+, .* has {digest.lower()}"):
            check_digests(ExtractParameters(source=str(source), out="/o", **wrong))


@pytest.mark.parametrize(("mode", "said"), [("w:gz", "compressed by gzip"), ("w:xz", "compressed by xz")])
def test_prepare_extract_compressed_tar_says_what_to_do(tmp_path, mode, said):
    write_tar(tmp_path / "x.tar", FILES)
    with tarfile.open(tmp_path / "y.tar", mode) as tar:
        add(tar, "a", b"1")
    with pytest.raises(BadInput, match=f"{said}.*decompress it first"):
        extract(tmp_path / "y.tar", tmp_path / "out")
