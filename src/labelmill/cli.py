"""The command line: labelmill run | versions | sql | page | verify | gc | delete | demo."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from labelmill.schemas.errors import BadInput, LabelmillError, NotInStore, ServerLost, UnsupportedTeacher

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130

_SHOW_TRACEBACK = "LABELMILL_TRACEBACK"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 when its work was done, 1 when not, 2 for wrong parameters, 130 when stopped."""
    for name in ("stdout", "stderr"):  # whoever closed one, as `>&-` does, does not want to read it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end
    sys.exit(_exit_code(list(sys.argv[1:] if arguments is None else arguments)))


def _exit_code(given: list[str]) -> int:
    try:
        return _run(given)
    except KeyboardInterrupt:
        _say("stopped; run the same command to go on")
        return EXIT_STOPPED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (BadInput, NotInStore, UnsupportedTeacher) as error:
        _tell(error)
        return EXIT_USAGE
    except ServerLost as error:
        _tell(error)
        sys.stdout.flush()
        os._exit(EXIT_FAILED)  # Prefect's threads would not end before they gave up on the server
    except Exception as error:  # noqa: BLE001 - told in one line; a traceback is there on request
        _tell(error)
        return EXIT_FAILED


def _run(given: list[str]) -> int:
    if given[:1] == ["run"]:
        from labelmill.cli_run import run_command

        return run_command(given[1:])
    from labelmill import cli_store

    options = parse_arguments(given)

    return int(getattr(cli_store, f"{options.command}_command")(options))


def parse_arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read a command's arguments; exits with 2 when they are off.

    A query may stand behind options too: argparse alone gives an optional positional up at the first of them.
    """
    parser = _parser()
    options, left = parser.parse_known_args(given)
    if options.command == "sql" and options.query is None and left and not left[0].startswith("-"):
        options.query = left.pop(0)
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _parser() -> argparse.ArgumentParser:
    from labelmill.flows.registry import FLOWS

    parser = argparse.ArgumentParser(
        prog="labelmill", description="Image collections in, versioned stores of teacher labels out."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help=f"run a flow: {', '.join(FLOWS)}", add_help=False)
    run.add_argument("flow")

    demo = commands.add_parser("demo", help="label a few real photos and show what a label map tells")
    demo.add_argument("--out", default="demo", help="folder for the photos, the store and the page (default: demo)")

    versions = commands.add_parser("versions", help="list the tables of a store, or the versions of one")
    _add_store(versions)
    versions.add_argument("table", nargs="?", metavar="TABLE", help="dataset.table; without it, all tables")

    sql = commands.add_parser("sql", help="query a store")
    _add_store(sql)
    sql.add_argument("query", nargs="?", metavar="SELECT …", help="for example: SELECT * FROM imagenet.label_maps")
    sql.add_argument("--format", choices=("table", "csv", "json"), default="table", help="how to print the rows")
    sql.add_argument("--views", action="store_true", help="print the views as SQL text for another DuckDB")

    page = commands.add_parser("page", help="write an HTML page that shows label maps over their images")
    _add_store(page)
    page.add_argument("table", metavar="TABLE", help="dataset.table of label maps, such as imagenet.label_maps")
    page.add_argument("--out", required=True, metavar="FILE", help="the page; a file that exists is replaced")
    page.add_argument("--images", type=int, default=48, metavar="N", help="how many to show (default: 48)")
    page.add_argument("--version", type=int, help="default: the latest")
    page.add_argument("--image-root", help="folder or URL of the images when they are elsewhere than at ingest")

    verify = commands.add_parser("verify", help="check files, checksums, rows and schema of a version")
    _add_store(verify)
    verify.add_argument("table", metavar="TABLE", help="dataset.table")
    verify.add_argument("--version", type=int, help="default: the latest")
    verify.add_argument("--reinfer", type=int, metavar="N", help="relabel N images too and compare with their maps")
    verify.add_argument("--weights", metavar="FILE", help="with --reinfer: weights, when not where they were recorded")
    verify.add_argument("--image-root", metavar="PLACE", help="with --reinfer: the images, when elsewhere")
    verify.add_argument("--workers", type=int, metavar="W", help="with --reinfer: threads (default: one a core)")

    collect = commands.add_parser("gc", help="remove files that no version and no live run needs")
    _add_store(collect)
    collect.add_argument("--grace-hours", type=float, default=24.0, help="spare files younger than this (default: 24)")
    collect.add_argument(
        "--resume-days", type=float, default=30.0, help="spare the parts of a killed run for this long (default: 30)"
    )
    collect.add_argument("--dry-run", action="store_true", help="say what would be removed")

    delete = commands.add_parser("delete", help="delete a version (a tombstone; gc then removes its parts)")
    _add_store(delete)
    delete.add_argument("table", metavar="TABLE", help="dataset.table")
    delete.add_argument("version", type=int, metavar="VERSION")
    delete.add_argument("--reason", default="", help="kept in the tombstone")
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="folder of the store")


def _tell(error: Exception) -> None:
    if os.environ.get(_SHOW_TRACEBACK):
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        text += "; what was finished is kept: make room and run the same command again"
    known = isinstance(error, LabelmillError | OSError)
    _say(f"error: {text if known else f'{type(error).__name__}: {text} (set {_SHOW_TRACEBACK}=1 for the traceback)'}")


def _say(text: str) -> None:
    print(f"labelmill: {text}", file=sys.stderr)
