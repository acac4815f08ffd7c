"""What the tests of LSUN share: small environments, and ingests as the flow does them."""

import hashlib
import io

import lmdb
import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.ingest.job import IngestRun, commit_ingest, ingest_chunk
from labelmill.tasks.ingest.manifest import write_piece
from labelmill.tasks.lsun.environments import find_environments
from labelmill.tasks.lsun.export import ExportTarget, export_values
from labelmill.tasks.lsun.job import prepare_lsun
from labelmill.tasks.written.file_tree import FileTree


def encode(seed, form="webp", size=(48, 40), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(data, form, **options)
    return data.getvalue()


def key_of(value):
    return hashlib.sha1(value).hexdigest().encode()


def write_lmdb(folder, values):
    """Write an environment; `values` are images under the digests of their bytes, or a dictionary by key."""
    pairs = values if isinstance(values, dict) else {key_of(value): value for value in values}
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in pairs.items():
            transaction.put(key, value)
    return folder


@pytest.fixture
def bedroom(tmp_path):
    """bedroom_train_lmdb with ten WebP images and two JPEGs."""
    values = [encode(n) for n in range(10)] + [encode(n, "jpeg") for n in range(10, 12)]
    return write_lmdb(tmp_path / "lsun" / "bedroom_train_lmdb", values)


@pytest.fixture
def ingest(tmp_path):
    """Ingest LSUN into tmp_path/store without Prefect, as the flow does; return the versions' rows by split."""

    def run(source, *, stop_after=None, **options):
        given = {"source": str(source), "store": str(tmp_path / "store"), "dataset": "lsun", "workers": 2, **options}
        parameters = IngestLsunParameters(**{name: value for name, value in given.items() if value is not None})
        found = {}
        for split, environments in find_environments(parameters.source, parameters.split).items():
            of_split = parameters.model_copy(update={"split": split})
            entries = export(of_split, environments) if parameters.out else None
            version = do(prepare_lsun(of_split, environments, entries), stop_after)
            found[split] = version
        return found

    return run


def export(parameters, environments, on_batch=lambda batch: None):
    with FileTree(parameters.out) as tree:
        return [
            value.entry
            for environment in environments
            for value in export_values(
                environment,
                ExportTarget(
                    tree=tree, folder=f"{environment.name}/" if len(environments) > 1 else "", parameters=parameters
                ),
                on_batch=on_batch,
            )
        ]


def do(prepared, stop_after=None):
    if isinstance(prepared, IngestRun):
        run, work = prepared, [lambda c=c: ingest_chunk(prepared, c) for c in prepared.chunks]
    else:
        run, work = prepared.run, [lambda c=c: write_piece(prepared, c.number) for c in prepared.run.chunks]
    receipts = [
        run.table.receipts.find(chunk.key, run=run.run) or make()
        for chunk, make in list(zip(run.chunks, work, strict=True))[:stop_after]
    ]
    return None if stop_after else commit_ingest(run, receipts)


@pytest.fixture
def rows_of(tmp_path):
    """Return a version's rows, as dictionaries."""
    from labelmill.tasks.store import open_store
    from labelmill.tasks.store.verify import verify_version

    def read(version):
        table = open_store(tmp_path / "store").table("lsun.images")
        assert verify_version(table, version.number).problems == ()
        return table.read(version, IMAGES_SCHEMA.names).to_pylist()

    return read
