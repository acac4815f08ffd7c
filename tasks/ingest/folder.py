"""Label a plain tree of images: the first folder of a path is its class, or nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from labelmill.schemas.classes import WNID_PATTERN, ClassList, ClassName
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile, as_text


def label_by_folder(files: Sequence[ListedFile]) -> SourceLabels:
    """Label each file by the first folder of its path; classes are those folders' names, sorted.

    Files directly in the source and in hidden folders stay without label. A folder named by a wnid has it as wnid.
    """
    keys = [_first_folder(file) for file in files]
    names = sorted({key for key in keys if key is not None})
    classes = tuple(ClassName(name=n, wnid=n if WNID_PATTERN.fullmatch(n) else None) for n in names)
    return SourceLabels(classes=ClassList(classes=classes, source="folder names"), keys=keys, required=False)


def label_nothing(files: Sequence[ListedFile]) -> SourceLabels:
    """Leave every file without a label."""
    return SourceLabels(classes=ClassList(classes=(), source="none"), keys=[None] * len(files), required=False)


def _first_folder(file: ListedFile) -> str | None:
    folder, slash, _ = file.path.partition("/")
    if slash and file.kind is FileKind.FILE:
        return _name_class(folder)
    if file.kind in (FileKind.OUTSIDE, FileKind.BAD_KEY):  # its first folder is none below the source
        return None
    return _name_class(folder) if slash or file.kind is FileKind.UNREADABLE_FOLDER else None


@lru_cache(maxsize=1024)
def _name_class(folder: str) -> str | None:
    return None if folder.startswith(".") else as_text(folder)
