"""How sizes, durations, progress and outcomes are told to people, on the command line and in Prefect."""

from __future__ import annotations

from labelmill.schemas.outcomes import Outcome
from labelmill.tasks.progress import Progress


def format_bytes(size: float) -> str:
    """Return a size with its unit, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def describe_outcome(outcome: Outcome) -> list[tuple[str, str]]:
    """Return the lines of the table that ends a run: what, and its value."""
    version = "no version yet" if outcome.version is None else f"version {outcome.version}"
    return [
        *([("table", f"{outcome.table}, {version}")] if outcome.table else []),
        (outcome.counted, f"{outcome.images:,}"),
        ("done", f"{outcome.done:,}"),
        ("rejected", f"{sum(outcome.rejected.values()):,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in outcome.rejected.items()),
        ("worked on now", f"{outcome.worked:,} in {format_seconds(outcome.seconds)}, {outcome.images_per_s:,.1f}/s"),
        *outcome.facts.items(),
    ]


def describe_progress(p: Progress) -> str:
    """Return where a piece of work stands, in a line."""
    at = p.done + p.reused
    parts = [f"{at:,} of {p.total:,} {p.what}", f"{p.rate:,.1f}/s", f"{p.rejected:,} rejected"]
    if p.reused:
        parts.append(f"{p.reused:,} done before")
    if p.eta_s is not None and at < p.total:
        parts.append(f"{format_seconds(p.eta_s)} left")
    return "  ".join(parts)
