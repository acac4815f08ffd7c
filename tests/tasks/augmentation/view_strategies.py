"""What the tests of augmentation share: strategies of policies, views and boxes."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

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

quick = settings(max_examples=40, deadline=None)

sides = st.integers(1, 70)
sizes = st.tuples(sides, sides)

operations = st.one_of(
    st.builds(RandomResizedCrop, size=sizes, scale=st.sampled_from([(0.08, 1.0), (0.5, 0.5), (0.01, 0.02)])),
    st.builds(PadCrop, padding=st.integers(0, 12), size=st.none() | sizes),
    st.builds(Resize, size=sizes),
    st.builds(MultiScale, short_sides=st.lists(sides, min_size=1, max_size=3).map(tuple), long_side_max=st.just(90)),
    st.builds(Flip),
    st.builds(ColorJitter),
    st.builds(
        RandAugment, operations=st.integers(0, 4), magnitude=st.integers(0, 30),
        filter=st.sampled_from(["nearest", "linear"]),
    ),
    st.builds(AutoAugment, policy=st.sampled_from(["imagenet", "cifar10", "svhn"])),
    st.builds(Cutout, side=st.floats(0.01, 1)),
)  # fmt: skip

single_image_policies = st.lists(operations, max_size=5).map(lambda made: Policy(operations=tuple(made)))

mosaics = st.builds(Mosaic, size=st.tuples(st.integers(2, 80), st.integers(2, 80)))

policies = single_image_policies | st.tuples(mosaics, st.lists(operations, max_size=3)).map(
    lambda made: Policy(operations=(made[0], *made[1]))
)

keys = st.fixed_dictionaries({
    "seed": st.integers(-(2**63), 2**63 - 1), "epoch": st.integers(0, 2**31 - 1), "image_id": st.text(max_size=12),
})  # fmt: skip


@st.composite
def boxes_in(draw, size):
    """(n, 4) float64 x1 y1 x2 y2 in an image of a (width, height)."""
    count = draw(st.integers(0, 5))
    made = []
    for _ in range(count):
        xs = sorted(draw(st.tuples(st.floats(0, size[0]), st.floats(0, size[0]))))
        ys = sorted(draw(st.tuples(st.floats(0, size[1]), st.floats(0, size[1]))))
        made.append((xs[0], ys[0], xs[1], ys[1]))
    return np.array(made, np.float64).reshape(-1, 4)


def noise(size, seed=0):
    """(H, W, 3) uint8 of a (width, height)."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
