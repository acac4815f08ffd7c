"""Two small teachers with the same classes, and images of two of them."""

import hashlib
from contextlib import closing
from functools import cache

import pytest
import safetensors.torch
import timm
import torch

from labelmill.models.teacher import load_teacher
from labelmill.schemas.parameters import PseudolabelParameters
from labelmill.tasks.relabel.load import ImageToLabel


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory):
    """Random weights of mobilenetv3_small_050 with eight classes: another size, and layers behind the pooling."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model("mobilenetv3_small_050", num_classes=8)
        torch.nn.init.normal_(model.classifier.weight, 0, 0.3)
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def teacher(tiny_teacher):
    return load_teacher(tiny_teacher.name, weights=tiny_teacher.weights, classes=tiny_teacher.classes)


@pytest.fixture(scope="session")
def other_teacher(tiny_teacher, other_weights):
    return load_teacher("mobilenetv3_small_050", weights=other_weights, classes=tiny_teacher.classes)


@pytest.fixture
def photos(tmp_path, make_images):
    """Seven images: no multiple of a batch of three."""
    paths = sorted(make_images(tmp_path / "train", {"n01443537": 4, "n01484850": 3}).rglob("*.JPEG"))
    return [
        ImageToLabel(path=p, sha256=hashlib.sha256(p.read_bytes()).hexdigest(), bytes=p.stat().st_size) for p in paths
    ]


@pytest.fixture
def imagenet(tmp_path, make_images, ingest):
    """A folder of 21 images in two of the teacher's classes, ingested in parts of 13; return (source, store)."""
    source = make_images(tmp_path / "train", {"n01443537": 11, "n01484850": 10})
    ingest(source, tmp_path / "store", chunk_size=13)
    return source, tmp_path / "store"


@pytest.fixture(scope="session", autouse=True)
def models_held():
    """Let all tests of the session load and fold a teacher once, and run torch on one core beside the threads."""
    from labelmill.tasks.pseudo_labels import predict, predict_on_device, teachers

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teachers, "load_teacher", cache(teachers.load_teacher))
        patch.setattr(predict, "make_fast", cache(predict.make_fast))
        patch.setattr(predict_on_device, "make_device_model", cache(predict_on_device.make_device_model))
        yield


@pytest.fixture(scope="session")
def parameters_for(tiny_teacher):
    """Return the parameters of a small run with the tiny teacher, some of them replaced."""
    small = {
        "dataset": "imagenet", **tiny_teacher.parameters(), "input_size": "64x96", "top_k": 3, "shard_size": 8,
        "device": "cpu", "batch_size": 3, "workers": 2,
    }  # fmt: skip
    return lambda store, **options: PseudolabelParameters(**{"store": str(store), **small, **options})


@pytest.fixture(scope="session")
def pseudolabel(parameters_for):
    """Make pseudo labels without Prefect, as the flow does it; return the version."""
    from labelmill.tasks.pseudo_labels.job import commit_pseudo_labels, predict_shard, prepare_pseudolabel

    def to_version(store, **options):
        run = prepare_pseudolabel(parameters_for(store, **options))
        with closing(run.predictor):
            find = run.table.receipts.find
            receipts = [find(shard.key, run=run.run) or predict_shard(run, shard) for shard in run.shards]
            return commit_pseudo_labels(run, receipts)

    return to_version
