"""Ingests that meet other ingests, and sources that are mostly broken."""

import os
import random
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestFolderParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


def commit_together(prepared):
    """Commit prepared ingests from a thread each, all at once; return the errors."""
    barrier = threading.Barrier(len(prepared))
    errors = []

    def commit(run, receipts):
        barrier.wait()
        try:
            commit_ingest(run, receipts)
        except WorkFailed as error:
            errors.append(str(error))

    threads = [threading.Thread(target=commit, args=pair) for pair in prepared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_commit_ingest_racing_splits_all_land_and_lose_no_row(write_tree, prepare_ingest, read_rows):
    splits = ["train", "val", "test", "extra"]
    folder = write_tree(*(f"{split}/cat/{split}{number}.jpg" for split in splits for number in range(5)))
    assert commit_together([prepare_ingest(split, split=split, chunk_size=2) for split in splits]) == []
    versions = open_store(folder / "store").versions("pets.images")
    assert [version.rows for version in versions] == [5, 10, 15, 20]
    assert Counter(row["split"] for row in read_rows(versions[-1])) == dict.fromkeys(splits, 5)
    assert versions[-1].metadata["roots"] == {split: str(folder / split) for split in splits}


def test_commit_ingest_racing_runs_of_one_split_leave_no_row_twice(write_tree, prepare_ingest, ingest, read_rows):
    write_tree("images/cat/a.jpg", "images/cat/b.jpg")
    errors = commit_together([prepare_ingest(), prepare_ingest(), prepare_ingest()])
    assert len(errors) == 2
    assert all("meanwhile; run again" in error for error in errors)
    version = ingest()
    assert (version.number, [row["image_id"] for row in read_rows(version)]) == (1, ["cat/a.jpg", "cat/b.jpg"])


def test_commit_ingest_images_removed_by_another_run_are_not_brought_back(write_tree, prepare_ingest, ingest):
    folder = write_tree("images/a.jpg", "images/b.jpg")
    ingest()
    write_tree("images/c.jpg")
    slow = prepare_ingest()
    (folder / "images/b.jpg").unlink()
    ingest()
    with pytest.raises(WorkFailed, match="another run changed split 'train' meanwhile; run again"):
        commit_ingest(*slow)


def test_commit_ingest_same_ids_in_a_racing_split_are_refused(write_tree, prepare_ingest, read_rows):
    write_tree("images/cat/a.jpg", "val/cat/a.jpg")
    first, second = prepare_ingest(), prepare_ingest("val", split="val")
    commit_ingest(*first)
    with pytest.raises(WorkFailed, match="images of the same ids meanwhile"):
        commit_ingest(*second)


def test_commit_ingest_other_class_list_in_a_racing_split_is_refused(write_tree, prepare_ingest):
    write_tree("images/cat/a.jpg", "val/dog/b.jpg")
    first, second = prepare_ingest(), prepare_ingest("val", split="val")
    commit_ingest(*first)
    with pytest.raises(WorkFailed, match="class list meanwhile"):
        commit_ingest(*second)


def test_commit_ingest_latest_version_deleted_meanwhile_is_refused(write_tree, prepare_ingest, ingest):
    folder = write_tree("images/a.jpg")
    ingest()
    write_tree("images/b.jpg")
    ingest()
    write_tree("images/c.jpg")
    slow = prepare_ingest()
    open_store(folder / "store").table("pets.images").delete(2)
    with pytest.raises(WorkFailed, match="another run changed split"):
        commit_ingest(*slow)


BROKEN = {
    "empty": b"",
    "not_an_image": b"this is no picture",
    "truncated": b"\x89PNG\r\n\x1a\n",
    "corrupt": b"II*\0\x08\0\0\0" + bytes(20),
    "unsupported_format": b"P6 1 1 255 abc",
}


def test_commit_ingest_forty_broken_files_are_forty_rejected_rows_with_reasons(write_tree, ingest, read_rows):
    files = {f"images/{number}_{reason}.jpg": data for reason, data in BROKEN.items() for number in range(6)}
    source = write_tree(**files) / "images"
    for number in range(5):
        os.mkfifo(source / f"{number}_not_a_file.jpg")
        (source / f"{number}_broken_link.jpg").symlink_to("nowhere")
    rows = read_rows(ingest(chunk_size=7))
    assert len(rows) == 40
    assert all(f"_{row['reason']}." in row["image_id"] for row in rows)
    assert {row["status"] for row in rows} == {"rejected"}
    assert all(row["detail"] for row in rows)


NAMES = st.sampled_from([b"a.jpg", b"cat/b.jpg", b'cat/\n".jpg', b"caf\xc3\xa9/c.png", b"caf\xe9/d.jpg", b"cat/x/'e'"])
KINDS = st.sampled_from(["picture", "empty", "text", "fifo", "broken link", "link"])


def make_entry(path, kind, jpeg):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "broken link":
            os.symlink("nowhere", path)
        case "link":
            os.symlink("/dev/null", path)
        case _:
            Path(os.fsdecode(path)).write_bytes({"picture": jpeg, "empty": b"", "text": b"text"}[kind])


def ingest_quietly(source, store, chunk_size):
    options = {"source": source, "store": store, "dataset": "pets", "labels": "none", "workers": 1}
    run = prepare_folder(IngestFolderParameters(**options, chunk_size=chunk_size))
    receipts = [run.table.receipts.find(c.key, run=run.run) or ingest_chunk(run, c) for c in run.chunks]
    version = commit_ingest(run, receipts)
    assert verify_version(run.table).problems == ()
    rows = run.table.read(version, IMAGES_SCHEMA.names).to_pylist()
    return sorted(rows, key=lambda row: row["image_id"])


@settings(max_examples=25, deadline=None)
@given(
    states=st.lists(st.dictionaries(NAMES, KINDS, min_size=1), min_size=1, max_size=3),
    chunk_size=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_commit_ingest_any_history_ends_with_a_row_for_every_entry(jpeg, states, chunk_size, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "images")
        at = 1_700_000_000_000_000_000
        existing = {}
        for entries in states:
            for name, kind in existing.items():
                if kind != entries.get(name) or rng.random() < 0.3:
                    os.unlink(os.path.join(os.fsencode(source), name))
            for name, kind in entries.items():
                path = os.path.join(os.fsencode(source), name)
                if not os.path.lexists(path):
                    make_entry(path, kind, jpeg)
                    at += 1
                    if kind in {"picture", "empty", "text"}:
                        os.utime(path, ns=(at, at))
            existing = entries
            rows = ingest_quietly(source, f"{folder}/store", chunk_size)
        assert len(rows) == len(existing)
        assert rows == ingest_quietly(source, f"{folder}/fresh", 100)
