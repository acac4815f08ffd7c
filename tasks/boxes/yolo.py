"""Prepare the ingest of YOLO's boxes: a .txt of `class cx cy w h`, relative to the image, beside each image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from labelmill.schemas.locations import join_location
from labelmill.schemas.parameters import IngestYoloParameters
from labelmill.tasks.boxes.build_boxes import AMBIGUOUS_IMAGE, UNKNOWN_IMAGE, Floats, RawBoxes
from labelmill.tasks.boxes.categories import make_class_list, name_categories
from labelmill.tasks.boxes.job import BoxesRun, BoxSource
from labelmill.tasks.boxes.plain_json import dump_json
from labelmill.tasks.boxes.read_small_files import list_below, read_all
from labelmill.tasks.boxes.yolo_layout import find_yolo
from labelmill.tasks.ingest.job import prepare_ingest
from labelmill.tasks.ingest.labels import SourceLabels
from labelmill.tasks.ingest.list_files import ListedFile, as_text
from labelmill.tasks.ingest.sources import Listing, list_source
from labelmill.tasks.preflight import refuse_store_in_source

_BOXES_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloLine:
    """A line of a label file: its class, None when it is no whole number, and the numbers behind it, if they are."""

    text: str
    category: int | None
    numbers: tuple[float, ...] | None

    @property
    def polygon(self) -> tuple[float, ...] | None:
        """The points x y x y … of a line that has three or more of them."""
        numbers = self.numbers or ()
        return numbers if len(numbers) >= 6 and len(numbers) % 2 == 0 else None

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Return cx, cy, w, h relative to the image, those of a polygon around its points; None for another line."""
        if self.polygon is not None:
            x, y = self.polygon[::2], self.polygon[1::2]
            return (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)
        if self.numbers is None or len(self.numbers) != 4:
            return None
        return self.numbers[0], self.numbers[1], self.numbers[2], self.numbers[3]


def parse_line(text: str) -> YoloLine:
    """Read a line of a label file, whatever is in it."""
    cells = text.split()
    category = _parse_category(cells[0]) if cells else None
    try:
        numbers = tuple(map(float, cells[1:]))
    except ValueError:
        numbers = None
    return YoloLine(text=text, category=category, numbers=numbers)


def _parse_category(cell: str) -> int | None:
    """Return a class number below 2**31; NumPy writes it as 0.0 or 0.000000000000000000e+00, as YOLO reads it."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if cell.isascii() and number.is_integer() and abs(number) < 2**31 else None


def prepare_yolo(parameters: IngestYoloParameters) -> BoxesRun:
    """Read a split's label files and list its images; raise BadInput when they are not where they should be."""
    layout = find_yolo(parameters.source, parameters.split, parameters.names)
    refuse_store_in_source(join_location(parameters.store, parameters.dataset), str(layout.images))
    listing = list_source(str(layout.images))
    is_beside = layout.images == layout.labels
    files = [file for file in listing.files if not (is_beside and file.path.lower().endswith((".txt", ".cache")))]
    places, shared = _place_labels(files)
    # Annotation tools put the classes' names beside the labels.
    paths = [path for path in list_below(layout.labels, ".txt") if path in places or not path.endswith("classes.txt")]
    contents, digest = read_all(layout.labels, paths)
    lines = {path: _split(data) for path, data in contents.items()}
    names = _name_classes(layout.names, lines)
    labels = SourceLabels(
        classes=make_class_list(names, source=layout.source),
        keys=[None] * len(files),
        required=False,
        several={
            file.path: [] if path in shared else _classes_of(lines.get(path, ()), names)
            for file in files
            for path in [_label_path(file)]
        },
    )
    source = BoxSource(
        format="yolo", digest=digest, names=[file.path for file in files], sizes=np.full((len(files), 2), np.nan),
        categories=names, boxes=sum(map(len, lines.values())), stream=partial(_stream, lines, places),
        facts=_count_odd(contents, places, shared),
    )  # fmt: skip
    run = prepare_ingest("ingest-yolo", parameters, Listing(root=listing.root, files=files), labels)
    return BoxesRun(images=run, parameters=parameters, source=source)


