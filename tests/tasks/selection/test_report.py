"""The report over thresholds against counts by hand and by a loop."""

import math
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import PseudoReportParameters
from labelmill.tasks.selection.report import measure_balance, report_thresholds
from labelmill.tasks.selection.report_page import build_report_page
from labelmill.tasks.store import open_store

from .conftest import NAMES, predicted, write_labels

ROWS = [
    predicted("a", 0, 0.9, label=0), predicted("b", 0, 0.8, label=1), predicted("c", 1, 0.8), predicted("d", 2, 0.3),
    predicted("e", None, None), predicted("f", None, None, reason="corrupt"), predicted("g", 0, 0.99, split="val"),
]  # fmt: skip


def report(root, **options):
    return report_thresholds(PseudoReportParameters(store=str(root), dataset="pets", **options))


def test_report_thresholds_counts_by_hand(make_labels):
    made = report(make_labels(ROWS), thresholds="0.8,0.2,1", split="pool")
    low, mid, high = made.totals
    assert [row["threshold"] for row in made.totals] == [0.2, 0.8, 1]
    assert (low["images"], low["share"], low["known"], low["right"], low["classes"]) == (4, 1, 2, 1, 3)
    assert (mid["images"], mid["share"], mid["precision"], mid["classes"]) == (3, 0.75, 0.5, 2)
    assert mid["balance"] == pytest.approx((2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3)) / math.log(4))
    assert (mid["largest"], mid["smallest"]) == (2, 0)
    assert (high["images"], high["share"], high["precision"], high["balance"]) == (0, 0, None, None)
    ants = [row for row in made.rows if row["class_name"] == "ant"]
    assert [(row["images"], row["share"], row["precision"]) for row in ants] == [(2, 1, 0.5), (2, 1, 0.5), (0, 0, None)]
    assert [row["share"] for row in made.rows if row["class_name"] == "dog"] == [None] * 3
    assert (made.images, made.rejected) == (4, {"corrupt": 1, "no_prediction": 1})


def test_report_thresholds_table_answers_by_sql_and_comes_once(make_labels):
    root = make_labels(ROWS)
    assert report(root).version == report(root).version
    with open_store(root).connect() as sql:
        query = "SELECT threshold FROM pets.pseudo_label_report WHERE class_id IS NULL AND images >= 4 ORDER BY 1 DESC"
        assert sql.execute(query).fetchall()[0] == (0.8,)


def test_report_thresholds_without_predictions_is_refused(make_labels):
    with pytest.raises(BadInput, match="no prediction in split 'tset'"):
        report(make_labels(ROWS), split="tset")


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [([5, 5], 1), ([7, 0], 0), ([1, 1, 0, 0], 0.5), ([0, 0], None), ([3], None)],
)
def test_measure_balance_is_the_share_of_the_highest_entropy(sizes, wanted):
    assert measure_balance(np.array(sizes)) == (None if wanted is None else pytest.approx(wanted))


@settings(max_examples=25, deadline=None)
@given(
    drawn=st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 1, width=32), st.none() | st.integers(0, 3)), min_size=1, max_size=30
    ),
    thresholds=st.lists(st.floats(0, 1).map(lambda t: round(t, 3)), min_size=1, max_size=4),
)
def test_report_thresholds_any_table_is_what_a_loop_counts(drawn, thresholds):
    rows = [predicted(f"i{n}", c, p, label=label) for n, (c, p, label) in enumerate(drawn)]
    with tempfile.TemporaryDirectory() as folder:
        made = report(write_labels(rows, folder), thresholds=",".join(map(str, thresholds)))
    for row in made.rows:
        passed = [r for r in rows if np.float32(r["confidence"]) >= np.float32(row["threshold"])]
        if row["class_id"] is not None:
            passed = [r for r in passed if r["pseudo_class"] == row["class_id"]]
        assert row["images"] == len(passed)
        assert row["known"] == sum(r["label"] is not None for r in passed)
        assert row["right"] == sum(r["label"] == r["pseudo_class"] for r in passed)
    assert len(made.rows) == len(set(thresholds)) * (1 + len(NAMES))


def test_build_report_page_shows_every_threshold_and_escapes_names(make_labels):
    page = build_report_page(report(make_labels(ROWS, names=("<ant>", "bee", "cow", "dog"))))
    assert page.count("<polyline") == 3
    assert "τ = 0.95: 20.0%" in page
    assert "&lt;ant&gt;" in page
    assert "<ant>" not in page
