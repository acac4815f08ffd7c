"""An ingest whose rows come from a listing alone: whole columns, and no file is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.images import IMAGES_SCHEMA, TRANSIENT_REASONS, Reason, Status
from labelmill.schemas.parameters import IngestParameters
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.ingest.chunks import Chunk
from labelmill.tasks.ingest.job import IngestRun
from labelmill.tasks.ingest.list_files import ListedFile, as_text
from labelmill.tasks.ingest.plan import IngestPlan, make_image_ids, refuse_replaced_split, refuse_shared_ids
from labelmill.tasks.ingest.rows import IMAGES_LAYOUT, RowSettings
from labelmill.tasks.store import open_store
from labelmill.tasks.store.receipts import Receipt

_FACTS = ("uri", "bytes", "mtime_ns", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRun:
    """A prepared ingest, and for each of its chunks the rows, which are complete."""

    run: IngestRun
    pieces: tuple[pa.Table, ...]


def find_classes(parameters: IngestParameters) -> ClassList | None:
    """Return the class list of the dataset's latest version, None when it has none yet."""
    latest = open_store(parameters.store, create=True).table(f"{parameters.dataset}.images").latest()
    return read_classes(latest.metadata) if latest else None


def prepare_manifest(
    flow: str, parameters: IngestParameters, root: str, listed: pa.Table, classes: ClassList
) -> ManifestRun:
    """Find out which rows of a listing are new; `listed` has the columns of IMAGES_SCHEMA and ids that differ.

    Parts of which every row is listed with the same place, size, time and label stay, with all that an earlier ingest
    read of their images; all other listed rows are written anew. Raises BadInput for ids of another split.
    """
    table = open_store(parameters.store, create=True).table(f"{parameters.dataset}.images")
    latest = table.latest()
    columns = ["image_id", "split", *_FACTS, "reason"]
    known = table.read(latest, columns) if latest else IMAGES_SCHEMA.empty_table().select(columns)
    here = pc.equal(known["split"], parameters.split)
    refuse_shared_ids(listed["image_id"], known.filter(pc.invert(here)))
    older = known.filter(here)
    places = _find_places(older, listed)
    same = _compare(older, listed, places)
    parts = list(_parts_of_split(latest, known["split"], parameters.split))
    plan = _plan(listed, older, places, same)
    refuse_replaced_split(plan, latest, dataset=parameters.dataset, split=parameters.split, root=root)
    dropped = frozenset(part.path for part, start in parts if not same[start : start + part.rows].all())
    stays = np.zeros(len(listed), dtype=bool)
    for part, start in parts:
        if part.path not in dropped:
            stays[places[start : start + part.rows]] = True
    pieces = tuple(_cut(listed.filter(pa.array(~stays)), parameters.chunk_size))
    chunks = tuple(_make_chunk(number, piece, classes) for number, piece in enumerate(pieces))
    run = digest_json([chunk.key for chunk in chunks])
    table.receipts.open_run(run)
    prepared = IngestRun(
        parameters=parameters, flow=flow, table=table, latest=latest, plan=plan,
        settings=RowSettings(
            root=root, split=parameters.split, id_prefix=parameters.id_prefix, classes=classes, labels_required=False,
            max_pixels=parameters.max_pixels, max_bytes=parameters.max_bytes,
        ),
        chunks=chunks, before=frozenset(part.path for part, _ in parts), dropped=dropped, run=run,
    )  # fmt: skip
    return ManifestRun(run=prepared, pieces=pieces)


def _find_places(older: pa.Table, listed: pa.Table) -> npt.NDArray[np.int64]:
    """Return where each older row is listed, -1 for nowhere; without older rows the listing is not indexed at all."""
    if not len(older):
        return np.empty(0, np.int64)
    found: pa.ChunkedArray = pc.index_in(older["image_id"], value_set=listed["image_id"])
    return np.asarray(found.fill_null(-1).to_numpy(), np.int64)


