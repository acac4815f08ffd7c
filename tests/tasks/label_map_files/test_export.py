"""An export to files, and back: the authors can read it, nothing else is touched, nothing is lost but what is said."""

import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labelmill
from labelmill.models.label_encoding import LOGIT_STEP
from labelmill.schemas.errors import BadInput, NotInStore, WorkFailed
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.label_maps import MAP_COLUMNS
from labelmill.schemas.parameters import ExportLabelMapsParameters
from labelmill.tasks.label_map_files import export_shard as export_shard_module
from labelmill.tasks.label_map_files.export_job import prepare_export
from labelmill.tasks.label_map_files.export_shard import Exported, export_shard
from labelmill.tasks.store import Change, open_store

STEP = LOGIT_STEP
CLASSES = 40


def dense(tensor, classes=CLASSES):
    """The authors' reading: scores scattered at their ids into a dense map of zeros."""
    scores, ids = tensor
    return torch.zeros(classes, *scores.shape[1:]).scatter_(0, ids.long(), scores)


def tree(folder):
    """Every file below a folder with its content and time."""
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def imported(tmp_path, imagenet, write_maps, import_maps):
    """A store of 21 imported maps; return the store and the tensors by uri."""
    tensors = write_maps(tmp_path / "maps", imagenet)
    import_maps(imagenet, tmp_path / "maps")
    return imagenet, tensors


def test_export_gives_each_done_image_its_tensor_in_the_images_tree(
    tmp_path, make_images, ingest, write_maps, image_uris, import_maps, export_maps
):
    source = make_images(tmp_path / "train", {"n01443537": 4, "n01484850": 3})
    (source / "n01443537" / "n01443537_0.JPEG").write_bytes(b"")
    ingest(source, tmp_path / "store")
    tensors = write_maps(tmp_path / "maps", tmp_path / "store")
    done = image_uris(tmp_path / "store")[2:]
    (tmp_path / "maps" / "n01443537" / "n01443537_1.pt").unlink()
    import_maps(tmp_path / "store", tmp_path / "maps")

    assert export_maps(tmp_path / "store", tmp_path / "out") == Exported(written=5)

    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files == sorted(tmp_path / "out" / uri.replace(".JPEG", ".pt") for uri in done)
    for uri in done:
        path = tmp_path / "out" / uri.replace(".JPEG", ".pt")
        exported = torch.load(path)
        assert (exported.dtype, exported.shape) == (torch.float32, (2, 3, 2, 4))
        assert (dense(exported) - dense(tensors[uri])).abs().max() <= STEP / 2 + 1e-6
        assert bool((exported[0, :-1] >= exported[0, 1:]).all())  # by descending logit
        assert path.stat().st_size < 4 * exported.numel() + 4000  # the map alone, not its batch


def test_export_transposed_has_the_axes_swapped(tmp_path, imported, export_maps):
    export_maps(imported[0], tmp_path / "plain")
    export_maps(imported[0], tmp_path / "swapped", transposed=True)
    plain, swapped = (sorted((tmp_path / name).rglob("*.pt")) for name in ("plain", "swapped"))
    for one, other in zip(plain, swapped, strict=True):
        assert torch.equal(torch.load(one).transpose(2, 3), torch.load(other))
    assert torch.load(swapped[0]).shape == (2, 3, 4, 2)


def test_export_again_writes_nothing_and_a_lost_file_comes_back(tmp_path, imported, export_maps):
    export_maps(imported[0], tmp_path / "out")
    before = tree(tmp_path / "out")
    assert export_maps(imported[0], tmp_path / "out", workers=1) == Exported(kept=21)
    assert tree(tmp_path / "out") == before
    (tmp_path / "out" / next(iter(before))).unlink()
    assert export_maps(imported[0], tmp_path / "out") == Exported(written=1, kept=20)
    assert {path: data for path, (data, _) in tree(tmp_path / "out").items()} == {
        path: data for path, (data, _) in before.items()
    }


def test_export_the_same_tensor_saved_otherwise_is_left_as_it_is(tmp_path, imported, export_maps):
    export_maps(imported[0], tmp_path / "out")
    path = next((tmp_path / "out").rglob("*.pt"))
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    before = tree(tmp_path / "out")
    assert export_maps(imported[0], tmp_path / "out") == Exported(kept=21)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("content", [b"", b"something else", b"\0" * 100_000])
