"""How fast views are made, against torchvision v2 with the same policy, in one process with one thread each.

    python tests/bench/augment_speed.py [--images 200] [--rounds 7]

Images are decoded before: 500x375 pixels, smooth colours with noise, or the short256 sample images where
LABELMILL_SAMPLE_DATA names their folder. Both sides start from uint8 pixels, end at uint8 pixels of 224x224 and draw
their own numbers; ours also keeps them as steps. torchvision works on tensors and on PIL images; both are measured.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision.transforms import v2

from labelmill.schemas.policy_presets import PRESETS
from labelmill.tasks.augmentation.apply_view import apply_to_pixels
from labelmill.tasks.augmentation.pixel_ops import Pixels
from labelmill.tasks.augmentation.recorded_views import DrawnViews

SIZE = 224
GREY = 128
THEIRS = {
    "weak": [],
    "rand-augment": [v2.RandAugment(2, 9, fill=GREY)],
    "auto-augment-imagenet": [v2.AutoAugment(fill=GREY)],
    "strong": [v2.RandAugment(2, 10, fill=GREY)],
}


def load_images(count: int) -> list[Pixels]:
    """Return decoded images (H, W, 3)."""
    data = os.environ.get("LABELMILL_SAMPLE_DATA")
    if data:
        rows = pq.read_table(Path(data, "imagenet/sample1000_short256.parquet"), columns=["image"])["image"]
        return [np.asarray(Image.open(io.BytesIO(one.as_py())).convert("RGB")) for one in rows[:count]]
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
        images.append((smooth + random.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8))
    return images


def make_peer(policy: str, *, tensors: bool) -> Callable[[Any], Any]:
    """Return torchvision's transform; its square that erases a part takes tensors alone."""
    steps = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip(), *THEIRS[policy]]
    if policy == "strong":
        side = 0.4**2
        erase = v2.RandomErasing(p=1, scale=(side, side), ratio=(1, 1), value=GREY)
        steps += [erase] if tensors else [v2.PILToTensor(), erase]
    return v2.Compose(steps)


def time_all(work: Callable[[Any], Any], images: Sequence[Any]) -> float:
    """Return the seconds of CPU time for all images."""
    started = time.process_time()
    for image in images:
        work(image)
    return time.process_time() - started


def main() -> None:
    """Read the command line, measure in turn and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = load_images(options.images)
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous() for image in images]
    pictures = [Image.fromarray(image) for image in images]
    print(f"{len(images)} images, {options.rounds} alternating rounds, medians; views for each second of CPU time\n")
    print("| policy | labelmill | of it drawing | torchvision, tensors | torchvision, PIL | against the faster |")
    print("|---|---|---|---|---|---|")
    for policy in THEIRS:
        views = DrawnViews(PRESETS[policy], seed=0)
        turn = [0]

        def draw(image: Pixels, views: DrawnViews = views, turn: list[int] = turn) -> Any:
            turn[0] += 1
            return views.view(epoch=turn[0], image_id="a.jpg", size=(image.shape[1], image.shape[0]))

        def ours(image: Pixels, draw: Callable[[Pixels], Any] = draw) -> Pixels:
            return apply_to_pixels(image, draw(image).steps)

        work = {
            "ours": (ours, images), "drawing": (draw, images),
            "tensors": (make_peer(policy, tensors=True), tensors), "PIL": (make_peer(policy, tensors=False), pictures),
        }  # fmt: skip
        for function, given in work.values():
            time_all(function, given[:20])
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(options.rounds):
            for name, (function, given) in work.items():
                times[name].append(time_all(function, given))
        seconds = {name: statistics.median(measured) for name, measured in times.items()}
        faster = min(("tensors", "PIL"), key=seconds.__getitem__)
        ratio = statistics.median(a / b for a, b in zip(times[faster], times["ours"], strict=True))
        rates = {name: f"{len(images) / value:,.0f}" for name, value in seconds.items()}
        share = seconds["drawing"] / seconds["ours"]
        print(
            f"| {policy} | {rates['ours']} | {share:.0%} | {rates['tensors']} | {rates['PIL']} | {ratio:.2f} times |",
            flush=True,
        )


if __name__ == "__main__":
    main()
