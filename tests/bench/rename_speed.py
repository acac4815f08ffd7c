"""How long a rename takes against a bare loop over os.rename, alternating, medians; the folder is made anew each time.

python tests/bench/rename_speed.py [--files 100000] [--rounds 5] [--folder PLACE]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from labelmill.schemas.parameters import RenameParameters
from labelmill.tasks.rename import job


def make_files(folder: Path, count: int) -> None:
    """Make empty files in an order that is not that of their names."""
    folder.mkdir()
    numbers = list(range(count))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        os.close(os.open(folder / f"IMG_{number}.jpg", os.O_CREAT | os.O_WRONLY))


def rename_bare(folder: Path) -> float:
    """Rename by a prepared list of pairs, with nothing else in the time."""
    names = sorted(os.listdir(folder))
    pairs = [(f"{folder}/{name}", f"{folder}/{number:06d}.jpg") for number, name in enumerate(names)]
    started = time.perf_counter()
    for source, target in pairs:
        os.rename(source, target)
    return time.perf_counter() - started


def rename_script(folder: Path) -> float:
    """Rename as a short script does: list, sort by name, rename."""
    started = time.perf_counter()
    for number, name in enumerate(sorted(os.listdir(folder))):
        os.rename(os.path.join(folder, name), os.path.join(folder, f"{number:06d}{os.path.splitext(name)[1]}"))
    return time.perf_counter() - started


class Ours:
    """The flow's own job, whole (list, plan, journal, rename, look again), and the seconds of its renaming alone."""

    def __init__(self) -> None:
        self.renaming: list[float] = []
        self._carry_out = job.carry_out

    def __call__(self, folder: Path) -> float:
        """Rename and return the seconds of the whole."""
        job.carry_out = self._timed
        started = time.perf_counter()
        renamed = job.rename_files(RenameParameters(source=str(folder), template="{index:06d}{ext}"))
        seconds = time.perf_counter() - started
        assert renamed.report.moved == sum(1 for _ in os.scandir(folder))
        return seconds

    def _timed(self, *given: object, **options: object) -> object:
        started = time.perf_counter()
        report = self._carry_out(*given, **options)  # type: ignore[arg-type]
        self.renaming.append(time.perf_counter() - started)
        return report


def main() -> None:
    """Read the command line, measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files are made; default: a temporary folder")
    options = parser.parse_args()
    ours = Ours()
    ways = {"bare os.rename": rename_bare, "script": rename_script, "labelmill, whole": ours}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as place:
                make_files(Path(place, "files"), options.files)
                seconds = way(Path(place, "files"))
            if turn:  # the first round warms up
                times[name].append(seconds)
    times["labelmill, renaming alone"] = ours.renaming[1:]
    bare = statistics.median(times["bare os.rename"])
    print(f"\n{options.files:,} files, {options.rounds} rounds, medians\n\n| | seconds | against bare |\n|---|---|---|")
    for name, measured in times.items():
        print(f"| {name} | {statistics.median(measured):.3f} | {statistics.median(measured) / bare:.2f} |")


if __name__ == "__main__":
    main()
