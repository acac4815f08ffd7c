"""Read the CSV that people filled in, and check every line before anything is changed."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.schemas.classes import ClassList, read_classes
from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Status
from labelmill.schemas.parameters import VerdictsParameters
from labelmill.schemas.selection import Verdict
from labelmill.schemas.versions import Version
from labelmill.tasks.store import Table, open_store

PROBLEMS_SHOWN = 20

_NEEDED = ("image_id", "label", "suggested", "verdict")
_WORDS = {"keep": Verdict.KEPT, "drop": Verdict.DROPPED, "reject": Verdict.DROPPED, "suggested": Verdict.CHANGED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a line of the file decides about an image; labels are ids of the dataset's classes."""

    image_id: str
    split: str
    verdict: Verdict
    label_before: int
    label: int | None
    queue: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictFile:
    """A checked file: its decisions in order, and how many lines decide nothing."""

    sha256: str
    decisions: tuple[Decision, ...]
    undecided: int


class _Wrong(Exception):
    """What is wrong with a line."""


def check_verdicts(parameters: VerdictsParameters) -> None:
    """Raise BadInput for a file with a wrong line, NotInStore when the dataset has no images."""
    table = open_store(parameters.store).table(f"{parameters.dataset}.images")
    read_verdicts(parameters, table, table.version())


def read_verdicts(parameters: VerdictsParameters, images: Table, version: Version) -> VerdictFile:
    """Return what the file decides about the images of a version; raise BadInput that names every wrong line.

    Nothing of a file with a wrong line is taken: people would not know which half of their work had counted.
    """
    path = Path(parameters.csv)
    data = _read(path)
    lines = list(_parse(path, data))
    facts = _read_images(images, version, [cells["image_id"] for _, cells in lines])
    classes = read_classes(version.metadata)
    decisions: dict[str, tuple[int, Decision]] = {}
    problems = []
    undecided = 0
    for number, cells in lines:
        if not cells["verdict"]:
            undecided += 1
            continue
        try:
            if (before := decisions.get(cells["image_id"])) is not None:
                raise _Wrong(f"a second verdict on {cells['image_id']!r}, the first is in line {before[0]}")
            decisions[cells["image_id"]] = number, _decide(cells, facts, classes)
        except _Wrong as wrong:
            problems.append(f"line {number}: {wrong}")
    if problems:
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise BadInput(
            f"csv: {path}: {len(problems)} of {len(lines)} lines are wrong, nothing was changed: "
            f"{'; '.join(problems[:PROBLEMS_SHOWN])}{more}"
        )
    found = tuple(decision for _, decision in decisions.values())
    return VerdictFile(sha256=hashlib.sha256(data).hexdigest(), decisions=found, undecided=undecided)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"csv: {path}: {error.strerror}; expected the filled-in CSV of disagreements") from error


def _parse(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each line's number, that of its last line where a cell has several, and its cells by column."""
    try:
        text = data.decode("utf-8-sig")  # spreadsheets write a byte order mark, and semicolons in many countries
    except UnicodeDecodeError as error:
        raise BadInput(f"csv: {path}: expected UTF-8: {error.reason} at byte {error.start}") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if lacking := [name for name in _NEEDED if header.count(name) != 1]:
            raise BadInput(f"csv: {path}: expected one column each of {', '.join(_NEEDED)}; lacks {', '.join(lacking)}")
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                raise BadInput(
                    f"csv: {path}: line {reader.line_num} has {len(row)} cells, expected {len(header)}; nothing was "
                    "changed"
                )
            cells = dict(zip(header, row, strict=True))
            yield reader.line_num, {**cells, "verdict": cells["verdict"].strip()}
    except csv.Error as error:
        raise BadInput(f"csv: {path}: behind line {reader.line_num}: {error}; nothing was changed") from error


def _read_images(images: Table, version: Version, image_ids: Sequence[str]) -> dict[str, tuple[str, int | None, str]]:
    """Return split, label and status of the images that are there."""
    wanted = pa.array(image_ids, pa.string())
    found = {}
    for part in version.parts:
        rows = images.read_part(part, ["image_id", "split", "label", "status"])
        for row in rows.filter(pc.is_in(rows["image_id"], wanted)).to_pylist():
            found[row["image_id"]] = (row["split"], row["label"], row["status"])
    return found


def _decide(
    cells: dict[str, str], facts: dict[str, tuple[str, int | None, str]], classes: ClassList | None
) -> Decision:
    image_id = cells["image_id"]
    if image_id not in facts:
        raise _Wrong(f"no image {image_id!r} in the dataset")
    split, now, status = facts[image_id]
    before = _as_id(cells["label"], "label", classes)
    verdict, label = _judge(cells, before, classes)
    dropped_already = verdict is Verdict.DROPPED and status != Status.DONE
    if status != Status.DONE and not dropped_already:
        raise _Wrong(f"{image_id!r} is rejected in the dataset; only whole images can be judged")
    if now not in (before, label):
        raise _Wrong(f"{image_id!r} now has label {now}, not {before}; make the queue anew")
    queue = cells.get("queue", "")
    return Decision(
        image_id=image_id, split=split, verdict=verdict, label_before=before, label=label,
        queue=int(queue) if queue.isascii() and queue.isdigit() else None,
    )  # fmt: skip


def _judge(cells: dict[str, str], before: int, classes: ClassList | None) -> tuple[Verdict, int | None]:
    """Return the verdict of a line and the label that it asks for."""
    word = cells["verdict"]
    known = _WORDS.get(word.casefold())
    if known is Verdict.DROPPED:
        return known, None
    if known is Verdict.KEPT:
        return known, before
    if known is Verdict.CHANGED:
        if not cells["suggested"]:
            raise _Wrong("the dataset has no class that is suggested; name one, or keep or drop the image")
        label = _as_id(cells["suggested"], "suggested", classes)
    else:
        label = _find_class(word, classes)
    return (Verdict.KEPT if label == before else Verdict.CHANGED), label


def _as_id(cell: str, column: str, classes: ClassList | None) -> int:
    if not (cell.isascii() and cell.isdigit() and int(cell) < len(classes or ())):
        raise _Wrong(f"{column}: expected the id of a class, from 0 to {len(classes or ()) - 1}, got {cell!r}")
    return int(cell)


def _find_class(word: str, classes: ClassList | None) -> int:
    """Return the class of a name or wnid, or where none has that name, of an id."""
    listed = classes.classes if classes else ()
    places = [place for place, c in enumerate(listed) if word in (c.name, c.wnid)]
    if len(places) == 1:
        return places[0]
    if places:
        raise _Wrong(f"several classes are named {word!r}: say which of the ids {', '.join(map(str, places))}")
    if word.isascii() and word.isdigit() and int(word) < len(listed):
        return int(word)
    raise _Wrong(f"verdict {word!r}: expected keep, suggested, drop, or the name, wnid or id of a class")
