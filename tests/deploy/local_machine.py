"""`make up` in a folder of its own, with a PostgreSQL of its own where there is one; for tests and benchmarks."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
"""Far more than anything here takes on a busy machine: what hangs fails instead of blocking."""


def wait_until(condition, process=None):
    """Wait until a condition holds, while `process` goes on; return what it returned."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (held := condition()):
        assert process is None or process.poll() is None, "the process ended"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.2)
    return held


def free_port():
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A PostgreSQL that trusts whoever connects on loopback."""

    folder: Path
    port: int
    prefix: tuple[str, ...]

    @property
    def url(self):
        return f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/postgres"

    def do(self, *command):
        """Run one of PostgreSQL's programs as its user."""
        return subprocess.run(
            [*self.prefix, *map(str, command)], cwd=self.folder, capture_output=True, text=True, check=True
        ).stdout

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = self.folder / "log"
        command = [*self.prefix, "pg_ctl", "-D", self.folder / "data", "-o", options, "-l", log, "-w", "start"]
        subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, check=True)  # its server keeps the output

    def stop(self):
        """End it as a power failure would."""
        self.do("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")


@contextmanager
def open_postgres():
    """Start a PostgreSQL and give it; None where this machine has none that we could start."""
    prefix = ()
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="labelmill-postgres-", dir="/tmp"))
    try:
        if os.geteuid() == 0:  # PostgreSQL refuses to be started by root
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                yield None
                return
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            prefix = ("runuser", "-u", "postgres", "--")
        database = Postgres(folder=folder, port=free_port(), prefix=prefix)
        database.do("initdb", "-D", folder / "data", "-U", "prefect", "--auth=trust")
        database.start()
        try:
            yield database
        finally:
            database.stop()
    finally:
        shutil.rmtree(folder)


class Api:
    """The API of a Prefect server, asked over HTTP, so that who asks imports nothing of Prefect."""

    def __init__(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}/api"

    def call(self, method, path, body=None):
        """Send `body` as JSON; return what it answers, asking again while its database is busy, as Prefect does."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
            time.sleep(1)


class Machine(Api):
    """A server, the deployments and a worker, all in `folder`; `database` is None for SQLite."""

    def __init__(self, folder, database, *, limit=1):
        super().__init__(free_port())
        self.folder, self.database, self.limit = folder, database, limit
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self._environment = {**kept, "OMP_NUM_THREADS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2"}
        if database:
            self._environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database.url

    def up(self):
        """Start what does not run; return what it says."""
        return self._local("up", "--port", str(self.port), "--limit", str(self.limit))

    def down(self):
        return self._local("down")

    def _local(self, *words):
        done = subprocess.run(
            [sys.executable, ROOT / "deploy" / "local.py", *words, "--folder", self.folder],
            env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prefect(self, *words):
        """Run `prefect …` in the checkout, as an operator with a home of their own."""
        return subprocess.run(
            [Path(sys.executable).with_name("prefect"), *map(str, words)],
            cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            env={**self._environment, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.folder / "me")},
        )  # fmt: skip

    def schedule(self, deployment, **parameters):
        """Ask for a run of a deployment, as `flow/name`; return its id."""
        found = self.call("GET", f"/deployments/name/{deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"]

    def state(self, run):
        """Return a run's state, None while the server does not answer."""
        try:
            return self.call("GET", f"/flow_runs/{run}")["state"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def wait_for_end(self, run):
        """Wait until a run has ended; return its state."""

        def ended():
            state = self.state(run)
            return state if state and state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

        return wait_until(ended)

    def process(self, name):
        """Return the process id of `server` or `worker`."""
        return int((self.folder / ".labelmill" / f"{name}.pid").read_text())

    def processes_of_runs(self):
        """Return the process ids of the runs that the worker has started."""
        return family_of(self.process("worker"))[1:]


def family_of(process):
    """Return a process and all that it started."""
    children = (task.read_text().split() for task in Path(f"/proc/{process}/task").glob("*/children"))
    return [process, *(one for some in children for child in some for one in family_of(int(child)))]


def kill(*processes):
    """End processes as a power failure would."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
