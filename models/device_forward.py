"""A teacher's dense model on one device, such as a GPU: uint8 images in, float32 logits out."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn

from labelmill.models.fast_forward import Precision
from labelmill.models.folding import (
    FAILURES,
    drop_identities,
    fold_batch_norms,
    refuse_other_logits,
    take_last_bias,
    trace_graph,
)
from labelmill.models.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference of folded and plain float32 logits, as in fast_forward; wider, for cuDNN has faster algorithms."""

_CAST = (nn.Conv2d, Conv2dSame, nn.Linear)  # of exactly these classes: others may compute with their weights first


class DeviceModel(nn.Module):
    """Logits float32 of images (B, H, W, 3) uint8 that lie on the model's device; normalised there, channels last.

    `body` takes normalised images (B, 3, H, W); with `bf16` it runs under autocast. `last_bias` (C, 1, 1) float32 is
    added to its result in float32.
    """

    def __init__(
        self,
        *,
        body: nn.Module,
        preprocessing: Preprocessing,
        bf16: bool,
        last_bias: Tensor | None,
        facts: dict[str, Any],
    ) -> None:
        super().__init__()
        self.body = body
        self.bf16 = bf16
        self.scale: Tensor
        self.shift: Tensor
        for name, values in zip(("scale", "shift"), preprocessing.scale_and_shift(), strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.last_bias = last_bias
        self._facts = facts

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of a batch."""
        images = self.normalise(pixels)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.body(images)
        logits = logits.float()
        return logits if self.last_bias is None else logits + self.last_bias

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return what `body` takes; the same bits as the CPU's engine makes of these pixels."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)  # keeps the strides: channels last
        return images.mul_(self.scale).add_(self.shift)

    def facts(self) -> dict[str, Any]:
        """Return what was done to the model, for lineage, as JSON takes it."""
        return copy.deepcopy(self._facts)


@torch.no_grad()
def make_device_model(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    input_size: tuple[int, int],
    precision: Precision = "fp32",
) -> DeviceModel:
    """Return a copy of a dense model on `device`, batch norms folded where it gives the same float32 logits so.

    "fp32" computes without TF32, which is turned off for the whole process. "fast" takes bfloat16 where the device
    computes with it, and is "fp32" elsewhere; `facts` says which.
    """
    keep_float32_exact()
    reason = why_no_bf16_on(device) if precision == "fast" else None
    bf16 = precision == "fast" and reason is None
    facts: dict[str, Any] = {"precision": "bf16" if bf16 else "fp32", "why_not_bf16": reason}
    plain = copy.deepcopy(model).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    try:
        body, folded, last_bias = _fold(model, device)
        made = DeviceModel(
            body=body, preprocessing=preprocessing, bf16=False, last_bias=last_bias,
            facts={**facts, "folded": True, "folded_batch_norms": folded},
        ).to(device)  # fmt: skip
        _compare(made, plain, input_size, device)
    except FAILURES as error:
        logger.warning("the model is not folded, it runs as it is: %s", error)
        facts = {**facts, "folded": False, "why_not_folded": str(error)}
        made = DeviceModel(body=plain, preprocessing=preprocessing, bf16=False, last_bias=None, facts=facts).to(device)
    if bf16:
        _cast(made.body)
        made.bf16 = True
    return made.eval()


def make_device_classifier(classifier: nn.Module, preprocessing: Preprocessing, device: torch.device) -> DeviceModel:
    """Return a copy of an ordinary classifier on `device` in float32: logits (B, C)."""
    keep_float32_exact()
    body = copy.deepcopy(classifier).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    made = DeviceModel(body=body, preprocessing=preprocessing, bf16=False, last_bias=None, facts={"precision": "fp32"})
    return made.to(device).eval()


def keep_float32_exact() -> None:
    """Turn TF32 off and let cuDNN choose its algorithms by rule: the same input gives the same bytes at each run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # on by default
    torch.backends.cudnn.benchmark = False  # its choice, by measuring, is another one on a busy device
    torch.backends.cudnn.deterministic = True


def why_no_bf16_on(device: torch.device) -> str | None:
    """Return why bfloat16 would be no gain on a device, None where it computes with it."""
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return None if native else f"{torch.cuda.get_device_name(device)} does not compute with bfloat16"


def _fold(model: nn.Module, device: torch.device) -> tuple[fx.GraphModule, int, Tensor | None]:
    """Return the folded graph on the device, how many norms were folded, and the bias taken out of its last step.

    Padding stays as it is: a kernel made larger by zeros, a gain on a CPU, is none for cuDNN.
    """
    graph = trace_graph(model)
    drop_identities(graph)
    folded = fold_batch_norms(graph)
    drop_identities(graph)  # those of timm's norms
    graph = copy.deepcopy(fx.GraphModule(graph, graph.graph))  # of the modules still called; the teacher keeps its own
    body = graph.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return body, folded, take_last_bias(body, lambda module: type(module) is nn.Conv2d)


def _compare(made: DeviceModel, plain: nn.Module, input_size: tuple[int, int], device: torch.device) -> None:
    """Raise ValueError when the folded model gives other logits than the plain one."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, *input_size, 3), generator=generator, dtype=torch.uint8).to(device)
    refuse_other_logits(made(pixels), plain(made.normalise(pixels)), tolerance=TOLERANCE)


def _cast(body: nn.Module) -> None:
    """Cast weights once that autocast would cast at each call: it only remembers those that need gradients."""
    for module in body.modules():
        if type(module) in _CAST:
            module.to(torch.bfloat16)
