"""What the tests of the store share: small real tables."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

TWO_DAYS_S = 2 * 24 * 3600.0


@pytest.fixture(scope="session")
def lineage():
    """A version's lineage that says nothing."""
    return Lineage(
        code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
    )


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def add(lineage):
    """Append a version of one part with the column `a`."""

    def add(table, *values, operation="append", metadata=None):
        rows = pa.table({"a": pa.array(values, pa.int64())})
        part = table.write_part(rows, key="k" * 20)
        return getattr(table, operation)([part], schema=rows.schema, metadata=metadata or {}, lineage=lineage)

    return add


@pytest.fixture
def table(store, add):
    """The table imagenet.things with version 1 (rows 0 and 1) and version 2 (also 10 and 11)."""
    table = store.table("imagenet.things")
    add(table, 0, 1)
    add(table, 10, 11)
    return table


@pytest.fixture
def values():
    """Read a version's column `a`, the latest by default."""
    return lambda table, number=None: table.read(table.version(number), ["a"])["a"].to_pylist()


@pytest.fixture
def make_old():
    """Set back the time of all files below a folder, or of some, by two days."""

    def make_old(*paths):
        then = time.time() - TWO_DAYS_S
        for path in paths:
            for file in [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]:
                os.utime(file, (then, then))

    return make_old


@pytest.fixture
def files_of():
    """List the files below a folder, relative to it."""
    return lambda folder: {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}
