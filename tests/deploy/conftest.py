"""What the tests of deploy/ share: a whole Prefect server, and all that `make up` starts."""

import os
import subprocess
import sys
import urllib.error

import pytest
from local_machine import ROOT, TIMEOUT_S, Api, Machine, free_port, open_postgres, wait_until


class Server(Api):
    """A Prefect server on a home of its own, with its background services; they look for heartbeats every second."""

    def __init__(self, home):
        super().__init__(free_port())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {
            **kept,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
            "DO_NOT_TRACK": "1",
        }
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        command = [sys.executable, "-m", "prefect", "server", "start", *address, "--no-ui"]
        with (home / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def answers(self):
        try:
            return self.call("GET", "/health")
        except urllib.error.URLError:
            return False

    def run(self, script, *options, code=0, changes=None, **kwargs):
        """Run a script of deploy/ against the server and expect its exit code; return what it wrote.

        `changes` go into its environment.
        """
        done = subprocess.run(
            [sys.executable, ROOT / "deploy" / script, *map(str, options)],
            env={**self.environment, **(changes or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            **kwargs,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def root():
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server for the session of these tests."""
    started = Server(tmp_path_factory.mktemp("prefect-server"))
    try:
        wait_until(started.answers, started.process)
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """All that `make up` starts, with room for two runs at a time."""
    with open_postgres() as database:
        started = Machine(tmp_path_factory.mktemp("machine"), database, limit=2)
        try:
            started.up()
            yield started
        finally:
            started.down()


@pytest.fixture
def relabel_parameters(tiny_teacher):
    """The parameters of a deployed relabel of 60 images in fifteen shards."""

    def to(store, **changes):
        return {
            "store": str(store), "dataset": "imagenet", **tiny_teacher.parameters(), "input_size": "64x96", "top_k": 3,
            "shard_size": 4, "batch_size": 2, "workers": 2, "calibration_images": 8, **changes,
        }  # fmt: skip

    return to
