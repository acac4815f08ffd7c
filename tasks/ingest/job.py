"""An ingest from its parameters to its version, in steps that a flow (or a script) calls in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA, TRANSIENT_REASONS, Status
from labelmill.schemas.parameters import IngestFolderParameters, IngestImagenetParameters, IngestParameters
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.ingest.devkit import read_devkit
from labelmill.tasks.ingest.folder import label_by_folder, label_nothing
from labelmill.tasks.ingest.imagenet import find_imagenet_root, label_imagenet
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import ListedFile, list_files
from labelmill.tasks.ingest.plan import (
    COMPARED_COLUMNS,
    IngestPlan,
    make_image_ids,
    plan_ingest,
    refuse_shared_ids,
    settle_labels,
)
from labelmill.tasks.ingest.rows import RowSettings, build_rows
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.store import Change, Table, open_store
from labelmill.tasks.store.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Files that become one part; `replaces` is the older part whose images they are, None for added images."""

    number: int
    files: tuple[ListedFile, ...]
    labels: tuple[int | None, ...]
    replaces: str | None
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestRun:
    """A prepared ingest: what changed since the latest version, and the chunks of files to read."""

    parameters: IngestParameters
    flow: str
    table: Table
    latest: Version | None
    plan: IngestPlan
    settings: RowSettings
    chunks: tuple[Chunk, ...]
    dropped: frozenset[str]  # older parts of the split that no image is left of
    run: str

    @property
    def files_to_read(self) -> int:
        """Files that this run reads; all others are as the latest version has them."""
        return sum(len(chunk.files) for chunk in self.chunks)


def prepare_imagenet(parameters: IngestImagenetParameters) -> IngestRun:
    """List ImageNet's files and find out what is new; raise BadInput when the source is not what was expected."""
    root = find_imagenet_root(parameters.source, parameters.split)
    devkit = read_devkit(parameters.devkit) if parameters.devkit else None
    return _prepare("ingest-imagenet", parameters, root, lambda files: label_imagenet(files, devkit=devkit))


def prepare_folder(parameters: IngestFolderParameters) -> IngestRun:
    """List a plain tree's files and find out what is new; raise BadInput when the source is not what was expected."""
    label = label_by_folder if parameters.labels == "folder" else label_nothing
    return _prepare("ingest-folder", parameters, parameters.source, label)


def _prepare(
    flow: str, parameters: IngestParameters, root: str, label: Callable[[Sequence[ListedFile]], SourceLabels]
) -> IngestRun:
    files = list_files(root)
    table = open_store(parameters.store, create=True).table(f"{parameters.dataset}.images")
    latest = table.latest()
    listed = latest.metadata["classes"] if latest else None
    found = label(files)
    fixed = ClassList.model_validate(listed) if listed else None
    classes, labels = settle_labels(found, fixed, owner=f"dataset {parameters.dataset}")
    ids = make_image_ids(files, id_prefix=parameters.id_prefix)
    plan = _plan(parameters, table, latest, files, labels, ids, labels_required=found.required)
    settings = RowSettings(
        root=root,
        split=parameters.split,
        id_prefix=parameters.id_prefix,
        classes=classes,
        labels_required=found.required,
        max_pixels=parameters.max_pixels,
        max_bytes=parameters.max_bytes,
        workers=parameters.workers,
    )
    known = dict(zip(ids, zip(files, labels, strict=True), strict=True))
    chunks, dropped = _cut(parameters, table, latest, plan, known, settings)
    run = digest_json([chunk.key for chunk in chunks])
    table.receipts.open_run(run)
    return IngestRun(
        parameters=parameters,
        flow=flow,
        table=table,
        latest=latest,
        plan=plan,
        settings=settings,
        chunks=chunks,
        dropped=dropped,
        run=run,
    )


def _plan(
    parameters: IngestParameters,
    table: Table,
    latest: Version | None,
    files: Sequence[ListedFile],
    labels: Sequence[int | None],
    ids: Sequence[str],
    *,
    labels_required: bool,
) -> IngestPlan:
    columns = ["split", *COMPARED_COLUMNS]
    rows = table.read(latest, columns) if latest else IMAGES_SCHEMA.empty_table().select(columns)
    here = pc.equal(rows["split"], parameters.split)
    refuse_shared_ids(ids, rows.filter(pc.invert(here)))
    return plan_ingest(
        files,
        labels,
        rows.filter(here),
        id_prefix=parameters.id_prefix,
        labels_required=labels_required,
        rehash=parameters.rehash,
    )


