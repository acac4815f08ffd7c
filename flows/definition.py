"""How a flow of this project is defined: its parameters checked before any work, its outcome shown in Prefect."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from prefect import Flow, flow

from labelmill.flows.artifacts import publish_outcome, show_progress
from labelmill.flows.signature import takes
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import FlowParameters
from labelmill.tasks.preflight import check_parameters

Parameters = TypeVar("Parameters", bound=FlowParameters)


def define_flow(
    name: str, model: type[Parameters], *, run_name: str
) -> Callable[[Callable[[Parameters], Outcome]], Flow[..., Outcome]]:
    """Make a Prefect flow of `function(parameters)`; its arguments are the model's fields.

    `run_name` is what a run is called, with fields in braces. Raises BadInput or NotInStore before any work for
    parameters that do not fit the world, wherever the run was started.
    """

    def decorate(function: Callable[[Parameters], Outcome]) -> Flow[..., Outcome]:
        @wraps(function)
        def observed(parameters: Parameters) -> Outcome:
            check_parameters(parameters)
            with show_progress():
                outcome = function(parameters)
            publish_outcome(outcome)
            return outcome

        made: Flow[..., Any] = flow(name=name, flow_run_name=run_name)(takes(model)(observed))
        return made

    return decorate
