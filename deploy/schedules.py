"""What an operator chose about deployments in Prefect: schedules switched on, off or added, deployments paused.

`prefect deploy` sets all of it back to deploy/prefect.yaml: a schedule that was resumed is paused again, one that was
added to a deployment with a schedule of its own is gone, a paused deployment runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import DeploymentSchedule

_PAGE = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What was chosen about one deployment."""

    deployment: UUID
    paused: bool
    schedules: tuple[DeploymentSchedule, ...]


def read_choices(client: SyncPrefectClient, pool: str) -> list[Choices]:
    """Return what is chosen about each deployment to the work pool `pool`; none when there is no such pool."""
    found: list[Choices] = []
    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    while True:
        page = client.read_deployments(work_pool_filter=ours, limit=_PAGE, offset=len(found))
        found += [Choices(deployment=one.id, paused=one.paused, schedules=tuple(one.schedules)) for one in page]
        if len(page) < _PAGE:
            return found


def restore_choices(client: SyncPrefectClient, choices: list[Choices]) -> int:
    """Make what was chosen hold again where it does not; return in how many deployments something was done."""
    return sum([_restore(client, chosen) for chosen in choices])


def _restore(client: SyncPrefectClient, chosen: Choices) -> bool:
    now = client.read_deployment(chosen.deployment)
    by_slug = {schedule.slug: schedule for schedule in now.schedules if schedule.slug}
    times = [schedule.schedule for schedule in now.schedules]
    added: list[DeploymentScheduleCreate] = []
    changed = False
    for old in chosen.schedules:
        new = by_slug.get(old.slug) if old.slug else None
        if new is not None and new.active != old.active:
            client.update_deployment_schedule(now.id, new.id, active=old.active)
            changed = True
        elif new is None and not old.slug and old.schedule not in times:
            added.append(DeploymentScheduleCreate(**old.model_dump(include=set(_SCHEDULE_FIELDS))))
    if added:
        client.create_deployment_schedules(now.id, added)
    if chosen.paused and not now.paused:
        client.pause_deployment(now.id)
        changed = True
    return changed or bool(added)


_SCHEDULE_FIELDS = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