def _compare(older: pa.Table, listed: pa.Table, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell for each older row whether it is listed as it was; `places` says where, -1 for nowhere."""
    same = places >= 0
    at = pa.array(np.where(same, places, 0))
    found = listed.select([*_FACTS, "reason"]).take(at) if len(listed) else older
    for name in _FACTS:
        missing = "" if pa.types.is_string(older[name].type) else -1
        same &= pc.equal(older[name].fill_null(missing), found[name].fill_null(missing)).to_numpy()
    by_size = pa.array([Reason.TOO_MANY_BYTES.value, *sorted(TRANSIENT_REASONS)])
    reason, wanted = older["reason"].fill_null(""), found["reason"].fill_null("")
    other = pc.and_(pc.not_equal(reason, wanted), pc.or_(pc.is_in(reason, by_size), pc.not_equal(wanted, "")))
    same &= ~other.to_numpy()
    return same


def _parts_of_split(latest: Version | None, splits: pa.ChunkedArray, split: str) -> Iterator[tuple[Part, int]]:
    """Yield each part of a split with the place of its first row among the split's rows."""
    start, among = 0, 0
    for part in latest.parts if latest else ():
        if splits[start].as_py() == split:
            yield part, among
            among += part.rows
        start += part.rows


def _plan(listed: pa.Table, older: pa.Table, places: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> IngestPlan:
    new = np.ones(len(listed), dtype=bool)
    new[places[places >= 0]] = False

    def ids(rows: pa.Table, mask: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(rows["image_id"].filter(pa.array(mask)).to_pylist())

    return IngestPlan(
        unchanged=ids(older, same),
        changed=ids(older, ~same & (places >= 0)),
        added=ids(listed, new),
        removed=ids(older, places < 0),
    )


def _cut(rows: pa.Table, size: int) -> Iterator[pa.Table]:
    for start in range(0, len(rows), size):
        yield rows.slice(start, size).combine_chunks()


def _make_chunk(number: int, piece: pa.Table, classes: ClassList) -> Chunk:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.schema) as stream:
        stream.write_table(piece)
    content = hashlib.sha256(sink.getvalue()).hexdigest()
    key = digest_json([IMAGES_SCHEMA.to_string(), classes.digest(), "manifest", content])
    return Chunk(number=number, files=(), labels=(), image_ids=(), replaces=None, key=key)


def write_piece(manifest: ManifestRun, number: int) -> Receipt:
    """Write a chunk's part and its receipt."""
    run, rows, chunk = manifest.run, manifest.pieces[number], manifest.run.chunks[number]
    done = pc.sum(pc.equal(rows["status"], Status.DONE)).as_py()
    receipt = Receipt(
        key=chunk.key,
        run=run.run,
        part=run.table.write_part(rows, key=chunk.key, layout=IMAGES_LAYOUT),
        counts={"done": done, "rejected": len(rows) - done},
    )
    run.table.receipts.write(receipt)
    return receipt


def make_rows(files: Sequence[ListedFile], labels: Sequence[int | None], parameters: IngestParameters) -> pa.Table:
    """Return the rows of listed files of which nothing is read; `labels` are class ids or None."""
    rejections = [file.rejection for file in files]
    known: dict[str, Sequence[object]] = {
        "image_id": make_image_ids(files, id_prefix=parameters.id_prefix),
        "split": [parameters.split] * len(files),
        "uri": [as_text(file.uri) for file in files],
        "bytes": [file.size for file in files],
        "mtime_ns": [file.mtime_ns for file in files],
        "label": labels,
        "status": [str(Status.REJECTED if rejection else Status.DONE) for rejection in rejections],
        "reason": [rejection[0].value if rejection else None for rejection in rejections],
        "detail": [rejection[1] if rejection else None for rejection in rejections],
    }
    columns = [pa.array(known.get(field.name, [None] * len(files)), field.type) for field in IMAGES_SCHEMA]
    return pa.table(columns, schema=IMAGES_SCHEMA)
