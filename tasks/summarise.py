"""Count what a version holds, by SQL over its own views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from labelmill.schemas.images import Status
from labelmill.schemas.versions import Part
from labelmill.tasks.store.store import Store
from labelmill.tasks.store.table import Table


def count_statuses(store: Store, table: str, version: int, split: str | None = None) -> tuple[int, dict[str, int]]:
    """Return how many images of a version (of one split) are done, and how many were rejected for each reason."""
    with store.connect() as sql:
        rows = sql.execute(
            f"SELECT status, reason, count(*) FROM {_view(table, version)} WHERE $split IS NULL OR split = $split "  # noqa: S608
            "GROUP BY ALL ORDER BY count(*) DESC, reason",
            {"split": split},
        ).fetchall()
    done = sum(count for status, _, count in rows if status == Status.DONE)
    return done, {reason: count for status, reason, count in rows if status != Status.DONE}


def count_rejected(table: Table, parts: Sequence[Part]) -> dict[str, int]:
    """Return how many images of some parts were rejected for each reason, the most frequent first."""
    reasons = Counter(reason for part in parts for reason in table.read_part(part, ["reason"])["reason"].to_pylist())
    return {reason: count for reason, count in reasons.most_common() if reason is not None}


def count_agreement(store: Store, table: str, version: int, column: str = "pooled_class") -> tuple[int, int]:
    """Return on how many images the class in `column` is the label, and how many could be compared."""
    with store.connect() as sql:
        same, compared = sql.execute(
            f"SELECT count(*) FILTER ({column} = label), count(label) FROM {_view(table, version)} "  # noqa: S608
            "WHERE status = 'done'"
        ).fetchall()[0]
    return same, compared


def find_top_classes(store: Store, table: str, version: int, count: int) -> list[tuple[str, int]]:
    """Return the classes that lead most cells of a label maps version, with their cells."""
    view = _view(table.replace("label_maps", "label_classes"), version)
    with store.connect() as sql:
        rows = sql.execute(
            f"SELECT coalesce(any_value(class_name), class_id::VARCHAR), sum(cells)::BIGINT FROM {view} "  # noqa: S608
            "GROUP BY class_id ORDER BY sum(cells) DESC, class_id LIMIT ?",
            [count],
        ).fetchall()
    return [(name, cells) for name, cells in rows]


def _view(table: str, version: int) -> str:
    dataset, _, name = table.partition(".")
    return f'"{dataset}"."{name}_v{version}"'
