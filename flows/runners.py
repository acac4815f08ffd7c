"""Clusters that label shards in processes of their own, by Prefect's task runners for Ray and Dask."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner

from labelmill.tasks.stop import check_stop

if TYPE_CHECKING:
    from labelmill.schemas.parameters import RelabelParameters
    from labelmill.tasks.progress import ProgressMeter
    from labelmill.tasks.relabel.job import RelabelRun
    from labelmill.tasks.relabel.remote_shard import RemoteJob
    from labelmill.tasks.shards import Shard
    from labelmill.tasks.store.receipts import Receipt

AHEAD = 2
"""Shards that wait in line for each process: enough to keep it busy, few enough to stop soon."""


@task(name="label-shard", task_run_name="{of} shard {number}", cache_policy=NO_CACHE)
def _label_shard_elsewhere(of: str, number: int, job: RemoteJob, shard: Shard) -> Receipt:
    from labelmill.tasks.relabel.remote_shard import label_shard_elsewhere

    return label_shard_elsewhere(job, shard)


def label_on_cluster(run: RelabelRun, shards: Sequence[Shard], of: str, meter: ProgressMeter) -> dict[int, Receipt]:
    """Label shards on the cluster that the run's parameters name; return their receipts by number."""
    processes = count_processes(run.parameters)
    job = run.remote(workers=max(1, (run.parameters.workers or os.cpu_count() or 1) // processes))
    receipts: dict[int, Receipt] = {}
    waiting: deque[tuple[Shard, Any]] = deque()

    def take() -> None:
        shard, future = waiting.popleft()
        receipts[shard.number] = receipt = future.result()
        meter.add(done=len(shard), rejected=receipt.counts["rejected"])

    with _open_runner(run.parameters, processes) as runner:
        for shard in shards:
            check_stop()
            if len(waiting) == processes * (1 + AHEAD):
                take()
            arguments = {"of": of, "number": shard.number, "job": job, "shard": shard}
            waiting.append((shard, runner.submit(_label_shard_elsewhere, arguments)))
        while waiting:
            check_stop()
            take()
    return receipts


def count_processes(parameters: RelabelParameters) -> int:
    """Return how many processes work at a time: as asked for, or one a core of this machine."""
    return parameters.runner_workers or os.cpu_count() or 1


@contextmanager
def _open_runner(parameters: RelabelParameters, processes: int) -> Iterator[TaskRunner[Any]]:
    with ExitStack() as stack:
        if parameters.runner == "ray":
            from prefect_ray import RayTaskRunner
            from prefect_ray.context import remote_options

            local = {} if parameters.runner_address else {"num_cpus": processes, "include_dashboard": False}
            if parameters.device.startswith("cuda"):  # a process keeps its GPU, and the teacher in it, for all shards
                stack.enter_context(remote_options(num_gpus=1, max_calls=0))
            yield stack.enter_context(
                RayTaskRunner(address=parameters.runner_address, init_kwargs={"log_to_driver": False, **local})
            )
            return
        from prefect_dask.task_runners import DaskTaskRunner

        os.environ.setdefault("PREFECT_PLUGINS_ENABLED", "false")  # Dask imports Prefect where plugins cannot start
        if parameters.runner_address:
            yield stack.enter_context(DaskTaskRunner(address=parameters.runner_address))
            return
        logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of each worker that comes and goes
        cluster = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None}
        yield stack.enter_context(
            DaskTaskRunner(
                cluster_class="distributed.LocalCluster", cluster_kwargs={**cluster, "silence_logs": logging.ERROR}
            )
        )
