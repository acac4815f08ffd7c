"""Read a COCO instances file: its images and categories at once, its annotations in batches."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks.boxes.plain_json import dump_rest, is_int64, key_of, take_int
from labelmill.tasks.boxes.stream_json import HashingStream, JsonPiece, stream_json
from labelmill.tasks.ingest.list_files import is_text
from labelmill.tasks.pause_collection import pause_collection

_LISTS = frozenset({"images", "annotations", "categories"})

HEADER_BYTES_MAX = 4 * 2**20
"""Other keys are kept in the version's file as long as they are no longer than this as JSON."""

_PAIR_BITS = 31


Int64s = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoImage:
    """An entry of `images`. `name` is its file_name, None when it has none that is a text."""

    key: int | str | None
    name: str | None
    source_id: int | None
    width: int | None
    height: int | None
    extra: str | None


@dataclass(slots=True, kw_only=True)
class CocoFile:
    """What a first reading finds. Ids are whole numbers or texts, as the file has them.

    `pairs` holds, once each, the image's and the category's places in `image_keys` and `category_keys`, those that
    annotations name, listed or not; `repeated_ids` are ids of several annotations.
    """

    path: Path
    digest: str = ""
    images: list[CocoImage] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    annotations: int = 0
    image_keys: dict[int | str, int] = field(default_factory=dict)
    category_keys: dict[int | str, int] = field(default_factory=dict)
    pairs: Int64s = field(default_factory=lambda: np.empty((0, 2), np.int64))
    repeated_ids: frozenset[int] = frozenset()
    odd: Counter[str] = field(default_factory=Counter)
    """Items of `images` and `categories` that are no objects, keys that are not kept: counts by what they are."""


def read_coco(path: Path, *, on_bytes: Callable[[int], None] = lambda n: None) -> CocoFile:
    """Read a whole instances file once, without its annotations' content, in bounded memory.

    `on_bytes(n)` is called with the number of bytes read since the last call. Raises BadInput when it cannot be read,
    is no whole JSON object, or has no `images` or no `categories`.
    """
    found = CocoFile(path=path)
    keys: set[str] = set()
    packed, ids = array("q"), array("q")
    with open_annotations(path) as stream, pause_collection():  # a quarter of the time
        hashing = HashingStream(stream, on_bytes)
        for piece in stream_json(hashing, what=str(path), lists=_LISTS):
            keys.add(piece.key)
            if piece.items is None:
                _keep_header(found, piece)
            elif piece.key == "images":
                _keep_images(found, piece)
            elif piece.key == "categories":
                _keep_categories(found, piece)
            else:
                packed = _count_annotations(found, packed, ids, piece.items)
        found.digest = hashing.hexdigest()
    if lacking := {"images", "categories"} - keys:
        raise BadInput(
            f"annotations: {path}: no {' and no '.join(sorted(lacking))}; expected COCO instances: an object with the "
            "lists images, annotations and categories"
        )
    found.repeated_ids = _find_repeated(ids)
    pairs = _distinct(packed)
    found.pairs = np.stack([pairs >> _PAIR_BITS, pairs & ((1 << _PAIR_BITS) - 1)], axis=1)
    return found


def stream_annotations(found: CocoFile) -> Iterator[tuple[list[Any], bool]]:
    """Yield the annotations in batches, and whether they are plain (see `JsonPiece`); most segmentations are bytes.

    Raises WorkFailed at the end when the file is not the one that was read first.
    """
    with open_annotations(found.path) as stream, pause_collection():
        hashing = HashingStream(stream)
        try:
            for piece in stream_json(hashing, what=str(found.path), lists=_LISTS, raw_key="segmentation"):
                if piece.key == "annotations" and piece.items is not None:
                    yield piece.items, piece.plain
        except BadInput as error:
            raise _changed(found) from error
        if hashing.hexdigest() != found.digest:
            raise _changed(found)


