"""Simulation of the reading queue: waits under different orders of reading. Imports numpy and this package.

Model
    Cases arrive as a Poisson process and wait until one of ``readers`` is free. A reading that has begun is
    finished (no pre-emption), and how long it takes does not depend on the case. The order of reading decides
    among the waiting cases. A case that has waited for the deadline goes before all that have not, the oldest
    first.

Three things make the simulation precise
    The k-th reading takes the same time under every order. Reading times do not depend on the case, so this
    changes no distribution. Readings then begin at the same times under all orders, and an order only assigns
    them to cases. So orders are compared on the same arrivals, and the sum of all waits is the same up to
    rounding: Kleinrock's conservation law (1965, Naval Research Logistics Quarterly 12:181), path by path.

    Given its urgency, the wait of a case is independent of whether it is positive. So each wait counts for
    every group, weighted by the group's share of that urgency. The few missed positives are estimated from
    the many cases of equal urgency (conditional Monte Carlo; Asmussen & Glynn 2007, Stochastic Simulation).

    Replications are independent. Standard errors leave one out at a time (delete-a-group jackknife; Shao & Wu
    1989, Annals of Statistics 17:1176), for quantiles and ratios as for means.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.queue_pool import ORDERS, Floats, Group, Order, Pool
from lesion_triage.errors import CalibrationError

Statistic = Literal["mean", "p95", "p99"]

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

_QUANTILE_LEVELS = (0.95, 0.99)
_ROUNDING = 1 - 1e-9  # rounding of a sum of weights must not decide between two neighbours
_RELAXATIONS = 6  # the effect of the empty start decays to exp(-6) or less
_MIN_WARM_UP_ARRIVALS = 100  # of warm-up, for each reader
_MAX_READERS = 10_000
_MAX_VARIATION = 100

MAX_ARRIVALS = 20_000_000
"""Arrivals of one simulation, warm-up and run-out included: some minutes and a few GB."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Poisson arrivals and gamma-distributed reading times, for readers who share one queue."""

    load: float
    """Arrival rate times mean reading time, per reader; in (0, 1)."""
    readers: int = 1
    minutes_per_case: float = 5.0
    """Mean reading time."""
    variation: float = 1.0
    """Coefficient of variation of the reading time: 0 is constant, 1 exponential."""

    def __post_init__(self) -> None:
        if not 0 < self.load < 1:
            raise CalibrationError(
                f"the load is {self.load}, expected more than 0 and less than 1: from 1 on the queue grows "
                "without bound; add readers or send fewer cases."
            )
        if not 1 <= self.readers <= _MAX_READERS:
            raise CalibrationError(f"expected 1 to {_MAX_READERS:,} readers, found {self.readers:,}.")
        if not 0 < self.minutes_per_case < math.inf:
            raise CalibrationError(f"a reading takes {self.minutes_per_case} minutes, expected more than 0.")
        if not 0 <= self.variation <= _MAX_VARIATION:
            raise CalibrationError(
                f"the variation of the reading time is {self.variation:g}, expected 0 (constant) to "
                f"{_MAX_VARIATION}; exponential is 1."
            )

    @property
    def arrivals_per_minute(self) -> float:
        """Rate of the Poisson process."""
        return self.load * self.readers / self.minutes_per_case

    def mean_wait_minutes(self) -> float:
        """Mean wait under first come, by formula (Erlang C times (1 + variation²) / 2; Lee & Longton 1959).

        Exact for one reader (Pollaczek-Khinchine) and for exponential reading times, else an approximation.
        """
        offered, blocked = self.load * self.readers, 1.0
        for reader in range(1, self.readers + 1):  # Erlang B by its recursion, which cannot overflow
            blocked = offered * blocked / (reader + offered * blocked)
        delayed = blocked / (1 - self.load * (1 - blocked))
        exponential = delayed * self.minutes_per_case / (self.readers * (1 - self.load))
        return exponential * (1 + self.variation**2) / 2

    def draw(self, generator: np.random.Generator, cases: int) -> tuple[Floats, Floats]:
        """Arrival times, ascending, and reading times in the order of reading; minutes, shape (cases,)."""
        arrivals = np.cumsum(generator.exponential(1 / self.arrivals_per_minute, cases))
        if self.variation == 0:
            return arrivals, np.full(cases, self.minutes_per_case)
        shape = self.variation**-2
        return arrivals, generator.gamma(shape, self.minutes_per_case / shape, cases)

    def warm_up(self) -> int:
        """Arrivals until the empty start is forgotten, from the relaxation time 1/(mu (1-sqrt(load))²)."""
        idle = max(1 - math.sqrt(self.load), sys.float_info.epsilon)  # the root of a load near 1 rounds to 1
        relaxation = self.load / idle**2 * (1 + self.variation**2) / 2
        return math.ceil(_RELAXATIONS * relaxation) + _MIN_WARM_UP_ARRIVALS * self.readers


