"""MAPIE's risk control on the same draws. Imports numpy, ``calibrate``, this package; MAPIE in one function.

MAPIE is a development dependency: without it the proof says that nothing was compared. It is configured to
do its best:

- binary p-values and fixed-sequence testing, from the lowest threshold upwards and without correction, as its
  documentation advises for a monotone risk;
- a grid of the calibration scores themselves, so that no threshold falls between two points, and no points
  above twice the risk, which it could never accept;
- the choice of the highest accepted threshold.

It is run with its own ``recall`` and with the share of misses as a custom risk; the better of the two counts
at each size. It is also run with its defaults: 100 thresholds from 0 to 0.99 and the Bonferroni-Holm
correction.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import numpy as np

from lesion_triage.calibrate.certificate import allowed_misses, certified_threshold
from lesion_triage.proof.exact_distributions import Floats, most_by_chance, sensitivity, specificity
from lesion_triage.proof.exactness import PUBLISHED
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.pool_draws import CONFIDENCE, SIZES, TARGETS, draw

Setting = Literal["recall", "miss rate", "as it comes"]
DRAWS = 500
"""MAPIE takes milliseconds per draw; ours is run on the same draws."""

_POOL_STREAM = 1
_FIGURE_COUNTS = range(60, 601, 6)


@dataclass(frozen=True)
class AllowedMisses:
    """Misses allowed by each, for scores without ties, for which they depend on n alone."""

    positives: int
    target: float
    ours: int
    recall: int
    miss_rate: int

    @property
    def best(self) -> int:
        """MAPIE's better configuration."""
        return max(self.recall, self.miss_rate)

    @property
    def passed(self) -> bool:
        """Ours allows at least as many."""
        return self.ours >= self.best


