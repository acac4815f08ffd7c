"""Convolution, sum with a shortcut and activation in one pass of oneDNN over the data, where torch offers it.

The operators are private to torch: each use is tried on a tiny image first and left out where it fails or differs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from labelmill.models.folding import module_of, only_user, replace_module

_PROBE_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}  # of values around 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """An activation in oneDNN's words, as torch spells them."""

    attr: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""

    def apply(self, inputs: Tensor) -> Tensor:
        """Return what torch's own function of this activation gives."""
        if self.attr == "gelu":
            return F.gelu(inputs, approximate=self.algorithm)
        return _FUNCTIONS[self.attr](inputs, *self.scalars)


NOTHING = Activation()

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "none": lambda inputs: inputs,
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "swish": F.silu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
}

_OF_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Tanh: "tanh",
}

_OF_CALLS: dict[Any, Activation] = {
    F.relu: Activation(attr="relu"),
    torch.relu: Activation(attr="relu"),
    "relu": Activation(attr="relu"),
    "relu_": Activation(attr="relu"),
    F.relu6: Activation(attr="hardtanh", scalars=(0.0, 6.0)),
    F.silu: Activation(attr="swish"),
    F.hardswish: Activation(attr="hardswish"),
    F.hardsigmoid: Activation(attr="hardsigmoid"),
    F.sigmoid: Activation(attr="sigmoid"),
    torch.sigmoid: Activation(attr="sigmoid"),
    "sigmoid": Activation(attr="sigmoid"),
    "sigmoid_": Activation(attr="sigmoid"),
    torch.tanh: Activation(attr="tanh"),
}

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUMS_IN_PLACE = (operator.iadd, "add_")


class FusedConvolution(nn.Module):
    """A convolution with all that follows it; `weight` is laid out for oneDNN once. It holds no state of a call."""

    def __init__(self, convolution: nn.Conv2d, activation: Activation, dtype: torch.dtype) -> None:
        super().__init__()
        self.activation = activation
        self.place = (
            [*convolution.padding],
            [*convolution.stride],
            [*convolution.dilation],
            convolution.groups,
        )
        weight = convolution.weight.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.place)
        self.bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)

    def forward(self, inputs: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return activation(convolution(inputs) + shortcut)."""
        attr, scalars = self.activation.attr, [*self.activation.scalars]
        operators = torch.ops.mkldnn._convolution_pointwise
        outputs: Tensor
        if shortcut is None:
            algorithm = self.activation.algorithm
            outputs = operators(inputs, self.weight, self.bias, *self.place, attr, scalars, algorithm)
            return outputs
        unary = None if attr == "none" else attr
        outputs = operators.binary(
            inputs, shortcut, self.weight, self.bias, *self.place, "add", 1.0, unary, scalars, None
        )
        return outputs


def find_activation(graph: fx.GraphModule, node: fx.Node | None) -> Activation | None:
    """Return the activation that a step of the graph is, None where it is something else."""
    if node is None:
        return None
    module = module_of(graph, node)
    if isinstance(module, nn.ReLU6 | nn.Hardtanh):
        return Activation(attr="hardtanh", scalars=(float(module.min_val), float(module.max_val)))
    if type(module) is nn.LeakyReLU:
        return Activation(attr="leaky_relu", scalars=(module.negative_slope,))
    if type(module) is nn.GELU:
        return Activation(attr="gelu", algorithm=module.approximate)
    if module is not None:
        return Activation(attr=_OF_MODULES[type(module)]) if type(module) in _OF_MODULES else None
    is_call = node.op in ("call_function", "call_method") and len(node.args) == 1 and not set(node.kwargs) - {"inplace"}
    return _OF_CALLS.get(node.target) if is_call else None


@lru_cache(maxsize=64)
def works(activation: Activation, dtype: torch.dtype, *, shortcut: bool = False) -> bool:
    """Tell whether this torch, on this processor, has the operator and it gives what separate steps give."""
    if not torch._C._has_mkldnn:
        return False
    generator = torch.Generator().manual_seed(0)
    return all(_agrees(activation, dtype, groups, generator, shortcut=shortcut) for groups in (1, 8))


@torch.no_grad()
def _agrees(
    activation: Activation, dtype: torch.dtype, groups: int, generator: torch.Generator, *, shortcut: bool
) -> bool:
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups, device="meta")
    convolution.weight = nn.Parameter(torch.randn(8, 8 // groups, 3, 3, generator=generator) / 3, requires_grad=False)
    convolution.bias = nn.Parameter(torch.randn(8, generator=generator), requires_grad=False)
    inputs, other = (
        torch.randn(2, 8, 5, 7, generator=generator).to(dtype, memory_format=torch.channels_last) for _ in range(2)
    )
    sums = convolution(inputs.float()) + (other.float() if shortcut else 0)
    try:
        fused = FusedConvolution(convolution, activation, dtype)
        outputs = fused(inputs, other) if shortcut else fused(inputs)
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False
    expected = activation.apply(sums)
    return torch.allclose(outputs.float(), expected, rtol=_PROBE_TOLERANCE[dtype], atol=_PROBE_TOLERANCE[dtype])


@dataclass(kw_only=True, slots=True)
class Fusions:
    """How much was fused: convolutions on oneDNN's operator, activations and sums with a shortcut taken into them."""

    convolutions: int = 0
    activations: int = 0
    sums: int = 0


def fuse_convolutions(graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]], dtype: torch.dtype) -> Fusions:
    """Let oneDNN's operator do each convolution, with what follows it where nobody else sees the values between.

    `shapes` gains the new steps. Leaves the graph as it is where the operator does not work here.
    """
    fusions = Fusions()
    if not works(NOTHING, dtype):
        return fusions
    for node in list(graph.graph.nodes):
        convolution = module_of(graph, node)
        if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" or node.kwargs:
            continue
        if isinstance(convolution.padding, str):
            continue
        activation, last = _take_activation(graph, node, dtype), node
        if activation is NOTHING and (total := _find_sum(node, shapes)) and works(NOTHING, dtype, shortcut=True):
            last = _take_sum(graph, node, total, shapes)
            activation = _take_activation(graph, last, dtype, shortcut=True)
            fusions.sums += 1
        replace_module(graph, last, FusedConvolution(convolution, activation, dtype))
        fusions.activations += activation is not NOTHING
        fusions.convolutions += 1
    return fusions


