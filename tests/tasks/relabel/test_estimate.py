"""What a run would take: measured on its own images, and nothing of it kept."""

import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel.estimate import estimate_run
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.store import open_store


@pytest.fixture
def estimate(imagenet, parameters_for):
    def measure():
        run = prepare_run(parameters_for(imagenet[1]))
        try:
            return estimate_run(run)
        finally:
            run.job.engine.close()

    return measure


def test_estimate_run_counts_what_is_left_and_keeps_nothing(imagenet, estimate):
    found = estimate()
    assert (found.images, found.done_before) == (21, 0)
    assert 0 < found.sampled <= 21
    assert found.seconds == found.images / found.images_per_s
    assert 50 < found.bytes_per_image < 5000
    table = open_store(imagenet[1]).table("imagenet.label_maps")
    assert table.numbers() == []
    assert not list(table.folder.glob("parts/*"))


def test_estimate_run_of_a_run_that_is_done_is_nothing(imagenet, estimate, relabel):
    relabel(imagenet[1])
    assert (estimate().images, estimate().done_before) == (0, 21)


def test_estimate_run_where_the_images_went_says_so(imagenet, parameters_for):
    run = prepare_run(parameters_for(imagenet[1]))
    for path in imagenet[0].rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(WorkFailed, match="no image of the sample could be read"):
        estimate_run(run)
    run.job.engine.close()
