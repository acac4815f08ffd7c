"""What a connection lets through, and what not."""

import duckdb
import pyarrow as pa
import pytest

from labelmill.schemas.errors import BadInput
from labelmill.tasks.store import open_store

REFUSED = [
    "COPY (SELECT 1) TO '{file}'",
    "COPY imagenet.things FROM '{file}'",
    "WITH x AS (COPY (SELECT 1) TO '{file}') SELECT * FROM x",
    "(WITH y AS (SELECT 1), x AS MATERIALIZED (COPY (SELECT 1) TO '{file}') SELECT * FROM x)",
    "WITH x AS (INSERT INTO imagenet.things VALUES (1) RETURNING *) SELECT * FROM x",
    "FROM query('COPY (SELECT 1) TO ''{file}''')",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''{file}'') SELECT * FROM x')",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{file}') SELECT * FROM x)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "explain/**/analyze copy (select 1) to '{file}'",
    "/* c */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "EXPLAIN /* c */ ANALYZE COPY (SELECT 1) TO '{file}'",
    "EXPLAIN -- c\n ANALYZE COPY (SELECT 1) TO '{file}'",
    "EXPLAIN ANALYZE /* ) */ COPY (SELECT 1) TO '{file}'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{file}'",
    "EXPLAIN (ANALYZE true, FORMAT json) COPY (SELECT 1) TO '{file}'",
    "EXPLAIN (FORMAT 'json) SELECT 1 --', ANALYZE) COPY (SELECT 1) TO '{file}'",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{file}') SELECT * FROM x",
    "SELECT 1; COPY (SELECT 1) TO '{file}'",
    "PREPARE p AS COPY (SELECT 1) TO '{file}'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPORT DATABASE '{file}'",
    "IMPORT DATABASE '{file}'",
    "ATTACH '{file}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA threads = 1",
    "SET threads = 1",
    "RESET threads",
    "SET VARIABLE a = 1",
    "USE imagenet",
    "CALL enable_logging()",
    "SELECT * FROM enable_logging(storage = 'file', storage_config = {{'path': '{file}'}})",
    "SELECT * FROM enable_profiling(save_location = '{file}')",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW imagenet.things AS SELECT 1 AS a",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW imagenet.things",
    "ALTER VIEW imagenet.things RENAME TO x",
    "COMMENT ON VIEW imagenet.things IS 'x'",
    "INSERT INTO imagenet.things VALUES (1)",
    "UPDATE imagenet.things SET a = 1",
    "DELETE FROM imagenet.things",
    "TRUNCATE imagenet.things",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
]

ALLOWED = [
    "SELECT sum(a) FROM imagenet.things",
    "FROM imagenet.things SELECT sum(a)",
    "/* c */ SELECT sum(a) FROM imagenet.things; -- c",
    "WITH t AS (FROM imagenet.things) SELECT sum(a) FROM t",
    "WITH RECURSIVE t AS (SELECT 0 AS n UNION ALL SELECT n + 11 FROM t WHERE n < 22) SELECT max(n) FROM t",
    "SELECT 1 UNION SELECT 22 ORDER BY 1 DESC LIMIT 1",
    'SELECT 22 AS "type", \'{{"type":"COPY_NODE"}}\' AS copy',
    "SELECT 1; SELECT 22",
    "VALUES (22)",
    "SELECT sum(a) FROM read_parquet('{root}/imagenet/things/parts/*.parquet')",
]

ABOUT_QUERIES = [
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "TABLE imagenet.things",
    "DESCRIBE imagenet.things",
    "SUMMARIZE imagenet.things",
    "EXPLAIN SELECT 1",
    "EXPLAIN (SELECT 1)",
    "EXPLAIN ANALYZE SELECT 1",
    "explain (analyze, format json) select 1",
    "EXPLAIN (FORMAT json) SELECT 1",
    "PIVOT imagenet.things ON a IN (1, 10) USING count(*)",
]

OUTSIDE = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_blob('{root}/../secret.txt')",
    "SELECT * FROM read_text('{root}/imagenet/../../secret.txt')",
    "SELECT * FROM read_text('{root}/*/../../secret.txt')",
    "SELECT * FROM read_text('{root}//..//secret.txt')",
    "SELECT * FROM read_text('{root}2/secret.txt')",
    "SELECT * FROM read_text('{root}/link.txt')",
    "SELECT * FROM read_text('{root}/folder/secret.txt')",
    "SELECT * FROM glob('{root}/../*')",
    "SELECT * FROM read_text('secret.txt')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM read_text('http://localhost:1/x')",
]


@pytest.fixture
def connection(store, table):
    with store.connect() as connection:
        yield connection


@pytest.fixture
def all_files(store):
    return lambda: {str(p): p.read_bytes() for p in store.root.parent.rglob("*") if p.is_file()}


