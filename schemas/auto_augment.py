"""The operations of AutoAugment and RandAugment, their magnitudes, and the published policies.

Source: Cubuk et al. 2019, AutoAugment, table 6 and the policies of the appendix; Cubuk et al. 2020, RandAugment.
Magnitudes become amounts as torchvision has them, where colours too are changed in both directions.
"""

from __future__ import annotations

from typing import Literal

PolicyName = Literal["cifar10", "imagenet", "svhn"]

SIGNED = frozenset(
    {
        "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
    }
)  # fmt: skip
"""Operations whose direction is drawn."""

WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
FACTORS = ("brightness", "color", "contrast", "sharpness")
TONES = ("auto_contrast", "equalize", "invert")

RAND_AUGMENT_OPERATIONS = ("identity", *WARPS, *FACTORS, "posterize", "solarize", "auto_contrast", "equalize")
RAND_AUGMENT_LEVELS = 31
AUTO_AUGMENT_LEVELS = 10

SHEAR_MAX = 0.3
ROTATION_MAX_DEGREES = 30.0
FACTOR_CHANGE_MAX = 0.9
POSTERIZE_BITS_LOST_MAX = 4
TRANSLATION_MAX = 150 / 331
"""Of the frame's width or height: 150 pixels of the 331 that ImageNet's policy was searched at."""


def find_amount(operation: str, level: int, levels: int, *, width: int, height: int) -> float:
    """Return what a magnitude, level 0 to levels − 1, means for an operation on a frame of pixels; without sign.

    Of brightness and its like it is the change of the factor, of the others the amount of their step.
    """
    share = level / (levels - 1)
    if operation in FACTORS:
        return FACTOR_CHANGE_MAX * share
    if operation.startswith("shear"):
        return SHEAR_MAX * share
    if operation.startswith("translate"):
        return float(int(TRANSLATION_MAX * share * (width if operation == "translate_x" else height)))
    if operation == "rotate":
        return ROTATION_MAX_DEGREES * share
    if operation == "posterize":
        return float(8 - round(POSTERIZE_BITS_LOST_MAX * share))
    return 255.0 * (1 - share)  # solarize


Use = tuple[str, float, int]
"""Operation, probability and magnitude, 0 to 9; operations without magnitude have 0."""

_IMAGENET = """
posterize .4 8 rotate .6 9 | solarize .6 5 auto_contrast .6 0 | equalize .8 0 equalize .6 0
posterize .6 7 posterize .6 6 | equalize .4 0 solarize .2 4 | equalize .4 0 rotate .8 8
solarize .6 3 equalize .6 0 | posterize .8 5 equalize 1 0 | rotate .2 3 solarize .6 8
equalize .6 0 posterize .4 6 | rotate .8 8 color .4 0 | rotate .4 9 equalize .6 0
equalize 0 0 equalize .8 0 | invert .6 0 equalize 1 0 | color .6 4 contrast 1 8
rotate .8 8 color 1 2 | color .8 8 solarize .8 7 | sharpness .4 7 invert .6 0
shear_x .6 5 equalize 1 0 | color .4 0 equalize .6 0 | equalize .4 0 solarize .2 4
solarize .6 5 auto_contrast .6 0 | invert .6 0 equalize 1 0 | color .6 4 contrast 1 8
equalize .8 0 equalize .6 0
"""

_CIFAR10 = """
invert .1 0 contrast .2 6 | rotate .7 2 translate_x .3 9 | sharpness .8 1 sharpness .9 3
shear_y .5 8 translate_y .7 9 | auto_contrast .5 0 equalize .9 0 | shear_y .2 7 posterize .3 7
color .4 3 brightness .6 7 | sharpness .3 9 brightness .7 9 | equalize .6 0 equalize .5 0
contrast .6 7 sharpness .6 5 | color .7 7 translate_x .5 8 | equalize .3 0 auto_contrast .4 0
translate_y .4 3 sharpness .2 6 | brightness .9 6 color .2 8 | solarize .5 2 invert 0 0
equalize .2 0 auto_contrast .6 0 | equalize .2 0 equalize .6 0 | color .9 9 equalize .6 0
auto_contrast .8 0 solarize .2 8 | brightness .1 3 color .7 0 | solarize .4 5 auto_contrast .9 0
translate_y .9 9 translate_y .7 9 | auto_contrast .9 0 solarize .8 3 | equalize .8 0 invert .1 0
translate_y .7 9 auto_contrast .9 0
"""

_SVHN = """
shear_x .9 4 invert .2 0 | shear_y .9 8 invert .7 0 | equalize .6 0 solarize .6 6
invert .9 0 equalize .6 0 | equalize .6 0 rotate .9 3 | shear_x .9 4 auto_contrast .8 0
shear_y .9 8 invert .4 0 | shear_y .9 5 solarize .2 6 | invert .9 0 auto_contrast .8 0
equalize .6 0 rotate .9 3 | shear_x .9 4 solarize .3 3 | shear_y .8 8 invert .7 0
equalize .9 0 translate_y .6 6 | invert .9 0 equalize .6 0 | contrast .3 3 rotate .8 4
invert .8 0 translate_y 0 2 | shear_y .7 6 solarize .4 8 | invert .6 0 rotate .8 4
shear_y .3 7 translate_x .9 3 | shear_x .1 6 invert .6 0 | solarize .7 2 translate_y .6 7
shear_y .8 4 invert .8 0 | shear_x .7 9 translate_y .8 3 | shear_y .8 5 auto_contrast .7 0
shear_x .7 2 invert .1 0
"""


def _read(table: str) -> tuple[tuple[Use, Use], ...]:
    pairs = []
    for pair in table.strip().replace("\n", " | ").split(" | "):
        one, p, level, other, q, other_level = pair.split()
        pairs.append(((one, float(p), int(level)), (other, float(q), int(other_level))))
    return tuple(pairs)


SUB_POLICIES: dict[str, tuple[tuple[Use, Use], ...]] = {
    "cifar10": _read(_CIFAR10), "imagenet": _read(_IMAGENET), "svhn": _read(_SVHN),
}  # fmt: skip
"""Of each policy 25 pairs, one of which is drawn for a view."""
