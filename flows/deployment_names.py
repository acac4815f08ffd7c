"""A plugin of Prefect: `prefect deployment run relabel-imagenet` finds a deployment by its own name alone.

Prefect itself wants FLOW/DEPLOYMENT, and answers a wrong name or an absent server with a page of traceback. This
module is loaded whenever Prefect is, where pyproject.toml or PREFECT_PLUGINS_ENABLED says so: it stays light.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.plugins import HookContext

ANSWER_WITHIN_S = 10.0

_HINT = "`make up` starts one here; another is named by PREFECT_API_URL"


@register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Teach the client short names, in a process that is about to run a deployment."""
    if not _runs_a_deployment(sys.argv):
        return
    if ctx.api_url is None:
        _end(f"no Prefect server is configured; {_HINT}")
    if why := _why_no_answer(ctx.api_url):
        _end(f"no Prefect server answers at {ctx.api_url} ({why}); {_HINT}")
    from prefect.client.orchestration import PrefectClient

    PrefectClient.read_deployment_by_name = _with_short_names(PrefectClient.read_deployment_by_name)  # type: ignore[method-assign]


def _runs_a_deployment(arguments: Sequence[str]) -> bool:
    program, given = Path(*arguments[:1]), arguments[1:]
    called = program.name == "prefect" or (program.parent.name == "prefect" and program.name == "__main__.py")
    asked_for_help = {"-h", "--help"} & set(given)
    return called and "deployment" in given and "run" in given[given.index("deployment") :] and not asked_for_help


def _why_no_answer(api_url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=ANSWER_WITHIN_S):  # noqa: S310 - as Prefect
            return None
    except urllib.error.HTTPError:  # it wants credentials, say: Prefect's client tells of that
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        # A company's own certificate: Prefect's client may know it (PREFECT_API_SSL_CERT_FILE) and judges by itself.
        return None if isinstance(reason, ssl.SSLCertVerificationError) else str(reason)


def _with_short_names(by_full_name: Any) -> Any:  # noqa: ANN401 - a method of Prefect's client, and one like it
    async def read_deployment_by_name(client: PrefectClient, name: str) -> DeploymentResponse:
        from prefect.exceptions import ObjectNotFound

        known = await _full_names(client)
        fitting = [name] if name in known else [full for full in known if full.endswith(f"/{name}")]
        if len(fitting) > 1:
            _end(f"deployment {name!r}: which one? {', '.join(fitting)}")
        try:
            found: DeploymentResponse = await by_full_name(client, fitting[0] if fitting else name)
        except (ObjectNotFound, ValueError):
            listed = ", ".join(known) or "none yet; prefect --no-prompt deploy --all --prefect-file deploy/prefect.yaml"
            _end(f"no deployment {name!r}; there are: {listed}")
        return found

    return read_deployment_by_name


async def _full_names(client: PrefectClient) -> list[str]:
    flows: dict[Any, str] = {}
    names: list[str] = []
    page = 200
    while batch := await client.read_deployments(limit=page, offset=len(names)):
        for deployment in batch:
            if deployment.flow_id not in flows:
                flows[deployment.flow_id] = (await client.read_flow(deployment.flow_id)).name
            names.append(f"{flows[deployment.flow_id]}/{deployment.name}")
        if len(batch) < page:
            break
    return sorted(names)


def _end(message: str) -> NoReturn:
    sys.stderr.write(f"labelmill: {message}\n")
    raise SystemExit(1)
