"""Findings as data: what was measured, against which limit, and the verdict. Imports config and the bundle.

A check returns a finding even if it found nothing, so a report lists everything that was checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from lesion_triage.audit.wording import WORDS
from lesion_triage.bundle.document import canonical_json
from lesion_triage.config import Audit
from lesion_triage.errors import AuditError, ManifestError

FORMAT = 4
"""Version of ``audit.json``; also raised if the same data would be judged by other numbers."""


class Verdict(StrEnum):
    """Ordered from good to bad."""

    PASS = "pass"  # noqa: S105 - a verdict
    WARN = "warn"
    FAIL = "fail"


_SEVERITY = tuple(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of the verdicts; pass if there are none."""
    return max(verdicts, key=_SEVERITY.index, default=Verdict.PASS)


def verdict_for(value: float, warn: float, fail: float) -> Verdict:
    """Compare a number with two limits, which it must exceed; NaN, an unknown number, passes."""
    return Verdict.FAIL if value > fail else Verdict.WARN if value > warn else Verdict.PASS


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number with its 95 % interval. None if it could not be estimated."""

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: str = ""
    """In words: what is compared with what."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    code: str
    """A key of ``wording.WORDS``."""
    verdict: Verdict
    summary: str
    """One sentence with the numbers that decided."""
    measured: tuple[Measurement, ...] = ()
    subjects: tuple[str, ...] = ()
    """Sources or columns concerned."""
    local: tuple[str, ...] = ()
    """Names of pictures, lesions or patients. They go to ``names.csv`` in the run folder and into no
    report."""
    accepted: str = ""
    """The reason given in the configuration; empty if the finding is not accepted."""

    @property
    def counts_as(self) -> Verdict:
        """Verdict that counts towards the report's: an accepted failure remains a warning, never a pass."""
        return Verdict.WARN if self.accepted and self.verdict is Verdict.FAIL else self.verdict


def not_estimable(code: str, why: str) -> Finding:
    """A finding on what could not be estimated. It warns: nobody has verified that there is nothing."""
    return Finding(
        code, Verdict.WARN, f"Not estimable: {why}. It is unknown whether there is anything to find."
    )


@dataclass(frozen=True, slots=True)
class Table:
    """Counts for the report. Cells are text or numbers; the first column names the row."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True)
class Report:
    """All findings of one audit, and the tables behind them."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was audited: counts, hashes, settings."""

    @property
    def verdict(self) -> Verdict:
        """Verdict of the worst finding; an accepted failure counts as a warning."""
        return worst(finding.counts_as for finding in self.findings)

    def to_json(self) -> str:
        """Canonical JSON."""
        findings = [
            {
                **{key: value for key, value in asdict(one).items() if key != "local"},
                "title": WORDS[one.code].title,
                "counts_as": one.counts_as,
            }
            for one in self.findings
        ]
        return canonical_json(
            {
                "format": FORMAT,
                "verdict": self.verdict,
                "findings": findings,
                "tables": [asdict(table) for table in self.tables],
                "facts": dict(self.facts),
            }
        )

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Report:
        """Read back the parsed output of ``to_json``.

        Raises:
            ManifestError: another format, or incomplete.
        """
        try:
            if content["format"] != FORMAT:
                raise KeyError("format")
            findings = tuple(
                Finding(
                    code=one["code"],
                    verdict=Verdict(one["verdict"]),
                    summary=one["summary"],
                    measured=tuple(Measurement(**number) for number in one["measured"]),
                    subjects=tuple(one["subjects"]),
                    accepted=one["accepted"],
                )
                for one in content["findings"]
            )
            tables = tuple(
                Table(one["name"], one["caption"], tuple(one["columns"]), tuple(map(tuple, one["rows"])))
                for one in content["tables"]
            )
            return cls(findings, tables, content["facts"])
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestError(f"audit.json: not a report of this version ({error}); audit again.") from None


def apply_acceptances(findings: Sequence[Finding], config: Audit) -> tuple[Finding, ...]:
    """Attach the configuration's reasons to the failures that they cover.

    A reason covers a failure only if it names every subject, so that accepting one source does not accept
    the next one.
    """
    return tuple(
        replace(one, accepted=reason)
        if one.verdict is Verdict.FAIL
        and (reason := config.accept.get(one.code, ""))  # type: ignore[call-overload]
        and all(_mentions(subject, reason) for subject in one.subjects)
        else one
        for one in findings
    )


def _mentions(subject: str, reason: str) -> bool:
    """Whether a reason contains a name as a whole word: ``clinic-10`` does not accept ``clinic-1``.

    Whitespace separates names; any run of whitespace, line breaks included, counts as one space.
    """
    name = re.escape(_one_line(subject))
    return re.search(rf"(?<![\w./-]){name}(?![\w/-]|\.\w)", _one_line(reason)) is not None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def refuse_failures(report: Report, config: Audit, page: str) -> None:
    """Raise for the first failure that is not accepted.

    Raises:
        AuditError: names the finding, and how to accept it on purpose.
    """
    failures = [one for one in report.findings if one.counts_as is Verdict.FAIL]
    if not failures:
        return
    codes = ", ".join(f"'{one.code}'" for one in failures)
    why = _one_line(f"{failures[0].summary} {_remedy(failures, config)}")
    raise AuditError(f"the audit failed on {codes}: {why}; see {page}.")


def _remedy(failures: Sequence[Finding], config: Audit) -> str:
    if not all(WORDS[one.code].acceptable for one in failures):
        return "This cannot be accepted: split again"
    parts = []
    for one in failures:
        names = f" that names {', '.join(one.subjects)}" if one.subjects else ""
        short = "; the reason given does not cover all of it" if one.code in config.accept else ""
        parts.append(f"audit.accept.{one.code}{names}{short}")
    return f"Correct the data, or, to continue deliberately, give a reason under {', and under '.join(parts)}"
