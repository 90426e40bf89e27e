"""``triage-server shadow report``: how often a shadow bundle disagrees, and in which direction.

Imports numpy and the audit chain; all that it counts is in the audit log.
"""

from __future__ import annotations

import argparse
import math
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion_triage.errors import AuditLogError, ConfigError
from triage_server.audit_chain import verify

_WORDS = {
    ("referral", "same"): "the same referral",
    ("referral", "down"): "REFERRED, BUT NOT BY THE SHADOW",
    ("referral", "up"): "referred by the shadow alone",
    ("band", "same"): "the same band",
    ("band", "down"): "A LATER BAND BY THE SHADOW",
    ("band", "up"): "an earlier band by the shadow",
}


@dataclass
class Comparison:
    """What one shadow said about the cases that one bundle answered."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By ``referral`` or ``band``, and the direction of the move."""
    compared: int = 0
    failed: int = 0
    first: int = 2**63
    """Line number of the earliest answer that it was given."""
    elsewhere: int = 0
    """How many of its cases were answered in files before these."""
    down: list[str] = field(default_factory=list)
    """Line number and request id of each case that would have moved down, if the tally lists them."""


class Tally:
    """Counts comparisons from the lines of a log, in order."""

    def __init__(self, *, lists_cases: bool = True) -> None:
        """Count from nothing.

        Args:
            lists_cases: whether to keep each case that would have moved down, which takes memory.
        """
        self._lists_cases = lists_cases
        self.pairs: dict[tuple[str, str], Comparison] = {}
        self._answers: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"))
        """Line numbers of each bundle's answers, ascending."""

    def answered(self, answering: str, shadow: str) -> int:
        """Answers of a bundle from the first that this shadow was given, including those it did not score."""
        pair, numbers = self.pairs[answering, shadow], self._answers[answering]
        return len(numbers) - bisect_left(numbers, pair.first) + pair.elsewhere

    def line(self, fields: Mapping[str, object]) -> None:
        """Count one line."""
        if fields.get("event") == "answer":
            self._answers[str(fields["bundle_sha256"])].append(int(str(fields["sequence"])))
            return
        of = fields.get("answered")
        if fields.get("event") != "shadow" or not isinstance(of, Mapping):
            return
        answering, number = str(of["bundle_sha256"]), int(of["sequence"])
        pair = self.pairs.setdefault((answering, str(fields["bundle_sha256"])), Comparison())
        numbers = self._answers[answering]
        pair.first = min(pair.first, number)
        pair.elsewhere += not numbers or number < numbers[0]
        if "problem" in fields:
            pair.failed += 1
            return
        pair.compared += 1
        moved = [(name, str(fields[name])) for name in ("referral", "band")]
        pair.counts.update(moved)
        if self._lists_cases and any(where == "down" for _, where in moved):
            what = "referral" if moved[0][1] == "down" else "band"
            pair.down.append(f"{of['sequence']}  {fields['request_id']}  {what}")


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval for a proportion; its coverage is at least ``confidence``.

    At each end, the binomial tail beyond the observed count is (1 - confidence) / 2 [Clopper and Pearson,
    Biometrika 26, 1934].

    Args:
        successes: 0 to ``trials``.
        trials: at least 1.
        confidence: above 0, below 1.
    """
    half = (1 - confidence) / 2
    lower = 0.0 if successes == 0 else _root(trials - successes, trials, half)
    upper = 1.0 if successes == trials else 1 - _root(successes, trials, half)
    return lower, upper


def _root(others: int, trials: int, tail: float) -> float:
    """Success probability at which ``others`` or fewer failures have probability ``tail``; by bisection.

    The root is below the observed proportion, where the tail is at least 1/2. There, with c = ``others``, the
    term of c - k failures is at most exp(-k**2 / 2c) of that of c, so that terms beyond 10 sqrt(c) count for
    less than c * 2e-22.
    """
    count = np.arange(max(0, others - math.ceil(10 * math.sqrt(others))), others + 1)
    last = math.lgamma(trials + 1) - math.lgamma(others + 1) - math.lgamma(trials - others + 1)
    steps = np.log(count[1:]) - np.log(trials - count[1:] + 1)  # between the logarithms of two coefficients
    ways = last + np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    low, high = 0.0, (trials - others) / trials
    for _ in range(60):
        chance = (low + high) / 2
        terms = ways + (trials - count) * math.log(chance) + count * math.log1p(-chance)
        reached = float(np.exp(terms - terms.max()).sum()) * math.exp(terms.max()) >= tail
        low, high = (low, chance) if reached else (chance, high)
    return (low + high) / 2


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``shadow`` subcommand."""
    verbs = subparsers.add_parser("shadow", help="shadow bundles").add_subparsers(required=True)
    report = verbs.add_parser("report", help="how often a shadow disagrees, and in which direction")
    report.add_argument("path", type=Path, help="folder of the audit log, or one of its files")
    report.add_argument(
        "--since",
        metavar="HASH",
        help="hash of the line before the first file, if earlier files are elsewhere",
    )
    report.add_argument(
        "--confidence", type=float, default=0.95, help="confidence of the intervals (%(default)s)"
    )
    report.add_argument("--cases", action="store_true", help="list every case that would have moved down")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence is {arguments.confidence}, expected a number between 0 and 1.")
    if not arguments.path.exists():
        raise AuditLogError(f"{arguments.path}: no such log.")
    tally = Tally(lists_cases=arguments.cases)
    verify(arguments.path, since=arguments.since, each=tally.line)
    if not tally.pairs:
        raise AuditLogError(f"{arguments.path}: no shadow has scored a case in this log.")
    for (answering, shadow), pair in tally.pairs.items():
        for line in _lines(tally, answering, shadow, arguments.confidence):
            print(line)
        if arguments.cases:
            print("  line  request id  what would have moved down")
            for case in pair.down:
                print(f"  {case}")
    return 0


def _lines(tally: Tally, answering: str, shadow: str, confidence: float) -> Iterator[str]:
    pair, answered = tally.pairs[answering, shadow], tally.answered(answering, shadow)
    yield f"answered by {answering[:16]}, shadow {shadow[:16]}: {pair.compared} cases compared"
    yield f"  of {answered} answers since the first compared; the shadow could not score {pair.failed}"
    if pair.compared == 0:
        return
    for name, words in _WORDS.items():
        seen = pair.counts[name]
        low, high = exact_interval(seen, pair.compared, confidence)
        yield f"  {words:32} {seen:7}  {seen / pair.compared:7.2%}  ({low:.2%} to {high:.2%})"
    yield f"  intervals: exact binomial, {confidence:.0%}; cases of one patient are not independent"
