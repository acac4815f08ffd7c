"""Channel statistics are exact, whatever the shards and threads, and every image is counted."""

import math
import os
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.parameters import IngestFolderParameters, StatisticsParameters
from labelmill.schemas.statistics import describe_channel
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.statistics.job import commit_statistics, count_images, prepare_statistics
from labelmill.tasks.statistics.page import build_statistics_page
from labelmill.tasks.statistics.shard import count_values
from labelmill.tasks.store import open_store


@settings(deadline=None)
@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_count_values_any_picture_gives_numpys_mean_and_deviation(picture):
    counts = count_values([picture, picture]).reshape(3, 256)
    for channel in range(3):
        found = describe_channel("red", counts[channel].tolist())
        values = picture[..., channel].astype(np.float64) / 255
        assert found.pixels == 2 * values.size
        assert found.mean == pytest.approx(values.mean(), abs=1e-12)
        assert found.deviation == pytest.approx(values.std(), abs=1e-7)


def test_describe_channel_no_pixels_has_no_mean():
    assert math.isnan(describe_channel("red", [0] * 256).mean)


def test_describe_channel_counts_beyond_doubles_are_exact():
    counts = [0] * 256
    counts[254] = counts[255] = 10**15
    assert describe_channel("red", counts).deviation == pytest.approx(0.5 / 255, rel=1e-15)


@pytest.fixture
def dataset(tmp_path):
    """Two classes of noise in several formats and sizes, one broken file, some in a split of their own."""
    random = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / ("train" if number < 9 else "val") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        picture = picture.convert("L") if number == 3 else picture
        picture.save(folder / (f"{number}.png" if number % 3 else f"{number}.jpg"))
    (tmp_path / "train/class0/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    for split in ("train", "val"):
        run = prepare_folder(
            IngestFolderParameters(
                source=str(tmp_path / split),
                store=str(tmp_path / "store"),
                dataset="pets",
                split=split,
                id_prefix=f"{split}/",
            )
        )
        commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
    return tmp_path


@pytest.fixture
def count(dataset):
    def run(**options):
        given = {"store": str(dataset / "store"), "dataset": "pets", "workers": 2, "shard_size": 4, **options}
        prepared = prepare_statistics(StatisticsParameters(**given))
        found = [prepared.table.receipts.find(shard.key, run=prepared.run) for shard in prepared.shards]
        receipts = [r or count_images(prepared, s) for r, s in zip(found, prepared.shards, strict=True)]
        return commit_statistics(prepared, receipts), sum(r is None for r in found)

    return run


def pixels_of(folder):
    return np.concatenate(
        [
            np.asarray(Image.open(p).convert("RGB")).reshape(-1, 3)
            for p in sorted(folder.rglob("*.*"))
            if p.stem != "broken"
        ]
    )


def test_statistics_of_a_dataset_are_those_of_all_its_pixels(dataset, count):
    version, _ = count()
    pixels = np.concatenate([pixels_of(dataset / "train"), pixels_of(dataset / "val")]) / 255
    assert version.metadata["mean"] == pytest.approx(pixels.mean(0), abs=1e-9)
    assert version.metadata["std"] == pytest.approx(pixels.std(0), abs=1e-9)
    with open_store(dataset / "store").connect() as sql:
        rows = sql.execute("SELECT split, channel, mean, deviation, pixels FROM pets.statistics_channels").fetchall()
        assert len(rows) == 9
        found = {(split, channel): values for split, channel, *values in rows}
        for split, values in (("train", pixels_of(dataset / "train") / 255), (None, pixels)):
            for place, channel in enumerate(("red", "green", "blue")):
                wanted = [values[:, place].mean(), values[:, place].std(), len(values)]
                assert found[split, channel] == pytest.approx(wanted)
        images = dict(
            sql.execute("SELECT coalesce(reason, status), sum(images) FROM pets.statistics GROUP BY ALL").fetchall()
        )
    assert images == {"done": 12, "truncated": 1} or images == {"done": 12, "corrupt": 1}


def test_statistics_shards_and_reruns_change_nothing(dataset, count):
    first, counted = count()
    again, recounted = count()
    other, _ = count(shard_size=100, workers=1)
    assert (counted, recounted, again.number) == (4, 0, first.number)
    assert other.metadata == first.metadata


def test_statistics_images_that_vanish_or_change_are_counted_by_reason_and_tried_again(dataset, count):
    moved = dataset / "train/class0/0.jpg"
    kept = moved.read_bytes()
    moved.unlink()
    (dataset / "train/class1/1.png").write_bytes(b"another")
    version, _ = count(split="train")
    rows = open_store(dataset / "store").table("pets.statistics").read(version, ["reason", "images"]).to_pylist()
    assert {r["reason"]: r["images"] for r in rows if r["reason"] in ("missing", "changed")} == {
        "missing": 1,
        "changed": 1,
    }
    moved.write_bytes(kept)
    mended, counted = count(split="train")
    assert counted >= 1
    assert mended.metadata["pixels"] > version.metadata["pixels"]


def test_statistics_folder_gone_is_an_error_not_a_table_of_rejects(dataset, count):
    os.rename(dataset / "train", dataset / "elsewhere")
    with pytest.raises(WorkFailed, match="split train: nothing is in"):
        count(split="train")
    version, _ = count(split="train", image_root=str(dataset / "elsewhere"))
    assert version.metadata["mean"] == pytest.approx(pixels_of(dataset / "elsewhere").mean(0) / 255, abs=1e-9)


def test_prepare_statistics_unknown_split_is_refused_with_the_list(count):
    with pytest.raises(BadInput, match="split: expected one of train, val, got 'test'"):
        count(split="test")
    with pytest.raises(BadInput, match="image_root: the splits train, val have a folder each"):
        count(image_root="/x")


def test_build_statistics_page_is_one_file_of_well_formed_plots(dataset, count):
    version, _ = count()
    page = build_statistics_page(open_store(dataset / "store"), version)
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 6
    for plot in plots:
        ET.fromstring(plot)
    assert not re.search(r"(src|href)=|<script", page)
    for text in ("class0", "class1", "Rejected", "png", f"{version.metadata['mean'][0]:.6f}"):
        assert text in page
