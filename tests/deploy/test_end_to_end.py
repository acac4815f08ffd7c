"""The whole of it as an operator has it: a database, a server, deployments, a worker, the short command, a schedule.

The database is PostgreSQL where this machine has one, else SQLite; the test says which.
"""

import datetime
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from labelmill.tasks.store import open_store

TIMEOUT_S = 300


@pytest.fixture(scope="module")
def database():
    """The URL of a PostgreSQL of our own, None where there is none that we could start."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="labelmill-postgres-", dir="/tmp"))
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to be started by root
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            yield None
            return
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"

    def do(*command):
        subprocess.run([*as_user, *command], stdout=subprocess.DEVNULL, cwd=folder, check=True)

    do("initdb", "-D", data, "-U", "prefect", "--auth=trust")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    do("pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        do("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, database, root):
    """`make up` in a folder of its own; give its commands, and take it down at the end."""
    folder = tmp_path_factory.mktemp("machine")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**kept, "OMP_NUM_THREADS": "1"}
    if database:
        environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def local(*words):
        done = subprocess.run(
            [sys.executable, root / "deploy" / "local.py", *words, "--folder", folder],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prefect(*words):
        return subprocess.run(
            [Path(sys.executable).with_name("prefect"), *map(str, words)],
            cwd=root, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            env={**environment, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder / "me")},
        )  # fmt: skip

    local("up", "--port", str(port))
    try:
        yield lambda: local("up"), prefect, folder, f"http://127.0.0.1:{port}/api"
    finally:
        local("down")


@pytest.fixture
def arguments(tiny_teacher):
    """The parameters of a relabel of 60 images in fifteen shards."""

    def to(store):
        given = {
            "store": store, "teacher": tiny_teacher.name, "weights": tiny_teacher.weights,
            "classes": tiny_teacher.classes, "input_size": "64x96", "top_k": 3, "shard_size": 4, "batch_size": 2,
            "workers": 2, "calibration_images": 8,
        }  # fmt: skip
        return [word for name, value in given.items() for word in ("--param", f"{name}={value}")]

    return to


def with_descendants(process):
    children = (task.read_text().split() for task in Path(f"/proc/{process}/task").glob("*/children"))
    return [process, *(one for some in children for child in some for one in with_descendants(int(child)))]


def run_by_schedule(url, deployment, parameters, until):
    """Give a deployment a schedule of every ten seconds and wait for its first run; return that run's state."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.schedules import IntervalSchedule

    with SyncPrefectClient(url) as client:
        found = client.read_deployment_by_name(deployment)
        every = IntervalSchedule(interval=datetime.timedelta(seconds=10))
        made = client.create_deployment_schedules(
            found.id, [DeploymentScheduleCreate(schedule=every, active=True, parameters=parameters)]
        )

        def first():
            ours = FlowRunFilter(deployment_id={"any_": [found.id]}, state={"type": {"any_": ["COMPLETED"]}})
            return [run for run in client.read_flow_runs(flow_run_filter=ours) if run.auto_scheduled]

        (run, *_) = until(first)
        client.delete_deployment_schedule(found.id, made[0].id)
        return run.state_name


@pytest.mark.drill
@pytest.mark.prefect
@pytest.mark.skipif(sys.platform != "linux", reason="needs process groups and PostgreSQL of this system")
def test_up_deploys_runs_by_the_short_name_survives_a_killed_worker_and_keeps_a_schedule(
    machine, database, arguments, make_images, relabel, receipts, wait_until, tmp_path, capsys
):
    up, prefect, folder, url = machine
    with capsys.disabled():
        sys.stdout.write(f"\n[end to end on {'PostgreSQL' if database else 'SQLite: no PostgreSQL was found'}]\n")
    make_images(tmp_path / "train", {"n01443537": 30, "n01484850": 30})
    store = tmp_path / "store"

    source = f"source={tmp_path / 'train'}"
    done = prefect("deployment", "run", "ingest-imagenet", "--param", source, "--param", f"store={store}", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(store, tmp_path / "unbroken")
    unbroken = relabel(tmp_path / "unbroken", shard_size=4, batch_size=2).parts

    assert prefect("deployment", "run", "relabel-imagenet", *arguments(store)).returncode == 0
    wait_until(lambda: len(receipts(store)) >= 3)
    for process in with_descendants(int((folder / ".labelmill" / "worker.pid").read_text())):
        os.kill(process, signal.SIGKILL)
    assert not open_store(store).table("imagenet.label_maps").numbers()
    assert "whose worker is gone" in up()
    done = prefect("deployment", "run", "relabel-imagenet", *arguments(store), "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_store(store).table("imagenet.label_maps").version().parts == unbroken
    with open_store(store).connect() as sql:
        counted = sql.execute("SELECT count(*) FROM imagenet.label_maps WHERE status = 'done'").fetchall()
    assert counted == [(60,)]

    wrong = prefect("deployment", "run", "relabel-imagenett", *arguments(store))
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("labelmill: no deployment 'relabel-imagenett'; there are: ")
    assert "relabel/relabel-imagenet" in wrong.stderr
    failed = prefect("deployment", "run", "relabel-imagenet", *arguments(tmp_path / "nowhere"), "--watch")
    assert failed.returncode == 1
    relative = prefect("deployment", "run", "relabel-imagenet", "--param", "store=some/store")
    assert relative.returncode == 1
    assert "'store'" in relative.stdout

    parameters = {"source": str(tmp_path / "train"), "store": str(store), "dataset": "imagenet"}
    assert run_by_schedule(url, "ingest-imagenet/ingest-imagenet", parameters, wait_until) == "Completed"
