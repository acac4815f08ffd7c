"""The label cache: built once by whoever comes first, never trusted blindly, never in the way of training."""

import logging
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import labelmill
from labelmill.models.label_encoding import encode_maps, gather_maps, top_cells
from labelmill.models.label_pooling import pool_label_maps
from labelmill.schemas.errors import StoreDamaged
from labelmill.schemas.label_maps import LABEL_MAPS_SCHEMA, MAP_COLUMNS, LabelMapMetadata
from labelmill.schemas.versions import Lineage
from labelmill.tasks.label_cache import CACHE_VARIABLE, cache_folder
from labelmill.tasks.store import open_store

STEP = 1 / 32
GRID, TOP_K, CLASSES = (5, 3), 4, 700
PART_SIZES = (7, 1, 12)
TABLE = "tiny.label_maps"
REJECTED_ROW = 4
TWO_DAYS_S = 2 * 24 * 3600.0


def make_store(folder):
    """A store of three parts with row 4 rejected; return it and its maps, None for the rejected one."""
    store = open_store(folder, create=True)
    table = store.table(TABLE)
    maps, parts = [], []
    for number, size in enumerate(PART_SIZES):
        dense = torch.randn(size, CLASSES, *GRID, generator=torch.Generator().manual_seed(number)) * 3
        encoded = encode_maps(top_cells(dense, TOP_K), step=STEP)
        mine = [None if len(maps) + row == REJECTED_ROW else m for row, m in enumerate(encoded)]
        columns = {name: [m and getattr(m, name) for m in mine] for name in MAP_COLUMNS}
        columns["image_id"] = [f"{number}/{row}.jpg" for row in range(size)]
        columns |= {"split": ["train"] * size, "status": ["done" if m else "rejected" for m in mine]}
        rows = [pa.array(columns.get(f.name, [None] * size), f.type) for f in LABEL_MAPS_SCHEMA]
        parts.append(table.write_part(pa.table(rows, schema=LABEL_MAPS_SCHEMA), key=f"{number:016d}"))
        maps += mine
    metadata = LabelMapMetadata(
        grid=GRID, top_k=TOP_K, input_size=(64, 64), logit_step=STEP, num_classes=CLASSES, classes=None,
        temperature=0.9, absent_share=0.8, calibration={}, label_match={}, teacher={},
    ).model_dump(mode="json")  # fmt: skip
    lineage = Lineage(code="", flow="", parameters={}, parameters_digest="", inputs={}, time="", host="")
    table.replace(parts, schema=LABEL_MAPS_SCHEMA, metadata=metadata, lineage=lineage)
    return store, maps


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("cached") / "store")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, which does not exist yet."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache"


@pytest.fixture
def rows():
    return torch.tensor([19, 0, 7, 8, 6, 0, 12])


@pytest.fixture
def boxes():
    return torch.rand(7, 2, 2, generator=torch.Generator().manual_seed(0)).sort(1).values.flatten(1)


@pytest.fixture
def expected(made, rows, boxes):
    """The labels as they come out without any cache."""
    shape = {"grid": GRID, "top_k": TOP_K, "step": STEP, "num_classes": CLASSES}
    batch = gather_maps([made[1][row] for row in rows.tolist()], **shape)
    return pool_label_maps(batch, boxes, absent_share=0.8, temperature=0.9)


