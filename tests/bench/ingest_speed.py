"""How fast a folder of small files is ingested, with dimensions and digest: against pathlib, Pillow and hashlib.

The rounds alternate, medians are printed. What users write walks the folder by pathlib, opens each file by Pillow
for its size and hashes its bytes; it keeps the rows in a list. Ours ends with a committed version of the table. The
bound lists, reads and hashes in a process for each core, and looks at nothing.

    python tests/bench/ingest_speed.py [--files 200000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from labelmill.schemas.parameters import IngestFolderParameters
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.ingest.readers import Readers

CORES = os.cpu_count() or 1
PICTURES = 64
FILES_IN_A_FOLDER = 1000


def write_files(folder: Path, count: int) -> None:
    """Write small JPEGs, 1,000 in a folder; each one's bytes differ."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        encoded = BytesIO()
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(encoded, "jpeg", quality=85)
        pictures.append(encoded.getvalue())
    for number in range(count):
        path = folder / f"{number // FILES_IN_A_FOLDER:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        comment = b"\xff\xfe\x00\x0a%08d" % number
        picture = pictures[number % PICTURES]
        path.write_bytes(picture[:20] + comment + picture[20:])


def users_script(folder: Path) -> int:
    """Do what users write by hand; return the number of rows."""
    rows = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as picture:
            size = picture.size
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((str(path.relative_to(folder)), *size, path.stat().st_size, digest, path.parent.name))
    return len(rows)


def read_bare(folder: Path) -> int:
    """List with sizes, then read and hash in a process for each core, and nothing else; return the number of files."""
    found = []
    for name in sorted(os.listdir(folder)):
        with os.scandir(folder / name) as entries:
            found += [(entry.path, entry.stat().st_size) for entry in entries]
    size = -(-len(found) // CORES)
    with get_context("fork").Pool(CORES) as pool:
        return sum(pool.map(hash_files, [found[at : at + size] for at in range(0, len(found), size)], chunksize=1))


def hash_files(files: list[tuple[str, int]]) -> int:
    """Read and hash files; return how many."""
    for path, size in files:
        descriptor = os.open(path, os.O_RDONLY)
        hashlib.sha256(os.read(descriptor, size)).hexdigest()
        os.close(descriptor)
    return len(files)


def ingest(folder: Path, store: Path) -> int:
    """Ingest as the flow does; return the number of rows."""
    parameters = IngestFolderParameters(source=str(folder), store=str(store), dataset="small")
    with Readers(workers=parameters.workers) as readers:
        run = prepare_folder(parameters, on_expected=readers.expect)
        receipts = [ingest_chunk(run, chunk, read=readers.find_facts) for chunk in run.chunks]
    return commit_ingest(run, receipts).rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ways = {
        "pathlib, Pillow, sha256": lambda folder, store: users_script(folder),
        "list, read and sha256 alone": lambda folder, store: read_bare(folder),
        "ingest-folder": ingest,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        write_files(folder, options.files)
        for number in range(options.rounds):
            for step, found in seconds.items():
                start = time.perf_counter()
                rows = ways[step](folder, Path(name) / f"store{number}")
                found.append(time.perf_counter() - start)
                assert rows == options.files
    for step, found in seconds.items():
        rates = sorted(options.files / value for value in found)
        print(f"{step}: {options.files / statistics.median(found):,.0f} files/s ({rates[0]:,.0f} to {rates[-1]:,.0f})")
    script, bound, ours = (statistics.median(found) for found in seconds.values())
    print(f"ingest-folder against the script: {script / ours:.2f} times (asked: 6), {bound / ours:.0%} of the bound")


if __name__ == "__main__":
    main()
