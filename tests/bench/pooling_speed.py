"""What reading label maps costs a trainer: against the authors' arithmetic and files, and as a share of a step.

Rounds alternate, medians are printed. Maps are synthetic: smooth fields of 25 to 60 classes an image. The authors' way
(Yun et al. 2021, the released reader): a `.pt` a map of scores and ids, scattered into a dense (C, H, W) map, RoIAlign.

    python tests/bench/pooling_speed.py [--rounds 15] [--parts 96] [--threads N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.ops import roi_align

from labelmill.models.label_encoding import LOGIT_STEP, TopCells, encode_maps
from labelmill.models.label_pooling import ABSENT_SHARE, LabelMapBatch, pool_label_maps
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.versions import Lineage
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.store import open_store

CLASSES = 1000
TOP_K = 5
BATCH = 256
PART_ROWS = 256
STEP_BATCH = 32
FILES = 2048
TABLE = "bench.label_maps"
TURN_S = 0.05


def draw_top(count: int, grid: int, seed: int) -> TopCells:
    """Draw maps as a teacher gives them: smooth, with a few dozen classes an image."""
    torch.manual_seed(seed)
    coarse = torch.randn(count, 60, 4, 4) * 4
    fields = F.interpolate(coarse, (grid, grid), mode="bicubic") + torch.randn(count, 60, grid, grid) * 0.5
    fields[:, 25:] -= torch.rand(count, 1, 1, 1) * 6  # so that images differ in how many classes they list
    logits, places = fields.permute(0, 2, 3, 1).topk(TOP_K, dim=-1)
    candidates = torch.rand(count, CLASSES).topk(60).indices
    ids = candidates[:, None, None, :].expand(-1, grid, grid, -1).gather(3, places)
    sums = torch.zeros(count, CLASSES, dtype=torch.float64)
    return TopCells(ids=ids, logits=logits.double(), log_sum_exp=logits.double().logsumexp(-1), class_sums=sums)


def make_store(folder: Path, grid: int, parts: int) -> LabelMaps:
    """Write a store of `parts` parts of drawn maps."""
    metadata = LabelMapMetadata(
        grid=(grid, grid), top_k=TOP_K, input_size=(224, 224), logit_step=LOGIT_STEP, num_classes=CLASSES,
        classes=None, temperature=1.0, absent_share=ABSENT_SHARE, calibration={}, label_match={}, teacher={},
    )  # fmt: skip
    lineage = Lineage(code="", flow="", parameters={}, parameters_digest="", inputs={}, time="", host="")
    store = open_store(folder / "store", create=True)
    table = store.table(TABLE)
    written = []
    for number in range(parts):
        top = draw_top(PART_ROWS, grid, number)
        maps = encode_maps(top, step=LOGIT_STEP)
        columns = {name: [getattr(m, name) for m in maps] for name in MAP_COLUMNS}
        columns["image_id"] = [f"{number}/{row}.JPEG" for row in range(PART_ROWS)]
        columns |= {"split": ["train"] * PART_ROWS, "status": ["done"] * PART_ROWS}
        rows = [pa.array(columns.get(f.name, [None] * PART_ROWS), f.type) for f in LABEL_MAPS_SCHEMA]
        written.append(table.write_part(pa.table(rows, schema=LABEL_MAPS_SCHEMA), key=f"{number:016d}"))
    table.replace(written, schema=LABEL_MAPS_SCHEMA, metadata=metadata.model_dump(mode="json"), lineage=lineage)
    return LabelMaps(store, TABLE)


def draw_boxes(count: int) -> Tensor:
    """Draw crops whose share of the area is even between 0.08 and 1, as RandomResizedCrop's."""
    size = (0.08 + 0.92 * torch.rand(count, 1)).sqrt().expand(-1, 2)
    low = torch.rand(count, 2) * (1 - size)
    return torch.cat([low, low + size], 1)


def densify_and_align(scores: Tensor, ids: Tensor, boxes: Tensor) -> Tensor:
    """Pool as the authors do: `scores`, `ids` (B, k, H, W) into a dense map, RoIAlign, softmax."""
    batch, _, height, width = scores.shape
    dense = torch.zeros(batch, CLASSES, height, width).scatter_(1, ids, scores)
    places = boxes * torch.tensor([width, height, width, height]) - 0.5
    rois = torch.cat([torch.arange(batch)[:, None], places], 1)
    return roi_align(dense, rois, output_size=1, sampling_ratio=-1, aligned=False).flatten(1).softmax(1)


def as_authors_store(maps: LabelMapBatch) -> tuple[Tensor, Tensor]:
    """Return scores (B, k, H, W) float32 and ids (B, k, H, W) int64 of a batch."""
    height, width = maps.logits.shape[1:3]
    classes = maps.classes[:, None, None, :].expand(-1, height, width, -1)
    ids = classes.gather(3, maps.index.long())
    return maps.logits.permute(0, 3, 1, 2).contiguous(), ids.permute(0, 3, 1, 2).contiguous()


