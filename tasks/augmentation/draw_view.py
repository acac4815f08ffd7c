"""Draw what a policy does to an image: steps with every number in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import singledispatch

from labelmill.schemas.augmentation import (
    AutoAugment,
    ColorJitter,
    Cutout,
    Flip,
    Mosaic,
    MultiScale,
    PadCrop,
    Policy,
    RandAugment,
    RandomResizedCrop,
    Resize,
)
from labelmill.schemas.auto_augment import (
    AUTO_AUGMENT_LEVELS,
    FACTORS,
    RAND_AUGMENT_LEVELS,
    RAND_AUGMENT_OPERATIONS,
    SIGNED,
    SUB_POLICIES,
    TONES,
    WARPS,
    find_amount,
)
from labelmill.schemas.errors import BadInput
from labelmill.schemas.views import (
    AdjustStep,
    CropStep,
    CutoutStep,
    Filter,
    FlipStep,
    MosaicStep,
    MosaicTile,
    ResizeStep,
    Step,
    ToneStep,
    View,
    WarpStep,
)
from labelmill.tasks.augmentation.draws import Draws
from labelmill.tasks.augmentation.geometry import describe_view, frame_after

_CROP_TRIES = 10
"""As torchvision has it; then the middle is taken."""

PartnerSizes = Sequence[tuple[str, tuple[int, int]]]
"""Images that a mosaic may take, in a fixed order: their ids, and (width, height) in pixels."""


def draw_view(
    policy: Policy,
    *,
    seed: int,
    epoch: int,
    image_id: str,
    size: tuple[int, int],
    partners: PartnerSizes = (),
    digest: str | None = None,
) -> View:
    """Return the view that (policy, seed, epoch, image_id) gives of an image of `size` (width, height) in pixels.

    `partners` are the images that a mosaic draws from; `digest` is the policy's, where it is known. Raises BadInput
    when a mosaic has none.
    """
    steps = draw_steps(policy, seed=seed, epoch=epoch, image_id=image_id, size=size, partners=partners, digest=digest)
    return describe_view(steps, size)


def draw_steps(
    policy: Policy,
    *,
    seed: int,
    epoch: int,
    image_id: str,
    size: tuple[int, int],
    partners: PartnerSizes = (),
    digest: str | None = None,
) -> tuple[Step, ...]:
    """Return the steps of the view that `draw_view` gives, without what comes of them."""
    draws = Draws(digest or policy.digest(), seed, epoch, image_id)
    steps: list[Step] = []
    frame = size
    for operation in policy.operations:
        if isinstance(operation, Mosaic):
            made: list[Step] = [_draw_mosaic(operation, draws, size, partners)]
        else:
            made = list(_draw(operation, draws, frame))
        for step in made:
            frame = frame_after(step, frame)
        steps += made
    return tuple(steps)


@singledispatch
def _draw(operation: object, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    raise TypeError(f"no way to draw {type(operation).__name__}")


def _resize(frame: tuple[int, int], width: int, height: int) -> Iterator[ResizeStep]:
    if frame != (width, height):
        yield ResizeStep(width=width, height=height, filter=choose_filter(frame, (width, height)))


def choose_filter(before: tuple[int, int], after: tuple[int, int]) -> Filter:
    """Return the filter for a resize between two sizes: the mean over each pixel's area where nothing grows."""
    return "area" if after[0] <= before[0] and after[1] <= before[1] else "linear"


