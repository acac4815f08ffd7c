"""Find CIFAR's files, in a folder or a tar, and read them without extracting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from labelmill.schemas.errors import BadInput
from labelmill.schemas.members import ByteRange, split_member
from labelmill.tasks.containers.tar_members import list_tar

FILES_OF_SPLITS = {
    "train": (
        *(f"data_batch_{number}.bin" for number in range(1, 6)), *(f"data_batch_{number}" for number in range(1, 6)),
        "train.bin", "train",
    ),
    "test": ("test_batch.bin", "test_batch", "test.bin", "test"),
}  # fmt: skip
"""Of all four releases; a folder has those of one."""

_EXPECTED = "expected data_batch_1.bin … and test_batch.bin, train.bin and test.bin, or the files of the python version"


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarFile:
    """A file, alone or in a tar: bytes `start` to `start + size_bytes` of `container`, which lies in `root`."""

    name: str
    root: str
    container: str
    start: int
    size_bytes: int
    mtime_ns: int

    def read(self) -> bytes:
        """Return the content; raise BadInput when the file has become shorter or cannot be read."""
        path = os.path.join(self.root, self.container)
        try:
            with open(path, "rb") as file:
                file.seek(self.start)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise BadInput(f"source: {path}: {error.strerror}") from error
        if len(data) < self.size_bytes:
            raise BadInput(f"source: {path}: ends {self.size_bytes - len(data)} bytes before {self.name} does")
        return data


def find_cifar_files(source: str) -> dict[str, CifarFile]:
    """Return the files in a folder, in the only folder in it that has some, or in a tar, by their names.

    Raises BadInput when none is CIFAR's, or a tar is compressed.
    """
    found = _in_tar(source) if os.path.isfile(source) else _in_folder(source)
    known = {name for names in FILES_OF_SPLITS.values() for name in names}
    if known.isdisjoint(found):
        raise BadInput(f"source: {source}: {_EXPECTED}")
    return found


def _in_folder(source: str) -> dict[str, CifarFile]:
    try:
        names = os.listdir(source)
        known = {name for files in FILES_OF_SPLITS.values() for name in files}
        if known.isdisjoint(names):
            below = [path for name in names if os.path.isdir(path := os.path.join(source, name))]
            fitting = [path for path in below if not known.isdisjoint(os.listdir(path))]
            if len(fitting) == 1:
                return _in_folder(fitting[0])
        return {name: _stat(source, name) for name in names if os.path.isfile(os.path.join(source, name))}
    except OSError as error:
        raise BadInput(f"source: {source}: {error.strerror}; {_EXPECTED}") from error


def _stat(folder: str, name: str) -> CifarFile:
    found = os.stat(os.path.join(folder, name))
    return CifarFile(
        name=name, root=folder, container=name, start=0, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns
    )  # fmt: skip


def _in_tar(source: str) -> dict[str, CifarFile]:
    files: dict[str, CifarFile] = {}
    for member in list_tar(source):
        found = split_member(member.uri)
        if member.rejection is None and found is not None and isinstance(found[1], ByteRange):
            name = os.path.basename(member.path)
            files[name] = CifarFile(
                name=name, root=os.path.dirname(source), container=found[0], start=found[1].offset,
                size_bytes=found[1].length, mtime_ns=member.mtime_ns or 0,
            )  # fmt: skip
    return files


def choose_files(files: Mapping[str, CifarFile], split: str) -> dict[str, list[CifarFile]]:
    """Return the files of each split that is there, of the one that is named, or of both for "auto".

    Raises BadInput for another split, or one that has no files.
    """
    wanted = list(FILES_OF_SPLITS) if split == "auto" else [split]
    if not set(wanted) <= FILES_OF_SPLITS.keys():
        raise BadInput(f"split: expected train, test or auto, got {split!r}")
    chosen = {name: [files[file] for file in FILES_OF_SPLITS[name] if file in files] for name in wanted}
    for name, there in chosen.items():
        if split != "auto" and not there:
            raise BadInput(f"source: no files of split {name}; {_EXPECTED}")
        if len({"." in file.name for file in there}) > 1:
            raise BadInput("source: the binary and the python version lie in one folder; give one of them")
    return {name: there for name, there in chosen.items() if there}
