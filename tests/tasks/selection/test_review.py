"""Queues of doubted labels, the verdicts that come back, and what an ingest then does."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import DisagreementsParameters, IngestFolderParameters, VerdictsParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.selection.disagreements import queue_disagreements, write_queue
from labelmill.tasks.selection.queue_page import build_queue_page
from labelmill.tasks.selection.verdicts import take_verdicts
from labelmill.tasks.store import open_store

from .conftest import predicted, write_labels

TEACHER = ("dog", "cow", "bee", "ant", "yak")
"""Not in the dataset's order; it has no elk, the dataset has no yak."""


@dataclass
class Pets:
    """A dataset of folders ant, bee, cow, dog and elk with two pictures each, and what a teacher said."""

    folder: Path
    root: Path

    def ingest(self, **options):
        given = {"source": str(self.folder), "store": str(self.root), "dataset": "pets", "split": "pool"}
        run = prepare_folder(IngestFolderParameters(**given, **options))
        return commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])

    def images(self):
        table = open_store(self.root).table("pets.images")
        return {row["image_id"]: row for row in table.read(table.version(), ["image_id", *FACTS]).to_pylist()}

    def labels(self):
        return {name: row["label"] for name, row in self.images().items() if row["status"] == "done"}

    def queue(self, **options):
        return queue_disagreements(DisagreementsParameters(store=str(self.root), dataset="pets", **options))

    def fill(self, verdicts, queue=None):
        """The CSV of the queue with verdicts by image filled in, written beside the store."""
        lines = list(csv.DictReader(io.StringIO(write_queue(queue or self.queue()))))
        for line in lines:
            line["verdict"] = verdicts.get(line["image_id"], "")
        return self.write(lines)

    def write(self, lines, delimiter=","):
        path = self.root.parent / "filled.csv"
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, list(lines[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(lines)
        return path

    def take(self, path):
        return take_verdicts(VerdictsParameters(store=str(self.root), dataset="pets", csv=str(path)))


FACTS = ("label", "status", "reason", "width", "sha256")
PREDICTED = [
    predicted("ant/0.png", 2, 0.95, others=[(3, 0.03)]),  # bee
    predicted("ant/1.png", 3, 0.99),
    predicted("bee/0.png", 1, 0.9, others=[(2, 0.1)]),  # cow
    predicted("bee/1.png", 1, 0.7),
    predicted("cow/0.png", 4, 0.85),  # yak
    predicted("cow/1.png", None, None, reason="corrupt"),
    predicted("dog/0.png", 3, 0.97),  # ant
    predicted("dog/1.png", None, None),
    predicted("elk/0.png", 3, 0.99),
    predicted("gnu/0.png", 3, 0.99),
]


@pytest.fixture
def pets(tmp_path):
    for place, name in enumerate(("ant", "bee", "cow", "dog", "elk")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 6), (20 * place, 90 * number, 0)).save(tmp_path / f"pictures/{name}/{number}.png")
    made = Pets(folder=tmp_path / "pictures", root=tmp_path / "store")
    made.ingest()
    write_labels(PREDICTED, made.root, names=TEACHER)
    return made


def test_queue_disagreements_ranks_by_what_exceeds_the_label_and_counts_the_others(pets):
    queue = pets.queue()
    found = [(r["rank"], r["image_id"], r["label_name"], r["suggested_name"]) for r in queue.rows.to_pylist()]
    assert found == [
        (1, "dog/0.png", "dog", "ant"), (2, "ant/0.png", "ant", "bee"), (3, "cow/0.png", "cow", "yak"),
        (4, "bee/0.png", "bee", "cow"),
    ]  # fmt: skip
    assert queue.rows["suggested"].to_pylist() == [0, 1, None, 2]
    assert queue.rows["label_probability"].to_pylist() == pytest.approx([0, 0.03, 0, 0.1])
    assert queue.others == {
        "agreed": 1, "below_threshold": 1, "corrupt": 1, "no_prediction": 1, "class_unknown_to_teacher": 1,
        "not_among_images": 1,
    }  # fmt: skip
    assert pets.queue(limit=1).others["over_limit"] == 3
    assert pets.queue(threshold=0.96).rows["image_id"].to_pylist() == ["dog/0.png"]


def test_take_verdicts_make_a_version_of_the_images(pets):
    queue = pets.queue()
    path = pets.fill({"dog/0.png": "suggested", "ant/0.png": "keep", "cow/0.png": "drop", "bee/0.png": "dog"}, queue)
    before = pets.labels()
    made = pets.take(path)
    assert made.counts == {"changed": 2, "kept": 1, "dropped": 1}
    assert pets.labels() == {k: v for k, v in before.items() if k != "cow/0.png"} | {"dog/0.png": 0, "bee/0.png": 3}
    dropped = pets.images()["cow/0.png"]
    assert (dropped["status"], dropped["reason"]) == ("rejected", "dropped")
    inputs = {"pets.disagreements": queue.version.number, "pets.pseudo_labels": 1, "pets.images": 1, "pets.verdicts": 1}
    assert made.images.lineage.inputs == inputs
    with open_store(pets.root).connect() as sql:
        flips = sql.execute("SELECT * FROM label_flips('pets.images_v1', 'pets.images_v2', 'class_name')").fetchall()
        assert flips == [("bee", "dog", "flipped", 1), ("dog", "ant", "flipped", 1)]
        assert sql.execute("SELECT DISTINCT csv_sha256 FROM pets.verdicts").fetchall() == [
            (made.images.metadata["csv_sha256"],)
        ]


def test_take_verdicts_same_file_again_changes_nothing(pets):
    path = pets.fill({"dog/0.png": "suggested", "cow/0.png": "drop"})
    first = pets.take(path)
    again = pets.take(path)
    assert (again.images, again.verdicts, again.rows) == (first.images, first.verdicts, 0)


def test_take_verdicts_finish_what_a_killed_run_began(pets, monkeypatch):
    path = pets.fill({"dog/0.png": "suggested"})
    with monkeypatch.context() as patch:
        patch.setattr("labelmill.tasks.selection.verdicts._change_images", None)
        with pytest.raises(TypeError):
            pets.take(path)
    assert pets.labels()["dog/0.png"] == 3
    assert pets.take(path).verdicts.number == 1
    assert pets.labels()["dog/0.png"] == 0


def test_queue_disagreements_leave_out_what_people_decided(pets):
    pets.take(pets.fill({"ant/0.png": "keep", "dog/0.png": "suggested", "cow/0.png": "drop"}))
    queue = pets.queue()
    assert queue.rows["image_id"].to_pylist() == ["bee/0.png"]
    assert queue.others["kept_by_people"] == 1
    assert "ant/0.png" in pets.queue(again=True).rows["image_id"].to_pylist()


def test_ingest_again_keeps_verdicts_also_when_all_is_read_anew(pets):
    made = pets.take(pets.fill({"dog/0.png": "suggested", "cow/0.png": "drop"}))
    assert pets.ingest() == made.images
    Image.new("RGB", (9, 9)).save(pets.folder / "dog/2.png")
    Image.new("RGB", (9, 9)).save(pets.folder / "dog/0.png")  # another picture in its place
    version = pets.ingest(rehash=True)
    assert version.lineage.inputs == {"pets.verdicts": 1}
    assert {name: pets.labels()[name] for name in ("dog/0.png", "dog/1.png", "dog/2.png")} == {
        "dog/0.png": 0, "dog/1.png": 3, "dog/2.png": 3,
    }  # fmt: skip
    assert pets.images()["cow/0.png"]["reason"] == "dropped"


def test_ingest_after_deleted_verdicts_gives_the_labels_of_the_folders(pets):
    before = pets.images()
    pets.take(pets.fill({"dog/0.png": "suggested", "cow/0.png": "drop"}))
    open_store(pets.root).table("pets.verdicts").delete(1)
    pets.ingest()
    assert pets.images() == before


def test_take_verdicts_a_second_one_counts_from_the_first(pets):
    queue = pets.queue()
    pets.take(pets.fill({"dog/0.png": "suggested"}, queue))
    line = {"image_id": "dog/0.png", "label": "0", "suggested": "", "verdict": "cow"}
    pets.take(pets.write([line], delimiter=";"))
    assert pets.labels()["dog/0.png"] == 2
    pets.ingest()
    assert pets.labels()["dog/0.png"] == 2


def test_take_verdicts_without_any_changes_nothing(pets):
    made = pets.take(pets.fill({}))
    assert (made.images.number, made.verdicts, made.undecided) == (1, None, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "yes"}, "line 2: verdict 'yes': expected keep, suggested, drop, or"),
        ({"verdict": "9"}, "line 2: verdict '9': expected"),
        ({"verdict": "keep", "image_id": "dog/9.png"}, "line 2: no image 'dog/9.png'"),
        ({"verdict": "keep", "label": "1"}, "line 2: 'dog/0.png' now has label 3, not 1"),
        ({"verdict": "keep", "label": "dog"}, "line 2: label: expected the id of a class, from 0 to 4, got 'dog'"),
        ({"verdict": "suggested", "suggested": ""}, "line 2: the dataset has no class that is suggested"),
        ({"verdict": "keep", "image_id": "ant/0.png", "label": "0"}, "line 3: a second verdict on 'ant/0.png'"),
    ],
)
def test_take_verdicts_with_a_wrong_line_changes_nothing_and_names_it(pets, changes, words):
    queue = pets.queue()
    lines = list(csv.DictReader(io.StringIO(pets.fill({"ant/0.png": "keep"}, queue).read_text("utf-8-sig"))))
    lines[0].update(changes)
    with pytest.raises(BadInput, match=words) as refusal:
        pets.take(pets.write(lines))
    assert "1 of 4 lines are wrong, nothing was changed" in str(refusal.value)
    assert not open_store(pets.root).table("pets.verdicts").numbers()
    assert pets.images()["dog/0.png"]["label"] == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected one column each"),
        (b"image_id,verdict\n", "lacks label, suggested"),
        (b"image_id,label,suggested,verdict\na,1\n", "line 2 has 2 cells, expected 4"),
        (b'image_id,label,suggested,verdict\n"a,1,1,keep\n', "behind line"),
        (b"\xff\xfe", "expected UTF-8"),
    ],
)
def test_take_verdicts_broken_file_is_refused(pets, tmp_path, data, words):
    path = tmp_path / "broken.csv"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=words):
        pets.take(path)


def test_build_queue_page_shows_pictures_and_says_which_are_gone(pets):
    (pets.folder / "ant/0.png").unlink()
    queue = pets.queue()
    page = build_queue_page(open_store(pets.root), queue, shown=3)
    assert page.count("data:image/jpeg") == 2
    assert page.count("no photo:") == 1
    assert page.count('<article class="card"') == 3
    assert "the teacher says yak, 85.0%" in page
