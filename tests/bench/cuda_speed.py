"""How fast one GPU labels images: pure inference, pure decoding and the engine, with and without torch.compile.

The rounds alternate, medians are printed. The weights are random: speed does not depend on them. "of pure forward" is
the share of the pure inference of the same precision that is left when images are loaded and labels encoded as well;
where pure decoding is slower than inference, that is the bound. The images are those of the sample data
(LABELMILL_SAMPLE_DATA), else JPEGs of 500x375 cut from scikit-image's photos. Without a GPU it says so and ends.

    python tests/bench/cuda_speed.py --teacher resnet50 --size 224 [--dollars-per-hour 2.5]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import skimage.data
import timm
import torch
from PIL import Image
from relabel_speed import lay_out

from labelmill.models.device_forward import DeviceModel, make_device_model
from labelmill.models.fast_forward import Precision
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.tasks.relabel.cuda_engine import CudaEngine
from labelmill.tasks.relabel.engine import use_one_core
from labelmill.tasks.relabel.load import ImageToLabel, Loading, choose_resizer, load_resized
from labelmill.tasks.relabel.settings import RelabelSettings

IMAGENET = 1_281_167
PRECISIONS: tuple[Precision, ...] = ("fp32", "fast")
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "motorcycle_left.png")


def make_teacher(name: str, folder: Path) -> Teacher:
    """Return a timm model of random weights whose logits are spread as a trained one's: all of them can be stored."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    last = model.get_classifier()
    size = model.default_cfg["input_size"]
    with torch.no_grad():
        last.weight *= 3 / model(torch.randn(2, *size)).std().clamp(min=1e-6)
    safetensors.torch.save_model(model, str(folder / "random.safetensors"))
    return load_teacher(name, weights=str(folder / "random.safetensors"), classes="none")


def make_photos(folder: Path, count: int) -> list[ImageToLabel]:
    """Write JPEGs of 500x375 and some 100 kB: pieces of real photos."""
    random = np.random.default_rng(0)
    pictures = [Image.open(Path(skimage.data.__file__).parent / name).convert("RGB") for name in PHOTOS]
    images = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        share = random.uniform(0.5, 0.9)
        width, height = (int(length * share) for length in picture.size)
        left, top = int(random.uniform(0, picture.width - width)), int(random.uniform(0, picture.height - height))
        data = io.BytesIO()
        picture.crop((left, top, left + width, top + height)).resize((500, 375)).save(data, "jpeg", quality=95)
        path = folder / f"{number:05d}.JPEG"
        path.write_bytes(data.getvalue())
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        images.append(ImageToLabel(path=path, sha256=digest, bytes=len(data.getvalue())))
    return images


def pure_decode(images: Sequence[ImageToLabel], loading: Loading, workers: int) -> None:
    """Read, decode and resize, and nothing else."""
    with ThreadPoolExecutor(workers, initializer=use_one_core) as threads:
        list(threads.map(partial(load_resized, loading=loading), images))


def pure_forward(model: DeviceModel, pixels: torch.Tensor, count: int) -> None:
    """Infer from pixels that lie on the device, and nothing else."""
    with torch.inference_mode():
        for _ in range(count // len(pixels)):
            model(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize()


def label(engine: CudaEngine, images: Sequence[ImageToLabel]) -> None:
    """Label all images; every one must have a map."""
    without = sum(labelled.map is None for labelled in engine.label(images))
    if without:
        raise SystemExit(f"{without} of {len(images)} images have no map: the rates would be of other work")


def runs(
    teacher: Teacher, images: Sequence[ImageToLabel], options: argparse.Namespace, opened: ExitStack
) -> dict[str, Callable[[], None]]:
    """Return everything that is compared, by name, in the order of a round; `opened` closes the engines."""
    device, size = torch.device(options.device), (options.size, options.size)
    pixels = torch.randint(0, 256, (options.batch_size, *size, 3), dtype=torch.uint8).to(device)
    compared: dict[str, Callable[[], None]] = {}
    for precision in PRECISIONS:
        settings = RelabelSettings(
            input_size=size, top_k=5, batch_size=options.batch_size, max_pixels=10**8, precision=precision,
            resizer=choose_resizer(precision, teacher.preprocessing.interpolation),
        )  # fmt: skip
        loading = settings.loading(teacher.preprocessing)
        compared[f"decode {precision}"] = partial(pure_decode, images, loading, options.workers)
        for compiled in ("", ", compiled") if options.compile else ("",):
            model = make_device_model(
                teacher.model, teacher.preprocessing, device=device, input_size=size, precision=precision
            )
            if compiled:
                model.compile()
            engine = opened.enter_context(
                closing(CudaEngine(teacher, settings, device=options.device, workers=options.workers, model=model))
            )
            compared[f"forward {precision}{compiled}"] = partial(pure_forward, model, pixels, len(images))
            compared[f"engine {precision}{compiled}"] = partial(label, engine, images)
    return compared


def print_table(rates: dict[str, float], dollars_per_hour: float) -> None:
    """Print medians in Markdown; hours and dollars for ImageNet's training images on one such GPU."""
    print("| what | images/s | of pure forward | hours for 1.28 M | dollars |")
    print("|---|---|---|---|---|")
    for name, rate in rates.items():
        forward = rates.get(name.replace("engine", "forward"), 0.0) if name.startswith("engine") else 0.0
        hours = IMAGENET / rate / 3600
        share = f"{rate / forward:.0%}" if forward else ""
        cost = f"{hours * dollars_per_hour:.2f}" if dollars_per_hour and forward else ""
        print(f"| {name} | {rate:,.0f} | {share} | {hours:.2f} | {cost} |")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="resnet50", help="a timm model")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads that load images")
    parser.add_argument("--dollars-per-hour", type=float, default=0.0, help="what an hour of the machine costs")
    parser.add_argument("--device", default="cuda:0", help="cpu tries the program itself; its rates mean nothing")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    """Run the rounds and print the table."""
    options = read_options()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("not run: no CUDA device")
        return
    measured: dict[str, list[float]] = {}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        count = max(options.images // options.batch_size, 1) * options.batch_size
        source = os.environ.get("LABELMILL_SAMPLE_DATA")
        few = lay_out(Path(source), folder, 1000) if source else make_photos(folder, min(count, 1000))
        images = (few * (count // len(few) + 1))[:count]
        compared = runs(make_teacher(options.teacher, folder), images, options, opened)
        for turn in range(options.rounds + 1):
            for name, work in compared.items():
                start = time.perf_counter()
                work()
                if turn:  # the first round warms up and compiles
                    measured.setdefault(name, []).append(count / (time.perf_counter() - start))
    where = (
        torch.cuda.get_device_name(options.device) if options.device != "cpu" else "the CPU: a trial, no measurement"
    )
    print(
        f"\n{options.teacher} at {options.size}, batches of {options.batch_size}, {count} images, {options.workers} "
        f"loader threads, {where}, torch {torch.__version__}, {options.rounds} rounds, medians\n"
    )
    print_table({name: statistics.median(of) for name, of in measured.items()}, options.dollars_per_hour)


if __name__ == "__main__":
    main()
