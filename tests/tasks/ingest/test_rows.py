"""Rows of the images table from real files, good and broken."""

import hashlib
import os
import socket
import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.tasks.ingest.list_files import list_files
from labelmill.tasks.ingest.rows import RowSettings, build_rows

CLASSES = ClassList(classes=(ClassName(name="cat"), ClassName(name="tench", wnid="n01440764")), source="test")


def settings(root, **changes):
    values = {
        "root": str(root),
        "split": "train",
        "classes": CLASSES,
        "labels_required": False,
        "max_pixels": 100_000,
        "max_bytes": 1_000_000,
        "workers": 2,
    }
    return RowSettings(**(values | changes))


def encode(kind, mode="RGB", **options):
    image = Image.linear_gradient("L").resize((40, 30)).convert("F" if mode in "FI" else "RGB").convert(mode)
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animate(kind):
    frame = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    return encode(kind, save_all=True, append_images=[frame.rotate(180)])


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def forge_png(width, height):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def forge_bmp(width, height):
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def forge_tiff(width, height):
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 1)]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        + bytes(4)
    )


def forge_webp(width, height):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def resize_jpeg(width, height):
    data = encode("jpeg")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def with_thumbnail():
    return encode("jpeg", exif=b"Exif\0\0" + encode("jpeg"))


def cut(data, part=0.5):
    return data[: int(len(data) * part)]


BROKEN_FILES = {
    "01_empty.jpg": (b"", "empty"),
    "02_empty.png": (b"", "empty"),
    "03_text.jpg": (b"this is no picture\n", "not_an_image"),
    "04_html.jpg": (b"<html><body>404 Not Found</body></html>", "not_an_image"),
    "05_zeros.jpg": (bytes(5000), "not_an_image"),
    "06_text_like_bmp.bmp": (b"BM and other initials", "not_an_image"),
    "07_zip.jpg": (b"PK\x03\x04" + bytes(100), "not_an_image"),
    "08_svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "09_first_bytes.jpg": (b"\xff\xd8\xff", "truncated"),
    "10_header_only.jpg": (cut(encode("jpeg"), 0.2), "truncated"),
    "11_half.jpg": (cut(encode("jpeg", quality=95)), "truncated"),
    "12_cut_after_thumbnail.jpg": (cut(with_thumbnail(), 0.97), "truncated"),
    "13_cut_progressive.jpg": (cut(encode("jpeg", progressive=True, quality=95), 0.7), "truncated"),
    "14_signature.png": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "15_half.png": (cut(encode("png", compress_level=0)), "truncated"),
    "16_half.gif": (cut(encode("gif", "P"), 0.9), "truncated"),
    "17_header.gif": (b"GIF89a", "truncated"),
    "18_half.webp": (cut(encode("webp", lossless=True)), "truncated"),
    "19_header.webp": (encode("webp")[:20], "truncated"),
    "20_half.bmp": (cut(encode("bmp")), "truncated"),
    "21_half.tif": (cut(encode("tiff")), "truncated"),
    "22_no_directory.tif": (cut(encode("tiff", compression="tiff_lzw"), 0.6), "truncated"),
    "23_zeroed.jpg": (encode("jpeg")[:20] + bytes(600), "corrupt"),
    "24_no_ihdr.png": (encode("png").replace(b"IHDR", b"IHDX"), "corrupt"),
    "25_bad_crc.png": (encode("png").replace(b"\x08\x02\0\0\0", b"\x08\x07\0\0\0"), "corrupt"),
    "26_no_directory_entries.tif": (b"II*\0\x08\0\0\0" + bytes(20), "corrupt"),
    "27_bomb.png": (forge_png(50_000, 50_000), "too_many_pixels"),
    "28_bomb.jpg": (resize_jpeg(65_000, 65_000), "too_many_pixels"),
    "29_bomb.webp": (forge_webp(16_384, 16_384), "too_many_pixels"),
    "30_bomb.tif": (forge_tiff(4_000_000_000, 4_000_000_000), "too_many_pixels"),
    "31_bomb.bmp": (forge_bmp(2_000_000_000, 2_000_000_000), "too_many_pixels"),
    "32_animated.gif": (animate("gif"), "animated"),
    "33_animated.png": (animate("png"), "animated"),
    "34_animated.webp": (animate("webp"), "animated"),
    "35_picture.ppm": (encode("ppm"), "unsupported_format"),
    "36_float.tif": (encode("tiff", "F"), "unsupported_format"),
    "37_too_long.jpg": (encode("jpeg") + bytes(1_000_000), "too_many_bytes"),
}
BROKEN_ENTRIES = {"38_fifo.jpg": "not_a_file", "39_link.jpg": "broken_link", "40_socket.jpg": "not_a_file"}


