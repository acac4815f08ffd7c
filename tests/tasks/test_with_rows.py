"""WithRows and LabelMaps in a trainer's hands: files found, images without a map left out, workers of both kinds."""

import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import labelmill
from labelmill.schemas.errors import BadInput

REJECTED = "n01443537/n01443537_10.JPEG"
TABLE = "imagenet.label_maps"
as_pixels = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
# A forked child of a process with threads; the pools of torch and pyarrow are threads, and unused in the child.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
# A spawned one imports torch anew, for seconds.
each_method = pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)], ids=["fork", "spawn"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images, ingest, relabel):
    """A store of 12 images in three parts, one of them rejected."""
    folder = tmp_path_factory.mktemp("rows")
    source = make_images(folder / "train", {"n01443537": 11, "n01484850": 1})
    (source / REJECTED).write_bytes(b"")
    ingest(source, folder / "store")
    relabel(folder / "store", shard_size=5)
    return folder


@pytest.fixture(scope="module")
def maps(folder):
    return labelmill.LabelMaps(labelmill.open_store(folder / "store"), TABLE)


@pytest.fixture(scope="module")
def images(folder):
    return ImageFolder(str(folder / "train"), labelmill.CropWithBox((8, 12), then=as_pixels))


def test_with_rows_gives_each_item_its_row_and_leaves_out_rejected_images(maps, images):
    train = labelmill.WithRows(images, maps)
    assert (len(train), train.left_out) == (11, 1)
    kept = [path for path, _ in images.samples if not path.endswith(REJECTED)]
    ids = ["/".join(Path(path).parts[-2:]) for path in kept]
    assert train.rows.tolist() == maps.rows_of(ids).tolist()
    crop, target, row = train[10]
    assert (crop.image.shape, target, row) == ((3, 8, 12), 1, 11)
    with pytest.raises(IndexError):
        train[11]


def test_with_rows_leaves_out_files_that_are_not_in_the_table(maps, folder, tmp_path, caplog):
    shutil.copytree(folder / "train", tmp_path / "elsewhere")
    for name in ("n01443537/new.JPEG", "n01484850/new.JPEG"):
        shutil.copy(folder / "train" / "n01484850" / "n01484850_0.JPEG", tmp_path / "elsewhere" / name)
    with caplog.at_level("INFO"):
        train = labelmill.WithRows(ImageFolder(str(tmp_path / "elsewhere")), maps)
    assert (len(train), train.left_out) == (11, 3)
    assert "3 of 14 items are left out: 2 are not in imagenet.label_maps v1, 1 were rejected" in caplog.text
    for place in range(11):
        _, _, row = train[place]
        path = train.dataset.samples[train._items[place]][0]
        assert maps.rows_of(["/".join(Path(path).parts[-2:])]).tolist() == [row]


def test_with_rows_of_a_relative_root(maps, folder, monkeypatch):
    monkeypatch.chdir(folder / "train")
    assert len(labelmill.WithRows(ImageFolder("."), maps)) == 11
    monkeypatch.chdir(folder / "train" / "n01443537")
    assert len(labelmill.WithRows(ImageFolder("../../train"), maps)) == 11


def test_with_rows_of_another_dataset_takes_its_files(maps, images):
    class Alone(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, place):
            return torch.tensor(float(place))

    files = [Path(images.samples[place][0]) for place in (11, 3)]
    alone = labelmill.WithRows(Alone(), maps, files=files)
    assert [(float(item), row) for item, row in (alone[0], alone[1])] == [(0.0, 11), (1.0, int(alone.rows[1]))]
    some = labelmill.WithRows(Subset(images, [11, 3]), maps, files=files)
    assert some.rows.tolist() == alone.rows.tolist()


def test_with_rows_of_ids_with_a_prefix(tmp_path, make_images, ingest, relabel):
    for split in ("train", "val"):
        ingest(make_images(tmp_path / split, {"n01443537": 2}), tmp_path / "store", split=split, id_prefix=f"{split}:")
    relabel(tmp_path / "store")
    maps = labelmill.LabelMaps(labelmill.open_store(tmp_path / "store"), TABLE)
    val = labelmill.WithRows(ImageFolder(str(tmp_path / "val")), maps, id_prefix="val:")
    ids = [f"val:n01443537/n01443537_{n}.JPEG" for n in range(2)]
    assert val.rows.tolist() == maps.rows_of(ids).tolist()
    with pytest.raises(BadInput, match="2 have no image"):
        labelmill.WithRows(ImageFolder(str(tmp_path / "val")), maps)


