"""Two sealed bundles on the same test cases, case by case. Imports bundle, calibrate and this package.

Cases are paired by the hashes of their photographs' files, from the predictions tables of the two runs. A
report has no such key, because it may be passed on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.cases import Case, unit_indices
from lesion_triage.calibrate.paired_comparison import PairedComparison, PolicyOutput, compare
from lesion_triage.config import Evaluate
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.predictions import Predictions

_MAX_LISTED = 200
"""How many of the cases that changed side a document lists; all are counted."""


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """One of the two bundles."""

    name: str
    bundle_sha256: str
    certificate_id: str
    model_sha256: str
    threshold: float
    cases: int
    """Of its own test split."""
    synthetic: bool


@dataclass(frozen=True, slots=True)
class ChangedCase:
    """A case that one bundle refers (or abstains on) and the other does not; without any identifier."""

    needs_in_person: bool
    first_score: float | None
    second_score: float | None
    first_disposition: Disposition
    second_disposition: Disposition
    first_band: int
    second_band: int


@dataclass(frozen=True, slots=True)
class DispositionCount:
    """Number of cases of one class with a given disposition by either bundle."""

    needs_in_person: bool
    first_disposition: Disposition
    second_disposition: Disposition
    cases: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every number of the comparison; ``comparison.json``."""

    split: str
    first: BundleSummary
    second: BundleSummary
    cases: int
    """In both test splits, with the same photographs and the same reference standard."""
    positives: int
    only_first: int
    """Cases of the first's test split that are not in the second's."""
    only_second: int
    labels_differ: int
    """Cases left out because the two tables disagree on whether they need a visit."""
    units: int
    """Units that the bootstrap draws: patients where known, else lesions."""
    compared: PairedComparison
    crossings: tuple[DispositionCount, ...]
    changed: tuple[ChangedCase, ...]
    """Positive cases first, lost ones before gained ones, by falling score of the first; at most 200."""
    bootstrap_draws: int
    bootstrap_seed: int

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json({"schema_version": 1, **asdict(self)})


@dataclass(frozen=True, slots=True, eq=False)
class PairedCases:
    """The cases that both bundles were tested on, in the order of the first's table."""

    first: DecidedCases
    second: DecidedCases
    only_first: int
    only_second: int
    labels_differ: int

    def answers(self) -> tuple[PolicyOutput, PolicyOutput]:
        """The answers of both."""
        first, second = self.first, self.second
        return PolicyOutput(first.scores, first.referred), PolicyOutput(second.scores, second.referred)


def pair_cases(first: tuple[Bundle, Predictions], second: tuple[Bundle, Predictions]) -> PairedCases:
    """Find the cases that are in both test splits.

    Args:
        first: a sealed bundle and its own logits on its test split.
        second: another.

    Raises:
        PredictionsError: a table does not belong to its bundle.
        ReportError: the shared cases lack a class, or there are none; or the tables disagree on which of them
            belong to one patient or lesion.
    """
    first_cases, second_cases = DecidedCases.from_predictions(*first), DecidedCases.from_predictions(*second)
    first_keys, second_keys = (
        [_photographs_key(case) for case in side.cases] for side in (first_cases, second_cases)
    )
    # Lesions with the same files share a key. Each is paired once, with one of the same outcome if there is
    # one, in the order of the tables.
    unpaired: dict[tuple[tuple[str, ...], bool], deque[int]] = {}
    for index, key in enumerate(zip(second_keys, second_cases.positive.tolist(), strict=True)):
        unpaired.setdefault(key, deque()).append(index)
    index_pairs = [
        (index, indices.popleft())
        for index, key in enumerate(zip(first_keys, first_cases.positive.tolist(), strict=True))
        if (indices := unpaired.get(key))
    ]
    in_both = (Counter(first_keys) & Counter(second_keys)).total()
    positive = (
        first_cases.positive[[first_index for first_index, _ in index_pairs]]
        if index_pairs
        else np.zeros(0, dtype=np.bool_)
    )
    if not positive.any() or positive.all():
        raise ReportError(
            f"bundles {first[0].header.name} and {second[0].header.name} share {positive.size} test cases, "
            f"{int(positive.sum())} of them positive; a comparison needs both classes. Cases match if all "
            "their photographs are the same files: compare runs on one dataset with one split.seed."
        )
    _require_same_units(
        first, second, [(first_cases.cases[i], second_cases.cases[j]) for i, j in index_pairs]
    )
    return PairedCases(
        first=_select_cases(first_cases, [first_index for first_index, _ in index_pairs]),
        second=_select_cases(second_cases, [second_index for _, second_index in index_pairs]),
        only_first=len(first_cases.cases) - in_both,
        only_second=len(second_cases.cases) - in_both,
        labels_differ=in_both - len(index_pairs),
    )


