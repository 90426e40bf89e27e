"""The certificate as the page shows it: reference classes are numbered, all else is unchanged.

Imports the bundle's certificate and policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lesion_triage.bundle.certificate import ALL_UNITS, Certificate, GroupRow
from lesion_triage.bundle.schema import Policy

_REFERENCE_CLASS = "reference_class"


RowThreshold = float | Literal["by_group", "goes_up"]
"""Threshold of a group's cases; ``by_group``: each case has its group's; ``goes_up``: any refers."""


@dataclass(frozen=True)
class CertificateView:
    """What the template needs beside the certificate."""

    rows: Sequence[tuple[GroupRow, RowThreshold]]
    """Each row with the threshold its cases are compared with."""
    class_numbers: Mapping[str, int]
    """Number of each reference class: their names are names of conditions, which the page does not show."""
    assumptions: Sequence[str]
    has_group_thresholds: bool
    """Whether groups have thresholds of their own."""
    has_group_rows: bool
    """Whether there are rows for groups beside the row for all."""


def build_view(certificate: Certificate, policy: Policy) -> CertificateView:
    """Prepare a certificate, and the policy it was issued for, to be shown."""
    names = [row.group for row in certificate.groups if row.by == _REFERENCE_CLASS]
    class_numbers = {name: number for number, name in enumerate(names, start=1)}
    return CertificateView(
        rows=[(row, _row_threshold(row, certificate, policy)) for row in certificate.groups],
        class_numbers=class_numbers,
        assumptions=[_number_classes(sentence, class_numbers) for sentence in certificate.assumptions],
        has_group_thresholds=certificate.rule == "group_thresholds",
        has_group_rows=any(row.by != ALL_UNITS for row in certificate.groups),
    )


def _row_threshold(row: GroupRow, certificate: Certificate, policy: Policy) -> RowThreshold:
    if row.by == ALL_UNITS:
        return "by_group" if certificate.rule == "group_thresholds" else certificate.threshold
    for grouping in policy.groupings:
        if grouping.by == row.by:
            thresholds = [grouping.thresholds[name] for name in row.members if name in grouping.thresholds]
            return min(thresholds) if thresholds else "goes_up"
    return certificate.threshold


def _number_classes(sentence: str, class_numbers: Mapping[str, int]) -> str:
    for name in sorted(class_numbers, key=len, reverse=True):
        sentence = sentence.replace(f"{_REFERENCE_CLASS} {name} ", f"class {class_numbers[name]} ")
    return sentence
