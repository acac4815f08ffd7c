"""`labelmill run`: the fixed command lines, in processes of their own, up to kill -9."""

import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from labelmill.cli import main
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version

TIMEOUT_S = 240
"""Far more than a run here takes on a busy machine: a hanging one fails instead of blocking."""


@pytest.fixture
def imagenet(tmp_path, make_images, ingest):
    """An ingested folder of 60 images; return the store and the options of a relabel in fifteen shards."""
    ingest(make_images(tmp_path / "train", {"n01443537": 30, "n01484850": 30}), tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def relabel_options(tiny_teacher):
    def options(store, **changes):
        given = {
            "store": store, "dataset": "imagenet", "teacher": tiny_teacher.name, "weights": tiny_teacher.weights,
            "classes": tiny_teacher.classes, "input-size": "64x96", "top-k": 3, "shard-size": 4, "device": "cpu",
            "batch-size": 2, "workers": 2, "calibration-images": 8, **changes,
        }  # fmt: skip
        return ["relabel", *(text for name, value in given.items() for text in (f"--{name}", str(value)))]

    return options


@pytest.fixture
def unbroken(imagenet, relabel, tmp_path):
    """The parts that an unbroken run of `relabel_options` gives, in a copy of the store."""
    shutil.copytree(imagenet, tmp_path / "unbroken")
    return relabel(tmp_path / "unbroken", shard_size=4, batch_size=2).parts


def only_lines_of_progress(text):
    return all(re.match(r"[\d,]+ of [\d,]+ [a-z ]+  ", line) for line in text.splitlines())


def exit_code_of(capsys, *options):
    """Run in this process what must end before anything costly; return exit code, output and errors."""
    with pytest.raises(SystemExit) as ended:
        main(["run", *map(str, options)])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture
def no_server(monkeypatch):
    """Fail when a server is started."""

    def refuse(*_, **__):
        raise AssertionError("a server was started")

    monkeypatch.setattr("labelmill.cli_run.prefect_api", refuse)


@pytest.fixture(scope="module")
def small_store(tmp_path_factory, make_images, ingest):
    folder = tmp_path_factory.mktemp("small")
    ingest(make_images(folder / "train", {"n01443537": 1}), folder / "store")
    return folder / "store"


GOOD = {"store": "{store}", "dataset": "imagenet", "teacher": "resnet18", "weights": "{weights}"}


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("store", "{store}/none", "no such folder"),
        ("store", "ftp://bucket/store", "not supported"),
        ("dataset", "Image-Net", "expected a lower-case letter"),
        ("dataset", "other", "other.images: no such table"),
        ("teacher", "", "at least 1 character"),
        ("weights", "/no/such/file.safetensors", "no such file"),
        ("classes", "", "at least 1 character"),
        ("input-size", "224x", "expected pixels"),
        ("input-size", "0", "expected pixels"),
        ("top-k", "0", "greater than or equal to 1"),
        ("top-k", "101", "less than or equal to 100"),
        ("top-k", "three", "valid integer"),
        ("images-version", "0", "greater than or equal to 1"),
        ("images-version", "7", "version 7 does not exist"),
        ("image-root", "http://bucket", "not supported"),
        ("shard-size", "0", "greater than or equal to 1"),
        ("batch-size", "0", "greater than or equal to 1"),
        ("device", "gpu", "expected auto, one, cpu, cuda"),
        ("workers", "-1", "greater than or equal to 0"),
        ("calibration-images", "7", "greater than or equal to 8"),
        ("max-pixels", "0", "greater than or equal to 1"),
    ],
)
def test_run_relabel_bad_value_is_refused_at_once_in_one_line(capsys, small_store, tiny_teacher, field, value, said):
    given = {name: text.format(store=small_store, weights=tiny_teacher.weights) for name, text in GOOD.items()}
    given[field] = value.format(store=small_store)
    code, out, err = exit_code_of(capsys, "relabel", *(t for n, v in given.items() for t in (f"--{n}", v)))
    assert (code, out) == (2, "")
    assert err.startswith("labelmill: ")
    assert err.count("\n") == 1
    assert said in err
    assert field.split("-")[0] in err or f"{value}.images" in err


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("source", "{tmp}/none", "expected a folder"),
        ("store", "memory://bucket", "not supported"),
        ("dataset", "main", "expected a lower-case letter"),
        ("split", "a/b", "should match pattern"),
        ("workers", "257", "less than or equal to 256"),
        ("chunk-size", "0", "greater than or equal to 1"),
        ("max-pixels", "0", "greater than or equal to 1"),
        ("max-bytes", "0", "greater than or equal to 1"),
        ("devkit", "{tmp}/none", "no such folder"),
    ],
)
def test_run_ingest_bad_value_is_refused_at_once_in_one_line(capsys, tmp_path, field, value, said):
    (tmp_path / "source").mkdir()
    given = {"source": str(tmp_path / "source"), "store": str(tmp_path / "store"), "dataset": "imagenet"}
    given[field] = value.format(tmp=tmp_path)
    code, out, err = exit_code_of(capsys, "ingest-imagenet", *(t for n, v in given.items() for t in (f"--{n}", v)))
    assert (code, out) == (2, "")
    assert err.startswith("labelmill: ")
    assert err.count("\n") == 1
    assert said in err
    assert field in err
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("no_server")
def test_run_several_bad_values_are_a_line_each(capsys):
    code, _, err = exit_code_of(
        capsys, "relabel", "--store", "s", "--dataset", "I", "--teacher", "t", "--top-k", "0", "--workers", "-3"
    )
    assert code == 2
    assert [line.split(":")[1] for line in err.splitlines()] == [" --dataset", " --top-k", " --workers"]


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("options", "code", "where", "said"),
    [
        ([], 2, "out", "usage: labelmill run FLOW"),
        (["--help"], 0, "out", "ingest-imagenet"),
        (["relabeling"], 2, "err", "no flow 'relabeling'"),
        (["relabel"], 2, "err", "required: --store, --dataset, --teacher"),
        (["relabel", "--no-such", "1"], 2, "err", "--store"),
        (["relabel", "--help"], 0, "out", "--calibration-images int"),
        (["ingest-imagenet", "--help"], 0, "out", "--source str"),
        (["ingest-folder", "--help"], 0, "out", "--labels str"),
    ],
)
def test_run_usage(capsys, options, code, where, said):
    got, out, err = exit_code_of(capsys, *options)
    assert got == code
    assert said in {"out": out, "err": err}[where]


