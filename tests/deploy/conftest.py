"""A whole Prefect server for the tests of deploy/: with its background services, on a home of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
"""Far more than anything here takes on a busy machine: a hanging test fails instead of blocking."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Prefect server, asked over HTTP, so that these tests import nothing of Prefect."""

    url: str
    environment: dict[str, str]

    def call(self, method, path, body=None):
        """Send `body` as JSON to the API; return what it answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def run(self, script, *options, code=0, **kwargs):
        """Run a script of deploy/ against the server and expect its exit code; return what it wrote."""
        done = subprocess.run(
            [sys.executable, ROOT / "deploy" / script, *map(str, options)],
            env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **kwargs,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="session")
def root():
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server for the session of these tests; it looks for missing heartbeats every second."""
    home = tmp_path_factory.mktemp("prefect-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {
        **kept,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
        "DO_NOT_TRACK": "1",
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    started = Server(url=environment["PREFECT_API_URL"], environment=environment)
    try:
        until(lambda: _answers(started), process)
        yield started
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def wait_until():
    """Wait until a condition holds; return what it returned."""
    return until


def until(condition, process=None):
    deadline = time.monotonic() + TIMEOUT_S
    while not (held := condition()):
        assert process is None or process.poll() is None, "the process ended"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.2)
    return held


def _answers(server):
    try:
        return server.call("GET", "/health")
    except urllib.error.URLError:
        return False
