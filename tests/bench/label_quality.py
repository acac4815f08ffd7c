"""How good stored labels are, in every pooling mode, at two sizes: a table in Markdown.

Whole images: top-1, mean −ln p of the label, median top probability. Random crops: total variation from the dense
pooled label (at T = 1, and at the mode's own temperature) and agreement in top-1. The temperature is fitted on some
images, everything is reported on the others. Needs the sample data (LABELMILL_SAMPLE_DATA).

    python tests/bench/label_quality.py [--sizes 224 475] [--images 1000] [--every 1]
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align

from labelmill.models.label_encoding import LOGIT_STEP, EncodedMap, encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import ABSENT_SHARE, pool_logits
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.models.temperature import fit_temperature
from labelmill.tasks.relabel.load import normalise

TOP_K = 5
CROPS = 4
FITTED_ON = 256
FINE_STEPS = (1 / 512, 1 / 100)  # as good as exact beside the stored step: for logits, and for absent means


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One image: its stored map, and the dense pooled logits of the whole image and of some crops."""

    label: int
    map: EncodedMap
    fine: tuple[EncodedMap, EncodedMap]
    whole: Tensor
    crops: Tensor
    boxes: Tensor
    native: Tensor


def read_samples(folder: Path, count: int, every: int) -> list[tuple[bytes, int]]:
    """Return (encoded image, label) of the sample images."""
    rows = pq.read_table(folder / "imagenet" / "sample1000_short256.parquet", columns=["image", "label"])
    return [(r["image"], r["label"]) for r in rows.to_pylist()[:count:every]]


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Return (count, 4) boxes as torchvision's RandomResizedCrop draws them, in [0, 1] of a square."""
    boxes = []
    while len(boxes) < count:
        area, ratio = torch.rand(2, generator=generator).tolist()
        area, ratio = 0.08 + 0.92 * area, math.exp((2 * ratio - 1) * math.log(4 / 3))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width > 1 or height > 1:
            continue
        left, top = torch.rand(2, generator=generator).tolist()
        left, top = left * (1 - width), top * (1 - height)
        boxes.append([left, top, left + width, top + height])
    return torch.tensor(boxes)


