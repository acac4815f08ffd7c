"""Which devices a run uses: what was asked for, or a refusal that says what to do."""

import pytest
import torch
from pydantic import ValidationError

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import RelabelParameters, parse_device
from labelmill.tasks.relabel.devices import choose_batch_size, choose_devices
from labelmill.tasks.relabel.job import prepare_run


@pytest.fixture
def machine(monkeypatch):
    """Let torch see so many CUDA devices."""

    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [
        ("auto", 0, ("cpu",)),
        ("auto", 1, ("cuda:0",)),
        ("auto", 3, ("cuda:0", "cuda:1", "cuda:2")),
        ("cpu", 2, ("cpu",)),
        ("cuda", 2, ("cuda:0", "cuda:1")),
        ("cuda:1", 2, ("cuda:1",)),
        ("cuda:2,0", 3, ("cuda:2", "cuda:0")),
        ("cuda:0", 1, ("cuda:0",)),
    ],
)
def test_choose_devices_gives_what_was_asked_for(machine, device, count, expected):
    machine(count)
    assert choose_devices(device) == expected


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda", 0, "device: cuda asks for CUDA, and torch .* finds no CUDA device"),
        ("cuda:0", 0, "device: cuda:0 asks for CUDA"),
        ("cuda:1", 1, "device: expected cuda:0, which this machine has, got cuda:1"),
        ("cuda:0,7", 3, "device: expected cuda:0 to cuda:2, which this machine has, got cuda:7"),
    ],
)
def test_choose_devices_of_what_is_not_there_is_refused(machine, device, count, said):
    machine(count)
    with pytest.raises(BadInput, match=said):
        choose_devices(device)


@pytest.mark.parametrize(
    ("asked", "devices", "expected"),
    [(None, ("cpu",), 16), (None, ("cuda:0",), 64), (None, ("cuda:0", "cuda:1"), 64), (5, ("cpu",), 5)],
)
def test_choose_batch_size_suits_the_devices_unless_it_is_given(asked, devices, expected):
    assert choose_batch_size(asked, devices) == expected


@pytest.mark.parametrize("device", ["", "gpu", "CUDA", "cuda:", "cuda:a", "cuda:0,", "cuda:0,0", "cpu:0", "auto:0"])
def test_relabel_parameters_of_an_unknown_device_are_refused_by_name(device):
    with pytest.raises(ValidationError) as refused:
        RelabelParameters(store="s", dataset="imagenet", teacher="t", device=device)
    (problem,) = refused.value.errors()
    assert problem["loc"] == ("device",)
    assert "expected auto, one, cpu, cuda (all of them)" in problem["msg"]


@pytest.mark.parametrize(
    ("device", "parsed"),
    [("auto", ("auto", ())), ("cpu", ("cpu", ())), ("cuda", ("cuda", ())), ("cuda:10,2", ("cuda", (10, 2)))],
)
def test_parse_device_gives_kind_and_numbers(device, parsed):
    assert parse_device(device) == parsed
    assert RelabelParameters(store="s", dataset="imagenet", teacher="t", device=device).device == device


def test_prepare_run_cuda_without_a_gpu_is_refused_before_the_teacher_loads(imagenet, parameters_for, machine):
    machine(0)
    with pytest.raises(BadInput, match="device: cuda asks for CUDA"):
        prepare_run(parameters_for(imagenet[1], device="cuda", teacher="no_such_teacher"))


def test_prepare_run_without_a_batch_size_records_the_one_it_took(imagenet, parameters_for):
    run = prepare_run(parameters_for(imagenet[1], device="cpu", batch_size=None))
    assert run.job.settings.batch_size == 16
    assert run.job.engine.facts()["device"] == "cpu"
