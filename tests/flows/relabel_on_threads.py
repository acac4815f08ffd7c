"""Run `labelmill run …` with the engine of a GPU, which takes its way on the CPU: several shards at once.

LABELMILL_TEST_BREAK names a shard that cannot be written.
"""

import itertools
import os
import sys
import threading

from labelmill.cli import main
from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel import job, shards
from labelmill.tasks.relabel.cuda_engine import CudaEngine
from labelmill.tasks.store.table import Table

at_work = []
most = []


def open_engine(teacher, settings, *, devices, workers, source):
    return CudaEngine(teacher, settings, device="cpu", workers=workers)


def label_shard(run_job, shard, **options):
    at_work.append(threading.get_ident())
    most.append(len(at_work))
    try:
        if str(shard.number) == os.environ.get("LABELMILL_TEST_BREAK"):
            raise WorkFailed(f"shard {shard.number}: no space left on device")
        return label(run_job, shard, **options)
    finally:
        at_work.pop()


def write_part(self, *args, **options):
    if next(writes) < 2:
        both.wait(timeout=60)  # the first two shards are being written at the same time, or this breaks
    return write(self, *args, **options)


both, writes = threading.Barrier(2), itertools.count()
label, write = shards.label_shard, Table.write_part

if __name__ == "__main__":
    job.open_engine = open_engine
    shards.label_shard = label_shard
    if "LABELMILL_TEST_BREAK" not in os.environ:
        Table.write_part = write_part
    try:
        main(["run", *sys.argv[1:]])
    finally:
        print(f"most shards at once: {max(most)}", file=sys.stderr)  # noqa: T201 - read by the test
