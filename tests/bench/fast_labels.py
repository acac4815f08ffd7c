"""How far `--precision fast` moves the labels, and which part of it does: a table in Markdown.

The 1,000 sample images are labelled in fp32, with the faster resize alone, with bfloat16 alone and with both. Whole
images: top-1 of the default pooling. Crops: total variation from the fp32 label. Needs the sample data
(LABELMILL_SAMPLE_DATA).

    python tests/bench/fast_labels.py [--images 1000] [--size 224]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from label_quality import CROPS, random_boxes
from relabel_speed import lay_out
from torch import Tensor

from labelmill.models.fast_forward import Precision, make_fast
from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_pooling import pool_label_maps
from labelmill.models.teacher import load_teacher
from labelmill.tasks.relabel.calibrate import fit_on_images
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.engine import label_images
from labelmill.tasks.relabel.load import Resizer
from labelmill.tasks.relabel.settings import RelabelSettings

FITTED_ON = 256
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
FORMS: dict[str, tuple[Precision, Resizer]] = {
    "fp32": ("fp32", "pillow"),
    "faster resize alone": ("fp32", "torchvision"),
    "bf16 alone": ("fast", "pillow"),
    "**fast**": ("fast", "torchvision"),
}


def main() -> None:
    """Read the command line, label in every form and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    source = os.environ.get("LABELMILL_SAMPLE_DATA")
    if not source:
        print("fast labels: not measured, set LABELMILL_SAMPLE_DATA to the sample data's folder", file=sys.stderr)
        return
    weights = Path(source) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    teacher = load_teacher("tf_efficientnet_lite0", weights=str(weights))
    size, workers = (options.size, options.size), os.cpu_count() or 1
    boxes = random_boxes(options.images * CROPS, torch.Generator().manual_seed(0)).view(options.images, CROPS, 4)
    pooled: dict[str, list[Tensor]] = {}
    ids: dict[str, Tensor] = {}
    temperature = 0.0
    with tempfile.TemporaryDirectory() as folder:
        images = lay_out(Path(source), Path(folder), options.images)
        labels = torch.arange(len(images))  # one image a class, in order
        for name, (precision, resizer) in FORMS.items():
            settings = RelabelSettings(
                input_size=size, top_k=5, batch_size=16, max_pixels=10**8, precision=precision, resizer=resizer
            )
            model = make_fast(teacher.model, precision=precision, input_size=size)
            if not temperature:
                fitted = images[:: len(images) // FITTED_ON]
                engine = CpuEngine(teacher, settings, workers=workers, model=model)
                temperature = fit_on_images(engine, teacher, settings, fitted).temperature
            labelled = label_images(teacher, images, settings, workers=workers, model=model)
            encoded: list[EncodedMap] = [r.map for r in labelled if r.map is not None]
            maps = gather_maps(
                encoded, grid=teacher.map_size(*size), top_k=5, step=settings.logit_step, num_classes=1000
            )
            ids[name] = maps.classes.gather(1, maps.index[..., 0].flatten(1))
            places = [WHOLE.expand(len(encoded), 4), *boxes[: len(encoded)].unbind(1)]
            pooled[name] = [pool_label_maps(maps, at, temperature=temperature) for at in places]
    print(f"\n{len(images)} images at {options.size}, default pooling at T = {temperature}\n")
    print("| form | top-1 % | same top class of a cell % | crops: TV mean | TV 99th percentile | same top-1 % |")
    print("|---|---|---|---|---|---|")
    for name, (whole, *crops) in pooled.items():
        right = float((whole.argmax(1) == labels).float().mean()) * 100
        apart = torch.cat([(a - b).abs().sum(1) / 2 for a, b in zip(crops, pooled["fp32"][1:], strict=True)])
        same = torch.cat([a.argmax(1) == b.argmax(1) for a, b in zip(crops, pooled["fp32"][1:], strict=True)])
        far = float(apart.quantile(0.99))
        same_cells = float((ids[name] == ids["fp32"]).float().mean()) * 100
        print(
            f"| {name} | {right:.1f} | {same_cells:.2f} | {float(apart.mean()):.4f} | {far:.4f} "
            f"| {float(same.float().mean()) * 100:.2f} |"
        )


if __name__ == "__main__":
    main()
