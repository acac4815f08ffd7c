"""Probabilities over any tree are a distribution at each node, and walking down stops where they are too small."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.models.word_tree import TreeSoftmax
from labelmill.schemas.errors import BadInput
from labelmill.schemas.word_tree import arrange_tree, load_word_tree


def grow(choices):
    """A tree where node n hangs below one of those before it."""
    parents = {"n000": None}
    for number, choice in enumerate(choices, start=1):
        parents[f"n{number:03d}"] = f"n{choice % number:03d}"
    return arrange_tree(parents, names={})


TREES = st.lists(st.integers(0, 1000), min_size=1, max_size=40).map(grow)


@settings(max_examples=60, deadline=None)
@given(tree=TREES, seed=st.integers(0, 100), scale=st.sampled_from([0.0, 1.0, 30.0]))
def test_tree_softmax_root_is_one_and_children_sum_to_their_parent(tree, seed, scale):
    logits = torch.randn(3, len(tree) - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    probs = TreeSoftmax(tree)(logits).exp()
    assert torch.equal(probs[:, 0], torch.ones(3, dtype=torch.float64))
    for place in range(len(tree)):
        children = [n for n, node in enumerate(tree.nodes) if node.parent == place]
        if children:
            torch.testing.assert_close(probs[:, children].sum(1), probs[:, place])
    leaves = set(range(len(tree))) - {node.parent for node in tree.nodes}
    torch.testing.assert_close(probs[:, sorted(leaves)].sum(1), torch.ones(3, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(tree=TREES, seed=st.integers(0, 100), threshold=st.floats(0, 1))
def test_predict_walks_to_the_likeliest_child_while_it_reaches_the_threshold(tree, seed, threshold):
    softmax = TreeSoftmax(tree)
    logits = torch.randn(2, len(tree) - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    steps, probs = softmax.log_conditionals(logits), softmax(logits).exp()
    nodes, found = softmax.predict(logits, threshold=threshold)
    for row in range(2):
        at = 0
        while children := [n for n, node in enumerate(tree.nodes) if node.parent == at]:
            child = max(children, key=lambda n: (steps[row, n - 1].item(), -n))
            if probs[row, child] < threshold - 1e-12:
                break
            at = child
        assert nodes[row] == at
        torch.testing.assert_close(found[row], probs[row, at])


def test_tree_softmax_by_hand():
    tree = arrange_tree({"r": None, "a": "r", "b": "r", "a1": "a", "a2": "a", "only": "b"}, names={})
    logits = torch.log(torch.tensor([[3.0, 1.0, 1.0, 4.0, 7.0]]))  # a, b, a1, a2, only
    softmax = TreeSoftmax(tree)
    torch.testing.assert_close(softmax(logits).exp(), torch.tensor([[1, 0.75, 0.25, 0.15, 0.6, 0.25]]))
    for threshold, node in ((0.8, 0), (0.7, 1), (0.61, 1), (0.59, 4), (0.0, 4)):
        assert softmax.predict(logits, threshold=threshold)[0].item() == node


def test_tree_softmax_learns_from_labels_at_inner_nodes_and_leaves():
    tree = load_word_tree()
    softmax = TreeSoftmax(tree)
    dog = next(place for place, node in enumerate(tree.nodes) if node.alias == "dog")
    logits = torch.zeros(1, len(tree) - 1, requires_grad=True)
    (-softmax(logits)[0, dog]).backward()
    moved = {place + 1 for place in logits.grad[0].nonzero()[:, 0].tolist()}
    way = tree.path(dog)
    assert moved == {n for n, node in enumerate(tree.nodes) if node.parent in way[:-1]} - {
        n for n, node in enumerate(tree.nodes) if sum(other.parent == node.parent for other in tree.nodes) == 1
    }
    assert all(logits.grad[0, place - 1] < 0 for place in way[1:] if place in moved)


def test_tree_softmax_other_shapes_are_refused():
    with pytest.raises(BadInput, match=r"logits: expected \(B, 2\), got \(2, 3\)"):
        TreeSoftmax(arrange_tree({"r": None, "a": "r", "b": "r"}, names={}))(torch.zeros(2, 3))
