"""Print as JSON what a Kubernetes worker would submit for the runs whose ids are the arguments, in their order."""

import asyncio
import json
import sys

from prefect.client.orchestration import get_client
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration


async def main() -> None:
    """Resolve each run as the worker does before it talks to the cluster."""
    manifests = []
    async with get_client() as client:
        for run in sys.argv[1:]:
            flow_run = await client.read_flow_run(run)
            pool = await client.read_work_pool(flow_run.work_pool_name)
            configuration = await KubernetesWorkerJobConfiguration.resolve_for_flow_run(
                flow_run, client=client, work_pool=pool, worker_name="test"
            )
            manifests.append(configuration.job_manifest)
    sys.stdout.write(json.dumps(manifests))


asyncio.run(main())
