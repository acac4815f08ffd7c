"""How fast the engine labels images: against the script a user would write, and against the bound, in one run.

The rounds alternate, medians are printed. The bound is pure decoding and resizing plus pure inference on as many
threads: nothing that does both can be faster. Needs the sample data (LABELMILL_SAMPLE_DATA).

    python tests/bench/relabel_speed.py [--images 300] [--rounds 3] [--size 224]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from labelmill.models.fast_forward import FastModel, Precision, make_fast
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.tasks.relabel.engine import ImageToLabel, label_images, load_resized
from labelmill.tasks.relabel.settings import RelabelSettings

THREADS = os.cpu_count() or 1
BATCH = 16
PRECISIONS: tuple[Precision, ...] = ("fp32", "fast")


def lay_out(source: Path, target: Path, count: int) -> list[ImageToLabel]:
    """Write sample images as a tree of wnid folders."""
    rows = pq.read_table(source / "imagenet" / "sample1000_short256.parquet", columns=["image", "wnid"]).slice(0, count)
    images = []
    for number, row in enumerate(rows.to_pylist()):
        path = target / row["wnid"] / f"{number:04d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
        digest = hashlib.sha256(row["image"]).hexdigest()
        images.append(ImageToLabel(path=path, sha256=digest, bytes=len(row["image"])))
    return images


def users_script(teacher: Teacher, folder: Path, size: int, out: Path) -> None:
    """Do what a user does by hand: ImageFolder, DataLoader with two workers, a file for each image."""
    torch.set_num_threads(THREADS)
    transform = v2.Compose(
        [
            v2.Resize((size, size), interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(teacher.preprocessing.mean, teacher.preprocessing.std),
        ]
    )
    number = 0
    for batch, _ in DataLoader(ImageFolder(str(folder), transform), batch_size=32, num_workers=2):
        with torch.inference_mode():
            values, ids = teacher.model(batch).topk(5, dim=1)
        for row in range(len(batch)):
            torch.save(torch.stack([values[row], ids[row].float()]), out / f"{number}.pt")
            number += 1


def pure_decode(images: list[ImageToLabel], size: int) -> None:
    """Read, decode and resize, and nothing else."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda i: load_resized(i, (size, size), interpolation="bicubic", max_pixels=10**8), images))


def pure_forward(model: FastModel, count: int, size: int) -> None:
    """Infer, and nothing else."""
    batch = torch.randn(BATCH, 3, size, size)

    def work(_: int) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            model(batch)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(count // BATCH)))


def rate(work: Callable[[], object], count: int) -> float:
    """Return images a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def main() -> None:
    """Read the command line, run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=304)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    source = os.environ.get("LABELMILL_SAMPLE_DATA")
    if not source:
        print("relabel speed: not measured, set LABELMILL_SAMPLE_DATA to the sample data's folder", file=sys.stderr)
        return
    weights = Path(source) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    teacher = load_teacher("tf_efficientnet_lite0", weights=str(weights))
    size, count = options.size, options.images
    settings = RelabelSettings(input_size=(size, size), top_k=5, batch_size=BATCH, max_pixels=10**8)
    models = {p: make_fast(teacher.model, precision=p, input_size=(size, size)) for p in PRECISIONS}
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = lay_out(Path(source), Path(folder) / "images", count)
        out = Path(folder) / "out"
        out.mkdir()
        for turn in range(options.rounds + 1):
            now = {
                "script": rate(lambda: users_script(teacher, Path(folder) / "images", size, out), count),
                "decode": rate(lambda: pure_decode(images, size), count),
            }
            for precision, model in models.items():
                work = partial(label_images, teacher, images, settings, workers=THREADS, model=model)
                now[f"labelmill {precision}"] = rate(work, count)
                now[f"forward {precision}"] = rate(partial(pure_forward, model, count, size), count // BATCH * BATCH)
            if turn:  # the first round warms up
                for name, value in now.items():
                    rates.setdefault(name, []).append(value)
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\nsample teacher at {size}, {count} images, {THREADS} threads, {options.rounds} rounds, medians\n")
    print("| what | images/s | against the script | of the bound |")
    print("|---|---|---|---|")
    for name, value in median.items():
        precision = name.removeprefix("labelmill ")
        bound = 1 / (1 / median["decode"] + 1 / median[f"forward {precision}"]) if precision in models else None
        share = f"{value / bound:.0%} of {bound:.1f}" if bound else ""
        print(f"| {name} | {value:.1f} | {value / median['script']:.2f}x | {share} |")


if __name__ == "__main__":
    main()