def _require_same_units(
    first: tuple[Bundle, Predictions], second: tuple[Bundle, Predictions], pairs: Sequence[tuple[Case, Case]]
) -> None:
    """Raise unless both tables join the same cases into units: the intervals draw units, of one table alone.

    How a unit is named may differ: a mixture prefixes the ids of its parts.
    """
    second_of: dict[str, str] = {}
    first_of: dict[str, str] = {}
    for one, other in pairs:
        same = second_of.setdefault(one.unit_id, other.unit_id) == other.unit_id
        if not same or first_of.setdefault(other.unit_id, one.unit_id) != one.unit_id:
            # By line, not by id, which may be that of a person.
            lines = [
                f"line {2 + next(at for at, row in enumerate(table.rows) if row.case_id == case.case_id)} of "
                f"{bundle.header.name}"
                for (bundle, table), case in ((first, one), (second, other))
            ]
            raise ReportError(
                f"the predictions of split '{second[1].split}' disagree on which cases are of one unit_id, "
                f"that is of one patient or lesion: {lines[1]} joins or parts what {lines[0]} does not, "
                "though the photographs are the same; compare runs whose manifests name the same patients."
            )


def compare_bundles(
    first: tuple[Bundle, Predictions], second: tuple[Bundle, Predictions], config: Evaluate
) -> tuple[Comparison, PairedCases]:
    """Compare two bundles on the cases that both were tested on.

    Args:
        first: a sealed bundle and its own logits on its test split.
        second: another; differences are second minus first.
        config: bootstrap draws and seed.

    Raises:
        As ``pair_cases``.
    """
    pairs = pair_cases(first, second)
    changes = changes_by_index(pairs)
    positive, units = pairs.first.positive, unit_indices(pairs.first.cases)
    bootstrap_units = pairs.first.bootstrap_units()
    same_bundle = first[0].sha256 == second[0].sha256
    compared = compare(
        *pairs.answers(),
        positive,
        config.bootstrap_draws,
        config.seed,
        bootstrap_units,
        same_policy=same_bundle,
    )
    return (
        Comparison(
            split=first[1].split,
            first=_summarise_bundle(*first),
            second=_summarise_bundle(*second),
            cases=positive.size,
            positives=int(positive.sum()),
            only_first=pairs.only_first,
            only_second=pairs.only_second,
            labels_differ=pairs.labels_differ,
            units=np.unique(units).size,
            compared=compared,
            crossings=_count_dispositions(pairs),
            changed=tuple(changes[number] for number in _changed_order(pairs)[:_MAX_LISTED]),
            bootstrap_draws=config.bootstrap_draws,
            bootstrap_seed=config.seed,
        ),
        pairs,
    )


def changed_cases(pairs: PairedCases) -> list[tuple[str, ChangedCase]]:
    """All cases that changed side with their identifiers: for the run's own folder, never for a report."""
    changes = changes_by_index(pairs)
    return [(pairs.first.cases[number].case_id, changes[number]) for number in _changed_order(pairs)]


def changes_by_index(pairs: PairedCases) -> dict[int, ChangedCase]:
    """Cases that changed side, by their index in the pair."""
    moved = np.flatnonzero(pairs.first.referred != pairs.second.referred)
    return {
        int(number): ChangedCase(
            needs_in_person=bool(pairs.first.positive[number]),
            first_score=pairs.first.decisions[number].score,
            second_score=pairs.second.decisions[number].score,
            first_disposition=pairs.first.decisions[number].disposition,
            second_disposition=pairs.second.decisions[number].disposition,
            first_band=pairs.first.decisions[number].priority_band,
            second_band=pairs.second.decisions[number].priority_band,
        )
        for number in moved
    }


def _changed_order(pairs: PairedCases) -> list[int]:
    """Positive cases first; then those that the second no longer refers; then by falling score."""
    moved = np.flatnonzero(pairs.first.referred != pairs.second.referred)
    score = pairs.first.scores[moved]
    order = np.lexsort((-score, pairs.second.referred[moved], ~pairs.first.positive[moved]))
    return [int(number) for number in moved[order]]


def _count_dispositions(pairs: PairedCases) -> tuple[DispositionCount, ...]:
    counts = Counter(
        (bool(positive), one.disposition, other.disposition)
        for positive, one, other in zip(
            pairs.first.positive, pairs.first.decisions, pairs.second.decisions, strict=True
        )
    )
    return tuple(
        DispositionCount(positive, first, second, counts[positive, first, second])
        for positive in (True, False)
        for first in Disposition
        for second in Disposition
    )


def _photographs_key(case: Case) -> tuple[str, ...]:
    return tuple(sorted(row.file_fingerprint for row in case.rows))


def _select_cases(decided: DecidedCases, indices: Sequence[int]) -> DecidedCases:
    return DecidedCases(
        cases=tuple(decided.cases[index] for index in indices),
        decisions=tuple(decided.decisions[index] for index in indices),
        scores=decided.scores[indices],
        positive=decided.positive[indices],
        referred=decided.referred[indices],
    )


def _summarise_bundle(bundle: Bundle, table: Predictions) -> BundleSummary:
    return BundleSummary(
        name=bundle.header.name,
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        model_sha256=table.model_sha256,
        threshold=bundle.policy.threshold,
        cases=len(table.by_case()),
        synthetic=bundle.header.synthetic,
    )
