"""Shards of an import: stretches of an images version whose map files a task reads, keyed by those files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_map_tensor import BadMap, TensorMeaning, encode_tensor
from labelmill.models.label_pooling import pool_label_maps
from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.images import Reason, Status
from labelmill.schemas.label_maps import MapReason
from labelmill.schemas.versions import Version, digest_json
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.label_map_files.load_file import load_listed_file
from labelmill.tasks.label_map_files.paths import map_file_path
from labelmill.tasks.relabel.encode import Labelled
from labelmill.tasks.relabel.engine import use_one_core
from labelmill.tasks.relabel.shards import LABEL_MAPS_LAYOUT, build_rows, labels_of, plan_shards, read_rows
from labelmill.tasks.shards import Shard
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.receipts import Receipt
from labelmill.tasks.store.table import Table

FILES_AT_ONCE = 64
"""Files that a thread reads before it looks at the stop flag; their maps are pooled together."""

RETRIED_REASONS = frozenset({Reason.CHANGED, Reason.UNREADABLE})
"""What the listing does not tell, so that a shard's key would not change when it is mended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportJob:
    """What all shards of an import share.

    `files` are the listed files below `source` by path, `shared` the paths that several images ask for;
    `teacher_labels` maps a dataset's label to the teacher's class id; `run` is the mark of this run in the receipts.
    """

    images: Table
    label_maps: Table
    source: Path
    files: Mapping[str, ListedFile]
    shared: frozenset[str]
    meaning: TensorMeaning
    teacher_labels: tuple[int | None, ...]
    workers: int
    run: str


def plan_import_shards(
    job: ImportJob, version: Version, *, split: str | None, shard_size: int, common: dict[str, Any]
) -> Iterator[Shard]:
    """Cut an images version into shards as a relabel does, with the files' sizes and times in the keys too."""
    shards = plan_shards(
        job.images, version, split=split, shard_size=shard_size, common=common, teacher_labels=job.teacher_labels
    )
    for _, of_part in groupby(shards, key=lambda shard: shard.part.path):
        pieces = list(of_part)
        uris = read_rows(job.images, pieces[0].part, split)["uri"]
        for shard in pieces:
            asked = uris.slice(shard.start, len(shard)).to_pylist()
            yield replace(
                shard, key=digest_json({"rows": shard.key, "files": [_file_facts(job, uri) for uri in asked]})
            )


def _file_facts(job: ImportJob, uri: str) -> list[Any]:
    try:
        path = map_file_path(uri)
    except BadInput:
        return [uri]
    found = job.files.get(path)
    facts = [found.size, found.mtime_ns, str(found.kind)] if found else []
    return [path, path in job.shared, *facts]


def import_shard(
    job: ImportJob, shard: Shard, *, on_batch: Callable[[int, int], None] = lambda done, rejected: None
) -> Receipt:
    """Read the map files of a shard's images, write its part and its receipt. Every row of the shard becomes a row.

    Raises WorkFailed when the listed files are there no more, or the process was asked to stop.
    """
    rows = read_rows(job.images, shard.part, shard.split).slice(shard.start, len(shard))
    good = [place for place, status in enumerate(rows["status"].to_pylist()) if status == Status.DONE]
    on_batch(len(rows) - len(good), len(rows) - len(good))
    imported = _import_files(job, rows["uri"].take(pa.array(good, pa.int64())).to_pylist(), on_batch)
    _refuse_vanished(job, imported)
    results: list[Labelled | None] = [None] * len(rows)
    for place, result in zip(good, imported, strict=True):
        results[place] = result
    table = build_rows(rows, results, labels_of(rows, job.teacher_labels))
    part = job.label_maps.write_part(table, key=shard.key, layout=LABEL_MAPS_LAYOUT)
    done = sum(r.map is not None for r in imported)
    receipt = Receipt(
        key=shard.key,
        run=job.run,
        part=part,
        counts={"done": done, "rejected": len(rows) - done},
        retry=any(r.reason in RETRIED_REASONS for r in imported),
    )
    job.label_maps.receipts.write(receipt)
    return receipt


def _import_files(job: ImportJob, uris: Sequence[str], on_batch: Callable[[int, int], None]) -> list[Labelled]:
    def work(start: int) -> list[Labelled]:
        check_stop()
        use_one_core()
        results = _with_pooled(job, [_import_file(job, uri) for uri in uris[start : start + FILES_AT_ONCE]])
        on_batch(len(results), sum(r.map is None for r in results))
        return results

    with ThreadPoolExecutor(job.workers, thread_name_prefix="import") as threads:
        batches = [threads.submit(work, start) for start in range(0, len(uris), FILES_AT_ONCE)]
        try:
            return [result for batch in batches for result in batch.result()]
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _import_file(job: ImportJob, uri: str) -> Labelled:
    try:
        path = map_file_path(uri)
    except BadInput as error:
        return _rejected(Reason.BAD_NAME, str(error))
    if path in job.shared:
        return _rejected(MapReason.SHARED_FILE, f"several images ask for {path}; it cannot be told whose map it is")
    listed = job.files.get(path)
    if listed is None:
        return _rejected(Reason.MISSING, f"no file {path} below the source")
    try:
        return Labelled(map=encode_tensor(load_listed_file(job.source, listed), job.meaning))
    except BadMap as bad:
        return _rejected(bad.reason, bad.detail)


def _rejected(reason: Reason | MapReason, detail: str) -> Labelled:
    return Labelled(reason=reason, detail=detail)


def _with_pooled(job: ImportJob, results: Sequence[Labelled]) -> list[Labelled]:
    """Add the pooled class of the whole image, by the paper's arithmetic, to the results that have a map."""
    maps = [r.map for r in results if r.map is not None]
    top_k, height, width = job.meaning.shape
    batch = gather_maps(
        maps, grid=(height, width), top_k=top_k, step=job.meaning.step, num_classes=job.meaning.num_classes
    )
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(maps), 4)
    prob, place = pool_label_maps(batch, boxes, absent_share=0.0).max(1)
    pooled: Iterator[tuple[EncodedMap, int, float]] = zip(maps, place.tolist(), prob.tolist(), strict=True)
    return [_pooled(*next(pooled)) if r.map is not None else r for r in results]


def _pooled(encoded: EncodedMap, pooled_class: int, pooled_prob: float) -> Labelled:
    return Labelled(map=encoded, pooled_class=pooled_class, pooled_prob=pooled_prob)


def _refuse_vanished(job: ImportJob, imported: Sequence[Labelled]) -> None:
    """Raise WorkFailed when all files of a shard that were listed are gone: the folder is, not the files."""
    listed = [r for r in imported if r.reason not in (Reason.MISSING, Reason.BAD_NAME, MapReason.SHARED_FILE)]
    if listed and all(r.reason in RETRIED_REASONS for r in listed):
        raise WorkFailed(
            f"source: none of {len(listed)} files listed in {job.source} can be read; {listed[0].detail}; nothing was "
            "committed, run again when they are back"
        )
