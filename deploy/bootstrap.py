"""Prepare a Prefect server for Labelmill: work pool, deployments, automations.

python deploy/bootstrap.py [--pool-limit 4] [--pool-type kubernetes --image registry.example.org/labelmill:0.1.0]

Run it after the first start and after each upgrade: what exists is updated, nothing doubles, and what an operator
paused, resumed or scheduled stays so. The deployments record the folder it lies in: run it where runs will find the
same folder, in the image for containers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from automations import describe_refusal, ensure_automations
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker
from schedules import read_choices, restore_choices

DEPLOY = Path(__file__).resolve().parent
ROOT = DEPLOY.parent
POOL = "gpu"
"""The pool that deploy/prefect.yaml names."""

PREFECT_FILE = DEPLOY / "prefect.yaml"
KUBERNETES_TEMPLATE = DEPLOY / "kubernetes" / "base-job-template.json"
WAIT_S = 300.0
"""A new database takes a minute of migrations on a slow disk."""


class BootstrapFailed(RuntimeError):
    """What stopped it, in one line for the operator."""


def wait_for_api(client: SyncPrefectClient, wait_s: float) -> None:
    """Wait until the server answers; raise `BootstrapFailed` after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while (problem := client.api_healthcheck()) is not None:
        if time.monotonic() > deadline:
            raise BootstrapFailed(f"no answer from {str(client.api_url).rstrip('/')} in {wait_s:g} s: {problem}")
        time.sleep(1)


def ensure_pool(client: SyncPrefectClient, pool_type: str, *, limit: int | None, image: str | None) -> str:
    """Have the work pool, of `pool_type`; return a line about it.

    `limit` is how many runs may be at work at once in the whole pool; None keeps what the pool has. `image` is what
    runs of a Kubernetes pool use.
    """
    template = job_template(pool_type, image)
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type=pool_type, concurrency_limit=limit, base_job_template=template)
        )
        return f"created: work pool {POOL} ({pool_type})"
    if pool.type != pool_type:
        raise BootstrapFailed(
            f"the work pool {POOL} is of type {pool.type}, expected {pool_type}: "
            f"choose --pool-type {pool.type}, or delete it with 'prefect work-pool delete {POOL}'"
        )
    changes: dict[str, Any] = {}
    if limit is not None and limit != pool.concurrency_limit:
        changes["concurrency_limit"] = limit
    if template != pool.base_job_template:
        changes["base_job_template"] = template
    if not changes:
        return f"unchanged: work pool {POOL} ({pool_type})"
    client.update_work_pool(POOL, WorkPoolUpdate(**changes))
    return f"updated: work pool {POOL} ({', '.join(changes)})"


def job_template(pool_type: str, image: str | None) -> dict[str, Any]:
    """Return Prefect's base job template of a process pool, or ours of a Kubernetes pool with `image` in it."""
    if pool_type == "process":
        return ProcessWorker.get_default_base_job_template()
    template: dict[str, Any] = json.loads(KUBERNETES_TEMPLATE.read_text())
    template["variables"]["properties"]["image"]["default"] = image
    return template


def deploy_all(client: SyncPrefectClient) -> list[str]:
    """Create or update the deployments of deploy/prefect.yaml, with pauses and schedules as they are; return lines."""
    chosen = read_choices(client, POOL)
    try:
        _run_prefect_deploy()
    finally:  # it may have stopped midway
        kept = restore_choices(client, chosen)
    lines = [f"deployed: all of {PREFECT_FILE.relative_to(ROOT)}, to run in {ROOT}"]
    return lines + ([f"kept: pauses and schedules of {kept} deployments as they were"] if kept else [])


def _run_prefect_deploy() -> None:
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE.relative_to(ROOT))]
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PWD": str(ROOT)},  # as a shell sets it: the deployments record it as the folder of the runs
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BootstrapFailed(f"'python {' '.join(command)}' ended with {result.returncode}:\n{result.stdout.strip()}")


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Prepare a Prefect server for Labelmill.")
    parser.add_argument("--pool-type", choices=["process", "kubernetes"], default="process")
    parser.add_argument("--pool-limit", type=int, metavar="RUNS", help="runs at once in the whole pool")
    parser.add_argument("--wait-s", type=float, default=WAIT_S, metavar="SECONDS", help="how long to wait for the API")
    parser.add_argument("--image", metavar="IMAGE", help="the image of a Kubernetes pool's runs, with its tag")
    options = parser.parse_args()
    if options.pool_type == "kubernetes" and not options.image:
        parser.error("--pool-type kubernetes needs --image")
    if get_current_settings().api.url is None:
        print("bootstrap: no Prefect server: set PREFECT_API_URL", file=sys.stderr)
        return 2
    try:
        with get_client(sync_client=True) as client:
            wait_for_api(client, options.wait_s)
            print(ensure_pool(client, options.pool_type, limit=options.pool_limit, image=options.image), flush=True)
            print("\n".join(deploy_all(client)), flush=True)
            print("\n".join(ensure_automations(client)))
    except (BootstrapFailed, httpx.HTTPError) as failure:
        told = describe_refusal(failure) if isinstance(failure, httpx.HTTPError) else failure
        print(f"bootstrap: {told}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
