"""What is refused before anything starts."""

import os

import pytest

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.images import IMAGES_SCHEMA
from labelmill.schemas.parameters import (
    AnchorsParameters,
    AugmentParameters,
    ExportParameters,
    ImagenetPipelineParameters,
    IngestFolderParameters,
    IngestImagenetParameters,
    IngestParameters,
    RelabelParameters,
    RenameParameters,
    StatisticsParameters,
)
from labelmill.tasks.lineage import make_lineage
from labelmill.tasks.preflight import check_parameters, refuse_store_in_source
from labelmill.tasks.store import open_store


@pytest.fixture
def folder(ordinary_user_folder):
    """A folder with good images, a store-to-be, and everything that can be wrong with them."""
    (ordinary_user_folder / "images").mkdir()
    (ordinary_user_folder / "file").write_bytes(b"x")
    (ordinary_user_folder / "link").symlink_to("nowhere")
    (ordinary_user_folder / "locked/store").mkdir(parents=True)
    (ordinary_user_folder / "locked").chmod(0)
    (ordinary_user_folder / "full").mkdir(mode=0o500)
    yield ordinary_user_folder
    (ordinary_user_folder / "locked").chmod(0o700)


def ingest(folder, *, kind=IngestFolderParameters, source="images", store="store", **options):
    return kind(source=str(folder / source), store=str(folder / store), dataset="pets", **options)


@pytest.mark.parametrize("kind", [IngestFolderParameters, IngestImagenetParameters])
@pytest.mark.parametrize("store", ["store", "deep/er/store", "images"])
def test_check_parameters_usable_folders_pass_and_nothing_is_made(folder, kind, store):
    before = sorted(folder.rglob("[!l]*"))
    check_parameters(ingest(folder, kind=kind, store=store))
    assert sorted(folder.rglob("[!l]*")) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gone", "No such file"),
        ("file", "neither a tar nor a zip"),
        ("file/below", "Not a directory"),
        ("link", "No such file"),
        ("locked", "Permission denied"),
        ("locked/store", "Permission denied"),
        ("n" * 300, "too long"),
    ],
)
def test_check_parameters_useless_source_is_refused_naming_it(folder, source, words):
    with pytest.raises(BadInput, match=rf"^source: .*{source}: .*{words}.*; expected a folder with images"):
        check_parameters(ingest(folder, source=source))


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("file", "expected a folder, found something else"),
        ("file/below", "expected a folder, found something else"),
        ("link", "expected a folder, found something else"),
        ("locked", "no permission to write"),
        ("full", "no permission to write"),
        ("full/below", "no permission to write"),
    ],
)
def test_check_parameters_store_that_takes_no_files_is_refused(folder, store, words):
    with pytest.raises(BadInput, match=rf"^store: {words}"):
        check_parameters(ingest(folder, store=store))


def test_check_parameters_store_whose_table_is_read_only_is_refused(folder):
    (folder / "store/pets/images").mkdir(parents=True)
    (folder / "store/pets/images").chmod(0o500)
    with pytest.raises(BadInput, match=r"^store: no permission to write in .*store/pets/images"):
        check_parameters(ingest(folder))


@pytest.mark.parametrize("devkit", ["gone", "file"])
def test_check_parameters_devkit_that_is_no_folder_is_refused(folder, devkit):
    with pytest.raises(BadInput, match=rf"^devkit: no such folder: .*{devkit}"):
        check_parameters(ingest(folder, kind=IngestImagenetParameters, devkit=str(folder / devkit)))


@pytest.mark.parametrize("field", ["source", "store", "id_prefix"])
def test_check_parameters_text_that_is_not_utf8_is_refused(folder, field):
    (folder / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(BadInput, match=rf"^{field}: expected valid UTF-8, got .*caf\\xe9"):
        check_parameters(ingest(folder, **{field: os.fsdecode(b"caf\xe9")}))


@pytest.fixture
def store(tmp_path):
    """A store with version 1 of pets.images."""
    table = open_store(tmp_path / "store", create=True).table("pets.images")
    part = table.write_part(IMAGES_SCHEMA.empty_table(), key="0" * 64)
    parameters = IngestParameters(source="images", store="store", dataset="pets")
    metadata = {"roots": {"train": "/images", "val": "/images"}}
    table.append([part], schema=IMAGES_SCHEMA, metadata=metadata, lineage=make_lineage("test", parameters))
    (tmp_path / "teacher.pth").touch()
    return tmp_path / "store"


def relabel(store, /, **options):
    return RelabelParameters(**{"store": str(store), "dataset": "pets", "teacher": "resnet18", **options})


def test_check_parameters_relabel_of_known_images_passes(store):
    for weights in ("pretrained", "package:anything", str(store.parent / "teacher.pth")):
        check_parameters(relabel(store, weights=weights, images_version=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"store": "/nowhere/at/all"}, "store /nowhere/at/all: no such folder"),
        ({"dataset": "cats"}, r"cats\.images: no such table"),
        ({"images_version": 2}, r"pets\.images: version 2 does not exist"),
    ],
)
def test_check_parameters_relabel_of_unknown_images_is_refused(store, options, words):
    with pytest.raises(NotInStore, match=words):
        check_parameters(relabel(store, **options))


