"""`labelmill run relabel … --estimate`: what a run would take and cost, before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from labelmill.schemas.parameters import FlowParameters, RelabelParameters
from labelmill.tasks.wording import format_bytes, format_seconds

ESTIMATE_HELP = " With --estimate [--price-per-hour P] only say how long it takes, how many bytes and at what cost."


@dataclass(frozen=True, slots=True)
class AskedEstimate:
    """An estimate that was asked for; `price_per_hour` of this machine, in any currency, None when not given."""

    price_per_hour: float | None


def parse_estimate(options: Sequence[str]) -> tuple[AskedEstimate | None, Sequence[str]]:
    """Take `--estimate` and `--price-per-hour` out of a relabel's options; exits with 2 for a price that is none."""
    parser = argparse.ArgumentParser(prog="labelmill run relabel", add_help=False, allow_abbrev=False)
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--price-per-hour", type=_price)
    asked, rest = parser.parse_known_args(options)
    if asked.price_per_hour is not None and not asked.estimate:
        parser.error("--price-per-hour goes with --estimate")
    return (AskedEstimate(asked.price_per_hour) if asked.estimate else None), rest


def _price(text: str) -> float:
    price = float(text)
    if not 0 <= price < float("inf"):
        raise argparse.ArgumentTypeError(f"expected the price of an hour, such as 2.50, got {text!r}")
    return price


def estimate_relabel(parameters: FlowParameters, asked: AskedEstimate) -> str:
    """Return what a relabel would take; nothing is written but the temperature, which the run needs as well."""
    from labelmill.tasks.preflight import check_parameters
    from labelmill.tasks.relabel.estimate import estimate_run
    from labelmill.tasks.relabel.job import prepare_run

    check_parameters(parameters)
    assert isinstance(parameters, RelabelParameters)  # noqa: S101 - as the registry says
    run = prepare_run(parameters)
    with closing(run.job.engine):
        found = estimate_run(run)
    if not found.images:
        return f"nothing to do: all {found.done_before:,} images are done"
    hours = found.seconds / 3600
    lines = [
        f"{found.images:,} images to label, {found.done_before:,} done before",
        f"  {found.images_per_s:,.1f} images/s on {found.sampled} of them: {format_seconds(found.seconds)}",
        f"  {found.bytes_per_image:,.0f} bytes an image: {format_bytes(found.bytes)}",
        f"  an hour of this machine labels {3600 * found.images_per_s:,.0f} images; the whole takes {hours:,.2f} hours",
    ]
    if asked.price_per_hour is not None:
        cost = asked.price_per_hour * hours
        each = 1000 * cost / found.images
        lines.append(f"  at {asked.price_per_hour:g} an hour {cost:,.2f}, or {each:,.4f} for 1,000 images")
    return "\n".join(lines)
