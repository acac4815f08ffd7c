"""What the tests of label map files share: ingested images, map files for them, imports and exports without Prefect."""

from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

from labelmill.schemas.parameters import ExportLabelMapsParameters, ImportLabelMapsParameters
from labelmill.tasks import stop
from labelmill.tasks.store import open_store

SHAPE = (3, 2, 4)
"""(k, H, W): no two of them equal, so that no axis passes for another."""

CLASSES = 40


@pytest.fixture
def imagenet(tmp_path, make_images, ingest):
    """A store with 21 images in parts of 13 and 8."""
    ingest(make_images(tmp_path / "train", {"n01443537": 11, "n01484850": 10}), tmp_path / "store", chunk_size=13)
    return tmp_path / "store"


@pytest.fixture(scope="session")
def image_uris():
    """Return the uris of a store's images, in row order."""

    def find(store):
        images = open_store(store).table("imagenet.images")
        return images.read(images.version(), ["uri"])["uri"].to_pylist()

    return find


@pytest.fixture(scope="session")
def draw_map():
    """Return the authors' tensor [2, k, H, W] of an image: ids distinct in each cell, scores in no order."""

    def draw(seed, shape=SHAPE, classes=CLASSES):
        random = np.random.default_rng(seed)
        top_k, height, width = shape
        ids = random.random((height, width, classes)).argsort(-1)[..., :top_k].transpose(2, 0, 1)
        return torch.from_numpy(np.stack([random.normal(2, 4, shape), ids])).float()

    return draw


@pytest.fixture(scope="session")
def write_maps(draw_map, image_uris):
    """Write a map file for each image of a store; return the tensors by the image's uri."""

    def write(folder, store, *, uris=None, seed=0, change=lambda tensor: tensor, **options):
        tensors = {}
        for number, uri in enumerate(uris or image_uris(store)):
            tensors[uri] = draw_map(seed + number, **options)
            path = folder / PurePosixPath(uri).with_suffix(".pt")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(change(tensors[uri]), path)
        return tensors

    return write


@pytest.fixture(scope="session")
def import_parameters():
    def parameters(store, source, **options):
        small = {"teacher": "l2-475", "num_classes": CLASSES, "shard_size": 5, "workers": 2, "input_size": "64x128"}
        given = {"store": str(store), "dataset": "imagenet", "source": str(source), **small, **options}
        return ImportLabelMapsParameters(**given)

    return parameters


@pytest.fixture(scope="session")
def import_maps(import_parameters):
    """Import without Prefect, as the flow does it; return the version."""

    def run(store, source, **options):
        from labelmill.tasks.label_map_files.import_job import commit_import, prepare_import
        from labelmill.tasks.label_map_files.import_shard import import_shard

        prepared = prepare_import(import_parameters(store, source, **options))
        find = prepared.job.label_maps.receipts.find
        receipts = [
            find(shard.key, run=prepared.job.run) or import_shard(prepared.job, shard) for shard in prepared.shards
        ]
        return commit_import(prepared, receipts)

    return run


@pytest.fixture(scope="session")
def export_maps():
    """Export without Prefect, as the flow does it; return what became of the files."""

    def run(store, out, **options):
        from labelmill.tasks.label_map_files.export_job import prepare_export
        from labelmill.tasks.label_map_files.export_shard import Exported, export_shard

        given = {"store": str(store), "table": "imagenet.label_maps", "out": str(out), "workers": 2, **options}
        prepared = prepare_export(ExportLabelMapsParameters(**given))
        return sum((export_shard(prepared, shard) for shard in prepared.shards), Exported())

    return run


@pytest.fixture(scope="session")
def rows_of():
    """Return the rows of a version of the label maps, the latest by default."""

    def read(store, number=None):
        table = open_store(store).table("imagenet.label_maps")
        version = table.version(number)
        return table.read(version, [column.name for column in version.columns]).to_pylist()

    return read


@pytest.fixture
def asked_to_stop():
    stop.ask_to_stop()
    yield
    stop._asked.clear()
