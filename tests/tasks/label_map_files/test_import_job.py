"""An import from its parameters to its version, on a real store, real images and real files."""

import math
import shutil

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

import labelmill
from labelmill.models.label_encoding import LOGIT_STEP
from labelmill.schemas.errors import BadInput, NotInStore, WorkFailed
from labelmill.tasks.label_map_files import import_shard as import_shard_module
from labelmill.tasks.label_map_files.import_job import prepare_import
from labelmill.tasks.label_map_files.import_shard import import_shard
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version

STEP = LOGIT_STEP
CLASSES = 40
PAPER_BOUND = math.tanh(STEP / 4)


def read_as_the_authors(path, classes):
    """Their reading: a file is [scores, ids], scattered into a dense map (C, first axis, second axis) of zeros."""
    scores, ids = torch.load(path)
    return torch.zeros(classes, *scores.shape[1:]).scatter_(0, ids.long(), scores)


def authors_label(dense, boxes):
    """RoIAlign with (x1, y1, x2, y2) on a map of rows and columns, softmax: (B, C) of boxes (B, 4) of one image."""
    height, width = dense.shape[1:]
    places = boxes * torch.tensor([width, height, width, height]) - 0.5
    rois = torch.cat([torch.zeros(len(boxes), 1), places], 1)
    return roi_align(dense[None], rois, output_size=1, sampling_ratio=-1, aligned=False).flatten(1).softmax(1)


def random_boxes(count):
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(0)).sort(1).values
    return corners.flatten(1)  # x1 y1 x2 y2


@pytest.fixture
def files(tmp_path, imagenet, write_maps):
    """A map file for each of the 21 images."""
    write_maps(tmp_path / "maps", imagenet)
    return tmp_path / "maps"


def test_import_paper_mode_is_the_authors_arithmetic_on_their_files(imagenet, files, image_uris, import_maps):
    version = import_maps(imagenet, files)
    assert version.metadata["grid"] == [2, 4]
    maps = labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps")
    boxes = random_boxes(30)
    for row, uri in enumerate(image_uris(imagenet)):
        expected = authors_label(read_as_the_authors(files / uri.replace(".JPEG", ".pt"), CLASSES), boxes)
        rows = torch.full((30,), row)
        paper = maps.pool(rows, boxes, mode="paper")
        assert (paper - expected).abs().sum(1).max() / 2 <= PAPER_BOUND + 1e-5
        assert torch.allclose(maps.pool(rows, boxes), paper, atol=1e-6)  # nothing better is known of these maps
        assert maps.pool(rows[:1], boxes[:1]).shape == (1, CLASSES)


def test_import_transposed_is_the_authors_reading_with_swapped_coordinates(
    tmp_path, imagenet, write_maps, image_uris, import_maps
):
    """Files [2, k, W, H]; they pass y where RoIAlign takes x. Ours pools the same crop by its own x and y."""
    write_maps(tmp_path / "maps", imagenet, change=lambda tensor: tensor.transpose(2, 3).contiguous())
    version = import_maps(imagenet, tmp_path / "maps", transposed=True)
    assert version.metadata["grid"] == [2, 4]
    maps = labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps")
    boxes = random_boxes(30)
    for row, uri in enumerate(image_uris(imagenet)[:5]):
        dense = read_as_the_authors(tmp_path / "maps" / uri.replace(".JPEG", ".pt"), CLASSES)
        expected = authors_label(dense, boxes[:, [1, 0, 3, 2]])
        got = maps.pool(torch.full((30,), row), boxes, mode="paper")
        assert (got - expected).abs().sum(1).max() / 2 <= PAPER_BOUND + 1e-5


def test_import_views_show_the_files_numbers(imagenet, files, image_uris, import_maps):
    import_maps(imagenet, files)
    uri = image_uris(imagenet)[7]
    scores, ids = torch.load(files / uri.replace(".JPEG", ".pt"))
    with open_store(imagenet).connect() as sql:
        cells = sql.execute(
            "SELECT y, x, rank, class_id, logit, prob FROM imagenet.label_cells WHERE image_id = ? ORDER BY y, x, rank",
            [uri],
        ).fetchall()
        listed = sql.execute("SELECT class_id, cells FROM imagenet.label_classes WHERE image_id = ?", [uri]).fetchall()
        pooled = sql.execute("SELECT count(pooled_class), count(pooled_prob) FROM imagenet.label_maps").fetchall()
    assert len(cells) == 2 * 4 * 3
    for y, x, rank, class_id, logit, prob in cells:
        place = scores[:, y, x].argsort(descending=True)[rank]
        assert class_id == int(ids[place, y, x])
        assert logit == pytest.approx(float(scores[place, y, x]), abs=STEP / 2 + 1e-6)
        assert prob is None  # the cell's other classes are not known
    leads = np.bincount([c for _, _, rank, c, _, _ in cells if rank == 0], minlength=CLASSES)
    assert dict(listed) == {c: int(leads[c]) for c in leads.nonzero()[0]}
    assert pooled == [(21, 21)]


