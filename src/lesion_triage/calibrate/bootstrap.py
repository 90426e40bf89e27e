"""Percentile intervals from resampling cases, or the units they belong to. Imports numpy and ``cells``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.cells import MERGE_ABOVE, Cells, Counts, Floats, Sample
from lesion_triage.errors import CalibrationError

Measure = Callable[[Cells, Counts], Floats]
"""The numbers measured in each draw, shape (draws, numbers); NaN where one is not defined."""

INTERVAL_CONFIDENCE = 0.95

_BLOCK_ELEMENTS = 100_000  # a block of draws stays in the processor's cache
_FEW_SLOTS = 32
_MANY_UNITS = 50_000  # above this, a draw's counts are taken from their normal limit
_DEFINED_SHARE = 0.95  # of the draws; with fewer, the interval would be conditional on being defined


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its percentile interval from resampling cases or units."""

    value: float
    low: float
    high: float
    draws: int
    """Draws in which the quantity was defined, at least 95 % of those made. 0: the interval is computed from
    counts, not from draws."""


def bootstrap(
    sample: Sample,
    measure: Measure,
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
    boundaries: Iterable[float] = (),
    confidence: float = INTERVAL_CONFIDENCE,
) -> tuple[Estimate | None, ...]:
    """Measure a sample, with percentile intervals. All numbers share the same draws.

    Point values are exact for any number of cases. Above ``MERGE_ABOVE`` distinct scores, draws are measured
    on about 500 merged cells; the error that merging makes on the sample itself is corrected in every draw.

    Args:
        sample: n cases.
        measure: what is measured.
        draws: number of bootstrap draws.
        seed: of the bootstrap.
        units: number of the unit that each case belongs to, shape (n,), in the order of the original data.
            Whole units are drawn, since the cases of one patient are not independent. None draws cases.
        boundaries: scores that ``measure`` compares with, besides the threshold.
        confidence: of the intervals, two-sided.

    Returns:
        None for a number that is not defined on the sample, or in fewer than 95 % of the draws.

    Raises:
        CalibrationError: ``units`` does not have one entry per case.
    """
    exact, cells = Cells.exact(sample), Cells.of(sample, boundaries)
    point = measure(exact, exact.sample_counts())[0]
    drawn = np.concatenate(
        [measure(cells, counts) for counts in _draw_cell_counts(cells, draws, seed, units)]
    )
    drawn += point - measure(cells, cells.sample_counts())[0]
    return tuple(
        percentile_interval(float(value), column, confidence)
        for value, column in zip(point, drawn.T, strict=True)
    )


def percentile_interval(
    value: float, drawn: Floats, confidence: float = INTERVAL_CONFIDENCE
) -> Estimate | None:
    """The middle ``confidence`` of the draws; None if ``value`` or more than 5 % of them are not finite."""
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or defined.size < _DEFINED_SHARE * drawn.size:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), int(defined.size))


def draw_counts(
    cases: int, draws: int, seed: int, units: NDArray[np.intp] | None = None
) -> Iterator[NDArray[np.float64]]:
    """How often each case is drawn, in blocks of shape (draws, cases).

    Each draw takes as many units as there are, each with all its cases. Without ``units`` each case is a unit
    of its own, and each row sums to ``cases``.

    Raises:
        CalibrationError: ``units`` does not have one entry per case.
    """
    drawable, members = _unit_numbers(cases, units)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // cases)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = generator.integers(0, drawable, size=(rows, drawable)) + np.arange(rows)[:, None] * drawable
        counts = np.bincount(drawn.ravel(), minlength=rows * drawable).reshape(rows, drawable)
        yield (counts if members is None else counts[:, members]).astype(np.float64)


def _unit_numbers(cases: int, units: NDArray[np.intp] | None) -> tuple[int, NDArray[np.intp] | None]:
    """Number of units, and the unit of each case (None without ``units``).

    Units are renumbered without gaps, because a slice may lack some.
    """
    if units is None:
        return cases, None
    if units.shape != (cases,):
        raise CalibrationError(f"expected one unit for each of {cases} cases, found shape {units.shape}.")
    present, members = np.unique(units, return_inverse=True)
    return present.size, members


