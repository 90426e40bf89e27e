"""``make bench``: what bootstraps and curves cost at scale; growth is the proof, seconds depend.

python tests/bench_metrics.py --whole   # everything of a report for a million cases, and no more
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np

from lesion_triage.calibrate import curves
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.decision_analysis import (
    BONFERRONI_PAIR_CONFIDENCE,
    net_benefit,
    predictive_values,
)
from lesion_triage.calibrate.metrics import Sample, auroc_difference, summarise
from lesion_triage.calibrate.paired_comparison import PolicyOutput, compare

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


def whole(size: int, by_patient: bool = False) -> dict[str, float]:
    """CPU seconds of everything that a report says of all cases together, with its intervals."""
    scores, positive, levels, patients = drawn(size)
    units = patients if by_patient else None
    referred = scores >= 0.05
    other = np.clip(np.where(np.isfinite(scores), scores, 1) + 0.01 * levels[0], 0, 1)
    probabilities = tuple(percent / 100 for percent in range(1, 51))
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        spent[name] = time.process_time() - began

    made: list[Sample] = []
    timed("sorting", lambda: made.append(Sample.of(scores, positive, 0.05)))
    sample, answers = made[0], Sample.of(referred.astype(float), positive, 1.0)
    timed("every metric with its interval", lambda: summarise(sample, DRAWS, 0, units))
    timed("reliability", lambda: curves.reliability(sample))
    timed("ROC, precision-recall and histogram", lambda: [
        draw(sample) for draw in (curves.roc_curve, curves.precision_recall_curve, curves.score_histogram)
    ])  # fmt: skip
    timed("decision curves of score and policy", lambda: [
        net_benefit(one, probabilities, DRAWS, 0, units) for one in (sample, answers)
    ])  # fmt: skip
    owners = np.arange(positive.size) if units is None else units
    timed("predictive values", lambda: predictive_values(
        clustered_proportion(referred[positive], owners[positive], confidence=BONFERRONI_PAIR_CONFIDENCE),
        clustered_proportion(~referred[~positive], owners[~positive], confidence=BONFERRONI_PAIR_CONFIDENCE),
        probabilities,
    ))  # fmt: skip
    ours, theirs = PolicyOutput(scores, referred), PolicyOutput(other, other >= 0.05)
    timed("two bundles compared", lambda: compare(ours, theirs, positive, DRAWS, 0, units))
    return spent


def print_whole(size: int) -> None:
    """Print what a report of so many cases costs, part by part."""
    for by_patient in (False, True):
        spent = whole(size, by_patient)
        print(f"\n{size:,} cases, {'patients' if by_patient else 'cases'} drawn: {sum(spent.values()):.1f} s")
        for name, seconds in spent.items():
            print(f"  {name:<40}{seconds:>7.1f} s")


def main() -> None:
    """Print the tables."""
    if "--whole" in sys.argv[1:]:
        print(f"{os.cpu_count()} processors; {DRAWS:,} draws, CPU seconds")
        print_whole(1_000_000)
        return
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
    print_whole(1_000_000)


if __name__ == "__main__":
    main()
