"""A teacher that was trained here on a dataset's own classes: from its file to label maps of 32-pixel images."""

import numpy as np
import pytest
import torch
from PIL import Image

from labelmill.models.students import build_student, describe_student
from labelmill.models.trained_weights import encode_trained
from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import IngestFolderParameters, RelabelParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store

CLASSES = ("0", "1", "2")
COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
SMALL = {"wrn_28_2": (8, 8), "resnet18_32": (4, 4), "conv4": (2, 2)}


def draw(label, random):
    """Return (32, 32, 3) uint8, noise of the class's colour."""
    return np.clip(COLOURS[label] + random.integers(-30, 31, (32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A store with eighteen PNG images of 32 pixels in folders named 0, 1 and 2."""
    root, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(draw(label, random)).save(root / "train" / name / f"{number}.png")
    given = {"source": str(root / "train"), "store": str(root / "store"), "dataset": "colours", "labels": "folder"}
    run = prepare_folder(IngestFolderParameters(**given))
    commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
    return root / "store"


def train(name, path, *, names=CLASSES, input_size=None, steps=2):
    """Train a student for some steps on drawn images, its outputs in the order of `names`; write its file."""
    random = np.random.default_rng(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = build_student(name, num_classes=len(names), input_size=input_size)
        optimizer = torch.optim.SGD(student.model.parameters(), lr=0.02, momentum=0.5)
        for _ in range(steps):
            labels = random.integers(0, len(CLASSES), 12)
            pixels = np.stack([draw(label, random) for label in labels])
            images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
            targets = torch.tensor([names.index(CLASSES[label]) for label in labels])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(student.model(images), targets).backward()
            optimizer.step()
    classes = ClassList(classes=tuple(ClassName(name=n) for n in names), source="colours.images v1")
    path.write_bytes(encode_trained(student.model, describe_student(student, classes)))
    return student.model.eval()


def relabel(store, teacher, weights, **options):
    """Relabel as the flow does it; return the version and its rows."""
    run = prepare_run(
        RelabelParameters(
            store=str(store), dataset="colours", teacher=teacher, weights=str(weights), calibration_images=8,
            workers=2, device="cpu", **options,
        )
    )  # fmt: skip
    version = commit_run(run, [label_shard(run.job, shard) for shard in run.shards])
    table = open_store(store).table("colours.label_maps")
    return version, table.read(version, [column.name for column in version.columns]).to_pylist()


@pytest.mark.parametrize(("name", "grid"), SMALL.items(), ids=SMALL)
def test_relabel_by_a_small_network_stores_its_answers_for_classes_found_by_name(name, grid, colours, tmp_path):
    learns = name == "conv4"  # the others would take long
    model = train(name, tmp_path / "student.safetensors", names=("2", "0", "1"), steps=12 if learns else 2)

    version, rows = relabel(colours, name, tmp_path / "student.safetensors")

    assert version.metadata["grid"] == list(grid)
    assert version.metadata["input_size"] == [32, 32]
    assert version.metadata["label_match"]["how"] == "name"
    assert version.metadata["label_match"]["matched"] == 3
    assert [c["name"] for c in version.metadata["classes"]["classes"]] == ["2", "0", "1"]
    assert version.lineage.teacher["preprocessing"]["native_size"] == [32, 32]
    assert [row["label"] for row in rows] == [{"0": 1, "1": 2, "2": 0}[row["image_id"][0]] for row in rows]
    pixels = [np.asarray(Image.open(colours.parent / "train" / row["image_id"])) for row in rows]
    with torch.no_grad():
        logits = model((torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    probabilities = torch.softmax(logits / version.metadata["temperature"], 1)
    pooled, stored = (torch.tensor([row[column] for row in rows]) for column in ("pooled_class", "pooled_prob"))
    torch.testing.assert_close(stored, probabilities.gather(1, pooled[:, None])[:, 0], atol=0.02, rtol=0)
    torch.testing.assert_close(stored, probabilities.max(1).values, atol=0.02, rtol=0)
    if learns:
        assert pooled.tolist() == [row["label"] for row in rows]


def test_relabel_by_a_timm_student_trained_here_takes_its_size_from_the_file(colours, tmp_path):
    train("test_efficientnet", tmp_path / "student.safetensors", input_size=64)

    version, rows = relabel(colours, "test_efficientnet", tmp_path / "student.safetensors")

    assert version.metadata["input_size"] == [64, 64]
    assert version.metadata["teacher"]["tag"] == ""
    assert {row["status"] for row in rows} == {"done"}
    assert [c["name"] for c in version.metadata["classes"]["classes"]] == list(CLASSES)


def test_relabel_by_a_small_network_in_fast_precision_and_other_size_labels_every_image(colours, tmp_path):
    train("conv4", tmp_path / "student.safetensors")

    version, rows = relabel(
        colours, "conv4", tmp_path / "student.safetensors", precision="fast", input_size="48x80", classes="none"
    )

    assert version.metadata["grid"] == [3, 5]
    assert version.metadata["classes"] is None
    assert [row["status"] for row in rows] == ["done"] * 18


def test_relabel_with_a_file_trained_for_another_architecture_is_refused_before_any_work(colours, tmp_path):
    train("conv4", tmp_path / "student.safetensors")

    with pytest.raises(BadInput, match=r"teacher 'wrn_28_2': weights 'student.safetensors' are those of .* 'conv4'"):
        relabel(colours, "wrn_28_2", tmp_path / "student.safetensors")