@dataclass(frozen=True)
class PairedRun:
    """Both on the same draws from the population."""

    positives: int
    target: float
    draws: int
    setting: Setting
    """The better one."""
    our_violations: int
    their_violations: int
    our_specificity: float
    their_specificity: float
    same_threshold: int
    """Draws in which both chose the same threshold."""
    as_it_comes_violations: int
    as_it_comes_specificity: float
    time_ratio: float
    """Median over the draws of MAPIE's time for one certificate divided by ours."""

    @property
    def passed(self) -> bool:
        """Whether both keep the promise, as both provably do, and our specificity is at least MAPIE's."""
        limit = most_by_chance(self.draws, 1 - CONFIDENCE)
        kept = max(self.our_violations, self.their_violations) <= limit
        return kept and self.our_specificity >= self.their_specificity


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared with MAPIE."""

    version: str
    granted: tuple[AllowedMisses, ...]
    by_size: tuple[AllowedMisses, ...]
    """At 0.95 and many sizes, for the figure."""
    duels: tuple[PairedRun, ...]

    @property
    def passed(self) -> bool:
        """Whether ours is nowhere worse."""
        no_fewer = all(one.passed for one in (*self.granted, *self.by_size))
        return no_fewer and all(one.passed for one in self.duels)


def compare(pool: Pool, draws: int, seed: int) -> Comparison | None:
    """Run both; None if MAPIE is not installed.

    Args:
        pool: the population.
        draws: how many of each size: the first of those of the pool test.
        seed: of the pool test.
    """
    if not find_spec("mapie"):
        return None
    sizes = sorted({*PUBLISHED, *SIZES} - {1000})
    return Comparison(
        version=version("mapie"),
        granted=tuple(misses_allowed_by_each(n, target) for target in TARGETS for n in sizes),
        by_size=tuple(misses_allowed_by_each(n, 0.95) for n in _FIGURE_COUNTS),
        duels=tuple(_paired_runs(pool, draws, seed)),
    )


@cache
def misses_allowed_by_each(positives: int, target: float) -> AllowedMisses:
    """Misses allowed by each for scores without ties."""
    scores = (np.arange(positives) + 0.5) / positives
    recall, miss_rate = (
        int(np.count_nonzero(scores < mapie_threshold(scores, target, setting)))
        for setting in ("recall", "miss rate")
    )
    ours = allowed_misses(positives, target, CONFIDENCE)
    assert ours is not None, f"{positives} positive cases are too few for any certificate"
    return AllowedMisses(positives, target, ours, recall, miss_rate)


def mapie_threshold(scores: Floats, target: float, setting: Setting) -> float:
    """MAPIE's threshold for scores of positive cases; -inf, which refers every case, if it accepts none."""
    control = import_module("mapie.risk_control")
    of_misses = control.BinaryRisk(
        risk_occurrence=lambda truth, said: said == 0,
        risk_condition=lambda truth, said: truth == 1,
        higher_is_better=False,
    )
    best = {
        "list_predict_params": np.unique(np.sort(scores)[: int(2 * (1 - target) * scores.size) + 2]),
        "fwer_method": "fixed_sequence",
    }
    controller = control.BinaryClassificationController(
        predict_function=lambda x: np.column_stack([1 - x, x]),
        risk=of_misses if setting == "miss rate" else "recall",
        target_level=1 - target if setting == "miss rate" else target,
        confidence_level=CONFIDENCE,
        best_predict_param_choice="predicted_positive_fraction",
        **({} if setting == "as it comes" else best),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns if it accepts none, which -inf records
        controller.calibrate(scores, np.ones(scores.size, dtype=int))
    chosen = controller.best_predict_param
    return -np.inf if chosen is None else float(chosen)


def _paired_runs(pool: Pool, draws: int, seed: int) -> Iterator[PairedRun]:
    for size in SIZES:
        scores = pool.scores[draw(pool.scores.size, size, draws, (seed, _POOL_STREAM, size))]
        for target in TARGETS:
            allowed = misses_allowed_by_each(size, target)
            setting: Setting = "recall" if allowed.recall == allowed.best else "miss rate"
            ours, theirs, ratio = _timed(scores, target, setting)
            as_it_comes = np.array([mapie_threshold(row, target, "as it comes") for row in scores])
            yield PairedRun(
                positives=size,
                target=target,
                draws=draws,
                setting=setting,
                our_violations=_violations(pool, ours, target),
                their_violations=_violations(pool, theirs, target),
                our_specificity=_specificity(pool, ours),
                their_specificity=_specificity(pool, theirs),
                same_threshold=int(np.count_nonzero(ours == theirs)),
                as_it_comes_violations=_violations(pool, as_it_comes, target),
                as_it_comes_specificity=_specificity(pool, as_it_comes),
                time_ratio=ratio,
            )


def _timed(scores: Floats, target: float, setting: Setting) -> tuple[Floats, Floats, float]:
    """Thresholds of both, shape (draws,), and the median ratio of their times, measured alternately."""

    def ours(row: Floats) -> float:
        return certified_threshold(row, target, CONFIDENCE)[0]

    def theirs(row: Floats) -> float:
        return mapie_threshold(row, target, setting)

    mapie_threshold(scores[0], target, setting)  # so that its imports are not timed
    found = [(_clocked(ours, row), _clocked(theirs, row)) for row in scores]
    ratios = [their_time / our_time for (_, our_time), (_, their_time) in found]
    our_thresholds = np.array([own for (own, _), _ in found])
    return our_thresholds, np.array([other for _, (other, _) in found]), float(np.median(ratios))


def _clocked(choose: Callable[[Floats], float], row: Floats) -> tuple[float, float]:
    begun = time.perf_counter()
    threshold = choose(row)
    return threshold, time.perf_counter() - begun


def _violations(pool: Pool, thresholds: Floats, target: float) -> int:
    return int(np.count_nonzero(sensitivity(pool.scores, thresholds) < target))


def _specificity(pool: Pool, thresholds: Floats) -> float:
    return float(specificity(pool.negatives, thresholds).mean())
