"""How fast LSUN comes into a store and out of its LMDB: against the script that users copy, and against the bound.

The rounds alternate, medians are printed. The script opens the LMDB and does cv2.imdecode and cv2.imwrite for each key,
on one thread. The bound is pure decoding and encoding of the values, already in memory, on both cores. Needs the sample
data (LABELMILL_SAMPLE_DATA), of which WebPs of 256 pixels are made as LSUN's are.

    python tests/bench/lsun_speed.py [--images 1000] [--rows 500000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from labelmill.schemas.parameters import IngestLsunParameters
from labelmill.tasks.ingest.job import IngestRun, commit_ingest
from labelmill.tasks.ingest.manifest import write_piece
from labelmill.tasks.lsun.environments import find_environments
from labelmill.tasks.lsun.export import ExportTarget, count_values, export_values
from labelmill.tasks.lsun.job import prepare_lsun
from labelmill.tasks.written.file_tree import FileTree

CORES = os.cpu_count() or 1
QUALITY = 92


def write_images(source: Path, folder: Path, count: int) -> Path:
    """Write an environment of sample images as WebP."""
    rows = pq.read_table(source / "imagenet" / "sample1000_short256.parquet", columns=["image"]).slice(0, count)
    values = {}
    for data in rows["image"].to_pylist():
        encoded = BytesIO()
        Image.open(BytesIO(data)).convert("RGB").save(encoded, "webp", quality=75, method=0)
        values[hashlib.sha1(data).hexdigest().encode()] = encoded.getvalue()
    return write_lmdb(folder / "bedroom_train_lmdb", values)


def write_keys(folder: Path, count: int) -> Path:
    """Write an environment of many small values: what a manifest costs does not depend on their length."""
    keys = sorted(hashlib.sha1(b"%d" % number).hexdigest().encode() for number in range(count))
    return write_lmdb(folder / "tower_train_lmdb", dict.fromkeys(keys, bytes(3000)))


def write_lmdb(folder: Path, values: dict[bytes, bytes]) -> Path:
    folder.mkdir(parents=True)
    size = 2**24 + 2 * sum(len(value) + 8192 for value in values.values())
    with lmdb.open(str(folder), map_size=size) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return folder


def manifest(source: Path, store: Path) -> int:
    """Make a manifest without digests, from the LMDB to the committed version; return its rows."""
    parameters = IngestLsunParameters(source=str(source), store=str(store), dataset="lsun", digests="none")
    ((split, environments),) = find_environments(parameters.source, "auto").items()
    prepared = prepare_lsun(parameters.model_copy(update={"split": split}), environments)
    assert not isinstance(prepared, IngestRun)
    with ThreadPoolExecutor(CORES) as pool:  # as the flow's tasks
        receipts = list(pool.map(partial(write_piece, prepared), range(len(prepared.pieces))))
    return commit_ingest(prepared.run, receipts).rows


def export(source: Path, out: Path, kind: str) -> None:
    """Export as the flow does, with the look at all keys that it begins with."""
    parameters = IngestLsunParameters.model_validate(
        {
            "source": str(source),
            "store": "/none",
            "dataset": "lsun",
            "export": kind,
            "out": str(out),
            "quality": QUALITY,
        }
    )
    ((_, (environment,)),) = find_environments(parameters.source, "auto").items()
    count_values(environment)
    with FileTree(out) as tree:
        export_values(
            environment, ExportTarget(tree=tree, folder="", parameters=parameters), on_batch=lambda batch: None
        )


def users_script(source: Path, out: Path) -> None:
    """Do what the exporter that users copy does: decode and encode each value with OpenCV, in six folders."""
    # Labelmill has the environment open in this process, where LMDB allows that once: the values are read before.
    for key, value in VALUES[source].items():
        image = cv2.imdecode(np.frombuffer(value, np.uint8), 1)
        folder = out.joinpath(*key.decode()[:6])
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{key.decode()}.jpg"), image)


def pure_conversion(source: Path) -> None:
    """Decode and encode all values on all cores, and nothing else."""

    def convert(value: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_COLOR_RGB)
        simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "420")

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(convert, VALUES[source].values()))


VALUES: dict[Path, dict[bytes, bytes]] = {}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall seconds and this process's CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if "LABELMILL_SAMPLE_DATA" not in os.environ:
        sys.exit("needs the sample data: set LABELMILL_SAMPLE_DATA")
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(Path(os.environ["LABELMILL_SAMPLE_DATA"]), folder, options.images)
        keys = write_keys(folder, options.rows)
        with lmdb.open(str(images), readonly=True, lock=False) as environment, environment.begin() as transaction:
            VALUES[images] = {bytes(key): bytes(value) for key, value in transaction.cursor()}
        runs: dict[str, list[tuple[float, float]]] = {}
        for number in range(options.rounds):
            steps: dict[str, Callable[[Path], object]] = {
                "manifest": lambda out: manifest(keys, out),
                "script": lambda out: users_script(images, out),
                "copy": lambda out: export(images, out, "copy"),
                "pure conversion": lambda out: pure_conversion(images),
                "jpeg": lambda out: export(images, out, "jpeg"),
            }
            for step, work in steps.items():
                out = folder / f"{number}-{step.replace(' ', '-')}"
                runs.setdefault(step, []).append(timed(lambda work=work, out=out: work(out)))  # type: ignore[misc]
    report(runs, options)


def report(runs: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    wall = {step: statistics.median(seconds for seconds, _ in found) for step, found in runs.items()}
    cpu = {step: statistics.median(seconds for _, seconds in found) for step, found in runs.items()}
    print("| step | items/s, median | of rounds | CPU ms an item |\n|---|---|---|---|")
    for step, found in runs.items():
        items = options.rows if step == "manifest" else options.images
        rates = sorted(items / seconds for seconds, _ in found)
        spread = f"{rates[0]:,.0f} to {rates[-1]:,.0f}"
        print(f"| {step} | {items / wall[step]:,.0f} | {spread} | {1000 * cpu[step] / items:.4f} |")
    print(f"\nmanifest without digests: {options.rows / wall['manifest']:,.0f} rows/s (asked: 200,000)")
    print(f"copy against the script: {wall['script'] / wall['copy']:.1f} times (asked: 10)")
    print(
        f"jpeg against pure decoding and encoding on {CORES} cores: {wall['jpeg'] / wall['pure conversion']:.3f} of "
        f"its time, {cpu['jpeg'] / cpu['pure conversion']:.3f} of its CPU time (asked: 1.15)"
    )
    print(f"jpeg against the script: {wall['script'] / wall['jpeg']:.1f} times")


if __name__ == "__main__":
    main()
