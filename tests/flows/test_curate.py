"""Renaming, splitting and counting by the command line, under Prefect."""

import pytest
from PIL import Image
from tests.flows.told import facts

from labelmill.tasks.store import open_store


@pytest.fixture
def pictures(tmp_path):
    for number in range(1, 13):
        folder = tmp_path / "pictures" / ("cats" if number % 3 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (20 * number, 0, 255)).save(folder / f"shot {number}.png")
    (tmp_path / "pictures/cats/broken.png").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.mark.prefect
def test_run_rename_ingest_split_statistics_tell_what_they_did(pictures, tmp_path, run_apart):
    template = ("rename", "--source", pictures, "--template", "{class}_{number:03d}{ext}", "--first", 1)
    code, out, err = run_apart("run", *template, "--dry-run")
    assert (code, facts(out)["cats/shot 10.png"]) == (0, "→ cats/cats_008.png"), err
    code, out, err = run_apart("run", *template)
    assert (code, facts(out)["done"]) == (0, "13"), err
    assert (pictures / "dogs/dogs_004.png").exists()
    assert "table" not in facts(out)

    store = tmp_path / "store"
    given = ("--store", store, "--dataset", "pets")
    assert run_apart("run", "ingest-folder", "--source", pictures, *given)[0] == 0
    code, out, err = run_apart("run", "split", *given, "--fractions", "a=0.5,b=0.5", "--labels-per-class", 1)
    told = facts(out)
    assert (code, told["a"], told["b"], told["empty"], told["same bytes in two splits"]) == (0, "6", "6", "1", "0"), err

    code, out, err = run_apart("run", "statistics", *given)
    told = facts(out)
    assert (code, told["mean of red, green, blue"]) == (0, f"{130 / 255:.6f}, 0.000000, 1.000000"), err
    assert "<svg" in open_store(store).table("pets.statistics").files.read("reports/v1.html").decode()
    code, out, err = run_apart("run", "find-leaks", "--store", store, "--tables", "pets.splits")
    assert (code, facts(out)["contents on both sides"]) == (0, "0"), err

    journal = tmp_path / "pictures.rename-001.jsonl"
    code, out, err = run_apart("run", "rename", "--undo", journal)
    assert (code, (pictures / "cats/shot 10.png").exists()) == (0, True), err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("rename",), "source: expected the folder whose files to rename"),
        (("rename", "--source", "GONE"), "source: no such folder"),
        (("rename", "--undo", "GONE"), "undo: no such journal"),
        (("rename", "--source", ".", "--template", "{clas}"), "--template: '{clas}': no field {clas}; fields: index,"),
        (("split", "--store", ".", "--dataset", "pets", "--fractions", "a=0.5"), "--fractions: 'a=0.5': expected"),
        (("split", "--store", ".", "--dataset", "pets"), "pets.images: no such table"),
        (("statistics", "--store", "GONE", "--dataset", "pets"), "no such folder"),
        (("find-leaks", "--store", ".", "--tables", "pets"), "--tables: table name 'pets'"),
        (("domains", "--store", ".", "--dataset", "pets", "--other", "Zoo"), "--other: dataset name 'Zoo'"),
        (("episodes", "--store", ".", "--dataset", "pets", "--ways", 1), "--ways: "),
    ],
)
def test_run_wrong_parameters_are_refused_at_once_by_name(tmp_path, run, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("run", *options)
    assert (code, out) == (2, "")
    assert words in err
