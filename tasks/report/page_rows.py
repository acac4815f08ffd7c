"""Choose the images of a page and read what the store says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.locations import join_location
from labelmill.schemas.versions import Version
from labelmill.tasks.store import Store

REJECTED_SHARE_MAX = 4
"""At most one image in so many shows a rejection: they are rare in a good store, and all alike in a bad one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRow:
    """An image of a page: what the label maps say, and where its file is. Unknown facts are None."""

    row: int
    image_id: str
    status: str
    reason: str | None
    detail: str | None
    label: int | None
    label_name: str | None
    path: str | None
    sha256: str | None

    @property
    def done(self) -> bool:
        """Whether the image has a map."""
        return self.status == Status.DONE


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadingClass:
    """A class that leads `cells` cells of an image's map."""

    class_id: int
    name: str
    cells: int


def choose_rows(store: Store, version: Version, count: int) -> tuple[list[int], list[int]]:
    """Return the rows to show, done and rejected: at most `count`, evenly spread over the version."""
    if count < 1:
        raise BadInput(f"images: expected 1 or more, got {count}")
    with store.connect() as sql:
        view = _view(version.table, version.number)
        found = sql.execute(f"SELECT row, status FROM {view} ORDER BY row").fetchall()  # noqa: S608 - a checked name
    done = [row for row, status in found if status == Status.DONE]
    rejected = [row for row, status in found if status != Status.DONE]
    if len(found) <= count:
        return done, rejected
    shown = _spread(rejected, max(count // REJECTED_SHARE_MAX, count - len(done)))
    return _spread(done, count - len(shown)), shown


def _spread(rows: Sequence[int], count: int) -> list[int]:
    if len(rows) <= count:
        return list(rows)
    return [rows[place * len(rows) // count] for place in range(count)]


def read_page_rows(
    store: Store, version: Version, rows: Sequence[int], *, image_root: str | Path | None = None
) -> list[PageRow]:
    """Read the facts of `rows`, in that order; files are where they were ingested, or below `image_root`.

    Raises BadInput when `image_root` is given for images of several splits.
    """
    images = _images_version(store, version)
    roots: dict[str, str] = dict(images.metadata["roots"]) if images else {}
    if image_root is not None:
        if len(roots) > 1:
            raise BadInput(f"image_root: the splits {', '.join(sorted(roots))} have a folder each")
        roots = dict.fromkeys(roots, str(image_root))
    join, place = "", "NULL, NULL"
    if images is not None:
        view = _view(images.table, images.number)
        join, place = f"LEFT JOIN {view} AS i USING (image_id, split)", "i.uri, i.sha256"
    query = (
        f"SELECT m.row, image_id, split, m.status, m.reason, m.detail, m.label, m.label_name, {place} "  # noqa: S608 - checked names
        f"FROM {_view(version.table, version.number)} AS m {join} "
        "WHERE m.row IN (SELECT unnest($rows::BIGINT[]))"
    )
    with store.connect() as sql:
        found = {row[0]: row for row in sql.execute(query, {"rows": list(rows)}).fetchall()}
    return [_page_row(found[row], roots) for row in rows]


def _page_row(found: tuple[object, ...], roots: dict[str, str]) -> PageRow:
    row, image_id, split, status, reason, detail, label, label_name, uri, sha256 = found
    root = roots.get(str(split))
    return PageRow(
        row=int(str(row)),
        image_id=str(image_id),
        status=str(status),
        reason=_text(reason),
        detail=_text(detail),
        label=None if label is None else int(str(label)),
        label_name=_text(label_name),
        path=join_location(root, str(uri)) if root and uri is not None else None,
        sha256=_text(sha256),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _images_version(store: Store, version: Version) -> Version | None:
    """Return the images version that the label maps were made from, None when it is unknown or deleted."""
    for name, number in version.lineage.inputs.items():
        table = store.table(name)
        if name.endswith(".images") and number in table.numbers():
            return table.version(number)
    return None


def read_leading_classes(store: Store, version: Version, image_ids: Sequence[str]) -> dict[str, list[LeadingClass]]:
    """Return for each image the classes that lead a cell, those with most cells first."""
    view = _view(version.table.replace("label_maps", "label_classes"), version.number)
    query = (
        f"SELECT image_id, class_id, class_name, cells FROM {view} "  # noqa: S608 - a checked name
        "WHERE cells > 0 AND image_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY image_id, cells DESC, class_id"
    )
    leading: dict[str, list[LeadingClass]] = {image_id: [] for image_id in image_ids}
    with store.connect() as sql:
        for image_id, class_id, name, cells in sql.execute(query, {"ids": list(image_ids)}).fetchall():
            shown = str(class_id) if name is None else name
            leading[image_id].append(LeadingClass(class_id=class_id, name=shown, cells=cells))
    return leading


def _view(table: str, number: int) -> str:
    dataset, _, name = table.partition(".")
    return f'"{dataset}"."{name}_v{number}"'
