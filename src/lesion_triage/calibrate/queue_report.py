"""A simulated reading queue as text and as JSON: setting and results. Imports numpy and this package."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion_triage.calibrate.queue_pool import GROUPS, Group, Order, Pool
from lesion_triage.calibrate.queueing import (
    FIRST_COME,
    STATISTICS,
    Discipline,
    Statistic,
    Wait,
    Workload,
)

_ORDER_NAMES: dict[Order, str] = {
    "first_come": "first come",
    "binary_flag": "binary flag",
    "four_bands": "four bands",
    "score_order": "score order",
}
_GROUP_NAMES: dict[Group, str] = {
    "all": "all",
    "positives": "positives",
    "referred_positives": "... referred",
    "missed_positives": "... missed",
    "negatives": "negatives",
}
_STATISTIC_NAMES: dict[Statistic, str] = {
    "mean": "Mean wait",
    "p95": "95 of 100 wait less than",
    "p99": "99 of 100 wait less than",
}
_UNCERTAIN = 0.05
_HOURS_FROM_MINUTES = 120.0
_WIDTH = 100

Waits = Mapping[tuple[Group, Statistic], Wait]


@dataclass(frozen=True, eq=False)
class Study:
    """What was simulated, and the results."""

    source: str
    """Where the scores come from, in words."""
    pool: Pool
    workload: Workload
    prevalence: float
    cases: int
    seed: int
    band_shares: tuple[float, ...]
    """Shares of the pool's scored cases in bands 1, 2 and 3."""
    p99_limit: float
    """How many times that of first come the p99 of all cases may be, for a deadline to be proposed."""
    group_thresholds: bool
    """The bundle has thresholds for groups, which a table of scores cannot tell apart."""
    outcomes: Mapping[Discipline, Waits]

    def proposed(self) -> Discipline | None:
        """Four bands with the longest deadline that keeps the p99 of all cases within the limit.

        A longer deadline follows the bands more closely, but the last in the queue wait longer. None if no
        deadline that was tried is short enough.
        """
        kept = []
        for discipline, waits in self.outcomes.items():
            relative = waits["all", "p99"].relative
            if discipline.order == "four_bands" and (relative is None or relative.value <= self.p99_limit):
                kept.append(discipline)
        return max(kept, key=lambda one: one.deadline_minutes, default=None)


def report_lines(study: Study) -> Iterator[str]:
    """The report as plain text."""
    yield from _setup_lines(study)
    in_hours = study.outcomes[FIRST_COME]["all", "mean"].minutes.value >= _HOURS_FROM_MINUTES
    for statistic in STATISTICS:
        yield ""
        yield from _table(study, statistic, in_hours)
    yield ""
    yield _wrapped(
        f"x: ratio to first come. ~: the standard error of this wait is above {_percent(_UNCERTAIN)}. The "
        "clock runs only while people read: nights, and the cases that pile up in them, are not simulated."
    )
    yield ""
    yield _wrapped(_missed_positives_sentence(study, in_hours))
    yield ""
    yield from _configuration(study)


def document(study: Study) -> dict[str, Any]:
    """All numbers, for programs: minutes, shares, and standard errors of the simulation."""
    pool, workload = study.pool, study.workload
    proposed = study.proposed()
    return {
        "source": study.source,
        "cases_in_table": {group: int(mask.sum()) for group, mask in pool.group_masks().items()},
        "threshold": pool.threshold,
        "band_limits": list(pool.band_limits),
        "load": workload.load,
        "readers": workload.readers,
        "minutes_per_case": workload.minutes_per_case,
        "variation": workload.variation,
        "prevalence": study.prevalence,
        "cases": study.cases,
        "seed": study.seed,
        "share_in_band": list(_share_in_band(study)),
        "proposed": None
        if proposed is None
        else {"band_shares": list(study.band_shares), "deadline_hours": _hours(proposed)},
        "waits": [
            {
                "order": discipline.order,
                "deadline_hours": _hours(discipline),
                "group": group,
                "statistic": statistic,
                "minutes": wait.minutes.value,
                "standard_error_minutes": wait.minutes.standard_error,
                "relative": None if wait.relative is None else wait.relative.value,
                "standard_error_relative": None if wait.relative is None else wait.relative.standard_error,
            }
            for discipline, waits in study.outcomes.items()
            for (group, statistic), wait in waits.items()
        ],
    }


def heading(study: Study) -> str:
    """Readers, load and prevalence, in words."""
    workload = study.workload
    readers = "one reader" if workload.readers == 1 else f"{workload.readers} readers"
    return (
        f"{readers}, load {workload.load:g}, {workload.minutes_per_case:g} minutes a reading (variation "
        f"{workload.variation:g}), {_percent(study.prevalence)} of the arriving cases are positive"
    )