def _label_path(file: ListedFile) -> str:
    return str(PurePosixPath(file.path).with_suffix(".txt"))


def _place_labels(files: Sequence[ListedFile]) -> tuple[dict[str, int], frozenset[str]]:
    """Return each label file's image by its place, AMBIGUOUS_IMAGE for a.txt of a.jpg and a.png, and all such files."""
    places: dict[str, int] = {}
    for place, file in enumerate(files):
        path = _label_path(file)
        places[path] = AMBIGUOUS_IMAGE if path in places else place
    return places, frozenset(path for path, place in places.items() if place == AMBIGUOUS_IMAGE)


def _split(data: bytes | None) -> list[YoloLine]:
    text = (data or b"").decode("utf-8-sig", "backslashreplace")
    return [parse_line(line) for line in text.splitlines() if line.strip()]


def _name_classes(named: Mapping[int, str] | None, lines: Mapping[str, Sequence[YoloLine]]) -> dict[int | str, str]:
    """Return the names that the source gives, else a name for each number up to the highest that is used."""
    if named is not None:
        return name_categories(list(named.items()))
    used = {line.category for of_file in lines.values() for line in of_file if line.category is not None}
    highest = max((number for number in used if number >= 0), default=-1)
    return {number: f"class {number}" for number in range(min(highest, 9_999) + 1)}


def _classes_of(lines: Sequence[YoloLine], names: Mapping[int | str, str]) -> list[str]:
    return sorted({names[line.category] for line in lines if line.category is not None and line.category in names})


def _count_odd(
    contents: Mapping[str, bytes | None], places: Mapping[str, int], shared: frozenset[str]
) -> dict[str, str]:
    odd = Counter(
        {
            "label files that cannot be read": sum(data is None for data in contents.values()),
            "label files without an image": len(contents.keys() - places.keys()),
            "label files of several images": len(shared & contents.keys()),
            "images without a label file": len(places.keys() - contents.keys()),
        }
    )
    return {what: f"{count:,}" for what, count in odd.items() if count}


def _stream(
    lines: Mapping[str, Sequence[YoloLine]],
    places: Mapping[str, int],
    sizes: Floats,
    class_of: Mapping[int | str, int],
) -> Iterator[RawBoxes]:
    raw = RawBoxes()
    for path, of_file in lines.items():
        image = places.get(path, UNKNOWN_IMAGE)
        for line in of_file:
            _add(raw, line, image, path, sizes[image] if image >= 0 else None, class_of)
        if len(raw) >= _BOXES_AT_ONCE:
            yield raw
            raw = RawBoxes()
    yield raw


def _add(
    raw: RawBoxes, line: YoloLine, image: int, path: str, size: Floats | None, class_of: Mapping[int | str, int]
) -> None:
    box = line.box
    known = size is not None and not math.isnan(size[0])
    raw.images.append(image)
    raw.class_ids.append(None if line.category is None else class_of.get(line.category))
    raw.category_ids.append(line.category)
    raw.source_boxes.append(box)
    extra: dict[str, object] = {} if image >= 0 else {"file": as_text(path)}
    segmentation = None
    if box is None or size is None or not known:
        raw.xyxy.append(None)
    else:
        width, height = size.tolist()
        cx, cy, w, h = box
        raw.xyxy.append(((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height))
        if line.polygon is not None:
            segmentation = [[value * (height if at % 2 else width) for at, value in enumerate(line.polygon)]]
    if line.polygon is not None:
        extra["polygon"] = line.polygon
    elif box is None or line.category is None:
        extra["line"] = line.text
    raw.segmentations.append(None if segmentation is None else dump_json(segmentation, plain=False))
    raw.extras.append(dump_json(extra, plain=False) if extra else None)
