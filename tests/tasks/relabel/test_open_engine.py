"""One engine for each kind of machine, with the facts that shards are keyed by."""

import pytest

from labelmill.models.fast_forward import make_fast
from labelmill.tasks.relabel import open_engine as module
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.engine import label_images
from labelmill.tasks.relabel.engine_process import TeacherSource
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.relabel.open_engine import open_engine

SOURCE = TeacherSource(name="n", weights="w", classes="c")


def test_open_engine_of_a_cpu_labels_as_label_images_does(teacher, photos, settings, bytes_of):
    engine = open_engine(teacher, settings, devices=("cpu",), workers=2, source=SOURCE)
    model = make_fast(teacher.model, input_size=settings.input_size)
    expected = label_images(teacher, photos, settings, workers=1, model=model, temperature=0.7)
    assert bytes_of(engine.label(photos, temperature=0.7)) == bytes_of(expected)
    assert engine.facts() == {**model.facts(), "device": "cpu"}
    assert engine.shards_at_once == 1
    engine.close()


@pytest.mark.parametrize(
    ("devices", "made"),
    [
        pytest.param(("cuda:1",), ("CudaEngine", {"device": "cuda:1", "workers": 5}), id="one"),
        pytest.param(
            ("cuda:0", "cuda:1"),
            ("ProcessEngine", {"devices": ("cuda:0", "cuda:1"), "workers": 5, "digest": "of the teacher"}),
            id="two",
        ),
    ],
)
def test_open_engine_of_gpus_takes_a_process_for_each_of_several(teacher, settings, monkeypatch, devices, made):
    for name in ("CudaEngine", "ProcessEngine"):
        monkeypatch.setattr(module, name, lambda *given, name=name, **options: (name, given[1], options))
    name, given, options = open_engine(teacher, settings, devices=devices, workers=5, source=SOURCE)
    expected_name, expected = made
    if "digest" in expected:
        expected = {**expected, "digest": teacher.digest}
    assert (name, given, options) == (expected_name, settings, expected)


def test_prepare_run_that_fails_closes_its_engine(imagenet, parameters_for, monkeypatch):
    closed = []

    def close(engine):
        closed.append(engine)

    monkeypatch.setattr(CpuEngine, "close", close)
    monkeypatch.setattr("labelmill.tasks.relabel.job.match_classes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_run(parameters_for(imagenet[1]))
    assert len(closed) == 1


@pytest.mark.parametrize(("facts", "same"), [({}, True), ({"device": "cuda", "gpu": "G"}, False)])
def test_prepare_run_shard_keys_depend_on_the_engines_facts(imagenet, parameters_for, monkeypatch, facts, same):
    plain = prepare_run(parameters_for(imagenet[1]))
    told = plain.job.engine.facts()
    monkeypatch.setattr(CpuEngine, "facts", lambda self: {**told, **facts})
    other = prepare_run(parameters_for(imagenet[1]))
    assert ([s.key for s in plain.shards] == [s.key for s in other.shards]) is same
