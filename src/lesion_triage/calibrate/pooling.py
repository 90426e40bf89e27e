"""One threshold from the counts of several sites, which keep their cases. Imports numpy, bundle, certificate.

Each site counts how many of its positive units lie below each threshold of a fixed grid. The counts are
added, and the highest threshold is taken that leaves no more misses than ``allowed_misses`` grants to the sum
of the positives. The grid is fixed beforehand and misses only rise along it, so this is fixed-sequence
testing (Angelopoulos et al. 2021, arXiv:2110.01052) and needs no multiplicity correction.

Sites differ, so the sum of their misses is not binomial but a sum of unequal Bernoulli variables. In the
lower tail such a sum is less dispersed: P(misses <= k) is at most that of the binomial with the same mean, as
long as k is at most the mean less one (Hoeffding 1956, Ann. Math. Stat. 27:713, theorem 4). So the promise
holds for the mean sensitivity of the sites, weighted by their positives. It holds for a single site only if
that site's row says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesion_triage.bundle.certificate import ALL_UNITS, BY_SITE, GroupRow, Unit
from lesion_triage.bundle.document import Document, Fraction, Sha256
from lesion_triage.calibrate.certificate import (
    allowed_misses,
    minimum_positives,
    sensitivity_lower_bound,
)
from lesion_triage.errors import CalibrationError

_GRID_SIZE = 1201
_LOG_ODDS_LIMIT = 12.0


def _grid() -> tuple[float, ...]:
    """Scores, evenly spaced in log odds; rounded, so that they are the same numbers on every machine."""
    odds = (_LOG_ODDS_LIMIT * (2 * i / (_GRID_SIZE - 1) - 1) for i in range(_GRID_SIZE))
    return tuple(float(f"{1 / (1 + math.exp(-odd)):.9g}") for odd in odds)


THRESHOLD_GRID = _grid()


class Tally(Document):
    """What a site sends to the others: counts, and which model they are of. No case, no score, no picture."""

    format: int = Field(default=1, ge=1, le=1)
    site: str = Field(min_length=1, max_length=100)
    counted_at: str
    """UTC, ISO 8601."""
    unit: Unit
    unnamed_lesions: int = Field(default=0, ge=0)
    """If patients are counted: the site's lesions that name no patient; each counts as one."""
    unnamed_photographs: int = Field(default=0, ge=0)
    """The site's photographs that name no lesion; each counts as a lesion."""
    model_sha256: Sha256
    scoring_sha256: Sha256
    """Of everything between a logit and a score: calibrator, aggregation, limits of the gates."""
    cases_sha256: Sha256
    positives: int = Field(ge=1)
    positives_abstained: int = Field(ge=0)
    misses: tuple[int, ...]
    """Positive units below each threshold of ``THRESHOLD_GRID``."""
    looked_before: tuple[Fraction, ...] = ()
    """Confidence of each threshold that the site chose before, by its ledger: on these cases, or with this
    model. Earlier versions do not tell."""


