"""Pseudo labels by the command line, under Prefect; and what is refused before anything is done."""

import re

import pytest


@pytest.fixture
def imagenet(tmp_path, make_images, ingest, monkeypatch):
    """A store of ten images, one of which is none."""
    source = make_images(tmp_path / "train", {"n01443537": 5, "n01484850": 4})
    (source / "n01443537" / "broken.JPEG").write_bytes(b"")
    ingest(source, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def facts(said):
    return dict(re.findall(r"^  +(\S.*?)  +(.*)$", said, re.MULTILINE))


@pytest.mark.prefect
def test_run_pseudolabel_stores_once_and_sql_chooses(imagenet, tiny_teacher, run_apart):
    given = ("run", "pseudolabel", "--store", imagenet, "--dataset", "imagenet", "--teacher", tiny_teacher.name)
    given += ("--weights", tiny_teacher.weights, "--classes", tiny_teacher.classes, "--views", "flip")
    given += ("--also", f"{tiny_teacher.name}={tiny_teacher.weights}", "--shard-size", 4, "--device", "cpu")
    code, said, err = run_apart(*given)
    told = facts(said)
    assert (code, told["done"], told["empty"], told["views"]) == (0, "9", "1", "flip"), err
    assert told["table"] == "imagenet.pseudo_labels, version 1"
    assert re.fullmatch(r"\d+\.\d% of 9", told["pseudo class is the label"])
    assert told["teachers"].count(f"{tiny_teacher.name}, ") == 2
    code, said, err = run_apart(*given)
    assert (code, facts(said)["worked on now"].split()[0]) == (0, "0"), err
    query = (
        "SELECT count(*) AS n, count(pseudo_name) AS named, bool_and(margin <= confidence) AS fits "
        "FROM imagenet.pseudo_labels WHERE confidence >= 0"
    )
    code, said, err = run_apart("sql", imagenet, query, "--format", "csv")
    assert (code, said.split()) == (0, ["n,named,fits", "9,9,true"]), err
    assert run_apart("verify", imagenet, "imagenet.pseudo_labels")[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weights", "gone.pth"), "weights: no such file"),
        (("--also", "resnet18=gone.pth"), "also: resnet18: no such file"),
        (("--also", "resnet18="), "--also: also: 'resnet18=': expected NAME=WEIGHTS"),
        (("--classes", "gone.txt"), "classes: no such file: gone.txt; expected auto, imagenet-1k, none or"),
        (("--split", "val"), "split: expected one of train, got 'val'"),
        (("--images-version", 7), "imagenet.images: version 7 does not exist"),
        (("--table", "images"), "table: 'images' is the name of another table"),
        (("--device", "gpu"), "--device: device 'gpu': expected auto, one, cpu"),
        (("--views", "ten"), "--views: "),
        (("--top-k", 0), "--top-k: "),
        (("--input-size", "224x"), "--input-size: input size '224x'"),
        (("--dataset", "nothing"), "nothing.images: no such table"),
        (("--store", "elsewhere"), "no such folder"),
    ],
)
def test_run_pseudolabel_wrong_parameters_are_refused_at_once_by_name(imagenet, run, options, words):
    code, out, err = run("run", "pseudolabel", *_without(options), *options)
    assert (code, out) == (2, "")
    assert words in err


def _without(options):
    given = {"--store": "store", "--dataset": "imagenet", "--teacher": "resnet18"}
    return [word for name, value in given.items() if name not in options for word in (name, value)]
