"""The program of a process that finds facts of files: a JSON request a line in, an Arrow record batch for each out."""

from __future__ import annotations

import json
import os
import signal
import sys

import pyarrow as pa

from labelmill.tasks.ingest.facts import FACTS_SCHEMA, FactsRequest, find_facts


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks stops on it, and closes the pipe
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a decoder prints must not get between the answers
        with pa.ipc.new_stream(pa.PythonFile(answers, "w"), FACTS_SCHEMA) as stream:
            for line in sys.stdin:
                found = pa.Table.from_batches(find_facts(FactsRequest(**json.loads(line))), FACTS_SCHEMA)
                stream.write_batch(found.combine_chunks().to_batches()[0])
                answers.flush()


if __name__ == "__main__":
    main()
