"""`make up` and `make down`: a Prefect server, the work pool, the deployments and a worker on this machine alone.

Everything lies in .labelmill/ of the checkout: Prefect's home with its database, the logs, the process ids. The one
file outside is prefect.toml beside pyproject.toml, which tells `prefect` and `labelmill run` in this folder where the
server is; `make down` takes it away again.

    python deploy/local.py up [--port 4200] [--limit N] [--folder FOLDER]
    python deploy/local.py down
    python deploy/local.py status

A PREFECT_API_DATABASE_CONNECTION_URL in the environment is taken as it is; without one the database is SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PREFECT = Path(sys.executable).with_name("prefect")

SERVER_UP_WITHIN_S = 180.0
WORKER_UP_WITHIN_S = 120.0
END_WITHIN_S = 20.0

WORKER_LOOKS_EVERY_S = "2"
"""Prefect's own 10 are meant for many workers; one on its own machine need not let people wait."""

_MARK = "# written by make up, removed by make down\n"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what is not running")
    up.add_argument("--port", type=int, default=4200)
    up.add_argument("--limit", type=int, help="runs at a time (default: one for each GPU, one without)")
    commands.add_parser("down", help="end the worker with its runs, then the server")
    commands.add_parser("status", help="say what is running")
    for command in commands.choices.values():
        command.add_argument("--folder", type=Path, default=ROOT, help="for .labelmill/ (default: the checkout)")
    options = parser.parse_args()
    machine = Machine(options.folder.absolute())
    if options.command == "up":
        machine.start_all(options.port, options.limit or count_gpus() or 1)
    elif options.command == "down":
        machine.end_all()
    else:
        machine.tell_status()


class Machine:
    """What runs on this machine by the files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / ".labelmill"
        self.settings = folder / "prefect.toml"

    def start_all(self, port: int, limit: int) -> None:
        """Start server and worker, and make pool and deployments what the files say; whatever runs already stays."""
        url = (self._url() if self._running("server") else None) or f"http://127.0.0.1:{port}/api"
        environment = self._environment(url)
        (self.state / "logs").mkdir(parents=True, exist_ok=True)
        if self.settings.exists() and not self.settings.read_text().startswith(_MARK):
            sys.exit(f"{self.settings} is a file of yours: move it away, it would tell prefect of another server")
        if self._running("server") is None:
            _refuse_taken(port)
            self._start("server", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment)
        self._wait_for("server", lambda: _answers(url), SERVER_UP_WITHIN_S)
        self.settings.write_text(f'{_MARK}[api]\nurl = "{url}"\n')
        bootstrap = [sys.executable, str(ROOT / "deploy" / "bootstrap.py"), "--pool-limit", str(limit)]
        if subprocess.run(bootstrap, cwd=ROOT, env=environment, check=False).returncode:
            sys.exit("the server runs, but was not prepared; make down ends it")
        if self._running("worker") is None:
            _end_zombies(url)
            self._start("worker", ["worker", "start", "--pool", "gpu", "--limit", str(limit)], environment)
        self._wait_for(
            "worker", lambda: "started!" in self._log("worker").read_text(errors="replace"), WORKER_UP_WITHIN_S
        )
        self.tell_status()
        print(
            "\nnext: prefect deployment run relabel-imagenet --param store=/data/store --watch   (make down ends all)"
        )

    def end_all(self) -> None:
        """End the worker first, so that its runs can still say goodbye to the server."""
        for name in ("worker", "server"):
            process = self._running(name)
            if process is None:
                print(f"{name}: not running")
            else:
                _end(process)
                print(f"{name}: ended")
            self._pid_file(name).unlink(missing_ok=True)
        if self.settings.exists() and self.settings.read_text().startswith(_MARK):
            self.settings.unlink()

    def tell_status(self) -> None:
        """Print what runs, and where it writes."""
        for name in ("server", "worker"):
            process = self._running(name)
            print(f"{name}: {f'process {process}' if process else 'not running'}, log {self._log(name)}")
        if url := self._url():
            print(f"api: {url}")

    def _environment(self, url: str) -> dict[str, str]:
        """Return what server, worker and runs live in: Prefect's home in this checkout, no word sent elsewhere."""
        return {
            **os.environ,
            "PREFECT_API_URL": url,
            "PWD": str(ROOT),  # deployments name it as their folder
            "PREFECT_HOME": str(self.state / "home"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", WORKER_LOOKS_EVERY_S),
            "DO_NOT_TRACK": "1",
        }

    def _start(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        log = self._log(name).open("wb")
        process = subprocess.Popen(
            [str(PREFECT), *arguments],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._pid_file(name).write_text(str(process.pid))

    def _wait_for(self, name: str, ready: Callable[[], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not ready():
            if self._running(name) is None or time.monotonic() > deadline:
                last = self._log(name).read_text(errors="replace").strip().splitlines()[-5:]
                sys.exit("\n".join([f"{name}: did not start; the end of {self._log(name)}:", *last]))
            time.sleep(0.2)

    def _running(self, name: str) -> int | None:
        """Return the process id of a server or worker of ours that is alive, None when there is none."""
        try:
            process = int(self._pid_file(name).read_text())
        except (OSError, ValueError):
            return None
        return process if _command_of(process) is not None else None

    def _url(self) -> str | None:
        """Return the API of the server that was started last, None when there is none."""
        text = self.settings.read_text() if self.settings.exists() else ""
        return text.split('"')[1] if text.startswith(_MARK) else None

    def _pid_file(self, name: str) -> Path:
        return self.state / f"{name}.pid"

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"


def count_gpus() -> int:
    """Count NVIDIA's GPUs without importing torch."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return listed.count("GPU ")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - http, and ours
            return True
    except OSError:
        return False


def _end_zombies(url: str) -> None:
    """Mark runs whose process is gone as crashed: they would hold the pool's places for a quarter of an hour."""
    states = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    pool = {"work_pools": {"name": {"any_": ["gpu"]}}}
    for run in _post(f"{url}/flow_runs/filter", {**states, **pool}):
        process = str(run["infrastructure_pid"] or "").rpartition(":")[2]
        if process.isdigit() and _command_of(int(process)) is not None:
            print(f"still at work: run {run['name']}, process {process}, which outlived its worker")
            continue
        crashed = {"type": "CRASHED", "message": "its worker was gone when the next one started"}
        _post(f"{url}/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
        print(f"ended: run {run['name']}, whose worker is gone; the same run started again goes on")


def _post(url: str, body: object) -> Any:  # noqa: ANN401 - JSON
    request = urllib.request.Request(  # noqa: S310 - http, and ours
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is taken, perhaps by another Prefect server; choose one: make up PORT=4300")


def _command_of(process: int) -> str | None:
    """Return the command of a living process of Prefect, None when there is none of that number."""
    found = subprocess.run(
        ["ps", "-p", str(process), "-o", "stat=,command="], capture_output=True, text=True, check=False
    ).stdout.strip()
    return found if "prefect" in found and not found.startswith("Z") else None


def _end(process: int) -> None:
    """Ask a process and all that it started to end; after a while make them. Runs have sessions of their own."""
    family = [process, *_descendants(process)]
    deadline = time.monotonic() + END_WITHIN_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            with suppress(ProcessLookupError):
                os.kill(member, number)
        while time.monotonic() < deadline and any(map(_command_of, family)):
            time.sleep(0.1)


def _descendants(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [process]
    for parent in found:  # it grows while we go through it
        found += [child for child, above in pairs if above == parent]
    return found[1:]


if __name__ == "__main__":
    main()
