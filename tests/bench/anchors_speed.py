"""How fast anchors are found and how well they fit, against what scripts do, in one run on one core.

    python tests/bench/anchors_speed.py [SAMPLE_DATA] [--boxes 860001] [--rounds 2] [--runs 10]

SAMPLE_DATA (or LABELMILL_SAMPLE_DATA) holds boxes/coco_person2017_boxes_norm.parquet: 156,165 person boxes of COCO.
The 860,001 boxes are drawn from these, each side jittered by 5 %; without sample data from a spread like theirs. All
are stretched to 416 pixels. Peers: ten runs of k-means by 1 - IoU with medians, in whole numpy arrays; Euclidean
k-means repaired by 1000 random mutations of yolov5's fitness, on every 20th box and its time times 20; k-means with a
Python loop over boxes, timed on 20,000 boxes once and scaled to all boxes and the steps of one run of the first peer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.cluster.vq import kmeans

from labelmill.models.anchor_clustering import cluster_anchors
from labelmill.models.box_sizes import best_ious, match_by_ratio, size_ratios

K = 9
EVERY = 20
LOOPED = 20_000
STEPS_MAX = 300
TOLERANCE = 1e-3
"""Until nothing changes at all ten runs on all boxes take ten minutes; on the sample boxes they have that time."""


def load(data: Path | None) -> np.ndarray:
    """Return the sample boxes in pixels of 416, or a spread like theirs."""
    if data is None:
        random = np.random.default_rng(0)
        spread = [[1.3, 1.1], [1.1, 1.3]]
        drawn = np.exp(random.multivariate_normal([3.3, 4.1], spread, 156_165))
        return np.clip(drawn, 1, 416)
    rows = pq.read_table(data / "boxes/coco_person2017_boxes_norm.parquet", columns=["w", "h"])
    return 416 * np.stack([rows[name].to_numpy() for name in ("w", "h")], 1).astype(np.float64)


def enlarge(boxes: np.ndarray, count: int) -> np.ndarray:
    """Draw so many boxes, each side jittered by 5 %."""
    random = np.random.default_rng(1)
    drawn = boxes[random.integers(0, len(boxes), count)]
    return np.clip(drawn * np.exp(random.normal(0, 0.05, drawn.shape)), 0.1, 416)


def run_kmeans(boxes: np.ndarray, k: int, seed: int, tolerance: float) -> tuple[np.ndarray, int]:
    """k-means by 1 - IoU with medians until no side moves by more than that share of it; return anchors and steps."""
    anchors = boxes[np.random.default_rng(seed).choice(len(boxes), k, replace=False)]
    steps = 0
    while steps < STEPS_MAX:
        steps += 1
        which = best_ious(boxes, anchors)[1]
        moved = np.stack([np.median(boxes[which == n], axis=0) if (which == n).any() else anchors[n] for n in range(k)])
        if np.allclose(moved, anchors, rtol=tolerance, atol=0):
            break
        anchors = moved
    return anchors, steps


def best_kmeans(boxes: np.ndarray, k: int, runs: int, tolerance: float = 0.0) -> tuple[np.ndarray, int]:
    """The run with the highest mean IoU; with it the steps of the first run."""
    found = [run_kmeans(boxes, k, seed, tolerance) for seed in range(runs)]
    return max((anchors for anchors, _ in found), key=lambda anchors: best_ious(boxes, anchors)[0].mean()), found[0][1]


def euclidean(boxes: np.ndarray, k: int) -> np.ndarray:
    """k-means by Euclidean distance, of 30 starts the best."""
    spread = boxes.std(0)
    return kmeans(boxes / spread, k, iter=30, seed=0)[0] * spread


def mutate(boxes: np.ndarray, k: int) -> np.ndarray:
    """Euclidean k-means, then 1000 mutations of which those that raise the fitness stay: yolov5's way."""
    random, anchors = np.random.default_rng(0), euclidean(boxes, k)

    def fitness(anchors: np.ndarray) -> float:
        ratios = size_ratios(boxes, anchors)
        return float((ratios * (ratios > 0.25)).mean())

    best = fitness(anchors)
    for _ in range(1000):
        chosen = random.random(anchors.shape) < 0.9
        change = np.clip(1 + chosen * random.random() * random.normal(size=anchors.shape) * 0.1, 0.3, 3)
        other = np.maximum(anchors * change, 2)
        if (value := fitness(other)) > best:
            best, anchors = value, other
    return anchors


