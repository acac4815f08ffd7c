"""Label ImageNet's files: a tree of wnid folders, or the flat validation folder by the devkit's ground truth."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution

from labelmill.schemas.classes import WNID_PATTERN, ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import join_location
from labelmill.tasks.ingest.devkit import Devkit, is_validation_name
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import FileKind, ListedFile
from labelmill.tasks.ingest.plan import settle_classes
from labelmill.tasks.ingest.sources import look_into

_TIMMS_NAMES = "timm/data/_info/imagenet_synset_to_lemma.txt"


def find_imagenet_root(source: str, split: str) -> str:
    """Return the folder that holds the images: `source`, or its folder `split` when only that looks like ImageNet.

    A source that cannot be read is returned as it is: listing it says what is wrong.
    """
    below = join_location(source, split)
    return below if not _looks_like_imagenet(source) and _looks_like_imagenet(below) else source


def _looks_like_imagenet(folder: str) -> bool:
    return any(
        is_validation_name(name) or (WNID_PATTERN.fullmatch(name) is not None and is_folder())
        for name, is_folder in look_into(folder)
    )


def label_imagenet(files: Sequence[ListedFile], *, devkit: Devkit | None) -> SourceLabels:
    """Label files by their wnid folder if any has one, else by their name in the devkit's ground truth.

    A tree proposes its own wnids, sorted, or the devkit's classes when it is given. Raises BadInput when a flat folder
    comes without devkit, or a tree has wnids that the devkit does not know.
    """
    keys = [_wnid_of_folder(file) for file in files]
    wnids = sorted({key for key in keys if key is not None})
    if wnids:
        classes = _name_classes(wnids)
        if devkit is not None:
            classes = settle_classes(classes, devkit.classes, owner="the devkit")
        return SourceLabels(classes=classes, keys=keys, required=True)
    if devkit is None:
        raise BadInput(
            "devkit: the source has no folders named by a wnid, such as n01440764; a flat validation folder needs "
            "the folder with meta.mat and ILSVRC2012_validation_ground_truth.txt"
        )
    found = (devkit.find_label(file.path) for file in files)
    flat = [None if label is None else devkit.classes.classes[label].wnid for label in found]
    return SourceLabels(classes=devkit.classes, keys=flat, required=True)


def _wnid_of_folder(file: ListedFile) -> str | None:
    folder, slash, _ = file.path.partition("/")
    # A wnid folder that cannot be read is listed as an entry without a slash, but its class is there.
    if not slash and file.kind is not FileKind.UNREADABLE_FOLDER:
        return None
    return folder if WNID_PATTERN.fullmatch(folder) else None


def _name_classes(wnids: Iterable[str]) -> ClassList:
    named = _read_names()
    return ClassList(
        classes=tuple(ClassName(name=named.get(wnid, wnid), wnid=wnid) for wnid in wnids), source="wnid folders"
    )


def _read_names() -> dict[str, str]:
    """Return the names that timm knows, by wnid; from its file, for timm's import takes seconds of torch's."""
    try:
        with open(str(distribution("timm").locate_file(_TIMMS_NAMES)), encoding="utf-8", newline="") as lines:
            return dict(csv.reader(lines, delimiter="\t"))
    except FileNotFoundError:  # another release of timm may have it elsewhere
        from timm.data import ImageNetInfo

        return ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)  # type: ignore[no-any-return]
