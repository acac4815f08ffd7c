"""`labelmill run relabel … --estimate`: figures that fit each other, and nothing done."""

import os
import re
import signal

import pytest

from labelmill.cli_estimate import AskedEstimate, parse_estimate
from labelmill.schemas.errors import WorkFailed
from labelmill.tasks import stop
from labelmill.tasks.store import open_store


@pytest.fixture
def relabel_options(tmp_path, make_images, ingest, tiny_teacher, teachers_held):
    """The command line of a relabel of 21 images."""
    ingest(make_images(tmp_path / "train", {"n01443537": 21}), tmp_path / "store")
    return [
        "run", "relabel", "--store", tmp_path / "store", "--dataset", "imagenet", "--teacher", tiny_teacher.name,
        "--weights", tiny_teacher.weights, "--classes", tiny_teacher.classes, "--input-size", "64x96",
        "--device", "cpu", "--batch-size", 2, "--workers", 2, "--calibration-images", 8,
    ]  # fmt: skip


def test_run_relabel_estimate_says_time_bytes_and_cost_and_does_nothing(run, relabel_options, tmp_path):
    code, out, _ = run(*relabel_options, "--estimate", "--price-per-hour", "3600")
    assert code == 0
    assert out.startswith("21 images to label, 0 done before\n")
    rate = float(re.search(r"([\d,.]+) images/s", out)[1].replace(",", ""))
    cost, each = (
        float(text.replace(",", "")) for text in re.search(r"at 3600 an hour ([\d.,]+), or ([\d.,]+) ", out).groups()
    )
    assert each == pytest.approx(1000 / rate, rel=0.05)  # a second costs 1
    assert cost == pytest.approx(21 / rate, abs=0.006, rel=0.05)
    assert open_store(tmp_path / "store").table("imagenet.label_maps").numbers() == []


def test_run_relabel_estimate_without_a_price_names_no_cost(run, relabel_options):
    code, out, _ = run(*relabel_options, "--estimate")
    assert code == 0
    assert "an hour of this machine labels" in out
    assert "for 1,000 images" not in out


def test_run_relabel_estimate_that_is_stopped_ends_as_a_stopped_run(run, relabel_options, monkeypatch):
    def interrupted(prepared):
        os.kill(os.getpid(), signal.SIGINT)
        stop.check_stop()

    monkeypatch.setattr("labelmill.tasks.relabel.estimate.estimate_run", interrupted)
    try:
        code, out, err = run(*relabel_options, "--estimate")
    finally:
        stop._asked.clear()
    assert (code, out) == (130, "")
    assert "stopped" in err


def test_run_relabel_estimate_that_fails_without_a_stop_fails(run, relabel_options, monkeypatch):
    def fail(prepared):
        raise WorkFailed("the sample is gone")

    monkeypatch.setattr("labelmill.tasks.relabel.estimate.estimate_run", fail)
    code, _, err = run(*relabel_options, "--estimate")
    assert code == 1
    assert "the sample is gone" in err


def test_parse_estimate_takes_its_own_options_and_leaves_the_others_in_order():
    options = ["--store", "/s", "--estimate", "--top-k", "3", "--price-per-hour", "2.5", "--split", "train"]
    assert parse_estimate(options) == (AskedEstimate(2.5), ["--store", "/s", "--top-k", "3", "--split", "train"])
    assert parse_estimate(["--store", "/s"]) == (None, ["--store", "/s"])


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "two"])
def test_run_relabel_estimate_price_that_is_none_is_refused(run, relabel_options, price):
    code, out, err = run(*relabel_options, "--estimate", f"--price-per-hour={price}")
    assert (code, out) == (2, "")
    assert "--price-per-hour" in err


def test_run_relabel_price_without_an_estimate_is_refused(run, relabel_options):
    code, _, err = run(*relabel_options, "--price-per-hour", "2")
    assert code == 2
    assert "--price-per-hour goes with --estimate" in err
