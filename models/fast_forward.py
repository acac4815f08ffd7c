"""A teacher's model made fast for one thread of a CPU; it gives the same logits, and says what was done."""

from __future__ import annotations

import copy
import logging
import math
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from labelmill.models.folding import (
    FAILURES,
    drop_identities,
    fold_batch_norms,
    fold_paddings,
    record_shapes,
    refuse_other_logits,
    take_last_bias,
    trace_graph,
)
from labelmill.models.fused_convolution import NOTHING, FusedConvolution, Fusions, fuse_convolutions, works
from labelmill.schemas.errors import BadInput

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fast"]

TOLERANCE = 1e-4
"""Largest difference from the model's own float32 logits, absolute up to 1 and relative to the largest above."""

PIECE_BYTES = 24 * 2**20
"""Largest result of one step: above 32 MiB glibc takes fresh pages for each, measured a fifth of the time in fp32."""

_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # of x86, x86, Arm


class FastModel(nn.Module):
    """Logits float32 of normalised images (B, 3, H, W) float32 of the one size it was made for.

    They are (B, C, h, w) of a dense model, channels last in memory, and (B, C) of an ordinary classifier. Made by
    `make_fast`. It holds no state of a call: any number of threads may use it at once. A batch runs in pieces of
    `piece` images.
    """

    def __init__(
        self,
        *,
        body: nn.Module,
        last_bias: Tensor | None,
        input_size: tuple[int, int],
        dtype: torch.dtype,
        piece: int | None,
        facts: dict[str, Any],
    ) -> None:
        super().__init__()
        self.body = body
        self.last_bias = last_bias
        self.input_size = input_size
        self.dtype = dtype
        self.piece = piece
        self._facts = facts

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch; raise BadInput for images of another size."""
        if tuple(images.shape[2:]) != self.input_size:
            expected, came = ("x".join(map(str, size)) for size in (self.input_size, images.shape[2:]))
            raise BadInput(f"images: expected {expected} pixels, for which this model was made fast, got {came}")
        count = len(images)
        if self.piece is None or count <= self.piece:
            return self._run(images)
        even = -(-count // -(-count // self.piece))
        return torch.cat([self._run(part) for part in torch.split(images, even)])

    def _run(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images.to(self.dtype, memory_format=torch.channels_last))
        logits = logits.float()
        return logits if self.last_bias is None else logits + self.last_bias

    def facts(self) -> dict[str, Any]:
        """Return what was done to the model and what it runs on, for lineage, as JSON takes it."""
        return copy.deepcopy(self._facts)


class _Autocast(nn.Module):
    """A model in bfloat16 where torch deems it safe."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = self.model(images)
        return logits


@dataclass(frozen=True, kw_only=True, slots=True)
class _Folded:
    graph: fx.GraphModule
    shapes: dict[fx.Node, tuple[int, ...]]
    batch_norms: int
    paddings: int


