"""What a sealed bundle does with corrupted and with unfamiliar photographs: which cases are missed?

Imports bundle, data and calibrate's intervals.

Every case goes through the whole policy (gates, red flags, groups, score), as in the server. All photographs
of a case are corrupted in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.parallel import thread_map
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy, ReasonCode
from lesion_triage.bundle.scorer import ImageEvidence, score_image
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.metrics import Proportion, Sample, auroc_with_interval, proportion
from lesion_triage.console import ProgressCallback
from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lesion_triage.errors import DataError, ImageError

UNMODIFIED = "unmodified"
Reader = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class CaseInput:
    """One case as a platform would send it."""

    files: tuple[Reader, ...]
    """Each gives the bytes of one photograph."""
    history: History
    needs_in_person: bool
    unit_id: str
    """Of what is drawn independently of the others: the patient where known, else the lesion."""


@dataclass(frozen=True, slots=True)
class Row:
    """All cases under one corruption at one severity; intervals from ``clustered_proportions``."""

    corruption: str
    """One of ``CORRUPTIONS``, or ``UNMODIFIED``."""
    severity: int
    """1 to 5; 0 if unmodified."""
    missed: Proportion
    """Of the positive cases, those that are neither referred nor abstained on."""
    missed_without_gates: Proportion
    """The same if no gate refused a photograph."""
    refused: Proportion
    """Of the photographs, those that are not scored."""
    referred_others: Proportion
    """Of the negative cases, those that are referred or abstained on."""
    refusals: Mapping[str, int]
    """Photographs by reason code."""


@dataclass(frozen=True, slots=True)
class ForeignResult:
    """Photographs of something that the model was not made for, each as a case of its own.

    Their patients are unknown, so the intervals treat them as independent. Frames of one recording are not.
    """

    name: str
    sent_up: Proportion
    """Referred, or not scored."""
    refused_by_quality: Proportion
    unfamiliar: Proportion
    """Refused by the novelty gate, after the quality gate let them pass."""
    auroc: Estimate | None
    """Of the novelty, against the unmodified photographs of the cases; includes those refused for quality."""


def measure_corruptions(
    bundle: Bundle,
    cases: Sequence[CaseInput],
    *,
    corruptions: Collection[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> tuple[Row, ...]:
    """Corrupt every photograph in every way and decide every case; the unmodified ones come first.

    Args:
        bundle: sealed.
        cases: of both classes.
        corruptions: names from ``CORRUPTIONS``.
        severities: from 1 to 5.
        seed: of the random part of the corruptions.
        progress: called with the number of rows done and the total.

    Raises:
        ImageError: a photograph cannot be decoded even before it is corrupted.
        DataError: there is no such corruption, or the cases are of one class.
    """
    positives = sum(case.needs_in_person for case in cases)
    if not 0 < positives < len(cases):
        raise DataError(
            f"expected positive and other cases, found {positives} positive ones among {len(cases)}; each "
            "class needs at least one case."
        )
    graph = Graph(bundle.graph, bundle.header.pixels)
    cells = [(UNMODIFIED, 0), *((name, severity) for name in corruptions for severity in severities)]
    rows = []
    for name, severity in cells:

        def score_case(
            case: CaseInput, name: str = name, severity: int = severity
        ) -> tuple[_PhotographResult, ...]:
            files = (read() for read in case.files)
            corrupted = (f if name == UNMODIFIED else corrupt(f, name, severity, seed) for f in files)
            return tuple(_score_photograph(graph, bundle, data) for data in corrupted)

        rows.append(_corruption_row(bundle, name, severity, cases, thread_map(score_case, cases)))
        if progress is not None:
            progress(len(rows), len(cells))
    return tuple(rows)


def measure_foreign(
    bundle: Bundle,
    cases: Sequence[CaseInput],
    foreign: Mapping[str, Sequence[Path]],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[ForeignResult, ...]:
    """Show the bundle photographs of something that it was not made for.

    Args:
        bundle: sealed.
        cases: their unmodified photographs are the familiar ones.
        foreign: files of foreign photographs, by name.
        draws: of the bootstrap, over the foreign photographs and the units of the cases.
        seed: of the bootstrap.

    Raises:
        ImageError: a file cannot be decoded; the message names it.
    """
    graph = Graph(bundle.graph, bundle.header.pixels)
    files = [read for case in cases for read in case.files]
    familiar = np.array(
        [one.novelty for one in thread_map(lambda read: _score_photograph(graph, bundle, read()), files)]
    )
    owners = np.repeat(_units(cases), [len(case.files) for case in cases])
    found = []
    for name, paths in foreign.items():
        photographs = thread_map(lambda path: _score_file(graph, bundle, path), paths)
        found.append(_foreign_result(bundle, name, photographs, familiar, owners, draws, seed))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _PhotographResult:
    """One photograph: the result of the gates, and the graph's output whether or not they refused it."""

    evidence: ImageEvidence
    logit: float
    novelty: float


