"""Start an engine process, write its id in a list, and wait to be killed."""

import json
import sys
import time

from labelmill.tasks.relabel.cuda_processes import ProcessEngine
from labelmill.tasks.relabel.engine_process import TeacherSource
from labelmill.tasks.relabel.settings import RelabelSettings


def main():
    given = json.loads(sys.argv[1])
    engine = ProcessEngine(
        TeacherSource(**given["source"]),
        RelabelSettings(**given["settings"]),
        devices=["cpu"],
        workers=2,
        digest=given["digest"],
    )
    print(json.dumps([worker.process.pid for worker in engine._workers]), flush=True)  # noqa: T201 - read by the test
    time.sleep(600)


if __name__ == "__main__":
    main()
