"""A tree of classes is one tree, holds two datasets, and is grown as YOLO9000 grew its own."""

import re

import pytest
from pydantic import ValidationError

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.word_tree import TreeNode, WordTree, arrange_tree, grow_tree, load_word_tree

COCO = re.split(
    ",",
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush",
)


def classes(*names, **wnids):
    listed = [ClassName(name=n) for n in names] + [ClassName(name=n, wnid=w) for n, w in wnids.items()]
    return ClassList(classes=tuple(listed), source="test")


def test_load_word_tree_joins_imagenet_and_coco():
    from timm.data import ImageNetInfo

    tree = load_word_tree()
    wnids = ImageNetInfo().label_names()
    imagenet = ClassList(classes=tuple(ClassName(name=w, wnid=w) for w in wnids), source="timm")
    assert len(set(tree.find_nodes(imagenet))) == 1000
    coco = tree.find_nodes(classes(*COCO))
    assert len(set(coco)) == 80
    assert sum(node.alias is not None for node in tree.nodes) == 80
    inner = {node.parent for node in tree.nodes}
    leaves = set(range(len(tree))) - inner
    assert leaves <= set(tree.find_nodes(imagenet)) | set(coco)  # nothing hangs below that no dataset has


def test_load_word_tree_kinds_stand_above_their_classes():
    tree = load_word_tree()
    dog, mouse = tree.find_nodes(classes("dog", "mouse"))
    tench, beagle = tree.find_nodes(classes(tench="n01440764", beagle="n02088364"))
    assert dog in tree.path(beagle)
    kinds = {place: {tree.nodes[above].name for above in tree.path(place)} for place in (tench, beagle, mouse)}
    assert {"animal", "fish"} <= kinds[tench]
    assert {"animal", "mammal"} <= kinds[beagle]
    assert "animal" not in kinds[mouse]  # a computer's


def test_find_nodes_unknown_classes_are_named():
    listed = (*classes("dog", "unicorn").classes, *classes(x="n99999999").classes)
    with pytest.raises(BadInput, match="classes: 2 of 3 are not in the tree, for example unicorn, n99999999"):
        load_word_tree().find_nodes(ClassList(classes=listed, source="test"))


GRAPH = {
    "dog": ["canine", "pet"], "canine": ["animal"], "pet": ["animal"], "wolf": ["canine"], "cat": ["feline", "pet"],
    "feline": ["animal"], "animal": ["entity"], "car": ["machine"], "machine": ["entity"], "lion": ["feline"],
}  # fmt: skip


def test_grow_tree_takes_the_ways_that_add_fewest_nodes():
    tree = grow_tree(GRAPH, {"dog", "wolf", "cat", "lion", "car"}, "entity")
    assert tree == {
        "entity": None, "animal": "entity", "canine": "animal", "feline": "animal", "dog": "canine", "wolf": "canine",
        "cat": "feline", "lion": "feline", "car": "entity",
    }  # fmt: skip


def test_grow_tree_without_a_way_to_the_root_is_refused():
    with pytest.raises(BadInput, match="ghost has no way to entity"):
        grow_tree(GRAPH, {"ghost"}, "entity")


def test_arrange_tree_stands_level_by_level():
    tree = arrange_tree({"b": "r", "c": "b", "a": "r", "r": None}, names={"c": "see"})
    assert [(node.id, node.parent, node.name) for node in tree.nodes] == [
        ("r", None, "r"), ("a", 0, "a"), ("b", 0, "b"), ("c", 2, "see"),
    ]  # fmt: skip
    assert tree.path(3) == [0, 2, 3]
    with pytest.raises(BadInput, match="1 nodes are not below the root"):
        arrange_tree({"r": None, "x": "x"}, names={})


@pytest.mark.parametrize("parents", [(), (0,), (None, None), (None, 1), (None, 0, 1, 0), (None, 2, 0)])
def test_word_tree_other_orders_are_refused(parents):
    nodes = tuple(TreeNode(id=str(n), name="", parent=parent) for n, parent in enumerate(parents))
    with pytest.raises(ValidationError, match="a tree: expected"):
        WordTree(nodes=nodes)