def count_misses(scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Misses at each threshold of the grid, from one score for each positive unit; +inf is never missed."""
    return tuple(int(below) for below in np.searchsorted(np.sort(scores), THRESHOLD_GRID, side="left"))


def check_tallies(tallies: Sequence[Tally]) -> None:
    """Refuse counts that cannot be added up.

    Raises:
        CalibrationError: fewer than two, one site or one set of cases twice, different models, scoring or
            units, or malformed counts.
    """
    if len(tallies) < 2:
        raise CalibrationError(f"expected the counts of at least two sites, found {len(tallies)}.")
    for number, tally in enumerate(tallies):
        for before in tallies[:number]:
            if tally.site == before.site:
                raise CalibrationError(f"the counts of site '{tally.site}' were given twice; leave one out.")
            if tally.cases_sha256 == before.cases_sha256:
                raise CalibrationError(
                    f"the sites '{before.site}' and '{tally.site}' counted the same cases; leave one out."
                )
    for name in ("model_sha256", "scoring_sha256", "unit"):
        if len({getattr(tally, name) for tally in tallies}) > 1:
            raise CalibrationError(f"the sites' counts differ in {name}: expected one scorer and one unit.")
    for tally in tallies:
        if not tally.site.isprintable():
            raise CalibrationError(
                f"the name of site {tally.site!r} is not one line of printable characters; make its counts "
                "again with `lesion-triage tally`."
            )
        counts = np.array(tally.misses)
        scored = tally.positives - tally.positives_abstained
        if counts.size != _GRID_SIZE or (np.diff(counts) < 0).any() or counts[0] < 0 or counts[-1] > scored:
            raise CalibrationError(
                f"the counts of site '{tally.site}' are invalid: expected {_GRID_SIZE} numbers from 0 to "
                f"{scored} that never decrease; make them again with `lesion-triage tally`."
            )


def pool(
    tallies: Sequence[Tally], target: float, confidence: float, *, each_site: bool
) -> tuple[float, tuple[GroupRow, ...]]:
    """The pooled threshold, and a row for everyone and for each site.

    Args:
        tallies: that passed ``check_tallies``.
        target: sensitivity.
        confidence: one-sided; joint over all rows that are certified.
        each_site: each site that is large enough must reach the target by itself too, at the common
            threshold.

    Raises:
        CalibrationError: too few positives in all, or no threshold of the grid is low enough.
    """
    everyone = tallies[0].model_copy(
        update={
            "site": ALL_UNITS,
            "positives": sum(tally.positives for tally in tallies),
            "positives_abstained": sum(tally.positives_abstained for tally in tallies),
            "misses": tuple(np.sum([tally.misses for tally in tallies], axis=0).tolist()),
        }
    )
    allowed = allowed_misses(everyone.positives, target, confidence)
    if allowed is None:
        raise CalibrationError(
            f"{everyone.positives} positive {everyone.unit}s of all sites together; certifying sensitivity "
            f"{target:g} at confidence {confidence:g} takes at least "
            f"{_minimum_positives(ALL_UNITS, target, confidence)}. Wait for more, let another site "
            "join, or ask for a lower --target."
        )
    # At a low confidence the binomial allows more misses than Hoeffding's comparison covers.
    ceiling = math.floor(everyone.positives * (1.0 - target) - 1.0 + 1e-9)
    if ceiling < 0:
        raise CalibrationError(
            f"{everyone.positives} positive {everyone.unit}s of all sites; whatever the confidence, pooling "
            f"at sensitivity {target} takes at least {_hoeffding_minimum_positives(target)}, so that one "
            "miss may be expected: with fewer, counts of differing sites can vary more than a binomial. "
            "Wait for more, or certify each site by itself."
        )
    granted = [
        min(allowed, ceiling),
        *(allowed_misses(tally.positives, target, confidence) if each_site else None for tally in tallies),
    ]
    parts = list(zip((ALL_UNITS, *(BY_SITE for _ in tallies)), (everyone, *tallies), granted, strict=True))
    place = min(_highest_threshold_index(tally, misses) for _, tally, misses in parts if misses is not None)
    if place < 0:
        raise CalibrationError(
            "more positive units than may be missed have the lowest score; this model cannot be certified."
        )
    return THRESHOLD_GRID[place], tuple(_row(*part, place, target, confidence) for part in parts)


def _highest_threshold_index(tally: Tally, granted: int) -> int:
    """Index in the grid of the highest threshold that leaves no more misses than granted; -1 if none does."""
    return int(np.searchsorted(tally.misses, granted, side="right")) - 1


def _hoeffding_minimum_positives(target: float) -> int:
    """Fewest positives with one expected miss at the target, as Hoeffding's comparison requires."""
    return math.ceil(1.0 / (1.0 - target) - 1e-9)


def _minimum_positives(by: str, target: float, confidence: float) -> int:
    needed = minimum_positives(target, confidence)
    return max(needed, _hoeffding_minimum_positives(target)) if by == ALL_UNITS else needed


def _row(
    by: str, tally: Tally, granted: int | None, place: int, target: float, confidence: float
) -> GroupRow:
    bound = None if granted is None else sensitivity_lower_bound(tally.positives, granted, confidence)
    if by == ALL_UNITS and bound is not None and granted is not None:
        # For unlike sites the bound is known only while the expected misses, less one, reach those granted.
        bound = min(bound, (tally.positives - granted - 1) / tally.positives)
    return GroupRow(
        by=by,
        group=tally.site,
        members=(tally.site,),
        status="not_certifiable" if granted is None else "certified",
        positives=tally.positives,
        positives_abstained=tally.positives_abstained,
        misses_seen=tally.misses[place],
        misses_allowed=granted,
        threshold=None if granted is None else THRESHOLD_GRID[_highest_threshold_index(tally, granted)],
        sensitivity_lower_bound=bound,
        confidence=confidence,
        minimum_positives=_minimum_positives(by, target, confidence),
    )
