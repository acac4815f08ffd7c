"""Run relabels that are killed: a process of its own, which loads torch once and forks each run.

Argument: a JSON of parameters by name, `unbroken` and `killed`. Writes how many runs were killed.
"""

import json
import os
import random
import signal
import sys
import time

import torch

from labelmill.models.teacher import load_teacher  # noqa: F401 - imported before the forks
from labelmill.schemas.parameters import RelabelParameters
from labelmill.tasks.relabel.job import commit_run, prepare_run
from labelmill.tasks.relabel.shards import label_shard
from labelmill.tasks.store import open_store

RUNS_MAX = 60


def relabel(parameters):
    torch.set_num_threads(1)
    run = prepare_run(parameters)
    find = run.job.label_maps.receipts.find
    commit_run(run, [find(shard.key, run=run.job.run) or label_shard(run.job, shard) for shard in run.shards])


def fork(parameters):
    child = os.fork()
    if not child:
        code = 1
        try:
            relabel(parameters)
            code = 0
        finally:
            os._exit(code)
    return child


def finished(files):
    """The receipts; one that is being written has another name."""
    return [name for name in files.names("receipts") if name[0] in "0123456789abcdef"]


def kill_midway(child, receipts, chance):
    """Kill once a random number of shards more is done, or a moment later; return whether it was still running."""
    wanted = len(receipts()) + chance.choice((0, 1, 1, 2))
    while len(receipts()) < wanted:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    time.sleep(chance.choice((0.0, 0.003, 0.01, 0.03)))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main():
    given = {name: RelabelParameters(**values) for name, values in json.loads(sys.argv[1]).items()}
    if os.waitpid(fork(given["unbroken"]), 0)[1]:
        sys.exit("the unbroken run failed")
    files = open_store(given["killed"].store).table(f"{given['killed'].dataset}.label_maps").files
    chance = random.Random(0)
    for killed in range(RUNS_MAX):
        if not kill_midway(fork(given["killed"]), lambda: finished(files), chance):
            sys.stdout.write(str(killed))
            return
    sys.exit(f"no run of {RUNS_MAX} came to its end")


main()