def test_run_relabel_help_has_every_field_with_its_description(capsys, monkeypatch):
    from labelmill.schemas.parameters import RelabelParameters

    monkeypatch.setenv("COLUMNS", "100")
    text = " ".join(exit_code_of(capsys, "relabel", "--help")[1].split())
    for name, field in RelabelParameters.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert " ".join(field.description.split()) in text


@pytest.mark.prefect
def test_run_ingest_then_relabel_by_the_fixed_command_lines(
    tmp_path, make_images, run_cli, relabel_options, tiny_teacher, prefect_server
):
    source = make_images(tmp_path / "train", {"n01443537": 6, "n01484850": 5})
    (source / "n01443537" / "n01443537_0.JPEG").write_bytes(b"")
    store = tmp_path / "store"

    code, out, err = run_cli(
        "ingest-imagenet", "--source", tmp_path, "--store", store, "--dataset", "imagenet", "--split", "train"
    )
    assert (code, only_lines_of_progress(err)) == (0, True), err
    assert out.splitlines()[0] == "ingest-imagenet imagenet, split train"
    shown = dict(re.findall(r"^ +(\S.*?)  +(.*)$", out, re.MULTILINE))
    assert (shown["table"], shown["images"], shown["done"]) == ("imagenet.images, version 1", "11", "10")
    assert (shown["rejected"], shown["empty"], shown["classes"]) == ("1", "1", "2")

    code, out, err = run_cli(*relabel_options(store))
    assert (code, only_lines_of_progress(err)) == (0, True), err
    assert out.splitlines()[0] == f"relabel imagenet with {tiny_teacher.name}"
    shown = dict(re.findall(r"^ +(\S.*?)  +(.*)$", out, re.MULTILINE))
    assert (shown["table"], shown["images"], shown["done"]) == ("imagenet.label_maps, version 1", "11", "10")
    assert shown["map"].startswith("2x3 cells, top 3 of 8 classes")
    assert re.fullmatch(r"[\d.]+% of 10", shown["pooled class is the label"])
    assert "(fitted on 8 images)" in shown["temperature"]
    assert err.count("11 of 11 images") == 1
    with open_store(store).connect() as sql:
        rows = sql.execute("SELECT row, image_id, label, pooled_class, pooled_prob, status FROM imagenet.label_maps")
        assert len(rows.fetchall()) == 11

    flow_runs = ask(prefect_server, "flow_runs", {"sort": "START_TIME_DESC", "limit": 2})  # the configured server's
    assert [flow_run["state_type"] for flow_run in flow_runs] == ["COMPLETED", "COMPLETED"]
    assert flow_runs[0]["parameters"]["store"] == str(store)
    tasks = ask(prefect_server, "task_runs", {"task_runs": {"flow_run_id": {"any_": [flow_runs[0]["id"]]}}})
    assert sorted(task["name"] for task in tasks) == [f"imagenet by {tiny_teacher.name} shard {n}" for n in range(3)]


