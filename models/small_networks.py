"""Classifiers for images of 32 pixels, which the model libraries have only for large ones."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models import resnet18

LEAK = 0.1
"""Slope of the leaky ReLU for negative values, as semi-supervised baselines have it."""


def wrn_28_2(num_classes: int) -> nn.Module:
    """Return a wide ResNet of depth 28 and width 2 with 1.5 million parameters, for (B, 3, 32, 32).

    Source: Zagoruyko & Komodakis 2016, Wide Residual Networks; activations as in Oliver et al. 2018.
    """
    widths = (16, 32, 64, 128)
    groups = [
        nn.Sequential(*(_WideBlock(w if n else before, w, stride if not n else 1) for n in range(4)))
        for before, w, stride in zip(widths[:-1], widths[1:], (1, 2, 2), strict=True)
    ]
    body = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), *groups]
    head = [nn.BatchNorm2d(widths[-1]), nn.LeakyReLU(LEAK), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(OrderedDict(body=nn.Sequential(*body, *head), head=nn.Linear(widths[-1], num_classes)))
    return _start(model)


class _WideBlock(nn.Module):
    """Two convolutions behind batch norms, around which the input goes, widened by a convolution of one pixel."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(before), nn.LeakyReLU(LEAK))
        self.convolve = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        self.widen = None if before == width and stride == 1 else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        around = x if self.widen is None else self.widen(activated)
        result: Tensor = around + self.convolve(activated)
        return result


def resnet18_32(num_classes: int) -> nn.Module:
    """Return a ResNet-18 whose stem keeps the resolution, 11.2 million parameters with ten classes, for (B, 3, 32, 32).

    Source: He et al. 2016, Deep Residual Learning, with the stem usual for CIFAR.
    """
    model: nn.Module = resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def conv4(num_classes: int) -> nn.Module:
    """Return four convolutions of 64 channels, each halving the resolution, for images of 16 pixels and more.

    0.1 million parameters, for quick runs. Source: Vinyals et al. 2016, Matching Networks, section 4.1.
    """
    blocks = [
        nn.Sequential(nn.Conv2d(before, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
        for before in (3, 64, 64, 64)
    ]
    body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _start(nn.Sequential(OrderedDict(body=body, head=nn.Linear(64, num_classes))))


def _start(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
    return model
