"""Read images' paths and labels from a table: CSV, TSV or Parquet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestTableParameters
from labelmill.tasks.ingest.job import IngestRun, prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.match_images import list_images, match_images

_DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";"}
_CELL_CHARACTERS_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTable:
    """A prepared ingest of a table, and what of its rows came to nothing."""

    images: IngestRun
    facts: dict[str, str]


def prepare_table(parameters: IngestTableParameters) -> PreparedTable:
    """Read a table and find its images; raise BadInput when one of them is not what was expected."""
    odd: Counter[str] = Counter()
    labels: dict[str, dict[str, None]] = {}
    for written, names in read_labels(parameters, odd):
        path = _find_below(written, parameters.images)
        known = labels.get(path)
        if known is not None:
            odd["rows of a path listed before"] += 1
        labels.setdefault(path, {}).update(dict.fromkeys(names))
    if not labels:
        raise BadInput(f"table: {parameters.table} has no row with a path; there is nothing to ingest")
    matched = match_images(list(labels), list_images(parameters.images))
    several = parameters.label_separator is not None
    if not several:
        odd["paths with different labels, left without one"] += sum(len(names) > 1 for names in labels.values())
    keys = [next(iter(labels[file.path])) if len(labels[file.path]) == 1 else None for file in matched.listing.files]
    classes = sorted({name for names in labels.values() if several or len(names) == 1 for name in names})
    found = SourceLabels(
        classes=ClassList(classes=tuple(ClassName(name=name) for name in classes), source=parameters.label_column),
        keys=[None] * len(keys) if several else keys,
        required=False,
        several={path: list(names) for path, names in labels.items()} if several else {},
    )
    facts = {"files that are not listed": f"{matched.unused:,}", **{what: f"{n:,}" for what, n in odd.items() if n}}
    return PreparedTable(images=prepare_ingest("ingest-table", parameters, matched.listing, found), facts=facts)


def _find_below(path: str, images: str) -> str:
    """Return a path below the images: one that is whole begins with their place, as those of an exported CSV do."""
    return path.removeprefix(f"{images}/").removeprefix("./")


def read_labels(parameters: IngestTableParameters, odd: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the path and the labels of each row; count rows without a path, and rows that are too short or too long.

    Raises BadInput for a table without the columns, or that cannot be read.
    """
    columns = [parameters.path_column, *([parameters.label_column] if parameters.labels == "column" else [])]
    path = Path(parameters.table)
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    cells = _read_parquet(path, columns) if is_parquet else _read_text(path, columns, parameters.delimiter, odd)
    for name, *label in cells:
        if name and isinstance(name, str):
            yield name, _split(label[0] if label else "", parameters.label_separator)
        else:
            odd["rows without a path"] += 1


def _split(cell: str | list[str], separator: str | None) -> list[str]:
    if isinstance(cell, list):
        return [name for name in cell if name]
    names = cell.split(separator) if separator else [cell]
    return [name for name in names if name]


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[list[str | list[str]]]:
    try:
        with pq.ParquetFile(path) as file:
            _refuse_lacking(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(columns=list(columns)):
                for row in batch.to_pylist():
                    yield [_as_cell(row[name]) for name in columns]
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"table: {path}: not a Parquet file that can be read: {str(error).splitlines()[0]}") from error


def _as_cell(value: object) -> str | list[str]:
    if isinstance(value, list):
        return ["" if item is None else str(item) for item in value]
    return "" if value is None else str(value)


def _read_text(path: Path, columns: Sequence[str], asked: str, odd: Counter[str]) -> Iterator[list[str | list[str]]]:
    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    line = 0
    try:
        delimiter = _DELIMITERS.get(asked) or _find_delimiter(path, columns)
        with path.open(encoding="utf-8-sig", newline="") as stream:  # a byte order mark is no part of the first name
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = next(reader, [])
            _refuse_lacking(path, columns, header)
            places = [header.index(name) for name in columns]
            for row in reader:
                line = reader.line_num
                if len(row) != len(header):
                    odd["rows with more or fewer cells than the header"] += bool(row)
                else:
                    yield [row[place] for place in places]
    except UnicodeDecodeError as error:
        raise BadInput(f"table: {path}: expected UTF-8 behind line {line}: {error.reason}") from error
    except (OSError, csv.Error) as error:
        raise BadInput(f"table: {path}: behind line {line}: {error}") from error


def _find_delimiter(path: Path, columns: Sequence[str]) -> str:
    """Return what parts the header into names among which the columns are; the suffix's own when nothing does."""
    usual = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline(_CELL_CHARACTERS_MAX)
    for delimiter in sorted(_DELIMITERS.values(), key=lambda one: one != usual):
        if set(columns) <= set(next(csv.reader([header], delimiter=delimiter), [])):
            return delimiter
    return usual


def _refuse_lacking(path: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    if twice := [name for name in columns if list(header).count(name) > 1]:
        raise BadInput(f"table: {path} has several columns {twice[0]!r}; rename all but one")
    if lacking := [name for name in columns if name not in header]:
        raise BadInput(
            f"table: {path} has no column {' and no '.join(map(repr, lacking))}; its columns: "
            f"{', '.join(map(repr, header[:20])) or 'none'}; name others by --path-column and --label-column, or "
            "say --labels none or another --delimiter"
        )