@torch.no_grad()
def make_fast(model: nn.Module, *, precision: Precision = "fp32", input_size: tuple[int, int]) -> FastModel:
    """Return a dense model or a classifier made fast for threads of a CPU of one core each; itself it stays as it is.

    `input_size` is (height, width) in pixels of all images to come. "fp32" keeps the logits (see TOLERANCE), "fast"
    takes bfloat16 where the processor computes with it, and is "fp32" elsewhere; `facts` says which. Whatever cannot
    be folded, or gives other logits than the model when tried, runs as it is.

    Raises BadInput when the model does not take images of that size.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # oneDNN lays weights out for so many threads: laid out for two, bf16 took 2.4 times as long
    try:
        return _make(model, precision, input_size)
    finally:
        torch.set_num_threads(threads)


def _make(model: nn.Module, precision: Precision, input_size: tuple[int, int]) -> FastModel:
    images = torch.randn((2, 3, *input_size), generator=torch.Generator().manual_seed(0))
    try:
        expected = model(images)
    except FAILURES as error:
        raise BadInput(f"input size {input_size[0]}x{input_size[1]}: the model does not take it: {error}") from error
    reason = None if precision == "fp32" else why_no_bf16()
    dtype = torch.bfloat16 if precision == "fast" and reason is None else torch.float32
    facts = {
        "precision": "bf16" if dtype is torch.bfloat16 else "fp32",
        "why_not_bf16": reason,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        folded = _fold(model, images)
        fast = _finish(folded, torch.float32, input_size, facts)
        refuse_other_logits(fast(images), expected, tolerance=TOLERANCE)
        if dtype is not torch.float32:
            fast = _finish(folded, dtype, input_size, facts)
            _refuse_not_finite(fast(images), expected)
    except FAILURES as error:
        logger.warning("the model is not folded, it runs as it is: %s", error)
        return _as_it_is(model, dtype, input_size, {**facts, "folded": False, "why_not_folded": str(error)})
    return fast


def _fold(model: nn.Module, images: Tensor) -> _Folded:
    graph = trace_graph(model)
    drop_identities(graph)
    batch_norms = fold_batch_norms(graph)
    drop_identities(graph)  # those of timm's norms
    shapes = record_shapes(graph, images[:1])
    return _Folded(graph=graph, shapes=shapes, batch_norms=batch_norms, paddings=fold_paddings(graph, shapes))


def _finish(folded: _Folded, dtype: torch.dtype, input_size: tuple[int, int], facts: dict[str, Any]) -> FastModel:
    """Fuse a copy of the folded graph and bring the rest of it to `dtype`."""
    graph = copy.deepcopy(fx.GraphModule(folded.graph, folded.graph.graph))  # of the modules still called, no others
    copies = zip(folded.graph.graph.nodes, graph.graph.nodes, strict=True)
    shapes = {new: folded.shapes[old] for old, new in copies if old in folded.shapes}
    fusions = fuse_convolutions(graph, shapes, dtype)
    body = fx.GraphModule(graph, graph.graph).to(memory_format=torch.channels_last).eval()
    _cast(body, dtype)
    largest = max(math.prod(shape) for node, shape in shapes.items() if node.op != "get_attr") * dtype.itemsize
    return FastModel(
        body=body,
        last_bias=take_last_bias(
            body, lambda module: isinstance(module, FusedConvolution) and module.activation is NOTHING
        ),
        input_size=input_size,
        dtype=dtype,
        piece=max(PIECE_BYTES // largest, 1),
        facts={**facts, "folded": True, **_count(folded, fusions)},
    )


def _count(folded: _Folded, fusions: Fusions) -> dict[str, int]:
    counts = {f"fused_{name}": count for name, count in asdict(fusions).items()}
    return {"folded_batch_norms": folded.batch_norms, "folded_paddings": folded.paddings, **counts}


def _cast(body: nn.Module, dtype: torch.dtype) -> None:
    """Bring parameters and buffers to `dtype`, but for batch norms that stayed: torch mixes them with bfloat16."""
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_floating_point():
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))


def _refuse_not_finite(logits: Tensor, expected: Tensor) -> None:
    if not bool(logits.isfinite().all()) and bool(expected.isfinite().all()):
        raise ValueError("folded and in bfloat16, its logits are not finite")


def _as_it_is(model: nn.Module, dtype: torch.dtype, input_size: tuple[int, int], facts: dict[str, Any]) -> FastModel:
    body: nn.Module = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    return FastModel(
        body=body if dtype is torch.float32 else _Autocast(body),
        last_bias=None,
        input_size=input_size,
        dtype=torch.float32,
        piece=None,
        facts=facts,
    )


@cache
def why_no_bf16() -> str | None:
    """Return why bfloat16 would be no gain here, None where the processor computes with it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"unknown whether this processor ({platform.machine()}) computes with bfloat16"
    if not set(text.split()) & set(_BF16_FLAGS):
        return "the processor has none of " + ", ".join(_BF16_FLAGS)
    return None if works(NOTHING, torch.bfloat16) else "torch's convolution in bfloat16 does not work here"