def test_import_pooled_class_is_that_of_the_whole_image(imagenet, files, rows_of, import_maps):
    import_maps(imagenet, files)
    maps = labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps")
    whole = maps.pool(torch.arange(21), torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(21, 4))
    assert [row["pooled_class"] for row in rows_of(imagenet)] == whole.argmax(1).tolist()
    assert [row["pooled_prob"] for row in rows_of(imagenet)] == pytest.approx(whole.amax(1).tolist(), abs=1e-6)


def test_import_version_says_what_is_known_and_what_is_not(imagenet, files, import_maps, tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"n{n:08d}\n" for n in range(1_443_537, 1_443_577)))
    version = import_maps(imagenet, files, classes=str(tmp_path / "names.txt"), input_size="64x128")
    meta = labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps").metadata
    assert (meta.grid, meta.top_k, meta.num_classes, meta.input_size) == ((2, 4), 3, CLASSES, (64, 128))
    assert (meta.logits, meta.outside_known) == ("as_imported", False)
    assert (meta.temperature, meta.absent_share) == (1.0, 0.0)
    assert meta.label_match["how"] == "wnid"
    assert meta.teacher["name"] == version.lineage.teacher["name"] == "l2-475"
    assert meta.teacher["classes"] == "file names.txt"
    assert (version.lineage.flow, version.lineage.inputs) == ("import-label-maps", {"imagenet.images": 1})
    assert str(files) not in str(version.metadata)
    assert verify_version(open_store(imagenet).table("imagenet.label_maps")).problems == ()


def spoil(tensor, index, value):
    tensor[index] = value
    return tensor


FAULTS = {
    "missing": lambda path, tensor: path.unlink(),
    "empty": lambda path, tensor: path.write_bytes(b""),
    "corrupt": lambda path, tensor: path.write_bytes(path.read_bytes()[:800]),
    "not_a_label_map": lambda path, tensor: torch.save({"map": tensor}, path),
    "wrong_shape": lambda path, tensor: torch.save(tensor[:, :2].clone(), path),
    "not_finite": lambda path, tensor: torch.save(spoil(tensor, (0, 0, 0, 0), math.nan), path),
    "score_out_of_range": lambda path, tensor: torch.save(spoil(tensor, (0, 0, 0, 0), 2000.0), path),
    "id_not_whole": lambda path, tensor: torch.save(spoil(tensor, (1, 0, 0, 0), 0.5), path),
    "id_out_of_range": lambda path, tensor: torch.save(spoil(tensor, (1, 0, 0, 0), 40.0), path),
    "id_repeated": lambda path, tensor: torch.save(spoil(tensor, 1, 7.0), path),
    "probabilities": lambda path, tensor: torch.save(spoil(tensor, 0, 0.2), path),
    "broken_link": lambda path, tensor: (path.unlink(), path.symlink_to("nowhere")),
}


def test_import_every_image_has_a_row_and_each_fault_its_reason(
    tmp_path, make_images, ingest, write_maps, image_uris, import_maps, rows_of
):
    source = make_images(tmp_path / "train", {"n01443537": 11, "n01484850": 10})
    (source / "n01443537" / "n01443537_0.JPEG").write_bytes(b"no picture")
    store, maps = tmp_path / "store", tmp_path / "maps"
    ingest(source, store, chunk_size=13)
    uris = image_uris(store)
    tensors = write_maps(maps, store)
    expected = ["not_an_image", *([None] * 20)]
    for place, (reason, fault) in enumerate(FAULTS.items(), start=2):
        fault(maps / uris[place].replace(".JPEG", ".pt"), tensors[uris[place]].clone())
        expected[place] = reason

    version = import_maps(store, maps)

    rows = rows_of(store)
    assert [row["image_id"] for row in rows] == uris
    assert [row["reason"] for row in rows] == expected
    assert [row["status"] for row in rows] == ["rejected" if reason else "done" for reason in expected]
    assert all((row["detail"] is None) == (row["reason"] is None) == (row["index"] is not None) for row in rows)
    assert import_maps(store, maps) == version  # rejects that lie in the files are final


