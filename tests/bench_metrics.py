"""``make bench``: what the bootstrap of every metric costs at scale; growth is the proof, seconds depend."""

from __future__ import annotations

import os
import time

import numpy as np

from lesion_triage.calibrate.metrics import Sample, auroc_difference, summarise

DRAWS = 2_000
DIMENSIONS, LEVELS = 5, 4


def drawn(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, outcomes, a level of each dimension for every case, and a patient of three cases on average."""
    random = np.random.default_rng(0)
    positive = random.random(size) < 0.1
    scores = 1 / (1 + np.exp(2.5 - random.normal(size=size) - 1.8 * positive))
    scores[random.random(size) < 0.01] = np.inf  # abstentions
    return (
        scores,
        positive,
        random.integers(0, LEVELS, (DIMENSIONS, size)),
        random.integers(0, size // 3, size),
    )


def with_groups(size: int, by_patient: bool = False) -> float:
    """CPU seconds of all metrics for all cases together and for each level of each dimension."""
    scores, positive, levels, patients = drawn(size)
    slices = [np.ones(size, dtype=bool)]
    slices += [dimension == level for dimension in levels for level in range(LEVELS)]
    began = time.process_time()
    for members in slices:
        sample = Sample.of(scores[members], positive[members], 0.05)
        summarise(sample, DRAWS, 0, patients[members] if by_patient else None)
    return time.process_time() - began


def once(size: int, by_patient: bool = False) -> float:
    """CPU seconds of all metrics for all cases together."""
    scores, positive, _, patients = drawn(size)
    began = time.process_time()
    summarise(Sample.of(scores, positive, 0.05), DRAWS, 0, patients if by_patient else None)
    return time.process_time() - began


def paired(size: int) -> float:
    """CPU seconds of the difference of two AUROCs on the same cases."""
    scores, positive, levels, _ = drawn(size)
    scores = np.minimum(scores, 1)
    began = time.process_time()
    auroc_difference(scores, np.clip(scores + 0.01 * levels[0], 0, 1), positive, DRAWS, 0)
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    groups = 1 + DIMENSIONS * LEVELS
    print(f"{os.cpu_count()} processors; all metrics with intervals, {DRAWS:,} draws, CPU seconds\n")
    once(1_000)  # warms up
    before = None
    for size in (12_500, 25_000, 50_000, 100_000):
        seconds = with_groups(size)
        growth = f", {seconds / before:.2f} times the half" if before else ""
        print(f"{size:>9,} cases, {groups} slices: {seconds:.1f} s{growth}")
        before = seconds
    print(f"{100_000:>9,} cases, {groups} slices, patients drawn: {with_groups(100_000, True):.1f} s")
    print(f"{1_000_000:>9,} cases: {once(1_000_000):.1f} s")
    print(f"{1_000_000:>9,} cases, patients drawn: {once(1_000_000, True):.1f} s")
    print(f"{1_000_000:>9,} cases, two models compared: {paired(1_000_000):.1f} s")


if __name__ == "__main__":
    main()
