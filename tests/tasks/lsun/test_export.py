"""Exports of LSUN: files as LSUN's own exporter lays them out, whole, never in the place of others, resumed."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.tasks import stop
from labelmill.tasks.images.convert_jpeg import convert_jpeg
from labelmill.tasks.images.rejected_image import RejectedImage

from .conftest import encode, key_of, write_lmdb


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_values_copy_has_the_bytes_the_suffix_and_six_folders(tmp_path, ingest, rows_of):
    values = [encode(1), encode(2, "jpeg"), encode(3, "png"), b"something else"]
    folder = write_lmdb(tmp_path / "bridge_val_lmdb", values)
    rows = rows_of(ingest(folder, export="copy", out=str(tmp_path / "out"))["val"])
    expected = {}
    for value, suffix in zip(values, (".webp", ".jpg", ".png", ".bin"), strict=True):
        key = key_of(value).decode()
        expected[f"{'/'.join(key[:6])}/{key}{suffix}"] = value
    assert files_in(tmp_path / "out") == expected
    assert {row["uri"] for row in rows} == set(expected)
    assert {row["image_id"] for row in rows} == {f"bridge_val_lmdb/{key_of(value).decode()}" for value in values}
    assert sorted(str(row["reason"]) for row in rows) == ["None", "None", "None", "not_an_image"]


def test_export_values_of_several_environments_lie_below_their_names(tmp_path, ingest):
    for name in ("bridge_train_lmdb", "tower_train_lmdb"):
        write_lmdb(tmp_path / "all" / name, [encode(1)])
    ingest(tmp_path / "all", export="copy", out=str(tmp_path / "out"))
    key = key_of(encode(1)).decode()
    assert set(files_in(tmp_path / "out")) == {
        f"{name}_train_lmdb/{'/'.join(key[:6])}/{key}.webp" for name in ("bridge", "tower")
    }


@pytest.mark.parametrize("digests", ["none", "sha256"])
@pytest.mark.parametrize("export", ["copy", "jpeg"])
def test_export_values_again_writes_nothing_and_makes_no_version(bedroom, tmp_path, ingest, export, digests):
    options = {"export": export, "out": str(tmp_path / "out"), "digests": digests}
    first = ingest(bedroom, **options)["train"]
    inodes = {path: os.stat(path).st_ino for path in (tmp_path / "out").rglob("*.*")}
    lost = min(inodes)
    lost.unlink()
    before = files_in(tmp_path / "out")
    ingest(bedroom, **options)
    after = {path: os.stat(path).st_ino for path in (tmp_path / "out").rglob("*.*")}
    assert after.keys() == inodes.keys()
    assert {path for path in inodes if after[path] != inodes[path]} <= {lost}
    assert before.items() < files_in(tmp_path / "out").items()
    second = ingest(bedroom, **options)["train"]
    assert second.rows == first.rows
    assert ingest(bedroom, **options)["train"] == second


def test_export_values_jpeg_has_the_pixels_reduced_to_the_short_side(bedroom, tmp_path, ingest, rows_of):
    rows = rows_of(ingest(bedroom, export="jpeg", out=str(tmp_path / "out"), quality=95, short_side=20)["train"])
    assert {(row["width"], row["height"], row["format"], row["status"]) for row in rows} == {(24, 20, "jpeg", "done")}
    value = encode(0)
    key = key_of(value).decode()
    made = Image.open(tmp_path / "out" / "/".join(key[:6]) / f"{key}.jpg")
    wanted = Image.open(io.BytesIO(value)).resize((24, 20), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(made, np.int16) - np.asarray(wanted, np.int16))
    assert difference.mean() < 12
    assert b"quality 95, short side at most 20" in made.info["comment"]


def test_export_values_jpeg_what_cannot_be_decoded_is_a_row_and_no_file(tmp_path, ingest, rows_of):
    cut, good = encode(1)[:-200], encode(2)
    animated = encode(3, "gif", save_all=True, append_images=[Image.new("RGB", (48, 40))])
    folder = write_lmdb(
        tmp_path / "tower_train_lmdb", {b"0" * 40: cut, b"1" * 40: animated, b"2" * 40: b"x", b"3" * 40: good}
    )
    version = ingest(folder, export="jpeg", out=str(tmp_path / "out"))["train"]
    rows = rows_of(version)
    assert [row["reason"] for row in rows] == ["truncated", "animated", "not_an_image", None]
    assert [path.rpartition("/")[2] for path in files_in(tmp_path / "out")] == [f"{'3' * 40}.jpg"]
    assert ingest(folder, export="jpeg", out=str(tmp_path / "out"))["train"] == version


@pytest.mark.parametrize("export", ["copy", "jpeg"])
def test_export_values_never_replaces_what_is_there(bedroom, tmp_path, ingest, export):
    value = encode(4)
    key = key_of(value).decode()
    place = tmp_path / "out" / "/".join(key[:6]) / f"{key}{'.webp' if export == 'copy' else '.jpg'}"
    place.parent.mkdir(parents=True)
    for make in (lambda: place.write_bytes(b"mine"), place.mkdir, lambda: place.symlink_to("/etc/passwd")):
        make()
        with pytest.raises(BadInput, match=rf"^out: .*{key}.*nothing is replaced"):
            ingest(bedroom, export=export, out=str(tmp_path / "out"))
        assert place.is_symlink() or place.is_dir() or place.read_bytes() == b"mine"
        place.rmdir() if place.is_dir() else place.unlink()
    assert not list((tmp_path / "store").rglob("versions/*"))


def test_export_values_other_settings_do_not_take_the_files_of_these(bedroom, tmp_path, ingest):
    ingest(bedroom, export="jpeg", out=str(tmp_path / "out"), quality=50)
    with pytest.raises(BadInput, match="was not made from this value with these settings"):
        ingest(bedroom, export="jpeg", out=str(tmp_path / "out"), quality=60)


def test_export_values_stopped_goes_on_where_it_was(bedroom, tmp_path, ingest, monkeypatch):
    from labelmill.schemas.parameters import IngestLsunParameters
    from labelmill.tasks.lsun import export as export_module
    from labelmill.tasks.lsun.environments import find_environments

    from .conftest import export

    monkeypatch.setattr(export_module, "_VALUES_AT_ONCE", 2)
    parameters = IngestLsunParameters(
        source=str(bedroom), store=str(tmp_path / "store"), dataset="lsun", export="copy", out=str(tmp_path / "out"),
        workers=1,
    )  # fmt: skip
    environments = find_environments(parameters.source, "auto")["train"]
    with pytest.raises(WorkFailed, match="stopped on request"):
        export(parameters, environments, on_batch=lambda batch: stop.ask_to_stop())
    stop._asked.clear()
    done = files_in(tmp_path / "out")
    assert len(done) == 2
    batches = []
    export(parameters, environments, on_batch=batches.append)
    assert sum(value.written for batch in batches for value in batch) == 10
    assert len(files_in(tmp_path / "out")) == 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_convert_jpeg_is_upright(orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255  # bright in the upper left
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "jpeg", quality=95, exif=exif)
    made = Image.open(io.BytesIO(convert_jpeg(data.getvalue(), quality=95, short_side_px=None, max_pixels=10**6)))
    from PIL import ImageOps

    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data.getvalue())))
    assert made.size == wanted.size
    assert np.abs(np.asarray(made, np.int16) - np.asarray(wanted, np.int16)).mean() < 3


def test_convert_jpeg_of_a_bomb_is_refused_undecoded():
    data = encode(1, size=(900, 900))
    with pytest.raises(RejectedImage, match="900x900 pixels, more than 1000"):
        convert_jpeg(data, quality=90, short_side_px=None, max_pixels=1000)
