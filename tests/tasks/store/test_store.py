"""Stores as folders: opened, copied, moved, read-only."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version

READ_AS_NOBODY = """
import os, sys
from labelmill.tasks.store import connection, open_store
from labelmill.tasks.store.verify import verify_version
os.setuid(65534)
store = open_store(sys.argv[1])
try:
    open(store.root / "x", "w")
    raise SystemExit("the folder is writable")
except OSError:
    pass
table = store.table("imagenet.things")
assert verify_version(table).problems == ()
assert table.read(table.version(), ["a"])["a"].to_pylist() == [0, 1, 10, 11]
print(store.connect().execute("SELECT sum(a) FROM imagenet.things").fetchone()[0])
"""


@pytest.mark.parametrize("how", ["copy", "move"])
def test_open_store_copied_or_moved_folder_answers(store, table, add, values, tmp_path, how):
    other = tmp_path / "else where" / "st[o]re"
    (shutil.copytree if how == "copy" else shutil.move)(store.root, other)
    moved = open_store(other)
    if how == "copy":
        shutil.rmtree(store.root)
    assert [v.number for v in moved.versions("imagenet.things")] == [1, 2]
    assert verify_version(moved.table("imagenet.things")).problems == ()
    with moved.connect() as connection:
        assert connection.execute('SELECT "row", a FROM imagenet.things ORDER BY 1').fetchall() == [
            (0, 0),
            (1, 1),
            (2, 10),
            (3, 11),
        ]
    assert add(moved.table("imagenet.things"), 20).number == 3
    assert values(moved.table("imagenet.things")) == [0, 1, 10, 11, 20]
    assert str(store.root) not in (moved.root / "imagenet/things/versions/000003.json").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_connect_read_only_folder_can_be_read(store, table):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = shutil.copytree(store.root, f"{folder}/store")
        code = [sys.executable, "-c", READ_AS_NOBODY, root]
        done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("22\n", "")


def test_open_store_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(NotInStore, match="no such folder"):
        open_store(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_open_store_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotInStore, match="no such folder"):
        open_store(tmp_path / "file")
    with pytest.raises(BadInput, match="found a file"):
        open_store(tmp_path / "file", create=True)


@pytest.mark.parametrize("uri", ["ftp://host/store", "memory://x", "https://host/store", "gcs://bucket/store"])
def test_open_store_other_back_ends_are_refused_with_the_reason(uri):
    with pytest.raises(BadInput, match="never replaces a version"):
        open_store(uri, create=True)


def test_open_store_file_url_is_a_folder(store, table):
    assert open_store(f"file://{store.root}").tables() == ["imagenet.things"]


def test_tables_foreign_folders_are_no_tables(store, table):
    for name in ("main/x", "UPPER/x", "a-b/x", "imagenet/x y", "imagenet/empty"):
        (store.root / name / "versions").mkdir(parents=True)
    assert store.tables() == ["imagenet.things"]


@pytest.mark.parametrize("name", ["things", "", "a.b.c", "A.b", "a.b-c", "../x.y", "a.", ".b", "temp.x"])
def test_table_bad_name_is_refused(store, name):
    with pytest.raises(BadInput):
        store.table(name)


def test_versions_unknown_table_names_those_that_exist(store, table):
    with pytest.raises(NotInStore, match=r"imagenet\.images: no such table .* tables: imagenet\.things"):
        store.versions("imagenet.images")
