"""Checks of the anchors' parameters, before any work."""

from __future__ import annotations

from labelmill.schemas.classes import read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import AnchorsParameters, parse_sizes, parse_strides
from labelmill.schemas.versions import Version
from labelmill.tasks.shards import check_split
from labelmill.tasks.store import open_store


def check_anchors(parameters: AnchorsParameters) -> None:
    """Raise BadInput or NotInStore for what can be seen to be wrong without reading boxes."""
    version = open_store(parameters.store).table(f"{parameters.dataset}.boxes").version(parameters.boxes_version)
    if version.metadata.get("kind") != "boxes":
        raise BadInput(f"{version.table}: expected a table of boxes")
    check_split(parameters.split, version.metadata["parts"])  # `splits` tells of those that came from annotations
    find_classes(parameters, version)
    if parameters.negative_iou > parameters.positive_iou:
        raise BadInput(
            f"negative_iou: {parameters.negative_iou} is above positive_iou {parameters.positive_iou}; an anchor would "
            "be both"
        )
    if parameters.max_side_px is not None and parameters.min_side_px > parameters.max_side_px:
        raise BadInput(f"min_side_px: {parameters.min_side_px} is above max_side_px {parameters.max_side_px}")
    _check_strides(parameters)


def _check_strides(parameters: AnchorsParameters) -> None:
    if parameters.strides is None:
        return
    count = len(parse_strides(parameters.strides))
    if parameters.k % count:
        raise BadInput(f"strides: {parameters.k} anchors cannot be split evenly over {count} strides")
    if parameters.compare is not None and len(parse_sizes(parameters.compare)) % count:
        given = len(parse_sizes(parameters.compare))
        raise BadInput(f"compare: {given} anchors cannot be split evenly over {count} strides")


def find_classes(parameters: AnchorsParameters, version: Version) -> tuple[int, ...] | None:
    """Return the ids of the classes that were asked for, None for all; raise BadInput for one that is not listed."""
    if parameters.classes is None:
        return None
    listed = read_classes(version.metadata)
    names = [c.name for c in listed.classes] if listed else []
    wnids = [c.wnid for c in listed.classes] if listed else []
    found = set()
    for word in (word.strip() for word in parameters.classes.split(",")):
        if word in names or word in wnids:
            found.add(names.index(word) if word in names else wnids.index(word))
        elif word.isascii() and word.isdigit() and int(word) < len(names):
            found.add(int(word))
        else:
            raise BadInput(f"classes: no class {word!r} in {version.table} v{version.number}; classes: {_tell(names)}")
    return tuple(sorted(found))


def _tell(names: list[str]) -> str:
    shown = ", ".join(names[:100]) or "none"
    return shown + (f" and {len(names) - 100} more" if len(names) > 100 else "")
