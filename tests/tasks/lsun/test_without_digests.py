"""What goes on with images that were ingested without digests: nothing may take an empty sha256 for one."""

import os
import tarfile
from collections import Counter

import pytest

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import (
    DomainsParameters,
    ExportParameters,
    FindLeaksParameters,
    SplitParameters,
    StatisticsParameters,
)
from labelmill.schemas.selection import VERDICTS_SCHEMA
from labelmill.tasks.export.formats import export_dataset
from labelmill.tasks.export.job import prepare_export
from labelmill.tasks.export.place_images import read_image
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.splits.domains import write_domains
from labelmill.tasks.splits.leaks import find_leaks
from labelmill.tasks.splits.split import divide
from labelmill.tasks.statistics.job import commit_statistics, count_images, prepare_statistics
from labelmill.tasks.store import open_store

from .conftest import encode, write_lmdb


@pytest.fixture
def store(bedroom, ingest, tmp_path):
    """A store with the same twelve images listed in lsun and read in `read`."""
    ingest(bedroom, digests="none")
    ingest(bedroom, dataset="read")
    return str(tmp_path / "store")


def count(store, dataset):
    run = prepare_statistics(StatisticsParameters(store=store, dataset=dataset, workers=1))
    return commit_statistics(run, [count_images(run, shard) for shard in run.shards])


def test_count_images_without_digests_gives_the_same_statistics(store):
    listed, read = count(store, "lsun"), count(store, "read")
    assert listed.metadata["mean"] == read.metadata["mean"]
    assert listed.metadata["pixels"] == read.metadata["pixels"] == 12 * 48 * 40


def test_prepare_statistics_without_digests_images_written_anew_are_counted_again(store, bedroom, ingest):
    keys = [shard.key for shard in prepare_statistics(StatisticsParameters(store=store, dataset="lsun")).shards]
    os.utime(bedroom / "data.mdb", (0, 0))
    ingest(bedroom, digests="none")
    again = prepare_statistics(StatisticsParameters(store=store, dataset="lsun")).shards
    assert set(keys).isdisjoint(shard.key for shard in again)


def export(store, tmp_path, **options):
    run = prepare_export(ExportParameters(store=store, dataset="lsun", out=str(tmp_path / "out"), **options))
    export_dataset(run)
    return run.exported


@pytest.mark.parametrize("form", ["csv", "imagefolder"])
def test_export_without_digests_writes_what_has_the_length_of_the_ingest(store, tmp_path, form):
    exported = export(store, tmp_path, format=form)
    assert (exported.written, exported.left_out) == (12, {})


def test_export_webdataset_without_digests_has_suffixes_by_content(store, tmp_path):
    assert export(store, tmp_path, format="webdataset").written == 12
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        suffixes = Counter(name.rpartition(".")[2] for name in tar.getnames())
    assert suffixes == {"webp": 10, "jpg": 2, "json": 12, "cls": 12}


def test_read_image_without_digest_another_length_is_changed(tmp_path):
    path = tmp_path / "one.webp"
    path.write_bytes(encode(1))
    row = {"sha256": None, "bytes": len(encode(1))}
    assert read_image(str(path), row) == encode(1)
    with pytest.raises(RejectedImage, match="changed: "):
        read_image(str(path), {**row, "bytes": row["bytes"] + 1})


def test_prepare_export_without_sizes_is_refused_where_the_format_states_them(store, tmp_path):
    with pytest.raises(BadInput, match=r"format: .*12 of lsun lack"):
        export(store, tmp_path, format="coco")
    assert not (tmp_path / "out").exists()


def test_divide_without_digests_finds_no_same_bytes(store):
    made = divide(SplitParameters(store=store, dataset="lsun"))
    assert (made.leaks, sum(made.sizes.values())) == (0, 12)


def test_write_domains_without_digests_draws_each_image(store):
    made = write_domains(
        DomainsParameters(store=store, dataset="lsun", other="read", fractions="train=0.5,test=0.5", seed=1)
    )
    assert min(made.sizes["source train"], made.sizes["source test"]) > 0
    assert made.leaks == 0


def test_find_leaks_without_digests_says_how_many_it_did_not_compare(store):
    found = find_leaks(FindLeaksParameters(store=store, tables="lsun.images,read.images"))
    assert (found.rows, found.unknown, found.contents) == (24, 12, 0)


@pytest.mark.parametrize("digests", ["none", "sha256"])
def test_prepare_lsun_another_environment_in_the_same_split_is_refused_not_swapped(bedroom, ingest, rows_of, digests):
    first = ingest(bedroom, digests=digests)["train"]
    tower = write_lmdb(bedroom.parent / "tower_train_lmdb", [encode(20)])
    with pytest.raises(BadInput, match=r"source: split 'train' of dataset lsun also holds 12 images"):
        ingest(tower, digests=digests)
    both = rows_of(ingest(bedroom.parent, digests=digests)["train"])
    assert [row["image_id"] for row in both if row["label"] == 0] == [row["image_id"] for row in rows_of(first)]
    assert sum(row["label"] == 9 for row in both) == 1


def test_ingest_without_digests_is_refused_where_people_gave_verdicts(store, bedroom, ingest):
    rows = VERDICTS_SCHEMA.empty_table()
    table = open_store(store).table("lsun.verdicts")
    lineage = open_store(store).table("lsun.images").version().lineage
    table.append([table.write_part(rows, key="0" * 20)], schema=rows.schema, metadata={}, lineage=lineage)
    with pytest.raises(BadInput, match="digests: people gave verdicts"):
        ingest(bedroom, digests="none")
    assert [version.rows for version in ingest(bedroom, digests="sha256").values()] == [12]