def pixels(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode and resize the whole image."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))


@torch.inference_mode()
def measure(teacher: Teacher, data: bytes, label: int, size: int, seed: int) -> Measured:
    """Label one image densely and as it is stored."""
    torch.set_num_threads(1)
    dense = teacher.model(normalise([pixels(data, (size, size))], teacher))
    boxes = random_boxes(CROPS, torch.Generator().manual_seed(seed))
    height, width = dense.shape[2:]
    scale = torch.tensor([width, height, width, height])
    rois = torch.cat([torch.zeros(CROPS, 1), boxes * scale - 0.5], 1)
    native = teacher.classifier_logits(normalise([pixels(data, teacher.preprocessing.native_size)], teacher))
    return Measured(
        label=label,
        map=encode_whole(dense, LOGIT_STEP),
        fine=(encode_whole(dense, FINE_STEPS[0]), encode_whole(dense, FINE_STEPS[1])),
        whole=dense.mean((2, 3))[0],
        crops=roi_align(dense, rois, 1, 1.0, -1, False).flatten(1),
        boxes=boxes,
        native=native[0].softmax(0),
    )


def encode_whole(dense: Tensor, step: float) -> EncodedMap:
    """Encode the one map of a batch."""
    encoded = encode_maps(top_cells(dense, TOP_K), step=step)[0]
    if encoded is None:
        raise ValueError("a sample image with logits that cannot be stored")
    return encoded


def stored_logits(
    rows: list[Measured], grid: tuple[int, int], share: float, *, fine: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (N, C) logits of whole images and (N, CROPS, C) of crops, pooled from stored maps."""
    shape = {"grid": grid, "top_k": TOP_K, "num_classes": len(rows[0].whole)}
    maps = gather_maps([r.map for r in rows], step=LOGIT_STEP, **shape)
    if fine:
        logits, absent = (gather_maps([r.fine[i] for r in rows], step=FINE_STEPS[i], **shape) for i in (0, 1))
        maps = replace(logits, absent=absent.absent)
    whole = pool_logits(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(rows), 4), absent_share=share)
    crops = [pool_logits(maps, torch.stack([r.boxes[c] for r in rows]), absent_share=share) for c in range(CROPS)]
    return whole, torch.stack(crops, 1)


def total_variation(a: Tensor, b: Tensor) -> float:
    """Return half the mean absolute difference of distributions, summed over classes."""
    return float((a - b).abs().sum(-1).mean() / 2)


def report(teacher: Teacher, samples: list[tuple[bytes, int]], size: int) -> None:
    """Print the table of one size."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        rows = list(threads.map(lambda i: measure(teacher, *samples[i], size, i), range(len(samples))))
    grid = teacher.map_size(size, size)
    fitted, rest = rows[: min(FITTED_ON, len(rows) // 4)], rows[min(FITTED_ON, len(rows) // 4) :]
    labels = torch.tensor([r.label for r in rest])
    targets = torch.stack([r.native for r in fitted])
    dense = torch.stack([r.whole for r in rest]), torch.stack([r.crops for r in rest])
    temperature = fit_temperature(stored_logits(fitted, grid, ABSENT_SHARE)[0], targets)
    dense_t = fit_temperature(torch.stack([r.whole for r in fitted]), targets)
    paper, default = stored_logits(rest, grid, 0.0), stored_logits(rest, grid, ABSENT_SHARE)
    print(f"\n{size}: {grid[0]}x{grid[1]} cells, fitted on {len(fitted)} images, reported on {len(rest)}\n")
    print("| mode | T | top-1 % | −ln p | median top p | TV to dense, T=1 | TV to dense, same T | top-1 as dense % |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (whole, crops), t in (
        ("paper", paper, 1.0),
        ("paper at a fitted T", paper, fit_temperature(stored_logits(fitted, grid, 0.0)[0], targets)),
        ("default at T=1", default, 1.0),
        ("**default**", default, temperature),
        ("dense", dense, 1.0),
        ("dense at a fitted T", dense, dense_t),
    ):
        p, pc = (whole / t).softmax(-1), (crops / t).softmax(-1)
        likelihood = float(-p[torch.arange(len(p)), labels].log().mean())
        print(
            f"| {name} | {t:.3f} | {float((p.argmax(1) == labels).float().mean()) * 100:.1f} | {likelihood:.3f} "
            f"| {float(p.amax(1).median()):.3f} | {total_variation(pc, dense[1].softmax(-1)):.3f} "
            f"| {total_variation(pc, (dense[1] / t).softmax(-1)):.3f} "
            f"| {float((pc.argmax(-1) == dense[1].argmax(-1)).float().mean()) * 100:.1f} |"
        )

    for name, share, t in (("paper", 0.0, 1.0), ("default", ABSENT_SHARE, temperature)):
        stored, exact = (
            (stored_logits(rest, grid, share, fine=fine)[1] / t).softmax(-1).flatten(0, 1) for fine in (False, True)
        )
        moved = (stored - exact).abs().sum(-1) / 2
        print(
            f"\nrounding to steps of {LOGIT_STEP:g} moves the pooled label of crops, {name}: total variation "
            f"{float(moved.mean()):.5f} on average, {float(moved.quantile(0.99)):.5f} at the 99th percentile"
        )


def main() -> None:
    """Read the command line and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 475])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--every", type=int, default=1, help="use every n-th image")
    options = parser.parse_args()
    folder = os.environ.get("LABELMILL_SAMPLE_DATA")
    if not folder:
        print("label quality: not measured, set LABELMILL_SAMPLE_DATA to the sample data's folder", file=sys.stderr)
        return
    samples = read_samples(Path(folder), options.images, options.every)
    weights = Path(folder) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    teacher = load_teacher("tf_efficientnet_lite0", weights=str(weights))
    for size in options.sizes:
        report(teacher, samples, size)


if __name__ == "__main__":
    main()
