"""Environments: found by their names, refused with what is wrong."""

import shutil

import pytest

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.lsun.environments import LSUN_CATEGORIES, find_environments

from .conftest import encode, write_lmdb

NAMES = ["bedroom_train_lmdb", "church_outdoor_val_lmdb", "test_lmdb", "cat_train_lmdb", "tower_train_lmdb"]


@pytest.fixture
def several(tmp_path):
    for number, name in enumerate(NAMES):
        write_lmdb(tmp_path / "several" / name, [encode(number)])
    (tmp_path / "several" / "README").write_text("no environment")
    return tmp_path / "several"


def test_find_environments_tells_category_and_split_by_name(several):
    found = find_environments(str(several), "auto")
    assert {split: [(e.name, e.label) for e in there] for split, there in found.items()} == {
        "test": [("test_lmdb", None)],
        "train": [("bedroom_train_lmdb", 0), ("cat_train_lmdb", None), ("tower_train_lmdb", 9)],
        "val": [("church_outdoor_val_lmdb", 2)],
    }
    assert len(LSUN_CATEGORIES) == 10
    assert LSUN_CATEGORIES.index("dining_room") == 5


def test_find_environments_named_split_takes_any_name(several):
    (several / "bedroom_train_lmdb").rename(several / "my rooms")
    with pytest.raises(BadInput, match=r"^source: .*my rooms: its name does not tell its split"):
        find_environments(str(several), "auto")
    (environment,) = find_environments(str(several / "my rooms"), "all")["all"]
    assert (environment.name, environment.label) == ("my rooms", None)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "gone", "file"])
def test_find_environments_damaged_or_missing_is_refused_naming_it(several, damage):
    folder = several / "bedroom_train_lmdb"
    data = folder / "data.mdb"
    if damage == "gone":
        shutil.rmtree(folder)
    elif damage == "file":
        shutil.rmtree(folder)
        folder.write_bytes(b"x")
    else:
        whole = data.read_bytes()
        data.write_bytes({"truncated": whole[:5000], "foreign": b"no lmdb" * 5000, "empty": b""}[damage])
    with pytest.raises(BadInput, match=r"bedroom_train_lmdb"):
        find_environments(str(folder), "auto")


def test_find_environments_without_permission_is_refused(ordinary_user_folder):
    folder = write_lmdb(ordinary_user_folder / "bedroom_train_lmdb", [encode(1)])
    (folder / "data.mdb").chmod(0)
    with pytest.raises(BadInput, match=r"bedroom_train_lmdb: not an LMDB .*Permission denied"):
        find_environments(str(folder), "auto")


def test_find_environments_lock_file_that_cannot_be_used_does_not_matter(ordinary_user_folder):
    folder = write_lmdb(ordinary_user_folder / "bedroom_train_lmdb", [encode(1)])
    (folder / "lock.mdb").chmod(0)
    folder.chmod(0o500)
    assert list(find_environments(str(folder), "auto")) == ["train"]
    folder.chmod(0o700)


def test_find_environments_folder_of_zips_says_what_to_do(tmp_path):
    (tmp_path / "bedroom_val_lmdb.zip").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"bedroom_val_lmdb\.zip must be unpacked first: labelmill run extract"):
        find_environments(str(tmp_path), "auto")


def test_check_unchanged_tells_an_environment_that_was_written_or_removed(several):
    for name in ("bedroom_train_lmdb", "tower_train_lmdb"):
        (environment,) = find_environments(str(several / name), "auto")["train"]
        environment.check_unchanged()
        if name == "tower_train_lmdb":
            shutil.rmtree(several / name)
        else:
            with open(several / name / "data.mdb", "r+b") as file:
                file.seek(0, 2)
                file.write(bytes(4096))
        with pytest.raises(WorkFailed, match="disappeared or was changed"):
            environment.check_unchanged()