@dataclass(frozen=True, slots=True)
class Discipline:
    """Which case is read next: overdue cases first, then by urgency; the oldest first among equals."""

    order: Order
    deadline_minutes: float = math.inf
    """A case that has waited this long is overdue; inf: there is no deadline."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise CalibrationError(f"the order is '{self.order}', expected one of {', '.join(ORDERS)}.")
        if not self.deadline_minutes >= 0:
            raise CalibrationError(f"the deadline is {self.deadline_minutes} minutes, expected 0 or more.")


FIRST_COME = Discipline("first_come")


@dataclass(frozen=True, slots=True)
class SimulationEstimate:
    """A number from the simulation, and its standard error over the replications."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Wait:
    """A statistic of the waits of one group under one discipline."""

    minutes: SimulationEstimate
    relative: SimulationEstimate | None
    """Ratio to the same statistic under first come, on the same arrivals; None if that is 0."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The waits under one discipline; a group without cases is left out."""

    discipline: Discipline
    waits: Mapping[tuple[Group, Statistic], Wait]


def simulate(
    pool: Pool,
    workload: Workload,
    disciplines: Sequence[Discipline],
    *,
    prevalence: float | None = None,
    cases: int = 400_000,
    replications: int = 20,
    seed: int = 0,
) -> tuple[Outcome, ...]:
    """Let the same cases arrive under every discipline and measure how long they wait to be read.

    Args:
        pool: the cases that arrivals are drawn from.
        workload: arrival rate, readers and reading times.
        disciplines: orders of reading; first come is added as the first if it is missing.
        prevalence: share of positive cases among the arrivals; None keeps that of the pool.
        cases: measured, over all replications; warm-up and run-out come on top.
        replications: independent, at least 2; they give the standard errors.
        seed: at least 0; the same seed gives the same numbers.

    Returns:
        One outcome per discipline, in the order given, without repetition.

    Raises:
        CalibrationError: a prevalence outside (0, 1), too few replications, fewer cases than those, a seed
            below 0, or more than ``MAX_ARRIVALS`` arrivals to simulate.
    """
    if seed < 0:
        raise CalibrationError(f"the seed is {seed}, expected 0 or more.")
    if not 2 <= replications <= cases:
        raise CalibrationError(
            f"expected at least 2 replications and as many cases, found {replications} and {cases}."
        )
    asked = tuple(dict.fromkeys(disciplines if FIRST_COME in disciplines else (FIRST_COME, *disciplines)))
    arrival_probabilities, urgencies = (
        pool.arrival_probabilities(prevalence),
        {one: pool.urgency(one.order) for one in asked},
    )
    measured, warm_up = math.ceil(cases / replications), workload.warm_up()
    arriving = replications * (measured + 2 * warm_up)
    if arriving > MAX_ARRIVALS:
        raise CalibrationError(
            f"load {workload.load:g} with {workload.readers} readers, variation {workload.variation:g} and "
            f"{cases:,} cases needs {arriving:.2g} simulated arrivals, expected at most {MAX_ARRIVALS:,}; "
            "the nearer the load is to 1, the longer the warm-up: lower the load, the variation or the "
            "number of cases."
        )
    window = slice(warm_up, warm_up + measured)
    rows = np.empty((replications, measured), dtype=np.intp)
    waits = {one: np.empty((replications, measured)) for one in asked}
    for replication, stream in enumerate(np.random.SeedSequence(seed).spawn(replications)):
        generator = np.random.default_rng(stream)
        # The run-out is as long as the warm-up: the last cases measured still see cases come after them.
        arrivals, minutes = workload.draw(generator, measured + 2 * warm_up)
        drawn = generator.choice(pool.scores.size, arrivals.size, p=arrival_probabilities)
        rows[replication] = drawn[window]
        starts = reading_starts(arrivals, minutes, workload.readers)
        for one in asked:
            read = reading_order(arrivals, starts, urgencies[one][drawn], one.deadline_minutes)
            wait = np.empty_like(arrivals)
            wait[read] = starts - arrivals[read]
            waits[one][replication] = wait[window]
    tables = {
        one: _statistics(pool, arrival_probabilities, urgencies[one], rows, waits[one]) for one in asked
    }
    return tuple(Outcome(one, _relative_waits(table, tables[FIRST_COME])) for one, table in tables.items())


def reading_starts(arrivals: Floats, minutes: Floats, readers: int) -> Floats:
    """When the k-th reading begins: a reader is free and k cases have arrived (Kiefer & Wolfowitz 1955).

    Args:
        arrivals: ascending, shape (n,).
        minutes: how long the k-th reading takes, shape (n,).
        readers: at least 1.

    Returns:
        Ascending, shape (n,); the same for every order of reading that leaves no reader idle.
    """
    free = [0.0] * readers
    starts = []
    for arrival, duration in zip(arrivals.tolist(), minutes.tolist(), strict=True):
        start = max(arrival, free[0])
        starts.append(start)
        heapq.heapreplace(free, start + duration)
    return np.array(starts, dtype=np.float64)


