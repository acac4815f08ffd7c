"""A Prefect server of our own for one command: started first, so that it boots while we import, and gone with us."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.stop import check_stop

STARTUP_TIMEOUT_S = 180.0
"""A busy machine with a fresh Prefect home was seen to take a minute."""

_PR_SET_PDEATHSIG = 1

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors are told once, by the command line; set it to see Prefect's own
    "PREFECT_CLI_COLORS": "false",
}


@contextmanager
def prefect_api() -> Iterator[None]:
    """Have a Prefect API to report to: the configured one as it is, else a server of our own while the block runs.

    Must be entered before Prefect is imported, which reads its environment then. `wait_for_api` waits for it.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if _is_configured():
        yield
        return
    _go_past_proxies()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        server = _start(port, log.fileno())
        os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")  # where it does not answer, it is gone
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        try:
            _wait(server, port, log.fileno())
            yield
        finally:
            _end(server)
            del os.environ["PREFECT_API_URL"]


def _is_configured() -> bool:
    """Look for an API URL in the environment, and only then in Prefect's profiles: those cost its import."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    places = [home / "profiles.toml", Path("prefect.toml"), Path("pyproject.toml"), Path(".env")]
    texts = (place.read_text(errors="replace") for place in places if place.is_file())
    if not any("api" in text.lower() and "url" in text.lower() for text in texts):
        return False
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None


def _go_past_proxies() -> None:
    """Let requests to this machine not go to a proxy that the environment names."""
    for name in ("NO_PROXY", "no_proxy"):  # either may be read; in urllib the second counts more
        kept = os.environ.get(name) or os.environ.get(name.swapcase(), "")
        if "127.0.0.1" not in kept:
            os.environ[name] = ",".join(filter(None, [kept, "127.0.0.1"]))


def _start(port: int, log: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler, no late-run marking: this server is for our run alone
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_UI_ENABLED": "0",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    return subprocess.Popen(
        [*command, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us: the server must still take the run's last state
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no other thread runs yet
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(server: subprocess.Popen[bytes], port: int, log: int) -> None:
    import prefect  # noqa: F401 - imported while the server boots, in our environment

    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        check_stop()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    os.lseek(log, 0, os.SEEK_SET)
    said = os.read(log, 1 << 20).decode(errors="replace").strip().splitlines()
    raise WorkFailed(f"Prefect's server did not start: {said[-1] if said else f'no answer in {STARTUP_TIMEOUT_S:g} s'}")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
