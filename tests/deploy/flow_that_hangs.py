"""A flow for the drill: it tells its run's id in a file and then works for ever."""

import sys
import time
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run


@flow(name="hangs")
def hangs(told: str) -> None:
    """Write the run's id, then do nothing."""
    Path(told).write_text(flow_run.id)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    hangs(sys.argv[1])
