"""The SQL macros over labels give what is computed by hand, on views of a store and on WITHs."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.tasks.store import open_store
from labelmill.tasks.store.label_macros import label_statements


@pytest.fixture(scope="module")
def sql():
    with duckdb.connect() as connection:
        for statement in label_statements():
            connection.execute(statement)
        connection.execute(
            "CREATE VIEW older AS SELECT * FROM (VALUES ('a', 'ant'), ('b', 'bee'), ('c', 'cow'), ('d', 'ant'), "
            "('e', NULL), ('f', 'bee'), ('g', NULL)) AS t(image_id, named)"
        )
        connection.execute(
            "CREATE VIEW newer AS SELECT * FROM (VALUES ('a', 'ant'), ('b', 'ant'), ('d', 'cow'), ('e', 'bee'), "
            "('f', NULL), ('g', NULL), ('h', 'bee')) AS t(image_id, named)"
        )
        yield connection


def test_label_changes_tell_each_image(sql):
    rows = sql.execute("SELECT * FROM label_changes('older', 'newer', 'named') ORDER BY image_id").fetchall()
    assert rows == [
        ("a", "ant", "ant", "same"), ("b", "bee", "ant", "flipped"), ("c", "cow", None, "removed"),
        ("d", "ant", "cow", "flipped"), ("e", None, "bee", "labelled"), ("f", "bee", None, "unlabelled"),
        ("g", None, None, "same"), ("h", None, "bee", "added"),
    ]  # fmt: skip


def test_label_flips_count_pairs_the_commonest_first(sql):
    rows = sql.execute("SELECT * FROM label_flips('newer', 'older', 'named')").fetchall()
    assert len(rows) == 6
    doubled = "WITH twice AS (SELECT image_id || '2' AS image_id, named FROM newer UNION ALL SELECT * FROM newer)"
    query = f"{doubled} SELECT * FROM label_flips('older', 'twice', 'named') LIMIT 1"
    assert sql.execute(query).fetchall() == [(None, "bee", "added", 3)]


def test_label_flips_by_class_add_up(sql):
    rows = sql.execute("SELECT * FROM label_flips_by_class('older', 'newer', 'named') ORDER BY label").fetchall()
    assert rows == [  # label, before, after, same, lost, gained
        ("ant", 2, 2, 1, 1, 1), ("bee", 2, 2, 0, 2, 2), ("cow", 1, 1, 0, 1, 1), (None, 2, 2, 1, 1, 1),
    ]  # fmt: skip


def test_label_changes_unknown_column_is_refused(sql):
    with pytest.raises(duckdb.BinderException):
        sql.execute("SELECT * FROM label_changes('older', 'newer', 'nmaed')")


def test_most_confident_takes_equals_by_image_id(sql):
    rows = "(VALUES ('a', 0, 0.5), ('b', 0, 0.9), ('c', 0, 0.5), ('d', 1, 0.1), ('e', NULL, NULL))"
    query = f"WITH labels AS (SELECT * FROM {rows} AS t(image_id, pseudo_class, confidence)) SELECT image_id FROM "
    found = sql.execute(query + "most_confident('labels', 2) ORDER BY image_id").fetchall()
    assert found == [("a",), ("b",), ("d",)]


@pytest.mark.parametrize(
    ("probabilities", "temperature", "wanted"),
    [
        ([0.6, 0.3], 0.5, [0.8, 0.2]),
        ([0.6, 0.3], 1, [2 / 3, 1 / 3]),
        ([0.5, 1e-30], 0.001, [1, 0]),  # neither underflows to 0 / 0
        ([1e-30, 1e-30], 0.01, [0.5, 0.5]),
        ([], 0.5, []),
    ],
)
def test_sharpened_by_hand(sql, probabilities, temperature, wanted):
    query = "SELECT sharpened($p::FLOAT[], $t)"
    found = sql.execute(query, {"p": probabilities, "t": temperature}).fetchall()[0][0]
    assert found == pytest.approx(wanted)


@settings(deadline=None)
@given(
    probabilities=st.lists(st.floats(2**-20, 1, width=32), min_size=1, max_size=20),
    temperature=st.floats(0.05, 5),
)
def test_sharpened_any_list_sums_to_one_and_keeps_its_order(sql, probabilities, temperature):
    query = "SELECT sharpened($p::FLOAT[], $t)"
    found = sql.execute(query, {"p": probabilities, "t": temperature}).fetchall()[0][0]
    assert sum(found) == pytest.approx(1)
    ranked = sorted(zip(probabilities, found, strict=True))
    assert [weight for _, weight in ranked] == sorted(found)


def test_label_flips_read_versions_of_a_store_through_its_gate(store, add):
    table = store.table("imagenet.things")
    add(table, 1, 2, operation="replace")
    add(table, 1, 3, operation="replace")
    with open_store(store.root).connect() as connection:
        ids = "SELECT row::VARCHAR AS image_id, a FROM imagenet.things"
        query = f"WITH x AS ({ids}_v1), y AS ({ids}_v2) SELECT * FROM label_flips('x', 'y', 'a')"
        assert connection.execute(query).fetchall() == [("2", "3", "flipped", 1)]
