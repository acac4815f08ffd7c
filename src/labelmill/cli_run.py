"""`labelmill run FLOW`: parameters from the command line, Prefect around the work, an outcome at the end."""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from labelmill.cli_estimate import ESTIMATE_HELP, estimate_relabel, parse_estimate
from labelmill.cli_text import ProgressLine, format_outcome
from labelmill.flows.local_server import prefect_api
from labelmill.flows.registry import FLOWS
from labelmill.schemas.errors import ServerLost, WorkFailed
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import FlowParameters

EXIT_USAGE = 2


def run_command(given: Sequence[str]) -> int:
    """Run the flow named first with the options that follow."""
    name, options = (given[0], given[1:]) if given else ("", ())
    if name not in FLOWS:
        asked_for_help = name in {"", "-h", "--help"}
        print(_list_flows(), file=sys.stdout if asked_for_help else sys.stderr)
        if not asked_for_help:
            print(f"labelmill: error: no flow {name!r}", file=sys.stderr)
        return 0 if name in {"-h", "--help"} else EXIT_USAGE
    estimate, options = parse_estimate(options) if name == "relabel" else (None, options)
    try:
        parameters = parse_options(name, FLOWS[name].parameters, options)
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0]).replace("_", "-") if problem["loc"] else "options"
            print(f"labelmill: --{field}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return EXIT_USAGE
    if estimate is not None:
        with _progress_line(), _stoppable():
            print(estimate_relabel(parameters, estimate))
        return 0
    print(format_outcome(run_flow(name, parameters)))
    return 0


def _list_flows() -> str:
    width = max(map(len, FLOWS))
    lines = [f"  {name.ljust(width)}  {(entry.parameters.__doc__ or '').strip()}" for name, entry in FLOWS.items()]
    return "\n".join(
        ["usage: labelmill run FLOW --option value …   (labelmill run FLOW --help lists its options)", *lines]
    )


def parse_options(name: str, model: type[FlowParameters], options: Sequence[str]) -> FlowParameters:
    """Read a flow's parameters from its command line; exits with 2 for unknown or missing options.

    Raises ValidationError for values that do not fit.
    """

    given = [_shorten(option) for option in options]

    class Options(BaseSettings, model):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            cli_kebab_case=True,
            cli_prog_name=f"labelmill run {name}",
            cli_enforce_required=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_avoid_json=True,
            frozen=True,
            extra="forbid",
        )

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (CliSettingsSource(settings_cls, cli_parse_args=given),)

    Options.__doc__ = f"{model.__doc__}{ESTIMATE_HELP if name == 'relabel' else ''}"
    return model.model_validate(Options().model_dump())


def _shorten(option: str) -> str:
    """Return `-k` for `--k`: pydantic-settings gives a field of one letter one dash, and people may write two."""
    return option[1:] if re.fullmatch(r"--[a-z](=.*)?", option, re.DOTALL) else option


def run_flow(name: str, parameters: FlowParameters) -> Outcome:
    """Run a flow under Prefect in this process, with progress on standard error."""
    from labelmill.tasks.preflight import check_parameters

    check_parameters(parameters)
    with _progress_line(), _stoppable():
        return _run_under_prefect(name, parameters)


@contextmanager
def _progress_line() -> Iterator[None]:
    line = ProgressLine()
    progress = logging.getLogger("labelmill.progress")
    progress.addHandler(line)
    progress.setLevel(logging.INFO)
    progress.propagate = False
    try:
        yield
    finally:
        progress.removeHandler(line)
        line.end_line()


def _run_under_prefect(name: str, parameters: FlowParameters) -> Outcome:
    try:
        with prefect_api():
            return FLOWS[name].load()(**parameters.model_dump())
    except BaseException as error:
        if _lost_its_server(error):
            raise ServerLost(
                "Prefect's server went away during the run. Finished shards are kept, and a version if one was "
                "committed; run the same command to go on, or to see that all is done"
            ) from error
        raise


def _lost_its_server(error: BaseException) -> bool:
    import httpx

    return isinstance(error, httpx.TransportError)


class _stoppable:  # noqa: N801 - reads as what it does
    """Turn SIGINT and SIGTERM into a stop at the next batch; a second one ends the process at once."""

    asked = False

    def __enter__(self) -> _stoppable:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # work that was asked to stop raises WorkFailed; Prefect, which takes SIGTERM during a flow, a signal of its own
        if self.asked and (isinstance(error, WorkFailed) or (kind and not issubclass(kind, Exception))):
            raise KeyboardInterrupt from error

    def _stop(self, number: int, frame: FrameType | None) -> None:
        from labelmill.tasks.stop import ask_to_stop

        self.asked = True
        ask_to_stop()
        signal.signal(number, signal.SIG_DFL)
        print("\nstopping after the images in work; once more to stop at once", file=sys.stderr)
