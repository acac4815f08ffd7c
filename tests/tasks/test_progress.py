"""Progress: counts from many threads add up, and are told now and then."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelmill.tasks import progress
from labelmill.tasks.progress import Progress, ProgressMeter


def test_progress_meter_counts_of_many_threads_add_up():
    meter = ProgressMeter("images", 4000)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: meter.add(done=1, rejected=1), range(2000)))
    meter.add(reused=2000)
    final = meter.finish()
    assert (final.done, final.rejected, final.reused, final.total) == (2000, 2000, 2000, 4000)


def test_progress_meter_tells_rarely_and_at_the_end(caplog, monkeypatch):
    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4, 1.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "labelmill.progress"):
        meter = ProgressMeter("images", 10)
        for _ in range(4):
            meter.add(done=2)
        meter.finish()
    told = [record.progress for record in caplog.records]
    assert told[0].done == 6  # at 0.3 s
    assert told[-1] == Progress(what="images", total=10, done=8, elapsed_s=1.0)
    assert caplog.records[-1].getMessage() == "images: 8 of 10, 8.0/s, 0 rejected"


def test_progress_meter_tells_the_end_once(caplog):
    with caplog.at_level(logging.INFO, "labelmill.progress"):
        meter = ProgressMeter("images", 1)
        meter._reported = -1.0  # a record is due
        meter.add(done=1)
        meter.finish()
    assert [record.progress.done for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("state", "rate", "eta_s"),
    [
        pytest.param({"done": 20, "elapsed_s": 10.0}, 2.0, 40.0, id="plain"),
        pytest.param({"done": 20, "reused": 30, "elapsed_s": 10.0}, 2.0, 25.0, id="reused items cost nothing"),
        pytest.param({"reused": 30, "elapsed_s": 10.0}, 0.0, None, id="nothing done yet"),
        pytest.param({}, 0.0, None, id="no time passed"),
        pytest.param({"done": 100, "elapsed_s": 10.0}, 10.0, 0.0, id="finished"),
    ],
)
def test_progress_rate_and_eta(state, rate, eta_s):
    now = Progress(what="images", total=100, **state)
    assert (now.rate, now.eta_s) == (rate, eta_s)