@pytest.fixture
def warned(caplog):
    """The warnings of the cache so far."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def open_maps(made):
    return labelmill.LabelMaps(made[0], TABLE)


def test_pool_through_a_fresh_and_through_a_filled_cache_gives_the_stored_maps(made, cache, rows, boxes, expected):
    fresh, filled = open_maps(made).pool(rows, boxes), open_maps(made).pool(rows, boxes)
    torch.testing.assert_close(fresh, expected, atol=1e-6, rtol=0)
    assert torch.equal(fresh, filled)
    files = sorted(path.name for path in cache.iterdir())
    assert files == sorted(f"{part.sha256}-maps1.npy" for part in open_maps(made).version.parts)


def test_pool_builds_only_the_parts_it_needs_and_prepare_all(made, cache, boxes):
    maps = open_maps(made)
    maps.pool(torch.tensor([7]), boxes[:1])
    assert len(list(cache.iterdir())) == 1
    maps.prepare()
    assert len(list(cache.iterdir())) == 3


def test_pool_of_a_filled_cache_builds_nothing_again(made, cache, rows, boxes):
    open_maps(made).prepare()
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    open_maps(made).pool(rows, boxes)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_prepare_keeps_no_file_descriptor(made, cache, rows, boxes):
    """ImageNet has some 650 parts, a process may have 1,024 files open."""
    maps = open_maps(made)
    maps.pool(rows[:1], boxes[:1])
    before = len(os.listdir("/proc/self/fd"))
    maps.prepare()
    assert len(maps._parts) == 3
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("environment", ["XDG_CACHE_HOME", "HOME"])
def test_cache_folder_without_the_variable_is_the_users(environment, tmp_path, monkeypatch):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(environment, str(tmp_path))
    assert cache_folder() == tmp_path / ("labelmill" if environment == "XDG_CACHE_HOME" else ".cache/labelmill")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"no array " * 50), id="no array"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-5]), id="cut"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"more"), id="longer"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:20]), id="cut in the head"),
        pytest.param(lambda path: np.save(path, np.zeros((12, 60), np.float32)), id="another type"),
        pytest.param(lambda path: np.save(path, np.load(path)[:-1]), id="a row too few"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_pool_of_a_damaged_file_builds_it_again(made, cache, rows, boxes, expected, damage):
    open_maps(made).prepare()
    path = cache / f"{open_maps(made).version.parts[2].sha256}-maps1.npy"
    whole = path.read_bytes()
    damage(path)
    torch.testing.assert_close(open_maps(made).pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert path.read_bytes() == whole


def test_pool_of_a_map_that_points_outside_its_list_is_refused(made, cache, boxes):
    """A part of the store may be wrong itself: it must not read beside the list."""
    open_maps(made).prepare()
    path = cache / f"{open_maps(made).version.parts[1].sha256}-maps1.npy"
    with path.open("rb") as stream:
        records = np.lib.format.read_array(stream)
    records["index"][0, 3] = 255
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, records)
        stream.write(zlib.crc32(records.tobytes()).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="label map: expected places 0 to"):
        open_maps(made).pool(torch.tensor([7]), boxes[:1])


def spoil_a_record(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def spoil_the_header(path):
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(100) + content[200:])


def empty_the_records(path):
    content = path.read_bytes()
    path.write_bytes(content[:256] + bytes(len(content) - 256))


def put_a_pipe_there(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [spoil_a_record, spoil_the_header, empty_the_records, put_a_pipe_there])
def test_pool_of_a_file_that_was_spoilt_makes_it_anew(made, cache, rows, boxes, expected, spoil):
    """Damage that neither size nor shape shows must not become labels."""
    open_maps(made).prepare()
    path = cache / f"{open_maps(made).version.parts[1].sha256}-maps1.npy"
    whole = path.read_bytes()
    spoil(path)
    torch.testing.assert_close(open_maps(made).pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert path.read_bytes() == whole


def test_pool_where_the_folder_cannot_be_made_keeps_maps_in_memory_and_says_so_once(
    made, tmp_path, monkeypatch, rows, boxes, expected, warned
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    maps = open_maps(made)
    for _ in range(2):
        torch.testing.assert_close(maps.pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert len(warned()) == 1
    assert "kept in memory" in warned()[0]


def test_pool_with_a_folder_that_may_not_be_written_keeps_maps_in_memory(
    tmp_path, ordinary_user_folder, monkeypatch, rows, boxes, warned
):
    made = make_store(ordinary_user_folder / "store")
    (ordinary_user_folder / "cache").mkdir(mode=0o500)
    monkeypatch.setenv(CACHE_VARIABLE, str(ordinary_user_folder / "cache"))
    labels = open_maps(made).pool(rows, boxes)
    assert labels.shape == (7, CLASSES)
    assert len(warned()) == 1
    assert list((ordinary_user_folder / "cache").iterdir()) == []


def test_pool_from_a_filled_folder_that_may_not_be_written_uses_it(ordinary_user_folder, monkeypatch, boxes, warned):
    made = make_store(ordinary_user_folder / "store")
    monkeypatch.setenv(CACHE_VARIABLE, str(ordinary_user_folder / "cache"))
    open_maps(made).prepare()
    (ordinary_user_folder / "cache").chmod(0o500)
    maps = open_maps(made)
    maps.pool(torch.tensor([0]), boxes[:1])
    assert warned() == []
    (ordinary_user_folder / "cache").chmod(0o700)


def test_pool_on_a_full_disk_keeps_maps_in_memory(made, cache, rows, boxes, expected, warned, monkeypatch):
    def full(stream, array, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    torch.testing.assert_close(open_maps(made).pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert len(warned()) == 1
    assert "No space left" in warned()[0]
    assert list(cache.iterdir()) == []


def test_pool_without_any_home_keeps_maps_in_memory(made, rows, boxes, expected, warned, monkeypatch):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    torch.testing.assert_close(open_maps(made).pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert CACHE_VARIABLE in warned()[0]


def test_pool_of_a_part_that_is_not_what_the_version_lists_is_not_cached(tmp_path, cache, boxes):
    store, _ = make_store(tmp_path / "store")
    maps = labelmill.LabelMaps(store, TABLE)
    parts = [tmp_path / "store" / "tiny" / "label_maps" / part.path for part in maps.version.parts]
    parts[0].write_bytes(parts[2].read_bytes())
    with pytest.raises(StoreDamaged, match="does not match its sha256; run labelmill verify"):
        maps.pool(torch.tensor([0]), boxes[:1])
    assert not cache.exists()


BUILD = """
import sys, torch, labelmill
maps = labelmill.LabelMaps(labelmill.open_store(sys.argv[1]), "tiny.label_maps")
print("ready", flush=True)
sys.stdin.readline()
rows = torch.tensor([0, 7, 8, 19])
print(maps.pool(rows, torch.tensor([[0.1, 0.2, 0.7, 0.9]]).expand(4, 4)).double().sum(0)[:50].tolist())
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_pool_in_several_processes_that_build_at_once_gives_the_same(made, cache):
    running = [start(BUILD, str(made[0].root)) for _ in range(2)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 2
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(set(said)) == 1
    assert len(said[0]) > 100
    assert len(list(cache.iterdir())) == 3  # and nothing unfinished


KILLED = """
import os, signal, sys, numpy as np, torch, labelmill
def half(stream, array, **options):
    stream.write(array.tobytes()[: array.nbytes // 2])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
np.lib.format.write_array = half
labelmill.LabelMaps(labelmill.open_store(sys.argv[1]), "tiny.label_maps").pool(torch.tensor([0]), torch.rand(1, 4))
"""


def test_pool_after_a_builder_was_killed_builds_and_sweeps_only_what_is_old(made, cache, rows, boxes, expected):
    killed = start(KILLED, str(made[0].root))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.name.startswith(".writing-")

    first = open_maps(made)
    torch.testing.assert_close(first.pool(rows[:1], boxes[:1]), expected[:1], atol=1e-6, rtol=0)
    assert left.exists()  # it may be at work still

    os.utime(left, (time.time() - TWO_DAYS_S,) * 2)
    torch.testing.assert_close(open_maps(made).pool(rows, boxes), expected, atol=1e-6, rtol=0)
    assert not left.exists()
    assert len(list(cache.iterdir())) == 3
