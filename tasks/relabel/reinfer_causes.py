"""Find what went wrong with label maps: relabel under the likely mistakes and see which of them agrees best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from labelmill.models.preprocessing import Preprocessing, Triple
from labelmill.tasks.images.decode_image import decode_rgb
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.progress import ProgressMeter
from labelmill.tasks.relabel.engine import use_one_core
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.stop import check_stop

Ids = npt.NDArray[np.integer]

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0.5 and std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "CLIP's mean and std": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "pixels from 0 to 1, no mean and std": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "pixels from 0 to 255, not scaled": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Mean and std, by channel, in units of [0, 1], that pretrained classifiers come with."""

CROP_SHARES = {
    "a centre crop of 87.5 % of the short side": 0.875,  # resize to 256, crop 224
    "a centre crop of the short side": 1.0,
}

_FILTERS = {f.name.lower(): f for f in Image.Resampling}
_PLAIN_FILTERS = {"bilinear without antialiasing": "bilinear", "bicubic without antialiasing": "bicubic"}

AS_RECORDED = ""

LAYOUTS: dict[str, Callable[[Ids], Ids]] = {
    AS_RECORDED: lambda ids: ids,
    "swapped axes (y and x exchanged)": lambda ids: ids.T,
    "maps mirrored left to right": lambda ids: ids[:, ::-1],
    "maps upside down": lambda ids: ids[::-1],
}
"""How the cells (H, W) of a right map may have been laid down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A way from a picture to a teacher's input; `said` names the mistake.

    `crop` is the share of the largest centred box of the input's shape that is kept.
    """

    said: str
    mean: Triple
    std: Triple
    interpolation: str
    bgr: bool = False
    flipped: bool = False
    crop: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """A mistake, and the share of cells whose stored top class is what it would have given."""

    said: str
    same_top: float


def list_views(recorded: Preprocessing, own: Preprocessing | None = None) -> list[View]:
    """Return the recorded way, first, and the likely mistakes; `own` is a teacher's preprocessing beside it."""
    right = View(said=AS_RECORDED, mean=recorded.mean, std=recorded.std, interpolation=recorded.interpolation)
    views = [right]
    if own is not None:
        views.append(
            View(said="the teacher's own preprocessing", mean=own.mean, std=own.std, interpolation=own.interpolation)
        )
    views += [
        replace(right, said=f"another normalisation ({said})", mean=mean, std=std)
        for said, (mean, std) in NORMALISATIONS.items()
        if (mean, std) != (recorded.mean, recorded.std)
    ]
    views.append(replace(right, said="BGR order", bgr=True))
    views.append(replace(right, said="images flipped left to right", flipped=True))
    views += [replace(right, said=said, crop=share) for said, share in CROP_SHARES.items()]
    views += [
        replace(right, said=f"another interpolation ({name})", interpolation=name)
        for name in (*_FILTERS, *_PLAIN_FILTERS)
        if name != recorded.interpolation
    ]
    return views


def rank_causes(
    files: Sequence[ImageToLabel],
    stored_top: Sequence[Ids],
    views: Sequence[View],
    *,
    model: nn.Module,
    input_size: tuple[int, int],
    max_pixels: int,
    workers: int,
) -> list[Cause]:
    """Return every pair of a view and a layout as a cause, the one that agrees best with the stored maps first.

    stored_top: for each file (H*W,) the stored top class ids. Files that cannot be read any more are left out.
    """
    meter = ProgressMeter("images to find the cause", len(files))

    def agree(file: ImageToLabel, stored: Ids) -> npt.NDArray[np.float64] | None:
        check_stop()
        use_one_core()
        try:
            picture = decode_rgb(read_bytes(file.path, max_bytes=file.bytes), max_pixels=max_pixels)
        except RejectedImage:  # it was there a moment ago, and is counted where it was relabelled
            return None
        inputs = torch.stack([make_input(picture, view, input_size) for view in views])
        with torch.inference_mode():
            tops = model(inputs).argmax(1).numpy()
        meter.add(done=1)
        return np.array([[np.mean(layout(top).ravel() == stored) for layout in LAYOUTS.values()] for top in tops])

    with ThreadPoolExecutor(workers, thread_name_prefix="cause") as threads:
        shares = [share for share in threads.map(agree, files, stored_top) if share is not None]
    meter.finish()
    mean = np.mean(shares, axis=0) if shares else np.zeros((len(views), len(LAYOUTS)))
    causes = [
        Cause(said=" and ".join(filter(None, (view.said, layout))), same_top=float(mean[at, place]))
        for at, view in enumerate(views)
        for place, layout in enumerate(LAYOUTS)
    ]
    return sorted(causes, key=lambda cause: -cause.same_top)


def make_input(picture: Image.Image, view: View, size: tuple[int, int]) -> Tensor:
    """Return (3, H, W) float32 of a picture in RGB, as a view makes it; `size` is (H, W)."""
    pixels = torch.from_numpy(_resize(picture, view, size)).float()
    if view.flipped:
        pixels = pixels.flip(1)
    if view.bgr:
        pixels = pixels.flip(2)  # mean and std stay: whoever mixes the order up does not turn them round
    return ((pixels / 255 - torch.tensor(view.mean)) / torch.tensor(view.std)).permute(2, 0, 1)


def _resize(picture: Image.Image, view: View, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    box = (0.0, 0.0, float(picture.width), float(picture.height))
    if view.crop is not None:
        scale = min(picture.width / width, picture.height / height) * view.crop / 2
        x, y = picture.width / 2, picture.height / 2
        box = (x - scale * width, y - scale * height, x + scale * width, y + scale * height)
    if view.interpolation in _FILTERS:
        return np.array(picture.resize((width, height), _FILTERS[view.interpolation], box=box))
    planes = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    resized = nn.functional.interpolate(planes, size, mode=_PLAIN_FILTERS[view.interpolation], align_corners=False)
    whole: npt.NDArray[np.uint8] = resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return whole
