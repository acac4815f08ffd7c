"""What goes wrong in operation, done on purpose to a real server, database and worker: nothing is lost."""

import random
import shutil
import subprocess
import sys
import time

import pytest
from local_machine import family_of, kill, wait_until

from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version

pytestmark = [
    pytest.mark.drill,
    pytest.mark.prefect,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]

KILLS = 5
RELABEL = "relabel/relabel-imagenet"


@pytest.fixture
def store(tmp_path, make_images, ingest):
    """A store of 60 images in fifteen shards."""
    ingest(make_images(tmp_path / "train", {"n01443537": 30, "n01484850": 30}), tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def unbroken(store, tmp_path, relabel):
    """The parts of an unbroken run, in a copy of the store."""
    shutil.copytree(store, tmp_path / "unbroken")
    return relabel(tmp_path / "unbroken", shard_size=4, batch_size=2).parts


@pytest.fixture
def label_maps(store):
    return open_store(store).table("imagenet.label_maps")


@pytest.mark.parametrize("seed", [0, 1])
def test_relabel_whose_run_worker_or_server_is_killed_at_random_moments_ends_with_the_same_bytes(
    machine, store, unbroken, label_maps, relabel_parameters, seed
):
    drawn = random.Random(seed)
    victims = {
        "run": machine.processes_of_runs,
        "worker": lambda: [machine.process("worker")],
        "worker and run": lambda: family_of(machine.process("worker")),
        "server": lambda: family_of(machine.process("server")),
    }
    for number in range(KILLS):
        machine.schedule(RELABEL, **relabel_parameters(store))
        time.sleep(drawn.uniform(3, 12))  # from before its process is there until after its end
        kill(*victims[drawn.choice(list(victims)) if number else "server"]())
        machine.up()
    assert machine.wait_for_end(machine.schedule(RELABEL, **relabel_parameters(store)))["type"] == "COMPLETED"
    assert label_maps.numbers() == [1]
    assert label_maps.version().parts == unbroken
    assert verify_version(label_maps).problems == ()


def test_relabel_while_the_database_restarts_ends_as_if_nothing_had_been(
    machine, store, unbroken, label_maps, relabel_parameters, receipts
):
    if machine.database is None:
        pytest.skip("no PostgreSQL on this machine")
    run = machine.schedule(RELABEL, **relabel_parameters(store))
    wait_until(lambda: receipts(store))
    machine.database.stop()
    machine.database.start()
    assert machine.wait_for_end(run)["type"] == "COMPLETED"
    assert label_maps.version().parts == unbroken


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 kB; give its folder and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if (done := mount("size=128k")).returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield folder, lambda: mount("remount,size=64m")
    subprocess.run(["umount", str(folder)], check=True)


def test_relabel_on_a_full_disk_fails_with_the_reason_and_goes_on_when_there_is_room(
    machine, store, unbroken, relabel_parameters, small_disk
):
    disk, enlarge = small_disk
    full = disk / "store"
    shutil.copytree(store, full)
    state = machine.wait_for_end(machine.schedule(RELABEL, **relabel_parameters(full)))
    assert state["type"] == "FAILED"
    assert "No space left on device" in state["message"]
    label_maps = open_store(full).table("imagenet.label_maps")
    assert label_maps.numbers() == []
    assert enlarge().returncode == 0
    assert machine.wait_for_end(machine.schedule(RELABEL, **relabel_parameters(full)))["type"] == "COMPLETED"
    assert label_maps.version().parts == unbroken


def test_ingest_of_two_splits_at_once_both_commit_and_no_row_is_lost_or_doubled(machine, tmp_path, make_images):
    given = {"store": str(tmp_path / "both"), "dataset": "imagenet"}
    runs = []
    for split, first in (("train", 0), ("val", 100)):
        source = make_images(tmp_path / split, {"n01443537": 30, "n01484850": 30}, first=first)
        runs.append(machine.schedule("ingest-imagenet/ingest-imagenet", **given, split=split, source=str(source)))
    assert [machine.wait_for_end(run)["type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    images = open_store(tmp_path / "both").table("imagenet.images")
    assert images.numbers() == [1, 2]
    ids = images.read(images.version(), ["image_id"])["image_id"].to_pylist()
    assert (len(ids), len(set(ids))) == (120, 120)


def test_relabel_by_two_runs_at_once_makes_one_version(machine, store, unbroken, label_maps, relabel_parameters):
    runs = [machine.schedule(RELABEL, **relabel_parameters(store)) for _ in range(2)]
    assert [machine.wait_for_end(run)["type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    assert label_maps.numbers() == [1]
    assert label_maps.version().parts == unbroken


def test_relabel_shared_by_two_runs_makes_the_version_of_one_machine(
    machine, store, unbroken, label_maps, relabel_parameters
):
    runs = [machine.schedule(RELABEL, **relabel_parameters(store, share=share)) for share in ("1/2", "2/2")]
    assert [machine.wait_for_end(run)["type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    assert label_maps.numbers() == [1]
    assert label_maps.version().parts == unbroken


def test_deployment_run_refuses_a_wrong_name_a_wrong_store_and_a_relative_path(machine, tmp_path):
    def fails(name, *words):
        done = machine.prefect("deployment", "run", name, *words)
        assert done.returncode == 1
        return done

    wrong = fails("relabel-imagenett").stderr
    assert wrong.startswith("labelmill: no deployment 'relabel-imagenett'; there are: ")
    assert RELABEL in wrong
    fails("relabel-imagenet", "--param", f"store={tmp_path / 'nowhere'}", "--watch")
    assert "'store'" in fails("relabel-imagenet", "--param", "store=some/store").stdout
