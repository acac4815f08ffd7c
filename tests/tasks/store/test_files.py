"""Durable writes."""

import threading

import pytest

from labelmill.tasks.store.files import create_file, lock_folder, make_folder, replace_file, temporary_beside


def test_create_file_existing_file_is_never_replaced(tmp_path):
    create_file(tmp_path / "new" / "a.json", b"first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new" / "a.json", b"second")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"first"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.json"]


def test_create_file_many_threads_only_one_wins(tmp_path):
    barrier = threading.Barrier(8)
    won = []

    def work(number):
        barrier.wait()
        try:
            create_file(tmp_path / "a.json", str(number).encode() * 1000)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "a.json").read_bytes() == str(won[0]).encode() * 1000


def test_replace_file_existing_file_is_replaced_and_nothing_is_left(tmp_path):
    replace_file(tmp_path / "a", b"1")
    replace_file(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_temporary_beside_failed_write_leaves_nothing(tmp_path):
    def write():
        with temporary_beside(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_make_folder_several_levels_are_made_and_existing_ones_left(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_lock_folder_alone_waits_for_those_who_share(tmp_path):
    order = []

    def collect():
        with lock_folder(tmp_path, alone=True):
            order.append("alone")

    with lock_folder(tmp_path, alone=False), lock_folder(tmp_path, alone=False):
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join(0.1)
        order.append("shared")
    thread.join()
    assert order == ["shared", "alone"]
