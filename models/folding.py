"""A model's graph without what inference does not need: batch norm folded, padding into kernels, no dropout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, DropPath
from torch import fx, nn
from torch.fx.node import Argument
from torchvision.ops import StochasticDepth, stochastic_depth

from labelmill.models.tracing import OneThreadTracer

logger = logging.getLogger(__name__)

FAILURES = (TypeError, RuntimeError, ValueError, AttributeError, AssertionError, LookupError)
"""What tracing, folding and running a model that does not suit them may raise."""

_TRACES_MAX = 50
_NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d, DropPath, StochasticDepth)

Hole = tuple[int, int]
"""Of one axis: pixels of zeros before, and behind."""


class _Tracer(OneThreadTracer):
    """A tracer to which convolutions, norms and what it cannot look into are one step each."""

    def __init__(self, opaque: set[type[nn.Module]]) -> None:
        super().__init__()
        self.opaque = opaque
        self.failed: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, nn.Conv2d | nn.BatchNorm2d) or type(m) in self.opaque
        return whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - as in fx
        try:
            return super().call_module(m, forward, args, kwargs)
        except FAILURES:
            self.failed = self.failed or m
            raise


def trace_graph(model: nn.Module) -> fx.GraphModule:
    """Return the model as a graph that shares its modules; a module that cannot be traced becomes one step of it.

    Raises TypeError, RuntimeError or a kin when not even the outermost one can be traced.
    """
    opaque: set[type[nn.Module]] = set()
    for _ in range(_TRACES_MAX):
        tracer = _Tracer(opaque)
        try:
            return fx.GraphModule(model, tracer.trace(model))
        except FAILURES as error:
            if tracer.failed is None:
                raise
            logger.debug("%s is not looked into: %s", type(tracer.failed).__name__, error)
            opaque.add(type(tracer.failed))
    raise RuntimeError(f"no graph after {_TRACES_MAX} attempts")


def record_shapes(graph: fx.GraphModule, images: torch.Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """Return the shape of each node's result, where it is a tensor, for such images."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - as in fx
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                shapes[n] = tuple(result.shape)
            return result

    with torch.no_grad():
        Recorder(graph).run(images)
    return shapes


def module_of(graph: fx.GraphModule, node: Argument) -> nn.Module | None:
    """Return the module that a node calls, None where it calls none or one that hooks may change."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = graph.get_submodule(str(node.target))
    return None if module._forward_hooks or module._forward_pre_hooks else module


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that alone takes this one's result."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def drop_identities(graph: fx.GraphModule) -> None:
    """Take out what changes nothing in eval mode: modules, and the calls of dropout's functions."""
    for node in list(graph.graph.nodes):
        called_off = node.op == "call_function" and node.target in (F.dropout, stochastic_depth) and _is_off(node)
        if called_off or type(module_of(graph, node)) in _NOTHING_IN_EVAL:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _is_off(node: fx.Node) -> bool:
    place = 2 if node.target is F.dropout else 3
    return (node.args[place] if len(node.args) > place else node.kwargs.get("training", True)) is False


def fold_batch_norms(graph: fx.GraphModule) -> int:
    """Fold each batch norm into the convolution before it where nobody else sees that one's result; return how many.

    Of timm's norm with an activation the activation stays, as a step of its own.
    Source: Jacob et al. 2018, Quantization and Training of Neural Networks, section 3.2.
    """
    folded = 0
    for node in list(graph.graph.nodes):
        convolution = module_of(graph, node)
        follower = only_user(node)
        norm = module_of(graph, follower)
        if follower is None or not (_is_plain(convolution) and _is_folding(norm)):
            continue
        replace_module(graph, node, _fold(convolution, norm))
        rest: fx.Node = node
        if isinstance(norm, BatchNormAct2d):
            for name, part in (("drop", norm.drop), ("act", norm.act)):
                graph.add_submodule(f"fast_{follower.name}_{name}", part)
                with graph.graph.inserting_before(follower):
                    rest = graph.graph.call_module(f"fast_{follower.name}_{name}", (rest,))
        follower.replace_all_uses_with(rest)
        graph.graph.erase_node(follower)
        folded += 1
    return folded


