"""The training loop of docs/training.md and README.md runs as it is written, on images and a teacher of test size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import labelmill

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images, ingest, relabel):
    folder = tmp_path_factory.mktemp("docs")
    ingest(make_images(folder / "train", {"n01443537": 5, "n01484850": 4}), folder / "store")
    (folder / "train" / "n01443537" / "none.JPEG").write_bytes(
        (folder / "train/n01443537/n01443537_0.JPEG").read_bytes()
    )
    relabel(folder / "store")
    return folder


def replaced(text, values):
    """Put test values in the place of the documentation's; each must be there."""
    for old, new in values.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "cutmix", [pytest.param(True, id="with CutMix"), pytest.param(False, id="without", marks=pytest.mark.drill)]
)
def test_loop_of_the_training_page_runs(folder, tmp_path, cutmix):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    values = {
        '"/data/store"': repr(str(folder / "store")),
        '"/data/imagenet/train"': repr(str(folder / "train")),
        "= 90, 256, 8, 224": "= 2, 4, 2, 32",
        "CUTMIX = True": f"CUTMIX = {cutmix}",
    }
    (tmp_path / "train.py").write_text(replaced(code, values))
    done = subprocess.run([sys.executable, str(tmp_path / "train.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *epochs = done.stdout.splitlines()
    assert first == "9 images, 1 left out: no label map"
    assert re.fullmatch(r"epoch 0: loss \d+\.\d+", epochs[0])
    assert len(epochs) == 2


def test_loop_of_the_readme_runs(folder):
    section = (ROOT / "README.md").read_text().split("## Train with it")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    values = {
        '"/data/store"': repr(str(folder / "store")),
        '"/data/imagenet/train"': repr(str(folder / "train")),
        "224": "32",
        "256, shuffle=True, num_workers=8": "9, shuffle=True",
    }
    names = {
        "labelmill": labelmill, "ImageFolder": ImageFolder, "DataLoader": DataLoader, "F": F,
        "normalise": v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]),
        "model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8)),
    }  # fmt: skip
    exec(replaced(code, values), names)
    assert names["labels"].shape == (9, 8)
    assert bool(names["loss"].isfinite())
