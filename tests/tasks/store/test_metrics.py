"""The SQL macros for sets of labels give what is computed by hand, and what scikit-learn gives."""

import duckdb
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from labelmill.tasks.store import open_store
from labelmill.tasks.store.metrics import metric_statements


@pytest.fixture
def sql(store, add):
    add(store.table("imagenet.things"), 1)
    with store.connect() as connection:
        yield connection


def one(sql, query):
    return sql.execute(query).fetchall()[0]


def test_real_accuracy_empty_lists_do_not_count_and_no_prediction_is_wrong(sql):
    rows = "(VALUES (1, [1, 2]), (3, []), (9, NULL), (2, [5]), (NULL, [4]), (7, [7])) AS t(predicted, labels)"
    assert one(sql, f"SELECT real_accuracy(predicted, labels) FROM {rows}") == (0.5,)
    assert one(sql, "SELECT real_accuracy(1, []::INTEGER[])") == (None,)


@pytest.mark.parametrize(
    ("k", "ranked", "labels", "wanted"),
    [
        (3, "[5, 1, 2, 9]", "[1, 9]", (1, 1 / 3, 1 / 2, 2 / 5)),
        (4, "[5, 1, 2, 9]", "[1, 9]", (2, 2 / 4, 1.0, 4 / 6)),
        (5, "[1]", "[1]", (1, 1 / 5, 1.0, 2 / 6)),
        (1, "[3]", "[1, 1]", (0, 0, 0, 0)),
        (2, "[]::INTEGER[]", "[1]", (0, 0, 0, 0)),
        (2, "[1, 2]", "[]::INTEGER[]", (None,) * 4),
        (2, "[1, 2]", "NULL::INTEGER[]", (None,) * 4),
    ],
)
def test_metrics_at_k_of_an_image_are_those_by_hand(sql, k, ranked, labels, wanted):
    names = ("true_positives_at", "precision_at", "recall_at", "f1_at")
    calls = ", ".join(f"{name}({k}, {ranked}, {labels})" for name in names)
    assert one(sql, f"SELECT {calls}") == pytest.approx(wanted)


def scored(rows):
    listed = ", ".join(f"('{image}', {label}, {score})" for image, label, score in rows)
    return f"scores AS (SELECT * FROM (VALUES {listed}) AS t(image_id, class_id, score))"


def true(rows):
    listed = ", ".join(f"('{image}', {label})" for image, label in rows)
    return f"truth AS (SELECT * FROM (VALUES {listed}) AS t(image_id, class_id))"


def test_mean_average_precision_by_hand_with_a_positive_that_has_no_score(sql):
    # class 1: hit, miss, hit of three positives, one never scored: (1/1 + 2/3) / 3; class 2: miss, hit: 1/2; class 3: 0
    scores = [("a", 1, 0.9), ("b", 1, 0.8), ("c", 1, 0.7), ("a", 2, 0.9), ("b", 2, 0.1), ("a", 4, 0.5)]
    truth = [("a", 1), ("c", 1), ("d", 1), ("b", 2), ("d", 3)]
    ctes = f"WITH {scored(scores)}, {true(truth)}"
    rows = sql.execute(f"{ctes} SELECT * FROM average_precisions('scores', 'truth') ORDER BY class_id").fetchall()
    assert rows == [(1, 3, pytest.approx(5 / 9)), (2, 1, pytest.approx(1 / 2)), (3, 1, 0)]
    found = one(sql, f"{ctes} SELECT * FROM mean_average_precision('scores', 'truth')")
    assert found == (3, pytest.approx((5 / 9 + 1 / 2) / 3))


def test_average_precisions_with_ties_are_scikit_learns(sql):
    random = np.random.default_rng(0)
    hits, scores = random.random((40, 3)) < 0.3, random.integers(0, 6, (40, 3)) / 6
    places = [(image, label) for image in range(40) for label in range(3)]
    ctes = (
        f"WITH {scored([(image, label, scores[image, label]) for image, label in places])}, "
        f"{true([(image, label) for image, label in places if hits[image, label]])}"
    )
    rows = sql.execute(f"{ctes} SELECT * FROM average_precisions('scores', 'truth') ORDER BY class_id").fetchall()
    wanted = [average_precision_score(hits[:, label], scores[:, label]) for label in range(3)]
    assert [ap for _, _, ap in rows] == pytest.approx(wanted, abs=1e-12)


def test_metric_statements_serve_a_duckdb_of_ones_own():
    with duckdb.connect() as connection:
        for statement in metric_statements():
            connection.execute(statement)
        assert connection.execute("SELECT precision_at(2, [1, 2], [2])").fetchall() == [(0.5,)]


def test_metrics_read_views_by_name(store, add):
    add(store.table("imagenet.things"), 1)
    with open_store(store.root).connect() as sql, pytest.raises(duckdb.BinderException, match=r"image_id|class_id"):
        sql.execute("SELECT * FROM mean_average_precision('imagenet.things', 'imagenet.things')")
