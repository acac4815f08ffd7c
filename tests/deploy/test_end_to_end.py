"""The whole of it as an operator has it: a database, a server, deployments, a worker, the short command, a schedule.

The database is PostgreSQL where this machine has one, else SQLite; the test says which.
"""

import shutil
import sys

import pytest
from local_machine import family_of, kill, wait_until

from labelmill.tasks.store import open_store


def run_by_schedule(machine, deployment, parameters):
    """Give a deployment a schedule of every ten seconds and wait for its first run; return that run's state."""
    found = machine.call("GET", f"/deployments/name/{deployment}")["id"]
    every = {"schedule": {"interval": 10.0}, "active": True, "parameters": parameters}
    (made,) = machine.call("POST", f"/deployments/{found}/schedules", [every])
    ours = {"flow_runs": {"deployment_id": {"any_": [found]}, "state": {"type": {"any_": ["COMPLETED"]}}}}

    def first():
        return [run for run in machine.call("POST", "/flow_runs/filter", ours) if run["auto_scheduled"]]

    (run, *_) = wait_until(first)
    machine.call("DELETE", f"/deployments/{found}/schedules/{made['id']}")
    return run["state"]["type"]


@pytest.mark.prefect
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_up_deploys_runs_by_the_short_name_survives_a_killed_worker_and_keeps_a_schedule(
    machine, relabel_parameters, make_images, relabel, receipts, tmp_path, capsys
):
    with capsys.disabled():
        sys.stdout.write(
            f"\n[end to end on {'PostgreSQL' if machine.database else 'SQLite: no PostgreSQL was found'}]\n"
        )
    source = make_images(tmp_path / "train", {"n01443537": 30, "n01484850": 30})
    store = tmp_path / "store"
    ingest = {"source": str(source), "store": str(store), "dataset": "imagenet"}
    assert run_by_schedule(machine, "ingest-imagenet/ingest-imagenet", ingest) == "COMPLETED"
    shutil.copytree(store, tmp_path / "unbroken")
    unbroken = relabel(tmp_path / "unbroken", shard_size=4, batch_size=2).parts

    machine.schedule("relabel/relabel-imagenet", **relabel_parameters(store))
    wait_until(lambda: len(receipts(store)) >= 3)
    kill(*family_of(machine.process("worker")))
    assert not open_store(store).table("imagenet.label_maps").numbers()
    assert "whose worker is gone" in machine.up()
    words = [word for name, value in relabel_parameters(store).items() for word in ("--param", f"{name}={value}")]
    done = machine.prefect("deployment", "run", "relabel-imagenet", *words, "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_store(store).table("imagenet.label_maps").version().parts == unbroken
    with open_store(store).connect() as sql:
        counted = sql.execute("SELECT count(*) FROM imagenet.label_maps WHERE status = 'done'").fetchall()
    assert counted == [(60,)]
