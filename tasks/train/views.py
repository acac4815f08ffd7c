"""Views of training images: the policy of a stream, made to fit the student's input."""

from __future__ import annotations

import numpy as np

from labelmill.schemas.augmentation import Policy, RandomResizedCrop, Resize
from labelmill.schemas.errors import BadInput
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.augmentation.recorded_views import DrawnViews
from labelmill.tasks.images.decode_image import Pixels
from labelmill.tasks.train.pixels import CHANNELS

Box = tuple[float, float, float, float]

SMALL_SIZE_PX = 64
"""Up to here `auto` means the policies made for CIFAR's images: padded crops rather than resized ones."""


class FittedViews:
    """Views of `size` pixels in both directions, by (policy, seed, epoch, image id)."""

    def __init__(self, policy: str, *, auto: str, size: int, seed: int, field: str) -> None:
        """Set up; raise BadInput, naming `field`, for a policy that is none or whose views have other sizes."""
        named = read_policy((auto if size > SMALL_SIZE_PX else f"{auto}-cifar") if policy == "auto" else policy)
        self.policy = fit_policy(named, size)
        self._views, self._size = DrawnViews(self.policy, seed=seed), size
        tried = self.make(np.zeros((size + 7, size + 3, CHANNELS), np.uint8), epoch=0, image_id="")
        if tried.shape[:2] != (size, size):
            came = "x".join(map(str, tried.shape[:2]))
            raise BadInput(f"{field}: expected views of {size}x{size} pixels, {named.name!r} gives {came}")

    def make(self, pixels: Pixels, *, epoch: int, image_id: str) -> Pixels:
        """Return the view of an image (H, W, 3) uint8 in an epoch, (S, S, 3) uint8."""
        steps = self._views.steps(epoch=epoch, image_id=image_id, size=(pixels.shape[1], pixels.shape[0]))
        return apply_to_pixels(pixels, steps)

    def make_with_box(self, pixels: Pixels, *, epoch: int, image_id: str) -> tuple[Pixels, Box]:
        """Return the view and what it shows of the image, x1 y1 x2 y2 in [0, 1]."""
        view = self._views.view(epoch=epoch, image_id=image_id, size=(pixels.shape[1], pixels.shape[0]))
        assert view.box is not None  # noqa: S101 - only a mosaic has none, which DrawnViews refuses
        return apply_to_pixels(pixels, view.steps), view.box


def fit_policy(policy: Policy, size: int) -> Policy:
    """Return a policy whose resized crops have `size` pixels; without any, the whole image is resized first."""
    operations = [
        operation.model_copy(update={"size": (size, size)}) if isinstance(operation, RandomResizedCrop) else operation
        for operation in policy.operations
    ]
    if not any(isinstance(operation, RandomResizedCrop | Resize) for operation in operations):
        operations.insert(0, Resize(size=(size, size)))
    return policy.model_copy(update={"operations": tuple(operations)})