def test_rows_of_files_takes_the_longest_id_that_fits(tmp_path, make_images, ingest, relabel):
    """A folder above was ingested, in which two images share their last two names."""
    for place in ("a", "b"):
        make_images(tmp_path / "all" / place, {"n01443537": 1})
    make_images(tmp_path / "all", {"n01443537": 1})
    # ingest-imagenet wants wnid folders first; the prefix makes deeper ids of the same form.
    for place, prefix in (("all/a", "a/"), ("all/b", "b/")):
        ingest(tmp_path / place, tmp_path / "store", split=place[-1], id_prefix=prefix)
    (tmp_path / "flat").mkdir()
    shutil.move(tmp_path / "all" / "n01443537", tmp_path / "flat" / "n01443537")
    ingest(tmp_path / "flat", tmp_path / "store", split="flat")
    relabel(tmp_path / "store")
    maps = labelmill.LabelMaps(labelmill.open_store(tmp_path / "store"), TABLE)
    name = "n01443537/n01443537_0.JPEG"
    found = maps.rows_of_files([f"/x/a/{name}", f"/x/b/{name}", f"/x/c/{name}", "/x/c/n01443537/other.JPEG"])
    assert found.tolist() == [*maps.rows_of([f"a/{name}", f"b/{name}", name]).tolist(), -1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda images: [1, 2], "dataset: expected one with samples or imgs, got list", id="no files"),
        pytest.param(lambda images: Subset(images, [0]), "dataset: .* got Subset", id="a subset"),
    ],
)
def test_with_rows_of_a_dataset_that_tells_no_files_is_refused(maps, images, make, said):
    with pytest.raises(BadInput, match=said):
        labelmill.WithRows(make(images), maps)


def test_with_rows_of_other_images_or_too_few_files_is_refused(maps, images):
    with pytest.raises(BadInput, match=r"files: none of 12 has a map in imagenet\.label_maps v1, for example /no/0"):
        labelmill.WithRows(images, maps, files=[f"/no/{n}" for n in range(12)])
    with pytest.raises(BadInput, match="files: expected one for each of 12 items, got 1"):
        labelmill.WithRows(images, maps, files=["/no/0"])


@forks
@each_method
def test_with_rows_in_the_workers_of_a_data_loader_gives_every_row_its_pixels(maps, images, method, workers):
    train = labelmill.WithRows(images, maps)
    seen = {}
    for crops, targets, rows in DataLoader(train, 4, num_workers=workers, multiprocessing_context=method):
        assert crops.image.shape[1:] == (3, 8, 12)
        labels = maps.pool(rows, crops.box)
        assert torch.allclose(labels.sum(1), torch.ones(len(rows)), atol=1e-5)
        seen.update(zip(rows.tolist(), targets.tolist(), strict=True))
    assert seen == {int(row): images.samples[item][1] for row, item in zip(train.rows, train._items, strict=True)}


@forks
@each_method
@pytest.mark.parametrize("opened", [False, True], ids=["not opened yet", "opened before"])
def test_pool_in_the_workers_of_a_data_loader_gives_the_same(maps, folder, method, workers, opened):
    boxes = torch.rand(3, 4).sort(1).values
    rows = [torch.tensor(some) for some in ([0, 5, 11], [1, 1, 3], [10, 0, 7], [9, 8, 6])]
    expected = [maps.pool(some, boxes) for some in rows]
    here = labelmill.LabelMaps(labelmill.open_store(folder / "store"), TABLE)
    if opened:
        here.prepare()
    pool = partial(here.pool, boxes=boxes)
    got = list(DataLoader(rows, None, collate_fn=pool, num_workers=workers, multiprocessing_context=method))
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_label_maps_pickle_has_no_maps_and_no_ids(maps, folder):
    fresh = labelmill.LabelMaps(labelmill.open_store(folder / "store"), TABLE)
    before = len(pickle.dumps(fresh))
    fresh.prepare()
    fresh.rows_of([])
    fresh.has_map(torch.tensor([0]))
    assert len(pickle.dumps(fresh)) == before


def test_with_rows_pickle_has_no_maps(maps, images):
    train = labelmill.WithRows(images, maps)
    other = pickle.loads(pickle.dumps(train))
    assert not any(isinstance(value, labelmill.LabelMaps) for value in vars(other).values())
    assert (other.rows.tolist(), other.left_out) == (train.rows.tolist(), 1)


def test_with_rows_on_real_files_pools_what_the_crop_shows(folder, tmp_path):
    """In a process of its own, whose cache nobody has filled."""
    code = (
        "import sys, torch, labelmill\n"
        "from torchvision.datasets import ImageFolder\n"
        "maps = labelmill.LabelMaps(labelmill.open_store(sys.argv[1]), sys.argv[2])\n"
        "train = labelmill.WithRows(ImageFolder(sys.argv[3], labelmill.CropWithBox(8, scale=(1, 1))), maps)\n"
        "crop, _, row = train[0]\n"
        "print(tuple(maps.pool(torch.tensor([row]), crop.box[None]).shape))\n"
    )
    command = [sys.executable, "-c", code, str(folder / "store"), TABLE, str(folder / "train")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 8)", done.stderr
