"""Draw N-way K-shot episodes on splits that share no class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import EpisodesParameters
from labelmill.schemas.splits import EPISODES_SCHEMA, Role, parse_fractions
from labelmill.schemas.versions import Version
from labelmill.tasks.splits.draw import Unit, draw, split_by_quota
from labelmill.tasks.splits.images import Images, commit_rows, read_images
from labelmill.tasks.stop import check_stop
from labelmill.tasks.store import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """A version of episodes; `classes` counts those of each split, `left_out` those with too few images."""

    version: Version
    images: Images
    classes: dict[str, int]
    left_out: int


def draw_episodes(parameters: EpisodesParameters, *, on_episode: Callable[[], None] = lambda: None) -> Episodes:
    """Divide the classes, draw every split's episodes and commit the table.

    An episode depends on seed, split, its number and the classes' own images alone. Raises BadInput when a split has
    fewer classes than an episode needs.

    Source: Vinyals et al. 2016, Matching Networks for One Shot Learning, section 4.1.
    """
    store = open_store(parameters.store)
    images = read_images(
        store, parameters.dataset, parameters.images_version, split=parameters.from_split, field="from_split"
    )
    members: dict[int, list[str]] = defaultdict(list)
    for image_id, label in zip(images.column("image_id"), images.column("label"), strict=True):
        if label is not None:
            members[label].append(image_id)
    needed = parameters.shots + parameters.queries
    usable = {label: ids for label, ids in sorted(members.items()) if len(ids) >= needed}
    classes = _divide_classes(parameters, images, list(usable), needed)
    columns: dict[str, list[object]] = {name: [] for name in EPISODES_SCHEMA.names}
    for split, labels in classes.items():
        for episode in range(parameters.episodes):
            check_stop()
            on_episode()
            for row in _draw_one(parameters, split, episode, labels, usable):
                for name, value in zip(columns, row, strict=True):
                    columns[name].append(value)
    version = commit_rows(
        store.table(f"{parameters.dataset}.{parameters.table}"), pa.table(columns, schema=EPISODES_SCHEMA),
        metadata={"kind": "episodes", "class_ids": classes, "classes": images.version.metadata["classes"]},
        flow="episodes", parameters=parameters, inputs={images.name: images.version.number},
    )  # fmt: skip
    counts = {split: len(labels) for split, labels in classes.items()}
    return Episodes(version=version, images=images, classes=counts, left_out=len(members) - len(usable))


def _divide_classes(
    parameters: EpisodesParameters, images: Images, labels: Sequence[int], needed: int
) -> dict[str, list[int]]:
    listed = (images.version.metadata["classes"] or {}).get("classes", ())
    names = [
        (listed[label]["wnid"] or listed[label]["name"]) if label < len(listed) else str(label) for label in labels
    ]
    units = [Unit(name=name, rows=(place,), stratum=None) for place, name in enumerate(names)]
    fractions = parse_fractions(parameters.fractions)
    classes: dict[str, list[int]] = {name: [] for name in fractions}
    for label, split in zip(labels, split_by_quota(units, fractions, parameters.seed), strict=True):
        classes[split].append(label)
    for split, found in classes.items():
        if len(found) < parameters.ways:
            raise BadInput(
                f"ways: split {split} has {len(found)} of {len(labels)} classes with at least {needed} images, "
                f"expected {parameters.ways} or more; give it a larger fraction, or ask for less"
            )
    return classes


def _draw_one(
    parameters: EpisodesParameters, split: str, episode: int, labels: Sequence[int], members: dict[int, list[str]]
) -> list[tuple[object, ...]]:
    seed = (parameters.seed, split, episode)
    chosen = sorted(labels, key=lambda label: draw("class", *seed, label))[: parameters.ways]
    rows: list[tuple[object, ...]] = []
    for way, label in enumerate(chosen):
        ids = sorted(members[label], key=lambda image_id: draw("image", *seed, image_id))
        for place, image_id in enumerate(ids[: parameters.shots + parameters.queries]):
            role = Role.SUPPORT if place < parameters.shots else Role.QUERY
            rows.append((split, episode, way, role.value, image_id, label))
    return rows