@pytest.mark.parametrize("kind", [RelabelParameters, StatisticsParameters, AugmentParameters])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "split: expected one of train, val, got 'test'"),
        ({"image_root": "/elsewhere"}, "image_root: the splits train, val have a folder each"),
    ],
)
def test_check_parameters_split_that_is_not_there_is_refused(store, kind, options, words):
    teacher = {"teacher": "resnet18"} if kind is RelabelParameters else {}
    with pytest.raises(BadInput, match=words):
        check_parameters(kind(store=str(store), dataset="pets", **teacher, **options))


@pytest.mark.parametrize("weights", ["gone.pth", ".", "n" * 300])
def test_check_parameters_weights_that_are_no_file_are_refused(store, weights):
    with pytest.raises(BadInput, match=r"^weights: no such file: "):
        check_parameters(relabel(store, weights=weights))


@pytest.mark.parametrize(
    ("store", "refused"), [("images", True), ("images/a/b", True), ("imagestore", False), (".", False)]
)
def test_refuse_store_in_source_only_folders_below_the_root_are_refused(tmp_path, store, refused):
    if refused:
        with pytest.raises(BadInput, match=r"^store: .* lies below the images"):
            refuse_store_in_source(tmp_path / store, str(tmp_path / "images"))
    else:
        refuse_store_in_source(tmp_path / store, str(tmp_path / "images"))


def test_check_parameters_of_a_pipeline_looks_for_the_weights_before_the_ingest(tmp_path):
    (tmp_path / "train").mkdir()
    parameters = ImagenetPipelineParameters(
        source=str(tmp_path / "train"), store=str(tmp_path / "store"), teacher="resnet18", weights="/no/such.pth"
    )
    with pytest.raises(BadInput, match=r"weights: no such file: /no/such\.pth"):
        check_parameters(parameters)


@pytest.mark.parametrize(
    ("report", "words"),
    [("teacher.pth/page.html", "report: expected a folder, found something else"), (".", r"report: .* is a folder")],
)
@pytest.mark.parametrize("kind", [StatisticsParameters, AugmentParameters, AnchorsParameters])
def test_check_parameters_report_that_could_not_be_written_is_refused(store, kind, report, words):
    parameters = kind(store=str(store), dataset="pets", report=str(store.parent / report))
    with pytest.raises(BadInput, match=words):
        check_parameters(parameters)


def test_check_parameters_of_a_pipeline_report_that_could_not_be_written_is_refused(folder):
    report = str(folder / "file/page.html")
    with pytest.raises(BadInput, match="report: expected a folder, found something else"):
        check_parameters(ingest(folder, kind=ImagenetPipelineParameters, teacher="resnet18", report=report))


def test_check_parameters_export_into_the_store_is_refused(store):
    parameters = ExportParameters(store=str(store), dataset="pets", format="csv", out=f"{store}/out")
    with pytest.raises(BadInput, match=r"out: .* lies in the store"):
        check_parameters(parameters)


def test_check_parameters_dry_run_of_a_rename_needs_no_permission_to_write(folder):
    given = {"source": str(folder / "full"), "template": "{index}{ext}"}
    check_parameters(RenameParameters(**given, dry_run=True))
    with pytest.raises(BadInput, match="source: no permission"):
        check_parameters(RenameParameters(**given))


def test_check_parameters_archive_in_a_bucket_is_refused_with_what_to_do(folder, monkeypatch):
    monkeypatch.setattr("labelmill.tasks.preflight.holds_files", lambda source: False)
    parameters = IngestFolderParameters(source="s3://pictures/train.zip", store=str(folder / "store"), dataset="pets")
    with pytest.raises(BadInput, match=r"source: .* an archive is read in a folder, not in a bucket"):
        check_parameters(parameters)