def _draw_cell_counts(
    cells: Cells, draws: int, seed: int, units: NDArray[np.intp] | None
) -> Iterator[Counts]:
    """Draws like those of ``draw_counts``, counted by cell, in blocks.

    For many independent cases the cell counts are multinomial, at a cost that does not grow with the cases.
    The same holds for many units of few distinct kinds.
    """
    cases, slots = cells.slot.size, cells.cases.size
    if units is None and cases > MERGE_ABOVE:
        yield from _draw_multinomial(cells, draws, seed)
        return
    if units is not None and cases > MERGE_ABOVE:
        drawable, members = _unit_numbers(cases, units)
        assert members is not None
        many = _draw_normal_approximation if drawable > _MANY_UNITS else _draw_by_summing
        yield from (_draw_by_unit_kind if slots <= _FEW_SLOTS else many)(
            cells, draws, seed, drawable, members
        )
        return
    tallies = (cells.tally(counts) for counts in draw_counts(cases, draws, seed, units))
    together = max(1, cases // slots)  # otherwise, with very many cases, each block would hold one draw
    while block := list(islice(tallies, together)):
        yield np.concatenate(block)


def _draw_by_unit_kind(
    cells: Cells, draws: int, seed: int, units: int, members: NDArray[np.intp]
) -> Iterator[Counts]:
    """Units with equal counts in every slot are of one kind; the numbers drawn per kind are multinomial."""
    slots = cells.cases.size
    rows = np.bincount(members * slots + cells.slot, minlength=units * slots).reshape(units, slots)
    kinds, frequency = np.unique(rows, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // frequency.size)
    for start in range(0, draws, block):
        drawn = generator.multinomial(units, frequency / units, size=min(block, draws - start))
        yield (drawn @ kinds).astype(np.float64).reshape(-1, *cells.cases.shape)


def _draw_by_summing(
    cells: Cells, draws: int, seed: int, units: int, members: NDArray[np.intp]
) -> Iterator[Counts]:
    """Sum, by slot, how often the unit of each case is drawn: one read and one addition per case."""
    order = np.argsort(cells.slot, kind="stable")
    unit, occupied = members[order], np.flatnonzero(cells.cases)
    begins = np.searchsorted(cells.slot[order], occupied)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // cells.cases.size)
    for start in range(0, draws, block):
        counts = np.zeros((min(block, draws - start), cells.cases.size))
        for row in counts:
            drawn = np.bincount(generator.integers(0, units, size=units, dtype=np.int32), minlength=units)
            # Small integers fit into the processor's cache; reading them dominates the time.
            small = drawn.astype(np.uint8 if drawn.max() < 256 else np.int32)
            row[occupied] = np.add.reduceat(small.take(unit), begins, dtype=np.int32)
        yield counts.reshape(-1, *cells.cases.shape)


def _draw_normal_approximation(
    cells: Cells, draws: int, seed: int, units: int, members: NDArray[np.intp]
) -> Iterator[Counts]:
    """Normal approximation for very many units, with the exact mean and covariance of a draw of units.

    A draw is the sum of ``w_u x_u`` over the units, with ``x_u`` the counts of unit u by slot and ``w``
    multinomial. Its covariance is ``sum x_u x_u' - T T' / units``, where ``T = sum x_u``. Negative counts
    become 0.
    """
    occupied = np.flatnonzero(cells.cases)
    slot = np.searchsorted(occupied, cells.slot)
    total = cells.cases.ravel()[occupied]
    covariance = _cross_products(slot, members, occupied.size) - np.outer(total, total) / units
    variances, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(np.maximum(variances, 0))  # rounding can make a variance of 0 negative
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // cells.cases.size)
    for start in range(0, draws, block):
        counts = np.zeros((min(block, draws - start), cells.cases.size))
        moved = generator.standard_normal((counts.shape[0], occupied.size)) @ root.T
        counts[:, occupied] = np.maximum(total + moved, 0)
        yield counts.reshape(-1, *cells.cases.shape)


def _cross_products(slot: NDArray[np.intp], members: NDArray[np.intp], slots: int) -> Floats:
    """``sum x_u x_u'`` over the units: how many pairs of cases of one unit lie in each pair of slots."""
    order = np.argsort(members, kind="stable")
    slot, unit = slot[order], members[order]
    pairs = np.bincount(slot, minlength=slots) * np.eye(slots)
    for apart in range(1, slot.size):
        together = unit[apart:] == unit[:-apart]
        if not together.any():  # no unit has so many cases
            break
        places = slot[apart:][together] * slots + slot[:-apart][together]
        found = np.bincount(places, minlength=slots * slots).reshape(slots, slots)
        pairs += found + found.T
    return pairs


def _draw_multinomial(cells: Cells, draws: int, seed: int) -> Iterator[Counts]:
    generator = np.random.default_rng(seed)
    # numpy assigns the rounding remainder to the last slot, so that slot must not be empty.
    occupied = np.flatnonzero(cells.cases)
    shares = cells.cases.ravel()[occupied] / cells.slot.size
    block = max(1, _BLOCK_ELEMENTS // cells.cases.size)
    for start in range(0, draws, block):
        counts = np.zeros((min(block, draws - start), cells.cases.size))
        counts[:, occupied] = generator.multinomial(cells.slot.size, shares, size=counts.shape[0])
        yield counts.reshape(-1, *cells.cases.shape)
