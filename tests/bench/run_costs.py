"""What a run costs besides its work: memory against the number of images, and Prefect's part, with a trivial teacher.

Every run is a process of its own over small JPEGs (few different ones, linked under as many names as asked for).
Prefect's part is counted twice: inside the run, as the time of its loop that is neither a shard nor the commit, and
against the same loop without Prefect, alternating.

    python tests/bench/run_costs.py [--images 2000 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
from PIL import Image

from labelmill.flows.local_server import prefect_api
from labelmill.schemas.parameters import IngestFolderParameters, RelabelParameters

DIFFERENT_IMAGES = 1000
IMAGES_IN_FOLDER = 1000
SIZE = 64


def lay_out(root: Path, count: int) -> None:
    """Write `count` small JPEGs in folders of a thousand, most of them hard links."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = root / f"{number // IMAGES_IN_FOLDER:04d}" / f"{number % IMAGES_IN_FOLDER:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DIFFERENT_IMAGES:
            coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
            coarse.resize((80, 72), Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            path.hardlink_to(root / "0000" / f"{number % DIFFERENT_IMAGES:04d}.jpg")


def ingest(folder: Path, count: int) -> None:
    """Ingest the images without Prefect."""
    from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder

    prepared = prepare_folder(
        IngestFolderParameters(source=str(folder / "images"), store=str(folder / "store"), dataset="small")
    )
    commit_ingest(prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks])


def run_once(folder: Path, out: str, *, prefect: bool) -> dict[str, float]:
    """Relabel in this process; return seconds of the loop, of its shards and its commit, memory and CPU time."""
    from labelmill.tasks.relabel import job, shards

    spent = {"shards_s": 0.0, "commit_s": 0.0}

    def clocked(name: str, work: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            try:
                return work(*args, **kwargs)
            finally:
                spent[name] += time.monotonic() - start

        return run

    shards.label_shard = clocked("shards_s", shards.label_shard)
    job.commit_run = clocked("commit_s", job.commit_run)
    parameters = RelabelParameters(
        store=str(folder / "store"), dataset="small", teacher="test_efficientnet", classes="none",
        weights=str(folder / "teacher.safetensors"), input_size=SIZE, calibration_images=8,
    )  # fmt: skip
    server_cpu = 0.0
    if prefect:
        with prefect_api():
            from labelmill.flows.relabel import relabel  # Prefect reads its environment when it is imported

            seconds = relabel(**parameters.model_dump()).seconds
            server_cpu = children_cpu()
    else:
        prepared = job.prepare_run(parameters)
        start = time.monotonic()
        job.commit_run(prepared, [shards.label_shard(prepared.job, shard) for shard in prepared.shards])
        seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "seconds": seconds, **spent, "memory_mib": usage.ru_maxrss / 1024, "cpu_s": usage.ru_utime + usage.ru_stime,
        "server_cpu_s": server_cpu,
    }  # fmt: skip
    Path(out).write_text(json.dumps(result))
    return result


def children_cpu() -> float:
    """Return seconds of CPU time of this process's children: Prefect's server."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_in_process(folder: Path, kind: str) -> dict[str, float]:
    """Relabel a fresh store in a process of its own."""
    maps = folder / "store" / "small" / "label_maps"
    subprocess.run(["rm", "-rf", str(maps)], check=True)
    out = folder / "result.json"
    subprocess.run([sys.executable, __file__, "--child", kind, str(folder), str(out)], check=True)
    found: dict[str, float] = json.loads(out.read_text())
    return found


def report(count: int, rounds: int) -> None:
    """Measure and print the rows of one number of images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "images", count)
        model = timm.create_model("test_efficientnet", num_classes=1000)
        safetensors.torch.save_file(model.state_dict(), folder / "teacher.safetensors")
        ingest(folder, count)
        results: dict[str, list[dict[str, float]]] = {"plain": [], "prefect": []}
        for _ in range(rounds):
            for kind, found in results.items():
                found.append(run_in_process(folder, kind))
    for kind, found in results.items():
        middle = {key: statistics.median(r[key] for r in found) for key in found[0]}
        outside = middle["seconds"] - middle["shards_s"] - middle["commit_s"]
        print(
            f"| {count:,} | {kind} | {middle['seconds']:.1f} | {count / middle['seconds']:.0f} "
            f"| {outside:.2f} ({outside / middle['seconds']:.1%}) | {middle['memory_mib']:.0f} "
            f"| {middle['cpu_s']:.1f} | {middle['server_cpu_s']:.1f} |",
            flush=True,
        )


def main() -> None:
    """Read the command line and print the table."""
    if sys.argv[1:2] == ["--child"]:
        kind, folder, out = sys.argv[2:]
        run_once(Path(folder), out, prefect=kind == "prefect")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| images | run | seconds | images/s | outside shards and commit, s | peak MiB | CPU s | server's CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for count in options.images:
        report(count, options.rounds)


if __name__ == "__main__":
    main()