@_draw.register
def _(operation: RandomResizedCrop, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    left, top, width, height = _draw_crop(operation, draws, *frame)
    yield CropStep(left=left, top=top, width=width, height=height)
    yield from _resize((width, height), operation.size[1], operation.size[0])


def _draw_crop(operation: RandomResizedCrop, draws: Draws, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a part."""
    for _ in range(_CROP_TRIES):
        area = width * height * draws.between(*operation.scale)
        ratio = draws.log_between(*operation.ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return draws.below(width - w + 1), draws.below(height - h + 1), w, h
    least, largest = operation.ratio
    w, h = width, height
    if width / height < least:
        h = max(1, min(height, round(width / least)))
    elif width / height > largest:
        w = max(1, min(width, round(height * largest)))
    return (width - w) // 2, (height - h) // 2, w, h


@_draw.register
def _(operation: PadCrop, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    width, height = frame if operation.size is None else (operation.size[1], operation.size[0])
    lacking = max(width - frame[0], height - frame[1], 0)
    padding = max(operation.padding, (lacking + 1) // 2)  # a smaller image is padded until the view fits in
    left = draws.below(frame[0] + 2 * padding - width + 1)
    top = draws.below(frame[1] + 2 * padding - height + 1)
    yield CropStep(left=left, top=top, width=width, height=height, reflect=padding)


@_draw.register
def _(operation: Resize, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    yield from _resize(frame, operation.size[1], operation.size[0])


@_draw.register
def _(operation: MultiScale, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    scale = min(draws.choose(operation.short_sides) / min(frame), operation.long_side_max / max(frame))
    yield from _resize(frame, max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale)))


@_draw.register
def _(operation: Flip, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    if draws.chance(operation.p):
        yield FlipStep()


@_draw.register
def _(operation: ColorJitter, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    for name in draws.shuffle(("brightness", "contrast", "color")):
        reach = getattr(operation, name)
        yield AdjustStep.model_validate({"op": name, "amount": draws.between(1 - reach, 1 + reach)})


@_draw.register
def _(operation: RandAugment, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    for _ in range(operation.operations):
        name = draws.choose(RAND_AUGMENT_OPERATIONS)
        yield from _make_step(name, operation.magnitude, RAND_AUGMENT_LEVELS, operation, draws, frame)


@_draw.register
def _(operation: AutoAugment, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    for name, p, level in draws.choose(SUB_POLICIES[operation.policy]):
        if draws.chance(p):
            yield from _make_step(name, level, AUTO_AUGMENT_LEVELS, operation, draws, frame)


def _make_step(
    name: str, level: int, levels: int, operation: RandAugment | AutoAugment, draws: Draws, frame: tuple[int, int]
) -> Iterator[Step]:
    """Yield the step of an operation at a magnitude, none for identity."""
    if name == "identity":
        return
    if name in TONES:
        yield ToneStep.model_validate({"op": name})
        return
    amount = find_amount(name, level, levels, width=frame[0], height=frame[1])
    if name in SIGNED and draws.chance(0.5):
        amount = -amount
    if name in FACTORS:
        yield AdjustStep.model_validate({"op": name, "amount": 1 + amount})
    elif name in WARPS:
        yield WarpStep.model_validate(
            {"op": name, "amount": amount, "fill": operation.fill, "filter": operation.filter}
        )
    else:
        yield AdjustStep.model_validate({"op": name, "amount": amount})


@_draw.register
def _(operation: Cutout, draws: Draws, frame: tuple[int, int]) -> Iterator[Step]:
    if not draws.chance(operation.p):
        return
    side = max(1, round(operation.side * min(frame)))
    x, y = draws.below(frame[0]), draws.below(frame[1])
    left, top = max(0, x - side // 2), max(0, y - side // 2)
    right, bottom = min(frame[0], x - side // 2 + side), min(frame[1], y - side // 2 + side)
    yield CutoutStep(left=left, top=top, width=right - left, height=bottom - top, fill=operation.fill)


def _draw_mosaic(operation: Mosaic, draws: Draws, size: tuple[int, int], partners: PartnerSizes) -> MosaicStep:
    if not partners:
        raise BadInput("mosaic: needs other images to draw from; it is made by the flow or a dataset of images")
    height, width = operation.size
    x = min(max(round(width * draws.between(*operation.centre)), 1), width - 1)
    y = min(max(round(height * draws.between(*operation.centre)), 1), height - 1)
    chosen: list[tuple[str | None, tuple[int, int]]] = [(None, size), *(draws.choose(partners) for _ in range(3))]
    quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    tiles = [
        _fit_tile(image_id, tile_size, quarter)
        for (image_id, tile_size), quarter in zip(draws.shuffle(chosen), quarters, strict=True)
    ]
    return MosaicStep(width=width, height=height, filter="linear", tiles=tuple(tiles))


def _fit_tile(image_id: str | None, size: tuple[int, int], quarter: tuple[int, int, int, int]) -> MosaicTile:
    """Make an image just cover its quarter; the corner at the mosaic's middle is the image's own."""
    left, top, right, bottom = quarter
    width, height = right - left, bottom - top
    scale = max(width / size[0], height / size[1])
    scaled_width, scaled_height = max(width, round(size[0] * scale)), max(height, round(size[1] * scale))
    return MosaicTile(
        image_id=image_id, left=left, top=top, width=width, height=height,
        skip_left=scaled_width - width if left == 0 else 0, skip_top=scaled_height - height if top == 0 else 0,
        scaled_width=scaled_width, scaled_height=scaled_height,
    )  # fmt: skip
