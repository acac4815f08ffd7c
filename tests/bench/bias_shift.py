"""How far a constant added to the classifier's bias moves pooled labels of the default mode; it should not at all.

Both teachers label the same images through the engine; whole images and random crops are compared at one temperature.
Needs the sample data (LABELMILL_SAMPLE_DATA).

    python tests/bench/bias_shift.py [--size 224] [--every 1] [--constant -7] [--temperature 1]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from label_quality import random_boxes
from relabel_speed import THREADS, lay_out

from labelmill.models.fast_forward import make_fast
from labelmill.models.label_encoding import EncodedMap, gather_maps
from labelmill.models.label_pooling import pool_label_maps
from labelmill.models.teacher import Teacher, load_teacher
from labelmill.tasks.relabel.engine import label_images
from labelmill.tasks.relabel.load import ImageToLabel
from labelmill.tasks.relabel.settings import RelabelSettings

CROPS = 16
LIMIT = 1e-4


def label(teacher: Teacher, images: list[ImageToLabel], settings: RelabelSettings) -> list[EncodedMap]:
    """Label images as a run does; all of the sample images can be read."""
    model = make_fast(teacher.model, input_size=settings.input_size)
    labelled = label_images(teacher, images, settings, workers=THREADS, model=model)
    return [result.map for result in labelled if result.map is not None]


def main() -> None:
    """Read the command line and print the largest change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--every", type=int, default=1, help="use every n-th image")
    parser.add_argument("--constant", type=float, default=-7.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args()
    source = os.environ.get("LABELMILL_SAMPLE_DATA")
    if not source:
        print("bias shift: not measured, set LABELMILL_SAMPLE_DATA to the sample data's folder", file=sys.stderr)
        return
    weights = Path(source) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    plain, shifted = (load_teacher("tf_efficientnet_lite0", weights=str(weights)) for _ in range(2))
    with torch.no_grad():
        shifted.classifier.get_submodule("classifier").get_parameter("bias").add_(options.constant)
    settings = RelabelSettings(input_size=(options.size, options.size), top_k=5, batch_size=16, max_pixels=10**8)
    with tempfile.TemporaryDirectory() as folder:
        images = lay_out(Path(source), Path(folder), 1000)[:: options.every]
        maps = [label(teacher, images, settings) for teacher in (plain, shifted)]
    grid, generator, changes = plain.map_size(*settings.input_size), torch.Generator().manual_seed(0), []
    for start in range(0, len(images), 50):
        first, second = (
            gather_maps(m[start : start + 50], grid=grid, top_k=5, step=settings.logit_step, num_classes=1000)
            for m in maps
        )
        count = len(first.classes)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4)
        for boxes in [whole, *(random_boxes(count, generator) for _ in range(CROPS))]:
            labels = [pool_label_maps(m, boxes, temperature=options.temperature) for m in (first, second)]
            changes.append((labels[0] - labels[1]).abs().amax(1))
    change = torch.cat(changes)
    print(f"{options.size}: {len(images)} images, {len(change)} labels, T={options.temperature}: ", end="")
    print(f"{int((change > LIMIT).sum())} moved by more than {LIMIT:g}, largest {float(change.max()):.2g}")


if __name__ == "__main__":
    main()
