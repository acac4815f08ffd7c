"""Reading one image file: facts, bytes, pixels, and a reason for everything else."""

import hashlib
import os
import random
import socket
import struct
import sys
import threading
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from labelmill.schemas.images import Reason, Status
from labelmill.tasks.images.decode_image import decode_rgb
from labelmill.tasks.images.inspect_image import ImageFacts, inspect_image
from labelmill.tasks.images.read_bytes import read_bytes
from labelmill.tasks.images.rejected_image import RejectedImage

MAX_PIXELS = 100_000
MAX_BYTES = 1_000_000


def picture(mode="RGB", size=(37, 23)):
    """A picture with blocks of random colours: smooth enough for JPEG, different in x and y."""
    blocks = np.random.default_rng(7).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    rgb = np.kron(blocks, np.ones((8, 8, 1), np.uint8))[: size[1], : size[0]]
    if mode == "I;16":
        return Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    image = Image.fromarray(rgb).convert(mode)
    if mode.endswith("A"):
        image.putalpha(100)
    return image


def encode(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def two_frames(kind):
    first = picture()
    return encode(first, kind, save_all=True, append_images=[first.rotate(180)])


def png_of_size(width, height):
    """A PNG header that promises any size, and no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    empty = b"IDAT"
    end = b"IEND"
    tail = b"".join(struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind)) for kind in (empty, end))
    return b"\x89PNG\r\n\x1a\n" + chunk + tail


def with_size(jpeg, width, height):
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def inspect(folder, data, **limits):
    path = folder / "x.jpg"
    path.write_bytes(data)
    return inspect_image(path, **({"max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES} | limits))


@pytest.fixture
def undecodable(monkeypatch):
    """Make every decode of pixels fail the test."""

    def fail(*_):
        pytest.fail("decoded pixels of a file whose structure is whole")

    for kind in [ImageFile.ImageFile, *ImageFile.ImageFile.__subclasses__()]:
        if "load" in vars(kind):
            monkeypatch.setattr(kind, "load", fail)


GOOD = [
    pytest.param("jpeg", "RGB", {}, id="jpeg"),
    pytest.param("jpeg", "L", {}, id="jpeg-grey"),
    pytest.param("jpeg", "CMYK", {}, id="jpeg-cmyk"),
    pytest.param("jpeg", "RGB", {"progressive": True}, id="jpeg-progressive"),
    pytest.param("png", "RGB", {}, id="png"),
    pytest.param("png", "P", {}, id="png-palette"),
    pytest.param("png", "1", {}, id="png-bits"),
    pytest.param("png", "LA", {}, id="png-grey-alpha"),
    pytest.param("png", "RGBA", {}, id="png-alpha"),
    pytest.param("png", "I;16", {}, id="png-16-bit"),
    pytest.param("webp", "RGB", {}, id="webp"),
    pytest.param("webp", "RGBA", {"lossless": True}, id="webp-lossless-alpha"),
    pytest.param("bmp", "RGB", {}, id="bmp"),
    pytest.param("bmp", "1", {}, id="bmp-bits"),
    pytest.param("gif", "P", {}, id="gif"),
    pytest.param("tiff", "RGB", {}, id="tiff"),
    pytest.param("tiff", "RGB", {"compression": "tiff_lzw"}, id="tiff-lzw"),
    pytest.param("tiff", "I;16", {}, id="tiff-16-bit"),
]


@pytest.mark.parametrize(("kind", "mode", "options"), GOOD)
def test_inspect_image_whole_file_gives_facts_without_decoding(tmp_path, undecodable, kind, mode, options):
    data = encode(picture(mode), kind, **options)
    assert inspect(tmp_path, data) == ImageFacts(
        width=37,
        height=23,
        format=kind,
        mode=mode,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        status=Status.DONE,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_inspect_image_exif_orientation_is_read_and_size_kept(tmp_path, kind, orientation):
    facts = inspect(tmp_path, encode(picture(), kind, exif=exif(orientation)))
    assert (facts.exif_orientation, facts.width, facts.height) == (orientation, 37, 23)


@pytest.mark.parametrize("orientation", [0, 9, 4000])
def test_inspect_image_wrong_exif_orientation_gives_none(tmp_path, orientation):
    facts = inspect(tmp_path, encode(picture(), "jpeg", exif=exif(orientation)))
    assert (facts.exif_orientation, facts.status) == (None, Status.DONE)


def test_inspect_image_broken_exif_is_accepted_although_warnings_are_errors(tmp_path):
    # A directory that promises 200 entries and an x resolution beyond the end: Pillow warns about both.
    broken = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 200, 0x011A, 5, 1, 99_999) + b"\0\0"
    data = encode(picture(), "jpeg", exif=broken)
    with pytest.raises(UserWarning, match=r"EXIF|Truncated|Metadata"):
        Image.open(BytesIO(data)).getexif()
    assert inspect(tmp_path, data).status is Status.DONE
    assert decode_rgb(data, max_pixels=MAX_PIXELS).size == (37, 23)


JPEG = encode(picture(), "jpeg")
PNG = encode(picture(), "png")
THUMBNAILED = encode(picture(), "jpeg", exif=b"Exif\0\0" + encode(picture(size=(8, 8)), "jpeg"))

REJECTED = [
    pytest.param(b"", Reason.EMPTY, id="empty"),
    pytest.param(b"hello, I am a text\n" * 50, Reason.NOT_AN_IMAGE, id="text"),
    pytest.param(b"BM is also how a text can start", Reason.NOT_AN_IMAGE, id="text-like-bmp"),
    pytest.param(b"\0" * 1000, Reason.NOT_AN_IMAGE, id="zeros"),
    pytest.param(JPEG[:3], Reason.TRUNCATED, id="jpeg-start"),
    pytest.param(JPEG[: len(JPEG) // 2], Reason.TRUNCATED, id="jpeg-half"),
    pytest.param(THUMBNAILED[: THUMBNAILED.rindex(b"\xff\xda") + 30], Reason.TRUNCATED, id="jpeg-after-thumbnail"),
    pytest.param(PNG[:10], Reason.TRUNCATED, id="png-start"),
    pytest.param(PNG[: len(PNG) // 2], Reason.TRUNCATED, id="png-half"),
    pytest.param(encode(picture("P"), "gif")[:-100], Reason.TRUNCATED, id="gif-cut"),
    pytest.param(encode(picture(), "webp")[:-50], Reason.TRUNCATED, id="webp-cut"),
    pytest.param(encode(picture(), "bmp")[:-50], Reason.TRUNCATED, id="bmp-cut"),
    pytest.param(encode(picture(), "tiff")[:-50], Reason.TRUNCATED, id="tiff-cut"),
    pytest.param(encode(picture(), "tiff", compression="tiff_lzw")[:-80], Reason.TRUNCATED, id="tiff-directory-cut"),
    pytest.param(JPEG[:20] + b"\0" * len(JPEG[20:]), Reason.CORRUPT, id="jpeg-zeroed"),
    pytest.param(PNG.replace(b"IHDR", b"IHDX"), Reason.CORRUPT, id="png-header-chunk"),
    pytest.param(png_of_size(60_000, 60_000), Reason.TOO_MANY_PIXELS, id="png-bomb"),
    pytest.param(with_size(JPEG, 65_000, 65_000), Reason.TOO_MANY_PIXELS, id="jpeg-bomb"),
    pytest.param(with_size(JPEG, 401, 250), Reason.TOO_MANY_PIXELS, id="jpeg-just-too-large"),
    pytest.param(two_frames("gif"), Reason.ANIMATED, id="gif-animated"),
    pytest.param(two_frames("png"), Reason.ANIMATED, id="png-animated"),
    pytest.param(two_frames("webp"), Reason.ANIMATED, id="webp-animated"),
    pytest.param(encode(picture(), "ppm"), Reason.UNSUPPORTED_FORMAT, id="ppm"),
    pytest.param(encode(picture(), "ico", sizes=[(16, 16)]), Reason.UNSUPPORTED_FORMAT, id="ico"),
    pytest.param(b"\0\0\0\x18ftypheic" + b"\0" * 40, Reason.UNSUPPORTED_FORMAT, id="heic"),
    pytest.param(encode(picture("F"), "tiff"), Reason.UNSUPPORTED_FORMAT, id="tiff-float"),
    pytest.param(encode(picture("I"), "tiff"), Reason.UNSUPPORTED_FORMAT, id="tiff-32-bit"),
]


@pytest.mark.parametrize(("data", "reason"), REJECTED)
def test_inspect_image_unusable_content_gives_reason_and_hash(tmp_path, data, reason):
    facts = inspect(tmp_path, data)
    assert (facts.status, facts.reason) == (Status.REJECTED, reason), facts.detail
    assert facts.detail
    assert (facts.bytes, facts.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(("data", "reason"), REJECTED)
def test_decode_rgb_unusable_content_raises_same_reason(data, reason):
    with pytest.raises(RejectedImage) as caught:
        decode_rgb(data, max_pixels=MAX_PIXELS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("limit", [1, 37 * 23 - 1])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "gif", "tiff"])
def test_inspect_image_more_pixels_than_allowed_is_never_decoded(tmp_path, undecodable, kind, limit):
    facts = inspect(tmp_path, encode(picture(), kind), max_pixels=limit)
    assert (facts.reason, facts.width, facts.height) == (Reason.TOO_MANY_PIXELS, 37, 23)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(1)}], ids=["vp8", "vp8l", "vp8x"])
def test_inspect_image_webp_with_too_many_pixels_is_not_even_opened(tmp_path, monkeypatch, options):
    # Pillow's opener allocates the canvas twice.
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", lambda _: pytest.fail("opened"))
    facts = inspect(tmp_path, encode(picture(), "webp", **options), max_pixels=37 * 23 - 1)
    assert (facts.reason, facts.width, facts.height) == (Reason.TOO_MANY_PIXELS, 37, 23)


def test_inspect_image_as_many_pixels_as_allowed_is_accepted(tmp_path):
    assert inspect(tmp_path, JPEG, max_pixels=37 * 23).status is Status.DONE


def test_inspect_image_beyond_pillows_own_bound_follows_max_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert inspect(tmp_path, JPEG).status is Status.DONE
    assert decode_rgb(JPEG, max_pixels=MAX_PIXELS).size == (37, 23)


def test_inspect_image_complete_gif_without_trailer_is_accepted(tmp_path):
    data = encode(picture(), "gif")[:-1]
    assert inspect(tmp_path, data).status is Status.DONE


def test_inspect_image_mpo_is_read_as_its_first_jpeg(tmp_path):
    data = encode(picture(), "mpo", save_all=True, append_images=[picture(size=(10, 10))])
    facts = inspect(tmp_path, data)
    assert (facts.status, facts.format, facts.width, facts.height) == (Status.DONE, "jpeg", 37, 23)


def test_inspect_image_png_named_jpg_is_known_by_content(tmp_path):
    assert inspect(tmp_path, PNG).format == "png"


def test_inspect_image_file_of_max_bytes_is_accepted_and_larger_rejected(tmp_path):
    assert inspect(tmp_path, JPEG, max_bytes=len(JPEG)).status is Status.DONE
    assert inspect(tmp_path, JPEG, max_bytes=len(JPEG) - 1).reason is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(("segments", "reason"), [(99, None), (101, Reason.CORRUPT)])
def test_inspect_image_jpeg_with_very_many_exif_segments_is_rejected_unopened(tmp_path, segments, reason):
    segment = b"\xff\xe1" + struct.pack(">H", 8) + b"Exif\0\0"
    facts = inspect(tmp_path, JPEG[:2] + segment * segments + JPEG[2:])
    assert (facts.reason, facts.width is None) == (reason, reason is not None)


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_broken_link(path):
    path.symlink_to(path.parent / "gone")


def make_looping_link(path):
    path.symlink_to(path)


def make_file_for_nobody(path):
    path.write_bytes(JPEG)
    path.chmod(0)


SPECIAL = [
    pytest.param(make_fifo, Reason.NOT_A_FILE, id="fifo"),
    pytest.param(make_socket, Reason.NOT_A_FILE, id="socket"),
    pytest.param(os.mkdir, Reason.NOT_A_FILE, id="folder"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), Reason.NOT_A_FILE, id="device"),
    pytest.param(make_broken_link, Reason.BROKEN_LINK, id="broken-link"),
    pytest.param(make_looping_link, Reason.BROKEN_LINK, id="looping-link"),
    pytest.param(lambda _: None, Reason.MISSING, id="vanished"),
    pytest.param(make_file_for_nobody, Reason.UNREADABLE, id="no-permission"),
]


@pytest.mark.parametrize(("make", "reason"), SPECIAL)
def test_inspect_image_no_readable_file_gives_reason_at_once(ordinary_user_folder, make, reason):
    path = ordinary_user_folder / "x.jpg"
    make(path)
    facts = inspect_image(path, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)
    assert (facts.status, facts.reason, facts.sha256) == (Status.REJECTED, reason, None)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("make", "reason"), SPECIAL)
def test_read_bytes_rejection_leaves_no_open_file(ordinary_user_folder, make, reason):
    make(ordinary_user_folder / "x.jpg")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RejectedImage, match=reason):
            read_bytes(ordinary_user_folder / "x.jpg", max_bytes=MAX_BYTES)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_read_bytes_file_that_states_no_size_is_read_whole():
    assert read_bytes("/proc/self/cmdline", max_bytes=MAX_BYTES) != b""


def test_read_bytes_good_file_returns_content(tmp_path):
    (tmp_path / "x").write_bytes(JPEG)
    assert read_bytes(tmp_path / "x", max_bytes=MAX_BYTES) == JPEG


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_decode_rgb_any_mode_equals_pillows_conversion(mode):
    image = picture(mode)
    decoded = decode_rgb(encode(image, "png"), max_pixels=MAX_PIXELS)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decode_rgb_jpeg_equals_image_folders_loader(mode):
    data = encode(picture(mode), "jpeg", exif=exif(6))
    loaded = Image.open(BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode_rgb(data, max_pixels=MAX_PIXELS)), np.asarray(loaded))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_decode_rgb_16_bit_grey_is_scaled_not_clipped(kind):
    image = picture("I;16")
    decoded = np.asarray(decode_rgb(encode(image, kind), max_pixels=MAX_PIXELS))
    expected = (np.asarray(image) >> 8).astype(np.uint8)
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], expected)


def test_decode_rgb_palette_with_transparency_bytes_does_not_warn():
    data = encode(picture("P"), "png", transparency=bytes(range(256)))
    with pytest.raises(UserWarning, match="Transparency"):
        Image.open(BytesIO(data)).convert("RGB")
    assert decode_rgb(data, max_pixels=MAX_PIXELS).mode == "RGB"


def test_decode_rgb_leaves_warnings_of_other_threads_alone():
    decode_rgb(JPEG, max_pixels=MAX_PIXELS)
    caught = []

    def warn():
        try:
            warnings.warn("of another thread", UserWarning, stacklevel=1)
        except UserWarning as warning:
            caught.append(str(warning))

    thread = threading.Thread(target=warn)
    thread.start()
    thread.join()
    with pytest.raises(UserWarning, match="of this thread"):
        warnings.warn("of this thread", UserWarning, stacklevel=1)
    assert caught == ["of another thread"]


SEEDS = [
    *(encode(picture(mode), "jpeg", exif=exif(6)) for mode in ("RGB", "CMYK")),
    *(encode(picture(mode), "png") for mode in ("RGB", "P", "I;16")),
    encode(picture(), "webp"),
    encode(picture(), "bmp"),
    encode(picture("P"), "gif"),
    encode(picture(), "tiff"),
    encode(picture(), "tiff", compression="tiff_deflate"),
    two_frames("gif"),
    two_frames("png"),
    two_frames("webp"),
]


@settings(max_examples=400, deadline=None)
@given(seed=st.sampled_from(SEEDS), chance=st.integers(0, 2**32))
def test_decode_rgb_damaged_bytes_decode_or_are_rejected(seed, chance):
    rng = random.Random(chance)
    data = bytearray(seed)
    for _ in range(rng.choice([0, 1, 2, 8])):
        data[rng.randrange(rng.choice([64, len(data)]))] = rng.randrange(256)
    del data[rng.choice([len(data), rng.randrange(len(data))]) :]
    result = decode_or_rejection(bytes(data))
    if isinstance(result, RejectedImage):
        assert result.detail
    else:
        assert result.mode == "RGB"
        assert result.width * result.height <= MAX_PIXELS


def decode_or_rejection(data):
    try:
        return decode_rgb(data, max_pixels=MAX_PIXELS)
    except RejectedImage as rejection:
        return rejection
