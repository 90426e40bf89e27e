"""``lesion-triage queue``: simulated waits for a clinic's own scores, load and readers.

Imports bundle, calibrate, config and this package; matplotlib only where a figure is drawn.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.schema import Policy
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate import queue_figure, queue_report
from lesion_triage.calibrate.policy_fit import band_limits
from lesion_triage.calibrate.queue_pool import Floats, Pool, binormal_scores
from lesion_triage.calibrate.queue_report import Study
from lesion_triage.calibrate.queueing import FIRST_COME, Discipline, Workload, simulate
from lesion_triage.clinic.arguments import save
from lesion_triage.clinic.scores import read_scores
from lesion_triage.config import Calibrate
from lesion_triage.console import echo
from lesion_triage.errors import CalibrationError, ConfigError

_TIMES_FIRST_COME = (4, 6, 8)
"""Deadlines to try if none are given, in mean waits under first come."""
_DRAWN_PREVALENCE = 0.07


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``queue``."""
    add = parser.add_argument
    add(
        "scores",
        type=Path,
        nargs="?",
        metavar="SCORES.csv",
        help="your cases: columns score (0 to 1, empty if not gradable) and needs_in_person",
    )
    add("--drawn-auroc", type=float, metavar="A", help="instead of SCORES.csv: normal scores of this AUROC")
    threshold = parser.add_mutually_exclusive_group(required=True)
    threshold.add_argument("--bundle", type=Path, metavar="DIR", help="threshold and bands of its policy")
    threshold.add_argument(
        "--threshold", type=float, metavar="T", help="a case that scores T or more is referred"
    )
    threshold.add_argument(
        "--sensitivity",
        type=float,
        metavar="S",
        help="use the threshold that refers this share of the positives",
    )
    add(
        "--band-shares",
        type=float,
        nargs=3,
        metavar="SHARE",
        help="shares of your cases in bands 1, 2 and 3 (those of the bundle, else 0.1 0.25 0.35)",
    )
    add("--load", type=float, default=0.9, help="arrival rate times reading time, per reader (%(default)s)")
    add("--readers", type=int, default=1, metavar="N", help="readers who share the queue (%(default)s)")
    add(
        "--prevalence",
        type=float,
        metavar="P",
        help="share of arrivals that are positive (that of the scores)",
    )
    add("--minutes-per-case", type=float, default=5.0, metavar="M", help="mean reading time (%(default)s)")
    add(
        "--variation",
        type=float,
        default=1.0,
        metavar="CV",
        help="coefficient of variation of the reading time; 0: constant, 1: exponential (%(default)s)",
    )
    add(
        "--deadline-hours",
        type=float,
        nargs="+",
        metavar="H",
        help="deadlines to try (4, 6 and 8 times the mean wait under first come)",
    )
    add(
        "--p99-limit",
        type=float,
        default=1.5,
        metavar="X",
        help="propose the longest deadline that keeps the p99 wait of all cases within X times that of first "
        "come (%(default)s)",
    )
    add(
        "--cases", type=int, default=400_000, metavar="N", help="cases simulated for each order (%(default)s)"
    )
    add("--seed", type=int, default=0, help="the same seed gives the same numbers (%(default)s)")
    add("--figure", type=Path, metavar="PNG", help="draw the waits; needs matplotlib")
    add("--json", type=Path, metavar="FILE", help="write all numbers, with their standard errors")


def main(arguments: argparse.Namespace) -> int:
    """Simulate, print the waits and the lines for a configuration; draw and write if asked. Returns 0.

    Raises:
        BundleError: the bundle is incomplete or altered.
        CalibrationError: a number out of range, or cases of one class only.
        ConfigError: incompatible arguments, matplotlib is missing, or a file cannot be written.
        DataError: a table of scores that cannot be used.
    """
    if arguments.figure is not None and find_spec("matplotlib") is None:
        raise ConfigError(
            f"--figure {arguments.figure}: matplotlib is not installed; pip install matplotlib, or omit "
            "--figure."
        )
    study = run_study(arguments)
    echo("\n".join(queue_report.report_lines(study)))
    if arguments.json is not None:
        save("--json", arguments.json, canonical_json(queue_report.document(study)).encode())
        echo(f"wrote {arguments.json}")
    if arguments.figure is not None:
        save("--figure", arguments.figure, queue_figure.draw(study))
        echo(f"wrote {arguments.figure}")
    return 0


