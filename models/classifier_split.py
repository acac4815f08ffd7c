"""Cutting a classifier in two where it pools over places: features before, head from the pooling on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from labelmill.models.tracing import OneThreadTracer
from labelmill.schemas.errors import UnsupportedTeacher


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitClassifier:
    """The two halves of a classifier, in eval mode; they share its modules.

    `features` takes normalised images (B, 3, H, W) and gives what the head pools, (B, D, h, w) where the classifier
    is fit for label maps. `head` takes such features of any h and w and gives logits (B, C). `linear` is the
    classifier's last layer where one is known.
    """

    whole: nn.Module
    features: nn.Module
    head: nn.Module
    linear: nn.Module | None


class _TimmFeatures(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last_axis = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401 - what it gives is for make_dense to judge
        features: Any = self.model.forward_features(images)  # type: ignore[operator]
        if self.last_axis and isinstance(features, torch.Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2)
        return features


class _TimmHead(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last_axis = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = features.permute(0, 2, 3, 1) if self.last_axis else features
        logits: torch.Tensor = self.model.forward_head(features)  # type: ignore[operator]
        return logits


class _Traced(nn.Module):
    """A traced module, called past fx's own wrapper, which prints a traceback of each error on stderr."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__()
        self.traced = traced

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.traced.forward(inputs)
        return outputs


def split_timm(model: nn.Module, name: str) -> SplitClassifier:
    """Split a timm model at `forward_features` | `forward_head`; raise UnsupportedTeacher when it has not both."""
    lacking = [m for m in ("forward_features", "forward_head") if not callable(getattr(model, m, None))]
    if lacking:
        raise UnsupportedTeacher(f"teacher {name!r}: expected a timm classifier with {lacking[0]}, it has none")
    last: Any = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    return SplitClassifier(
        whole=model,
        features=_TimmFeatures(model),
        head=_TimmHead(model),
        linear=last if isinstance(last, nn.Linear | nn.Conv2d) else None,
    )


def split_at_pooling(model: nn.Module, name: str) -> SplitClassifier:
    """Split a model at its global average pooling, found in its torch.fx graph.

    Raises UnsupportedTeacher when it cannot be traced, pools to more than one cell, or pools nowhere globally.
    """
    try:
        traced = fx.GraphModule(model, OneThreadTracer().trace(model.eval()))
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError) as error:
        raise UnsupportedTeacher(f"teacher {name!r}: torch.fx cannot trace it: {error}") from error
    pools = [node for node in traced.graph.nodes if _pools_to_one(traced, node)]
    pool = next((node for node in reversed(pools) if _is_bottleneck(node)), None)
    if pool is None:
        raise UnsupportedTeacher(
            f"teacher {name!r}: expected a global pooling to 1x1 before the head, {_found(traced)}"
        )
    head = _graph_from(traced, pool)
    return SplitClassifier(
        whole=model,
        features=_Traced(_graph_before(traced, pool)),
        head=_Traced(head),
        linear=_last_linear(head),
    )


def _pools_to_one(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    arguments = (*node.args[1:], *node.kwargs.values())
    if node.op == "call_function" and node.target in (F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d):
        return any(size in (1, (1, 1), [1, 1]) for size in arguments)
    is_mean = (node.op, node.target) in (("call_method", "mean"), ("call_function", torch.mean))
    return is_mean and any(axes in ((2, 3), [2, 3], (-2, -1), [-2, -1]) for axes in arguments)


def _after(pool: fx.Node) -> list[fx.Node]:
    nodes = list(pool.graph.nodes)
    return nodes[nodes.index(pool) :]


def _is_bottleneck(pool: fx.Node) -> bool:
    """Whether all that follows the pooling sees the image through it alone, unlike that of a squeeze-and-excitation."""
    after = _after(pool)
    known = {*after, pool.all_input_nodes[0]}
    return all(n in known or n.op == "get_attr" for node in after for n in node.all_input_nodes)


def _graph_before(traced: fx.GraphModule, pool: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if node is pool:
            break
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(copies[pool.all_input_nodes[0]])
    return _module_of(traced, graph)


def _graph_from(traced: fx.GraphModule, pool: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {pool.all_input_nodes[0]: graph.placeholder("features")}
    for node in traced.graph.nodes:
        if node.op == "get_attr" and node not in copies:
            copies[node] = graph.node_copy(node)
    for node in _after(pool):
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    return _module_of(traced, graph)


def _module_of(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(traced, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


def _last_linear(head: fx.GraphModule) -> nn.Module | None:
    for node in reversed(head.graph.nodes):
        if node.op == "call_module" and isinstance(
            module := head.get_submodule(str(node.target)), nn.Linear | nn.Conv2d
        ):
            return module
    return None


def _found(traced: fx.GraphModule) -> str:
    for module in traced.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            size = module.output_size
            shape = "x".join(map(str, size)) if isinstance(size, tuple) else f"{size}x{size}"
            return f"it pools to {shape} and its head looks at each place differently"
    return "it has none: its head sees tokens, or places together"
