"""A dataset of images for a trainer, each as the view that a policy gives of it in the epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from labelmill.models.crops import Crop
from labelmill.schemas.augmentation import Policy
from labelmill.schemas.errors import BadInput
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.pixel_ops import Pixels, use_one_thread
from labelmill.tasks.augmentation.read_policy import read_policy
from labelmill.tasks.augmentation.recorded_views import DrawnViews, ViewSource


class AugmentedImages(Dataset[tuple[Any, ...]]):
    """The items of a dataset, each image as a `Crop`: its view, the box of what is in sight, whether it is mirrored.

    A view depends on (policy, seed, epoch, image id) alone, so that no order, sampler or number of workers changes it.
    Call `set_epoch` before each epoch; workers that live on see it too. The label of a view is pooled over its box.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - whatever has items
        policy: str | Policy | ViewSource,
        *,
        seed: int = 0,
        ids: Sequence[str] | None = None,
        then: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        """Set up; raise BadInput for a policy that is none, has a mosaic, or when the images' ids cannot be told.

        dataset: items (image, …), where the image is PIL's or (H, W, 3) uint8, decoded and nothing else; policy: a
        preset's name, a YAML file, a Policy, or RecordedViews; ids: of the items, by default their paths below the
        dataset's `root`, as an ingest of it names them; then: applied to the view, a PIL image: it may change colours
        but not move pixels. OpenCV has one thread in this process from here on.
        """
        found = read_policy(policy) if isinstance(policy, str) else policy
        self.views: ViewSource = DrawnViews(found, seed=seed) if isinstance(found, Policy) else found
        self.dataset = dataset
        self.ids = _find_ids(dataset) if ids is None else list(ids)
        if len(self.ids) != len(dataset):
            raise BadInput(f"ids: expected one for each of {len(dataset)} items, got {len(self.ids)}")
        self.then = then
        use_one_thread()  # here, not in a worker that is forked later
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def samples(self) -> list[Any]:
        """The files of the items with their classes, as torchvision's folders have them: `WithRows` looks there."""
        return list(getattr(self.dataset, "samples", None) or self.dataset.imgs)

    @property
    def epoch(self) -> int:
        """The epoch that items are views of."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Give the views of an epoch from the next item on, in this process and in its workers."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        if get_worker_info() is not None:
            use_one_thread()  # in a worker that was spawned
        item = self.dataset[place]
        image, rest = (item[0], item[1:]) if isinstance(item, tuple) else (item, ())
        pixels = _as_pixels(image)
        size = (pixels.shape[1], pixels.shape[0])
        view = self.views.view(epoch=self.epoch, image_id=self.ids[place], size=size)
        if view.box is None:
            raise BadInput(f"{self.ids[place]}: a mosaic shows no part of one image that a label could be pooled over")
        picture = Image.fromarray(apply_to_pixels(pixels, view.steps))
        shown = picture if self.then is None else self.then(picture)
        return (Crop(image=shown, box=torch.tensor(view.box), flipped=view.flipped), *rest)


def _as_pixels(image: Any) -> Pixels:  # noqa: ANN401 - checked here
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        return image
    raise BadInput(f"image: expected one of PIL or an array (H, W, 3) uint8, got {type(image).__name__}")


def _find_ids(dataset: Any) -> list[str]:  # noqa: ANN401 - whatever has items
    samples, root = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None), getattr(dataset, "root", None)
    if samples is None or root is None:
        raise BadInput(f"dataset: expected one with root and samples, got {type(dataset).__name__}; give ids")
    top = os.path.join(os.fspath(root), "")
    paths = [os.fspath(path) for path, *_ in samples]
    if strange := next((path for path in paths if not path.startswith(top)), None):
        raise BadInput(f"dataset: {strange} does not lie in its root {root}; give ids")
    return [path[len(top) :].replace(os.sep, "/") for path in paths]
