"""Versions of a table: never replaced, never half seen, none lost."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.tasks.store.table import Change
from labelmill.tasks.store.verify import verify_version

WRITER = """
import sys, time, pathlib
import pyarrow as pa
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lineage = Lineage(code="0", flow="t", parameters={}, parameters_digest="", inputs={}, time="", host="")
table = open_store(root).table("imagenet.things")
parts = [table.write_part(pa.table({"who": [name], "n": [i]}), key=name * 16) for i in range(count)]
print("ready", flush=True)
sys.stdin.readline()
schema = pa.schema({"who": pa.string(), "n": pa.int64()})
for part in parts:
    table.append([part], schema=schema, metadata={}, lineage=lineage)
"""


def version_file(table, number):
    return table.folder / "versions" / f"{number:06d}.json"


def test_append_two_processes_together_lose_no_row(store):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.root), name, "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    table = store.table("imagenet.things")
    rows = table.read(table.version(), ["who", "n"]).to_pylist()
    assert sorted((r["who"], r["n"]) for r in rows) == [(who, n) for who in "ab" for n in range(20)]
    assert table.numbers() == list(range(1, 41))
    assert [v.rows for v in table.versions()] == list(range(1, 41))


def test_append_writer_between_its_look_and_its_commit_loses_no_row(table, add, values, lineage):
    schema = pa.schema({"a": pa.int64()})
    mine = table.write_part(pa.table({"a": [99]}), key="m" * 16)
    looked = []

    def change(latest):
        if not looked:
            add(table, 20)
        looked.append(latest.number)
        return Change(operation="append", parts=[*latest.parts, mine], metadata={})

    version = table.commit(change, schema=schema, lineage=lineage)
    assert (looked, version.number, version.parent) == ([2, 3], 4, 3)
    assert values(table) == [0, 1, 10, 11, 20, 99]


def test_append_writer_just_before_its_look_loses_no_row(table, add, values, lineage, monkeypatch):
    mine = table.write_part(pa.table({"a": [99]}), key="m" * 16)
    look = table.latest

    def latest():
        found = look()
        monkeypatch.setattr(table, "latest", look)
        add(table, 20)
        return found

    monkeypatch.setattr(table, "latest", latest)
    table.append([mine], schema=pa.schema({"a": pa.int64()}), metadata={}, lineage=lineage)
    assert values(table) == [0, 1, 10, 11, 20, 99]


def test_replace_keeps_older_versions_readable(table, add, values):
    before = version_file(table, 2).read_bytes()
    assert add(table, 7, operation="replace").number == 3
    assert (values(table), values(table, 2), values(table, 1)) == ([7], [0, 1, 10, 11], [0, 1])
    assert version_file(table, 2).read_bytes() == before


def test_append_other_columns_are_refused(table, lineage):
    rows = pa.table({"b": [1]})
    part = table.write_part(rows, key="k")
    with pytest.raises(BadInput, match="columns differ from version 2"):
        table.append([part], schema=rows.schema, metadata={}, lineage=lineage)
    assert table.numbers() == [1, 2]
    assert table.replace([part], schema=rows.schema, metadata={}, lineage=lineage).number == 3


def test_append_no_parts_is_refused(store, lineage):
    with pytest.raises(BadInput, match="at least one part"):
        store.table("imagenet.new").append([], schema=pa.schema({}), metadata={}, lineage=lineage)


def test_append_part_that_is_gone_is_refused_and_nothing_committed(table, lineage):
    rows = pa.table({"a": [5]})
    part = table.write_part(rows, key="k")
    table.part_path(part).unlink()
    with pytest.raises(StoreDamaged, match="1 parts are gone"):
        table.append([part], schema=rows.schema, metadata={}, lineage=lineage)
    assert table.numbers() == [1, 2]


@pytest.mark.parametrize("name", ["things_v3", "label_cells", "label_classes_b"])
def test_append_name_that_views_take_is_refused(store, add, name):
    with pytest.raises(BadInput, match="are those of views"):
        add(store.table(f"imagenet.{name}"), 1)
    assert store.tables() == []


def test_write_part_equal_rows_give_the_same_part(table):
    rows = pa.table({"a": [1, 2, 3]})
    first = table.write_part(rows, key="key")
    path = table.part_path(first)
    path.write_bytes(b"damaged meanwhile")
    assert table.write_part(rows, key="key") == first
    assert table.read_part(first).equals(rows)


def test_delete_latest_falls_back_and_number_is_never_reused(table, add, values):
    table.delete(2, reason="wrong")
    assert (table.numbers(), table.numbers(deleted=True)) == ([1], [2])
    assert values(table) == [0, 1]
    with pytest.raises(NotInStore, match=r"version 2 was deleted; versions: 1"):
        table.version(2)
    version = add(table, 30)
    assert (version.number, version.parent) == (3, 1)
    assert values(table) == [0, 1, 30]
    assert json.loads(version_file(table, 2).with_suffix(".deleted.json").read_bytes())["reason"] == "wrong"


def test_delete_all_versions_table_is_gone_and_next_number_goes_on(store, table, add):
    table.delete(1)
    table.delete(2)
    assert (store.tables(), store.tables(unlisted=True), table.latest()) == ([], ["imagenet.things"], None)
    with pytest.raises(NotInStore, match="no such table"):
        table.version()
    assert add(table, 1).number == 3


@pytest.mark.parametrize("number", [2, 3, 0])
def test_delete_deleted_or_unknown_version_is_refused(table, number):
    table.delete(2)
    with pytest.raises(NotInStore):
        table.delete(number)
    assert table.numbers() == [1]


def test_delete_damaged_version_makes_the_table_readable_again(table, values):
    version_file(table, 2).write_bytes(b"{}")
    with pytest.raises(StoreDamaged):
        table.version()
    table.delete(2)
    assert values(table) == [0, 1]


@pytest.mark.parametrize(
    "alter",
    [
        lambda text: text.replace('"rows":4', '"rows":5'),
        lambda text: text.replace('"flow":"test"', '"flow":"tost"'),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"format":1', '"format":2'),
        lambda text: text.replace('"operation":"append"', '"operation":"append","more":1'),
    ],
    ids=["rows", "lineage", "cut", "empty", "format", "field"],
)
def test_version_altered_file_is_named(table, alter):
    path = version_file(table, 2)
    altered = alter(path.read_text())
    assert altered != path.read_text()
    path.write_text(altered)
    with pytest.raises(StoreDamaged, match=str(path)):
        table.version()
    assert table.version(1).rows == 2


def test_version_file_under_another_number_is_damaged(table):
    os.replace(version_file(table, 1), version_file(table, 5))
    with pytest.raises(StoreDamaged, match=r"000005\.json"):
        table.version()


def test_numbers_foreign_files_are_no_versions(table):
    for name in ("notes.txt", "000009.json.swp", "9.json", ".writing-1-x.json"):
        (table.folder / "versions" / name).write_text("x")
    assert table.numbers() == [1, 2]


def test_read_part_that_is_no_parquet_is_named(table):
    part = table.version().parts[0]
    table.part_path(part).write_bytes(b"PAR1")
    with pytest.raises(StoreDamaged, match=part.path):
        table.read(table.version(), ["a"])
    assert verify_version(table).problems