def measure(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each work's median seconds; the works take turns, the first turn warms up.

    In its turn a work is done once, then again for TURN_S and that is counted: else the one after a work that fills the
    processor's caches with hundreds of megabytes would pay for them.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            work()
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < TURN_S:
                work()
                count += 1
            if turn:
                times[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(values) for name, values in times.items()}


def compare_pooling(maps: LabelMaps, rounds: int) -> None:
    """Print the rows of the first table for one grid."""
    batch = maps.read(torch.randint(len(maps), (BATCH,)))
    scores, ids = as_authors_store(batch)
    boxes = draw_boxes(BATCH)
    took = measure(
        {
            "authors": lambda: densify_and_align(scores, ids, boxes),
            "paper": lambda: pool_label_maps(batch, boxes, absent_share=0.0),
            "default": lambda: pool_label_maps(batch, boxes),
            "softmax": partial(torch.randn(BATCH, CLASSES).softmax, 1),
        },
        rounds,
    )
    size = "x".join(map(str, (*maps.metadata.grid, TOP_K)))
    names = {
        "authors": "densify, roi_align, softmax",
        "softmax": "softmax of (256, 1000) alone, a bound of any dense way",
    }
    for name, seconds in took.items():
        print(
            f"| {size} | {names.get(name, f'pool, {name}')} | {seconds * 1e3:.2f} | {took['authors'] / seconds:.0f}x |"
        )


def write_files(maps: LabelMaps, folder: Path) -> None:
    """Write maps as the authors store them: a `.pt` each, (2, k, H, W) float32."""
    folder.mkdir()
    scores, ids = as_authors_store(maps.read(torch.arange(FILES)))
    for row in range(FILES):
        torch.save(torch.stack([scores[row], ids[row].float()]), folder / f"{row}.pt")


def read_files(folder: Path) -> Tensor:
    """Read a random batch of the authors' files."""
    return torch.stack([torch.load(folder / f"{row}.pt") for row in torch.randint(FILES, (BATCH,)).tolist()])


def read_cache(maps: LabelMaps) -> LabelMapBatch:
    """Read a random batch of maps."""
    return maps.read(torch.randint(len(maps), (BATCH,)))


def compare_reading(maps: LabelMaps, folder: Path, rounds: int) -> None:
    """Print the second table."""
    write_files(maps, folder)
    took = measure({"files": partial(read_files, folder), "cache": partial(read_cache, maps)}, rounds)
    rates = {name: BATCH / seconds for name, seconds in took.items()}
    print(f"| a .pt a map, {FILES} of them | {rates['files']:,.0f} | 1x |")
    print(f"| the cache, {len(maps)} maps in {len(maps.version.parts)} parts | {rates['cache']:,.0f} | "
          f"{rates['cache'] / rates['files']:.0f}x |")  # fmt: skip


class Trainer:
    """A ResNet-18, its optimiser and a batch of noise."""

    def __init__(self, device: str, batch: int) -> None:
        self.device, self.batch = device, batch
        self.model: nn.Module = resnet18().to(device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.images = torch.randn(batch, 3, 224, 224, device=device)
        self.labels = torch.rand(batch, CLASSES, device=device).softmax(1)

    def steps(self, count: int, make_labels: Callable[[], Tensor] | None = None) -> None:
        """Train for `count` steps, with fixed labels or with new ones at each; a GPU is waited for at the end only."""
        for _ in range(count):
            targets = make_labels().to(self.device, non_blocking=True) if make_labels else self.labels
            loss = F.cross_entropy(self.model(self.images), targets)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        if self.device != "cpu":
            torch.cuda.synchronize()


def pool_random(maps: LabelMaps, batch: int) -> Tensor:
    """Read and pool a random batch."""
    return maps.pool(torch.randint(len(maps), (batch,)), draw_boxes(batch))


def compare_step(maps: LabelMaps, rounds: int, device: str, *, batch: int, steps: int) -> None:
    """Print a row of the third table: labels alone as a share of a step, and a step that makes its labels."""
    trainer = Trainer(device, batch)
    make_labels = partial(pool_random, maps, batch)
    took = measure(
        {
            "fixed": partial(trainer.steps, steps),
            "pooled": partial(trainer.steps, steps, make_labels),
            "labels": lambda: [make_labels() for _ in range(steps)],
        },
        rounds,
    )
    fixed, pooled, labels = (took[name] / steps * 1e3 for name in ("fixed", "pooled", "labels"))
    print(f"| {device}, batch {batch} | {fixed:.1f} | {labels:.2f} | {labels / fixed:.3%} | {pooled:.1f} |")


def main() -> None:
    """Read the command line, run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        os.environ["LABELMILL_CACHE"] = str(Path(name, "cache"))
        stores = {grid: make_store(Path(name, str(grid)), grid, options.parts) for grid in (15, 7)}
        print(f"\n{options.threads} threads, {options.rounds} rounds, medians\n")
        print("| map | pooling 256 crops, 1,000 classes | ms | |\n|---|---|---|---|")
        for maps in stores.values():
            compare_pooling(maps, options.rounds)
        print("\n| reading at random, 15x15x5 | maps/s | |\n|---|---|---|")
        compare_reading(stores[15], Path(name, "files"), options.rounds)
        print("\n| ResNet-18 at 224 | step, ms | labels alone, ms | of a step | step that makes its labels, ms |")
        print("|---|---|---|---|---|")
        compare_step(stores[15], max(options.rounds // 5, 3), "cpu", batch=STEP_BATCH, steps=1)
        if torch.cuda.is_available():
            compare_step(stores[15], options.rounds, "cuda", batch=BATCH, steps=20)
        else:
            print("| cuda | not run: no GPU | | | |")


if __name__ == "__main__":
    main()
