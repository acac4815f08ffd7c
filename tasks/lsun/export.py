"""Write the values of LSUN's environments as files: the bytes as they are, or converted to JPEG."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from labelmill.schemas.images import Reason
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.containers.lmdb_values import list_lmdb, read_lmdb_value
from labelmill.tasks.images.convert_jpeg import COMMENT_WITHIN_BYTES, convert_jpeg, name_conversion
from labelmill.tasks.images.image_structure import identify
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.lsun.environments import STRANGE_KEY, LsunEnvironment, is_lsun_key, refuse_keys
from labelmill.tasks.lsun.listing import make_entry
from labelmill.tasks.stop import check_stop
from labelmill.tasks.threads import open_threads
from labelmill.tasks.written.file_tree import BadFileName, FileTree, Occupied, WrittenFile

_VALUES_AT_ONCE = 16
"""Values that a thread takes: few, for smooth progress; enough, for queueing not to cost."""

_BATCHES_AHEAD = 1024

_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "gif": ".gif", "tiff": ".tiff"}
_UNKNOWN_SUFFIX = ".bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportTarget:
    """Where an environment's files go, `folder` being "" or a name with a slash, and what they become."""

    tree: FileTree
    folder: str
    parameters: IngestLsunParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedValue:
    """The entry of an exported value, for an ingest; `written` says that its file is new."""

    entry: ListedFile
    written: bool


def count_values(environment: LsunEnvironment) -> int:
    """Return how many values an environment has; raise BadInput when none has LSUN's keys."""
    keys, strange = 0, []
    for key, _ in list_lmdb(environment.path):
        keys += 1
        if not is_lsun_key(key):
            strange.append(key)
    refuse_keys(environment, keys, strange)
    return keys


def export_values(
    environment: LsunEnvironment, target: ExportTarget, *, on_batch: Callable[[Sequence[ExportedValue]], None]
) -> list[ExportedValue]:
    """Write a file for each value of an environment that is not there yet; return all, in the order of the keys.

    Files lie in six folders named by the first digits of their key, as LSUN's own exporter has them. A value that
    gives no file has a rejection. Raises BadInput when something else is at a file's place, WorkFailed when the disk
    takes no more.
    """

    def work(batch: Sequence[tuple[bytes, int]]) -> list[ExportedValue]:
        check_stop()
        exported = [_export(environment, target, key, size) for key, size in batch]
        on_batch(exported)
        return exported

    cores = os.cpu_count() or 1
    workers = target.parameters.workers or (cores if target.parameters.export == "jpeg" else 2 * cores)
    found: list[ExportedValue] = []
    with open_threads(workers, name="export") as threads:
        batches = _cut(list_lmdb(environment.path), _VALUES_AT_ONCE)
        while ahead := list(islice(batches, _BATCHES_AHEAD)):
            for exported in threads.map(work, ahead):
                found += exported
    return found


def _cut(values: Iterator[tuple[bytes, int]], size: int) -> Iterator[list[tuple[bytes, int]]]:
    while batch := list(islice(values, size)):
        yield batch


def _export(environment: LsunEnvironment, target: ExportTarget, key: bytes, size: int) -> ExportedValue:
    entry = make_entry(environment, key, size)
    if not is_lsun_key(key):
        return _reject(entry, RejectedImage(*STRANGE_KEY))
    try:
        data = _read(environment, key, target.parameters)
        path, made = (_convert if target.parameters.export == "jpeg" else _copy)(target, key.decode(), data)
    except RejectedImage as rejected:
        return _reject(entry, rejected)
    except (Occupied, BadFileName) as error:
        raise target.tree.explain(error) from error
    found = ListedFile(
        path=entry.path, size=made.bytes, mtime_ns=made.mtime_ns, kind=FileKind.FILE, member_uri=path
    )  # fmt: skip
    return ExportedValue(entry=found, written=not made.kept)


def _reject(entry: ListedFile, rejected: RejectedImage) -> ExportedValue:
    """Return the entry of a value without a file; its uri names the place that a file would have."""
    found = ListedFile(
        path=entry.path, size=entry.size, mtime_ns=entry.mtime_ns, kind=FileKind.FILE, member_uri=entry.path,
        rejected=(rejected.reason, rejected.detail),
    )  # fmt: skip
    return ExportedValue(entry=found, written=False)


def _read(environment: LsunEnvironment, key: bytes, parameters: IngestLsunParameters) -> bytes:
    data = read_lmdb_value(environment.path, key)
    if not data:
        raise RejectedImage(Reason.EMPTY, "the value has no bytes")
    if len(data) > parameters.max_bytes:
        raise RejectedImage(Reason.TOO_MANY_BYTES, f"more than {parameters.max_bytes} bytes")
    return data


def _copy(target: ExportTarget, key: str, data: bytes) -> tuple[str, WrittenFile]:
    kind = identify(data)
    path = _path_of(target, key, _UNKNOWN_SUFFIX if kind is None else _SUFFIXES[kind])
    return path, target.tree.write(path, lambda: (data,))


def _convert(target: ExportTarget, key: str, data: bytes) -> tuple[str, WrittenFile]:
    """Convert a value unless its file is there: its comment says from which bytes it was made and how."""
    given = target.parameters
    path = _path_of(target, key, ".jpg")
    comment = name_conversion(data, quality=given.quality, short_side_px=given.short_side)
    found = target.tree.find(path)
    if found is not None and comment in target.tree.read_start(path, COMMENT_WITHIN_BYTES):
        return path, WrittenFile(kept=True, bytes=found.st_size, mtime_ns=found.st_mtime_ns)
    if found is not None:
        raise Occupied(f"{path}: a file that was not made from this value with these settings is there")
    converted = convert_jpeg(
        data, quality=given.quality, short_side_px=given.short_side, max_pixels=given.max_pixels, comment=comment
    )  # fmt: skip
    return path, target.tree.write(path, lambda: (converted,))


def _path_of(target: ExportTarget, key: str, suffix: str) -> str:
    return f"{target.folder}{'/'.join(key[:6])}/{key}{suffix}"
