"""How many images a teacher's dense forward labels in a second of CPU time, on one thread: as it is, and made fast.

Each form does the same batch in turn, round after round; medians are printed, in CPU time, because others may use the
machine. The last rows are what `make_fast` gives. With LABELMILL_SAMPLE_DATA the real EfficientNet-lite0, otherwise
random weights; `--compile` adds torch.compile, which takes minutes.

    python tests/bench/forward_speed.py [--model NAME] [--size 224] [--batch 16] [--rounds 7] [--compile]
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import timm
import torch
from torch import Tensor

from labelmill.models.classifier_split import split_timm
from labelmill.models.dense_head import DenseClassifier, make_dense
from labelmill.models.fast_forward import make_fast
from labelmill.models.teacher import load_teacher

SAMPLE_TEACHER = "tf_efficientnet_lite0"

Forward = Callable[[Tensor], Tensor]


def build(name: str) -> tuple[DenseClassifier, str]:
    """Return the dense model and a word on its weights."""
    source = os.environ.get("LABELMILL_SAMPLE_DATA")
    if source and name == SAMPLE_TEACHER:
        weights = Path(source) / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
        return load_teacher(name, weights=str(weights)).model, "real weights"
    torch.manual_seed(0)
    return make_dense(split_timm(timm.create_model(name).eval().requires_grad_(False), name), name), "random weights"


def forms(model: DenseClassifier, size: int, compiled: bool) -> dict[str, Forward]:
    """Return each form of the model by what was added."""
    input_size = (size, size)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    with patch("labelmill.models.fused_convolution.works", lambda *_, **__: False):
        folded = make_fast(model, input_size=input_size)
    whole = make_fast(model, input_size=input_size)
    whole.piece = None
    fast = make_fast(model, precision="fast", input_size=input_size)
    found: dict[str, Forward] = {
        "plain": model,
        "channels last": lambda images: channels_last(images.to(memory_format=torch.channels_last)),
        "+ folded": folded,
        "+ fused, the batch at once": whole,
        "fp32": make_fast(model, input_size=input_size),
        f"fast ({fast.facts()['precision']})": fast,
    }
    if compiled:
        found["torch.compile, fp32"] = torch.compile(copy.deepcopy(channels_last))
        half = torch.compile(copy.deepcopy(channels_last).bfloat16())
        found["torch.compile, bf16"] = lambda images: half(images.bfloat16()).float()
    return found


@torch.inference_mode()
def measure(found: dict[str, Forward], images: Tensor, rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of a batch, of each form."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        for name, forward in found.items():
            start = time.thread_time()
            forward(images)
            if turn:  # the first round warms up
                seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Read the command line, run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SAMPLE_TEACHER)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, weights = build(options.model)
    images = torch.randn((options.batch, 3, options.size, options.size), generator=torch.Generator().manual_seed(0))
    found = forms(model, options.size, options.compile)
    seconds = measure(found, images, options.rounds)
    with torch.inference_mode():
        expected = model(images)
        differences = {name: float((forward(images) - expected).abs().max()) for name, forward in found.items()}
    print(f"\n{options.model} ({weights}) at {options.size}, batch {options.batch}, one thread, ", end="")
    print(f"{torch.backends.cpu.get_cpu_capability()}, {options.rounds} rounds, medians\n")
    print("| form | images per CPU second | against plain | largest difference of a logit |")
    print("|---|---|---|---|")
    for name, value in seconds.items():
        ratio = seconds["plain"] / value
        print(f"| {name} | {options.batch / value:.1f} | {ratio:.2f}x | {differences[name]:.2g} |")


if __name__ == "__main__":
    main()
