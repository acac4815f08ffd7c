"""Flows that divide datasets: splits, episodes, domains, and the same bytes on both sides."""

from __future__ import annotations

import time

from labelmill.flows.definition import define_flow
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import DomainsParameters, EpisodesParameters, FindLeaksParameters, SplitParameters
from labelmill.schemas.splits import parse_fractions
from labelmill.tasks.progress import ProgressMeter


@define_flow("split", SplitParameters, run_name="split {dataset}")
def split(parameters: SplitParameters) -> Outcome:
    """Divide a dataset's images into splits by a hash of seed and image: stratified, grouped, with few labels."""
    from labelmill.tasks.splits.split import divide

    started = time.monotonic()
    made = divide(parameters)
    facts = {name: f"{size:,}" for name, size in made.sizes.items()}
    if made.kept:
        facts["where they were before"] = f"{made.kept:,}"
    if made.groups:
        facts["groups"] = f"{made.groups:,}"
    if made.short:
        facts["classes with too few images"] = f"{made.short:,}"
    facts["same bytes in two splits"] = f"{made.leaks:,}"
    done, rejected = made.version.rows, made.images.rejected
    return Outcome(
        title=f"split {parameters.dataset}", table=made.version.table, version=made.version.number,
        images=done + sum(rejected.values()), done=done, rejected=rejected, seconds=time.monotonic() - started,
        worked=done, facts=facts,
    )  # fmt: skip


@define_flow("episodes", EpisodesParameters, run_name="episodes {dataset}")
def episodes(parameters: EpisodesParameters) -> Outcome:
    """Draw N-way K-shot episodes on splits that share no class, each with a support and a query set."""
    from labelmill.tasks.splits.episodes import draw_episodes

    started = time.monotonic()
    meter = ProgressMeter("episodes", parameters.episodes * len(parse_fractions(parameters.fractions)))
    made = draw_episodes(parameters, on_episode=lambda: meter.add(done=1))
    meter.finish()
    done, rejected = made.images.rows.num_rows, made.images.rejected
    return Outcome(
        title=f"{parameters.ways}-way {parameters.shots}-shot episodes of {parameters.dataset}",
        table=made.version.table, version=made.version.number, images=done + sum(rejected.values()), done=done,
        rejected=rejected, seconds=time.monotonic() - started, worked=done,
        facts={
            "episodes": f"{parameters.episodes:,} in each split",
            "rows": f"{made.version.rows:,}",
            **{f"classes of {name}": f"{count:,}" for name, count in made.classes.items()},
            "classes with too few images": f"{made.left_out:,}",
        },
    )  # fmt: skip


@define_flow("domains", DomainsParameters, run_name="domains {dataset} {other}")
def domains(parameters: DomainsParameters) -> Outcome:
    """Write a manifest of two datasets as two unpaired domains, such as source and target."""
    from labelmill.tasks.splits.domains import write_domains

    started = time.monotonic()
    made = write_domains(parameters)
    done = made.version.rows
    return Outcome(
        title=f"domains of {parameters.dataset} and {parameters.other}",
        table=made.version.table, version=made.version.number, images=done + sum(made.rejected.values()), done=done,
        rejected=made.rejected, seconds=time.monotonic() - started, worked=done,
        facts={
            **{name: f"{size:,}" for name, size in made.sizes.items()},
            "same bytes in both domains": f"{made.leaks:,}",
        },
    )  # fmt: skip


@define_flow("find-leaks", FindLeaksParameters, run_name="find-leaks {tables}")
def find_leaks(parameters: FindLeaksParameters) -> Outcome:
    """Find images of the same bytes that stand in more than one split, also of several tables."""
    from labelmill.tasks.splits.leaks import find_leaks as compare

    started = time.monotonic()
    made = compare(parameters)
    leaking = made.version.rows
    return Outcome(
        title=f"same bytes on both sides in {parameters.tables}", table=made.version.table,
        version=made.version.number, images=made.rows, done=made.rows - leaking,
        rejected={"same_bytes": leaking} if leaking else {}, seconds=time.monotonic() - started, worked=made.rows,
        facts={
            "contents on both sides": f"{made.contents:,}",
            **{s: f"{n:,}" for s, n in made.sides.items()},
            **({"images without digest, not compared": f"{made.unknown:,}"} if made.unknown else {}),
        },
    )  # fmt: skip
