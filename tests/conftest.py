"""What all tests share: a tiny real teacher, small image folders, a Prefect home of our own, the sample data."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.parameters import IngestImagenetParameters, RelabelParameters
from labelmill.schemas.versions import Version

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331", "n01498041", "n01514668")
TIMEOUT_S = 240
"""Far more than a run here takes on a busy machine: a hanging one fails instead of blocking."""

_HOME = pytest.StashKey[str]()


def pytest_configure(config):
    """Keep Prefect's state, the user's server and label cache out of the tests; before anything imports Prefect."""
    config.stash[_HOME] = os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="labelmill-prefect-")
    os.environ["LABELMILL_CACHE"] = os.path.join(config.stash[_HOME], "label-cache")
    for name in [name for name in os.environ if name.startswith("PREFECT_API_")]:
        del os.environ[name]


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Let files with tests of whole servers go first: they take longest, and would keep one process busy at the end."""
    slow = {item.path for item in items if item.get_closest_marker("prefect")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def sample_data():
    """The folder of the sample data."""
    root = os.environ.get("LABELMILL_SAMPLE_DATA")
    if root is None:
        pytest.skip("LABELMILL_SAMPLE_DATA is not set")
    return Path(root)


@dataclass(frozen=True, kw_only=True)
class TeacherFiles:
    """A teacher on disk, as the parameters of a relabel name it; `wnids` in the order of its outputs."""

    name: str
    weights: str
    classes: str
    wnids: tuple[str, ...]

    def parameters(self):
        return {"teacher": self.name, "weights": self.weights, "classes": self.classes}


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """A timm model of 100,000 random weights that tells images apart; its classes stand against the sorted order."""
    import safetensors.torch  # in here: the process that only hands out tests needs no torch
    import timm
    import torch
    from torch import nn

    folder = tmp_path_factory.mktemp("teacher")
    wnids = tuple(reversed(WNIDS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_efficientnet", num_classes=len(wnids)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, 0, 0.2)
    pixels = np.stack([draw_picture(str(n), (96, 96)) for n in range(32)])
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        features = features.permute(0, 2, 3, 1).flatten(0, 2)
        spread = (features - features.mean(0)) @ model.classifier.weight.T
        model.classifier.weight *= (3 / spread.std(0))[:, None]
        model.classifier.bias.copy_(-model.classifier.weight @ features.mean(0) + torch.linspace(-0.5, 0.5, len(wnids)))
    safetensors.torch.save_file(model.state_dict(), folder / "tiny.safetensors")
    (folder / "classes.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    return TeacherFiles(
        name="test_efficientnet",
        weights=str(folder / "tiny.safetensors"),
        classes=str(folder / "classes.txt"),
        wnids=wnids,
    )


def draw_picture(seed, size):
    """Return (H, W, 3) uint8 of a `size` (W, H): a coarse pattern of colours that depends on the text `seed` alone."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]))
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def make_images():
    """Write `count` small JPEGs of different shapes below each wnid's folder, the same ones at every call."""

    def make(root, counts, *, first=0):
        for wnid, count in counts.items():
            (root / wnid).mkdir(parents=True, exist_ok=True)
            for number in range(first, first + count):
                name = f"{wnid}_{number}.JPEG"
                size = (64 + 8 * (number % 5), 96 - 8 * (number % 3))
                Image.fromarray(draw_picture(name, size)).save(root / wnid / name, quality=90)
        return root

    return make


@pytest.fixture(scope="session")
def teachers_held():
    """Let all tests of the session load a teacher once, and run torch on one core beside the engine's threads."""
    import torch

    from labelmill.tasks.relabel import job

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "load_teacher", cache(job.load_teacher))
        yield


@pytest.fixture(scope="session")
def prefect_server():
    """A Prefect server for all tests that only need one to report to; return its API's URL."""
    from labelmill.flows.local_server import prefect_api

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Prefect's own import
        server = prefect_api()
        server.__enter__()
    yield os.environ["PREFECT_API_URL"]
    server.__exit__(None, None, None)


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its exit code, output and error output."""

    from labelmill.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return exit_.value.code, said.out, said.err

    return run


@pytest.fixture(scope="session")
def command_lines(prefect_server):
    """Start one process that runs command lines, against the session's server."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_lines.py"))],
        env={**os.environ, "PREFECT_API_URL": prefect_server, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait(TIMEOUT_S)
    process.stdout.close()


@pytest.fixture
def run_apart(command_lines):
    """Run a command in a process that lives through the session; return its exit code, output and error output."""

    def run(*arguments):
        print(json.dumps([str(argument) for argument in arguments]), file=command_lines.stdin, flush=True)
        answer = command_lines.stdout.readline()
        assert answer, "the process of the command lines has ended"
        return tuple(json.loads(answer))

    return run


@pytest.fixture
def start_cli(prefect_server):
    """Start `labelmill run …` against the session's server, or with `api=None` with one of its own.

    `program` is a script to run in its place, `changes` go into its environment.
    """
    running = []

    def start(*options, api=prefect_server, program=("-m", "labelmill", "run"), changes=None, **kwargs):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")}
        configured = {"PREFECT_API_URL": api} if api else {}
        process = subprocess.Popen(
            [sys.executable, *map(str, (*program, *options))],
            env={**kept, "OMP_NUM_THREADS": "1", **configured, **(changes or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **kwargs,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_cli(start_cli):
    """Run `labelmill run …` to its end; return exit code, standard output and standard error."""

    def run(*options, **kwargs):
        process = start_cli(*options, **kwargs)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def wait_for():
    """Wait until a condition holds, while a process goes on."""

    def wait(condition, process):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def receipts():
    """Return the finished receipts of a store's label maps; one that is being written has another name."""
    return lambda store: list((store / "imagenet" / "label_maps" / "receipts").glob("[0-9a-f]*.json"))


@pytest.fixture(scope="session")
def ingest():
    """Ingest a tree of wnid folders without Prefect; return the version."""

    def run(source, store, **options) -> Version:
        from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_imagenet

        given = {"source": str(source), "store": str(store), "dataset": "imagenet", "workers": 2, **options}
        prepared = prepare_imagenet(IngestImagenetParameters(**given))
        return commit_ingest(prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks])

    return run


@pytest.fixture(scope="session")
def relabel(tiny_teacher, teachers_held):
    """Relabel with the tiny teacher without Prefect, as the flow does it; return the version."""

    def run(store, **options) -> Version:
        from labelmill.tasks.relabel.job import commit_run, prepare_run
        from labelmill.tasks.relabel.shards import label_shard

        prepared = prepare_run(relabel_parameters(tiny_teacher, store, **options))
        receipts = [
            prepared.job.label_maps.receipts.find(shard.key, run=prepared.job.run) or label_shard(prepared.job, shard)
            for shard in prepared.mine
        ]
        return commit_run(prepared, receipts)

    return run


@pytest.fixture(scope="session")
def parameters_for(tiny_teacher, teachers_held):
    """Return the parameters of a small relabel with the tiny teacher, some of them replaced."""
    return lambda store, **options: relabel_parameters(tiny_teacher, store, **options)


def relabel_parameters(tiny_teacher, store, **options):
    small = {
        "input_size": "64x96", "top_k": 3, "shard_size": 8, "device": "cpu", "batch_size": 3, "workers": 2,
        "calibration_images": 8,
    }  # fmt: skip
    return RelabelParameters(
        **{"store": str(store), "dataset": "imagenet", **tiny_teacher.parameters(), **small, **options}
    )
