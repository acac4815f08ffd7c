"""Prepare the ingest of a COCO instances file and its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from labelmill.schemas.boxes import IMAGE_ENTRIES_SCHEMA
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestCocoParameters
from labelmill.tasks.boxes.build_boxes import AMBIGUOUS_IMAGE, Floats, RawBoxes
from labelmill.tasks.boxes.categories import make_class_list, name_categories
from labelmill.tasks.boxes.coco_boxes import stream_coco_boxes
from labelmill.tasks.boxes.coco_file import CocoFile, CocoImage, read_coco
from labelmill.tasks.boxes.job import BoxesRun, BoxSource
from labelmill.tasks.boxes.plain_json import dump_json, key_of
from labelmill.tasks.ingest.job import prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.match_images import list_images, match_images


def prepare_coco(parameters: IngestCocoParameters, *, on_bytes: Callable[[int], None] = lambda n: None) -> BoxesRun:
    """Read a COCO file once and find its images; raise BadInput when one of them is not what was expected."""
    found = read_coco(Path(parameters.annotations), on_bytes=on_bytes)
    if not found.images:
        raise BadInput(f"annotations: {parameters.annotations} lists no images; there is nothing to ingest")
    names = list(dict.fromkeys(_name(image) for image in found.images))
    places = {name: place for place, name in enumerate(names)}
    image_of = _place_ids(found, places)
    categories = name_categories([(_category_id(item), _category_name(item)) for item in found.categories])
    matched = match_images(names, list_images(parameters.images))
    labels = SourceLabels(
        classes=make_class_list(categories, source=f"categories of {Path(parameters.annotations).name}"),
        keys=[None] * len(matched.listing.files),
        required=False,
        several=_label(found, names, image_of, categories),
    )

    def stream(sizes: Floats, class_of: Mapping[int | str, int]) -> Iterator[RawBoxes]:
        return stream_coco_boxes(found, image_of=image_of, class_of=class_of)

    source = BoxSource(
        format="coco", digest=found.digest, names=names, categories=categories, boxes=found.annotations,
        header=dump_json({**found.header, "categories": found.categories}, plain=False),
        sizes=_find_sizes(found, places), stream=stream,
        entries=lambda image_ids: _list_entries(found, image_ids, places),
        facts={"files that are not listed": f"{matched.unused:,}", **_count_odd(found, names, image_of)},
    )  # fmt: skip
    run = prepare_ingest("ingest-coco", parameters, matched.listing, labels)
    return BoxesRun(images=run, parameters=parameters, source=source)


def _name(image: CocoImage) -> str:
    """Return an image's file_name; the empty part in what stands for none makes it a bad name."""
    return f"no file_name//{image.key}" if image.name is None else image.name


def _category_id(item: dict[str, object]) -> int | str:
    key = key_of(item["id"])
    assert key is not None  # noqa: S101 - read_coco keeps no others
    return key


def _category_name(item: dict[str, object]) -> str:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        return f"category {item['id']}"
    return name.encode("utf-8", "backslashreplace").decode()


def _place_ids(found: CocoFile, places: Mapping[str, int]) -> dict[int | str, int]:
    """Return the place of each image id among the names; AMBIGUOUS_IMAGE for an id of several names."""
    image_of: dict[int | str, int] = {}
    for image in found.images:
        if image.key is not None:
            place = places[_name(image)]
            image_of[image.key] = place if image_of.get(image.key, place) == place else AMBIGUOUS_IMAGE
    return image_of


def _find_sizes(found: CocoFile, places: Mapping[str, int]) -> Floats:
    sizes = np.full((len(places), 2), np.nan)
    for image in found.images:
        if image.width is not None and image.height is not None and min(image.width, image.height) > 0:
            sizes[places[_name(image)]] = image.width, image.height
    return sizes


def _label(
    found: CocoFile,
    names: Sequence[str],
    image_of: Mapping[int | str, int],
    categories: Mapping[int | str, str],
) -> dict[str, list[str]]:
    """Return by name the classes of an image's boxes; none for one without boxes."""
    labels: dict[str, list[str]] = {name: [] for name in names}
    place_of = [image_of.get(key, -1) for key in found.image_keys]
    name_of = [categories.get(key) for key in found.category_keys]
    for image, category in found.pairs.tolist():
        name = name_of[category]
        if place_of[image] >= 0 and name is not None:
            labels[names[place_of[image]]].append(name)
    return labels


def _list_entries(found: CocoFile, image_ids: Sequence[str], places: Mapping[str, int]) -> pa.Table:
    fields = [field for field in IMAGE_ENTRIES_SCHEMA if field.name != "split"]
    columns = {
        "image_id": [image_ids[places[_name(image)]] for image in found.images],
        "source_id": [image.source_id for image in found.images],
        "file_name": [image.name for image in found.images],
        "width": [image.width for image in found.images],
        "height": [image.height for image in found.images],
        "extra": [image.extra for image in found.images],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in fields], schema=pa.schema(fields))


def _count_odd(found: CocoFile, names: Sequence[str], image_of: Mapping[int | str, int]) -> dict[str, str]:
    ambiguous = sum(place == AMBIGUOUS_IMAGE for place in image_of.values())
    category_ids = Counter(_category_id(item) for item in found.categories)
    odd = {
        "entries of a file listed before": len(found.images) - len(names),
        "image ids of several files": ambiguous,
        "images without an id": sum(image.key is None for image in found.images),
        "repeated category ids": sum(count > 1 for count in category_ids.values()),
        **found.odd,
    }
    return {what: f"{count:,}" for what, count in odd.items() if count}