def _setup_lines(study: Study) -> Iterator[str]:
    pool = study.pool
    referred = float(pool.arrival_probabilities(study.prevalence)[pool.referred].sum())
    bands = ", ".join(_percent(share) for share in _share_in_band(study))
    yield _wrapped(
        f"Scores: {study.source}; {pool.scores.size:,} cases, {int(pool.positive.sum()):,} of them positive. "
        f"A case that scores {pool.threshold:.4g} or more is referred. Of the arriving cases "
        f"{_percent(referred)} are referred, and bands 1 to 4 hold {bands}."
    )
    if study.group_thresholds:
        yield _wrapped(
            "The bundle has group thresholds, and the table names no groups: the lowest threshold is used "
            "for every case."
        )
    yield _wrapped(f"Queue: {heading(study)}; {study.cases:,} cases for each order, seed {study.seed}.")


def _table(study: Study, statistic: Statistic, in_hours: bool) -> Iterator[str]:
    """One statistic: a row per order of reading, a column per group, each cell a wait and a ratio."""
    yield f"{_STATISTIC_NAMES[statistic]}, {_unit(in_hours)}"
    yield f"  {'':<20}" + "".join(f"{_GROUP_NAMES[group]:>16}" for group in GROUPS)
    if statistic == STATISTICS[0]:
        members = study.pool.group_masks()
        yield f"  {'cases in the table':<20}" + "".join(f"{members[group].sum():>16,}" for group in GROUPS)
    for discipline, waits in study.outcomes.items():
        cells = (_cell(waits.get((group, statistic)), in_hours) for group in GROUPS)
        yield f"  {discipline_name(discipline):<20}" + "".join(f"{cell:>16}" for cell in cells)


def _cell(wait: Wait | None, in_hours: bool) -> str:
    if wait is None:
        return "-"
    sign = "~" if wait.minutes.standard_error > _UNCERTAIN * wait.minutes.value else ""
    ratio = "" if wait.relative is None else f"{wait.relative.value:.2f}x"
    return f"{sign}{_format_duration(wait.minutes.value, in_hours)} {ratio:>6}"


def _missed_positives_sentence(study: Study, in_hours: bool) -> str:
    """One sentence on the wait of missed positives under a binary flag and under four bands."""
    key: tuple[Group, Statistic] = ("missed_positives", "mean")
    flag, bands = (study.outcomes[Discipline(order)].get(key) for order in ("binary_flag", "four_bands"))
    if flag is None or bands is None or flag.relative is None or bands.relative is None:
        return (
            "None of these positive cases scores below the threshold, so the wait of missed cases cannot be "
            "estimated; in use there will be some."
        )
    without = study.outcomes[FIRST_COME][key].minutes.value
    sentence = (
        f"A binary flag makes the positives that it misses wait {flag.relative.value:.2f} times as long as "
        f"without any system ({_format_duration(flag.minutes.value, in_hours)} instead of "
        f"{_format_duration(without, in_hours)} "
        f"{_unit(in_hours)} on average), because all flagged cases are read before them; under four bands "
        f"they wait {bands.relative.value:.2f} times as long"
    )
    proposed = study.proposed()
    late = None if proposed is None else study.outcomes[proposed][key].relative
    if late is not None and proposed != Discipline("four_bands"):
        return f"{sentence}, and {late.value:.2f} times with the deadline proposed below."
    return f"{sentence}."


def _configuration(study: Study) -> Iterator[str]:
    """Lines for a configuration file, with the reason for the deadline as a comment."""
    proposed, limit = study.proposed(), f"{study.p99_limit:g} times that of first come"
    if proposed is None:
        reason = f"no deadline that was tried keeps the p99 of all cases within {limit}: try shorter ones"
    elif math.isinf(proposed.deadline_minutes):
        reason = f"without a deadline the p99 of all cases is within {limit}"
    else:
        reason = f"the longest that was tried with a p99 of all cases within {limit}"
    shares = study.band_shares
    yield "# for the configuration: a proposal; the clinic decides"
    yield "calibrate:"
    if min(shares) > 0 and sum(shares) < 1:
        yield f"  band_shares: [{', '.join(f'{share:g}' for share in shares)}]"
    else:
        yield "  # band_shares: these limits leave a band without any of your cases; give --band-shares"
    hours = None if proposed is None else _hours(proposed)
    yield f"  deadline_hours: {'null' if hours is None else f'{hours:g}'}  # {reason}"


def _share_in_band(study: Study) -> tuple[float, ...]:
    """Shares of the arriving cases in bands 1 to 4."""
    bands = study.pool.bands()
    return tuple(
        np.bincount(bands, study.pool.arrival_probabilities(study.prevalence), minlength=5)[1:].tolist()
    )


def discipline_name(discipline: Discipline) -> str:
    """For people, such as ``four bands, 6 h``."""
    hours = _hours(discipline)
    return _ORDER_NAMES[discipline.order] + ("" if hours is None else f", {hours:g} h")


def _hours(discipline: Discipline) -> float | None:
    """The deadline in hours; None if there is none."""
    minutes = discipline.deadline_minutes
    return None if math.isinf(minutes) else round(minutes / 60, 9)


def _format_duration(minutes: float, in_hours: bool) -> str:
    return f"{minutes / 60:.1f}" if in_hours else f"{minutes:.1f}"


def _unit(in_hours: bool) -> str:
    return "hours" if in_hours else "minutes"


def _percent(share: float) -> str:
    digits = 2 if share < 0.995 else 3  # 100 % has three digits
    return f"{100 * share:.{digits}g} %"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=_WIDTH, break_on_hyphens=False)
