"""The certificate as the page shows it: reference classes are numbered, all else is unchanged.

Imports the bundle's certificate and policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lesion_triage.bundle.certificate import ALL, Certificate, GroupRow
from lesion_triage.bundle.schema import Policy

_NAMED = "reference_class"


Served = float | Literal["by_group", "goes_up"]
"""Threshold of a group's cases; ``by_group``: each case has its group's; ``goes_up``: any refers."""


@dataclass(frozen=True)
class Shown:
    """What the template needs beside the certificate."""

    rows: Sequence[tuple[GroupRow, Served]]
    """Each row with the threshold its cases are compared with."""
    classes: Mapping[str, int]
    """Number of each reference class: their names are names of conditions, which the page does not show."""
    assumptions: Sequence[str]
    by_group: bool
    """Whether groups have thresholds of their own."""
    together: bool
    """Whether there are rows for groups beside the row for all."""


def build_view(certificate: Certificate, policy: Policy) -> Shown:
    """Prepare a certificate, and the policy it was issued for, to be shown."""
    names = [row.group for row in certificate.groups if row.by == _NAMED]
    classes = {name: number for number, name in enumerate(names, start=1)}
    return Shown(
        rows=[(row, _served(row, certificate, policy)) for row in certificate.groups],
        classes=classes,
        assumptions=[_numbered(said, classes) for said in certificate.assumptions],
        by_group=certificate.rule == "group_thresholds",
        together=any(row.by != ALL for row in certificate.groups),
    )


def _served(row: GroupRow, certificate: Certificate, policy: Policy) -> Served:
    if row.by == ALL:
        return "by_group" if certificate.rule == "group_thresholds" else certificate.threshold
    for grouping in policy.groupings:
        if grouping.by == row.by:
            own = [grouping.thresholds[name] for name in row.members if name in grouping.thresholds]
            return min(own) if own else "goes_up"
    return certificate.threshold


def _numbered(said: str, classes: Mapping[str, int]) -> str:
    for name in sorted(classes, key=len, reverse=True):
        said = said.replace(f"{_NAMED} {name} ", f"class {classes[name]} ")
    return said