@pytest.fixture
def broken_folder(tmp_path, monkeypatch):
    for name, (data, _) in BROKEN_FILES.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "38_fifo.jpg")
    (tmp_path / "39_link.jpg").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("40_socket.jpg")
    return tmp_path


def test_build_rows_forty_broken_files_give_forty_reasons(broken_folder):
    files = list_files(broken_folder)
    rows = build_rows(files, [0] * len(files), settings(broken_folder)).to_pylist()
    assert len(rows) == 40
    expected = {name: reason for name, (_, reason) in BROKEN_FILES.items()} | BROKEN_ENTRIES
    assert {row["image_id"]: row["reason"] for row in rows} == expected
    assert {row["status"] for row in rows} == {"rejected"}
    assert all(row["detail"] for row in rows)
    assert {row["label"] for row in rows} == {0}


def test_build_rows_good_file_fills_every_column(write_tree, jpeg):
    source = write_tree("n01440764/a.jpg")
    os.utime(source / "n01440764/a.jpg", ns=(5, 1_700_000_000_123_456_789))
    table = build_rows(list_files(source), [1], settings(source, split="val", id_prefix="val/"))
    assert table.schema.equals(IMAGES_SCHEMA)
    assert table.to_pylist() == [
        {
            "image_id": "val/n01440764/a.jpg",
            "split": "val",
            "uri": "n01440764/a.jpg",
            "width": 40,
            "height": 30,
            "format": "jpeg",
            "mode": "RGB",
            "exif_orientation": None,
            "bytes": len(jpeg),
            "mtime_ns": 1_700_000_000_123_456_789,
            "sha256": hashlib.sha256(jpeg).hexdigest(),
            "label": 1,
            "labels": None,
            "wnid": "n01440764",
            "status": "done",
            "reason": None,
            "detail": None,
        }
    ]


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_build_rows_many_files_keep_order_and_report_progress(write_tree, workers):
    paths = [f"{number:04d}.jpg" for number in range(150)]
    source = write_tree(*paths)
    files = list_files(source)
    calls = []
    labels = [number % 2 for number in range(150)]
    table = build_rows(files, labels, settings(source, workers=workers), on_done=calls.append)
    assert table.column("image_id").to_pylist() == paths
    assert table.column("label").to_pylist() == labels
    assert set(table.column("status").to_pylist()) == {"done"}
    assert sum(calls) == 150
    assert len(calls) > 1 or workers == 1


def test_build_rows_no_files_give_an_empty_table(tmp_path):
    table = build_rows([], [], settings(tmp_path))
    assert table.num_rows == 0
    assert table.schema.equals(IMAGES_SCHEMA)


def test_build_rows_callback_that_raises_ends_the_work(write_tree):
    source = write_tree(*(f"{number}.jpg" for number in range(100)))
    files = list_files(source)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_rows(files, [None] * len(files), settings(source), on_done=stop)


@pytest.mark.parametrize(("required", "reason"), [(True, "no_label"), (False, None)])
def test_build_rows_file_without_label_is_rejected_only_where_required(write_tree, required, reason):
    source = write_tree("a.jpg")
    (row,) = build_rows(list_files(source), [None], settings(source, labels_required=required)).to_pylist()
    assert (row["reason"], row["status"] == "rejected") == (reason, required)
    assert (row["width"], row["label"]) == (40, None)


def test_build_rows_name_that_is_not_utf8_is_rejected(tmp_path, jpeg):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(jpeg)
    (row,) = build_rows(list_files(tmp_path), [0], settings(tmp_path)).to_pylist()
    assert (row["image_id"], row["uri"], row["reason"]) == (r"caf\xe9.jpg", r"caf\xe9.jpg", "bad_name")


def test_build_rows_unreadable_folder_and_file_are_rows(ordinary_user_folder, jpeg):
    (ordinary_user_folder / "locked").mkdir(mode=0)
    (ordinary_user_folder / "x.jpg").write_bytes(jpeg)
    (ordinary_user_folder / "x.jpg").chmod(0)
    files = list_files(ordinary_user_folder)
    rows = build_rows(files, [None, None], settings(ordinary_user_folder)).to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rows] == [("locked", "unreadable"), ("x.jpg", "unreadable")]


def test_build_rows_file_that_vanished_since_the_listing_is_missing(write_tree):
    source = write_tree("a.jpg", "b.jpg")
    files = list_files(source)
    (source / "a.jpg").unlink()
    rows = build_rows(files, [0, 0], settings(source)).to_pylist()
    assert [row["reason"] for row in rows] == ["missing", None]
