"""Probabilities over a tree of classes: a softmax over the children of each node, multiplied along the way down."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from labelmill.schemas.errors import BadInput
from labelmill.schemas.word_tree import WordTree


class TreeSoftmax(nn.Module):
    """The distribution over a tree's N nodes that N−1 logits give: one for each node but the root, in the tree's order.

    Source: Redmon and Farhadi 2017, YOLO9000, section 4, Hierarchical classification.
    """

    parent: Tensor
    group: Tensor
    group_of: Tensor

    def __init__(self, tree: WordTree) -> None:
        super().__init__()
        parents = [node.parent for node in tree.nodes[1:]]
        inner = list(dict.fromkeys(parents))
        group = {place: number for number, place in enumerate(inner)}
        depths = [0]
        for parent in parents:
            depths.append(depths[parent or 0] + 1)
        self.groups, self.depth = len(inner), max(depths)
        self.register_buffer("parent", torch.tensor([parent or 0 for parent in parents], dtype=torch.long))
        self.register_buffer("group", torch.tensor([group[parent] for parent in parents], dtype=torch.long))
        self.register_buffer(
            "group_of", torch.tensor([group.get(place, -1) for place in range(len(tree))], dtype=torch.long)
        )
        self._levels = [depths.count(depth) for depth in range(1, self.depth + 1)]

    def log_conditionals(self, logits: Tensor) -> Tensor:
        """Return (B, N−1) log-probabilities of each node given its parent, from (B, N−1) logits."""
        if logits.dim() != 2 or logits.shape[1] != len(self.group):
            raise BadInput(f"logits: expected (B, {len(self.group)}), got {tuple(logits.shape)}")
        index = self.group.expand_as(logits)
        empty = logits.new_full((len(logits), self.groups), -math.inf)
        top = empty.scatter_reduce(1, index, logits.detach(), "amax")
        shifted = logits - top.gather(1, index)
        total = torch.zeros_like(empty).scatter_add(1, index, shifted.exp())
        return shifted - total.log().gather(1, index)

    def forward(self, logits: Tensor) -> Tensor:
        """Return (B, N) log-probabilities of all nodes; the root's are 0, the children of a node sum to it.

        Minus the value at a label's node, wherever in the tree it stands, is the loss of YOLO9000.
        """
        steps = self.log_conditionals(logits)
        found = [torch.zeros_like(steps[:, :1])]
        start = 0
        for size in self._levels:  # a level's nodes stand side by side, behind those of the level above
            above = torch.cat(found, 1)
            stop = start + size
            found.append(above[:, self.parent[start:stop]] + steps[:, start:stop])
            start = stop
        return torch.cat(found, 1)

    def predict(self, logits: Tensor, *, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
        """Walk down from the root to the likeliest child while its probability reaches the threshold.

        Returns (B,) node indices, 0 where not even a child of the root does, and (B,) their probabilities.
        """
        steps = self.log_conditionals(logits)
        index = self.group.expand_as(steps)
        empty = steps.new_full((len(steps), self.groups), -math.inf)
        leads = steps == empty.scatter_reduce(1, index, steps, "amax").gather(1, index)
        places = torch.arange(1, len(self.group_of), device=steps.device).expand_as(steps)
        none = torch.full_like(empty, len(self.group_of), dtype=torch.long)
        best = none.scatter_reduce(1, index, torch.where(leads, places, len(self.group_of)), "amin")
        node = torch.zeros(len(steps), dtype=torch.long, device=steps.device)
        found = steps.new_zeros(len(steps))
        for _ in range(self.depth):
            group = self.group_of[node]
            child = best.gather(1, group.clamp_min(0)[:, None])[:, 0]
            deeper = found + steps.gather(1, (child - 1)[:, None])[:, 0]
            going = (group >= 0) & (deeper.exp() >= threshold)
            node, found = torch.where(going, child, node), torch.where(going, deeper, found)
        return node, found.exp()
