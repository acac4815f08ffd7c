"""Kill a run at random moments, run it again, and compare with the unbroken run, byte for byte.

Each time a process that relabels is killed by SIGKILL at a moment drawn evenly from its whole duration, over a store
that holds the images alone; then it is run again to its end. Compared are all parts by name and content, and the
version's parts, rows, schema and metadata; what a killed writer left unfinished is counted, `labelmill gc` removes it.
The processes are forks of one that has imported torch, without Prefect;
with `--command` each is a whole `labelmill run relabel`.

    python tests/bench/kills.py [--kills 50] [--images 300] [--command]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import timm
import torch
from run_costs import ingest, lay_out

from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store
from labelmill.tasks.store.files import TEMPORARY_PREFIX


def relabel(parameters: RelabelParameters) -> None:
    """Relabel as the flow does, shards that have a receipt left out."""
    torch.set_num_threads(1)
    run = prepare_run(parameters)
    find = run.job.label_maps.receipts.find
    commit_run(run, [find(shard.key, run=run.job.run) or label_shard(run.job, shard) for shard in run.shards])


def start_fork(parameters: RelabelParameters) -> int:
    """Start a run as a fork of this process; return its process id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            relabel(parameters)
            code = 0
        finally:
            os._exit(code)
    return child


def start_command(parameters: RelabelParameters) -> int:
    """Start a run as a command; return its process id."""
    given = parameters.model_dump(exclude_unset=True)
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [str(Path(sys.executable).with_name("labelmill")), "run", "relabel", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def fingerprint(store: Path) -> tuple[object, ...]:
    """Return the name and content of every finished part, and what the version says of them."""
    version = open_store(str(store)).table("small.label_maps").version()
    parts = sorted((store / "small" / "label_maps" / "parts").glob(f"[!{TEMPORARY_PREFIX[0]}]*"))
    said = (version.number, version.rows, version.parts, version.columns, version.metadata)
    return ([(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in parts], *said)


def main() -> None:
    """Read the command line, kill and compare; exit with 1 when any run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--command", action="store_true")
    options = parser.parse_args()
    start: Callable[[RelabelParameters], int] = start_command if options.command else start_fork
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "images", options.images)
        safetensors.torch.save_file(
            timm.create_model("test_efficientnet", num_classes=1000).state_dict(), folder / "teacher.safetensors"
        )
        ingest(folder, options.images)
        store, pristine = folder / "store", folder / "pristine"
        shutil.copytree(store, pristine)
        parameters = RelabelParameters(
            store=str(store), dataset="small", teacher="test_efficientnet", classes="none", input_size=64,
            weights=str(folder / "teacher.safetensors"), calibration_images=16, shard_size=16, batch_size=4,
        )  # fmt: skip
        began = time.monotonic()
        if os.waitpid(start(parameters), 0)[1]:
            sys.exit("the unbroken run failed")
        duration, unbroken = time.monotonic() - began, fingerprint(store)
        killed, shards_done, wrong, unfinished = 0, [], 0, 0
        while killed < options.kills:
            shutil.rmtree(store)
            shutil.copytree(pristine, store)
            child = start(parameters)
            time.sleep(chance.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                continue  # it had ended already
            killed += 1
            shards_done.append(len(list(store.glob("small/label_maps/receipts/*.json"))))
            if os.waitpid(start(parameters), 0)[1] or fingerprint(store) != unbroken:
                wrong += 1
            unfinished += len(list(store.rglob(f"{TEMPORARY_PREFIX}*")))
    print(
        f"{killed} runs of {duration:.1f} s over {len(unbroken[3])} shards killed, {min(shards_done)} to "
        f"{max(shards_done)} of them done then: {killed - wrong} ended byte for byte as the unbroken run, {wrong} not; "
        f"{unfinished} unfinished files were left"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
