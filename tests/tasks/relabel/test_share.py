"""Shares of a run: every shard in one of them, and a version once all are done, the same as of one machine."""

import json
import threading

import pytest

from labelmill.schemas.errors import BadInput, WorkFailed
from labelmill.schemas.parameters import RelabelParameters, parse_share
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.relabel.share import take_share
from labelmill.tasks.store import open_store
from labelmill.tasks.store.table import Table


@pytest.fixture
def label_maps(imagenet):
    return open_store(imagenet[1]).table("imagenet.label_maps")


@pytest.fixture
def prepare(imagenet, parameters_for):
    """Prepare a share of six shards of four images."""
    runs = []

    def share(which):
        runs.append(prepare_run(parameters_for(imagenet[1], shard_size=4, share=which)))
        return runs[-1]

    yield share
    for run in runs:
        run.job.engine.close()


def label(run):
    return [label_shard(run.job, shard) for shard in run.mine]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_take_share_every_shard_is_in_one_share(count, of):
    shares = [take_share(range(count), f"{which + 1}/{of}") for which in range(of)]
    assert [shard for share in shares for shard in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_take_share_of_none_is_all():
    assert take_share(range(5), None) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "1/0", "1/2/3", "-1/2", "a/b", "1/99999", "1 / 2"])
def test_parse_share_of_something_else_is_refused(share):
    with pytest.raises(BadInput, match="which of how many"):
        parse_share(share)
    with pytest.raises(ValueError, match="share"):
        RelabelParameters(store="/s", dataset="d", teacher="t", share=share)


def test_commit_run_shares_make_the_version_of_one_machine_when_the_last_is_done(
    imagenet, prepare, relabel, label_maps, tmp_path
):
    shares = {which: prepare(which) for which in ("3/3", "1/3", "2/3")}
    assert sorted(len(run.mine) for run in shares.values()) == [2, 2, 2]
    made = {which: commit_run(run, label(run)) for which, run in shares.items()}
    assert made["3/3"] is made["1/3"] is None
    assert made["2/3"].parts == label_maps.version().parts
    whole = relabel(imagenet[1], shard_size=4)
    assert whole == made["2/3"]  # nothing to do, and no version of its own
    assert json.loads(whole.model_dump_json())["lineage"]["parameters"]["share"] is None


def test_commit_run_two_shares_that_end_at_once_make_one_version(prepare, label_maps, monkeypatch):
    runs = [prepare("1/2"), prepare("2/2")]
    receipts = [label(run) for run in runs]
    met, create = threading.Barrier(2, timeout=60), Table._create
    wait_once = threading.local()

    def create_together(table, version):
        if not hasattr(wait_once, "done"):
            wait_once.done = True
            met.wait()  # both have looked, and neither has seen a version
        return create(table, version)

    monkeypatch.setattr(Table, "_create", create_together)
    made = {}

    def commit(which):
        made[which] = commit_run(runs[which], receipts[which])

    threads = [threading.Thread(target=commit, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert label_maps.numbers() == [1]
    assert made == {0: label_maps.version(), 1: label_maps.version()}


def test_commit_run_images_missing_from_another_share_are_rows_of_the_version(imagenet, prepare, label_maps):
    """Their shard would be tried again by a rerun of that share; the last one takes it as it is."""
    gone = sorted(imagenet[0].rglob("*.JPEG"))[0]
    away = gone.rename(imagenet[0].parent / "away.JPEG")
    first = prepare("1/2")
    assert commit_run(first, label(first)) is None
    second = prepare("2/2")
    version = commit_run(second, label(second))
    statuses = label_maps.read(version, ["status"])["status"].to_pylist()
    assert (statuses.count("done"), statuses.count("rejected")) == (20, 1)
    away.rename(gone)
    again = prepare("1/2")
    kept = again.job.label_maps.receipts
    missing = [shard for shard in again.mine if kept.find(shard.key, run=again.job.run) is None]
    assert len(missing) == 1
    whole = commit_run(again, label(again))
    assert whole.number == 2
    assert label_maps.read(whole, ["status"])["status"].to_pylist().count("done") == 21


def test_commit_run_share_without_one_readable_image_fails(imagenet, prepare, label_maps):
    run = prepare("1/2")
    for path in imagenet[0].rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(WorkFailed, match=r"none of \d+ images could be read"):
        commit_run(run, label(run))
    assert label_maps.numbers() == []