def _is_plain(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return type(module) in (nn.Conv2d, Conv2dSame) and getattr(module, "padding_mode", None) == "zeros"


def _is_folding(module: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    known = type(module) in (nn.BatchNorm2d, BatchNormAct2d)
    return known and not getattr(module, "training", True) and getattr(module, "running_var", None) is not None


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    variance, mean = norm.running_var, norm.running_mean
    assert variance is not None  # noqa: S101 - _is_folding has looked
    assert mean is not None  # noqa: S101
    scale = (variance.double() + norm.eps).rsqrt()  # in double: the product is rounded once
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    kind = type(convolution)
    return _like(convolution, kind, weight=weight.float(), bias=shift.float(), padding=convolution.padding)


def _like(
    convolution: nn.Conv2d,
    kind: type[nn.Conv2d],
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    padding: str | tuple[int, ...],
) -> nn.Conv2d:
    new = kind(
        convolution.in_channels,
        convolution.out_channels,
        (weight.shape[2], weight.shape[3]),
        stride=convolution.stride,  # type: ignore[arg-type]  # two numbers
        padding=padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=bias is not None,
        device="meta",
    )
    new.weight = nn.Parameter(weight, requires_grad=False)
    new.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
    return new.eval()


def fold_paddings(graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]]) -> int:
    """Bake uneven ('same') padding for inputs of these shapes; return how many convolutions it was baked into.

    Zeros at the front of a kernel make up for padding that lacks there: nothing is copied into a larger image.
    Where dilation forbids that, the padding becomes a step of its own.
    """
    baked = 0
    for node in list(graph.graph.nodes):
        convolution = module_of(graph, node)
        if not _is_plain(convolution):
            continue
        if type(convolution) is nn.Conv2d and not isinstance(convolution.padding, str):
            continue
        holes = [_hole(convolution, axis, shapes[node.args[0]][2 + axis]) for axis in (0, 1)]
        front = [after - before for before, after in holes]
        weight, padding = convolution.weight.detach(), tuple(after for _, after in holes)
        if any(zeros and convolution.dilation[axis] != 1 for axis, zeros in enumerate(front)):
            with graph.graph.inserting_before(node):
                padded = graph.graph.call_function(F.pad, (node.args[0], [*holes[1], *holes[0]]))
            node.replace_input_with(node.args[0], padded)
            padding = (0, 0)
        else:
            weight = F.pad(weight, (front[1], 0, front[0], 0))
        bias = None if convolution.bias is None else convolution.bias.detach()
        replace_module(graph, node, _like(convolution, nn.Conv2d, weight=weight, bias=bias, padding=padding))
        baked += 1
    return baked


def _hole(convolution: nn.Conv2d, axis: int, length: int) -> Hole:
    kernel, stride, dilation = (
        values[axis] for values in (convolution.kernel_size, convolution.stride, convolution.dilation)
    )
    if convolution.padding == "valid":
        return 0, 0
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def replace_module(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let a node call another module; other calls of its old one stay."""
    name = f"fast_{node.name}"
    graph.add_submodule(name, module)
    node.target = name


def refuse_other_logits(logits: torch.Tensor, expected: torch.Tensor, *, tolerance: float) -> None:
    """Raise ValueError when a folded model's logits are not those expected.

    `tolerance` is absolute up to expected logits of 1, and relative to the largest above.
    """
    if logits.shape != expected.shape:
        raise ValueError(f"folded, it gives logits of shape {tuple(logits.shape)}, expected {tuple(expected.shape)}")
    difference = float((logits - expected).abs().max())
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise ValueError(f"folded, its logits differ by {difference:.2g}, more than {allowed:.2g}")


def take_last_bias(graph: fx.GraphModule, ends_with_bias: Callable[[nn.Module], bool]) -> torch.Tensor | None:
    """Take the bias (C, 1, 1) float32 out of the last step, None where it has none or is no module that may lose it.

    A constant of -7 in it must not cost bfloat16's few digits.
    """
    last = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    module = module_of(graph, last)
    bias = getattr(module, "bias", None)
    if module is None or len(last.args) != 1 or not ends_with_bias(module) or not isinstance(bias, torch.Tensor):
        return None
    module.bias = None  # type: ignore[assignment]
    return bias.detach().float()[:, None, None]