def _cut(
    parameters: IngestParameters,
    table: Table,
    latest: Version | None,
    plan: IngestPlan,
    known: dict[str, tuple[ListedFile, int | None]],
    settings: RowSettings,
) -> tuple[tuple[Chunk, ...], frozenset[str]]:
    """Cut what must be read into chunks: older parts with a changed or removed image as they were, then the added."""
    touched = {*plan.changed, *plan.removed}
    pieces: list[tuple[str | None, list[str]]] = []
    dropped = set()
    for part, ids in _older_parts(table, latest, parameters.split) if touched else ():
        if touched.isdisjoint(ids):
            continue
        left = [image_id for image_id in ids if image_id in known]
        if left:
            pieces.append((part.path, left))
        else:
            dropped.add(part.path)
    size = parameters.chunk_size
    pieces += [(None, list(plan.added[start : start + size])) for start in range(0, len(plan.added), size)]
    chunks = []
    for number, (replaces, ids) in enumerate(pieces):
        files, labels = zip(*(known[image_id] for image_id in ids), strict=True)
        key = _chunk_key(files, labels, settings)
        chunks.append(Chunk(number=number, files=files, labels=labels, replaces=replaces, key=key))
    return tuple(chunks), frozenset(dropped)


def _older_parts(table: Table, latest: Version | None, split: str) -> Iterator[tuple[Part, list[str]]]:
    for part in latest.parts if latest else ():
        rows = table.read_part(part, ["image_id", "split"])
        if len(rows) and rows["split"][0].as_py() == split:  # a part holds one split
            yield part, rows["image_id"].to_pylist()


def _chunk_key(files: Sequence[ListedFile], labels: Sequence[int | None], settings: RowSettings) -> str:
    facts = [
        [file.path.encode("utf-8", "surrogateescape").hex(), file.size, file.mtime_ns, str(file.kind), label]
        for file, label in zip(files, labels, strict=True)
    ]
    bounds = [settings.split, settings.id_prefix, settings.max_pixels, settings.max_bytes, settings.labels_required]
    return digest_json([settings.classes.digest(), bounds, facts])


def ingest_chunk(run: IngestRun, chunk: Chunk, *, on_done: Callable[[int], None] = lambda n: None) -> Receipt:
    """Read a chunk's files, write its part and its receipt. Every file becomes a row."""
    rows = build_rows(chunk.files, chunk.labels, run.settings, on_done=on_done)
    part = run.table.write_part(rows, key=chunk.key)
    rejected = sum(status != Status.DONE for status in rows["status"].to_pylist())
    receipt = Receipt(
        key=chunk.key,
        run=run.run,
        part=part,
        counts={"done": len(rows) - rejected, "rejected": rejected},
        retry=not TRANSIENT_REASONS.isdisjoint(rows["reason"].to_pylist()),
    )
    run.table.receipts.write(receipt)
    return receipt


def commit_ingest(run: IngestRun, receipts: Sequence[Receipt]) -> Version:
    """Make the chunks a version; return the latest one as it is when nothing changed."""
    root = str(run.settings.root)
    split = run.parameters.split
    pairs = list(zip(run.chunks, receipts, strict=True))
    new = {c.replaces: r.part for c, r in pairs if c.replaces and c.replaces != r.part.path}
    added = [r.part for c, r in pairs if c.replaces is None]
    if run.latest and not (new or added or run.dropped) and run.latest.metadata["roots"].get(split) == root:
        run.table.receipts.close_run(run.run)
        return run.latest

    classes = run.settings.classes.model_dump(mode="json") if run.settings.classes.classes else None

    def change(latest: Version | None) -> Change:
        older = latest.parts if latest else ()
        if not {*new, *run.dropped} <= {part.path for part in older}:
            raise WorkFailed(f"{run.table.name}: another run changed split {split!r} meanwhile; run again")
        kept = [new.get(part.path, part) for part in older if part.path not in run.dropped]
        before = latest.metadata if latest else {"roots": {}, "classes": None}
        if before["classes"] and classes and before["classes"] != classes:
            raise WorkFailed(f"{run.table.name}: another run gave the dataset its class list meanwhile; run again")
        return Change(
            operation="replace" if new or run.dropped else "append",
            parts=[*kept, *added],
            metadata={
                "kind": "images",
                "roots": {**before["roots"], split: root},
                "classes": before["classes"] or classes,
            },
        )

    version = run.table.commit(change, schema=IMAGES_SCHEMA, lineage=make_lineage(run.flow, run.parameters))
    run.table.receipts.close_run(run.run)
    return version
