"""How fast the engine labels images: against the script a user would write, and against the bound, in one run.

The rounds alternate, medians are printed. The bound is pure decoding and resizing plus pure inference on as many
threads, in CPU time of this process: nothing that does both can take less. Needs the sample data
(LABELMILL_SAMPLE_DATA).

    python tests/bench/relabel_speed.py [--images 300] [--rounds 3] [--size 224]
"""

from __future__ import annotations

import argparse
import copy
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
from labelmill.tasks.relabel.engine import label_images, use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, Loading, choose_resizer, load_resized
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


def users_script(teacher: Teacher, folder: Path, size: int, out: Path, *, tuned: str = "") -> None:
    """Do what a user does by hand: ImageFolder, DataLoader with two workers, a file for each image.

    `tuned` may name "channels last" and "bf16", which a user who knows torch adds.
    """
    torch.set_num_threads(THREADS)
    transform = v2.Compose(
        [
            v2.Resize((size, size), interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(teacher.preprocessing.mean, teacher.preprocessing.std),
        ]
    )
    layout = torch.channels_last if "channels last" in tuned else torch.contiguous_format
    model = copy.deepcopy(teacher.model).to(memory_format=layout)
    number = 0
    for batch, _ in DataLoader(ImageFolder(str(folder), transform), batch_size=32, num_workers=2):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in tuned):
            values, ids = model(batch.to(memory_format=layout)).float().topk(5, dim=1)
        for row in range(len(batch)):
            torch.save(torch.stack([values[row], ids[row].float()]), out / f"{number}.pt")
            number += 1


def pure_decode(images: list[ImageToLabel], loading: Loading) -> None:
    """Read, decode and resize, and nothing else."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(partial(_decode_one, loading=loading), images))


def _decode_one(image: ImageToLabel, loading: Loading) -> None:
    use_one_core()
    load_resized(image, loading)


def pure_forward(model: FastModel, count: int, size: int) -> None:
    """Infer, and nothing else."""
    batch = torch.randn(BATCH, 3, size, size)

    def work(_: int) -> None:
        use_one_core()
        with torch.inference_mode():
            model(batch)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(count // BATCH)))


def timed(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Return (images a second, milliseconds of this process's CPU time an image)."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1000


def runs(teacher: Teacher, images: list[ImageToLabel], folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """Return everything that is compared, by name, in the order of a round."""
    out = folder / "out"
    out.mkdir()
    compared: dict[str, Callable[[], object]] = {
        f"script{tuned}": partial(users_script, teacher, folder / "images", size, out, tuned=tuned)
        for tuned in ("", ", channels last", ", channels last, bf16")
    }
    for precision in PRECISIONS:
        settings = RelabelSettings(
            input_size=(size, size), top_k=5, batch_size=BATCH, max_pixels=10**8, precision=precision,
            resizer=choose_resizer(precision, teacher.preprocessing.interpolation),
        )  # fmt: skip
        model = make_fast(teacher.model, precision=precision, input_size=(size, size))
        compared[f"decode {precision}"] = partial(pure_decode, images, settings.loading(teacher.preprocessing))
        compared[f"forward {precision}"] = partial(pure_forward, model, len(images), size)
        compared[f"labelmill {precision}"] = partial(
            label_images, teacher, images, settings, workers=THREADS, model=model
        )
    return compared


def print_table(rates: dict[str, float], cpu: dict[str, float]) -> None:
    """Print medians in Markdown."""
    print("| what | images/s | against the script | CPU ms an image | of the bound |")
    print("|---|---|---|---|---|")
    for name, rate in rates.items():
        precision = name.removeprefix("labelmill ")
        bound = cpu[f"decode {precision}"] + cpu[f"forward {precision}"] if precision in PRECISIONS else 0.0
        share = f"{bound / cpu[name]:.0%} of {bound:.2f} ms" if bound else ""
        spent = "" if name.startswith("script") else f"{cpu[name]:.2f}"  # its workers are other processes
        print(f"| {name} | {rate:.1f} | {rate / rates['script']:.2f}x | {spent} | {share} |")


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
    count = options.images // BATCH * BATCH
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = lay_out(Path(source), Path(folder) / "images", count)
        compared = runs(teacher, images, Path(folder), options.size)
        for turn in range(options.rounds + 1):
            for name, work in compared.items():
                now = timed(work, count)
                if turn:  # the first round warms up
                    measured.setdefault(name, []).append(now)
    print(f"\nsample teacher at {options.size}, {count} images, {THREADS} threads, {options.rounds} rounds, medians\n")
    rates, cpu = ({name: statistics.median(m[at] for m in of) for name, of in measured.items()} for at in (0, 1))
    print_table(rates, cpu)


if __name__ == "__main__":
    main()
