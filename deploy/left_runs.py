"""Runs that a worker of `make up` left: those whose process is gone, and those that outlived it."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from typing import Any

from processes import command_of

POOL = "gpu"

_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]
_RUN_COMMANDS = ("prefect.engine", "prefect.runner")

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""Without the proxy of the environment: our server is on this machine."""


def answers(url: str) -> bool:
    """Say whether a Prefect API on this machine answers."""
    try:
        with _open(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


def end_zombies(url: str, worker: str) -> list[str]:
    """Mark runs whose process is gone as crashed, unless they may be another worker's; return a line about each.

    They would hold the pool's places for a quarter of an hour. `worker` is the name of the machine's own worker, which
    does not run. Process ids say nothing of runs on other machines, so with another worker at the same pool none is
    marked: an automation does it.
    """
    runs, lines = _unfinished(url), []
    if lost := [run for run in runs if process_of(run) is None]:
        others = [found["name"] for found in _workers(url) if found["status"] == "ONLINE" and found["name"] != worker]
        if others:
            return [f"not looked after: runs in work, which may be those of {', '.join(sorted(others))}"]
    for run in runs:
        if run not in lost:
            lines.append(f"still at work: run {run['name']}, process {process_of(run)}, which outlived its worker")
            continue
        crashed = {"type": "CRASHED", "message": "its worker was gone when the next one started"}
        _post(f"{url}/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
        lines.append(f"ended: run {run['name']}, whose worker is gone; the same run started again goes on")
    return lines


def find_orphans(url: str) -> list[int]:
    """Return the processes of runs on this machine; with no worker left, nobody else ends them."""
    return [process for run in _unfinished(url) if (process := process_of(run)) is not None]


def process_of(run: dict[str, Any]) -> int | None:
    """Return a run's living process on this machine, None when there is none."""
    number = str(run["infrastructure_pid"] or "").rpartition(":")[2]
    command = (command_of(int(number)) if number.isdigit() else None) or ""
    return int(number) if any(part in command for part in _RUN_COMMANDS) else None


def _unfinished(url: str) -> list[dict[str, Any]]:
    states = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}}
    found: list[dict[str, Any]] = _post(f"{url}/flow_runs/filter", {**states, **_IN_POOL})
    return found


def _workers(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _post(f"{url}/work_pools/{POOL}/workers/filter", {})
    return found


_IN_POOL = {"work_pools": {"name": {"any_": [POOL]}}}


def _post(url: str, body: object) -> Any:  # noqa: ANN401 - JSON
    headers = {"Content-Type": "application/json"}
    if credentials := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - http, and ours
    with _open(request, timeout=60) as answer:
        return json.load(answer)