@pytest.mark.parametrize("query", REFUSED)
def test_execute_statement_that_is_no_query_is_refused_and_writes_nothing(connection, store, table, all_files, query):
    before = all_files()
    file = table.part_path(table.version().parts[0])  # the worst that could be overwritten
    with pytest.raises((BadInput, duckdb.Error)):
        connection.execute(query.format(file=file)).fetchall()
    with pytest.raises((BadInput, duckdb.Error)):
        connection.sql(query.format(file=file)).fetchall()
    assert all_files() == before
    assert connection.execute("SELECT sum(a) FROM imagenet.things").fetchone() == (22,)


@pytest.mark.parametrize("query", ALLOWED)
def test_execute_query_gives_its_rows(connection, store, query):
    assert connection.execute(query.format(root=store.root)).fetchone()[0] == 22


@pytest.mark.parametrize("query", ABOUT_QUERIES)
def test_execute_query_about_queries_is_allowed(connection, query):
    connection.execute(query).fetchall()


@pytest.mark.parametrize("query", OUTSIDE)
def test_execute_file_outside_the_store_is_not_read(connection, store, query, monkeypatch):
    (store.root.parent / "secret.txt").write_text("secret")
    (store.root / "link.txt").symlink_to(store.root.parent / "secret.txt")
    (store.root / "folder").symlink_to(store.root.parent)
    (store.root.parent / "store2").mkdir()
    (store.root.parent / "store2" / "secret.txt").write_text("secret")
    monkeypatch.chdir(store.root.parent)
    with pytest.raises(duckdb.Error):
        connection.execute(query.format(root=store.root)).fetchall()


@pytest.mark.parametrize("query", ["SELECT * FROM mine", "SELECT * FROM parameters", "SELECT * FROM query"])
def test_execute_variable_of_python_is_no_table(connection, query):
    mine = pa.table({"a": [1]})
    with pytest.raises(duckdb.Error, match="does not exist"):
        connection.execute(query, None)
    assert mine.num_rows == 1


def test_execute_result_offers_what_duckdb_offers(connection):
    result = connection.execute("SELECT a FROM imagenet.things WHERE a >= ? ORDER BY a", [1])
    assert [column[0] for column in result.description] == ["a"]
    assert (result.fetchone(), result.fetchmany(1), result.fetchall()) == ((1,), [(10,)], [(11,)])
    query = "SELECT a FROM imagenet.things WHERE a < $most ORDER BY a"
    assert connection.execute(query, {"most": 5}).fetch_arrow_table().to_pydict() == {"a": [0, 1]}
    assert callable(result.fetchdf)  # it needs pandas, which is no dependency


def test_sql_relation_reads_and_refines_but_does_not_write(connection, store, all_files):
    before = all_files()
    relation = connection.sql("SELECT a FROM imagenet.things")
    assert relation.filter("a > 1").order("a").limit(1).fetchall() == [(10,)]
    assert relation.union(connection.sql("SELECT 5")).aggregate("count(*)").fetchall() == [(5,)]
    assert connection.table("imagenet.things_v1").fetchall() == [(0, 0), (1, 1)]
    assert (len(relation), relation.columns) == (4, ["a"])
    assert relation.to_arrow_table().num_rows == 4
    assert "int64" in repr(relation)
    for name in ("to_parquet", "write_parquet", "to_csv", "write_csv", "create", "create_view", "insert_into", "query"):
        assert not hasattr(relation, name)
        assert not hasattr(relation.limit(1), name)
    assert connection.sql("-- nothing") is None
    assert all_files() == before


@pytest.mark.parametrize("name", ["register", "append", "install_extension", "read_csv", "from_query", "begin"])
def test_connection_method_that_is_no_query_is_refused(connection, name):
    assert not hasattr(connection, name)
    assert not hasattr(connection.cursor(), name)


def test_cursor_is_behind_the_same_gate(connection):
    cursor = connection.cursor()
    assert cursor.execute("SELECT sum(a) FROM imagenet.things").fetchone() == (22,)
    with pytest.raises(BadInput, match="expected SELECT, got CREATE"):
        cursor.execute("CREATE TABLE t (a int)")


def test_connect_writable_reads_and_writes_the_callers_files(store, table, tmp_path):
    with store.connect(read_only=False) as connection:
        connection.execute(f"COPY (SELECT a FROM imagenet.things) TO '{tmp_path}/out.csv'")
        assert connection.sql(f"SELECT sum(a) FROM '{tmp_path}/out.csv'").fetchall() == [(22,)]


def test_connect_empty_store_answers(store):
    with store.connect() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert connection.execute("SHOW ALL TABLES").fetchall() == []


def test_connect_dataset_behind_a_link_can_be_read_and_nothing_beside_it(store, table, tmp_path):
    (tmp_path / "disk").mkdir()
    (store.root / "imagenet").rename(tmp_path / "disk" / "imagenet")
    (store.root / "imagenet").symlink_to(tmp_path / "disk" / "imagenet")
    (tmp_path / "disk" / "secret.txt").write_text("secret")
    (tmp_path / "way").symlink_to(store.root)
    with open_store(tmp_path / "way").connect() as connection:
        assert connection.execute("SELECT sum(a) FROM imagenet.things").fetchone() == (22,)
        with pytest.raises(duckdb.Error):
            connection.execute(f"SELECT * FROM read_text('{tmp_path}/disk/secret.txt')").fetchall()
