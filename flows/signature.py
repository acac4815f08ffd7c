"""Give a flow the fields of its parameter model as its own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field

from labelmill.schemas.parameters import FlowParameters

Parameters = TypeVar("Parameters", bound=FlowParameters)
Result = TypeVar("Result")


def takes(model: type[Parameters]) -> Callable[[Callable[[Parameters], Result]], Callable[..., Result]]:
    """Turn `flow(parameters)` into `flow(field=…, …)` with the model's types, defaults and descriptions.

    Prefect reads a flow's arguments for its form, its checks and `--param name=value`; a single model as argument
    would make it take whole JSON only.
    """

    def decorate(function: Callable[[Parameters], Result]) -> Callable[..., Result]:
        def with_fields(**fields: Any) -> Result:  # noqa: ANN401 - checked by the model
            return function(model(**fields))

        with_fields.__name__ = function.__name__
        with_fields.__qualname__ = function.__qualname__
        with_fields.__module__ = function.__module__
        with_fields.__doc__ = _with_descriptions(function.__doc__ or "", model)
        with_fields.__signature__ = inspect.Signature(_arguments(model))  # type: ignore[attr-defined]
        with_fields.__annotations__ = {argument.name: argument.annotation for argument in _arguments(model)}
        return with_fields

    return decorate


def _with_descriptions(doc: str, model: type[FlowParameters]) -> str:
    """Add the fields' descriptions in Google's form: Prefect reads those of its form from nowhere else."""
    lines = (f"    {name}: {field.description}" for name, field in model.model_fields.items())
    return "\n".join([inspect.cleandoc(doc), "", "Args:", *lines])


def _arguments(model: type[FlowParameters]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.default,
            annotation=Annotated[(field.annotation, *field.metadata, Field())],
        )
        for name, field in model.model_fields.items()
    ]
