"""Shards labelled with what travels to another process are those of the run itself, or are refused."""

import pickle
from dataclasses import replace

import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel import remote_shard
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.relabel.remote_shard import label_shard_elsewhere
from labelmill.tasks.relabel.shards import label_shard


@pytest.fixture
def run(imagenet, parameters_for, monkeypatch):
    monkeypatch.setattr(remote_shard, "_held", [])
    made = prepare_run(parameters_for(imagenet[1]))
    yield made
    made.job.engine.close()
    for _, job in remote_shard._held:
        job.engine.close()


def test_label_shard_elsewhere_gives_the_runs_own_receipts(run):
    job = pickle.loads(pickle.dumps(run.remote(workers=1)))
    shards = pickle.loads(pickle.dumps(run.shards))
    elsewhere = [label_shard_elsewhere(job, shard) for shard in shards]
    assert elsewhere == [label_shard(run.job, shard) for shard in run.shards]


def test_label_shard_elsewhere_opens_the_teacher_once_for_a_job(run, monkeypatch):
    opened = []
    real = remote_shard.load_teacher
    monkeypatch.setattr(remote_shard, "load_teacher", lambda *a, **k: opened.append(a) or real(*a, **k))
    for shard in run.shards:
        label_shard_elsewhere(run.remote(workers=1), shard)
    assert len(opened) == 1
    label_shard_elsewhere(run.remote(workers=2), run.shards[0])
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "0" * 64}, "its weights here, from .*, are not those of the run"),
        ({"engine": {"precision": "bf16"}}, "computes differently .* precision 'fp32' instead of 'bf16'"),
    ],
)
def test_label_shard_elsewhere_where_the_bytes_would_differ_is_refused(run, change, said):
    with pytest.raises(WorkFailed, match=said):
        label_shard_elsewhere(replace(run.remote(workers=1), **change), run.shards[0])
