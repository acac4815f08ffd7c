"""How fast and how exact channel statistics are, against the usual loop over ToTensor, on CIFAR-10's training images.

    python tests/bench/statistics_speed.py SAMPLE_DATA [--images 50000] [--rounds 3]

SAMPLE_DATA holds cifar10/cifar10_jpeg.parquet. Files are read once before, so that both read from memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision.transforms import ToTensor

from labelmill.schemas.parameters import IngestFolderParameters, StatisticsParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.statistics.job import commit_statistics, count_images, prepare_statistics

PUBLISHED = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def write_images(data: Path, out: Path, count: int) -> list[Path]:
    """Write the first training images as files below their classes."""
    rows = pq.read_table(data / "cifar10/cifar10_jpeg.parquet", columns=["image", "label", "split"])
    paths = []
    for number, row in enumerate(row for row in rows.to_pylist() if row["split"] == "train"):
        if number == count:
            break
        path = out / str(row["label"]) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
        paths.append(path)
    return paths


def by_loop(paths: list[Path]) -> tuple[list[float], list[float]]:
    """Load, ToTensor, stack, mean and deviation, as a script does."""
    to_tensor = ToTensor()
    images = torch.stack([to_tensor(Image.open(path).convert("RGB")) for path in paths])
    return images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist()


def by_us(store: str) -> tuple[list[float], list[float]]:
    """Count a new store's images, to the committed version."""
    run = prepare_statistics(StatisticsParameters(store=store, dataset="cifar"))
    version = commit_statistics(run, [count_images(run, shard) for shard in run.shards])
    return version.metadata["mean"], version.metadata["std"]


def main() -> None:
    """Read the command line, measure in turn and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(options.data, Path(folder, "train"), options.images)
        times: dict[str, list[float]] = {"ToTensor loop": [], "labelmill": []}
        found = {}
        for turn in range(options.rounds):
            store = f"{folder}/store{turn}"
            ingest = prepare_folder(IngestFolderParameters(source=f"{folder}/train", store=store, dataset="cifar"))
            commit_ingest(ingest, [ingest_chunk(ingest, chunk) for chunk in ingest.chunks])
            for name, work in (
                ("labelmill", lambda store=store: by_us(store)),
                ("ToTensor loop", lambda: by_loop(paths)),
            ):
                started = time.perf_counter()
                found[name] = work()
                times[name].append(time.perf_counter() - started)
    print(f"\n{len(paths):,} images of 32x32, {options.rounds} rounds, medians\n")
    print("| | seconds | images/s | mean | deviation | furthest from published |\n|---|---|---|---|---|---|")
    for name, measured in times.items():
        seconds = statistics.median(measured)
        mean, std = found[name]
        off = max(
            abs(a - b) for got, said in zip((mean, std), PUBLISHED, strict=True) for a, b in zip(got, said, strict=True)
        )
        shown = [", ".join(f"{value:.5f}" for value in values) for values in (mean, std)]
        print(f"| {name} | {seconds:.2f} | {len(paths) / seconds:,.0f} | {shown[0]} | {shown[1]} | {off:.5f} |")
    ratio = statistics.median(a / b for a, b in zip(times["ToTensor loop"], times["labelmill"], strict=True))
    print(f"\nlabelmill is {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
