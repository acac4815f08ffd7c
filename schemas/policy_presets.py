"""Policies that have a name."""

from __future__ import annotations

from labelmill.schemas.augmentation import (
    AutoAugment,
    Cutout,
    Flip,
    Mosaic,
    MultiScale,
    PadCrop,
    Policy,
    RandAugment,
    RandomResizedCrop,
)
from labelmill.schemas.errors import BadInput

_CROP = RandomResizedCrop()
_SHIFT = PadCrop()

_OPERATIONS = {
    "weak": (_CROP, Flip()),
    "strong": (_CROP, Flip(), RandAugment(operations=2, magnitude=10), Cutout(side=0.4)),
    "rand-augment": (_CROP, Flip(), RandAugment()),
    "auto-augment-imagenet": (_CROP, Flip(), AutoAugment(policy="imagenet")),
    "weak-cifar": (_SHIFT, Flip()),
    "strong-cifar": (_SHIFT, Flip(), RandAugment(operations=2, magnitude=10), Cutout()),
    "auto-augment-cifar10": (_SHIFT, Flip(), AutoAugment(policy="cifar10"), Cutout()),
    "auto-augment-svhn": (AutoAugment(policy="svhn"), Cutout()),
    "cutout-cifar": (_SHIFT, Flip(), Cutout()),
    "multi-scale": (MultiScale(), Flip()),
    "mosaic": (Mosaic(), Flip()),
}

PRESETS = {name: Policy(name=name, operations=operations) for name, operations in _OPERATIONS.items()}

POLICY_FILES = (".yaml", ".yml")


def find_preset(name: str) -> Policy:
    """Return the policy of a name; raise BadInput with the names that there are."""
    if name not in PRESETS:
        raise BadInput(f"policy {name!r}: expected {', '.join(PRESETS)}, or a file *.yaml with operations")
    return PRESETS[name]
