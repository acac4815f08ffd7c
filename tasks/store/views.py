"""SQL text of the views over a store: a schema per dataset, a view per table and per version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.label_maps import MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.statistics import CHANNELS
from labelmill.schemas.versions import Part, Version
from labelmill.tasks.store.label_macros import label_statements
from labelmill.tasks.store.metrics import metric_statements
from labelmill.tasks.store.store import Store
from labelmill.tasks.store.table import Table


def view_statements(store: Store) -> Iterator[str]:
    """Yield the statements that make all views and macros, without semicolons; paths are absolute.

    `row` is 0…n−1 in the order of the version's parts, which DuckDB tells apart by `file_index`.
    """
    yield from metric_statements()
    yield from label_statements()
    for dataset in sorted({name.partition(".")[0] for name in store.tables()}):
        yield f'CREATE SCHEMA IF NOT EXISTS "{dataset}"'
    for name in store.tables():
        table = store.table(name)
        versions = table.versions()
        schema = f'"{name.partition(".")[0]}"'
        for version in versions:
            for view, body in _version_views(table, version):
                yield f'CREATE VIEW {schema}."{view}_v{version.number}" AS {body}'
                if version is versions[-1]:
                    yield f'CREATE VIEW {schema}."{view}" AS SELECT * FROM {schema}."{view}_v{version.number}"'


def quote(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def name_view(version: Version) -> str:
    """Return the quoted name of a version's view."""
    dataset, _, name = version.table.partition(".")
    return f'"{dataset}"."{name}_v{version.number}"'


def select_parts(table: Table, version: Version, parts: Sequence[Part]) -> str:
    """Return a SELECT over some of a version's parts; `row` is 0…n−1 among these."""
    piece = version.model_copy(update={"parts": tuple(parts)})
    return f"SELECT {_row(piece)}, {_columns(piece)} FROM {_files(table, piece)}"


def _version_views(table: Table, version: Version) -> Iterator[tuple[str, str]]:
    name = table.name.partition(".")[2]
    kind = version.metadata.get("kind")
    if kind == "images":
        yield name, _images(table, version)
    elif kind == "label_maps":
        meta = LabelMapMetadata.model_validate(version.metadata)
        yield name, _label_maps(table, version, meta)
        if not set(MAP_COLUMNS) <= {c.name for c in version.columns}:
            return  # maps in the form of an earlier labelmill
        suffix = name.removeprefix("label_maps") if name.startswith("label_maps") else f"_{name}"
        # label_maps_b has label_cells_b beside it, and a table soft has label_cells_soft
        yield f"label_classes{suffix}", _label_classes(table, version, meta)
        yield f"label_cells{suffix}", _label_cells(table, version, meta)
    elif kind == "pseudo_labels":
        yield name, _pseudo_labels(table, version)
    elif kind == "manifest":
        yield name, _manifest(table, version)
    elif kind == "statistics":
        yield name, f"SELECT {_row(version)}, {_columns(version)} FROM {_files(table, version)}"
        yield f"{name}_channels", _statistics_channels(table, version)
    else:
        row = "" if any(c.name.lower() == "row" for c in version.columns) else f"{_row(version)}, "
        yield name, f"SELECT {row}{_columns(version)} FROM {_files(table, version)}"


def _files(table: Table, version: Version) -> str:
    paths = ", ".join(quote(literal_path(str(table.part_path(part)))) for part in version.parts)
    # Without the option a folder above the store such as run=5 would become a column.
    return f"read_parquet([{paths}], hive_partitioning = false)"


def literal_path(path: str) -> str:
    """Return a path as a DuckDB pattern that matches only this path; no pattern does when it has a backslash too."""
    if not re.search(r"[*?[]", path):
        return path
    if "\\" in path:
        raise BadInput(f"store {path}: SQL cannot name a path with a backslash and one of * ? [; move the store")
    return re.sub(r"([*?[])", r"[\1]", path)


def _row(version: Version) -> str:
    starts = [0]
    for part in version.parts[:-1]:
        starts.append(starts[-1] + part.rows)
    if len(starts) == 1:
        return "file_row_number AS row"
    return f"({_list(starts)})[file_index::BIGINT + 1] + file_row_number AS row"


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(str(value) for value in values) + "]"


def _name_of(class_id: str, classes: ClassList | None) -> str:
    if classes is None:
        return "NULL::VARCHAR"
    return f"({_list([quote(c.name) for c in classes.classes])})[{class_id} + 1]"


