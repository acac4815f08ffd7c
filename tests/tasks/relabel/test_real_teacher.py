"""A real teacher on real photos: are the stored labels any good, at two sizes, and is the default better than paper."""

import importlib.util
import io

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.demo.photos import PHOTOS, TEACHER_PACKAGE, load_photo
from labelmill.tasks.read_label_maps import LabelMaps
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store

WHOLE = (0.0, 0.0, 1.0, 1.0)
SHOWN = [photo for photo in PHOTOS if photo.in_scenes]  # the thing fills the photo

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(TEACHER_PACKAGE.replace("-", "_")) is None, reason=f"{TEACHER_PACKAGE} is not installed"
)


def relabel_real(store, size, weights, count):
    run = prepare_run(
        RelabelParameters(
            store=str(store),
            dataset="imagenet",
            teacher="tf_efficientnet_lite0",
            weights=weights,
            input_size=size,
            calibration_images=count,
        )
    )
    commit_run(run, [label_shard(run.job, shard) for shard in run.shards])
    return LabelMaps(open_store(store), "imagenet.label_maps")


def pool_whole(maps, rows, mode):
    boxes = torch.tensor([WHOLE]).expand(len(rows), 4)
    return torch.cat([maps.pool(r, b, mode=mode) for r, b in zip(rows.split(64), boxes.split(64), strict=True)])


@pytest.fixture(scope="module")
def photo_store(tmp_path_factory, ingest):
    root = tmp_path_factory.mktemp("photos")
    for photo in SHOWN:
        folder = root / "train" / photo.label
        folder.mkdir(parents=True, exist_ok=True)
        picture = load_photo(photo)
        picture.save(folder / f"{photo.name}.jpg", quality=92)
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{photo.name}_flipped.jpg", quality=92)
    ingest(root / "train", root / "store")
    return root / "store"


@pytest.mark.parametrize("size", [224, 475])
def test_pool_of_photos_names_them_and_the_default_is_likelier_than_paper(photo_store, size):
    maps = relabel_real(photo_store, size, f"package:{TEACHER_PACKAGE}", 8)
    wnids = [c.wnid for c in maps.metadata.classes.classes]
    ids = [f"{photo.label}/{photo.name}{end}.jpg" for photo in SHOWN for end in ("", "_flipped")]
    true = torch.zeros(len(ids), len(wnids), dtype=torch.bool)
    for row, photo in enumerate(photo for photo in SHOWN for _ in range(2)):
        true[row, [wnids.index(wnid) for wnid in photo.acceptable]] = True
    named, likelihood = {}, {}
    for mode in ("default", "paper"):
        p = pool_whole(maps, maps.rows_of(ids), mode)
        named[mode] = float(true[torch.arange(len(ids)), p.argmax(1)].float().mean())
        likelihood[mode] = float(-(p * true).sum(1).log().mean())
    assert named["default"] >= max(0.6, named["paper"])
    assert likelihood["default"] < likelihood["paper"]


@pytest.mark.sample_data
@pytest.mark.parametrize(
    ("size", "every", "least_paper"),
    [pytest.param(224, 1, 0.805, id="224, 1,000 images"), pytest.param(475, 4, 0.745, id="475, every fourth image")],
)
def test_pool_of_the_sample_images_reaches_the_reference(sample_data, tmp_path, ingest, size, every, least_paper):
    columns = ["image_id", "image", "wnid", "label"]
    samples = pq.read_table(sample_data / "imagenet" / "sample1000_short256.parquet", columns=columns).to_pylist()
    for row in samples[::every]:
        (tmp_path / "train" / row["wnid"]).mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(row["image"])).verify()
        (tmp_path / "train" / row["wnid"] / "0.JPEG").write_bytes(row["image"])
    ingest(tmp_path / "train", tmp_path / "store")
    weights = str(sample_data / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors")
    maps = relabel_real(tmp_path / "store", size, weights, 256)
    rows = maps.rows_of([f"{row['wnid']}/0.JPEG" for row in samples[::every]])
    labels = torch.tensor([row["label"] for row in samples[::every]])
    correct, likelihood = {}, {}
    for mode in ("default", "paper"):
        p = pool_whole(maps, rows, mode)
        correct[mode] = float((p.argmax(1) == labels).float().mean())
        likelihood[mode] = float(-p[torch.arange(len(p)), labels].log().mean())
    assert correct["paper"] >= least_paper
    assert correct["default"] >= correct["paper"]
    assert likelihood["default"] < likelihood["paper"]
