"""Verify finds every kind of damage and no other."""

import pyarrow as pa
import pytest

from labelmill.schemas.errors import NotInStore, StoreDamaged
from labelmill.schemas.versions import canonical_json
from labelmill.tasks.store.files import hash_file
from labelmill.tasks.store.verify import verify_version


@pytest.fixture
def part_file(table):
    return table.part_path(table.version().parts[1])


@pytest.fixture
def rewrite(table):
    """Change fields of version 2 and give it the sha256 that fits, as only a forger or a bug would."""

    def rewrite(**changes):
        version = table.version(2).model_copy(update=changes)
        version = version.model_copy(update={"sha256": version.digest()})
        path = table.folder / "versions" / "000002.json"
        path.write_text(canonical_json(version.model_dump(mode="json")))

    return rewrite


def test_verify_version_undamaged_has_no_problem(table):
    result = verify_version(table)
    assert (result.problems, result.parts, result.version.number) == ((), 2, 2)
    assert result.bytes == sum(part.bytes for part in table.version().parts)


def test_verify_version_flipped_bit_at_any_byte_is_found(table, part_file):
    data = part_file.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        part_file.write_bytes(flipped)
        (problem,) = verify_version(table).problems
        assert part_file.name in problem
        assert "a changed byte" in problem
    part_file.write_bytes(data)
    assert verify_version(table).problems == ()


def test_verify_version_damage_of_another_version_is_not_its_own(table, part_file):
    part_file.unlink()
    assert verify_version(table, 1).problems == ()
    assert len(verify_version(table, 2).problems) == 1


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_verify_version_cut_part_is_found(table, part_file, length):
    part_file.write_bytes(part_file.read_bytes()[:length])
    (problem,) = verify_version(table).problems
    assert "bytes, found" in problem


def test_verify_version_longer_part_is_found(table, part_file):
    part_file.write_bytes(part_file.read_bytes() + b"\0")
    assert len(verify_version(table).problems) == 1


def test_verify_version_every_missing_part_is_named(table):
    for part in table.version().parts:
        table.part_path(part).unlink()
    problems = verify_version(table).problems
    assert problems == tuple(f"{part.path}: missing" for part in table.version().parts)


def test_verify_version_part_that_is_a_folder_is_a_problem(table, part_file):
    part_file.unlink()
    part_file.mkdir()
    (problem,) = verify_version(table).problems
    assert part_file.name in problem


def test_verify_version_wrong_row_count_is_found(table, rewrite):
    first, second = table.version(2).parts
    rewrite(parts=(first, second.model_copy(update={"rows": 3})))
    part_problem, version_problem = verify_version(table).problems
    assert "expected 3 rows, found 2" in part_problem
    assert version_problem == "version says 4 rows, its parts 5"


def test_verify_version_wrong_columns_are_found(table, rewrite):
    column = table.version(2).columns[0]
    rewrite(columns=(column.model_copy(update={"type": "int32"}),))
    assert ["columns differ" in problem for problem in verify_version(table).problems] == [True, True]


def test_verify_version_part_that_is_no_parquet_is_a_problem(table, rewrite, part_file):
    first, second = table.version(2).parts
    other = table.write_part(pa.table({"a": [1, 2]}), key="x")
    path = table.part_path(other)
    path.write_bytes(b"no parquet at all")
    digest = hash_file(path)
    rewrite(parts=(first, second.model_copy(update={"path": other.path, "bytes": 17, "sha256": digest})))
    (problem,) = verify_version(table).problems
    assert problem.startswith(f"{other.path}: unreadable")


def test_verify_version_altered_version_file_raises(table):
    path = table.folder / "versions" / "000002.json"
    path.write_bytes(path.read_bytes().replace(b'"rows":4', b'"rows":3'))
    with pytest.raises(StoreDamaged, match=r"000002\.json"):
        verify_version(table)


def test_verify_version_deleted_version_raises(table):
    table.delete(2)
    with pytest.raises(NotInStore, match="was deleted"):
        verify_version(table, 2)
    assert verify_version(table).version.number == 1
