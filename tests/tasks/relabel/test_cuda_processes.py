"""A process for each device: the bytes of one process, and no hang when something ends."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.images import Reason
from labelmill.tasks.relabel.cuda_engine import CudaEngine
from labelmill.tasks.relabel.cuda_processes import ProcessEngine, _join_facts
from labelmill.tasks.relabel.engine_process import TeacherSource, serve
from labelmill.tasks.relabel.settings import RelabelSettings

SETTINGS = RelabelSettings(input_size=(64, 96), top_k=3, batch_size=2, max_pixels=1_000_000)
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def source(tiny_teacher):
    return TeacherSource(name=tiny_teacher.name, weights=tiny_teacher.weights, classes=tiny_teacher.classes)


@pytest.fixture(scope="module")
def two(source, teacher):
    """Two processes, started once for the tests that leave them as they are."""
    engine = ProcessEngine(source, SETTINGS, devices=["cpu", "cpu"], workers=2, digest=teacher.digest)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def one(teacher):
    engine = CudaEngine(teacher, SETTINGS, device="cpu", workers=2)
    yield engine
    engine.close()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def test_label_by_two_processes_gives_the_bytes_of_one(two, one, photos, bytes_of):
    photos[5].path.unlink()
    told = []
    labelled = two.label(photos * 3, temperature=0.7, on_batch=lambda *counts: told.append(counts))
    assert bytes_of(labelled) == bytes_of(one.label(photos * 3, temperature=0.7))
    assert [place for place, r in enumerate(labelled) if r.reason is Reason.MISSING] == [5, 18, 31]
    assert (sum(images for images, _ in told), sum(rejected for _, rejected in told)) == (39, 3)


def test_native_probabilities_by_two_processes_are_those_of_one(two, one, photos):
    photos[5].path.unlink()
    found, expected = two.native_probabilities(photos), one.native_probabilities(photos)
    assert found[5] is None
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_facts_of_two_alike_processes_are_those_of_one(two, one):
    assert two.facts() == one.facts()
    assert two.shards_at_once > one.shards_at_once


@pytest.mark.usefixtures("asked_to_stop")
def test_label_by_processes_asked_to_stop_stops(two, photos):
    told = []
    with pytest.raises(WorkFailed, match="stopped on request"):
        two.label(photos, on_batch=lambda *counts: told.append(counts))
    assert told == []


def test_label_a_fault_within_a_process_is_told_and_it_goes_on(two, photos, bytes_of):
    before = bytes_of(two.label(photos))
    for _ in range(5):  # more often than there are lanes
        with pytest.raises(WorkFailed, match="the process for cpu: TypeError: "):
            two.label(photos[:1], temperature="no number")
    assert bytes_of(two.label(photos)) == before


def test_label_when_a_process_dies_names_it_and_does_not_hang(source, teacher, photos):
    engine = ProcessEngine(source, SETTINGS, devices=["cpu", "cpu"], workers=2, digest=teacher.digest)
    pids = [worker.process.pid for worker in engine._workers]
    try:
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(WorkFailed, match=rf"the process for cpu \(pid {pids[1]}\) died, exit code -9"):
            engine.label(photos * 4)
        with pytest.raises(WorkFailed, match=f"pid {pids[1]}"):  # nor at the next call
            engine.label(photos * 4)
    finally:
        engine.close()
    assert not any(map(is_running, pids))


def test_serve_a_teacher_that_is_not_there_is_answered(source, monkeypatch):
    """In this process: what it does with signals is put back."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    gone = TeacherSource(name=source.name, weights="/gone.safetensors", classes=source.classes)
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        serve(gone, SETTINGS, "cpu", 1, [theirs])
        answer = ours.recv()
    assert isinstance(answer, BadInput)
    assert "/gone.safetensors" in str(answer)


def test_process_engine_of_another_teacher_than_expected_is_refused(source):
    with pytest.raises(WorkFailed, match=r"the process for cpu loaded another teacher .* expected 0123"):
        ProcessEngine(source, SETTINGS, devices=["cpu"], workers=1, digest="0123")


def test_processes_end_when_their_parent_is_killed(source, teacher):
    given = {"source": asdict(source), "settings": asdict(SETTINGS), "digest": teacher.digest}
    script = Path(__file__).with_name("processes_without_parent.py")
    parent = subprocess.Popen([sys.executable, str(script), json.dumps(given)], stdout=subprocess.PIPE, text=True)
    with parent:
        pids = json.loads(parent.stdout.readline())
        assert all(map(is_running, pids))
        parent.kill()
    wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.parametrize(
    ("each", "joined"),
    [
        pytest.param([{"gpu": "A", "cuda": "1"}] * 2, {"gpu": "A", "cuda": "1"}, id="alike"),
        pytest.param([{"gpu": "B"}, {"gpu": "A"}, {"gpu": "B"}], {"gpu": "A, B"}, id="two kinds"),
        pytest.param([{"device": "cpu"}], {"device": "cpu"}, id="none"),
    ],
)
def test_join_facts_names_each_kind_of_gpu_once(each, joined):
    assert _join_facts(each) == joined


def test_join_facts_of_gpus_that_compute_differently_is_refused():
    with pytest.raises(BadInput, match=r"device: the GPUs compute differently \(precision 'bf16' and 'fp32'\)"):
        _join_facts([{"gpu": "A", "precision": "bf16"}, {"gpu": "B", "precision": "fp32"}])
