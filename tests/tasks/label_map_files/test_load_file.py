"""Loading a map file: every usual way of saving one is read, and nothing else passes for one."""

import os
import pickle
import zipfile
from io import BytesIO

import pytest
import torch

from labelmill.models.label_map_tensor import BadMap
from labelmill.tasks.ingest.list_files import list_files
from labelmill.tasks.label_map_files import load_file
from labelmill.tasks.label_map_files.load_file import load_listed_file, load_tensor

TENSOR = torch.arange(2 * 5 * 3 * 4, dtype=torch.float32).view(2, 5, 3, 4)


def saved(content, **options):
    stream = BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(TENSOR), id="as torch saves"),
        pytest.param(saved(TENSOR, _use_new_zipfile_serialization=False), id="as torch saved before 1.6"),
        pytest.param(saved(torch.stack([TENSOR, TENSOR * 0])[0]), id="slice of a batch"),
        pytest.param(saved(TENSOR.transpose(2, 3).contiguous().transpose(2, 3)), id="other strides"),
        pytest.param(saved(torch.nn.Parameter(TENSOR)), id="parameter"),
    ],
)
def test_load_tensor_gives_the_tensor(data):
    loaded = load_tensor(data)
    assert torch.equal(loaded, TENSOR)
    assert not loaded.requires_grad


class Other:
    def __reduce__(self):
        return os.system, ("exit 1",)


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def deflated(size):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(size))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        pytest.param(b"", "empty", "no bytes", id="empty"),
        pytest.param(b"<html>not found", "not_a_label_map", "<html>", id="web page"),
        pytest.param(saved(TENSOR)[:-30], "corrupt", "damaged", id="cut at its end"),
        pytest.param(saved(TENSOR)[:900], "corrupt", "damaged", id="cut in its middle"),
        pytest.param(flipped(saved(TENSOR), 600), "corrupt", "checksum", id="a bit flipped in the numbers"),
        pytest.param(saved(TENSOR, _use_new_zipfile_serialization=False)[:-8], "corrupt", "damaged", id="old, cut"),
        pytest.param(saved({"maps": TENSOR}), "not_a_label_map", "got dict", id="dictionary"),
        pytest.param(saved([TENSOR]), "not_a_label_map", "got list", id="list of one"),
        pytest.param(saved(Other()), "not_a_label_map", "not loaded", id="code in a torch file"),
        pytest.param(pickle.dumps(Other()), "not_a_label_map", "not loaded", id="code in a plain pickle"),
        pytest.param(saved(TENSOR, pickle_protocol=4), "not_a_label_map", "as torch.save", id="another protocol"),
        pytest.param(saved(TENSOR.to_sparse()), "not_a_label_map", "sparse", id="sparse"),
        pytest.param(saved(TENSOR[None]), "wrong_shape", r"\[1, 2, 5, 3, 4\]", id="batch of one"),
        pytest.param(deflated(65 * 2**20), "too_many_bytes", "unpacked", id="bomb"),
    ],
)
def test_load_tensor_of_anything_else_says_why(data, reason, said):
    with pytest.raises(BadMap, match=said) as caught:
        load_tensor(data)
    assert caught.value.reason == reason


@pytest.fixture
def listed(tmp_path):
    """A saved file, and how the folder listed it."""
    (tmp_path / "a.pt").write_bytes(saved(TENSOR))
    return tmp_path, list_files(tmp_path)[0]


def rewrite_at_another_time(path):
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(saved(TENSOR * 2) + b" "), id="larger"),
        pytest.param(rewrite_at_another_time, id="written again"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
    ],
)
def test_load_listed_file_that_is_not_as_it_was_listed_has_changed(listed, change):
    root, file = listed
    assert torch.equal(load_listed_file(root, file), TENSOR)
    change(root / "a.pt")
    with pytest.raises(BadMap) as caught:
        load_listed_file(root, file)
    assert caught.value.reason == "changed"


def test_load_listed_file_too_large_is_not_read(listed, monkeypatch):
    monkeypatch.setattr(load_file, "MAP_FILE_BYTES_MAX", 100)
    monkeypatch.setattr(load_file, "read_bytes", None)
    with pytest.raises(BadMap, match="expected at most 100") as caught:
        load_listed_file(*listed)
    assert caught.value.reason == "too_many_bytes"


def test_load_listed_file_broken_link_says_so(tmp_path):
    (tmp_path / "a.pt").symlink_to("gone")
    with pytest.raises(BadMap) as caught:
        load_listed_file(tmp_path, list_files(tmp_path)[0])
    assert caught.value.reason == "broken_link"
