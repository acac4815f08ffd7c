"""Apply what people decided: a table that remembers it, and a new version of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA, Reason, Status
from labelmill.schemas.parameters import VerdictsParameters
from labelmill.schemas.selection import VERDICTS_SCHEMA, Verdict
from labelmill.schemas.versions import Part, Version, digest_json
from labelmill.tasks.ingest.rows import IMAGES_LAYOUT
from labelmill.tasks.ingest.verdicts import DROPPED_DETAIL
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.selection.verdict_file import Decision, VerdictFile, read_verdicts
from labelmill.tasks.store import Change, Store, Table, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """The versions of images and verdicts, and lines by what they decided; `rows` images have another row now."""

    images: Version
    verdicts: Version | None
    counts: dict[str, int]
    undecided: int
    rows: int


def take_verdicts(parameters: VerdictsParameters) -> Applied:
    """Record the verdicts of a CSV and make the version of the images that follows from them.

    The same file again changes nothing. Raises BadInput for a file with a wrong line, NotInStore without images,
    WorkFailed when another run changed the labels meanwhile.
    """
    store = open_store(parameters.store)
    images = store.table(f"{parameters.dataset}.images")
    before = images.version()
    file = read_verdicts(parameters, images, before)
    counts = Counter(decision.verdict.value for decision in file.decisions)
    if not file.decisions:
        return Applied(images=before, verdicts=None, counts={}, undecided=file.undecided, rows=0)
    origin = _find_origin(store, parameters.dataset, file)
    verdicts = _record(store.table(f"{parameters.dataset}.verdicts"), parameters, file, origin)
    after, rows = _change_images(images, parameters, file, {**origin, verdicts.table: verdicts.number})
    return Applied(images=after, verdicts=verdicts, counts=dict(counts), undecided=file.undecided, rows=rows)


def _find_origin(store: Store, dataset: str, file: VerdictFile) -> dict[str, int]:
    """Return the queue that the file came from and what it was made of, for the lineage; nothing where it is gone."""
    numbers = {decision.queue for decision in file.decisions if decision.queue is not None}
    queue = store.table(f"{dataset}.disagreements")
    if len(numbers) != 1 or not numbers <= set(queue.numbers()):
        return {}
    version = queue.version(numbers.pop())
    made_of = {name: number for name, number in version.lineage.inputs.items() if not name.endswith(".verdicts")}
    return {queue.name: version.number, **made_of}


def _record(table: Table, parameters: VerdictsParameters, file: VerdictFile, inputs: dict[str, int]) -> Version:
    rows = pa.Table.from_pylist(
        [
            {
                "image_id": d.image_id, "split": d.split, "verdict": d.verdict.value, "label_before": d.label_before,
                "label": d.label, "csv_sha256": file.sha256, "queue": d.queue,
            }
            for d in file.decisions
        ],
        schema=VERDICTS_SCHEMA,
    )  # fmt: skip
    part = table.write_part(rows, key=file.sha256)

    def change(latest: Version | None) -> Change | None:
        older = latest.parts if latest else ()
        if older and older[-1] == part:
            return None
        return Change(operation="append", parts=[*older, part], metadata={"kind": "verdicts"})

    return table.commit(change, schema=VERDICTS_SCHEMA, lineage=make_lineage("verdicts", parameters, inputs=inputs))


def _change_images(
    images: Table, parameters: VerdictsParameters, file: VerdictFile, inputs: dict[str, int]
) -> tuple[Version, int]:
    wanted = {d.image_id: d for d in file.decisions if d.verdict is not Verdict.KEPT}
    changed = 0

    def change(latest: Version | None) -> Change | None:
        nonlocal changed
        if latest is None:
            raise WorkFailed(f"{images.name}: its versions were deleted meanwhile; ingest again")
        classes = read_classes(latest.metadata)
        made = [_change_part(images, part, wanted, classes) for part in latest.parts]
        changed = sum(count for _, count in made)
        parts = [part for part, _ in made]
        if parts == list(latest.parts):
            return None
        metadata = {**latest.metadata, "csv_sha256": file.sha256}
        return Change(operation="replace", parts=parts, metadata=metadata)

    lineage = make_lineage("verdicts", parameters, inputs=inputs)
    return images.commit(change, schema=IMAGES_SCHEMA, lineage=lineage), changed


def _change_part(images: Table, part: Part, wanted: dict[str, Decision], classes: ClassList | None) -> tuple[Part, int]:
    """Return a part with the decisions carried out, and how many rows of it differ."""
    ids = images.read_part(part, ["image_id"])["image_id"].to_pylist()
    places = [place for place, image_id in enumerate(ids) if image_id in wanted]
    if not places:
        return part, 0
    rows = images.read_part(part)
    old = rows.take(pa.array(places)).to_pylist()
    new = [_change_row(row, wanted[row["image_id"]], classes) for row in old]
    changed = sum(a != b for a, b in zip(old, new, strict=True))
    if not changed:
        return part, 0
    return images.write_part(
        _put_rows(rows, places, new), key=digest_json([part.sha256, "verdicts"]), layout=IMAGES_LAYOUT
    ), changed


def _put_rows(rows: pa.Table, places: Sequence[int], new: Sequence[dict[str, object]]) -> pa.Table:
    """Return `rows` with others at some places."""
    joined = pa.concat_tables([rows, pa.Table.from_pylist(list(new), schema=rows.schema)])
    order = list(range(rows.num_rows))
    for number, place in enumerate(places):
        order[place] = rows.num_rows + number
    return joined.take(pa.array(order, pa.int64())).combine_chunks()


def _change_row(row: dict[str, object], decision: Decision, classes: ClassList | None) -> dict[str, object]:
    if decision.verdict is Verdict.DROPPED:
        if row["status"] != Status.DONE:
            return row
        return {
            **row, "status": Status.REJECTED.value, "reason": Reason.DROPPED.value, "detail": DROPPED_DETAIL,
        }  # fmt: skip
    if row["label"] not in (decision.label_before, decision.label):
        raise WorkFailed(f"{row['image_id']}: another run changed its label meanwhile; make the queue anew")
    wnid = classes.classes[decision.label].wnid if classes and decision.label is not None else None
    return {**row, "label": decision.label, "wnid": wnid}