def _take_activation(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype, *, shortcut: bool = False) -> Activation:
    follower = only_user(node)
    activation = find_activation(graph, follower)
    if follower is None or activation is None or not works(activation, dtype, shortcut=shortcut):
        return NOTHING
    follower.replace_all_uses_with(node)
    graph.graph.erase_node(follower)
    return activation


def _find_sum(node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> fx.Node | None:
    """Return the step that adds something of the same shape to the convolution's result, which it alone sees."""
    total = only_user(node)
    if total is None or total.target not in _SUMS or len(total.args) != 2 or total.kwargs:
        return None
    first, second = total.args
    other = second if first is node else first
    if other is node or not isinstance(other, fx.Node) or shapes.get(other) != shapes[node]:
        return None
    if total.target in _SUMS_IN_PLACE and first is not node:
        return None
    # the convolution moves to the place of the sum: nobody may write to its input on the way
    return None if any(user not in (node, total) and _may_write(user) for user in _users_of(node.args[0])) else total


def _users_of(node: Argument) -> list[fx.Node]:
    return list(node.users) if isinstance(node, fx.Node) else []


def _may_write(node: fx.Node) -> bool:
    if node.op == "call_module":
        module = node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]  # it has one
        return any(getattr(part, "inplace", False) for part in module.modules())
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or name.endswith("_") or name in ("iadd", "imul", "isub")


def _take_sum(graph: fx.GraphModule, node: fx.Node, total: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> fx.Node:
    other = next(argument for argument in total.args if argument is not node)
    with graph.graph.inserting_before(total):
        fused = graph.graph.call_module(str(node.target), (node.args[0], other))
    shapes[fused] = shapes[node]
    total.replace_all_uses_with(fused)
    graph.graph.erase_node(total)
    graph.graph.erase_node(node)
    return fused
