"""An ingest from its parameters to its version, in steps that a flow (or a script) calls in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import read_classes
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA, TRANSIENT_REASONS, Status
from labelmill.schemas.locations import join_location
from labelmill.schemas.parameters import (
    IngestFolderParameters,
    IngestImagenetParameters,
    IngestParameters,
    IngestSettings,
)
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.ingest.chunks import Chunk, cut_chunks, parts_of_split
from labelmill.tasks.ingest.devkit import read_devkit
from labelmill.tasks.ingest.facts import FindFacts, find_facts
from labelmill.tasks.ingest.folder import label_by_folder, label_nothing
from labelmill.tasks.ingest.imagenet import find_imagenet_root, label_imagenet
from labelmill.tasks.ingest.labels import SourceLabels, find_several_ids
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.ingest.plan import (
    COMPARED_COLUMNS,
    IngestPlan,
    make_image_ids,
    plan_ingest,
    refuse_replaced_split,
    refuse_shared_ids,
    settle_labels,
)
from labelmill.tasks.ingest.real import read_real
from labelmill.tasks.ingest.rows import IMAGES_LAYOUT, RowSettings, build_rows
from labelmill.tasks.ingest.sources import Listing, holds_files, list_source
from labelmill.tasks.ingest.verdicts import keep_verdicts
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.pause_collection import pause_collection
from labelmill.tasks.preflight import refuse_store_in_source
from labelmill.tasks.store import Change, Table, open_store
from labelmill.tasks.store.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestRun:
    """A prepared ingest: what changed since the latest version, and the chunks of files to read."""

    parameters: IngestSettings
    flow: str
    table: Table
    latest: Version | None
    plan: IngestPlan
    settings: RowSettings
    chunks: tuple[Chunk, ...]
    before: frozenset[str]  # paths of the split's parts in the latest version
    dropped: frozenset[str]  # those of them that no image is left of
    run: str
    repeated: int = 0  # members of the archive that a later one of their name hides
    inputs: dict[str, int] = field(default_factory=dict)  # the verdicts of people that were applied

    @property
    def files_to_read(self) -> int:
        """Files that this run reads; all others are as the latest version has them."""
        return sum(len(chunk.files) for chunk in self.chunks)


OnExpected = Callable[[str, int], None]
"""Is told (root, files) before it is clear which files are to be read: about how many, and below what."""


def ignore_expected(root: str, files: int) -> None:
    """Take no notice."""


@pause_collection()
def prepare_imagenet(parameters: IngestImagenetParameters, *, on_expected: OnExpected = ignore_expected) -> IngestRun:
    """List ImageNet's files and find out what is new; raise BadInput when the source is not what was expected."""
    devkit = read_devkit(parameters.devkit) if parameters.devkit else None
    listing = _list(parameters, find_imagenet_root(parameters.source, parameters.split))
    labels = label_imagenet(listing.files, devkit=devkit)
    if parameters.real:
        labels = replace(labels, several=read_real(parameters.real, listing.files, devkit))
    return prepare_ingest("ingest-imagenet", parameters, listing, labels, on_expected=on_expected)


@pause_collection()
def prepare_folder(parameters: IngestFolderParameters, *, on_expected: OnExpected = ignore_expected) -> IngestRun:
    """List a plain tree's files and find out what is new; raise BadInput when the source is not what was expected."""
    label = label_by_folder if parameters.labels == "folder" else label_nothing
    listing = _list(parameters, parameters.source)
    return prepare_ingest("ingest-folder", parameters, listing, label(listing.files), on_expected=on_expected)


def _list(parameters: IngestParameters, source: str) -> Listing:
    if not os.path.isfile(source):  # of an archive nothing but itself is read
        refuse_store_in_source(join_location(parameters.store, parameters.dataset), source)
    return list_source(source)


def prepare_ingest(
    flow: str,
    parameters: IngestSettings,
    listing: Listing,
    found: SourceLabels,
    *,
    on_expected: OnExpected = ignore_expected,
) -> IngestRun:
    """Find out what of a listing is new in the dataset, given the labels of its files in the same order.

    Raises BadInput when ids or classes do not fit the dataset's.
    """
    root, files = listing.root, listing.files
    table = open_store(parameters.store, create=True).table(f"{parameters.dataset}.images")
    latest = table.latest()
    fixed = read_classes(latest.metadata) if latest else None
    classes, labels = settle_labels(found, fixed, owner=f"dataset {parameters.dataset}")
    settings = RowSettings(
        root=root, split=parameters.split, id_prefix=parameters.id_prefix, classes=classes,
        labels_required=found.required, max_pixels=parameters.max_pixels, max_bytes=parameters.max_bytes,
        workers=parameters.workers, several=find_several_ids(found.several, classes),
        without_label=found.without_label,
    )  # fmt: skip
    columns = ["split", *COMPARED_COLUMNS]
    rows = table.read(latest, columns) if latest else IMAGES_SCHEMA.empty_table().select(columns)
    on_expected(root, len(files) - len(rows))
    ids = make_image_ids(files, id_prefix=parameters.id_prefix)
    files, labels, inputs = keep_verdicts(parameters, ids, files, labels)
    plan = _plan(parameters, ids, files, labels, rows, settings)
    refuse_replaced_split(plan, latest, dataset=parameters.dataset, split=parameters.split, root=root)
    older = list(parts_of_split(latest, rows, parameters.split))
    known = dict(zip(ids, zip(files, labels, strict=True), strict=True))
    chunks = tuple(cut_chunks(parameters, plan, older, known, settings))
    run = digest_json([chunk.key for chunk in chunks])
    table.receipts.open_run(run)
    return IngestRun(
        parameters=parameters, flow=flow, table=table, latest=latest, plan=plan, settings=settings, chunks=chunks,
        before=frozenset(part.path for part, _ in older),
        dropped=frozenset(part.path for part, ids in older if known.keys().isdisjoint(ids)),
        run=run, repeated=listing.repeated, inputs=inputs,
    )  # fmt: skip


