"""A teacher's class list: ImageNet-1k as timm orders it, or a text file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from labelmill.schemas.classes import WNID_PATTERN, ClassList, ClassName
from labelmill.schemas.errors import BadInput

IMAGENET_1K = "imagenet-1k"
IMAGENET_1K_CLASSES = 1000


def read_teacher_classes(classes: str, num_classes: int) -> ClassList | None:
    """Return the class list of a teacher with `num_classes` outputs, or None when none is known.

    `classes` is `auto` (ImageNet-1k when there are 1000 outputs, else None), `imagenet-1k`, `none`, or a text file
    with one class a line, in the order of the outputs: a wnid, a name, or wnid<tab>name.

    Raises BadInput when the list has another length, a duplicate or an empty line, or is no text file.
    """
    if classes == "none" or (classes == "auto" and num_classes != IMAGENET_1K_CLASSES):
        return None
    if classes == "auto":
        return imagenet_1k(source=f"{IMAGENET_1K}, inferred from {IMAGENET_1K_CLASSES} outputs")
    found = imagenet_1k(source=IMAGENET_1K) if classes == IMAGENET_1K else _read_file(classes)
    if len(found) != num_classes:
        raise BadInput(f"classes {classes!r}: expected {num_classes} classes, one for each output, got {len(found)}")
    return found


def imagenet_1k(*, source: str = IMAGENET_1K) -> ClassList:
    """Return the 1000 classes of ILSVRC-2012 in the order of sorted wnids, as classifiers are trained on them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo(IMAGENET_1K)
    return ClassList(
        classes=tuple(
            ClassName(wnid=wnid, name=info.label_name_to_description(wnid, detailed=False))
            for wnid in info.label_names()
        ),
        source=source,
    )


def _read_file(classes: str) -> ClassList:
    path = Path(classes).expanduser()
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"classes {classes!r}: expected a text file in UTF-8, one class a line") from error
    except OSError as error:
        raise BadInput(
            f"classes {classes!r}: expected auto, {IMAGENET_1K}, none or a text file; it cannot be read: "
            f"{error.strerror}"
        ) from error
    found = [_parse_line(line, f"classes {classes!r}, line {n}") for n, line in enumerate(lines, start=1)]
    for kind, values in (("wnid", [c.wnid for c in found if c.wnid]), ("name", [c.name for c in found if not c.wnid])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise BadInput(f"classes {classes!r}: expected each {kind} once, got {twice[0]!r} more than once")
    return ClassList(classes=tuple(found), source=f"file {path.name}")


def _parse_line(line: str, where: str) -> ClassName:
    before, tab, after = line.partition("\t")
    first, name = before.strip(), after.strip()
    if not first or (tab and not name):
        raise BadInput(f"{where}: expected a wnid, a name, or wnid<tab>name, got {line!r}")
    if not tab:
        return ClassName(name=first, wnid=first if WNID_PATTERN.fullmatch(first) else None)
    if not WNID_PATTERN.fullmatch(first):
        raise BadInput(f"{where}: expected a wnid such as n01440764 before the tab, got {first!r}")
    return ClassName(name=name, wnid=first)
