"""What orchestration costs: everything that `make up` starts, real images through deployments, and 500 shards.

On PostgreSQL where this machine has one, else on SQLite. First the sample images (LABELMILL_SAMPLE_DATA) are ingested
and relabelled by the short command with `--watch`, and counted by SQL. Then 2,000 small images in 500 shards are
labelled by a trivial teacher in three ways, alternating: a plain loop, `labelmill run`, and a deployment. The time of
a shard is that between the first and the last receipt, so that start-up does not count.

    python tests/bench/deployed_run.py [--images 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from relabel_speed import lay_out as lay_out_sample
from run_costs import ingest, lay_out

from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.store import open_store

sys.path.append(str(Path(__file__).parents[1] / "deploy"))
from local_machine import Machine, family_of, open_postgres, wait_until

SHARDS, IMAGES_A_SHARD = 500, 4


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Do work and print how long it took."""
    start = time.monotonic()
    result = work()
    print(f"| {what} | {time.monotonic() - start:.1f} |", flush=True)
    return result


def run_and_watch(machine: Machine, deployment: str, **parameters: Any) -> None:
    """Do what an operator does: the short command, to its end."""
    words = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
    done = machine.prefect("deployment", "run", deployment, *words, "--watch")
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def label_sample(machine: Machine, folder: Path, count: int) -> None:
    """Ingest and relabel real images with a real teacher, and count them."""
    lay_out_sample(Path(os.environ["LABELMILL_SAMPLE_DATA"]), folder / "sample", count)
    given = {"store": folder / "real", "dataset": "imagenet"}
    timed(
        f"ingest-imagenet of {count} images, --watch",
        lambda: run_and_watch(machine, "ingest-imagenet", source=folder / "sample", **given),
    )
    timed(
        f"relabel-imagenet of {count} images at 224, --watch",
        lambda: run_and_watch(machine, "relabel-imagenet", input_size=224, shard_size=100, **given),
    )
    with open_store(folder / "real").connect() as sql:
        query = "SELECT count(*) FILTER (status = 'done'), count(*) FROM imagenet.label_maps"
        done, rows = timed("SELECT count(*) …", lambda: sql.execute(query).fetchall()[0])
    print(f"| rows, of them done | {rows}, {done} |")


def memory_mib(process: int) -> float:
    """Return the resident memory of a process and all that it started."""
    pages = (int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family_of(process))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def database_mib(machine: Machine) -> float:
    """Return the size of Prefect's database."""
    if machine.database is None:
        return sum(path.stat().st_size for path in (machine.folder / ".labelmill/home").glob("prefect.db*")) / 2**20
    query = ["psql", "-h", "127.0.0.1", "-p", machine.database.port, "-U", "prefect", "-d", "postgres", "-At", "-c"]
    return int(machine.database.do(*query, "SELECT pg_database_size('postgres')")) / 2**20


def small_run(folder: Path) -> dict[str, Any]:
    """Return the parameters of 500 shards of four small images with a trivial teacher."""
    return {
        "store": str(folder / "store"), "dataset": "small", "teacher": "test_efficientnet", "classes": "none",
        "weights": str(folder / "teacher.safetensors"), "input_size": 64, "calibration_images": 8,
        "shard_size": IMAGES_A_SHARD, "device": "cpu",
    }  # fmt: skip


def run_plain(folder: Path) -> None:
    """Label the shards in a loop of this process."""
    from labelmill.tasks.relabel.job import commit_run, prepare_run
    from labelmill.tasks.relabel.shards import label_shard

    run = prepare_run(RelabelParameters(**small_run(folder)))
    with closing(run.job.engine):
        commit_run(run, [label_shard(run.job, shard) for shard in run.shards])


def run_command(folder: Path) -> None:
    """Label the shards by the command line, which starts a server of its own."""
    words = [word for name, value in small_run(folder).items() for word in (f"--{name.replace('_', '-')}", str(value))]
    subprocess.run([sys.executable, "-m", "labelmill", "run", "relabel", *words], check=True, capture_output=True)


def run_deployed(machine: Machine, folder: Path) -> float:
    """Label the shards by a deployment; return seconds from the wish to the start of the flow."""
    run = machine.schedule("relabel/relabel-imagenet", **small_run(folder))
    state = machine.wait_for_end(run)
    if state["type"] != "COMPLETED":
        sys.exit(state["message"])
    found = machine.call("GET", f"/flow_runs/{run}")
    return float(found["estimated_start_time_delta"])


def ms_a_shard(folder: Path) -> float:
    """Return milliseconds between two receipts, on average."""
    maps = folder / "store" / "small" / "label_maps"
    times = sorted(path.stat().st_mtime for path in maps.glob("receipts/*.json"))
    if len(times) != SHARDS:
        sys.exit(f"{len(times)} receipts instead of {SHARDS}")
    return 1000 * (times[-1] - times[0]) / (SHARDS - 1)


def compare(machine: Machine, folder: Path, rounds: int) -> None:
    """Measure 500 shards in the three ways and print them."""
    lay_out(folder / "images", SHARDS * IMAGES_A_SHARD)
    model = timm.create_model("test_efficientnet", num_classes=1000)
    safetensors.torch.save_file(model.state_dict(), folder / "teacher.safetensors")
    ingest(folder, SHARDS * IMAGES_A_SHARD)
    waited: list[float] = []
    kinds: dict[str, Callable[[], None]] = {
        "a plain loop": lambda: run_plain(folder),
        "labelmill run": lambda: run_command(folder),
        "deployment": lambda: waited.append(run_deployed(machine, folder)),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    before = memory_mib(machine.process("server")), database_mib(machine)
    for _ in range(rounds):
        for kind, run in kinds.items():
            subprocess.run(["rm", "-rf", str(folder / "store" / "small" / "label_maps")], check=True)
            run()
            found[kind].append(ms_a_shard(folder))
    after = memory_mib(machine.process("server")), database_mib(machine)
    plain = statistics.median(found["a plain loop"])
    print(f"\n| {SHARDS} shards by | ms a shard | besides the work, ms a shard |\n|---|---|---|")
    for kind, each in found.items():
        middle = statistics.median(each)
        print(f"| {kind} | {middle:.1f} | {middle - plain:.1f} |")
    print(
        f"\nfrom the wish to the flow's start: {statistics.median(waited):.1f} s; "
        f"server {before[0]:.0f} MiB before {rounds} deployed runs, {after[0]:.0f} after; "
        f"database {before[1]:.1f} MiB before, {after[1]:.1f} after"
    )


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_postgres() as database:
        print(f"database: {'PostgreSQL' if database else 'SQLite'}\n\n| what | seconds |\n|---|---|")
        folder = Path(name)
        machine = Machine(folder, database)
        try:
            timed("up: server, work pool, deployments, automations, worker", machine.up)
            if "LABELMILL_SAMPLE_DATA" in os.environ:
                label_sample(machine, folder, options.images)
            wait_until(lambda: not machine.processes_of_runs())
            compare(machine, folder, options.rounds)
        finally:
            machine.down()


if __name__ == "__main__":
    main()
