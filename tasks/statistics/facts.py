"""What a page of statistics shows of an images table, counted by SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labelmill.schemas.versions import Version
from labelmill.tasks.store import Store

BARS = 40
"""Columns of a histogram."""

CLASSES_SHOWN = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Counts of values between equal steps from `low` to `high`; values beyond are in the outer columns."""

    title: str
    unit: str
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFacts:
    """Counts of a dataset's images; `classes` by size, the largest first, `class_sizes` ascending.

    An image without a label of its own, but with several, counts for each of them.
    """

    images: int
    done: int
    histograms: tuple[Histogram, ...]
    classes: tuple[tuple[str, int], ...]
    class_sizes: tuple[int, ...]
    kinds: tuple[tuple[str, str, int], ...]
    rejected: tuple[tuple[str, str, int], ...]


Rows = list[tuple[object, ...]]

_MEASURES = {
    "width": ("width", "pixels"),
    "height": ("height", "pixels"),
    "aspect ratio (width by height, doublings)": ("log2(width / height)", ""),
    "file size": ("bytes / 1000", "kB"),
}


def read_facts(store: Store, images: Version, split: str | None) -> DatasetFacts:
    """Count the images of a version, of one split or all."""
    dataset, _, name = images.table.partition(".")
    view = f'(SELECT * FROM "{dataset}"."{name}_v{images.number}" WHERE $split IS NULL OR split = $split)'
    given: dict[str, object] = {"split": split}
    with store.connect() as sql:

        def ask(query: str) -> Rows:
            return [tuple(row) for row in sql.execute(query.replace("IMAGES", view), given).fetchall()]

        counts = ask("SELECT count(*), count(*) FILTER (status = 'done') FROM IMAGES")[0]
        classes = ask(
            "SELECT id, count(*) FROM (SELECT unnest(CASE WHEN label IS NULL AND len(labels) > 0 THEN labels "
            "ELSE [label] END) AS id FROM IMAGES WHERE status = 'done') GROUP BY id ORDER BY count(*) DESC, id"
        )
        kinds = ask(
            "SELECT coalesce(format, 'not known'), coalesce(mode, ''), count(*) FROM IMAGES "
            "WHERE status = 'done' GROUP BY ALL ORDER BY count(*) DESC, 1, 2"
        )
        rejected = ask(
            "SELECT split, reason, count(*) FROM IMAGES WHERE status <> 'done' GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        )
        histograms = [_histogram(ask, title, *measure) for title, measure in _MEASURES.items()]
    return DatasetFacts(
        images=_int(counts[0]), done=_int(counts[1]), histograms=tuple(h for h in histograms if h is not None),
        classes=tuple((_name_class(images, class_id), _int(count)) for class_id, count in classes),
        class_sizes=tuple(sorted(_int(count) for _, count in classes)),
        kinds=tuple((str(a), str(b), _int(count)) for a, b, count in kinds),
        rejected=tuple((str(a), str(b), _int(count)) for a, b, count in rejected),
    )  # fmt: skip


def _name_class(images: Version, class_id: object) -> str:
    return "without label" if class_id is None else str(images.metadata["classes"]["classes"][_int(class_id)]["name"])


def _histogram(ask: Callable[[str], Rows], title: str, measure: str, unit: str) -> Histogram | None:
    """Return a histogram from the 1st to the 99th percentile: a few giants would leave all others one column."""
    bounds = ask(f"SELECT quantile_cont({measure}, [0.01, 0.99]) FROM IMAGES WHERE status = 'done'")[0][0]
    if not isinstance(bounds, list) or bounds[0] is None:
        return None
    low, high = float(bounds[0]), float(bounds[1])
    step = (high - low) / BARS or 1.0
    rows = ask(
        f"SELECT least(greatest(floor(({measure} - {low!r}) / {step!r}), 0), {BARS - 1})::INTEGER, count(*) "
        "FROM IMAGES WHERE status = 'done' GROUP BY ALL"
    )
    counts = [0] * BARS
    for place, count in rows:
        counts[_int(place)] = _int(count)
    return Histogram(title=title, unit=unit, low=low, high=low + step * BARS, counts=tuple(counts))


def _int(value: object) -> int:
    return int(str(value))