def ask(api, what, body):
    """Return what a Prefect server knows."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}/{what}/filter", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def descendants(pid):
    """Return the process ids below `pid`."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.prefect
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a parent's death signal")
def test_run_killed_leaves_no_process_and_the_rerun_ends_with_the_same_bytes(
    imagenet, unbroken, start_cli, run_apart, relabel_options, receipts, wait_for
):
    """With a server of its own; the server must go with the run."""
    process = start_cli(*relabel_options(imagenet), api=None)
    wait_for(lambda: len(receipts(imagenet)) >= 3, process)
    below = descendants(process.pid)
    process.kill()
    process.wait()
    assert any(below), "the run had no server"
    deadline = time.monotonic() + TIMEOUT_S
    while any(is_running(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if is_running(pid)]
    left = len(receipts(imagenet))
    assert left < 15
    assert not open_store(imagenet).table("imagenet.label_maps").numbers()

    code, _, err = run_apart("run", *relabel_options(imagenet))

    assert code == 0, err
    assert f"{left * 4} done before" in err
    table = open_store(imagenet).table("imagenet.label_maps")
    assert table.version().parts == unbroken
    assert verify_version(table).problems == ()


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_run_whose_server_is_killed_says_so_ends_and_has_lost_nothing(
    imagenet, unbroken, start_cli, relabel, relabel_options, receipts, wait_for
):
    process = start_cli(*relabel_options(imagenet), api=None)
    wait_for(lambda: len(receipts(imagenet)) >= 2, process)
    (server,) = descendants(process.pid)
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("labelmill: error: Prefect's server went away during the run.")
    assert "Traceback" not in err
    assert relabel(imagenet, shard_size=4, batch_size=2).parts == unbroken


@pytest.mark.prefect
@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="SIGINT"), pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.drill)],
)
def test_run_asked_to_stop_ends_at_a_batch_and_the_rerun_goes_on(
    imagenet, unbroken, start_cli, relabel, relabel_options, number, receipts, wait_for
):
    process = start_cli(*relabel_options(imagenet))
    wait_for(lambda: len(receipts(imagenet)) >= 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)

    assert (process.returncode, out) == (130, "")
    said = [line for line in err.splitlines() if line and not only_lines_of_progress(line)]
    assert said == [
        "stopping after the images in work; once more to stop at once",
        "labelmill: stopped; run the same command to go on",
    ]
    assert len(receipts(imagenet)) < 15
    assert relabel(imagenet, shard_size=4, batch_size=2).parts == unbroken


@pytest.mark.drill
@pytest.mark.prefect
def test_run_on_a_full_disk_says_so_in_one_line(imagenet, run_cli, relabel_options):
    """A limit on the size of files stands for the disk: part files do not fit, smaller ones do."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    code, out, err = run_cli(*relabel_options(imagenet, **{"shard-size": 60}), preexec_fn=limit)
    assert (code, out) == (1, "")
    said = [line for line in err.splitlines() if line and not only_lines_of_progress(line)]
    assert len(said) == 1
    assert said[0].startswith("labelmill: error: ")
    assert "File too large" in said[0]
    assert not open_store(imagenet).table("imagenet.label_maps").numbers()
    assert not list(imagenet.rglob(".writing-*"))


@pytest.mark.prefect
def test_run_with_a_configured_api_that_does_not_answer_says_so_in_one_line(imagenet, run_cli, relabel_options):
    code, out, err = run_cli(*relabel_options(imagenet), api="http://127.0.0.1:9/api")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("labelmill: error: ")
    assert "http://127.0.0.1:9/api" in err
