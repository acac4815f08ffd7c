"""A tree of classes: WordNet's kinds above the classes of several datasets, for one model that learns from all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, model_validator

from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput

EXAMPLES_SHOWN = 5


class TreeNode(BaseModel):
    """A kind of thing; `parent` is the place of the kind above it in the tree's list, None for the root.

    `id` is its wnid, or a name of our own for what WordNet 3.0 does not list. `alias` is the name of COCO's class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    parent: int | None
    alias: str | None = None


class WordTree(BaseModel):
    """Nodes level by level from the root, the children of a node side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[TreeNode, ...]

    @model_validator(mode="after")
    def _check(self) -> WordTree:
        parents = [node.parent for node in self.nodes]
        if not parents or parents[0] is not None or len({node.id for node in self.nodes}) < len(parents):
            raise BadInput("a tree: expected a root first, and a node for each id")
        rest = [-1 if parent is None else parent for parent in parents[1:]]
        if any(not 0 <= parent <= place for place, parent in enumerate(rest)) or rest != sorted(rest):
            raise BadInput("a tree: expected one root, parents before children, children of a node side by side")
        return self

    def __len__(self) -> int:
        return len(self.nodes)

    def find_nodes(self, classes: ClassList) -> list[int]:
        """Return the node of each class of a dataset, by its wnid, else by its id or COCO's name.

        Raises BadInput that names classes which are not in the tree.
        """
        places = {node.alias: place for place, node in enumerate(self.nodes) if node.alias}
        places |= {node.id: place for place, node in enumerate(self.nodes)}
        found = [places.get(name.wnid or name.name) for name in classes.classes]
        strange = [name.wnid or name.name for name, place in zip(classes.classes, found, strict=True) if place is None]
        if strange:
            shown = ", ".join(strange[:EXAMPLES_SHOWN])
            raise BadInput(
                f"classes: {len(strange)} of {len(classes)} are not in the tree, for example {shown}; expected wnids "
                "or COCO's names"
            )
        return [place for place in found if place is not None]

    def path(self, place: int) -> list[int]:
        """Return the nodes from the root to a node, both with it."""
        path = [place]
        while (parent := self.nodes[path[-1]].parent) is not None:
            path.append(parent)
        return path[::-1]


@cache
def load_word_tree() -> WordTree:
    """Return the tree that joins ImageNet's 1000 classes and COCO's 80.

    Its kinds are WordNet 3.0's hypernyms of ImageNet's synsets; see docs/word-tree.md for how it was made.
    """
    lines = files("labelmill.schemas").joinpath("word_tree.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return arrange_tree(
        {row[0]: row[1] or None for row in rows},
        names={row[0]: row[2] for row in rows},
        aliases={row[0]: row[3] for row in rows if row[3]},
    )


def arrange_tree(
    parents: Mapping[str, str | None], *, names: Mapping[str, str], aliases: Mapping[str, str] | None = None
) -> WordTree:
    """Return the tree of ids with their parents, None for the root; raise BadInput when it is none."""
    children: dict[str | None, list[str]] = defaultdict(list)
    for node, parent in parents.items():
        children[parent].append(node)
    order = sorted(children[None])
    places: dict[str, int] = {}
    for node in order:  # grows while it is read
        places[node] = len(places)
        order.extend(sorted(children.get(node, ())))
    if len(places) < len(parents):
        raise BadInput(f"a tree: {len(parents) - len(places)} nodes are not below the root")
    return WordTree(
        nodes=tuple(
            TreeNode(
                id=node, name=names.get(node, node), alias=(aliases or {}).get(node),
                parent=None if (parent := parents[node]) is None else places[parent],
            )
            for node in order
        )
    )  # fmt: skip


def grow_tree(kinds: Mapping[str, Sequence[str]], wanted: Collection[str], root: str) -> dict[str, str | None]:
    """Return the parent of each node of a tree that holds `wanted`, out of a graph where a node may have several.

    Nodes with one way to the root come first; then each of the others takes the way that adds the fewest nodes. Inner
    nodes with a single child that nobody wanted are left out. Raises BadInput when a node has no way to the root.

    Source: Redmon and Farhadi 2017, YOLO9000, section 4, Hierarchical classification.
    """
    ways = {node: sorted(_ways(kinds, node, root)) for node in sorted(wanted)}
    if lost := [node for node, found in ways.items() if not found]:
        raise BadInput(f"a tree: {lost[0]} has no way to {root}")
    parents: dict[str, str | None] = {root: None}
    for node in sorted(ways, key=lambda node: (len(ways[node]) > 1, node)):
        way = min(ways[node], key=lambda way: (sum(step not in parents for step in way), len(way)))
        for child, parent in pairwise(way):
            if child in parents:  # from here on the tree has a way already
                break
            parents[child] = parent
    return _without_lone_kinds(parents, set(wanted) | {root})


def _ways(kinds: Mapping[str, Sequence[str]], node: str, root: str) -> Iterator[tuple[str, ...]]:
    if node == root:
        yield (root,)
        return
    for parent in kinds.get(node, ()):
        for way in _ways(kinds, parent, root):
            yield (node, *way)


def _without_lone_kinds(parents: Mapping[str, str | None], kept: set[str]) -> dict[str, str | None]:
    """Leave out the kinds that say nothing: their single child has all of their probability."""
    children: dict[str | None, int] = defaultdict(int)
    for parent in parents.values():
        children[parent] += 1
    lone = {node for node in parents if children[node] == 1 and node not in kept}
    found: dict[str, str | None] = {}
    for node, parent in parents.items():
        above = parent
        while above in lone:
            above = parents[above]
        if node not in lone:
            found[node] = above
    return found
