"""Runs command lines one after another in this process: a JSON list of arguments a line in, a JSON answer a line out.

Prefect leaves threads and exit hooks behind that a process must not fork with, so flows do not run in pytest's own; and
torch is imported once for all of them.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout


def main():
    from labelmill.cli import main as run_command_line

    answers = sys.stdout
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        code = None
        with redirect_stdout(out), redirect_stderr(err):
            try:
                run_command_line(json.loads(line))
            except SystemExit as exit_:
                code = exit_.code
        answers.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