def test_export_never_replaces_another_file_unasked(tmp_path, imported, export_maps, content):
    path = tmp_path / "out" / "n01484850" / "n01484850_3.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"n01484850_3.pt is there with another content; .* replace"):
        export_maps(imported[0], tmp_path / "out")
    assert path.read_bytes() == content
    exported = export_maps(imported[0], tmp_path / "out", replace=True)
    assert (exported.replaced, exported.written + exported.kept) == (1, 20)
    assert torch.load(path).shape == (2, 3, 2, 4)


def test_export_leaves_no_unfinished_file(tmp_path, imported, export_maps, monkeypatch):
    """A write that fails in its middle, as on a full disk."""
    write = Path.write_bytes

    def fail(path, data):
        write(path, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        export_maps(imported[0], tmp_path / "out")
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert export_maps(imported[0], tmp_path / "out").written == 21


def store_with_uris(store, uris):
    """Rewrite the images table with other uris, and let the maps' version name it."""
    images = open_store(store).table("imagenet.images")
    version = images.version()
    rows = images.read(version, IMAGES_SCHEMA.names)
    at = rows.schema.get_field_index("uri")
    part = images.write_part(rows.set_column(at, IMAGES_SCHEMA.field("uri"), pa.array(uris)), key="0" * 64)
    images.replace([part], schema=IMAGES_SCHEMA, metadata=version.metadata, lineage=version.lineage)
    maps = open_store(store).table("imagenet.label_maps")
    latest = maps.version()
    lineage = latest.lineage.model_copy(update={"inputs": {"imagenet.images": version.number + 1}})
    schema = pa.concat_tables([maps.read_part(latest.parts[0])]).schema
    change = Change(operation="replace", parts=latest.parts, metadata=latest.metadata)
    maps.commit(lambda _: change, schema=schema, lineage=lineage)


@pytest.mark.parametrize("evil", ["../evil.JPEG", "/tmp/evil.JPEG", "n01443537/../../evil.JPEG"])
def test_export_a_uri_that_leads_out_of_the_folder_is_refused_before_anything_is_written(
    tmp_path, imported, image_uris, export_maps, evil
):
    store_with_uris(imported[0], [*image_uris(imported[0])[:-1], evil])
    with pytest.raises(BadInput, match="expected a path below the folder"):
        export_maps(imported[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, imported, export_maps):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "n01484850").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="leads out of"):
        export_maps(imported[0], tmp_path / "out")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_export_two_images_of_one_file_are_refused(tmp_path, imported, image_uris, export_maps):
    uris = image_uris(imported[0])
    store_with_uris(imported[0], [*uris[:-1], uris[0].replace(".JPEG", ".png")])
    with pytest.raises(BadInput, match=r"two images would share the file n01443537/n01443537_0.pt"):
        export_maps(imported[0], tmp_path / "out")


