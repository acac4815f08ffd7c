"""Ingests of LSUN: rows that name values in place, with and without reading them."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.lsun.environments import find_environments
from labelmill.tasks.lsun.listing import list_values
from labelmill.tasks.lsun.manifest import list_rows

from .conftest import encode, key_of, write_lmdb

READ = ("width", "height", "format", "mode", "sha256")


def test_prepare_lsun_rows_name_values_that_read_back(bedroom, ingest, rows_of):
    rows = rows_of(ingest(bedroom)["train"])
    assert [row["format"] for row in rows].count("webp") == 10
    assert [row["format"] for row in rows].count("jpeg") == 2
    for row in rows:
        data = read_bytes(os.path.join(bedroom.parent, row["uri"]), max_bytes=10**6)
        assert row["image_id"] == f"bedroom_train_lmdb/{key_of(data).decode()}"
        assert (row["bytes"], row["label"], row["split"], row["status"]) == (len(data), 0, "train", "done")
        assert (row["width"], row["height"]) == (48, 40)


def test_prepare_lsun_without_digests_gives_the_same_rows_but_what_only_reading_tells(bedroom, ingest, rows_of):
    listed = rows_of(ingest(bedroom, digests="none")["train"])
    assert {name for row in listed for name in READ if row[name] is not None} == set()
    version = ingest(bedroom)["train"]
    assert version.number == 2  # what was only listed is read
    read = rows_of(version)
    assert [{**row, **dict.fromkeys(READ)} for row in read] == listed
    assert all(row["sha256"] for row in read)


def test_prepare_lsun_without_digests_keeps_what_was_read_before(bedroom, ingest, rows_of):
    first = ingest(bedroom)["train"]
    assert ingest(bedroom, digests="none")["train"] == first


def test_prepare_lsun_nothing_new_makes_no_version(bedroom, ingest):
    for digests in ("none", "sha256"):
        first = ingest(bedroom, digests=digests)["train"]
        assert ingest(bedroom, digests=digests)["train"] == first


@pytest.mark.parametrize("digests", ["none", "sha256"])
def test_prepare_lsun_interrupted_resumes_to_the_parts_of_an_unbroken_one(bedroom, ingest, tmp_path, digests):
    options = {"digests": digests, "chunk_size": 5}
    ingest(bedroom, stop_after=2, **options)
    parts = set((tmp_path / "store/lsun/images/parts").iterdir())
    assert len(parts) == 2
    resumed = ingest(bedroom, **options)["train"]
    unbroken = ingest(bedroom, store=str(tmp_path / "other"), **options)["train"]
    assert resumed.parts == unbroken.parts
    assert parts < set((tmp_path / "store/lsun/images/parts").iterdir())


@pytest.mark.parametrize("digests", ["none", "sha256"])
def test_prepare_lsun_of_a_folder_has_each_environments_label_and_split(tmp_path, ingest, rows_of, digests):
    names = ["tower_train_lmdb", "bridge_train_lmdb", "bridge_val_lmdb", "test_lmdb"]
    for number, name in enumerate(names):
        write_lmdb(tmp_path / "all" / name, [encode(number)])
    versions = ingest(tmp_path / "all", digests=digests)
    rows = {row["image_id"].partition("/")[0]: row for row in rows_of(versions["val"])}
    assert {name: (row["split"], row["label"]) for name, row in rows.items()} == {
        "test_lmdb": ("test", None), "bridge_train_lmdb": ("train", 1), "tower_train_lmdb": ("train", 9),
        "bridge_val_lmdb": ("val", 1),
    }  # fmt: skip
    classes = versions["val"].metadata["classes"]["classes"]
    assert (len(classes), classes[9]["name"]) == (10, "tower")


@pytest.mark.parametrize("digests", ["none", "sha256"])
def test_prepare_lsun_every_value_is_a_row_with_its_reason(tmp_path, ingest, rows_of, digests):
    good, values = (
        encode(1),
        {b"not/../a key\n\xff": b"1", b"0" * 40: b"", b"1" * 40: b"x" * 5000, b"2" * 40: b"no image"},
    )
    folder = write_lmdb(tmp_path / "kitchen_train_lmdb", {key_of(good): good, **values})
    rows = rows_of(ingest(folder, digests=digests, max_bytes=4000)["train"])
    assert {row["reason"]: row["image_id"] for row in rows if row["image_id"][19:59] != key_of(good).decode()} == {
        "bad_name": "kitchen_train_lmdb/not/../a key\n\\xff",
        "empty": f"kitchen_train_lmdb/{'0' * 40}",
        "too_many_bytes": f"kitchen_train_lmdb/{'1' * 40}",
        None if digests == "none" else "not_an_image": f"kitchen_train_lmdb/{'2' * 40}",
    }


@pytest.mark.parametrize("digests", ["none", "sha256"])
@pytest.mark.parametrize("values", [{b"00000001": b"1", b"00000002": b"2"}, {}])
def test_prepare_lsun_somebody_elses_environment_is_refused(tmp_path, ingest, digests, values):
    folder = write_lmdb(tmp_path / "bedroom_val_lmdb", values)
    with pytest.raises(BadInput, match=r"bedroom_val_lmdb: expected keys of 40|bedroom_val_lmdb holds no values"):
        ingest(folder, digests=digests)


@pytest.mark.parametrize("digests", ["none", "sha256"])
def test_prepare_lsun_added_and_removed_values_are_seen(bedroom, ingest, rows_of, tmp_path, digests):
    ingest(bedroom, digests=digests, chunk_size=4)
    values = [encode(n) for n in range(8)] + [encode(99)]
    copy = write_lmdb(tmp_path / "new" / "bedroom_train_lmdb", values)  # a process cannot open the old place anew
    version = ingest(copy, digests=digests, chunk_size=4)["train"]
    assert {row["image_id"][19:] for row in rows_of(version)} == {key_of(value).decode() for value in values}
    assert version.metadata["roots"]["train"] == str(tmp_path / "new")


@given(st.dictionaries(st.text("0123456789abcdef", min_size=40, max_size=40), st.binary(max_size=9), min_size=1))
@settings(max_examples=25, deadline=None)
def test_list_rows_are_those_of_the_listing(tmp_path_factory, values):
    folder = write_lmdb(tmp_path_factory.mktemp("lsun") / "tower_val_lmdb", {k.encode(): v for k, v in values.items()})
    (environment,) = find_environments(str(folder), "auto")["val"]
    parameters = IngestLsunParameters(
        source=str(folder), store="/s", dataset="lsun", split="val", id_prefix="x/", max_bytes=8
    )
    (rows,) = list_rows([environment], [3], parameters)
    files = list_values([environment]).files
    assert rows["image_id"].to_pylist() == [f"x/{file.path}" for file in files]
    assert rows["uri"].to_pylist() == [file.uri for file in files]
    assert rows["bytes"].to_pylist() == [len(values[key]) for key in sorted(values)]
    assert rows["mtime_ns"].to_pylist() == [file.mtime_ns for file in files]
    assert rows["reason"].to_pylist() == [
        {0: "empty", 9: "too_many_bytes"}.get(len(values[key])) for key in sorted(values)
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"export": "copy"}, "out: expected a folder together with export"),
        ({"out": "/o"}, "out: expected a folder together with export"),
        ({"rehash": True, "digests": "none"}, "rehash: nothing is read"),
        ({"export": "tiff", "out": "/o"}, "export"),
        ({"quality": 0}, "quality"),
        ({"short_side": 0}, "short_side"),
        ({"source": "s3://bucket/lsun"}, "s3:// is not supported"),
    ],
)
def test_ingest_lsun_parameters_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        IngestLsunParameters(**{"source": "/i", "store": "/s", "dataset": "lsun", **options})