def _columns(version: Version, leave_out: Sequence[str] = ()) -> str:
    names = [c.name.replace('"', '""') for c in version.columns if c.name not in leave_out]
    return ", ".join(f'"{name}"' for name in names)


def _images(table: Table, version: Version) -> str:
    name = _name_of("label", read_classes(version.metadata))
    return f"SELECT {_row(version)}, {_columns(version)}, {name} AS class_name FROM {_files(table, version)}"


def _manifest(table: Table, version: Version) -> str:
    classes = read_classes(version.metadata)
    name, label = _name_of("class_id", classes), _name_of("label", classes)
    return (
        f"SELECT {_row(version)}, {_columns(version)}, {name} AS class_name, {label} AS label_name "
        f"FROM {_files(table, version)}"
    )


def _statistics_channels(table: Table, version: Version) -> str:
    """One row for each split and channel, and with split NULL for all of it; whole numbers to the last division."""
    channels = " UNION ALL ".join(
        f"SELECT split, '{channel}' AS channel, unnest({channel})::HUGEINT AS n, unnest(range(256)) AS value "
        f"FROM {_files(table, version)} WHERE status = 'done'"
        for channel in CHANNELS
    )
    return (
        "SELECT split, channel, pixels::BIGINT AS pixels, total / pixels / 255 AS mean, "
        "sqrt((pixels * squares - total * total)::DOUBLE / (pixels * pixels)::DOUBLE) / 255 AS deviation FROM ("
        "SELECT split, channel, sum(n)::HUGEINT AS pixels, sum(n * value)::HUGEINT AS total, "
        f"sum(n * value * value)::HUGEINT AS squares FROM ({channels}) "
        "GROUP BY GROUPING SETS ((channel), (split, channel)))"
    )


def _label_maps(table: Table, version: Version, meta: LabelMapMetadata) -> str:
    label, pooled = _name_of("label", meta.classes), _name_of("pooled_class", meta.classes)
    return (
        f"SELECT {_row(version)}, {_columns(version, MAP_COLUMNS)}, {label} AS label_name, {pooled} AS pooled_name "
        f"FROM {_files(table, version)}"
    )


def _pseudo_labels(table: Table, version: Version) -> str:
    classes = read_classes(version.metadata)
    label, pseudo = _name_of("label", classes), _name_of("pseudo_class", classes)
    return (
        f"SELECT {_row(version)}, {_columns(version)}, {label} AS label_name, {pseudo} AS pseudo_name "
        f"FROM {_files(table, version)}"
    )


def _label_classes(table: Table, version: Version, meta: LabelMapMetadata) -> str:
    """One row for each image and class that leads cells of its map, with how many."""
    return (
        f"SELECT image_id, class_id, {_name_of('class_id', meta.classes)} AS class_name, cells FROM "
        f"(SELECT image_id, unnest(classes) AS class_id, unnest(cells) AS cells FROM {_files(table, version)})"
    )


def _label_cells(table: Table, version: Version, meta: LabelMapMetadata) -> str:
    """One row for each image, cell and rank, with the centred logit and the cell's softmax at that class."""
    (height, width), top_k = meta.grid, meta.top_k
    cell = f"(entry // {top_k})"
    # One term for each rank: twenty times as fast as list_sum over a slice, measured at 15x15x5.
    logit = f"top[{cell} + 1]::INTEGER" + "".join(
        f" - CASE WHEN entry % {top_k} > {rank} THEN drops[{cell} * {top_k - 1} + {rank + 1}] ELSE 0 END"
        for rank in range(top_k - 1)
    )
    entries = (
        f"SELECT image_id, unnest(range({height * width * top_k})) AS entry, unnest(index) AS place, "
        f"list_concat(classes, others) AS listed, top, drops, rest FROM {_files(table, version)} "
        "WHERE index IS NOT NULL"
    )
    return (
        f"SELECT image_id, {cell} // {width} AS y, {cell} % {width} AS x, entry % {top_k} AS rank, class_id, "
        f"{_name_of('class_id', meta.classes)} AS class_name, steps * {meta.logit_step!r}::DOUBLE AS logit, "
        f"exp((steps - top_steps - rest_steps) * {meta.logit_step!r}::DOUBLE) AS prob FROM "
        f"(SELECT image_id, entry, listed[place::BIGINT + 1] AS class_id, {logit} AS steps, "
        f"top[{cell} + 1] AS top_steps, rest[{cell} + 1]::INTEGER AS rest_steps FROM ({entries}))"
    )