def test_export_one_split_of_two_that_hold_the_same_paths(
    tmp_path, make_images, ingest, write_maps, import_maps, export_maps
):
    store = tmp_path / "store"
    ingest(make_images(tmp_path / "train", {"n01443537": 3}), store)
    ingest(make_images(tmp_path / "val", {"n01443537": 2}), store, split="val", id_prefix="val/")
    write_maps(tmp_path / "maps", store)
    import_maps(store, tmp_path / "maps", split="val")
    assert export_maps(store, tmp_path / "out", split="val") == Exported(written=2)
    with pytest.raises(BadInput, match=r"no map to export in split 'train', its splits: val"):
        export_maps(store, tmp_path / "out", split="train")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        pytest.param({"table": "imagenet.nothing"}, NotInStore, "no such table", id="table"),
        pytest.param({"table": "imagenet.images"}, BadInput, "expected a table of label maps", id="another table"),
        pytest.param({"version": 7}, NotInStore, "version 7 does not exist", id="version"),
        pytest.param({"out": "{store}/out"}, BadInput, "lies in the store", id="in the store"),
        pytest.param({"out": "{store}/../file"}, BadInput, "out: expected a folder", id="a file"),
        pytest.param({"out": "{store}/../file/below"}, BadInput, "out: expected a folder", id="below a file"),
    ],
)
def test_prepare_export_of_what_does_not_fit_is_refused(tmp_path, imported, options, error, said):
    (tmp_path / "file").write_text("")
    plain = {"store": str(imported[0]), "table": "imagenet.label_maps", "out": str(tmp_path / "out")}
    filled = {k: v.format(store=imported[0]) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(error, match=said):
        prepare_export(ExportLabelMapsParameters(**{**plain, **filled}))


def test_export_shard_asked_to_stop_writes_nothing_more(tmp_path, imported, request):
    run = prepare_export(
        ExportLabelMapsParameters(store=str(imported[0]), table="imagenet.label_maps", out=str(tmp_path / "out"))
    )
    request.getfixturevalue("asked_to_stop")
    with pytest.raises(WorkFailed, match="stopped on request"):
        export_shard(run, run.shards[0])
    assert not (tmp_path / "out").exists()


def test_export_shard_tells_each_batch(tmp_path, imported, monkeypatch):
    monkeypatch.setattr(export_shard_module, "FILES_AT_ONCE", 2)
    run = prepare_export(
        ExportLabelMapsParameters(store=str(imported[0]), table="imagenet.label_maps", out=str(tmp_path / "out"))
    )
    told = []
    assert export_shard(run, run.shards[0], on_batch=told.append) == Exported(written=5)
    assert sorted(batch.written for batch in told) == [1, 2, 2]
    assert (run.files, run.shards[0].files) == (21, 5)


def test_export_of_our_own_maps_imported_again_are_the_same_maps(
    tmp_path, imagenet, relabel, tiny_teacher, export_maps, import_maps, rows_of
):
    """Centred logits go out and come back; what is known of the rest stays behind."""
    relabel(imagenet)
    export_maps(imagenet, tmp_path / "out")
    import_maps(imagenet, tmp_path / "out", num_classes=8, classes=tiny_teacher.classes)
    before, after = rows_of(imagenet, 1), rows_of(imagenet, 2)
    kept = ("image_id", "split", "status", "label", "classes", "cells", "index", "top", "drops")
    assert [[row[name] for name in kept] for row in after] == [[row[name] for name in kept] for row in before]
    ours, again = (labelmill.LabelMaps(open_store(imagenet), "imagenet.label_maps", version=n) for n in (1, 2))
    boxes = torch.tensor([[0.1, 0.2, 0.9, 0.7]]).expand(21, 4)
    rows = torch.arange(21)
    assert torch.allclose(ours.pool(rows, boxes, mode="paper"), again.pool(rows, boxes, mode="paper"), atol=1e-6)
    with open_store(imagenet).connect() as sql:
        logits = [
            sql.execute(f"SELECT image_id, y, x, rank, class_id, logit FROM imagenet.label_cells_v{n} ORDER BY ALL")
            .fetchall()
            for n in (1, 2)
        ]  # fmt: skip
    assert logits[0] == logits[1]


@pytest.fixture(scope="module")
def small_store(tmp_path_factory, make_images, ingest):
    folder = tmp_path_factory.mktemp("small")
    ingest(make_images(folder / "train", {"n01443537": 3}), folder / "store")
    return folder / "store"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)),
    more=st.integers(0, 30),
    in_swapped=st.booleans(),
    out_swapped=st.booleans(),
)
def test_export_then_import_gives_the_same_maps_whatever_they_are(
    small_store, write_maps, import_maps, export_maps, rows_of, seed, shape, more, in_swapped, out_swapped
):
    classes = shape[0] + more
    meaning = {"num_classes": classes, "scores_are_logits": True}
    with tempfile.TemporaryDirectory() as folder:
        store, maps, out = (Path(folder) / name for name in ("store", "maps", "out"))
        shutil.copytree(small_store, store)
        tensors = write_maps(
            maps, store, seed=seed, shape=shape, classes=classes,
            change=lambda tensor: tensor.transpose(2, 3).clone() if in_swapped else tensor,
        )  # fmt: skip
        import_maps(store, maps, transposed=in_swapped, **meaning)
        export_maps(store, out, transposed=out_swapped)
        import_maps(store, out, transposed=out_swapped, **meaning)
        first, second = ([[row[c] for c in MAP_COLUMNS] for row in rows_of(store, n)] for n in (1, 2))
        assert second == first
        for uri, tensor in tensors.items():
            exported = torch.load(out / uri.replace(".JPEG", ".pt"))
            exported = exported.transpose(2, 3) if out_swapped else exported
            assert (dense(exported, classes) - dense(tensor, classes)).abs().max() <= STEP / 2 + 1e-6
