"""Write a shard of label maps as files, each of them whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from labelmill.models.label_encoding import EncodedMap
from labelmill.models.label_map_tensor import BadMap, tensors_of
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.label_maps import MAP_COLUMNS
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.label_map_files.export_job import ExportRun, ExportShard
from labelmill.tasks.label_map_files.load_file import MAP_FILE_BYTES_MAX, load_tensor
from labelmill.tasks.relabel.engine import use_one_core
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.files import temporary_beside

FILES_AT_ONCE = 64
"""Files that a thread writes before it looks at the stop flag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """Files by what became of them; `replaced` had another content before."""

    written: int = 0
    replaced: int = 0
    kept: int = 0

    def __add__(self, other: Exported) -> Exported:
        return Exported(
            written=self.written + other.written,
            replaced=self.replaced + other.replaced,
            kept=self.kept + other.kept,
        )


def export_shard(
    run: ExportRun, shard: ExportShard, *, on_batch: Callable[[Exported], None] = lambda exported: None
) -> Exported:
    """Write the files of a shard that are not there yet.

    Raises BadInput for a file with another content, unless the parameters say to replace it, and for a folder that
    leads out of the exported one; WorkFailed when the process was asked to stop.
    """
    rows = run.table.read_part(shard.part, MAP_COLUMNS)
    places = [place for place, path in enumerate(shard.paths) if path is not None]

    def work(start: int) -> Exported:
        check_stop()
        use_one_core()
        exported = _export(run, shard, rows, places[start : start + FILES_AT_ONCE])
        on_batch(exported)
        return exported

    with ThreadPoolExecutor(run.workers, thread_name_prefix="export") as threads:
        batches = [threads.submit(work, start) for start in range(0, len(places), FILES_AT_ONCE)]
        try:
            return sum((batch.result() for batch in batches), Exported())
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _export(run: ExportRun, shard: ExportShard, rows: pa.Table, places: Sequence[int]) -> Exported:
    meta = run.metadata
    tensors = tensors_of(
        [_encoded(rows, place) for place in places],
        grid=meta.grid,
        top_k=meta.top_k,
        step=meta.logit_step,
        num_classes=meta.num_classes,
        transposed=run.parameters.transposed,
    )
    paths = (path for place in places if (path := shard.paths[place]) is not None)
    return sum((_write(run, path, tensor) for path, tensor in zip(paths, tensors, strict=True)), Exported())


def _encoded(rows: pa.Table, place: int) -> EncodedMap:
    return EncodedMap(**{name: rows[name][place].values.to_numpy() for name in MAP_COLUMNS})


def _write(run: ExportRun, relative: str, tensor: Tensor) -> Exported:
    path = run.out / relative
    _refuse_outside(run.out, path.parent)
    stream = BytesIO()
    torch.save(tensor, stream)
    data = stream.getvalue()
    found = _read(path)
    if found is not None:
        if found == data or _holds(found, tensor):
            return Exported(kept=1)
        if not run.parameters.replace:
            raise BadInput(f"out: {path} is there with another content; choose another folder, or say replace")
    # No fsync: a file that a power cut spoils is found by its content, and syncing takes longer than all the rest.
    with temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        temporary.replace(path)
    return Exported(written=1) if found is None else Exported(replaced=1)


def _refuse_outside(out: Path, folder: Path) -> None:
    """Raise BadInput when a link below the exported folder leads out of it."""
    top, real = os.path.realpath(out), os.path.realpath(folder)
    if os.path.commonpath([top, real]) != top:
        raise BadInput(f"out: {folder} leads out of {out}, to {real}; nothing is written there")


def _read(path: Path) -> bytes | None:
    """Return what is at a path, b"" where that is no readable file of a map's size, None where there is nothing."""
    try:
        return read_bytes(path, max_bytes=MAP_FILE_BYTES_MAX)
    except RejectedImage as rejected:
        return None if rejected.reason is Reason.MISSING else b""


def _holds(data: bytes, tensor: Tensor) -> bool:
    """Tell whether a file's content is this tensor, as another version of torch may have written it."""
    try:
        return torch.equal(load_tensor(data), tensor)
    except BadMap:
        return False