def test_import_again_reads_nothing_and_returns_the_same_version(imagenet, files, import_maps, monkeypatch):
    first = import_maps(imagenet, files)
    monkeypatch.setattr(import_shard_module, "load_listed_file", None)
    assert import_maps(imagenet, files, workers=1) == first


def test_import_a_file_that_came_or_changed_costs_its_shard_alone(imagenet, files, image_uris, import_maps, rows_of):
    uris = image_uris(imagenet)
    late = files / uris[20].replace(".JPEG", ".pt")
    late.rename(files / "away")
    first = import_maps(imagenet, files)
    assert rows_of(imagenet)[20]["reason"] == "missing"
    (files / "away").rename(late)
    torch.save(torch.load(files / uris[0].replace(".JPEG", ".pt")) + torch.tensor([1.0, 0]).view(2, 1, 1, 1),
               files / uris[0].replace(".JPEG", ".pt"))  # fmt: skip
    second = import_maps(imagenet, files)
    assert [a == b for a, b in zip(first.parts, second.parts, strict=True)] == [False, True, True, True, False]
    assert second.number == 2
    assert {row["status"] for row in rows_of(imagenet)} == {"done"}


def test_import_stopped_between_shards_goes_on_with_the_rest_and_ends_with_the_same_parts(
    imagenet, files, import_maps, import_parameters, monkeypatch, tmp_path
):
    shutil.copytree(imagenet, tmp_path / "unbroken")
    unbroken = import_maps(tmp_path / "unbroken", files)
    stopped = prepare_import(import_parameters(imagenet, files))
    for shard in stopped.shards[:3]:
        import_shard(stopped.job, shard)
    read = []
    load = import_shard_module.load_listed_file
    monkeypatch.setattr(
        import_shard_module, "load_listed_file", lambda root, listed: read.append(listed.path) or load(root, listed)
    )
    assert import_maps(imagenet, files).parts == unbroken.parts
    assert len(read) == 21 - sum(len(shard) for shard in stopped.shards[:3])


@pytest.mark.usefixtures("asked_to_stop")
def test_import_shard_asked_to_stop_leaves_no_receipt(imagenet, files, import_parameters):
    prepared = prepare_import(import_parameters(imagenet, files))
    with pytest.raises(WorkFailed, match="stopped on request"):
        import_shard(prepared.job, prepared.shards[0])
    assert prepared.job.label_maps.receipts.all() == []


def test_import_shard_of_a_file_that_changes_meanwhile_is_done_again(imagenet, files, image_uris, import_parameters):
    prepared = prepare_import(import_parameters(imagenet, files))
    (files / image_uris(imagenet)[2].replace(".JPEG", ".pt")).write_bytes(b"")
    told = []
    receipt = import_shard(prepared.job, prepared.shards[0], on_batch=lambda *counts: told.append(counts))
    rows = prepared.job.label_maps.read_part(receipt.part).to_pylist()
    assert [row["reason"] for row in rows] == [None, None, "changed", None, None]
    assert (receipt.counts, receipt.retry) == ({"done": 4, "rejected": 1}, True)
    assert (sum(done for done, _ in told), sum(rejected for _, rejected in told)) == (5, 1)


def test_import_shard_of_files_that_all_vanished_fails_instead_of_rejecting_them(imagenet, files, import_parameters):
    prepared = prepare_import(import_parameters(imagenet, files))
    files.rename(files.with_name("away"))
    with pytest.raises(WorkFailed, match=r"none of 5 files listed .* can be read"):
        import_shard(prepared.job, prepared.shards[0])
    assert prepared.job.label_maps.receipts.all() == []


def test_import_files_without_an_image_are_counted_and_other_splits_have_theirs(
    imagenet, files, make_images, ingest, write_maps, image_uris, import_parameters, import_maps, tmp_path
):
    ingest(make_images(tmp_path / "val", {"n01443537": 3}, first=80), imagenet, split="val")
    write_maps(files, imagenet, uris=[uri for uri in image_uris(imagenet) if "_8" in uri])
    write_maps(files, imagenet, uris=["n01443537/strange.JPEG", "other/n01443537_1.JPEG"])
    (files / "README").write_text("about")
    (files / ".writing-1-ab.pt").write_bytes(b"")
    prepared = prepare_import(import_parameters(imagenet, files, split="val"))
    assert prepared.unmatched == ("n01443537/strange.pt", "other/n01443537_1.pt")
    assert prepared.images == 3
    version = import_maps(imagenet, files, split="val")
    assert (version.rows, version.metadata["grid"]) == (3, [2, 4])