def _score_photograph(graph: Graph, bundle: Bundle, data: bytes) -> _PhotographResult:
    policy = bundle.policy
    evidence = score_image(
        graph, bundle.header.pixels, policy.quality, data, novelty_limit=policy.novelty_limit
    )
    if evidence.logit is not None and evidence.novelty is not None:
        return _PhotographResult(evidence, evidence.logit, evidence.novelty)
    output = graph.run(decode(data, bundle.header.pixels).pixels)
    return _PhotographResult(evidence, output.logit, output.novelty)


def _score_file(graph: Graph, bundle: Bundle, path: Path) -> _PhotographResult:
    try:
        return _score_photograph(graph, bundle, path.read_bytes())
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {error}") from None


def _corruption_row(
    bundle: Bundle,
    name: str,
    severity: int,
    cases: Sequence[CaseInput],
    seen: Sequence[tuple[_PhotographResult, ...]],
) -> Row:
    policy = bundle.policy
    positive = np.array([case.needs_in_person for case in cases])
    below = _are_below_threshold(
        policy, cases, [[one.evidence.logit for one in photographs] for photographs in seen]
    )
    below_without = _are_below_threshold(
        policy, cases, [[one.logit for one in photographs] for photographs in seen]
    )
    every = [one for photographs in seen for one in photographs]
    refusals = Counter(code.value for one in every for code in one.evidence.refusals)
    refused = np.array([one.evidence.logit is None for one in every])
    units = _units(cases)
    owners = np.repeat(units, [len(photographs) for photographs in seen])
    return Row(
        corruption=name,
        severity=severity,
        missed=clustered_proportion(below[positive], units[positive]),
        missed_without_gates=clustered_proportion(below_without[positive], units[positive]),
        refused=clustered_proportion(refused, owners),
        referred_others=clustered_proportion(~below[~positive], units[~positive]),
        refusals=dict(sorted(refusals.items())),
    )


def _units(cases: Sequence[CaseInput]) -> NDArray[np.intp]:
    return np.unique([case.unit_id for case in cases], return_inverse=True)[1]


def _are_below_threshold(
    policy: Policy, cases: Sequence[CaseInput], logits: Sequence[Sequence[float | None]]
) -> NDArray[np.bool_]:
    decisions = (
        decide(policy, case_logits, case.history) for case, case_logits in zip(cases, logits, strict=True)
    )
    return np.array([decision.disposition is Disposition.below_threshold for decision in decisions])


def _foreign_result(
    bundle: Bundle,
    name: str,
    photographs: Sequence[_PhotographResult],
    familiar: NDArray[np.float64],
    owners: NDArray[np.intp],
    draws: int,
    seed: int,
) -> ForeignResult:
    decisions = [decide(bundle.policy, [one.evidence.logit], NO_HISTORY) for one in photographs]
    sent_up = sum(decision.disposition is not Disposition.below_threshold for decision in decisions)
    unfamiliar = sum(ReasonCode.out_of_distribution in one.evidence.refusals for one in photographs)
    refused = sum(one.evidence.logit is None for one in photographs) - unfamiliar
    novelty = np.concatenate(([one.novelty for one in photographs], familiar))
    # Ranks in [0, 1]: the AUROC depends on the ranks alone.
    ranks = np.unique(novelty, return_inverse=True)[1] / novelty.size
    sample = Sample.of(ranks, np.arange(novelty.size) < len(photographs))
    units = np.concatenate((-1 - np.arange(len(photographs)), owners))
    return ForeignResult(
        name=name,
        sent_up=proportion(sent_up, len(photographs)),
        refused_by_quality=proportion(refused, len(photographs)),
        unfamiliar=proportion(unfamiliar, len(photographs)),
        auroc=auroc_with_interval(sample, draws, seed, units),
    )
