"""The choice among pseudo labels as SQL: who stays, how often, and with which targets."""

from __future__ import annotations

from labelmill.schemas.manifests import MANIFEST_SCHEMA
from labelmill.schemas.parameters import SelectParameters
from labelmill.schemas.selection import LeftOut

CODES = (None, *LeftOut, None)
"""What a decision's code means: 0 is chosen, the last one keeps the reason that the pseudo labels give."""

_REJECTED = len(CODES) - 1

_USABLE = "pseudo_class IS NOT NULL AND coalesce(isfinite(confidence), false)"


def write_decisions(parameters: SelectParameters, labels: str, relevance: str | None) -> str:
    """Return the query that gives (row, code, copies) for each image of the view `labels`, in no order.

    Confidences are compared as they are stored, in 32 bits, and ranked with the smaller image_id first among equals. A
    class with fewer images than the quota is repeated: each as often as fits whole, the surest once more for the rest.
    `$split`, `$threshold`, `$quota` and `$relevant` are its parameters.

    Source: Xie et al. 2020, Self-training with Noisy Student, section 3 (quota, there with copies drawn at random);
    Xie et al. 2020, Unsupervised Data Augmentation, section 2 (relevance of out-of-domain images).
    """
    usable = f"{_USABLE} AND coalesce(list_max(probabilities), 0) > 0" if parameters.targets == "soft" else _USABLE
    relevant = "true" if relevance is None else "image_id IN (SELECT image_id FROM relevant)"
    ctes = [] if relevance is None else [f"relevant AS ({_write_relevant(parameters, relevance)})"]
    ctes.append(
        f"judged AS (SELECT row, image_id, pseudo_class, confidence, CASE WHEN status <> 'done' THEN {_REJECTED} "  # noqa: S608 - views of checked names, as below
        f"WHEN NOT ({usable}) THEN {_code(LeftOut.NO_PREDICTION)} WHEN NOT {relevant} THEN {_code(LeftOut.IRRELEVANT)} "
        f"WHEN confidence < $threshold::FLOAT THEN {_code(LeftOut.BELOW_THRESHOLD)} ELSE 0 END::UTINYINT AS code "
        f"FROM {labels} WHERE $split IS NULL OR split = $split)"
    )
    if parameters.quota is None:
        return f"WITH {', '.join(ctes)} SELECT row, code, (code = 0)::INTEGER AS copies FROM judged"  # noqa: S608
    ctes.append(
        "ranked AS (SELECT row, row_number() OVER (PARTITION BY pseudo_class ORDER BY confidence DESC, image_id) AS "
        "place, count(*) OVER (PARTITION BY pseudo_class) AS images FROM judged WHERE code = 0)"
    )
    copies = "1"
    if parameters.duplicate:
        copies = "CASE WHEN images >= $quota THEN 1 ELSE $quota // images + (place <= $quota % images)::INTEGER END"
    over = _code(LeftOut.OVER_QUOTA)
    return (
        f"WITH {', '.join(ctes)} SELECT row, code, 0 AS copies FROM judged WHERE code <> 0 UNION ALL "  # noqa: S608
        f"SELECT row, CASE WHEN place > $quota THEN {over} ELSE 0 END::UTINYINT, "
        f"CASE WHEN place > $quota THEN 0 ELSE {copies} END::INTEGER FROM ranked"
    )


def _write_relevant(parameters: SelectParameters, view: str) -> str:
    """Return the query for the images that are kept of a pool: of each class the most confident, at least one."""
    most = "$relevant" if parameters.relevant_share is None else "greatest(1, round($relevant * images))"
    return (
        "SELECT image_id FROM (SELECT image_id, row_number() OVER (PARTITION BY pseudo_class ORDER BY confidence "  # noqa: S608
        "DESC, image_id) AS place, count(*) OVER (PARTITION BY pseudo_class) AS images "
        f"FROM {view} WHERE ($split IS NULL OR split = $split) AND status = 'done' AND {_USABLE}) WHERE place <= {most}"
    )


def _code(reason: LeftOut) -> int:
    return CODES.index(reason)


def write_manifest(parameters: SelectParameters, rows: str) -> str:
    """Return the query for the manifest's rows of `rows`, a SELECT over parts, in their order.

    The table `decided` holds the decisions by row of the whole version, `$start` is the first row of these parts;
    `$temperature` and `$rejected`, the status of what is left out, are parameters too.
    """
    classes, targets = "[pseudo_class]", "[1]"
    if parameters.targets == "soft":
        classes, targets = "class_ids", "sharpened(probabilities, $temperature)"
    reasons = ", ".join("NULL" if reason is None else f"'{reason}'" for reason in CODES)
    reason = f"CASE code WHEN {_REJECTED} THEN coalesce(reason, status) ELSE [{reasons}][code + 1] END"
    columns = {
        "class_id": "pseudo_class",
        "class_ids": f"CASE WHEN code = 0 THEN {classes} END",
        "probabilities": f"CASE WHEN code = 0 THEN {targets} END",
        "status": "CASE WHEN code = 0 THEN status ELSE $rejected END",
        "reason": reason,
    }
    chosen = ", ".join(f"{columns.get(name, name)} AS {name}" for name in MANIFEST_SCHEMA.names)
    return f"SELECT {chosen} FROM ({rows}) AS p JOIN decided AS d ON d.row = p.row + $start ORDER BY p.row"  # noqa: S608