def loop_step(boxes: np.ndarray, k: int) -> np.ndarray:
    """One step of k-means, box by box."""
    anchors = boxes[np.random.default_rng(0).choice(len(boxes), k, replace=False)]
    which = np.zeros(len(boxes), int)
    for place, box in enumerate(boxes):
        inner = np.minimum(box[0], anchors[:, 0]) * np.minimum(box[1], anchors[:, 1])
        which[place] = np.argmin(1 - inner / (box[0] * box[1] + anchors[:, 0] * anchors[:, 1] - inner))
    return np.stack([np.median(boxes[which == n], axis=0) if (which == n).any() else anchors[n] for n in range(k)])


def timed(work) -> tuple[object, float, float]:
    """Return what the work returned, its wall time and its time on the processor, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def compare_speed(boxes: np.ndarray, rounds: int, runs: int) -> None:
    """Measure all in turns and print a table in Markdown."""
    few = boxes[::EVERY]
    work = {
        "labelmill": (lambda: cluster_anchors(boxes, K).sizes, 1),
        f"median k-means, {runs} runs": (lambda: best_kmeans(boxes, K, runs, TOLERANCE), 1),
        f"yolov5's way, on 1 of {EVERY} boxes": (lambda: mutate(few, K), EVERY),
        "a loop over boxes, 1 run": (lambda: loop_step(boxes[:LOOPED], K), len(boxes) / LOOPED),
    }
    walls: dict[str, list[float]] = {name: [] for name in work}
    cpus: dict[str, list[float]] = {name: [] for name in work}
    anchors, steps = {}, 1
    for turn in range(rounds):
        for name, (function, scale) in work.items():
            found, wall, cpu = timed(function)
            if isinstance(found, tuple):
                found, steps = found
            loops = name.startswith("a loop")
            if not loops:
                anchors[name] = found
            times = scale * (steps if loops else 1)
            walls[name].append(wall * times)
            cpus[name].append(cpu * times)
            print(f"round {turn + 1}: {name}: {wall:.2f} s wall, {cpu:.2f} s CPU as measured", flush=True)
    print(f"\n{len(boxes):,} boxes, k = {K}, {rounds} rounds, medians; a run of k-means took {steps} steps\n")
    print("| | s of CPU | s of wall | mean best IoU | recall at 4 | fitness |\n|---|---|---|---|---|---|")
    for name in work:
        values = ["", "", ""]
        if name in anchors:
            figures = (best_ious(boxes, anchors[name])[0].mean(), *match_by_ratio(boxes, anchors[name]))
            values = [f"{value:.5f}" for value in figures]
        seconds = " | ".join(f"{statistics.median(measured[name]):.2f}" for measured in (cpus, walls))
        print(f"| {name} | {seconds} | {' | '.join(values)} |")
    for name in list(work)[1:]:
        ratio = statistics.median(a / b for a, b in zip(cpus[name], cpus["labelmill"], strict=True))
        print(f"\n{name}: {ratio:.0f} times the CPU time of labelmill")


def compare_fit(boxes: np.ndarray, runs: int) -> None:
    """Print the order of YOLO9000's Table 1: 58.7 for k = 5 Euclidean, 61.0 for k = 5, 67.2 for k = 9 by IoU."""
    print(f"\nThe {len(boxes):,} boxes as they are\n\n| | k | mean best IoU |\n|---|---|---|")
    for k in (5, 9):
        made = {
            "Euclidean k-means": euclidean(boxes, k), f"IoU, best of {runs}": best_kmeans(boxes, k, runs)[0],
            "labelmill": cluster_anchors(boxes, k).sizes,
        }  # fmt: skip
        for name, anchors in made.items():
            print(f"| {name} | {k} | {best_ious(boxes, anchors)[0].mean():.5f} |", flush=True)


def main() -> None:
    """Read the command line and compare."""
    if os.environ.get("OMP_NUM_THREADS") != "1":  # numpy looks at these when it is imported
        one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("LABELMILL_SAMPLE_DATA"))
    parser.add_argument("--boxes", type=int, default=860_001)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    sample = load(Path(given.data) if given.data else None)
    compare_speed(enlarge(sample, given.boxes), given.rounds, given.runs)
    compare_fit(sample, given.runs)


if __name__ == "__main__":
    main()