def test_import_a_file_that_two_images_ask_for_is_given_to_none(
    tmp_path, make_images, ingest, write_maps, import_maps, rows_of
):
    source = make_images(tmp_path / "train", {"n01443537": 3})
    folder = source / "n01443537"
    shutil.copy(folder / "n01443537_1.JPEG", folder / "n01443537_1.jpg")
    ingest(source, tmp_path / "store")
    write_maps(tmp_path / "maps", tmp_path / "store")
    import_maps(tmp_path / "store", tmp_path / "maps")
    assert {row["image_id"][10:]: row["reason"] for row in rows_of(tmp_path / "store")} == {
        "n01443537_0.JPEG": None, "n01443537_1.JPEG": "shared_file", "n01443537_1.jpg": "shared_file",
        "n01443537_2.JPEG": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({"dataset": "nothing"}, NotInStore, "nothing.images: no such table", id="dataset"),
        pytest.param({"images_version": 9}, NotInStore, "version 9 does not exist", id="version"),
        pytest.param({"split": "val"}, BadInput, "split: expected one of train, got 'val'", id="split"),
        pytest.param({"source": "{files}/none"}, BadInput, "source: no such folder", id="source"),
        pytest.param({"source": "{files}/.."}, BadInput, "looked for 'n01443537/n01443537_0.pt'", id="one too high"),
        pytest.param({"source": "{files}/../train"}, BadInput, "expected .pt files below", id="the images"),
        pytest.param({"classes": "imagenet-1k"}, BadInput, "expected 40 classes", id="class list"),
    ],
)
def test_prepare_import_of_what_does_not_fit_is_refused(imagenet, files, import_parameters, options, error, said):
    given = {"source": str(files), **{name: _fill(value, files) for name, value in options.items()}}
    with pytest.raises(error, match=said):
        prepare_import(import_parameters(imagenet, given.pop("source"), **given))


def _fill(value, files):
    return value.format(files=files) if isinstance(value, str) else value


def test_prepare_import_of_probabilities_is_refused_at_once_and_may_be_overruled(
    tmp_path, imagenet, write_maps, import_parameters, import_maps
):
    def turn_into_probabilities(tensor):
        return torch.stack([tensor[0].softmax(0) * 0.9, tensor[1]])

    write_maps(tmp_path / "maps", imagenet, change=turn_into_probabilities)
    with pytest.raises(BadInput, match=r"all 16 files .* are probabilities.*scores_are_logits"):
        prepare_import(import_parameters(imagenet, tmp_path / "maps"))
    assert import_maps(imagenet, tmp_path / "maps", scores_are_logits=True).rows == 21


def test_prepare_import_of_a_folder_of_damaged_files_says_what_is_wrong_with_the_first(
    imagenet, files, import_parameters
):
    for path in files.rglob("*.pt"):
        path.write_bytes(b"<html>")
    with pytest.raises(BadInput, match=r"none of the first 21 map files can be used; n01443537/n01443537_0.pt: not_a"):
        prepare_import(import_parameters(imagenet, files))


def test_prepare_import_takes_the_shape_of_most_files(imagenet, files, image_uris, draw_map, import_maps, rows_of):
    """The first file has another grid: it is the odd one, not the others."""
    torch.save(draw_map(0, (3, 5, 5), CLASSES), files / image_uris(imagenet)[0].replace(".JPEG", ".pt"))
    import_maps(imagenet, files)
    assert [row["reason"] for row in rows_of(imagenet)] == ["wrong_shape", *([None] * 20)]


def test_commit_import_without_a_single_map_leaves_the_older_version_in_place(
    imagenet, files, tmp_path, write_maps, import_maps
):
    first = import_maps(imagenet, files)
    with pytest.raises(WorkFailed, match=r"none of 21 images got a map .* num_classes"):
        import_maps(imagenet, files, num_classes=2)
    assert open_store(imagenet).table("imagenet.label_maps").version() == first


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (5, 15, 15), (10, 1, 6)])
def test_import_other_grids_and_other_k(tmp_path, imagenet, write_maps, import_maps, shape):
    write_maps(tmp_path / "maps", imagenet, shape=shape)
    version = import_maps(imagenet, tmp_path / "maps", scores_are_logits=True)  # a single logit may lie in 0…1
    assert (version.metadata["top_k"], *version.metadata["grid"]) == shape
    maps = labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps")
    assert maps.pool(torch.arange(21), random_boxes(21)).sum(1).tolist() == pytest.approx([1.0] * 21, abs=1e-5)
