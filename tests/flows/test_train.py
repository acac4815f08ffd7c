"""Training by the command line, under Prefect; and what is refused before anything is done."""

import hashlib
import os
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.tasks.train.trained import SIZE_PX, ingest, write_images

from labelmill.models.trained_weights import read_trained_facts

QUICK = (
    "--student", "conv4", "--input-size", SIZE_PX, "--batch-size", 12, "--rate", 0.1, "--average", 0.5, "--workers", 0,
    "--threads", 1, "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def colours(tmp_path):
    """A folder with a store of ninety images to learn from and thirty to measure on."""
    for split, count, seed in (("train", 30, 1), ("test", 10, 2)):
        write_images(tmp_path / split, [count] * 3, seed=seed)
        ingest(tmp_path / split, tmp_path / "store", split=split, id_prefix=f"{split}/")
    return tmp_path


def given(folder, *options):
    return ("--store", folder / "store", "--dataset", "colours", "--out", folder / "out", *QUICK, *options)


def facts(said):
    return dict(re.findall(r"^  +(\S.*?)  +(.*)$", said, re.MULTILINE))


@pytest.mark.prefect
def test_run_train_tells_its_accuracy_keeps_its_student_and_does_nothing_again(colours, run_apart):
    command = ("run", "train", *given(colours, "--objective", "uda", "--steps", 15, "--labels-per-class", 8))
    code, out, err = run_apart(*command, "--validation-per-class", 4, "--validate-every", 5)
    assert code == 0, err
    accuracy = float(re.fullmatch(r"accuracy: ([01]\.\d{4})", out.splitlines()[-1])[1])
    assert accuracy > 0.6
    told = facts(out)
    assert told["table"] == "colours.checkpoints, version 1"
    assert told["learnt from"] == "24 labelled images, 78 others"
    assert told["measured on"] == "30 images of colours.images v2"
    assert sorted(path.name for path in (colours / "out").iterdir()) == [
        "classes.txt", "curves.html", "student.safetensors",
    ]  # fmt: skip
    weights = (colours / "out/student.safetensors").read_bytes()
    assert read_trained_facts(colours / "out/student.safetensors").architecture == "conv4"
    query = (
        "SELECT count(*), min(step), max(step), count(validation_accuracy), sum((unlabelled_loss IS NULL)::INT), "
        "count(DISTINCT run) FROM colours.training WHERE objective = 'uda'"
    )
    assert run_apart("sql", colours / "store", query, "--format", "csv")[1].splitlines()[1] == "15,0,14,3,0,1"
    query = "SELECT kind, sha256 FROM colours.checkpoints_v1 ORDER BY kind DESC"
    _, out, _ = run_apart("sql", colours / "store", query, "--format", "csv")
    assert out.split()[1] == f"student,{hashlib.sha256(weights).hexdigest()}"
    shutil.rmtree(colours / "out")
    code, out, err = run_apart(*command, "--validation-per-class", 4, "--validate-every", 5)
    assert (code, out.splitlines()[-1]) == (0, f"accuracy: {accuracy:.4f}"), err
    told = facts(out)
    assert (told["table"], told["worked on now"].split()[0]) == ("colours.checkpoints, version 1", "0")
    assert (colours / "out/student.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "gone"), "split: expected one of test, train, got 'gone'"),
        (("--eval-split", "gone"), "eval_split: expected one of test, train, got 'gone'"),
        (("--eval-split", "train"), "eval_dataset: nothing is left to measure on"),
        (("--images-version", 1), "eval_dataset: nothing is left to measure on"),
        (("--objective", "pseudo"), "colours.manifest: no such table"),
        (("--objective", "relabel"), "colours.label_maps: no such table"),
        (("--objective", "magic"), "--objective: "),
        (("--weak-policy", "wek"), "policy 'wek': expected"),
        (("--processes", 5), "batch_size: expected a multiple of processes (5), got 12"),
        (("--objective", "mpl", "--finetune-steps", 4), "finetune_steps: expected fewer than steps (4), got 4"),
        (("--objective", "uda", "--cutmix", 1), "cutmix: is for supervised and relabel, got objective uda"),
        (("--sizes", "16,x"), "--sizes: expected sizes of 8 to 4096 pixels"),
        (("--student-weights", "gone.pth"), "student_weights: no such file"),
        (("--rate", 0), "--rate: "),
        (("--threads", -1), "--threads: "),
    ],
)
def test_run_train_wrong_parameters_are_refused_at_once_in_a_line(colours, run, options, words):
    code, out, err = run("run", "train", *given(colours, "--steps", 4), *options)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize("objective", ["uda", "mpl"])
def test_run_train_killed_and_run_again_ends_with_the_student_of_an_unbroken_run(
    colours, start_cli, run_cli, wait_for, objective
):
    unbroken = colours / "unbroken"
    shutil.copytree(colours / "store", unbroken / "store")
    options = ("--objective", objective, "--steps", 60, "--checkpoint-every", 4, "--validation-per-class", 4)
    killed = start_cli("train", *given(colours, *options))
    wait_for(lambda: list((colours / "store/colours/checkpoints/receipts").glob("[0-9a-f]*.json")), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (colours / "out").exists()
    code, out, err = run_cli("train", *given(colours, *options))
    assert code == 0, err
    assert int(facts(out)["worked on now"].split()[0]) < 60
    code, _, err = run_cli("train", *given(unbroken, *options))
    assert code == 0, err
    first, second = (
        hashlib.sha256((folder / "out/student.safetensors").read_bytes()).hexdigest() for folder in (colours, unbroken)
    )
    assert first == second


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize(
    ("objective", "student", "options"),
    [
        ("supervised", "test_convnext", ("--input-size", 32)),
        ("uda", "conv4", ("--entropy-weight", 0.1)),
        ("mpl", "conv4", ("--finetune-steps", 3)),
    ],
)
def test_run_train_in_two_processes_learns_as_one_does(colours, run_cli, objective, student, options):
    alone = colours / "alone"
    shutil.copytree(colours / "store", alone / "store")
    options = ("--objective", objective, "--student", student, "--steps", 12, *options)
    no_threads = {"OMP_NUM_THREADS": "0"}  # as where it is not set, in accelerate's eyes, which warns then
    code, out, err = run_cli("train", *given(colours, *options, "--processes", 2), changes=no_threads)
    assert code == 0, err
    assert re.fullmatch(r"accuracy: [01]\.\d{4}", out.splitlines()[-1])
    assert "Warning" not in err
    if student == "conv4":  # batch norms see the images of their process alone
        return
    code, _, err = run_cli("train", *given(alone, *options))
    assert code == 0, err
    two, one = (load_file(folder / "out/student.safetensors") for folder in (colours, alone))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-3, rtol=1e-3)


@pytest.mark.drill
@pytest.mark.prefect
def test_run_train_in_two_processes_asked_to_stop_says_so_without_a_traceback(colours, start_cli, wait_for):
    options = ("--steps", 10**6, "--checkpoint-every", 2, "--validation-per-class", 4, "--processes", 2)
    process = start_cli("train", *given(colours, *options))
    wait_for(lambda: list((colours / "store/colours/checkpoints/receipts").glob("[0-9a-f]*.json")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "labelmill: stopped; run the same command to go on"
    assert "Traceback" not in err