def _plan(
    parameters: IngestSettings,
    ids: Sequence[str],
    files: Sequence[ListedFile],
    labels: Sequence[int | None],
    rows: pa.Table,
    settings: RowSettings,
) -> IngestPlan:
    here = pc.equal(rows["split"], parameters.split)
    refuse_shared_ids(ids, rows.filter(pc.invert(here)))
    return plan_ingest(
        ids,
        files,
        labels,
        rows.filter(here),
        labels_required=settings.labels_required,
        rehash=parameters.rehash,
        several=settings.several,
    )


def ingest_chunk(
    run: IngestRun, chunk: Chunk, *, read: FindFacts = find_facts, on_done: Callable[[int], None] = lambda n: None
) -> Receipt:
    """Read a chunk's files by `read`, write its part and its receipt. Every file becomes a row.

    Raises WorkFailed when files cannot be read because the source itself is gone.
    """
    rows = build_rows(chunk.files, chunk.labels, run.settings, read=read, on_done=on_done)
    transient = not TRANSIENT_REASONS.isdisjoint(rows["reason"].to_pylist())
    if transient and not holds_files(run.settings.root):
        raise WorkFailed(f"source: {run.settings.root} disappeared while it was read; nothing was committed; run again")
    part = None
    if chunk.replaces is not None:
        older = run.table.read_part(chunk.replaces)
        rows = _merge(rows, older, chunk.image_ids)
        part = chunk.replaces if rows.equals(older) else None
    rejected = sum(status != Status.DONE for status in rows["status"].to_pylist())
    receipt = Receipt(
        key=chunk.key,
        run=run.run,
        part=part or run.table.write_part(rows, key=chunk.key, layout=IMAGES_LAYOUT),
        counts={"done": len(rows) - rejected, "rejected": rejected},
        retry=transient or run.parameters.rehash,  # what is asked to be read again is never taken from a receipt
    )
    run.table.receipts.write(receipt)
    return receipt


def _merge(read: pa.Table, older: pa.Table, image_ids: Sequence[str]) -> pa.Table:
    """Return the rows of `image_ids` in that order: those just read, else those of the older part."""
    rows = pa.concat_tables([older, read])
    places = {image_id: place for place, image_id in enumerate(rows["image_id"].to_pylist())}  # the later one stays
    return rows.take(pa.array([places[image_id] for image_id in image_ids], pa.int64())).combine_chunks()


def commit_ingest(run: IngestRun, receipts: Sequence[Receipt]) -> Version:
    """Make the chunks a version; return the latest one as it is when nothing changed.

    Raises WorkFailed when another run changed the same images meanwhile.
    """
    root, split = run.settings.root, run.parameters.split
    pairs = list(zip(run.chunks, receipts, strict=True))
    new = {c.replaces.path: r.part for c, r in pairs if c.replaces and c.replaces.path != r.part.path}
    added = [r.part for c, r in pairs if c.replaces is None]
    if run.latest and not (new or added or run.dropped) and run.latest.metadata["roots"].get(split) == root:
        run.table.receipts.close_run(run.run)
        return run.latest

    def change(latest: Version | None) -> Change:
        _refuse_conflict(run, latest)
        older = latest.parts if latest else ()
        before = latest.metadata if latest else {"roots": {}, "classes": None}
        classes = run.settings.classes.model_dump(mode="json") if len(run.settings.classes) else None
        return Change(
            operation="replace" if new or run.dropped else "append",
            parts=[*(new.get(part.path, part) for part in older if part.path not in run.dropped), *added],
            metadata={
                "kind": "images",
                "roots": {**before["roots"], split: root},
                "classes": before["classes"] or classes,
            },
        )

    version = run.table.commit(
        change, schema=IMAGES_SCHEMA, lineage=make_lineage(run.flow, run.parameters, inputs=run.inputs)
    )
    run.table.receipts.close_run(run.run)
    return version


def _refuse_conflict(run: IngestRun, latest: Version | None) -> None:
    """Raise WorkFailed when the version to build on differs from the planned one in what this split needs."""
    name, split = run.table.name, run.parameters.split
    parts = {part.path: part for part in latest.parts} if latest else {}
    if not run.before <= parts.keys():
        raise WorkFailed(f"{name}: another run changed split {split!r} meanwhile; run again")
    strange = parts.keys() - ({part.path for part in run.latest.parts} if run.latest else set())
    ids = {*run.plan.unchanged, *run.plan.changed, *run.plan.added} if strange else set()
    for path in strange:
        if not ids.isdisjoint(run.table.read_part(parts[path], ["image_id"])["image_id"].to_pylist()):
            raise WorkFailed(f"{name}: another run added images of the same ids meanwhile; run again")
    fixed = read_classes(latest.metadata) if latest else None
    classes = run.settings.classes
    if fixed is not None and len(classes) and fixed.digest() != classes.digest():
        raise WorkFailed(f"{name}: another run gave the dataset its class list meanwhile; run again")
