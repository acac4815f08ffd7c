"""Tars and zips: what is listed is what is in them, read in place, and what is wrong with them is said."""

import io
import os
import tarfile
import zipfile

import pytest
from tests.tasks.tar_files import add

from labelmill.schemas.errors import BadInput
from labelmill.schemas.images import Reason
from labelmill.tasks.containers.tar_members import list_tar
from labelmill.tasks.containers.zip_members import list_zip
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage
from labelmill.tasks.ingest.list_files import FileKind
from labelmill.tasks.ingest.sources import list_source
from labelmill.tasks.store import open_store

FILES = {"n01440764/a.JPEG": b"first" * 100, "n01440764/b b.JPEG": b"", "n01443537/ü\n.JPEG": b"x" * 5000}


def make_tar(path, files, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files.items():
            add(tar, name, data)
    return str(path)


def make_nested(path, files):
    """The way of ILSVRC2012_img_train.tar: a tar for each folder."""
    folders = {}
    for name, data in files.items():
        folder, _, rest = name.partition("/")
        folders.setdefault(folder, {})[rest] = data
    with tarfile.open(path, "w") as tar:
        for folder, inner in folders.items():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as within:
                for name, data in inner.items():
                    add(within, name, data)
            add(tar, f"{folder}.tar", packed.getvalue())
    return str(path)


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


MAKERS = {
    "tar": (lambda path: make_tar(path, FILES), list_tar),
    "tar of pax": (lambda path: make_tar(path, FILES, format=tarfile.PAX_FORMAT), list_tar),
    "tar of tars": (lambda path: make_nested(path, FILES), list_tar),
    "zip": (lambda path: make_zip(path, FILES), list_zip),
    "stored zip": (lambda path: make_zip(path, FILES, zipfile.ZIP_STORED), list_zip),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_list_archive_members_are_read_where_they_lie(tmp_path, kind):
    make, list_members = MAKERS[kind]
    listed = list_members(make(tmp_path / "archive"))
    assert [member.path for member in listed] == sorted(FILES)
    assert {member.kind for member in listed} == {FileKind.FILE}
    read = {m.path: read_bytes(f"{tmp_path}/{m.uri}", max_bytes=10_000) for m in listed}
    assert read == FILES
    assert {m.path: m.size for m in listed} == {name: len(data) for name, data in FILES.items()}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_read_bytes_of_a_member_too_large_is_rejected_unread(tmp_path, kind):
    make, list_members = MAKERS[kind]
    large = next(m for m in list_members(make(tmp_path / "archive")) if m.size == 5000)
    with pytest.raises(RejectedImage) as rejected:
        read_bytes(f"{tmp_path}/{large.uri}", max_bytes=4999)
    assert rejected.value.reason is Reason.TOO_MANY_BYTES


def test_list_tar_names_that_lead_out_links_and_devices_are_entries_of_their_own(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        add(tar, "../out.jpg", b"1")
        add(tar, "/etc/passwd", b"2")
        add(tar, "a/../../b.jpg", b"3")
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "device", type=tarfile.CHRTYPE)
        add(tar, "./good.jpg", b"4")
        add(tar, "folder", type=tarfile.DIRTYPE)
    kinds = {member.path: member.kind for member in list_tar(str(tmp_path / "bad.tar"))}
    assert kinds == {
        "../out.jpg": FileKind.OUTSIDE, "/etc/passwd": FileKind.OUTSIDE, "a/../../b.jpg": FileKind.OUTSIDE,
        "link.jpg": FileKind.LINK_MEMBER, "hard.jpg": FileKind.LINK_MEMBER, "device": FileKind.LINK_MEMBER,
        "good.jpg": FileKind.FILE,
    }  # fmt: skip


def test_list_zip_names_that_lead_out_and_links_are_entries_of_their_own(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name in ("../out.jpg", "/etc/passwd", "good.jpg", "folder/"):
            archive.writestr(name, b"" if name.endswith("/") else b"1")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("packed.jpg", b"1" * 99, zipfile.ZIP_BZIP2)
    kinds = {member.path: member.kind for member in list_zip(str(tmp_path / "bad.zip"))}
    assert kinds == {
        "../out.jpg": FileKind.OUTSIDE, "/etc/passwd": FileKind.OUTSIDE, "link.jpg": FileKind.LINK_MEMBER,
        "packed.jpg": FileKind.UNREADABLE_MEMBER, "good.jpg": FileKind.FILE,
    }  # fmt: skip


def test_list_tar_of_two_members_with_one_name_takes_the_last_as_tar_does(tmp_path):
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        add(tar, "a.jpg", b"old")
        add(tar, "a.jpg", b"new!")
    (member,) = list_tar(str(tmp_path / "twice.tar"))
    assert read_bytes(f"{tmp_path}/{member.uri}", max_bytes=9) == b"new!"


@pytest.mark.parametrize("cut", [100, 700, 1500])
def test_list_tar_cut_short_is_refused_with_its_name(tmp_path, cut):
    path = tmp_path / "cut.tar"
    make_tar(path, {"a.jpg": b"a" * 600, "b.jpg": b"b" * 600})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInput, match=r"cut\.tar: not a tar that can be read to its end"):
        list_tar(str(path))


def test_list_tar_compressed_says_what_to_do(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        add(tar, "a.jpg", b"1")
    with pytest.raises(BadInput, match=r"compressed by gzip.*decompress it first"):
        list_tar(str(tmp_path / "x.tar.gz"))


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, b"\0" * 10240])
def test_list_tar_of_something_else_is_refused_or_empty(tmp_path, data):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    if data.strip(b"\0"):
        with pytest.raises(BadInput):
            list_tar(str(path))
    else:
        try:
            assert list_tar(str(path)) == []
        except BadInput:
            assert not data  # a tar has at least its end


def test_list_zip_cut_short_is_refused_with_its_name(tmp_path):
    path = tmp_path / "cut.zip"
    make_zip(path, FILES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match=r"cut\.zip: not a zip that can be read"):
        list_zip(str(path))


def test_read_bytes_of_a_zip_bomb_stops_at_its_stated_size(tmp_path):
    """The directory says a hundred bytes, the stream holds ten million."""
    path = tmp_path / "bomb.zip"
    make_zip(path, {"a.jpg": b"0" * 10_000_000})
    (member,) = list_zip(str(path))
    lying = member.uri.replace("+10000000", "+100")
    assert lying != member.uri
    with pytest.raises(RejectedImage) as rejected:
        read_bytes(f"{tmp_path}/{lying}", max_bytes=100_000)
    assert rejected.value.reason is Reason.CORRUPT


def test_read_bytes_of_a_container_that_is_gone_or_shorter_is_rejected(tmp_path):
    path = tmp_path / "x.tar"
    make_tar(path, {"a.jpg": b"a" * 600})
    (member,) = list_tar(str(path))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(RejectedImage) as rejected:
        read_bytes(f"{tmp_path}/{member.uri}", max_bytes=1000)
    assert rejected.value.reason is Reason.TRUNCATED
    path.unlink()
    with pytest.raises(RejectedImage) as rejected:
        read_bytes(f"{tmp_path}/{member.uri}", max_bytes=1000)
    assert rejected.value.reason is Reason.MISSING


@pytest.mark.parametrize("kind", ["tar", "tar of tars", "zip", "stored zip"])
def test_ingest_and_relabel_of_an_archive_give_what_its_folder_gives(tmp_path, make_images, ingest, relabel, kind):
    folder = make_images(tmp_path / "train", {"n01443537": 7, "n01484850": 6})
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.JPEG"))}
    makers = {
        "tar": make_tar, "tar of tars": make_nested, "zip": make_zip,
        "stored zip": lambda path, files: make_zip(path, files, zipfile.ZIP_STORED),
    }  # fmt: skip
    (tmp_path / "archives").mkdir()
    makers[kind](tmp_path / "archives" / "train", files)
    columns = ["image_id", "width", "height", "format", "bytes", "sha256", "label", "wnid", "status"]
    maps = ["image_id", "status", "label", "pooled_class", "pooled_prob", "classes", "top", "drops"]
    found = {}
    for name, source in {"folder": folder, "archive": tmp_path / "archives" / "train"}.items():
        store = tmp_path / name
        version = ingest(source, store)
        relabelled = relabel(store)
        opened = open_store(store)
        found[name] = (
            opened.table("imagenet.images").read(version, columns).to_pylist(),
            opened.table("imagenet.label_maps").read(relabelled, maps).to_pylist(),
        )
    assert found["archive"] == found["folder"]
    assert {row["status"] for row in found["archive"][0]} == {"done"}


def test_ingest_of_an_archive_that_was_rewritten_reads_it_again(tmp_path, make_images, ingest):
    folder = make_images(tmp_path / "train", {"n01443537": 3})
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.JPEG"))}
    archive = tmp_path / "train.tar"
    make_tar(archive, files)
    assert ingest(archive, tmp_path / "store").number == 1
    assert ingest(archive, tmp_path / "store").number == 1
    times = os.stat(archive).st_mtime_ns
    make_tar(archive, dict(reversed(files.items())))
    os.utime(archive, ns=(times, times))  # even so: the members lie elsewhere
    version = ingest(archive, tmp_path / "store")
    images = open_store(tmp_path / "store").table("imagenet.images")
    rows = images.read(version, ["uri", "sha256", "status"]).to_pylist()
    assert version.number == 2
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        read_bytes(f"{tmp_path}/{row['uri']}", max_bytes=10**6)


def test_list_tar_a_damaged_tar_in_it_is_an_entry_beside_the_others(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as inner:
        add(inner, "a.jpg", b"a" * 600)
        add(inner, "b.jpg", b"b" * 600)
    files = {
        "cats.tar": whole.getvalue(),
        "cut.tar": whole.getvalue()[:1700],
        "odd.tar": b"no tar " * 300,
        "z.jpg": b"z",
    }
    listed = list_tar(make_tar(tmp_path / "outer.tar", files))
    rejected = {member.path: member.rejected[0] for member in listed if member.rejected}
    assert rejected == {"cut.tar": Reason.CORRUPT, "odd.tar": Reason.CORRUPT}
    assert [m.path for m in listed if not m.rejected] == ["cats/a.jpg", "cats/b.jpg", "cut/a.jpg", "z.jpg"]


def test_list_source_of_an_archive_counts_members_that_later_ones_hide(tmp_path):
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for data in (b"first", b"second", b"third"):
            add(tar, "a.jpg", data)
    listing = list_source(str(tmp_path / "two.tar"))
    assert (len(listing.files), listing.repeated) == (1, 2)
    assert read_bytes(f"{tmp_path}/{listing.files[0].uri}", max_bytes=10) == b"third"


def test_list_source_of_a_damaged_archive_names_the_parameter(tmp_path):
    path = make_tar(tmp_path / "cut.tar", FILES)
    os.truncate(path, 3000)
    with pytest.raises(BadInput, match=r"source: .*cut\.tar: not a tar that can be read"):
        list_source(path)


@pytest.mark.parametrize("damage", ["cut in a header", "cut before a header", "a header overwritten"])
def test_list_tar_that_ends_at_a_header_is_refused_not_shortened(tmp_path, damage):
    path = make_tar(tmp_path / "some.tar", {f"{n}.jpg": b"x" * 600 for n in range(3)})
    if damage == "a header overwritten":
        with open(path, "r+b") as file:
            file.seek(1536)  # of the second member
            file.write(b"\xff" * 512)
    else:
        os.truncate(path, 1536 + (100 if damage == "cut in a header" else 0))
    with pytest.raises(BadInput, match="neither a member nor the end mark at byte 1536"):
        list_tar(path)
