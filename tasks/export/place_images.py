"""Put images into the folder of an export: linked where they are files, else written out of their container."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.images import Reason
from labelmill.schemas.locations import is_object_url, is_plain_path, join_location
from labelmill.schemas.members import split_member
from labelmill.tasks.export.job import ExportRun, Row
from labelmill.tasks.export.out_folder import put_in_place
from labelmill.tasks.images.read_ingested import read_ingested
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.rows import THREADS_PER_CORE
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store.files import make_folder, temporary_beside

PlaceImages = Callable[[Sequence[tuple[Row, str]]], list[str | None]]


def locate(run: ExportRun, row: Row) -> str:
    """Return where an image lies: a path, a URL, or a member of one."""
    root = run.images_version.metadata["roots"][row["split"]]
    return join_location(root, row["uri"])


def is_plain_file(location: str) -> bool:
    """Tell whether a location is a file of this machine and no member of one."""
    return not is_object_url(location) and split_member(location) is None


@contextmanager
def open_placing(run: ExportRun) -> Iterator[PlaceImages]:
    """Yield a function that puts images at paths below the folder, in threads.

    It takes rows with paths and returns for each why its image could not be put there, None when it was; it counts
    what it wrote, what was there, and by reason what it left out.
    """
    threads = run.parameters.workers or THREADS_PER_CORE * (os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="export") as pool:

        def place(wanted: Sequence[tuple[Row, str]]) -> list[str | None]:
            check_stop()
            reasons: list[str | None] = []
            for found in pool.map(lambda one: _place(run, *one), wanted):
                if isinstance(found, bool):
                    run.exported.written += found
                    run.exported.kept += not found
                    reasons.append(None)
                else:
                    run.exported.left_out[found] += 1
                    reasons.append(found)
            return reasons

        yield place


def _place(run: ExportRun, row: Row, path: str) -> bool | str:
    """Put one image; return whether it was written now, or the reason why it could not be."""
    target, location = run.out / path, locate(run, row)
    try:
        if not is_plain_path(path) or "\0" in path:
            raise RejectedImage(Reason.BAD_NAME, "a name that leads elsewhere")
        _refuse_outside(run.out, target)
        if run.parameters.images == "link" and is_plain_file(location):
            return _link(location, target, row)
        data = read_image(location, row)
        with temporary_beside(target) as temporary:
            temporary.write_bytes(data)
            return put_in_place(temporary, target)
    except RejectedImage as rejected:
        return str(rejected.reason)
    except (NotADirectoryError, FileExistsError):  # a file where another image needs a folder
        return Reason.BAD_NAME
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return Reason.BAD_NAME
        raise WorkFailed(
            f"out: {target}: {error.strerror or error}; the files written so far are whole and kept: make room or give "
            "permission, and run the same command to go on"
        ) from error


def read_image(location: str, row: Row) -> bytes:
    """Return an image's bytes; raise RejectedImage when they are not there, or not those that were ingested."""
    return read_ingested(location, size=row["bytes"], sha256=row["sha256"])


def _link(location: str, target: Path, row: Row) -> bool:
    try:
        found = os.stat(location)
    except OSError as error:
        raise RejectedImage(Reason.MISSING, error.strerror or str(error)) from error
    if (found.st_size, found.st_mtime_ns) != (row["bytes"], row["mtime_ns"]):
        read_image(location, row)
    make_folder(target.parent)
    try:
        target.symlink_to(location)
    except FileExistsError:
        if not (target.is_symlink() and os.readlink(target) == location):
            raise BadInput(f"out: {target} is there and is something else; nothing is written over it") from None
        return False
    return True


def _refuse_outside(out: Path, target: Path) -> None:
    """Raise BadInput when a link below the folder leads out of it."""
    top, real = os.path.realpath(out), os.path.realpath(target.parent)
    if os.path.commonpath([top, real]) != top:
        raise BadInput(f"out: {target.parent} leads out of {out}, to {real}; nothing is written there")
