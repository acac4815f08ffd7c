"""An extraction from its parameters to its files, in steps that a flow calls in turn."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.members import ByteRange, DeflatedRange, split_member
from labelmill.schemas.parameters import ExtractParameters
from labelmill.tasks.containers.member_pieces import iterate_member
from labelmill.tasks.containers.tar_members import iterate_tar
from labelmill.tasks.containers.zip_members import find_checksums, iterate_zip
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.list_files import ListedFile
from labelmill.tasks.stop import check_stop
from labelmill.tasks.threads import open_threads
from labelmill.tasks.wording import format_bytes
from labelmill.tasks.written.file_tree import BadFileName, FileTree, Occupied

OCCUPIED, DUPLICATE = "occupied", "duplicate_name"
"""Reasons beside those of images: something else is at the place; a later member has the same name."""

_FILES_AT_ONCE = 16
_HASHED_BYTES = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractRun:
    """A prepared extraction: the members to write, and how many were refused for each reason already."""

    parameters: ExtractParameters
    members: tuple[ListedFile, ...]
    refused: Mapping[str, int]
    checksums: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """Files by what became of them; `kept` were there with the same content."""

    written: int = 0
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Extracted) -> Extracted:
        return Extracted(
            written=self.written + other.written, kept=self.kept + other.kept, refused=self.refused + other.refused
        )


def check_digests(parameters: ExtractParameters, *, on_bytes: Callable[[int], None] = lambda count: None) -> None:
    """Read the archive and raise BadInput when its sha256 or MD5 is not the given one; without one nothing is read."""
    wanted = {"sha256": parameters.sha256, "md5": parameters.md5}
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name, digest in wanted.items() if digest is not None}
    if not hashes:
        return
    with open(parameters.source, "rb", buffering=0) as file:
        while piece := file.read(_HASHED_BYTES):
            check_stop()
            for digest in hashes.values():
                digest.update(piece)
            on_bytes(len(piece))
    for name, digest in hashes.items():
        if digest.hexdigest() != str(wanted[name]).lower():
            raise BadInput(
                f"{name}: expected {wanted[name]}, {parameters.source} has {digest.hexdigest()}; fetch it again"
            )


def prepare_extract(parameters: ExtractParameters) -> ExtractRun:
    """List the archive and sort out what is not to be written; nothing is written yet.

    Raises BadInput for a damaged or compressed archive, one of more bytes than allowed, and one that the disk has no
    room for.
    """
    source = parameters.source
    is_zip = zipfile.is_zipfile(source)
    refused: Counter[str] = Counter()
    last: dict[str, ListedFile] = {}
    for member in iterate_zip(source) if is_zip else iterate_tar(source):
        if member.path in last:
            refused[DUPLICATE] += 1
        last[member.path] = member
    members = tuple(_sort_out(last, refused, parameters.max_bytes))
    _check_room(parameters, sum(member.size or 0 for member in members))
    checksums = find_checksums(source) if is_zip else {}
    return ExtractRun(parameters=parameters, members=members, refused=refused, checksums=checksums)


def _sort_out(last: Mapping[str, ListedFile], refused: Counter[str], max_bytes: int) -> Iterator[ListedFile]:
    for path, member in last.items():
        if member.rejection is not None:
            refused[member.rejection[0]] += 1
        elif (member.size or 0) > max_bytes:
            refused[Reason.TOO_MANY_BYTES] += 1
        elif any(folder in last for folder in _folders_above(path)):
            refused[OCCUPIED] += 1  # another member is a file of that name
        else:
            yield member


def _folders_above(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


def _check_room(parameters: ExtractParameters, needed: int) -> None:
    if needed > parameters.max_total_bytes:
        raise BadInput(
            f"source: {parameters.source} holds {format_bytes(needed)}, more than --max-total-bytes "
            f"{parameters.max_total_bytes}; nothing was extracted"
        )
    folder = parameters.out
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    there = sum(entry.stat().st_size for entry in _files_below(parameters.out)) if needed > free else 0
    if needed > free + there:
        raise BadInput(
            f"out: {parameters.source} needs {format_bytes(needed)}, {folder} has {format_bytes(free)}; nothing was "
            "extracted"
        )


def _files_below(folder: str) -> Iterator[os.DirEntry[str]]:
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry


def extract_members(
    run: ExtractRun, tree: FileTree, members: Sequence[ListedFile], *, on_batch: Callable[[Extracted], None]
) -> Extracted:
    """Write members as files; one that cannot be written as it should be is counted by its reason.

    Raises WorkFailed when the disk takes no more, or the process was asked to stop.
    """

    def work(start: int) -> Extracted:
        check_stop()
        extracted = _sum(_extract(run, tree, member) for member in members[start : start + _FILES_AT_ONCE])
        on_batch(extracted)
        return extracted

    with open_threads(run.parameters.workers or 2 * (os.cpu_count() or 1), name="extract") as threads:
        return _sum(threads.map(work, range(0, len(members), _FILES_AT_ONCE)))


def _sum(pieces: Iterable[Extracted]) -> Extracted:
    return sum(pieces, Extracted())


def _extract(run: ExtractRun, tree: FileTree, member: ListedFile) -> Extracted:
    container = os.path.join(os.path.dirname(run.parameters.source), member.uri)
    found = split_member(container)
    if found is None or not isinstance(found[1], ByteRange | DeflatedRange):
        raise BadInput(f"{member.uri}: expected a member of a tar or zip")
    path, place = found[0], found[1]
    checksum = run.checksums.get(member.path)
    try:
        made = tree.write(member.path, lambda: iterate_member(path, place, crc32=checksum))
    except RejectedImage as rejected:
        return Extracted(refused=Counter({str(rejected.reason): 1}))
    except Occupied:
        return Extracted(refused=Counter({OCCUPIED: 1}))
    except BadFileName:
        return Extracted(refused=Counter({str(Reason.BAD_NAME): 1}))
    return Extracted(kept=1) if made.kept else Extracted(written=1)
