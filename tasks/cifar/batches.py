"""The images of CIFAR's files as members of them, with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.members import PixelPlanes, name_member
from labelmill.tasks.cifar.files import CifarFile
from labelmill.tasks.cifar.pickled_arrays import PickledArray, read_pickle
from labelmill.tasks.containers.read_member import count_bmp_bytes
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile

_SIDE_PX = 32
_IMAGE_BYTES = 3 * _SIDE_PX * _SIDE_PX

_LABEL_COLUMNS = {"labels": 0, "coarse_labels": 0, "fine_labels": 1}
"""Where a label stands in a record of the binary version."""

_NAME_FILES = {
    "labels": ("batches.meta.txt", "batches.meta", "label_names"),
    "fine_labels": ("fine_label_names.txt", "meta", "fine_label_names"),
    "coarse_labels": ("coarse_label_names.txt", "meta", "coarse_label_names"),
}
"""Which file names the classes of the binary version, which of the python version, and under what key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A file's images: the offset of each one's planes in the file, and the number of its label."""

    file: CifarFile
    offsets: Sequence[int]
    labels: Sequence[int]


def name_labels(files: Sequence[CifarFile], labels: str) -> str:
    """Return which labels are meant: "labels" for CIFAR-10, "fine_labels" or "coarse_labels" for CIFAR-100.

    Raises BadInput when coarse labels are asked of CIFAR-10.
    """
    if any(file.name.startswith(("data_batch", "test_batch")) for file in files):
        if labels != "fine":
            raise BadInput("labels: CIFAR-10 has no coarse labels; leave it out")
        return "labels"
    return f"{labels}_labels"


def read_classes(files: Mapping[str, CifarFile], kind: str) -> ClassList:
    """Return the classes of a kind of labels; raise BadInput when the file that names them is not there."""
    text_file, pickle_file, key = _NAME_FILES[kind]
    if text_file in files:
        names = files[text_file].read().decode("utf-8", "replace").split()
    elif pickle_file in files:
        found = read_pickle(files[pickle_file].read(), pickle_file)
        listed = found.get(key) if isinstance(found, dict) else None
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in listed or []]
    else:
        raise BadInput(f"source: expected {text_file} or {pickle_file} beside the images, which names their classes")
    if not names or len(set(names)) < len(names):
        raise BadInput(f"source: expected names of classes in {text_file} or {pickle_file}, got {names[:5]}")
    return ClassList(classes=tuple(ClassName(name=name) for name in names), source="CIFAR")


def read_batch(file: CifarFile, kind: str) -> Batch:
    """Find a file's images and labels; raise BadInput when it is not whole, or not CIFAR's."""
    return (_read_records if file.name.endswith(".bin") else _read_pickle)(file, kind)


def _read_records(file: CifarFile, kind: str) -> Batch:
    before = 1 if kind == "labels" else 2
    record = before + _IMAGE_BYTES
    if file.size_bytes % record or not file.size_bytes:
        raise BadInput(
            f"source: {file.name}: expected records of {record} bytes, got {file.size_bytes} bytes: not whole"
        )
    records = np.frombuffer(file.read(), np.uint8).reshape(-1, record)
    offsets = range(file.start + before, file.start + file.size_bytes, record)
    return Batch(file=file, offsets=offsets, labels=records[:, _LABEL_COLUMNS[kind]].tolist())


def _read_pickle(file: CifarFile, kind: str) -> Batch:
    found = read_pickle(file.read(), file.name)
    data, labels = (found.get("data"), found.get(kind)) if isinstance(found, dict) else (None, None)
    if not isinstance(data, PickledArray) or len(data.shape) != 2 or data.shape[1] != _IMAGE_BYTES:
        raise BadInput(
            f"source: {file.name}: expected `data`, n x {_IMAGE_BYTES} uint8 in one stretch; a pickle that was written "
            "anew may hold it otherwise: take the original file, or the binary version"
        )
    if not isinstance(labels, list) or len(labels) != data.shape[0] or not all(type(n) is int for n in labels):
        raise BadInput(f"source: {file.name}: expected `{kind}`, a list of {data.shape[0]} numbers")
    start = file.start + data.stretch.offset
    return Batch(file=file, offsets=range(start, start + data.stretch.length, _IMAGE_BYTES), labels=labels)


def list_images(batches: Sequence[Batch]) -> list[ListedFile]:
    """Return the images, in the order of the files and of what is in them; paths are file and number."""
    return [
        ListedFile(
            path=f"{batch.file.name}/{number:05d}",
            size=count_bmp_bytes(_SIDE_PX, _SIDE_PX),
            mtime_ns=batch.file.mtime_ns,
            kind=FileKind.FILE,
            member_uri=name_member(
                batch.file.container, PixelPlanes(offset=offset, height=_SIDE_PX, width=_SIDE_PX)
            ),
        )
        for batch in batches
        for number, offset in enumerate(batch.offsets)
    ]  # fmt: skip


def label_images(batches: Sequence[Batch], classes: ClassList) -> SourceLabels:
    """Label the images; a number that names no class is none, and its image is rejected."""
    names = [name.name for name in classes.classes]
    keys = [names[label] if 0 <= label < len(names) else None for batch in batches for label in batch.labels]
    return SourceLabels(
        classes=classes, keys=keys, required=True, without_label=f"expected a label from 0 to {len(names) - 1}"
    )
