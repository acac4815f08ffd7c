"""How fast batches of training are made and steps are taken, against the script a user would write, in one run.

    LABELMILL_SAMPLE_DATA=… python tests/bench/train_speed.py [--rounds 3] [--photos 960]

photos: JPEGs of ImageNet (the sample's, else smooth noise of 500 x 375 pixels), as ImageFolder with RandomResizedCrop
and a flip in a DataLoader, and as the flow's streams with the policy `weak`, both in this process and at 224 pixels;
between them the bound: the engine's decoder alone. small: 2,000 PNGs of 32 pixels, a weak and a
strong view of each, by torchvision's v2 (padded crop, flip, RandAugment, erasing) and by `weak-cifar` and
`strong-cifar`. steps: UDA's steps of conv4 on batches that are ready, in a plain loop of torch and in ours.

Seconds are CPU time of this process, which does all the work: on a machine that others share, the wall time of a
worker moved by a factor of two between rounds. Rounds alternate, medians count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from labelmill.models.small_networks import conv4
from labelmill.schemas.parameters import IngestFolderParameters, TrainParameters
from labelmill.tasks.images.decode_image import decode_ingested
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.train.batches import StepBatches, load_batches
from labelmill.tasks.train.job import open_accelerator
from labelmill.tasks.train.learners import build_batches, build_objective
from labelmill.tasks.train.loop import TrainingLoop
from labelmill.tasks.train.measure import normalise_batch
from labelmill.tasks.train.plan import TrainingPlan, plan_training

BATCH = 32


def make_photos(folder: Path, count: int) -> None:
    """Write JPEGs into four folders of classes."""
    data = os.environ.get("LABELMILL_SAMPLE_DATA")
    rows = (
        pq.read_table(Path(data, "imagenet/sample1000_short256.parquet"), columns=["image"])["image"] if data else None
    )
    random = np.random.default_rng(0)
    for place in range(count):
        path = folder / str(place % 4) / f"{place:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if rows is not None:
            path.write_bytes(rows[place].as_py())
            continue
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def make_small(folder: Path, count: int) -> None:
    """Write PNGs of 32 pixels into ten folders of classes."""
    random = np.random.default_rng(0)
    for place in range(count):
        path = folder / str(place % 10) / f"{place:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(path)


def plan(root: Path, name: str, **given: Any) -> TrainingPlan:
    """Ingest a folder once and plan a training on it."""
    store = root / "store"
    for dataset in (name, f"{name}_test"):
        ingest = IngestFolderParameters(store=str(store), dataset=dataset, split="train", source=str(root / name))
        run = prepare_folder(ingest)
        commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
    return plan_training(
        TrainParameters(
            store=str(store),
            dataset=name,
            eval_dataset=f"{name}_test",
            student="conv4",
            steps=10**6,
            batch_size=BATCH,
            out=str(root / "out"),
            **given,
        )
    )


class TwoViews:
    """What a user writes: a weak and a strong view of each image."""

    def __init__(self) -> None:
        weak = [v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
        self.weak = v2.Compose([*weak, v2.PILToTensor()])
        erase = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1), value=128)
        self.strong = v2.Compose([*weak, v2.RandAugment(2, 10, fill=128), v2.PILToTensor(), erase])

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both views."""
        return self.weak(image), self.strong(image)


def time_batches(batches: Iterable[Any], count: int, images: int) -> float:
    """Return images a second of CPU time, of `count` batches after two to warm up."""
    found = iter(batches)
    for _ in range(2):
        next(found)
    began = time.process_time()
    for _ in range(count):
        next(found)
    return count * images / (time.process_time() - began)


def time_decoding(folder: Path) -> float:
    """Return images a second of the engine's decoder alone, by this process's CPU time."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    began = time.process_time()
    for content in contents:
        decode_ingested(content, format="jpeg", mode="RGB", max_pixels=10**9)
    return len(contents) / (time.process_time() - began)


def ours(made: StepBatches, start: int, count: int) -> Iterable[Any]:
    """Return the flow's batches from a step on: `count`, and two before."""
    return load_batches(made, start=start, stop=start + count + 2, workers=0, pin=False)


def time_plain_steps(raw: dict[str, torch.Tensor], given: TrainingPlan, count: int) -> float:
    """Return CPU seconds of a step of UDA as a script has it."""
    torch.manual_seed(0)
    model = conv4(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    began = 0.0
    for step in range(count + 2):
        if step == 2:
            began = time.process_time()
        images, weak, strong = (
            normalise_batch(raw[name], given.student.preprocessing) for name in ("images", "weak", "strong")
        )
        with torch.no_grad():
            target = model(weak).softmax(1)
        logits = model(torch.cat([images, strong]))
        mask = target.max(1).values > 0.8
        sharp = (target.log() / 0.4).softmax(1)
        divergence = F.kl_div(logits[BATCH:].log_softmax(1), sharp, reduction="none").sum(1)
        loss = F.cross_entropy(logits[:BATCH], raw["labels"]) + (divergence * mask).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
    return (time.process_time() - began) / count


def time_our_steps(raw: dict[str, torch.Tensor], given: TrainingPlan, count: int) -> float:
    """Return CPU seconds of a step of the loop."""
    accelerator = open_accelerator(given.parameters)
    loop = TrainingLoop(given, build_objective(given, accelerator), accelerator)
    began = 0.0
    for step in range(count + 2):
        if step == 2:
            began = time.process_time()
        loop._step(raw, step)
    return (time.process_time() - began) / count


def show(what: str, rates: dict[str, list[float]], unit: str) -> None:
    """Print medians and their ratios to the first one."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians.values()))
    print(f"\n| {what} | {unit} | ratio |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:,.4g} | {value / first:.2f} |")


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=960)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_photos(root / "photos", asked.photos)
        make_small(root / "small", 2000)
        from_files = plan(root, "photos", input_size=224, cache_mb=0, weak_policy="weak")
        small = plan(root, "small", objective="uda", input_size=32, labels_per_class=20)
        photo_batches, small_batches = build_batches(from_files)[0], build_batches(small)[0]
        crop = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        script = {
            "photos": DataLoader(ImageFolder(root / "photos", crop), BATCH, shuffle=True),
            "small": DataLoader(ImageFolder(root / "small", TwoViews()), 7 * BATCH, shuffle=True),
        }
        photos: dict[str, list[float]] = {"ImageFolder and torchvision": [], "labelmill": [], "decoding alone": []}
        views: dict[str, list[float]] = {"ImageFolder and torchvision": [], "labelmill": []}
        steps: dict[str, list[float]] = {"a plain loop": [], "labelmill": []}
        raw = small_batches[0]
        for turn in range(asked.rounds):
            count = asked.photos // BATCH - 3
            photos["ImageFolder and torchvision"].append(time_batches(script["photos"], count, BATCH))
            photos["labelmill"].append(time_batches(ours(photo_batches, 1000 * turn, count), count, BATCH))
            photos["decoding alone"].append(time_decoding(root / "photos"))
            views["ImageFolder and torchvision"].append(time_batches(script["small"], 6, 2 * 7 * BATCH))
            views["labelmill"].append(time_batches(ours(small_batches, 1000 * turn, 6), 6, 15 * BATCH))
            steps["a plain loop"].append(1 / time_plain_steps(raw, small, 12))
            steps["labelmill"].append(1 / time_our_steps(raw, small, 12))
    show("photos to crops of 224 pixels", photos, "images/s of one core")
    show("32 pixels, weak and strong views", views, "views/s of one core")
    show("UDA's steps of conv4, 32 + 2 x 224 images", steps, "steps/s of one core")


if __name__ == "__main__":
    main()
