"""SQL macros for labels that are sets: ReaL accuracy, precision and recall at k, average precision."""

from __future__ import annotations

_HITS = "len(list_intersect(ranked[1:k], labels))"

_SCALARS = {
    # per image; NULL where the image has no labels, so that avg() leaves it out
    "true_positives_at(k, ranked, labels)": f"CASE WHEN len(labels) > 0 THEN {_HITS} END",
    "precision_at(k, ranked, labels)": f"CASE WHEN len(labels) > 0 THEN {_HITS} / k END",
    "recall_at(k, ranked, labels)": f"CASE WHEN len(labels) > 0 THEN {_HITS} / len(list_distinct(labels)) END",
    "f1_at(k, ranked, labels)": f"CASE WHEN len(labels) > 0 THEN 2 * {_HITS} / (k + len(list_distinct(labels))) END",
    # an aggregate; without a prediction an image counts as wrong
    "real_accuracy(predicted, labels)": (
        "avg(CASE WHEN len(labels) > 0 THEN coalesce(list_contains(labels, predicted), false)::INTEGER END)"
    ),
}

_AVERAGE_PRECISIONS = """
WITH truths AS (SELECT DISTINCT image_id, class_id FROM query_table(truth)),
scored AS (SELECT image_id, class_id, max(score) AS score FROM query_table(scores) GROUP BY ALL),
steps AS (
  SELECT class_id, score, count(*) AS n, count(t.class_id) AS hits
  FROM scored LEFT JOIN truths AS t USING (image_id, class_id) GROUP BY class_id, score
),
sums AS (
  SELECT class_id, hits, sum(hits) OVER upto AS tp, sum(n) OVER upto AS seen FROM steps
  WINDOW upto AS (PARTITION BY class_id ORDER BY score DESC ROWS UNBOUNDED PRECEDING)
),
positives AS (SELECT class_id, count(*) AS positives FROM truths GROUP BY class_id)
SELECT class_id, any_value(positives) AS positives,
  coalesce(sum(hits * tp / seen ORDER BY tp), 0) / any_value(positives) AS average_precision
FROM positives LEFT JOIN sums USING (class_id) GROUP BY class_id
"""

_TABLES = {
    "average_precisions(scores, truth)": _AVERAGE_PRECISIONS,
    "mean_average_precision(scores, truth)": (
        "SELECT count(*) AS classes, avg(average_precision) AS mean_average_precision "
        "FROM average_precisions(scores, truth)"
    ),
}


def metric_statements() -> list[str]:
    """Return the statements that make the macros, in the order that they need each other.

    Images of one score are taken together, as scikit-learn does; a positive without a score is never found.

    Source: Beyer et al. 2020, Are we done with ImageNet?, section 2 (ReaL accuracy).
    """
    scalars = [f"CREATE OR REPLACE MACRO main.{name} AS {body}" for name, body in _SCALARS.items()]
    tables = [f"CREATE OR REPLACE MACRO main.{name} AS TABLE {' '.join(b.split())}" for name, b in _TABLES.items()]
    return scalars + tables
