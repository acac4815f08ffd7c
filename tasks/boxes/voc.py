"""Prepare the ingest of Pascal VOC's images and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from labelmill.schemas.boxes import IMAGE_ENTRIES_SCHEMA
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestVocParameters
from labelmill.tasks.boxes.build_boxes import Floats, RawBoxes
from labelmill.tasks.boxes.categories import make_class_list, name_categories
from labelmill.tasks.boxes.job import BoxesRun, BoxSource
from labelmill.tasks.boxes.plain_json import dump_rest
from labelmill.tasks.boxes.read_small_files import list_below, read_all
from labelmill.tasks.boxes.voc_file import BadXml, VocFile, VocObject, parse_voc
from labelmill.tasks.boxes.voc_layout import VocLayout, find_voc
from labelmill.tasks.ingest.job import prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import as_text
from labelmill.tasks.ingest.match_images import match_images
from labelmill.tasks.ingest.sources import list_source

_BOXES_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class _Annotated:
    """An image's name in JPEGImages, and what its annotation says; None where there is none that can be read."""

    name: str
    annotation: VocFile | None


def prepare_voc(parameters: IngestVocParameters) -> BoxesRun:
    """Read VOC's annotations and find their images; raise BadInput when they are not where they should be."""
    layout = find_voc(parameters.source, parameters.image_set)
    contents, digest = read_all(layout.annotations, _choose_files(layout))
    parsed, unread = _parse_all(contents)
    listing = list_source(str(layout.images))
    by_stem: dict[str, list[str]] = {}
    for file in listing.files:
        by_stem.setdefault(str(PurePosixPath(file.path).with_suffix("")), []).append(file.path)
    images = _pair(layout, parsed, by_stem)
    if not images:
        raise BadInput(f"source: {parameters.source}: no image and no annotation; there is nothing to ingest")
    matched = match_images([image.name for image in images], listing)
    used = {thing.name for image in images for thing in _objects(image) if thing.name is not None}
    names = name_categories([(name, name) for name in sorted(used)])
    labels = SourceLabels(
        classes=make_class_list(names, source="VOC annotations"),
        keys=[None] * len(images),
        required=False,
        several={image.name: sorted({t.name for t in _objects(image) if t.name is not None}) for image in images},
    )
    source = BoxSource(
        format="voc", digest=digest, names=[image.name for image in images], sizes=_find_sizes(images),
        categories=names, boxes=sum(len(_objects(image)) for image in images), stream=partial(_stream, images),
        entries=partial(_list_entries, images), facts={**_count_odd(images, len(parsed), matched.unused), **unread},
    )  # fmt: skip
    run = prepare_ingest("ingest-voc", parameters, matched.listing, labels)
    return BoxesRun(images=run, parameters=parameters, source=source)


def _choose_files(layout: VocLayout) -> list[str]:
    files = list_below(layout.annotations, ".xml")
    if layout.stems is None:
        return files
    wanted = {f"{stem}.xml" for stem in layout.stems}
    return [file for file in files if file in wanted]


def _parse_all(contents: Mapping[str, bytes | None]) -> tuple[dict[str, VocFile], dict[str, str]]:
    """Return the annotations by their file's name without suffix, and a line about those that cannot be read."""
    parsed: dict[str, VocFile] = {}
    bad: list[str] = []
    for path, data in contents.items():
        try:
            parsed[path[: -len(".xml")]] = parse_voc(data or b"")
        except BadXml as error:
            bad.append(f"{as_text(path)}: {error}")
    return parsed, {"annotations that cannot be read": f"{len(bad):,}, for example {bad[0]}"} if bad else {}


def _pair(layout: VocLayout, parsed: Mapping[str, VocFile], by_stem: Mapping[str, Sequence[str]]) -> list[_Annotated]:
    """Return each image once, sorted: those of the set, or all that have an annotation or a file."""
    found: dict[str, _Annotated] = {}
    for stem in layout.stems if layout.stems is not None else (*parsed, *by_stem):
        annotation, files = parsed.get(stem), by_stem.get(stem, ())
        said = annotation.file_name if annotation else None
        name = said if said in files and said else files[0] if files else said or f"{stem}.jpg"
        # An annotation that names another's file loses to that one's own.
        if name not in found or name in files:
            found[name] = _Annotated(name, annotation)
    if layout.stems is None:  # a.png beside the a.jpg that the annotation names
        for name in (name for files in by_stem.values() for name in files):
            found.setdefault(name, _Annotated(name, None))
    return sorted(found.values(), key=lambda image: image.name.encode("utf-8", "surrogateescape"))


def _objects(image: _Annotated) -> Sequence[VocObject]:
    return image.annotation.objects if image.annotation else ()


def _find_sizes(images: Sequence[_Annotated]) -> Floats:
    sizes = np.full((len(images), 2), np.nan)
    for place, image in enumerate(images):
        if image.annotation and image.annotation.width and image.annotation.height:
            sizes[place] = image.annotation.width, image.annotation.height
    return sizes


def _stream(images: Sequence[_Annotated], sizes: Floats, class_of: Mapping[int | str, int]) -> Iterator[RawBoxes]:
    raw = RawBoxes()
    for place, image in enumerate(images):
        for thing in _objects(image):
            raw.images.append(place)
            raw.class_ids.append(None if thing.name is None else class_of.get(thing.name))
            raw.source_boxes.append(thing.corners)
            raw.xyxy.append(None if thing.corners is None else _to_pixels(thing.corners))
            raw.difficult.append(thing.difficult)
            raw.extras.append(dump_rest(thing.rest, plain=False))
        if len(raw) >= _BOXES_AT_ONCE:
            yield raw
            raw = RawBoxes()
    yield raw


def _to_pixels(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Return xyxy from 0 and exclusive: VOC counts pixels from 1, and its last one belongs to the box."""
    xmin, ymin, xmax, ymax = corners
    return xmin - 1, ymin - 1, xmax, ymax


def _list_entries(images: Sequence[_Annotated], image_ids: Sequence[str]) -> pa.Table:
    known = [(image_ids[place], image) for place, image in enumerate(images) if image.annotation is not None]
    fields = [field for field in IMAGE_ENTRIES_SCHEMA if field.name != "split"]
    rows = [
        {
            "image_id": image_id, "source_id": None, "file_name": image.annotation.file_name,
            "width": image.annotation.width, "height": image.annotation.height,
            "extra": dump_rest(image.annotation.rest, plain=False),
        }
        for image_id, image in known
        if image.annotation is not None
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _count_odd(images: Sequence[_Annotated], parsed: int, unused: int) -> dict[str, str]:
    odd = {
        "files that are not listed": unused,
        "annotations of a file that has its own": parsed - sum(image.annotation is not None for image in images),
        "images without an annotation": sum(image.annotation is None for image in images),
    }
    return {what: f"{count:,}" for what, count in odd.items() if count}
