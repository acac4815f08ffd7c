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
import os
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from left_runs import POOL, answers, end_zombies, find_orphans
from processes import command_of, end_family

ROOT = Path(__file__).resolve().parent.parent

SERVER_UP_WITHIN_S = 180.0
WORKER_UP_WITHIN_S = 120.0

WORKER_NAME = f"make-up-{socket.gethostname()}"
PORT = 4200

WORKER_LOOKS_EVERY_S = "2"
"""Prefect's own 10 are meant for many workers; one on its own machine need not let people wait."""

_MARK = "# written by make up, removed by make down\n"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what is not running")
    up.add_argument("--port", type=int, help=f"of the server (default: that of the last one, else {PORT})")
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

    def start_all(self, port: int | None, limit: int) -> None:
        """Start server and worker, and make pool and deployments what the files say; whatever runs already stays."""
        last = self._url()
        url = f"http://127.0.0.1:{port}/api" if port else last or f"http://127.0.0.1:{PORT}/api"
        if last not in (None, url):
            if self._running("server"):
                sys.exit(f"a server of this checkout runs at {last}; for another port: make down, then make up again")
            self._end("worker")  # it looks for the server where that was
        environment = self._environment(url)
        self._make_folder()
        if self.settings.exists() and not self.settings.read_text().startswith(_MARK):
            sys.exit(f"{self.settings} is a file of yours: move it away, it would tell prefect of another server")
        if self._running("server") is None:
            _refuse_taken(_port(url))
            self._start("server", ["--host", "127.0.0.1", "--port", str(_port(url))], environment)
        self._wait_for("server", lambda: answers(url), SERVER_UP_WITHIN_S)
        self.settings.write_text(f'{_MARK}[api]\nurl = "{url}"\n')
        bootstrap = [sys.executable, str(ROOT / "deploy" / "bootstrap.py"), "--pool-limit", str(limit)]
        if subprocess.run(bootstrap, cwd=ROOT, env=environment, check=False).returncode:
            sys.exit("the server runs, but was not prepared; make down ends it")
        if self._running("worker") is None:
            for line in end_zombies(url, WORKER_NAME):
                print(line)
            options = ["--pool", POOL, "--name", WORKER_NAME, "--limit", str(limit)]
            self._start("worker", options, environment)
        self._wait_for(
            "worker", lambda: "started!" in self._log("worker").read_text(errors="replace"), WORKER_UP_WITHIN_S
        )
        self.tell_status()
        print(
            "\nnext: prefect deployment run relabel-imagenet --param store=/data/store --watch   (make down ends all)"
        )
        _tell_of_another_server(url)

    def end_all(self) -> None:
        """End the worker first, so that its runs can still say goodbye to the server."""
        for name in ("worker", "server"):
            self._end(name)
            if name == "worker":
                self._end_orphans()
        if self.settings.exists() and self.settings.read_text().startswith(_MARK):
            self.settings.unlink()

    def _end(self, name: str) -> None:
        process = self._running(name)
        if process is None:
            print(f"{name}: not running")
        else:
            end_family(process)
            print(f"{name}: ended")
        self._pid_file(name).unlink(missing_ok=True)

    def _end_orphans(self) -> None:
        """End runs that outlived a worker which was killed."""
        url = self._url()
        if url is None or not answers(url):
            return
        try:
            orphans = find_orphans(url)
        except urllib.error.URLError as error:
            print(f"runs: {url} does not tell of any ({error})")
            return
        for process in orphans:
            end_family(process)
            print(f"run: process {process}, which had outlived its worker, ended")

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
            "NO_PROXY": _without_proxy("NO_PROXY"),
            "no_proxy": _without_proxy("no_proxy"),
            "PWD": str(ROOT),  # deployments name it as their folder
            "PREFECT_HOME": str(self.state / "home"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", WORKER_LOOKS_EVERY_S),
            "DO_NOT_TRACK": "1",
        }

    def _make_folder(self) -> None:
        try:
            (self.state / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(
                f"{self.state}: cannot be made: {error.strerror}; choose another place: local.py up --folder FOLDER"
            )

    def _start(self, name: str, options: Sequence[str], environment: dict[str, str]) -> None:
        """Start `prefect NAME start`; the log of the one before stays beside the new one."""
        file = self._log(name)
        if file.exists():
            file.replace(file.with_suffix(".log.old"))
        with file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "prefect", name, "start", *options],
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
        return process if f"prefect {name} start" in (command_of(process) or "") else None

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


def _without_proxy(variable: str) -> str:
    """Return NO_PROXY with this machine in it: a company's proxy would be asked for our server."""
    kept = os.environ.get(variable) or os.environ.get(variable.swapcase(), "")
    return ",".join([*filter(None, [kept]), "127.0.0.1", "localhost"])


def _tell_of_another_server(url: str) -> None:
    other = os.environ.get("PREFECT_API_URL")
    if other and other.rstrip("/") != url:
        print(f"note: PREFECT_API_URL here is {other}, which comes before prefect.toml: unset it, or commands go there")


def _port(url: str) -> int:
    return urlsplit(url).port or PORT


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is taken, perhaps by another Prefect server; choose one: make up PORT=4300")


if __name__ == "__main__":
    main()
