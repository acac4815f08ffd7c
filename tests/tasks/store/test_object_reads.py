"""SQL over a store in a bucket: only reads, and only this store."""

import duckdb
import pytest

from labelmill.schemas.errors import BadInput
from labelmill.tasks.store import open_store
from labelmill.tasks.store.object_reads import ObjectReads


@pytest.fixture
def bucket_store(bucket, store, table):
    """A copy of the store, in a place whose name is a pattern; beside it an object of somebody else."""
    bucket.s3().pipe_file(f"{bucket.name}/other/secret.csv", b"a\n1\n")
    bucket.s3().pipe_file(f"{bucket.name}/st[o]re2/secret.csv", b"a\n1\n")
    return open_store(bucket.upload(store.root, "st[o]re"))


@pytest.fixture(params=["sql", "view names", "parallel"])
def question(request):
    return {
        "sql": "SELECT sum(a) + max(row) FROM imagenet.things",
        "view names": "SELECT (SELECT sum(a) FROM imagenet.things) + (SELECT count(*) + 1 FROM imagenet.things_v1)",
        "parallel": "SELECT sum(x.a) // 4 + 3 FROM imagenet.things AS x CROSS JOIN imagenet.things",
    }[request.param]


@pytest.mark.parametrize("read_only", [True, False])
def test_connect_views_answer_over_objects(bucket_store, question, read_only):
    with bucket_store.connect(read_only=read_only) as sql:
        assert sql.execute(question).fetchone() == (25,)


def test_connect_cursor_in_another_connection_answers(bucket_store):
    with bucket_store.connect() as sql, sql.cursor() as other:
        assert other.execute("SELECT count(*) FROM imagenet.things").fetchone() == (4,)


@pytest.mark.parametrize(
    "place",
    [
        "{url}/other/secret.csv",
        "{url}/st[[]o]re2/secret.csv",
        "{root}/../other/secret.csv",
        "{url}/*/secret.csv",
        "/etc/hostname",
        "https://host/secret.csv",
    ],
)
def test_connect_nothing_outside_the_store_is_read(bucket, bucket_store, place):
    with (
        bucket_store.connect() as sql,
        pytest.raises(duckdb.Error, match=r"disabled by configuration|[Nn]o files found"),
    ):
        sql.execute(f"SELECT * FROM read_csv('{place.format(url=bucket.url, root=bucket_store.root)}')").fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{part}'",
        "WITH x AS (COPY (SELECT 1) TO '{part}') SELECT 1",
        "SET enable_external_access = true",
        "ATTACH '{root}/x.db'",
    ],
)
def test_connect_what_writes_is_refused_and_changes_nothing(bucket, bucket_store, statement):
    table = bucket_store.table("imagenet.things")
    path = table.version().parts[0].path
    part, before = table.files.read(path), bucket.keys("st[o]re")
    with bucket_store.connect() as sql, pytest.raises(BadInput, match="read-only"):
        sql.execute(statement.format(part=table.files.at(path), root=bucket_store.root))
    assert (table.files.read(path), bucket.keys("st[o]re")) == (part, before)


@pytest.mark.parametrize("mode", ["wb", "ab", "xb", "r+b"])
def test_object_reads_open_for_writing_is_refused(bucket_store, mode):
    """Behind DuckDB's gates: no connection, not even one of the user's own, replaces a part by way of this one."""
    with pytest.raises(PermissionError, match="writes none"):
        ObjectReads(bucket_store.root).open(f"{bucket_store.root}/imagenet/x", mode)


@pytest.mark.parametrize("path", ["other/secret.csv", "st[o]re2/secret.csv", "st[o]re/../other/secret.csv", ""])
@pytest.mark.parametrize("method", ["open", "info", "ls", "modified"])
def test_object_reads_other_objects_are_refused(bucket, bucket_store, path, method):
    with pytest.raises(PermissionError, match="one store"):
        getattr(ObjectReads(bucket_store.root), method)(f"{bucket.url}/{path}")


@pytest.mark.parametrize("pattern", ["other/*", "*/secret.csv", "**", "st[[]o]re2/*", "st[[]o]re/../other/*"])
def test_object_reads_patterns_find_nothing_outside(bucket, bucket_store, pattern):
    reads = ObjectReads(bucket_store.root)
    assert all(name.startswith(f"{bucket_store.root}/") for name in reads.glob(f"{bucket.url}/{pattern}"))
    assert len(reads.glob(f"{bucket.url}/st[[]o]re/*/*/parts/*.parquet")) == 2
    assert not reads.exists(f"{bucket.url}/other/secret.csv")


def test_connect_back_end_out_of_order_says_so_with_the_object(bucket, bucket_store):
    with bucket_store.connect() as sql:
        bucket.faults({"path": "parts/", "status": 503})
        with pytest.raises(duckdb.Error, match=r"s3://.*/parts/\S+: gave up"):
            sql.execute("SELECT sum(a) FROM imagenet.things").fetchone()
