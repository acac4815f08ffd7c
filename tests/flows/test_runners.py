"""Shards on real local clusters of Ray and Dask: the same bytes as on threads, and what a user sees."""

import shutil

import pytest

from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks import preflight
from labelmill.tasks.preflight import check_parameters
from labelmill.tasks.store import open_store


@pytest.fixture
def store(tmp_path, make_images, ingest):
    """A store of 40 images; ten shards of four."""
    ingest(make_images(tmp_path / "train", {"n01443537": 20, "n01484850": 20}), tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.parametrize(("runner", "module"), [("dask", "prefect_dask"), ("ray", "prefect_ray")])
def test_relabel_on_a_cluster_of_two_gives_the_bytes_of_threads(
    store, tmp_path, relabel, tiny_teacher, run_cli, runner, module
):
    pytest.importorskip(module)
    shutil.copytree(store, tmp_path / "threads")
    expected = relabel(tmp_path / "threads", shard_size=4, batch_size=2).parts
    options = {
        "store": store, "dataset": "imagenet", "teacher": tiny_teacher.name, "weights": tiny_teacher.weights,
        "classes": tiny_teacher.classes, "input-size": "64x96", "top-k": 3, "shard-size": 4, "device": "cpu",
        "batch-size": 2, "workers": 2, "calibration-images": 8, "runner": runner, "runner-workers": 2,
    }  # fmt: skip
    code, out, err = run_cli("relabel", *(word for name, value in options.items() for word in (f"--{name}", value)))
    assert code == 0, err
    assert "Traceback" not in err
    assert "40" in out
    assert open_store(store).table("imagenet.label_maps").version().parts == expected


def test_check_parameters_runner_that_is_not_installed_says_what_to_install(store, monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    parameters = RelabelParameters(store=str(store), dataset="imagenet", teacher="resnet18", runner="ray")
    with pytest.raises(ValueError, match=r"runner: ray is not installed: pip install 'labelmill\[ray\]'"):
        check_parameters(parameters)
