"""``lesion-triage watch``: is a certificate still kept, on outcomes as they become known.

Imports bundle, calibrate, data and this package; needs no training library.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import ALL_UNITS, Certificate, Unit
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate.certificate import Verdict
from lesion_triage.calibrate.sequential import estimate, log_evidence_below, lower_bound
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.clinic.arguments import require_place, save
from lesion_triage.clinic.follow_up import Counted, FollowedCase, count, parse_day, read_cases
from lesion_triage.clinic.watch_figure import draw
from lesion_triage.console import echo
from lesion_triage.errors import CalibrationError, ConfigError


@dataclass(frozen=True)
class Known:
    """Of how many cases the outcome was to become known, and of how many it is."""

    wanted: int
    known: int

    @property
    def missing(self) -> int:
        """Outcomes that are not known."""
        return self.wanted - self.known


@dataclass(frozen=True)
class Watch:
    """How a certificate fares so far."""

    certificate_id: str
    unit: Unit
    """What the certificate counts."""
    certified_groups: int
    """Of which the certificate promises the target, too; none is tested."""
    target: float
    confidence: float
    cases: int
    of_other_certificates: int
    first_arrival: datetime
    last_arrival: datetime
    referred: Known
    """Cases that were referred or not scored."""
    drawn: Known
    """Cases below the threshold that were drawn."""
    below_threshold: int
    positives: int
    """Counted positive cases."""
    misses: int
    later_cases: int
    """As ``Counted.later_cases``."""
    not_drawn: int
    """As ``Counted.not_drawn``."""
    estimate: float | None
    lower_bound: float
    log_evidence: float
    """That the sensitivity is below the target, now; a natural logarithm."""
    greatest_log_evidence: float
    failed_at: datetime | None
    """Arrival of the case with which the evidence became enough; None: it never did."""
    verdict: Verdict
    counted: Counted
    """What the figure draws."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of the bundle that answered these cases")
    parser.add_argument(
        "--cases",
        type=Path,
        nargs="+",
        required=True,
        metavar="CSV",
        help="follow-up.csv of the page's exports, oldest first, or a table of your own",
    )
    parser.add_argument(
        "--until",
        type=_day,
        metavar="DAY",
        help="only cases that arrived before this day (UTC); outcomes of later ones are not in yet",
    )
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw it over time; needs matplotlib")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")


def main(arguments: argparse.Namespace) -> int:
    """Print how the certificate of a bundle fares. Returns 0, or 1 if it fails.

    Raises:
        BundleError: the bundle is incomplete or altered.
        DataError: a table cannot be used.
        CalibrationError: none of its cases was answered under this certificate.
        ConfigError: matplotlib is missing, or a file cannot be written.
    """
    if arguments.figure is not None and find_spec("matplotlib") is None:
        raise ConfigError(
            f"--figure {arguments.figure}: matplotlib is not installed; pip install matplotlib, or omit "
            "--figure."
        )
    for option in ("json", "figure"):
        if (path := getattr(arguments, option)) is not None:
            require_place(f"--{option}", path)
    found = watch(open_bundle(arguments.bundle).certificate, read_cases(arguments.cases), arguments.until)
    for line in _lines(found):
        echo(f"  {line}")
    if arguments.json is not None:
        save("--json", arguments.json, canonical_json(_document(found)).encode())
    if arguments.figure is not None:
        save("--figure", arguments.figure, draw(found))
    return 1 if found.verdict == "fails" else 0


def watch(certificate: Certificate, cases: Sequence[FollowedCase], until: datetime | None = None) -> Watch:
    """Test a certificate on the cases that were answered under it.

    Args:
        certificate: its target and its confidence are tested.
        cases: in order of arrival; those of other certificates are left out and counted.
        until: cases that arrived then or later are left out.

    Raises:
        CalibrationError: no case is left.
    """
    wanted = certificate.certificate_id()
    early = [case for case in cases if until is None or case.arrived_at < until]
    own = [case for case in early if case.certificate_id == wanted]
    if not early:
        raise CalibrationError(
            f"no case arrived before {until:%Y-%m-%d}." if until and cases else "the tables have no case."
        )
    if not own:
        raise CalibrationError(
            f"none of {len(early)} case(s) was answered under the certificate {wanted} of this bundle; give "
            "the bundle that answered them."
        )
    counted = count(early, wanted)
    evidence = log_evidence_below(certificate.target_sensitivity, counted.missed, counted.share)
    enough = np.flatnonzero(evidence >= -math.log1p(-certificate.confidence))
    bound = lower_bound(certificate.confidence, counted.missed, counted.share)
    verdict: Verdict = "undecided"
    if enough.size:
        verdict = "fails"
    elif bound >= certificate.target_sensitivity and not _counts_less(certificate, counted):
        verdict = "holds"
    below = [case for case in own if case.missed]
    return Watch(
        certificate_id=wanted,
        unit=certificate.unit,
        certified_groups=sum(row.by != ALL_UNITS and row.status == "certified" for row in certificate.groups),
        target=certificate.target_sensitivity,
        confidence=certificate.confidence,
        cases=len(own),
        of_other_certificates=len(early) - len(own),
        first_arrival=own[0].arrived_at,
        last_arrival=own[-1].arrived_at,
        referred=_known([case for case in own if not case.missed]),
        drawn=_known([case for case in below if case.drawn]),
        below_threshold=len(below),
        positives=counted.missed.size,
        misses=int(np.count_nonzero(counted.missed)),
        later_cases=counted.later_cases,
        not_drawn=counted.not_drawn,
        estimate=estimate(counted.missed, counted.share),
        lower_bound=bound,
        log_evidence=float(evidence[-1]) if evidence.size else 0.0,
        greatest_log_evidence=float(evidence.max(initial=0.0)),
        failed_at=_arrival(counted, enough),
        verdict=verdict,
        counted=counted,
    )