def reading_order(
    arrivals: Floats, starts: Floats, urgency: NDArray[np.intp], deadline_minutes: float
) -> NDArray[np.intp]:
    """Which case the k-th reading is of.

    Args:
        arrivals: ascending, shape (n,).
        starts: from ``reading_starts``.
        urgency: 0 is read first, shape (n,); equals are read in order of arrival.
        deadline_minutes: a case that has waited this long is read before all that have not, oldest first.

    Returns:
        Indices of cases in the order of reading, shape (n,): a permutation.
    """
    by_rank = np.argsort(urgency, kind="stable")
    ranks = np.empty_like(by_rank)
    ranks[by_rank] = np.arange(by_rank.size)
    rank_of, case_of = ranks.tolist(), by_rank.tolist()
    # At the k-th reading the first arrived[k] cases have come, and the first overdue[k] of them are overdue.
    arrived = np.searchsorted(arrivals, starts, side="right").tolist()
    overdue = np.searchsorted(arrivals + deadline_minutes, starts, side="right").tolist()
    waiting: list[int] = []  # ranks; a case read as overdue stays here and is skipped when it comes up
    done = bytearray(by_rank.size)
    read: list[int] = []
    come = oldest = 0
    for here, late in zip(arrived, overdue, strict=True):
        while come < here:
            heapq.heappush(waiting, rank_of[come])
            come += 1
        while oldest < late and done[oldest]:
            oldest += 1
        if oldest < late:
            case = oldest
        else:
            case = case_of[heapq.heappop(waiting)]
            while done[case]:
                case = case_of[heapq.heappop(waiting)]
        done[case] = 1
        read.append(case)
    return np.array(read, dtype=np.intp)


def _statistics(
    pool: Pool,
    arrival_probabilities: Floats,
    urgency: NDArray[np.intp],
    rows: NDArray[np.intp],
    waits: Floats,
) -> dict[Group, Floats]:
    """Statistics of every group that occurs, shape (1 + replications, 3); see ``_leave_one_out``."""
    replication = np.repeat(np.arange(rows.shape[0]), rows.shape[1])
    order = np.argsort(waits, axis=None)
    sorted_waits, sorted_rows, sorted_replication = (
        waits.ravel()[order],
        rows.ravel()[order],
        replication[order],
    )
    in_class = np.bincount(urgency, arrival_probabilities)
    tables: dict[Group, Floats] = {}
    for group, members in pool.group_masks().items():
        # Probability that a case of this urgency belongs to the group.
        of_group = np.bincount(urgency, arrival_probabilities * members)
        # Not every urgency in the range need occur.
        share = np.divide(of_group, in_class, out=np.zeros_like(of_group), where=in_class > 0)
        weights = share[urgency][sorted_rows]
        counts = weights > 0
        table = _leave_one_out(
            sorted_waits[counts], weights[counts], sorted_replication[counts], rows.shape[0]
        )
        if table is not None:
            tables[group] = table
    return tables


def _leave_one_out(
    waits: Floats, weights: Floats, replication: NDArray[np.intp], replications: int
) -> Floats | None:
    """Mean, p95 and p99 of all replications, then of all but each; shape (1 + replications, 3).

    None if fewer than two replications have a case of positive weight: then none can be left out.

    Args:
        waits: ascending.
        weights: more than 0, one per wait.
        replication: which one a wait comes from.
        replications: how many there are.
    """
    if np.unique(replication).size < 2:
        return None
    rows = []
    for left_out in range(-1, replications):
        kept = np.where(replication == left_out, 0.0, weights)
        below = np.cumsum(kept)
        quantiles = waits[np.searchsorted(below, np.multiply(_QUANTILE_LEVELS, below[-1] * _ROUNDING))]
        rows.append([kept @ waits / below[-1], *quantiles])
    return np.array(rows, dtype=np.float64)


def _relative_waits(
    tables: dict[Group, Floats], first_come: dict[Group, Floats]
) -> dict[tuple[Group, Statistic], Wait]:
    compared: dict[tuple[Group, Statistic], Wait] = {}
    for group, table in tables.items():
        for column, statistic in enumerate(STATISTICS):
            own, reference = table[:, column], first_come[group][:, column]
            relative = _jackknife_estimate(own / reference) if reference.all() else None
            compared[group, statistic] = Wait(_jackknife_estimate(own), relative)
    return compared


def _jackknife_estimate(values: Floats) -> SimulationEstimate:
    """The first value, and the jackknife standard error from those that leave one replication out."""
    rest = values[1:]
    error = math.sqrt((rest.size - 1) * float(np.mean((rest - rest.mean()) ** 2)))
    return SimulationEstimate(float(values[0]), error)
