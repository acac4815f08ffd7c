"""Decide, without touching a file, which images an ingest must read and which class list it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import TRANSIENT_REASONS, Reason
from labelmill.schemas.versions import Version
from labelmill.tasks.ingest.labels import SourceLabels, class_key, find_label_ids
from labelmill.tasks.ingest.list_files import KIND_REASONS, ListedFile, as_text

EXAMPLES_SHOWN = 5
"""Enough names to recognise a mistake by, few enough for one line."""

_ENTRY_REASONS = frozenset(reason for reason, _ in KIND_REASONS.values())

COMPARED_COLUMNS = ("image_id", "uri", "bytes", "mtime_ns", "label", "labels", "width", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPlan:
    """Image ids by what became of them since the table's last version; all but `removed` in listing order."""

    unchanged: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def make_image_ids(files: Sequence[ListedFile], *, id_prefix: str) -> list[str]:
    """Return the image_id of each listed file; raise BadInput when two escaped names fall together."""
    ids = [id_prefix + as_text(file.path) for file in files]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = [image_id for image_id in ids if image_id in seen or seen.add(image_id)]  # type: ignore[func-returns-value]
        raise BadInput(f"source: files with the same id once made valid UTF-8: {_examples(twice)}; rename them")
    return ids


def lacks_label(file: ListedFile, label: int | None, *, required: bool) -> bool:
    """Tell whether a file is rejected as `no_label`; what is no readable file has another reason."""
    return required and label is None and file.rejection is None


def plan_ingest(
    ids: Sequence[str],
    files: Sequence[ListedFile],
    labels: Sequence[int | None],
    table: pa.Table,
    *,
    labels_required: bool,
    rehash: bool,
    several: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> IngestPlan:
    """Compare a listing, whose files have these ids, with the rows of the same split in `table` (COMPARED_COLUMNS).

    A file is unchanged when its place, size, time and label are, and the row's reason does not lie in the machine. With
    `rehash` every known file is changed.
    """
    if not len(table):
        return IngestPlan(unchanged=(), changed=(), added=tuple(ids), removed=())
    columns = (table.column(name).to_pylist() for name in COMPARED_COLUMNS)
    known = {image_id: tuple(row) for image_id, *row in zip(*columns, strict=True)}
    unchanged: list[str] = []
    changed: list[str] = []
    added: list[str] = []
    for image_id, file, label in zip(ids, files, labels, strict=True):
        row = known.pop(image_id, None)
        if row is None:
            added.append(image_id)
        elif rehash or _needs_reading(file, label, several.get(file.path), row, labels_required=labels_required):
            changed.append(image_id)
        else:
            unchanged.append(image_id)
    return IngestPlan(
        unchanged=tuple(unchanged), changed=tuple(changed), added=tuple(added), removed=tuple(sorted(known))
    )


def _needs_reading(
    file: ListedFile,
    label: int | None,
    several: tuple[int, ...] | None,
    row: tuple[object, ...],
    *,
    labels_required: bool,
) -> bool:
    *facts, width, reason = row
    all_labels = None if several is None else list(several)
    if facts != [as_text(file.uri), file.size, file.mtime_ns, label, all_labels]:
        return True
    if reason is None and width is None:  # listed without being read
        return True
    if file.rejected is not None:
        return reason != file.rejected[0]
    if reason == Reason.DROPPED:  # by a verdict that is no more
        return True
    of_entry = KIND_REASONS[file.kind][0] if file.kind in KIND_REASONS else None
    if reason in TRANSIENT_REASONS or (reason if reason in _ENTRY_REASONS else None) != of_entry:
        return True
    return (reason == Reason.NO_LABEL) != lacks_label(file, label, required=labels_required)


def settle_classes(found: ClassList, fixed: ClassList | None, *, owner: str) -> ClassList:
    """Return the class list to use: `fixed`, that of the first ingest, or `found` when there is none yet.

    `found` holds the classes that the files really have. Raises BadInput when some are not in `fixed`, since ids once
    given never change; `owner` says in the message whose list that is.
    """
    if fixed is None:
        return found
    known = {class_key(name) for name in fixed.classes}
    strange = [class_key(name) for name in found.classes if class_key(name) not in known]
    if strange:
        raise BadInput(
            f"source: {len(strange)} of {len(found)} classes are not among the {len(fixed)} of {owner}: "
            f"{_examples(strange)}; ingest into another dataset, which for ImageNet can begin with all classes "
            "by --devkit"
        )
    return fixed


def settle_labels(labels: SourceLabels, fixed: ClassList | None, *, owner: str) -> tuple[ClassList, list[int | None]]:
    """Return the class list of a dataset and each file's id in it, None where a file has no label.

    Only classes that files have must be in `fixed` (see settle_classes), not all that the source proposes.
    """
    used = set(labels.keys).union(*labels.several.values())
    proposed = labels.classes
    found = ClassList(classes=tuple(c for c in proposed.classes if class_key(c) in used), source=proposed.source)
    classes = proposed if fixed is None else settle_classes(found, fixed, owner=owner)
    return classes, find_label_ids(labels.keys, classes)


def refuse_replaced_split(plan: IngestPlan, latest: Version | None, *, dataset: str, split: str, root: str) -> None:
    """Raise BadInput when a source of another place holds no image of the split: all would silently be removed."""
    older = latest.metadata["roots"].get(split) if latest else None
    if older in (None, root) or not plan.removed or plan.unchanged or plan.changed:
        return
    raise BadInput(
        f"split: {split!r} of dataset {dataset} holds {len(plan.removed):,} images of {older}, none of which is in "
        f"{root}: all of them would be removed; give this source a --split of its own, or a folder that holds both (to "
        f"begin the split anew: labelmill delete the versions of {dataset}.images)"
    )


def refuse_shared_ids(ids: Sequence[str] | pa.ChunkedArray, others: pa.Table) -> None:
    """Raise BadInput when rows of other splits in `others` (image_id, split) have one of the ids."""
    if not len(others):
        return
    wanted = ids if isinstance(ids, pa.ChunkedArray) else pa.array(ids, pa.string())
    shared = others.filter(pc.is_in(others["image_id"], value_set=wanted))
    if len(shared):
        splits = ", ".join(sorted(shared["split"].unique().to_pylist()))
        examples = _examples(shared["image_id"].slice(0, EXAMPLES_SHOWN + 1).to_pylist())
        raise BadInput(
            f"id_prefix: {len(shared)} image ids are already in split {splits} of this dataset: {examples}; give this "
            "split an --id-prefix, for example val/"
        )


def _examples(names: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:EXAMPLES_SHOWN])
    return shown if len(names) <= EXAMPLES_SHOWN else f"{shown}, …"