def _changed(found: CocoFile) -> WorkFailed:
    return WorkFailed(f"annotations: {found.path} changed while it was read; its boxes were not committed; run again")


@contextmanager
def open_annotations(path: Path) -> Iterator[BinaryIO]:
    """Open a file of annotations; raise BadInput when it cannot be read."""
    try:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            yield stream
    except OSError as error:
        raise BadInput(f"annotations: {path}: {error.strerror or error}") from error


def _keep_header(found: CocoFile, piece: JsonPiece) -> None:
    text = dump_rest({piece.key: piece.value}, plain=False) or ""
    if len(text) > HEADER_BYTES_MAX:
        found.odd[f"key {piece.key!r} of {len(text)} bytes, not kept"] += 1
    else:
        found.header[piece.key] = piece.value


def _keep_images(found: CocoFile, piece: JsonPiece) -> None:
    for item in piece.items or ():
        if not isinstance(item, dict):
            found.odd["items of images that are no objects"] += 1
            continue
        key = key_of(item.get("id"))
        name = item.get("file_name")
        if isinstance(name, str) and is_text(name):
            del item["file_name"]
        else:
            name = None
        found.images.append(
            CocoImage(
                key=key, name=name, source_id=take_int(item, "id"), width=take_int(item, "width"),
                height=take_int(item, "height"), extra=dump_rest(item, plain=piece.plain),
            )
        )  # fmt: skip


def _keep_categories(found: CocoFile, piece: JsonPiece) -> None:
    for item in piece.items or ():
        if isinstance(item, dict) and key_of(item.get("id")) is not None:
            found.categories.append(item)
        else:
            found.odd["items of categories without an id"] += 1


def _count_annotations(found: CocoFile, packed: array[int], ids: array[int], items: list[Any]) -> array[int]:
    found.annotations += len(items)
    numbers = _take_ids(items)
    if numbers is None:
        _count_slowly(found, packed, ids, items)
    else:
        images, categories = _place(found.image_keys, numbers[0]), _place(found.category_keys, numbers[1])
        packed.frombytes((images << _PAIR_BITS | categories).tobytes())
        ids.frombytes(numbers[2].tobytes())
    if len(packed) > 2**21:  # most images have several boxes of a class
        return array("q", _distinct(packed).tobytes())
    return packed


def _take_ids(items: list[Any]) -> list[Int64s] | None:
    """Return the image ids, category ids and ids of annotations, None when not all of them are whole numbers."""
    try:
        columns = [[item[name] for item in items] for name in ("image_id", "category_id", "id")]
        if not {type(value) for column in columns for value in column} <= {int}:  # Arrow would take 1.5 for 1
            return None
        return [pa.array(column, pa.int64()).to_numpy() for column in columns]
    except (KeyError, TypeError, pa.ArrowException):
        return None


def _place(known: dict[int | str, int], values: Int64s) -> Int64s:
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([known.setdefault(value, len(known)) for value in distinct.tolist()], np.int64)[inverse]


def _count_slowly(found: CocoFile, packed: array[int], ids: array[int], items: list[Any]) -> None:
    for item in items:
        if not isinstance(item, dict):
            continue
        if type(source_id := item.get("id")) is int and is_int64(source_id):
            ids.append(source_id)
        image, category = key_of(item.get("image_id")), key_of(item.get("category_id"))
        if image is not None and category is not None:
            place = found.image_keys.setdefault(image, len(found.image_keys))
            packed.append(place << _PAIR_BITS | found.category_keys.setdefault(category, len(found.category_keys)))


def _find_repeated(ids: array[int]) -> frozenset[int]:
    if not ids:
        return frozenset()
    ordered = np.sort(np.frombuffer(ids, np.int64))
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _distinct(packed: array[int]) -> Int64s:
    return np.unique(np.frombuffer(packed, np.int64)) if packed else np.empty(0, np.int64)
