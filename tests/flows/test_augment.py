"""Views by the command line, under Prefect; and what is refused before anything is done."""

import pytest
from PIL import Image
from tests.flows.told import facts

from labelmill.tasks.store import open_store


@pytest.fixture
def pictures(tmp_path):
    for number in range(4):
        folder = tmp_path / "pictures" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (60 * number, 0, 255)).save(folder / f"{number}.png")
    (tmp_path / "pictures/cats/broken.png").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.mark.prefect
def test_run_augment_writes_a_dataset_and_goes_on_where_it_stood(pictures, tmp_path, run_apart):
    store, out = tmp_path / "store", tmp_path / "views"
    code, _, err = run_apart("run", "ingest-folder", "--source", pictures, "--store", store, "--dataset", "pets")
    assert code == 0, err
    policy = tmp_path / "mine.yaml"
    policy.write_text("- {op: random_resized_crop, size: 8}\n- flip\n")
    given = ("run", "augment", "--store", store, "--dataset", "pets", "--policy", policy, "--epochs", 2)
    made = ("--into", "pets_mine", "--out", out, "--shard-size", 2)
    code, said, err = run_apart(*given, *made)
    told = facts(said)
    assert (code, told["done"], told["empty"]) == (0, "8", "2"), err
    assert told["table"] == "pets_mine.views, version 1"
    assert told["policy"].startswith("mine, ")
    assert len(list(out.rglob("*.jpg"))) == 8
    assert "<li>crop " in open_store(store).table("pets_mine.views").files.read("reports/v1.html").decode()
    code, said, err = run_apart(*given, *made)
    assert (code, facts(said)["worked on now"].split()[0]) == (0, "0"), err
    code, said, err = run_apart(*given)
    assert (code, facts(said)["table"]) == (0, "pets.views, version 1"), err
    query = "SELECT count(*) AS n FROM pets.views JOIN pets_mine.views AS made USING (image_id, epoch, steps)"
    code, said, err = run_apart("sql", store, query, "--format", "csv")
    assert (code, said.split()) == (0, ["n", "8"]), err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "wek"), "--policy: policy 'wek': expected weak, strong, rand-augment"),
        (("--policy", "gone.yaml"), "gone.yaml: No such file or directory; expected a YAML file"),
        (("--policy", "loud.yaml"), "operations.0.rand_augment.magnitude: Input should be less than or equal to 30"),
        (("--into", "more"), "out: expected a folder together with into"),
        (("--into", "pets", "--out", "o"), "into: expected another name than the dataset's own"),
        (("--into", "more", "--out", "store/views"), "lies in the store; choose another folder"),
        (("--split", "val"), "split: expected one of train, got 'val'"),
        (("--table", "images"), "'images' is the name of a table of the dataset itself"),
        (("--boxes-version", 1), "boxes_version: boxes are carried into a new dataset alone"),
        (("--epochs", 0), "--epochs: "),
    ],
)
def test_run_augment_wrong_parameters_are_refused_at_once_by_name(tmp_path, run, dataset_of_pets, options, words):
    (tmp_path / "loud.yaml").write_text("- {op: rand_augment, magnitude: 31}\n")
    code, out, err = run("run", "augment", "--store", "store", "--dataset", "pets", *options)
    assert (code, out) == (2, "")
    assert words in err


@pytest.fixture
def dataset_of_pets(pictures, tmp_path, monkeypatch):
    from labelmill.schemas.parameters import IngestFolderParameters
    from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder

    monkeypatch.chdir(tmp_path)
    run = prepare_folder(IngestFolderParameters(source=str(pictures), store=str(tmp_path / "store"), dataset="pets"))
    commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])
