"""Divide a dataset into splits, and mark a few labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from labelmill.schemas.parameters import SplitParameters
from labelmill.schemas.splits import SPLITS_SCHEMA, Role, parse_fractions
from labelmill.schemas.versions import Version
from labelmill.tasks.splits.draw import Unit, draw, most_common, split_by_quota, split_by_threshold
from labelmill.tasks.splits.images import Images, commit_rows, read_images
from labelmill.tasks.store import Table, open_store

_RECIPE = ("seed", "fractions", "stratify", "from_split", "group_pattern", "group_column", "same_bytes_together")
"""What decides where images go: a version of another recipe is no start for this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """A version of splits and what is to be told of it.

    `kept` images stay where the version before had them; `leaks` are contents that stand in more than one split;
    `short` are classes with fewer images than splits, or than labels asked for.
    """

    version: Version
    images: Images
    sizes: dict[str, int]
    kept: int
    groups: int
    leaks: int
    short: int


def divide(parameters: SplitParameters) -> Division:
    """Give every whole image of a dataset a split and commit the table.

    Raises BadInput or NotInStore when there is nothing to divide, or a name is unknown.
    """
    store = open_store(parameters.store)
    columns = [parameters.group_column] if parameters.group_column else []
    images = read_images(
        store, parameters.dataset, parameters.images_version, split=parameters.from_split, columns=columns,
        field="from_split",
    )  # fmt: skip
    table = store.table(f"{parameters.dataset}.{parameters.table}")
    recipe = {name: getattr(parameters, name) for name in _RECIPE}
    before = _read_before(table, recipe)
    groups = _find_groups(parameters, images)
    units = _make_units(parameters, images, groups, before)
    fractions = parse_fractions(parameters.fractions)
    choose = split_by_quota if parameters.stratify else split_by_threshold
    splits = [""] * images.rows.num_rows
    for unit, split in zip(units, choose(units, fractions, parameters.seed), strict=True):
        for row in unit.rows:
            splits[row] = split
    ids, labels = images.column("image_id"), images.column("label")
    roles, lacking = _draw_labels(parameters, ids, labels, splits, next(iter(fractions)), before)
    rows = pa.table([ids, splits, roles, labels, groups], schema=SPLITS_SCHEMA)
    version = commit_rows(
        table, rows, metadata={"kind": "splits", "recipe": recipe, "classes": images.version.metadata["classes"]},
        flow="split", parameters=parameters, inputs={images.name: images.version.number},
    )  # fmt: skip
    few = sum(size < len(fractions) for size in Counter(labels).values()) if parameters.stratify else 0
    sizes = Counter(splits)
    return Division(
        version=version, images=images, sizes={name: sizes[name] for name in fractions},
        kept=sum(before.get(image_id, ("", None))[0] == split for image_id, split in zip(ids, splits, strict=True)),
        groups=len({group for group in groups if group is not None}),
        leaks=count_leaks(zip(images.column("sha256"), splits, strict=True)), short=max(few, lacking),
    )  # fmt: skip


def count_leaks(pairs: Iterable[tuple[str | None, str]]) -> int:
    """Return how many contents, by sha256, stand in more than one split; images without digest do not count."""
    seen: dict[str, set[str]] = defaultdict(set)
    for sha256, split in pairs:
        if sha256 is not None:
            seen[sha256].add(split)
    return sum(len(splits) > 1 for splits in seen.values())


def _read_before(table: Table, recipe: dict[str, object]) -> dict[str, tuple[str, str | None]]:
    """Return split and role by image of the latest version, none when it was made by another recipe."""
    latest = table.latest()
    if latest is None or latest.metadata.get("recipe") != recipe:
        return {}
    rows = table.read(latest, ["image_id", "split", "role"]).to_pylist()
    return {row["image_id"]: (row["split"], row["role"]) for row in rows}


def _find_groups(parameters: SplitParameters, images: Images) -> list[str | None]:
    if parameters.group_column:
        return [None if value is None else str(value) for value in images.column(parameters.group_column)]
    if not parameters.group_pattern:
        return [None] * images.rows.num_rows
    matches = (re.search(parameters.group_pattern, image_id) for image_id in images.column("image_id"))
    return [None if match is None else match[match.re.groups] for match in matches]


def _make_units(
    parameters: SplitParameters,
    images: Images,
    groups: Sequence[str | None],
    before: dict[str, tuple[str, str | None]],
) -> list[Unit]:
    """Join the images that must stay together: of one group, and of the same bytes, also by way of a third."""
    ids, labels = images.column("image_id"), images.column("label")
    leader = list(range(len(ids)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    keys: list[Sequence[object]] = [groups]
    if parameters.same_bytes_together:
        keys.append(images.column("sha256"))
    for values in keys:
        first: dict[object, int] = {}
        for place, value in enumerate(values):
            if value is not None:
                leader[find(place)] = find(first.setdefault(value, place))
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(ids)):
        members[find(place)].append(place)
    units = []
    for rows in members.values():
        names = sorted(ids[row] for row in rows)
        group = next((groups[row] for row in rows if groups[row] is not None), None)
        kept = next((before[name][0] for name in names if name in before), None)
        units.append(
            Unit(
                name=names[0] if group is None else group,
                rows=tuple(rows),
                stratum=most_common([labels[row] for row in rows]),
                kept=kept,
            )
        )
    return units


def _draw_labels(
    parameters: SplitParameters,
    ids: Sequence[str],
    labels: Sequence[int | None],
    splits: Sequence[str],
    first: str,
    before: dict[str, tuple[str, str | None]],
) -> tuple[list[str | None], int]:
    """Return each image's role, and how many classes have fewer labels than asked for; earlier ones are kept."""
    wanted = parameters.labels_per_class
    if wanted is None:
        return [None] * len(ids), 0
    classes: dict[int, list[tuple[bool, int, int]]] = defaultdict(list)
    for place, (image_id, label) in enumerate(zip(ids, labels, strict=True)):
        if splits[place] == first and label is not None:
            was = before.get(image_id, ("", None))[1] == Role.LABELLED
            classes[label].append((not was, draw("label", parameters.seed, image_id), place))
    chosen = {place for members in classes.values() for _, _, place in sorted(members)[:wanted]}
    roles = [
        None if split != first else Role.LABELLED.value if place in chosen else Role.UNLABELLED.value
        for place, split in enumerate(splits)
    ]
    return roles, sum(len(members) < wanted for members in classes.values())
