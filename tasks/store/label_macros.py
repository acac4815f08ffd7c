"""SQL macros over stored labels: choosing among pseudo labels, and what changed between two versions."""

from __future__ import annotations

# A lambda computes whatever does not depend on its element once more for each: lists of equal numbers do not.
_RELATIVE = "list_zip(probabilities, list_resize([]::FLOAT[], len(probabilities), list_max(probabilities)))"

_SCALARS = {
    "sharp_weights(probabilities, temperature)": (
        f"list_transform({_RELATIVE}, lambda pair: pow(pair[1] / pair[2], 1 / temperature))"
    ),
    "divided(weights, total)": (
        "list_transform(list_zip(weights, list_resize([]::DOUBLE[], len(weights), total)), "
        "lambda pair: pair[1] / pair[2])"
    ),
    # of the kept classes alone: what the teacher gave to others is left out, and what stays sums to one
    "sharpened(probabilities, temperature)": (
        "divided(sharp_weights(probabilities, temperature), list_sum(sharp_weights(probabilities, temperature)))"
    ),
}

_PAIRS = """
SELECT image_id, was.label AS before, now.label AS after,
  CASE WHEN now.image_id IS NULL THEN 'removed' WHEN was.image_id IS NULL THEN 'added'
    WHEN was.label IS NOT DISTINCT FROM now.label THEN 'same' WHEN was.label IS NULL THEN 'labelled'
    WHEN now.label IS NULL THEN 'unlabelled' ELSE 'flipped' END AS change
FROM (SELECT image_id, COLUMNS(lambda c: c = named)::VARCHAR AS label FROM query_table(older)) AS was
FULL JOIN (SELECT image_id, COLUMNS(lambda c: c = named)::VARCHAR AS label FROM query_table(newer)) AS now
  USING (image_id)
"""

_FLIPS_BY_CLASS = """
SELECT label, count(*) FILTER (was) AS before, count(*) FILTER (NOT was) AS after,
  count(*) FILTER (was AND change = 'same') AS same,
  count(*) FILTER (was AND change <> 'same') AS lost, count(*) FILTER (NOT was AND change <> 'same') AS gained
FROM (
  SELECT before AS label, true AS was, change FROM label_changes(older, newer, named) WHERE change <> 'added'
  UNION ALL
  SELECT after, false, change FROM label_changes(older, newer, named) WHERE change <> 'removed'
) GROUP BY label
"""

_TABLES = {
    "label_changes(older, newer, named)": _PAIRS,
    "label_flips(older, newer, named)": (
        "SELECT before, after, change, count(*) AS images FROM label_changes(older, newer, named) "
        "WHERE change <> 'same' GROUP BY ALL ORDER BY images DESC, before, after"
    ),
    "label_flips_by_class(older, newer, named)": _FLIPS_BY_CLASS,
    "most_confident(labels, images)": (
        "SELECT * FROM query_table(labels) WHERE pseudo_class IS NOT NULL QUALIFY row_number() OVER "
        "(PARTITION BY pseudo_class ORDER BY confidence DESC, image_id) <= images"
    ),
}


def label_statements() -> list[str]:
    """Return the statements that make the macros, in the order that they need each other.

    Tables are named as text: `label_flips('imagenet.images_v1', 'imagenet.images_v2', 'class_name')`.
    """
    scalars = [f"CREATE OR REPLACE MACRO main.{name} AS {body}" for name, body in _SCALARS.items()]
    tables = [f"CREATE OR REPLACE MACRO main.{name} AS TABLE {' '.join(b.split())}" for name, b in _TABLES.items()]
    return scalars + tables
