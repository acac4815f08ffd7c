"""The flows of LSUN, SVHN, CIFAR and archives by their commands, on the session's server."""

import io
import tarfile
import zipfile

import lmdb
import numpy as np
import pytest
import scipy.io
from PIL import Image

from labelmill.tasks.store import open_store


def write_environment(folder, count):
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**22) as environment, environment.begin(write=True) as transaction:
        for number in range(count):
            data = io.BytesIO()
            Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(data, "webp")
            transaction.put(f"{number:040x}".encode(), data.getvalue())


@pytest.mark.prefect
def test_run_flows_of_data_sets_end_with_their_counts(tmp_path, run_apart):
    write_environment(tmp_path / "lsun/tower_train_lmdb", 5)
    write_environment(tmp_path / "lsun/tower_val_lmdb", 3)
    store = tmp_path / "store"
    lsun = ["run", "ingest-lsun", "--source", tmp_path / "lsun", "--store", store, "--dataset", "lsun"]
    code, out, _ = run_apart(*lsun, "--digests", "none", "--chunk-size", "2")
    assert code == 0, out
    assert "splits train, val" in out
    assert open_store(store).table("lsun.images").version().rows == 8
    code, out, _ = run_apart(*lsun, "--export", "jpeg", "--out", tmp_path / "jpegs")
    assert code == 0, out
    assert "5 written, 0 as they were, 0 without a file" in out
    assert len(list((tmp_path / "jpegs").rglob("*.jpg"))) == 8

    pixels = np.zeros((32, 32, 3, 4), np.uint8)
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [2], [3]], np.uint8)})
    code, out, _ = run_apart(
        "run", "ingest-svhn", "--source", tmp_path / "test_32x32.mat", "--store", store, "--dataset", "svhn", "--out",
        tmp_path / "pngs",
    )  # fmt: skip
    assert code == 0, out
    assert open_store(store).table("svhn.images").version().rows == 4

    (tmp_path / "test_batch.bin").write_bytes(bytes(2 * 3073))
    (tmp_path / "batches.meta.txt").write_text("airplane\ncar\n")
    with tarfile.open(tmp_path / "cifar.tar", "w") as tar:
        for name in ("test_batch.bin", "batches.meta.txt"):
            tar.add(tmp_path / name, f"cifar/{name}")
    code, out, _ = run_apart(
        "run", "ingest-cifar", "--source", tmp_path / "cifar.tar", "--store", store, "--dataset", "cifar"
    )  # fmt: skip
    assert code == 0, out
    assert open_store(store).table("cifar.images").version().rows == 2

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good", b"1")
        archive.writestr("../bad", b"2")
    code, out, _ = run_apart("run", "extract", "--source", tmp_path / "x.zip", "--out", tmp_path / "extracted")
    assert code == 0, out
    assert (tmp_path / "extracted/good").read_bytes() == b"1"
    assert [line.split() for line in out.splitlines() if "bad_name" in line] == [["bad_name", "1"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ingest-lsun", "--source", "{here}", "--dataset", "x"], "source: .* holds no data.mdb"),
        (["ingest-lsun", "--source", "{here}/none", "--dataset", "x"], "source: .*No such file"),
        (["ingest-cifar", "--source", "{here}", "--dataset", "x"], "source: .*expected data_batch_1.bin"),
        (["ingest-svhn", "--source", "{here}", "--dataset", "x", "--out", "{here}/o"], "source: .*train_32x32.mat"),
    ],
)
def test_run_flow_of_a_data_set_refuses_at_once_what_is_not_there(tmp_path, run, options, said, monkeypatch):
    import re

    monkeypatch.setattr("labelmill.cli_run.prefect_api", lambda: pytest.fail("a server was started"))
    given = [option.format(here=tmp_path) for option in options]
    code, _, err = run("run", *given, "--store", tmp_path / "store")
    assert code != 0
    assert re.search(said, err)


@pytest.mark.parametrize("made", [None, b"no archive"])
def test_run_extract_of_no_archive_is_refused_at_once(tmp_path, run, made):
    if made:
        (tmp_path / "x.tar").write_bytes(made)
    code, _, err = run("run", "extract", "--source", tmp_path / "x.tar", "--out", tmp_path / "out")
    assert code != 0
    assert "source: " in err
    assert not (tmp_path / "out").exists()
