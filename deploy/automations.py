"""Create or update the automations of a Prefect server: end zombie runs, send alerts.

python deploy/automations.py [--zombie-window-s 900] [--alert-block labelmill-alerts]

What exists is recognised by its name and left alone when it is the same, so the command can run at every deployment.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

ZOMBIE_AUTOMATION = "labelmill: end zombie runs"
ALERT_AUTOMATION = "labelmill: alert on failed and crashed runs"
ALERT_BLOCK = "labelmill-alerts"

ZOMBIE_WINDOW_S = 900
"""Five of the heartbeats that Prefect sends every 180 s: a run that lives never misses so many."""

HEARTBEAT = "prefect.flow-run.heartbeat"

ENDS_OF_HEARTBEATS = ("Completed", "Failed", "TimedOut", "Crashed", "Cancelled", "Paused", "Suspended", "AwaitingRetry")
"""States in which no process owes a heartbeat; not Cancelling, whose process must still end."""

ALERTED_STATES = ("Failed", "TimedOut", "Crashed")

_ANY_FLOW_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_RUN = "{{ flow.name }}/{{ flow_run.name }}"


def zombie_automation(window_s: float = ZOMBIE_WINDOW_S) -> AutomationCore:
    """Describe the automation that marks a run as crashed when it has sent no heartbeat for `window_s` seconds.

    A process that was killed, or whose machine died, cannot report it: its run would stay "Running" for ever and keep
    a slot of its work pool. A run that is marked wrongly (the server was away for longer than the window) goes on,
    and ends in its true state.
    """
    return AutomationCore(
        name=ZOMBIE_AUTOMATION,
        description=f"Marks a run as crashed when it has sent no heartbeat for {window_s:g} s.",
        trigger=EventTrigger(
            match=_ANY_FLOW_RUN,
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in ENDS_OF_HEARTBEATS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=window_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {window_s:g} s: the process or its machine is gone. Run it again: "
                "finished shards are kept.",
            )
        ],
    )


def alert_automation(block: UUID) -> AutomationCore:
    """Describe the automation that sends a message by the notification `block` when a run fails or crashes."""
    return AutomationCore(
        name=ALERT_AUTOMATION,
        description="Tells people of runs that failed or crashed.",
        trigger=EventTrigger(
            match=_ANY_FLOW_RUN,
            expect={f"prefect.flow-run.{state}" for state in ALERTED_STATES},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject=f"Labelmill: {_RUN} is {{{{ flow_run.state.name }}}}",
                body=f"{_RUN}: {{{{ flow_run.state.message }}}}\n{{{{ flow_run|ui_url }}}}",
            )
        ],
    )


def ensure_automations(
    client: SyncPrefectClient, *, zombie_window_s: float = ZOMBIE_WINDOW_S, alert_block: str = ALERT_BLOCK
) -> list[str]:
    """Have each automation once, as described here, on the server of `client`; return a line for each.

    `alert_block` names a notification block of any type; while there is none, there are no alerts.
    """
    lines = [_ensure(client, zombie_automation(zombie_window_s))]
    block = _find_block(client, alert_block)
    if block is None:
        lines.append(f"no alerts: there is no block {alert_block!r} yet, see docs/operations.md")
    else:
        lines.append(_ensure(client, alert_automation(block)))
    return lines


def describe_refusal(failure: httpx.HTTPError) -> str:
    """Say in one line why the server was not reached or refused."""
    if isinstance(failure, httpx.HTTPStatusError):
        status = failure.response.status_code
        hint = ": check PREFECT_API_AUTH_STRING" if status == httpx.codes.UNAUTHORIZED else ""
        return f"{failure.request.url} answered {status}{hint}"
    return f"no answer from {get_current_settings().api.url}: {failure}"


def _ensure(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return f"created: {wanted.name}"
    kept, *doubles = sorted(found, key=lambda automation: str(automation.id))
    for double in doubles:
        client.delete_automation(double.id)
    wanted = wanted.model_copy(update={"enabled": kept.enabled})  # someone may have paused it
    if _content(kept) == _content(wanted):
        return f"unchanged: {wanted.name}"
    # Not done without need: it forgets which runs have sent a heartbeat.
    client.update_automation(kept.id, AutomationCore.model_validate(wanted.model_dump(exclude={"owner_resource"})))
    return f"updated: {wanted.name}"


def _content(automation: AutomationCore | Automation) -> AutomationCore:
    return AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields)))


def _find_block(client: SyncPrefectClient, name: str) -> UUID | None:
    """Return the id of the notification block `name`, of whatever type."""
    ids = [block.id for block in client.read_block_documents(block_schema_type="notify") if block.name == name]
    return ids[0] if ids else None


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Create or update Labelmill's automations on a Prefect server.")
    parser.add_argument("--zombie-window-s", type=float, default=ZOMBIE_WINDOW_S, metavar="SECONDS")
    parser.add_argument("--alert-block", default=ALERT_BLOCK, metavar="NAME")
    options = parser.parse_args()
    if get_current_settings().api.url is None:
        print("automations: no Prefect server: set PREFECT_API_URL", file=sys.stderr)
        return 2
    try:
        with get_client(sync_client=True) as client:
            lines = ensure_automations(client, zombie_window_s=options.zombie_window_s, alert_block=options.alert_block)
    except httpx.HTTPError as failure:
        print(f"automations: {describe_refusal(failure)}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