def _counts_less(certificate: Certificate, counted: Counted) -> bool:
    """Whether the certificate promises more than is counted here.

    It misses a patient if it misses any of the patient's cases, and only the first of them is counted. So
    what holds here need not hold there.
    """
    return certificate.unit == "patient" and counted.later_cases > 0


def _arrival(counted: Counted, enough: NDArray[np.intp]) -> datetime | None:
    return counted.arrived_at[int(enough[0])] if enough.size else None


def _known(cases: Sequence[FollowedCase]) -> Known:
    return Known(len(cases), sum(case.needs_in_person is not None for case in cases))


def _lines(found: Watch) -> Iterator[str]:
    days = f"{found.first_arrival:%Y-%m-%d} to {found.last_arrival:%Y-%m-%d}"
    yield (
        f"certificate {found.certificate_id}: sensitivity >= {found.target:g} at "
        f"{format_percent(found.confidence)}% confidence; {found.cases} case(s), {days}"
    )
    if found.of_other_certificates:
        yield f"left out {found.of_other_certificates} case(s) that were answered under other certificates"
    yield (
        f"outcome known of {found.referred.known} of {found.referred.wanted} referred or not scored, and of "
        f"{found.drawn.known} of {found.drawn.wanted} drawn among {found.below_threshold} below the threshold"
    )
    if missing := found.referred.missing + found.drawn.missing:
        yield (
            f"{missing} outcome(s) are missing: what follows holds only if that has nothing to do with what "
            "they are; end with --until where they are not in yet"
        )
    if not found.below_threshold:
        yield (
            "WARNING: no case is below the threshold, so no miss can be among them: if such cases were "
            "answered and are not in the tables, nothing of what follows holds"
        )
    if found.later_cases:
        reach = "; the certificate counts patients, so nothing here can show that it holds"
        yield (
            f"not counted: {found.later_cases} case(s) of people who have an earlier one"
            f"{reach if found.unit == 'patient' else ''}"
        )
    if found.not_drawn:
        yield (
            f"not counted: {found.not_drawn} missed positive case(s) that became known without having been "
            "drawn; look at them, but others like them stay unknown"
        )
    share = "" if found.estimate is None else f"; estimated sensitivity {found.estimate:.3f}"
    yield f"counted: {found.positives} positive case(s), {found.misses} of them missed{share}"
    yield (
        f"the sensitivity is at least {math.floor(found.lower_bound * 1e3) / 1e3:.3f} with "
        f"{format_percent(found.confidence)}% confidence, however often one looks, if it has not changed"
    )
    yield (
        f"evidence that it is below {found.target:g}: {_number(found.log_evidence)}, at most "
        f"{_number(found.greatest_log_evidence)} so far; {_number(-math.log1p(-found.confidence))} is enough"
    )
    yield _verdict(found)


def _verdict(found: Watch) -> str:
    if found.failed_at is not None:
        return (
            f"the certificate FAILS, at the latest since {found.failed_at:%Y-%m-%d}: refer every case, find "
            "out why, and certify again"
        )
    if found.verdict == "holds" and found.certified_groups:
        return (
            "the certificate HOLDS for all cases together: a lower sensitivity is refuted; its "
            f"{found.certified_groups} certified group(s) are not tested one by one"
        )
    if found.verdict == "holds":
        return "the certificate HOLDS: a lower sensitivity is refuted"
    return "UNDECIDED: these cases refute neither the target nor a lower sensitivity"


def _number(log_value: float) -> str:
    """A quantity whose logarithm this is; beyond a million only its power of ten."""
    if log_value > math.log(1e6):
        return f"over 1e{math.floor(log_value / math.log(10))}"
    return f"{math.exp(log_value):.3g}"


def _document(found: Watch) -> dict[str, object]:
    times = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (
            ("first_arrival", found.first_arrival),
            ("last_arrival", found.last_arrival),
            ("failed_at", found.failed_at),
        )
    }
    numbers = asdict(found) | times
    del numbers["counted"]
    return numbers


def _day(text: str) -> datetime:
    try:
        return parse_day(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-11-30, found '{text}'") from None
