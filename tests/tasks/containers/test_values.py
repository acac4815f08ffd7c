"""LMDB values, Parquet cells and pixel planes: read as they are, and refused with a reason."""

import io
import multiprocessing
import threading

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.schemas.members import LmdbValue, ParquetCell, PixelPlanes, name_member
from labelmill.tasks.containers.lmdb_values import list_lmdb
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage

VALUES = {f"{number:040x}".encode(): bytes([number]) * (number * 700) for number in range(1, 40)}


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "bedroom_train_lmdb"
    with lmdb.open(str(folder), map_size=2**24) as opened, opened.begin(write=True) as transaction:
        for key, value in VALUES.items():
            transaction.put(key, value)
    return folder


def reason_of(path, **options):
    with pytest.raises(RejectedImage) as rejected:
        read_bytes(path, **{"max_bytes": 10**6, **options})
    return rejected.value.reason


def test_list_lmdb_gives_keys_and_lengths_in_order(environment):
    assert list(list_lmdb(str(environment))) == [(key, len(value)) for key, value in sorted(VALUES.items())]


def test_read_bytes_of_lmdb_values_from_many_threads_and_a_fork(environment):
    def read(key):
        return read_bytes(name_member(str(environment), LmdbValue(key=key)), max_bytes=10**6)

    wrong = []

    def read_all():
        wrong.extend(key for key, value in VALUES.items() if read(key) != value)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    child = multiprocessing.get_context("fork").Process(target=lambda: read_all() or (wrong and 1 / 0))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_read_bytes_of_an_lmdb_says_what_is_missing(environment):
    assert reason_of(name_member(str(environment), LmdbValue(key=b"none"))) is Reason.MISSING
    assert reason_of(name_member(f"{environment}-none", LmdbValue(key=b"none"))) is Reason.MISSING
    largest = name_member(str(environment), LmdbValue(key=max(VALUES)))
    assert reason_of(largest, max_bytes=100) is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "none"])
def test_list_lmdb_that_is_damaged_is_refused(environment, damage):
    data = environment / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(
        {"truncated": whole[: len(whole) // 2], "foreign": b"no lmdb" * 5000, "empty": b""}.get(damage, b"")
    )
    if damage == "none":
        data.unlink()
    with pytest.raises(BadInput, match="not an LMDB environment that can be read"):
        list(list_lmdb(str(environment)))
    assert reason_of(name_member(str(environment), LmdbValue(key=min(VALUES)))) is Reason.UNREADABLE


@pytest.fixture
def parquet(tmp_path):
    images = [{"bytes": bytes([number]) * number, "path": f"{number}.jpg"} for number in range(100)]
    images[7] = None
    table = pa.table({"image": images, "label": list(range(100)), "plain.dot": [b"d"] * 100})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=30)
    return tmp_path / "x.parquet"


@pytest.mark.parametrize("row", [0, 29, 30, 99, 31, 5])
def test_read_bytes_of_a_parquet_cell_is_the_rows(parquet, row):
    path = name_member(str(parquet), ParquetCell(row=row, column="image.bytes"))
    assert read_bytes(path, max_bytes=1000) == bytes([row]) * row


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (100, "image.bytes", Reason.MISSING),
        (7, "image.bytes", Reason.CORRUPT),
        (0, "label", Reason.CORRUPT),
        (0, "none", Reason.UNREADABLE),
        (0, "image.none", Reason.UNREADABLE),
    ],
)
def test_read_bytes_of_a_parquet_cell_that_is_none_is_rejected(parquet, row, column, reason):
    assert reason_of(name_member(str(parquet), ParquetCell(row=row, column=column))) is reason


def test_read_bytes_of_a_parquet_file_that_was_replaced_reads_the_new_one(parquet):
    path = name_member(str(parquet), ParquetCell(row=1, column="image.bytes"))
    assert read_bytes(path, max_bytes=9) == b"\1"
    pq.write_table(pa.table({"image": [{"bytes": b"a"}, {"bytes": b"new"}]}), parquet)
    assert read_bytes(path, max_bytes=9) == b"new"


@pytest.mark.parametrize(("height", "width"), [(32, 32), (5, 7), (1, 1), (3, 2)])
def test_read_bytes_of_pixel_planes_decodes_to_those_pixels(tmp_path, height, width):
    planes = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    (tmp_path / "batch.bin").write_bytes(b"\7" + planes.tobytes())
    uri = name_member(str(tmp_path / "batch.bin"), PixelPlanes(offset=1, height=height, width=width))
    image = Image.open(io.BytesIO(read_bytes(uri, max_bytes=10**5)))
    assert (image.format, image.mode, image.size) == ("BMP", "RGB", (width, height))
    np.testing.assert_array_equal(np.asarray(image), planes.transpose(1, 2, 0))