def run_study(arguments: argparse.Namespace) -> Study:
    """Read the cases and simulate what the arguments ask for.

    Raises:
        As ``main``.
    """
    scores, positive, source = _cases(arguments)
    policy = open_bundle(arguments.bundle).policy if arguments.bundle else None
    pool = _pool(scores, positive, policy, arguments)
    workload = Workload(arguments.load, arguments.readers, arguments.minutes_per_case, arguments.variation)
    hours = arguments.deadline_hours or _default_deadlines(workload)
    if not all(0 < one < math.inf for one in hours):
        raise CalibrationError(f"the deadlines are {hours} hours, expected numbers above 0.")
    if not arguments.p99_limit >= 1:
        raise CalibrationError(f"the limit of the p99 is {arguments.p99_limit}, expected 1 or more.")
    outcomes = simulate(
        pool,
        workload,
        _disciplines(hours),
        prevalence=arguments.prevalence,
        cases=arguments.cases,
        seed=arguments.seed,
    )
    return Study(
        source=source,
        pool=pool,
        workload=workload,
        prevalence=float(pool.positive.mean()) if arguments.prevalence is None else arguments.prevalence,
        cases=arguments.cases,
        seed=arguments.seed,
        band_shares=tuple(arguments.band_shares) if arguments.band_shares else _shares_of(pool),
        p99_limit=arguments.p99_limit,
        group_thresholds=policy is not None and bool(policy.groupings),
        outcomes={outcome.discipline: outcome.waits for outcome in outcomes},
    )


def _cases(arguments: argparse.Namespace) -> tuple[Floats, NDArray[np.bool_], str]:
    """Scores, outcomes, and a description of their source."""
    if (arguments.scores is None) == (arguments.drawn_auroc is None):
        raise ConfigError("queue: give either a table SCORES.csv or --drawn-auroc A.")
    if arguments.scores is not None:
        return *read_scores(arguments.scores), str(arguments.scores)
    prevalence = _DRAWN_PREVALENCE if arguments.prevalence is None else arguments.prevalence
    return *binormal_scores(arguments.drawn_auroc, prevalence), f"drawn, AUROC {arguments.drawn_auroc:g}"


def _pool(
    scores: Floats, positive: NDArray[np.bool_], policy: Policy | None, arguments: argparse.Namespace
) -> Pool:
    """The cases with the threshold and the bands that the arguments name."""
    if policy is not None:
        threshold = policy.threshold
    elif arguments.threshold is not None:
        threshold = arguments.threshold
    else:
        threshold = _threshold_at(arguments.sensitivity, scores[positive])
    if policy is not None and arguments.band_shares is None:
        limits = policy.band_limits
    else:
        limits = _limits(scores, arguments.band_shares or Calibrate().band_shares, threshold)
    return Pool(scores, positive, threshold, limits, 1 if policy is None else policy.ungradable_band)


def _limits(scores: Floats, shares: Sequence[float], threshold: float) -> tuple[float, float, float]:
    """Limits of the bands as ``calibrate`` would set them on these cases."""
    first, second, third = shares
    if not (min(shares) > 0 and sum(shares) < 1):
        raise CalibrationError(
            f"the band shares are {first:g}, {second:g} and {third:g}, expected numbers above 0 that sum to "
            "less than 1."
        )
    if not np.isfinite(scores).any():
        raise CalibrationError("no case has a score, expected at least one to divide into bands.")
    return band_limits(scores, (first, second, third), threshold)


def _threshold_at(sensitivity: float, positive_scores: Floats) -> float:
    """The highest threshold that this share of the positive cases reaches; to try out, not certified."""
    if not 0 < sensitivity <= 1 or not np.isfinite(positive_scores).any():
        raise CalibrationError(
            f"expected a sensitivity in (0, 1] and a positive case with a score, found {sensitivity} and "
            f"{int(np.isfinite(positive_scores).sum())} cases."
        )
    descending = np.sort(positive_scores)[::-1]
    reached = math.ceil(sensitivity * descending.size - 1e-9)
    return min(float(descending[max(reached, 1) - 1]), 1.0)


def _disciplines(hours: Sequence[float]) -> list[Discipline]:
    """Every order without a deadline; also four bands and score order with each deadline."""
    disciplines = [FIRST_COME, Discipline("binary_flag")]
    for order in ("four_bands", "score_order"):
        disciplines += [Discipline(order, 60 * one) for one in (math.inf, *sorted(set(hours)))]
    return disciplines


def _default_deadlines(workload: Workload) -> list[float]:
    """Default deadlines in hours, to two significant digits."""
    mean = workload.mean_wait_minutes() / 60
    return [float(f"{times * mean:.2g}") for times in _TIMES_FIRST_COME]


def _shares_of(pool: Pool) -> tuple[float, ...]:
    """Shares of the scored cases in bands 1, 2 and 3."""
    bands = pool.bands()[np.isfinite(pool.scores)]
    return tuple(round(float(np.mean(bands == band)), 4) for band in (1, 2, 3))
