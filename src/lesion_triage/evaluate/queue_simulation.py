"""The simulated reading queue of the report, on its own cases. Imports bundle and calibrate."""

from __future__ import annotations

import numpy as np

from lesion_triage.bundle.schema import Policy
from lesion_triage.calibrate.queue_pool import Pool
from lesion_triage.calibrate.queue_report import Study
from lesion_triage.calibrate.queueing import FIRST_COME, Discipline, Workload, simulate
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.evaluate.slices import MINIMUM_PER_CLASS

_CASES = 60_000
_DEADLINE_MEAN_WAITS = 6
"""Deadline if the policy has none, in mean waits under first come."""
_P99_LIMIT = 1.5
_WORKLOAD = Workload(load=0.9)


def simulate_queue(decided: DecidedCases, policy: Policy, seed: int) -> Study | None:
    """One busy reader and cases like these; None if a class has fewer than ten cases or no case has a score.

    Args:
        decided: the cases.
        policy: threshold, bands and deadline.
        seed: of the simulation.
    """
    scored = np.isfinite(decided.scores)
    positives = int(decided.positive.sum())
    if not scored.any() or min(positives, decided.positive.size - positives) < MINIMUM_PER_CLASS:
        return None
    pool = Pool(
        decided.scores, decided.positive, policy.threshold, policy.band_limits, policy.ungradable_band
    )
    hours = policy.deadline_hours or float(f"{_DEADLINE_MEAN_WAITS * _WORKLOAD.mean_wait_minutes() / 60:.2g}")
    orders = [
        FIRST_COME,
        Discipline("binary_flag"),
        Discipline("four_bands"),
        Discipline("four_bands", 60 * hours),
    ]
    outcomes = simulate(pool, _WORKLOAD, orders, cases=_CASES, seed=seed)
    bands = pool.bands()[scored]
    return Study(
        source="the cases of this report",
        pool=pool,
        workload=_WORKLOAD,
        prevalence=float(pool.positive.mean()),
        cases=_CASES,
        seed=seed,
        band_shares=tuple(round(float(np.mean(bands == band)), 4) for band in (1, 2, 3)),
        p99_limit=_P99_LIMIT,
        group_thresholds=bool(policy.groupings),
        outcomes={outcome.discipline: outcome.waits for outcome in outcomes},
    )
