"""How fast whole images are predicted: against the script a user would write with timm, and beside relabel's engine.

Rounds alternate, medians are printed, with CPU time of this process and of the script's loaders: on a busy machine
that says more. Also how far `--precision fast` moves the numbers. Needs the sample data (LABELMILL_SAMPLE_DATA).

    python tests/bench/pseudolabel_speed.py [--images 304] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from relabel_speed import BATCH, PRECISIONS, THREADS, lay_out
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from labelmill.models.teacher import Teacher, load_teacher
from labelmill.tasks.pseudo_labels.predict import CpuPredictor
from labelmill.tasks.pseudo_labels.prediction import Prediction
from labelmill.tasks.pseudo_labels.settings import PredictionSettings
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.load import ImageToLabel, choose_resizer
from labelmill.tasks.relabel.settings import RelabelSettings


def users_script(teacher: Teacher, folder: Path, *, layout: torch.memory_format, bf16: bool) -> None:
    """Do what a user does by hand: ImageFolder, DataLoader with two workers, softmax, top-k."""
    torch.set_num_threads(THREADS)
    preprocessing = teacher.preprocessing
    transform = v2.Compose(
        [
            v2.Resize(preprocessing.native_size, interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    model = teacher.classifier.to(memory_format=layout)  # type: ignore[call-overload]
    for batch, _ in DataLoader(ImageFolder(str(folder), transform), batch_size=32, num_workers=2):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model(batch.to(memory_format=layout)).float().softmax(1).topk(5)


def make_ways(teacher: Teacher, images: list[ImageToLabel], folder: Path) -> dict[str, Callable[[], object]]:
    """Return all that is compared by name, in the order of a round."""
    ways: dict[str, Callable[[], object]] = {
        "script": partial(users_script, teacher, folder, layout=torch.contiguous_format, bf16=False),
        "script, channels last, bf16": partial(users_script, teacher, folder, layout=torch.channels_last, bf16=True),
    }
    for precision in PRECISIONS:
        relabel = RelabelSettings(
            input_size=teacher.preprocessing.native_size, top_k=5, batch_size=BATCH, max_pixels=10**8,
            precision=precision, resizer=choose_resizer(precision, teacher.preprocessing.interpolation),
        )  # fmt: skip
        ways[f"relabel {precision}"] = partial(CpuEngine(teacher, relabel, workers=THREADS).label, images)
        for views in ("whole", "flip"):
            settings = PredictionSettings(views=views, top_k=5, batch_size=BATCH, max_pixels=10**8, precision=precision)
            predict = CpuPredictor([teacher], settings, workers=THREADS).predict
            ways[f"pseudolabel {precision}, {views}"] = partial(predict, images)
    return ways


def measure(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Return (images a second, milliseconds of CPU time an image, ended children's with it)."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return count / (time.perf_counter() - start), (sum(os.times()[:4]) - before) / count * 1000


def print_movement(exact: list[Prediction], fast: list[Prediction]) -> None:
    """Print how far the fast numbers are from the exact ones."""
    pairs = list(zip(exact, fast, strict=True))
    same = sum(a.class_ids[0] == b.class_ids[0] for a, b in pairs) / len(pairs)
    moved = sorted(abs(a.confidence - b.confidence) for a, b in pairs)
    print(
        f"\nfast against fp32: same class for {same:.1%}; confidence moved by {statistics.mean(moved):.4f} on average, "
        f"{moved[int(0.99 * len(moved))]:.4f} at the 99th percentile"
    )


def main() -> None:
    """Read the command line, run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=304)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    source = os.environ.get("LABELMILL_SAMPLE_DATA")
    if not source:
        print("pseudolabel speed: not measured, set LABELMILL_SAMPLE_DATA to the sample data", file=sys.stderr)
        return
    weights = Path(source) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    teacher = load_teacher("tf_efficientnet_lite0", weights=str(weights))
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = lay_out(Path(source), Path(folder), options.images)
        ways = make_ways(teacher, images, Path(folder))
        for turn in range(options.rounds + 1):
            for name, work in ways.items():
                now = measure(work, len(images))
                if turn:  # the first round warms up
                    measured.setdefault(name, []).append(now)
        found = [ways[f"pseudolabel {precision}, whole"]() for precision in PRECISIONS]
    print(f"\nsample teacher, {len(images)} images, {THREADS} threads, {options.rounds} rounds, medians\n")
    print("| what | images/s | against the script | CPU ms an image |\n|---|---|---|---|")
    rates, cpu = ({name: statistics.median(m[at] for m in of) for name, of in measured.items()} for at in (0, 1))
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates['script']:.2f}x | {cpu[name]:.2f} |")
    print_movement(*found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
